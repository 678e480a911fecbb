"""The options that several commands have, and the types of their values."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import click

from promptyoself.core.errors import WrongUsage

schedule_option = click.option(
    "--id", "id_", required=True, metavar="ID", help="The schedule: sch_… ."
)
only_agent_option = click.option("--agent-id", metavar="AGENT", help="Only this agent's.")
reason_option = click.option("--reason", metavar="TEXT", help="Why.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would happen; change nothing."
)
tag_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated."
)


class Seconds(click.FloatRange):
    """A number of seconds, or a duration such as ``10s`` or ``1m30s``. ``nan`` is refused: no
    comparison with a bound would do that."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See :meth:`click.ParamType.convert`."""
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
        """See :meth:`click.ParamType.convert`."""
        if isinstance(value, str):
            digits, _, zeros = value.partition(".")
            if zeros and not zeros.strip("0"):
                value = digits
        whole: int = super().convert(value, param, ctx)
        if isinstance(value, str) and not value.isascii():  # int() takes any script's digits
            self.fail(f"{value!r} is not a valid integer range.", param, ctx)
        return whole


def refuse_repeats(command: click.Command, arguments: Sequence[str]) -> None:
    """Refuse an option that is given twice but may be given once.

    Click would take the last and drop the others without a word. The two names of a flag are the
    same option.

    Raises:
        WrongUsage: ``repeated_option``.
    """
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    given: dict[click.Option, str] = {}
    repeated: tuple[str, str] | None = None
    words = iter(arguments)
    for word in words:
        if word == "--help":
            return
        if word == "--":
            break
        name, has_value, _ = word.partition("=")
        option = options.get(name)
        if option is None:
            continue
        if not (has_value or option.is_flag or option.count):
            next(words, None)  # its value, whatever that looks like
        if not option.multiple:
            repeated = repeated or ((given[option], name) if option in given else None)
            given[option] = name
    if repeated is None:
        return
    first, second = repeated
    what = f"{first} was" if first == second else f"{first} and {second} were both"
    hint = "Give it once" if first == second else "Give one of them"
    if first == "--id":
        hint += f", and call `{command.name}` again for each other id"
    raise WrongUsage(
        "repeated_option",
        f"{what} given{' more than once' if first == second else ''}; nothing was done.",
        f"{hint}.",
    )
