"""Which id the content of a schedule gets."""

from __future__ import annotations

from promptyoself.core.ids import content_hash, schedule_id
from promptyoself.events.records import (
    ScheduleRegistered,
)
from promptyoself.events.schedule_fields import content_of
from promptyoself.state.schedules import Schedule, State

__all__ = ["MAX_SALT", "id_for_content"]


MAX_SALT = 1
"""The largest salt that an import may bring along. A schedule needs a larger one where two others
have the first two ids of its content: among 10,000, for one content in 200 billion."""


def id_for_content(state: State, record: ScheduleRegistered) -> tuple[str, int, Schedule | None]:
    """The id for some content, the salt it needs, and the schedule that has that content.

    One that was imported keeps the salt that it needed elsewhere, so the search goes on to
    :data:`MAX_SALT` even where a smaller one is free.
    """
    content = record.first_content or content_of(record)
    registered = content_hash(content)
    free: tuple[str, int] | None = None
    salt = 0
    while free is None or salt <= MAX_SALT:
        id_ = schedule_id(content, salt)
        existing = state.schedules.get(id_)
        if existing is not None and existing.registered == registered:
            return id_, salt, existing
        if existing is None and free is None:
            free = id_, salt
        salt += 1
    return *free, None
