"""Schedules: register, change, end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.ids import is_agent_id
from promptyoself.core.setting_values import close_destination
from promptyoself.core.times import parse_zone, shown
from promptyoself.doors.command import command
from promptyoself.doors.options import (
    ChoiceOrNone,
    Whole,
    dry_run_option,
    reason_option,
    schedule_option,
)
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session
from promptyoself.events.schedule_fields import FIELDS, POLICY, RENDERERS

if TYPE_CHECKING:
    from promptyoself.service.schedules.request import Request
    from promptyoself.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def _option_of(name: str) -> Callable[[F], F]:
    """The option of a schedule's field, as the table of fields describes it."""
    field = FIELDS[name]
    option = field.option or "--" + name.replace("_", "-")
    if field.type is bool or field.form == "renderer":
        flags = f"{option}/--no-{option.removeprefix('--')}"
        callback = _renderer if field.form == "renderer" else None
        return click.option(flags, name, default=None, callback=callback, help=field.help)
    if field.type is list:
        return click.option(
            option,
            name,
            multiple=True,
            metavar=field.metavar,
            callback=lambda *given: given[-1] or None,
            help=field.help,
        )
    kind: click.ParamType[Any] | None = None
    if field.values:
        choice = ChoiceOrNone if field.can_be_unset else click.Choice
        kind = Whole() if field.type is int else choice([*map(str, field.values)])
    return click.option(
        option,
        *field.aliases,
        name,
        type=kind,
        metavar=field.metavar or None,
        help=field.help,
    )


def _renderer(_: click.Context, __: click.Parameter, on: bool | None) -> str | None:
    """The language of a prompt with values; an empty text where there are to be none."""
    return None if on is None else RENDERERS[0] if on else ""


_trigger_options = _options(
    click.option("--time", metavar="T", help="Once: 2027-01-31T09:00, friday 9am, in 1h."),
    click.option(
        "--cron", metavar="EXPR", help="A cron expression: 0 9 * * MON-FRI, 0 9 L * *, @daily."
    ),
    click.option("--every", metavar="DURATION", help="90s, 2h30m, 1d, 1mo; weekday at 9."),
    click.option("--rrule", metavar="RULE", help="A rule: FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9."),
    click.option("--when", metavar="WORDS", help="In words: tomorrow 9am, every weekday at 9."),
    *map(_option_of, ("start_at", "until", "max_repetitions", "timezone")),
)

_HELPED_FIRST = ("misfire", "grace", "name", "conversation_id", "target", "envelope")
_policy_options = _options(
    *map(_option_of, _HELPED_FIRST),
    *(_option_of(name) for name in POLICY if name not in _HELPED_FIRST and FIELDS[name].help),
    reason_option,
)

_registration_options = _options(
    _option_of("agent_id"),
    _option_of("prompt"),
    click.option(
        "--prompt-file", metavar="FILE", help="The same from a file in UTF-8; - for stdin."
    ),
    _option_of("template"),
    _option_of("render"),
    _trigger_options,
    _policy_options,
)


@command("register")
@_registration_options
@click.option(
    "--from", "from_", metavar="FILE", help="Many, from a file in TOML or JSON lines; - for stdin."
)
@click.option("--check", is_flag=True, help="Ask Letta first if it knows the agent.")
@dry_run_option
def register_command(
    session: Session, from_: str | None, check: bool, dry_run: bool, **options: Any
) -> Document:
    """Schedule a prompt to an agent, once or repeatedly.

    Give the prompt and one of --time, --cron and --every; times are local, for agents UTC, unless
    --tz names a zone. Answers with the id, which later commands need, and next_run. The same
    content again changes nothing and answers with the same id.
    """
    from promptyoself.core.text_limits import check_agent_id
    from promptyoself.service.schedules.register import register

    if from_ is not None:
        if check or any(value is not None for value in options.values()):
            raise WrongUsage(
                "conflicting_options",
                "--from was given with another option.",
                "Write that into the file: its keys are the names of the options.",
            )
        return _register_all(session, from_, dry_run=dry_run)
    _put_ids_for_names(session, options)
    request = _request(options)
    agent_id = request.agent_id or session.settings.only_agent or session.settings.default_agent
    if check and agent_id:
        from promptyoself.doors.commands.delivery import require_agent
        from promptyoself.events.target_names import target_of

        target = target_of(check_agent_id(agent_id), request.target)
        require_agent(session.settings, agent_id, target)
    _warn_of_conversation(session, request, agent_id)
    _warn_of_zone(session, request)
    answer = session.scheduled(
        partial(register, request=request, now=session.now(), dry_run=dry_run)
    )
    if request.target == "broca" and not dry_run:
        from promptyoself.doors.commands.listing import warn_of_brocas

        warn_of_brocas(session, session.store(), [answer["id"]])
    return answer


