"""The idle prompt: what an agent would like most, as it stands when the schedule fires.

It lists, and asks for nothing: whether a wish becomes a goal is the agent's own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from promptyoself.desires import Ranked, living, strongest
from promptyoself.settings import desire_half_life

if TYPE_CHECKING:
    from promptyoself.service.store import Store

__all__ = ["FLOOR", "LISTED", "render", "strongest_of"]

LISTED = 10
"""So many of an agent's desires an idle prompt lists."""

FLOOR = 0.01
"""What has faded to less isn't listed there any more: from full strength, that takes nearly seven
half-lives."""

_HEAD = (
    "You are idle. These are your strongest desires at this moment, the strongest first, each with "
    "its id, its strength from 0 to 1 and its tags. This is a list, not an instruction: none of "
    "them has been made a goal."
)
_TAIL = (
    "The promptyoself commands `reinforce` (by id), `desire`, `desires` and `prune` keep this list."
)


def render(ranked: Sequence[Ranked]) -> str:
    """The prompt for some desires. Each takes one line, so that no text can pass for another's."""
    return "\n".join((_HEAD, "", *map(_line, ranked), "", _TAIL))


def _line(ranked: Ranked) -> str:
    strength, desire = ranked
    tags = f" [{', '.join(desire.tags)}]" if desire.tags else ""
    return f"- {desire.id} ({strength:.2f}) {' '.join(desire.text.split())}{tags}"


def strongest_of(store: Store) -> Callable[[str, datetime], list[Ranked]]:
    """Asks for what an idle prompt lists: an agent's strongest desires at an instant. Their log is
    read when that is first asked for, and again each time, as far as it has grown.

    What is returned raises ``PromptyoselfError`` or ``OSError`` where they can't be told.
    """

    def ask(agent_id: str, now: datetime) -> list[Ranked]:
        half_life = desire_half_life(store.settings)
        with store.desires.naming():
            state = store.desires.index.load().state  # not `read`, which may write an index
        return strongest(living(state, agent_id), now, half_life, limit=LISTED, at_least=FLOOR)

    return ask
