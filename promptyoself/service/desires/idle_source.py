"""The idle prompt: what an agent would like most, as it stands when the schedule fires.

It lists, and asks for nothing: whether a wish becomes a goal is the agent's own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from promptyoself.core.settings import desire_half_life
from promptyoself.rules.prompts import IDLE_FLOOR, IDLE_LISTED
from promptyoself.state.desires import Ranked, living, strongest

if TYPE_CHECKING:
    from promptyoself.store.store import Store

__all__ = ["desire_ranking"]


def desire_ranking(store: Store) -> Callable[[str, datetime], list[Ranked]]:
    """Asks for what an idle prompt lists: an agent's strongest desires at an instant. Their log is
    read when that is first asked for, and again each time, as far as it has grown.

    What is returned raises ``PromptyoselfError`` or ``OSError`` where they can't be told.
    """

    def ask(agent_id: str, now: datetime) -> list[Ranked]:
        half_life = desire_half_life(store.settings)
        with store.desires.naming():
            state = store.desires.snapshot().state  # not `read`, which may write an index
        return strongest(
            living(state, agent_id), now, half_life, limit=IDLE_LISTED, at_least=IDLE_FLOOR
        )

    return ask
