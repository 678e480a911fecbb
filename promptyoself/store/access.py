"""What a caller may reach: a schedule by its id, unless it is another agent's."""

from __future__ import annotations

from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.state.schedules import (
    Schedule,
    State,
)
from promptyoself.store.chain import Chain

__all__ = [
    "find_schedule",
    "forbidden",
    "pinned",
    "unknown_desire",
]


def unknown_desire(id_: str) -> PromptyoselfError:
    """The refusal of an id that no desire has."""
    shown = id_ if len(id_) <= 80 else id_[:80] + "…"
    return PromptyoselfError(
        "unknown_id",
        f"There is no desire {shown!r}.",
        "`promptyoself desires` shows the ids there are.",
    )


def find_schedule(state: State, id_: str, only_agent: str | None) -> Schedule:
    """The schedule of that id.

    Raises:
        PromptyoselfError: ``unknown_id``; ``forbidden_agent`` where it is another agent's than the
            one that the caller is pinned to.
    """
    schedule = state.schedules.get(id_)
    if schedule is None:
        shown = id_ if len(id_) <= 80 else id_[:80] + "…"
        raise PromptyoselfError(
            "unknown_id",
            f"There is no schedule {shown!r}.",
            "`promptyoself list --status all` shows the ids there are.",
        )
    if only_agent is not None and schedule.agent_id != only_agent:
        raise forbidden(f"{id_} belongs to another agent than", only_agent)
    return schedule


def forbidden(what: str, only_agent: str) -> PromptyoselfError:
    """The refusal of ``what`` isn't the one agent that the caller is pinned to."""
    return PromptyoselfError(
        "forbidden_agent",
        f"{what} {only_agent!r}.",
        "PROMPTYOSELF_ONLY_AGENT, or a header of the call, pins this caller to that agent.",
    )


def pinned(store: Chain[Any], agent_id: str | None) -> str | None:
    """The agent that this caller is pinned to, if any.

    Raises:
        PromptyoselfError: ``forbidden_agent``: ``agent_id`` is another.
    """
    only = store.settings.only_agent
    if only is not None and agent_id not in (None, only):
        raise forbidden(f"--agent-id {(agent_id or '')[:200]!r} is not", only)
    return only
