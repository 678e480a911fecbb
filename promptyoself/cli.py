"""The entry: a Click group whose commands load when called, and the one place where errors become
the JSON document that every caller can rely on.

It is also the file that a Sanctum host runs by its path, in a folder of plugins that has ours, or a
copy of it, or a link.
"""

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn


def _run_by_path() -> None:
    """Become the package that this file lies in, and no other that may be installed."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = os.path.dirname(os.path.realpath(__file__))
    # Python has put our folder first, where `log`, say, would be ours and not another's.
    sys.path[:1] = []
    spec = spec_from_file_location(
        "promptyoself", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(folder)
    sys.modules["promptyoself"] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    try:
        from promptyoself import cli as entry  # noqa: PLW0406 (here we are another)
    except ModuleNotFoundError as error:
        import json

        message = f"{sys.executable} lacks the package {error.name!r}."
        hint = "Run `promptyoself install-plugin` where promptyoself is installed."
        answer = {"status": "error", "code": "missing_package", "message": message, "hint": hint}
        print(json.dumps({**answer, "error": f"{message} {hint}"}))
        sys.exit(1)
    entry.main(via="sanctum")  # nobody else runs us by our path


if __name__ == "__main__" and not __package__:
    _run_by_path()

import click

from promptyoself import __version__
from promptyoself.doors.arguments import from_host, normalise_flags, refuse_closed, refuse_repeats
from promptyoself.doors.options import help_option, no_schedule
from promptyoself.doors.output import (
    Document,
    emit,
    error_document,
    format_of,
    from_click_error,
    in_words_of_door,
    is_for_people,
)
from promptyoself.doors.registry import AGENT_FACING, COMMANDS, GROUPS
from promptyoself.doors.session import Caller


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, not before."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :meth:`click.Group.resolve_command`; options may be spelled in more than one way,
        none may be given twice, and agents have no more than is described to them."""
        caller = ctx.find_object(Caller)
        through_host = caller is not None and caller.via == "sanctum"
        if through_host:
            refuse_closed(args[0])
        name, command, rest = super().resolve_command(ctx, args)
        if command is None:
            return name, command, rest
        rest = from_host(command, rest) if through_host else normalise_flags(command, rest)
        refuse_repeats(command, rest)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them by group, each with the whole first sentence of its help."""
        caller = ctx.find_object(Caller)
        if caller is not None and caller.via == "sanctum":
            self._format_for_hosts(ctx, formatter)
            return
        longest = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(longest), self._sentence(ctx, name, 1000)) for name in names]
                )

    def _format_for_hosts(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them, those first that agents may call: a Sanctum host that doesn't know
        ``--describe`` reads their names from this section, a line each."""
        others = [name for name in COMMANDS if name not in AGENT_FACING]
        limit = formatter.width - 6 - max(map(len, COMMANDS))
        for title, names in (("Available commands", AGENT_FACING), ("Other commands", others)):
            with formatter.section(title):
                formatter.write_dl([(name, self._sentence(ctx, name, limit)) for name in names])

    def _sentence(self, ctx: click.Context, name: str, limit: int) -> str:
        """The first sentence of a command's help, cut after ``limit`` characters."""
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(limit)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"promptyoself.doors.commands.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        if ctx.resilient_parsing:  # a shell asks what could be typed next
            from promptyoself.doors.completion import offer_values

            offer_values(command)
        return command


def _describe(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.command, click.Group):
        from promptyoself.doors.sanctum import describe

        emit(describe(ctx.command))
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    epilog="`promptyoself help COMMAND` tells more of a command.",
)
@click.version_option(__version__, prog_name="promptyoself")
@click.option(
    "--describe",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_describe,
    help="Print what a Sanctum host asks for: the commands for agents, as JSON.",
)
@help_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A clock of their own for Letta agents.

    Register prompts that an agent will get later: once, on a cron expression, or at an interval.
    At a terminal every command answers in a form for people, and in a pipe with one JSON document.
    Times that name no zone are in PROMPTYOSELF_TZ's, else in the machine's; for agents in UTC.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None, via: str = "cli") -> NoReturn:
    """Run one command and exit: 0; 1 for an error, 2 for wrong usage, each with its document.

    ``via`` is the door, as it is recorded with every event. What ``install-plugin`` has written
    calls this by name.
    """
    if arguments is None:
        # A command imports much and lives a moment: looking for garbage costs it 5 % or so.
        gc.set_threshold(50_000, 10, 10)
    code = _run(arguments, via)
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


def _run(arguments: Sequence[str] | None, via: str = "cli") -> int:
    if sys.stderr is None:  # closed: `print` would then write to stdout
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        print("promptyoself: stdout is closed, so nothing was done.", file=sys.stderr)
        return 1
    if arguments is None and "_PROMPTYOSELF_COMPLETE" in os.environ:
        from promptyoself.doors.completion import run_completion

        return run_completion(cli)
    called = _in_full(sys.argv[1:] if arguments is None else arguments, via)
    try:
        try:
            code = cli.main(called, "promptyoself", standalone_mode=False, obj=Caller(via))
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            for_people = via == "cli" and is_for_people(format_of(called))
            foreseen = no_schedule(error) if for_people else None
            answered = foreseen or from_click_error(error, called, COMMANDS)
            document, code = error_document(answered)
            name = next((word for word in called if word in COMMANDS), None)
            context = click.Context(cli, info_name=name)
            _print_error(in_words_of_door(via, context, document), for_people=for_people)
            sys.stdout.flush()
            return code
    except OSError as error:
        # The answer can't be written: its reader has gone, or the disk is full. Leave no
        # second complaint at the interpreter's exit.
        sys.stdout = None
        if not isinstance(error, BrokenPipeError):
            print(f"promptyoself: the answer could not be written: {error}", file=sys.stderr)
        return 1


def _in_full(arguments: Sequence[str], via: str) -> Sequence[str]:
    """The arguments, with ``help list`` as ``list --help``. Agents have no such command."""
    if via == "sanctum" or list(arguments[:1]) != ["help"]:
        return arguments
    return [*arguments[1:2], "--help"]


def _print_error(document: Document, *, for_people: bool) -> None:
    """Print an error that came before the command knew in which form to answer, or that no command
    foresaw."""
    if not for_people:
        emit(document)
        return
    from promptyoself.doors.display import Reader, display

    display("", document, Reader())


if __name__ == "__main__":
    main()
