"""Commands that have commands of their own, such as ``config set``."""

from difflib import get_close_matches

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.arguments import normalise_flags, refuse_repeats
from promptyoself.doors.options import HELP, help_option

_UNCUT = 1000  # characters: more than any summary has


class CommandGroup(click.Group):
    """A command that has others. Called without one of them, it is its ``default``."""

    def __init__(self, name: str, default: str, help_: str) -> None:
        super().__init__(name, help=help_)
        help_option(self)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :meth:`click.Group.parse_args`."""
        first = args[0] if args else ""
        named = bool(first) and (not first.startswith("-") or first in HELP)
        if not named and not ctx.resilient_parsing:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See :meth:`click.Group.get_command`."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and ctx.resilient_parsing:  # a shell asks what could be typed next
            from promptyoself.doors.completion import offer_values

            offer_values(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See :meth:`click.Group.format_commands`; no summary is cut."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, self.commands[name].get_short_help_str(_UNCUT))
                    for name in self.list_commands(ctx)
                ]
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :meth:`click.Group.resolve_command`; options may be spelled as elsewhere, and none
        may be given twice.

        Raises:
            WrongUsage: ``unknown_command``, ``repeated_option``.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            close = get_close_matches(args[0], self.commands, 1)
            names = ", ".join(f"`{self.name} {name}`" for name in self.commands)
            raise WrongUsage(
                "unknown_command",
                f"There is no command {shown(f'{self.name} {args[0]}')}.",
                f"Did you mean `{self.name} {close[0]}`?" if close else f"There are: {names}.",
            )
        name, command, rest = super().resolve_command(ctx, args)
        if command is None or ctx.resilient_parsing:
            return name, command, rest
        rest = normalise_flags(command, rest)
        refuse_repeats(command, rest)
        return name, command, rest
