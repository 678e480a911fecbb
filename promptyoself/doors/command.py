"""How a command is run: its session, its limits, and its answer."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from promptyoself.core.diagnostics import redact_prompt, register_secrets
from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.long_work import limited
from promptyoself.core.times import parse_zone
from promptyoself.doors import output
from promptyoself.doors.options import help_option, reader_zone_option
from promptyoself.doors.output import Document
from promptyoself.doors.registry import READERS
from promptyoself.doors.session import Caller, Session

PROGRAM_DOORS = frozenset({"mcp", "sanctum"})
"""The doors through which programs call, most of them for an agent."""

MAX_SECONDS = 10.0
"""The longest time that a command which only reads may take when a program calls it."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""The longest answer of such a call."""


def command(
    name: str, *, mends_settings: bool = False, shows_times: bool = False
) -> Callable[[Callable[..., Document | None]], click.Command]:
    """Make a command of a function, which gets a :class:`Session` and the command's own options.

    The document that the function returns is printed, or returned to the program that called. A
    function that prints for itself returns ``None``. A command that ``mends_settings`` is called
    although a setting is wrong, which every other command refuses. One that ``shows_times`` lets a
    person name the zone of the times that are given and shown.
    """

    def make_command(function: Callable[..., Document | None]) -> click.Command:
        @functools.wraps(function)
        def run(
            *,
            var: str | None,
            format_: str | None,
            no_pager: bool,
            reader_zone: str | None = None,
            **options: Any,
        ) -> Document | None:
            common = _Common(var, format_, no_pager, reader_zone)
            return _run(function, common, options, mends_settings=mends_settings)

        click_command = click.command(name, context_settings={"show_default": True})(run)
        click_command.params += [reader_zone_option()] if shows_times else []
        click_command.params += [
            click.Option(
                ["--var"], metavar="DIR", help="The data directory (else PROMPTYOSELF_VAR)."
            ),
            click.Option(
                ["--format", "format_"],
                type=click.Choice(output.FORMATS),
                help="table for people, json for programs; auto is table at a terminal "
                "(PROMPTYOSELF_FORMAT).",
            ),
            click.Option(
                ["--no-pager"], is_flag=True, help="Print long answers at once, without a pager."
            ),
        ]
        return help_option(click_command)

    return make_command


class _Common(NamedTuple):
    """The options that every command has, and the one of those that show times."""

    var: str | None
    format: str | None
    no_pager: bool
    reader_zone: str | None


def _run(
    function: Callable[..., Document | None],
    common: _Common,
    options: dict[str, Any],
    *,
    mends_settings: bool,
) -> Document | None:
    """Call a command's function, and print or return what it answers."""
    if common.var == "":
        raise WrongUsage("invalid_value", "--var is empty.", "Name a folder, or leave it out.")
    context = click.get_current_context()
    name = context.command_path.partition(" ")[2]
    caller = context.find_object(Caller) or Caller()
    session = Session(
        common.var,
        caller,
        format_=common.format,
        command=name,
        paged=not common.no_pager,
        mends_settings=mends_settings,
    )
    is_limited = name in READERS and caller.via in PROGRAM_DOORS
    stop = caller.stop
    limit = limited(MAX_SECONDS, lambda: stop is not None and stop.why is not None)
    with _log_crashes(session, options.get("prompt")):
        try:
            if common.reader_zone is not None:
                session.settings = session.settings._replace(
                    timezone=parse_zone(common.reader_zone)
                )
            if options.get("agent_id"):
                options["agent_id"] = session.agent_named(options["agent_id"], warns=False)
            with limit if is_limited else session.watched():
                answer = function(session, **options)
        except PromptyoselfError as error:
            if session.warnings:
                error.details.setdefault("warning", " ".join(session.warnings))
            if not session.for_people:
                raise
            session.print(error.document())
            raise click.exceptions.Exit(error.exit_code) from None
    if answer is None:
        return None
    document = {"status": "success", **answer}
    if session.warnings:
        own = [document["warning"]] if "warning" in document else []
        document["warning"] = " ".join([*own, *session.warnings])
    if is_limited:
        _require_short(document)
    if stop is not None:
        return document
    session.print(output.in_words_of_door(caller.via, context, document))
    return None


def _require_short(document: Document) -> None:
    size = len(output.to_json(document))
    if size > MAX_ANSWER_BYTES:
        raise PromptyoselfError(
            "answer_too_large",
            f"The answer has {size} bytes; {MAX_ANSWER_BYTES} is the most that is sent.",
            "Ask for less: with limit, for a shorter time, or for a single schedule.",
        )


@contextmanager
def _log_crashes(session: Session, prompt: object) -> Iterator[None]:
    """Write the traceback of an unforeseen error to the diagnostics, without the prompt."""
    try:
        yield
    except (PromptyoselfError, OSError, click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        import traceback

        text = "".join(traceback.format_exception(error))
        if isinstance(prompt, str) and not session.settings.log_prompts:
            register_secrets(prompt)
            text = redact_prompt(text, prompt)
        session.log.record("internal_error", level="error", traceback=text)
        raise


def call_command(command: click.Command, arguments: Sequence[str], caller: Caller) -> bytes:
    """Call a command, or one of a group, from within a program; several threads may do so at once.

    The answer is the JSON document that the command line would have printed, also of an error.
    """
    try:
        answer = command.main(list(arguments), "promptyoself", standalone_mode=False, obj=caller)
        if not isinstance(answer, dict):
            raise TypeError(f"{arguments} gave no document")
    except (Exception, KeyboardInterrupt) as error:
        answer, _ = output.error_document(output.from_click_error(error, arguments, ()))
    return output.to_json(answer)