def _register_all(session: Session, source: str, *, dry_run: bool) -> Document:
    from promptyoself.doors.commands.transfer import beside, opened
    from promptyoself.service.files.registrations import MAX_BYTES, register_all

    session.command = "register --from"
    with opened(source) as file:
        content = file.read(MAX_BYTES + 1)
    now = session.now()

    understood = ids_for_names(session)

    def registered(store: Store) -> Document:
        answer = register_all(
            store, content, now, dry_run=dry_run, understood=understood, tell=beside(session)
        )
        return {"file": source, **answer}

    return session.scheduled(registered)


@command("idle")
@_option_of("agent_id")
@_trigger_options
@_policy_options
@dry_run_option
def idle_command(session: Session, dry_run: bool, **options: Any) -> Document:
    """Schedule a prompt that lists the agent's desires.

    Those are its ten strongest, as they are when it fires. Use it to be reminded, now and then, of
    what you would like: it lists and asks for nothing. The same as `register --template idle`, and
    it answers the same, with id and next_run; where there are no desires then, nothing is sent.
    """
    from promptyoself.service.schedules.register import register
    from promptyoself.service.schedules.request import Request

    _put_ids_for_names(session, options)
    request = Request(template="idle", **options)
    _warn_of_conversation(session, request, request.agent_id or session.settings.default_agent)
    _warn_of_zone(session, request)
    return session.scheduled(partial(register, request=request, now=session.now(), dry_run=dry_run))


@command("modify")
@schedule_option()
@_registration_options
def modify_command(session: Session, id_: str, **options: Any) -> Document:
    """Change the fields of a schedule that are given.

    Its id and history stay. An empty text unsets a field that may be left out. Answers with what
    was modified, and next_run.
    """
    from promptyoself.service.schedules.change import modify

    _put_ids_for_names(session, options)
    request, id_ = _request(options), session.schedule_id(id_)
    _warn_of_conversation(session, request, request.agent_id)
    return session.scheduled(partial(modify, id_=id_, request=request, now=session.now()))


@command("next")
@schedule_option("A schedule; or give a trigger as in register.", required=False)
@_trigger_options
@click.option("--count", type=Whole(1, 1000), default=5, help="How many.")
def next_command(session: Session, id_: str | None, count: int, **options: Any) -> Document:
    """Show when a schedule, or a trigger, will fire next.

    Use it to try an expression before `register`. Answers with fires, each in UTC and in the zone's
    own time.
    """
    from promptyoself.service.schedules.request import Request
    from promptyoself.service.schedules.times.fires import next_fires, planned_fires

    request, now = Request(**options), session.now()
    if id_ is not None and session.for_people and request.timezone is not None:
        # A schedule has a zone of its own, so this is the reader's.
        zone, request = parse_zone(request.timezone), request._replace(timezone=None)
        session.settings = session.settings._replace(timezone=zone)
    if id_ is None:
        _warn_of_zone(session, request)
        return planned_fires(request, session.store().settings, count, now)
    if request != Request():
        raise WrongUsage(
            "conflicting_options", "Both --id and a trigger were given.", "Give one of them."
        )
    store = session.reading()
    return {"fires": next_fires(store, session.schedule_id(id_, store), count)}


