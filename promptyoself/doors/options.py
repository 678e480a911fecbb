"""The options that several commands have, and the types of their values."""

import functools
from collections.abc import Callable, Mapping
from math import isnan
from typing import Any, NamedTuple, TypeVar, cast

import click

from promptyoself.core.errors import WrongUsage

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A number of seconds, or a duration such as ``10s`` or ``1m30s``. ``nan`` is refused: no
    comparison with a bound would do that."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, str):
            from promptyoself.core.times import number_of_seconds

            duration = number_of_seconds(value)
            value = value if duration is None else duration
        seconds: float = super().convert(value, param, ctx)
        if isnan(seconds) or (isinstance(value, str) and not value.isascii()):
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return seconds


class Whole(click.IntRange):
    """A whole number. ``5.0`` is taken as well, since some hosts write all numbers like that."""

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str):
            digits, _, zeros = value.partition(".")
            if zeros and not zeros.strip("0"):
                value = digits
        whole: int = super().convert(value, param, ctx)
        if isinstance(value, str) and not value.isascii():  # int() takes any script's digits
            self.fail(f"{value!r} is not a valid integer range.", param, ctx)
        return whole


class ChoiceOrNone(click.Choice[str]):
    """One of several words, or an empty text, which unsets what the option sets."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return "" if value == "" else super().convert(value, param, ctx)


HELP = ("--help", "-h")
"""The options that ask for help."""

help_option = click.help_option(*HELP)


class ScheduleArgument(click.Argument):
    """A schedule as a plain argument, which stands for ``--id``. It is for people; agents aren't
    told of it."""


class _Replaceable(click.Option):
    """An option that is needed only where nothing else names what it would name."""

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """What the help says beside the option: not that it is required, which isn't true."""
        extra = super().get_help_extra(ctx)
        extra.pop("required", None)
        return extra


class _ScheduleOption(_Replaceable):
    """The option ``--id``, in whose place there may be a :class:`ScheduleArgument`."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        plain = opts.get("schedule")
        if isinstance(plain, str):
            if isinstance(opts.get(str(self.name)), str):
                raise WrongUsage(
                    "conflicting_options",
                    "A schedule was named both by --id and without it.",
                    "Name it once.",
                )
            opts = {**opts, str(self.name): plain}
        return super().handle_parse_result(ctx, opts, args)


class _SeveralOption(_Replaceable):
    """The option ``--id``, which isn't needed where several schedules are named or chosen."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        chooses = any(_is_given(opts.get(name)) for name in (_SCHEDULES, *_CHOICES))
        if chooses and not isinstance(opts.get(str(self.name)), str):
            ctx.params[str(self.name)] = None
            return None, args
        return super().handle_parse_result(ctx, opts, args)


def no_schedule(error: BaseException) -> WrongUsage | None:
    """What a person is told who named no schedule, if that is the error; programs are told which
    option is missing."""
    missing = error.param if isinstance(error, click.MissingParameter) else None
    if not isinstance(missing, _ScheduleOption | _SeveralOption):
        return None
    return WrongUsage(
        "missing_option",
        "No schedule was named.",
        "Name a schedule: its id, its name, or the beginning of its id. `promptyoself list` "
        "shows them.",
    )


def schedule_option(
    help_: str = "Its id (sch_…) or name.", *, required: bool = True
) -> Callable[[F], F]:
    """The option ``--id``, or the schedule as a plain argument."""
    option = click.option(
        "--id", "id_", cls=_ScheduleOption, required=required, metavar="ID", help=help_
    )
    argument = click.argument(
        "schedule", cls=ScheduleArgument, required=False, expose_value=False, metavar="[SCHEDULE]"
    )
    return lambda function: option(argument(function))


def several_option(
    help_: str = "Its id (sch_…) or name.", *, required: bool = True
) -> Callable[[F], F]:
    """The option ``--id``, several schedules as plain arguments, or the options that choose them:
    those of an agent, of a tag, or all. A function gets the last ones as a :class:`Choice`."""
    options = (
        click.option(
            "--id", "id_", cls=_SeveralOption, required=required, metavar="ID", help=help_
        ),
        click.option("--agent-id", metavar="AGENT", help="All of this agent's."),
        click.option(
            "--tag",
            "tags",
            multiple=True,
            metavar="TAG",
            help="All with this tag; may be repeated.",
        ),
        click.option("--all", "all_", is_flag=True, help="All that aren't over."),
        click.option("--yes", is_flag=True, help="Don't ask."),
        click.argument(
            _SCHEDULES, cls=ScheduleArgument, nargs=-1, required=False, metavar="[SCHEDULE]..."
        ),
    )

    def apply(function: F) -> F:
        @functools.wraps(function)
        def run(session: Any, **given: Any) -> Any:
            choice = Choice(*(given.pop(name) for name in Choice._fields))
            return function(session, choice, **given)

        for option in reversed(options):
            run = option(run)
        return cast(F, run)

    return apply


_SCHEDULES = "schedules"
_CHOICES = ("agent_id", "tags", "all_")


class Choice(NamedTuple):
    """The schedules that a command is to change, as a person has named or chosen them."""

    id_: str | None
    schedules: tuple[str, ...]
    agent_id: str | None
    tags: tuple[str, ...]
    all_: bool
    yes: bool


def _is_given(value: object) -> bool:
    return value is True or (isinstance(value, str | tuple | list) and bool(value))


only_agent_option = click.option("--agent-id", metavar="AGENT", help="Only this agent's.")
reason_option = click.option("--reason", metavar="TEXT", help="Why.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would happen; change nothing."
)
tag_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated."
)


def reader_zone_option() -> click.Option:
    """The option ``--tz`` of commands that show times. Agents don't have it."""
    return click.Option(
        ["--tz", "reader_zone"],
        metavar="ZONE",
        help="The zone of the times that you give and see (else PROMPTYOSELF_TZ).",
    )


limit_option = click.option("--limit", type=Whole(1, 10**9), metavar="N", help="How many at most.")
