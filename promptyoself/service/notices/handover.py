"""How one notice goes to its destination: its words are found in the log, and then it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import Destination
from promptyoself.ledger import Envelope
from promptyoself.rules.notices.sending import Refusal
from promptyoself.service.notices.digest import digest_of
from promptyoself.service.notices.notice import Notice, NoticeError
from promptyoself.service.notices.senders import destination_agent, send
from promptyoself.service.notices.words import notice_of
from promptyoself.state.schedules import OwedNotice
from promptyoself.store.store import Store

_MOST_AROUND = 20
"""How many events of the same append are read on each side of the one that is told of."""


class Taken(NamedTuple):
    """A destination has taken a notice."""

    http_status: int | None


HandedOver = Taken | Refusal | Notice
"""What came of it. A notice itself is for an agent: it becomes a prompt, which is registered with
the event that it was sent."""


def hand_over(
    store: Store,
    destination: Destination,
    owed: OwedNotice,
    name: str | None,
    since: datetime | None,
    zone: str,
    clock: Callable[[], datetime],
) -> HandedOver:
    """Send a notice, once. ``name`` is that of its schedule. ``since`` is the beginning of the time
    that a digest tells of, whose times are shown in ``zone``.

    ``store`` may be used by another thread meanwhile: only its files are.
    """
    own = Store(store.settings, store.actor, warn=store.warn)
    try:
        if since is None:
            notice = notice_of(owed, name, list(_events_told(own, owed)))
        else:
            notice = _digest(own, owed, since, zone, clock())
    except (PromptyoselfError, OSError) as error:
        code = error.code if isinstance(error, PromptyoselfError) else "io_error"
        return Refusal(code, f"What it tells of could not be read: {sentence(error)}")
    if destination_agent(destination) is not None:
        return notice
    try:
        timeout = store.settings.call_timeout
        return Taken(send(destination, notice, timeout=timeout, now=clock()))
    except NoticeError as error:
        is_final = error.kind == "permanent"
        return Refusal(error.code, error.message, is_final, error.status, error.retry_after)


def _digest(store: Store, owed: OwedNotice, since: datetime, zone: str, now: datetime) -> Notice:
    until = parse_utc(owed.at)
    events = (event for _, event in store.tail(format_utc(since)[:7]).read())
    return digest_of(owed.to, store.snapshot().state, events, since, until, zone, now)


def _events_told(store: Store, owed: OwedNotice) -> Iterator[Envelope]:
    """The event that a notice tells of, and those of its schedule that were appended with it, in
    order. None, where the log has lost it."""
    month, _, number = owed.place.partition(":")
    told = store.event(int(number), month)
    if told is None or told.id != owed.id:
        return
    if owed.kind == "reply":
        yield told
        return
    around: list[Envelope] = [told]
    for step in (-1, 1):
        for distance in range(1, _MOST_AROUND + 1):
            event = store.event(told.seq + step * distance, month)
            if event is None or event.ts != told.ts:
                break
            around.append(event)
    yield from sorted((e for e in around if e.id == owed.id), key=lambda event: event.seq)