def ids_for_names(session: Session) -> Callable[[Request], Request]:
    """What makes a request of somebody's text: it puts ids in the place of names of agents, and
    warns a person as `register` does."""

    @cache  # a file names few agents, many times
    def ids_of(agent_id: str | None, on_failure: str | None) -> dict[str, str | None]:
        named = {"agent_id": agent_id, "on_failure": on_failure}
        _put_ids_for_names(session, named)
        return named

    def with_ids(request: Request) -> Request:
        changed: Request = request._replace(**ids_of(request.agent_id, request.on_failure))
        return changed

    return with_ids


def _put_ids_for_names(session: Session, options: dict[str, Any]) -> None:
    """Put the ids of agents in the place of their names, as far as Letta has told them. What
    ``--on-failure`` names is a destination where there is one of that name. A person is warned of
    what may be a slip."""
    options["agent_id"] = session.agent_named(options["agent_id"])
    whom = options["on_failure"]
    pinned = session.settings.only_agent is not None
    destinations = {} if pinned else session.settings.destinations
    if not whom or whom in destinations:
        return
    close = close_destination(destinations, whom) if destinations else None
    options["on_failure"] = session.agent_named(whom, warns=close is None)
    if close is not None and options["on_failure"] == whom and not is_agent_id(whom):
        session.add_warning(
            f"There is no destination {shown(whom)}, so --on-failure tells an agent of that id. "
            f"Did you mean {close}?"
        )


def _warn_of_conversation(session: Session, request: Request, agent_id: str | None) -> None:
    """Warn a person of a conversation that is probably mistyped.

    ``agent_id`` tells the target, if the request doesn't.
    """
    text = request.conversation_id
    if not text or not session.for_people:
        return
    from promptyoself.core.times import shown
    from promptyoself.events.target_names import is_likely_conversation, target_of

    target = target_of(agent_id or "", request.target) if agent_id or request.target else None
    if not is_likely_conversation(text, target):
        session.add_warning(
            f"{shown(text)} is neither new nor default, and doesn't look like a conversation's id."
        )


def _warn_of_zone(session: Session, request: Request) -> None:
    from promptyoself.service.schedules.times.asked import needs_zone

    if request.timezone is None and needs_zone(request):
        session.warn_of_zone()


def _request(options: dict[str, Any]) -> Request:
    from promptyoself.service.schedules.request import Request

    names = ("prompt", "prompt_file", "template")
    given = [name.replace("_", "-") for name in names if options[name] is not None]
    if len(given) > 1:
        raise WrongUsage(
            "conflicting_options", f"Both --{given[0]} and --{given[1]} were given.", "Give one."
        )
    source = options.pop("prompt_file")
    if source is not None:
        options["prompt"] = _read_prompt(source)
    return Request(**options)


def _read_prompt(source: str) -> str:
    from promptyoself.core.text_limits import MAX_PROMPT_BYTES, prompt_too_long
    from promptyoself.core.texts import NotUTF8, message_of

    # A byte too many, a byte order mark, and a line end for each byte, which counts half or less.
    most = 2 * MAX_PROMPT_BYTES + 6
    try:
        if source == "-":
            content = sys.stdin.buffer.read(most) if sys.stdin is not None else b""
        else:
            with open(source, "rb") as file:
                content = file.read(most)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PromptyoselfError(
            "unreadable_prompt_file",
            f"--prompt-file {source!r} can't be read: {reason}.",
            "Check the path; - means stdin.",
        ) from None
    if len(content) == most:
        raise prompt_too_long(f"more than {MAX_PROMPT_BYTES}")
    try:
        return message_of(content)
    except NotUTF8 as error:
        raise PromptyoselfError(
            "invalid_prompt", f"--prompt-file {source!r} {error}.", error.hint
        ) from None
