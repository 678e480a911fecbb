"""Which id a schedule gets, by its content."""

from promptyoself.core.ids import content_hash, schedule_id
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import content_of
from promptyoself.state.schedules import Schedule, State

MAX_SALT = 1
"""The largest salt that an import may bring along. A schedule needs a larger one only where its
content gives an id that another schedule has, both without a salt and with a salt of 1. Among
10,000 schedules, that meets one content in 200 billion."""


def id_for_content(state: State, record: ScheduleRegistered) -> tuple[str, int, Schedule | None]:
    """The id for the content of a registration, the salt that the id needs, and the schedule that
    has this content already, if there is one.

    A schedule that was imported keeps the salt that it needed elsewhere. So the search goes on to
    :data:`MAX_SALT` even where a smaller salt is free.
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
