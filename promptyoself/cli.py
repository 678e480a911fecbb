"""The entry: a Click group whose commands load when called, and the one place where errors become
the JSON document that every caller can rely on."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from promptyoself import __version__
from promptyoself.commands.answering import emit, error_document
from promptyoself.errors import PromptyoselfError, WrongUsage

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "register": "schedules",
    "list": "schedules",
    "show": "schedules",
    "cancel": "schedules",
    "pause": "schedules",
    "resume": "schedules",
    "modify": "schedules",
    "trigger": "schedules",
    "next": "schedules",
    "execute": "delivery",
    "agents": "delivery",
    "test": "delivery",
    "history": "chain",
    "verify": "chain",
    "head": "chain",
    "rebuild": "chain",
    "seal": "chain",
    "stats": "chain",
    "export": "moving",
    "import": "moving",
    "import-sqlite": "moving",
    "audit": "audit",
    "diff": "audit",
    "keygen": "proof",
    "pack": "proof",
    "doctor": "setup",
    "sandbox": "setup",
    "demo": "setup",
}
"""Each command, and the module under ``promptyoself.commands`` that has it."""


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"promptyoself.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command


@click.group(cls=_LazyGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="promptyoself")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A clock of their own for Letta agents.

    Register prompts that an agent will get later: once, on a cron expression, or at an interval.
    Every command prints one JSON document; times are UTC unless a zone is named.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0; 1 for an error, 2 for wrong usage, each with its document."""
    # A command imports much and lives a moment: looking for garbage meanwhile costs it 5 % or so.
    gc.set_threshold(50_000, 10, 10)
    code = _run(arguments)
    threads = "threading" in sys.modules and sys.modules["threading"].active_count() > 1
    if arguments is not None or threads:
        sys.exit(code)
    # Nothing is left to do but to take the interpreter apart, which costs as much as half the
    # imports. What was promised is on the disk, and the answer has been written.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    if sys.stderr is None:  # closed: `print` would then write to stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        print("promptyoself: stdout is closed, so nothing was done.", file=sys.stderr)
        return 1
    try:
        try:
            code = cli.main(arguments, "promptyoself", standalone_mode=False)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            document, code = error_document(_translated(error, arguments))
            emit(document)
            sys.stdout.flush()
            return code
    except OSError as error:
        # The answer can't be written: whoever read it has gone, or its disk is full. Leave no
        # second complaint at the interpreter's exit.
        sys.stdout = None
        if not isinstance(error, BrokenPipeError):
            print(f"promptyoself: the answer could not be written: {error}", file=sys.stderr)
        return 1


def _translated(error: BaseException, arguments: Sequence[str] | None) -> BaseException:
    """Click's own complaints in our form; everything else as it is."""
    if isinstance(error, click.Abort):
        return KeyboardInterrupt()
    if isinstance(error, click.UsageError):
        called = (sys.argv[1:] if arguments is None else arguments)[:1]
        command = " ".join(["promptyoself", *(word for word in called if word in COMMANDS)])
        code, hint = _usage_code(error), f"See `{command} --help`."
        if code == "unknown_command" and called:
            from difflib import get_close_matches

            close = " or ".join(get_close_matches(called[0], COMMANDS))
            hint = f"Did you mean {close}? {hint}" if close else hint
        return WrongUsage(code, _sentence(error), hint)
    if isinstance(error, click.ClickException):
        return PromptyoselfError("invalid_value", _sentence(error))
    return error


def _usage_code(error: click.UsageError) -> str:
    if error.message.startswith("No such command"):
        return "unknown_command"
    codes: dict[type[Any], str] = {
        click.NoSuchOption: "unknown_option",
        click.MissingParameter: "missing_option",
        click.BadParameter: "invalid_value",
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), "wrong_usage")


def _sentence(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text if text.endswith((".", "?", "!")) else text + "."


if __name__ == "__main__":
    main()
