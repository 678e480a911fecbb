"""What an idle prompt lists: the agent's strongest desires when the schedule fires.

It is a list and no instruction. The agent itself decides whether a desire becomes a goal.
"""

from collections.abc import Callable
from datetime import datetime

from promptyoself.core.settings import desire_half_life
from promptyoself.rules.prompts import IDLE_FLOOR, IDLE_LISTED
from promptyoself.state.desires import Ranked, living, strongest
from promptyoself.store.store import Store


def desire_ranking(store: Store) -> Callable[[str, datetime], list[Ranked]]:
    """A function that gives an agent's strongest desires at an instant. At each call it reads what
    has been added to the desires' log since the call before. It raises ``PromptyoselfError`` or
    ``OSError`` if the desires can't be read."""

    def rank(agent_id: str, now: datetime) -> list[Ranked]:
        half_life = desire_half_life(store.settings)
        with store.desires.naming():
            state = store.desires.snapshot().state  # not `read`, which may write an index
        ranked = strongest(living(state, agent_id), now, half_life, at_least=IDLE_FLOOR)
        return ranked[:IDLE_LISTED]

    return rank
