"""Sealing the months that are over, and recording it."""

from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.events.records import SegmentSealed
from promptyoself.index.index import Snapshot
from promptyoself.ledger import HeadMoved, Position
from promptyoself.ledger.sealing import Sealing, UnknownMonth
from promptyoself.ledger.segments import is_month
from promptyoself.service.upkeep.answers import Sealed, SealedMonth
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains

REPACK_FROM_MEMBERS = 20_000
"""From this number of small members on, the running month is repacked: reading them takes most of a
second."""

_TRIES = 3


def seal(
    store: Chain[Any], now: datetime, month: str | None = None, *, timeout: float | None = None
) -> Sealed:
    """Rewrite months that are over into large gzip members of the same lines, and record it.

    ``month`` is one such as ``2026-10``; ``None`` is every one that isn't sealed yet. ``timeout``
    is how many seconds to wait for another process that seals.

    Raises:
        PromptyoselfError: ``invalid_month``, ``unknown_month``, ``month_not_over``,
            ``lock_timeout``, ``head_moved`` where the month keeps growing.
        ChainError: such a month is damaged, or ``newer_events``.
        OSError: the disk refused. Months sealed before that stay sealed.
    """
    if month is not None and not is_month(month):
        raise PromptyoselfError(
            "invalid_month",
            f"--month {month[:80]!r} is not a month.",
            "Give it as YYYY-MM, in UTC: 2026-10.",
        )
    if month is not None and month not in store.months():
        raise UnknownMonth(month)
    store.require_whole()
    over = _over(store, store.read(), now)
    sealed: list[SealedMonth] = []
    if month is not None or over:
        _refuse_newer(store, now)
        ledger, _ = store.ledger_and_index()
        with ledger.sealing(timeout) as sealing:
            recorded = sealing.recorded()
            for candidate in over if month is None else [month]:
                if candidate not in recorded:
                    sealed.append(_seal(store, sealing, candidate, now))
    return {"sealed": sealed, "message": _message(sealed, month)}


def seal_all(
    store: Store, now: datetime, month: str | None = None, name: str | None = None
) -> Sealed:
    """:func:`seal` of one chain, or of all. Months of the desires' chain bear its name.

    Raises:
        As :func:`seal`; ``unknown_month`` where none of the chains has it.
    """
    sealed: list[SealedMonth] = []
    sealable = chains(store, name)
    if len(sealable) > 1 and month is not None:
        sealable = [chain for chain in sealable if month in chain.months()] or sealable[:1]
    for chain in sealable:
        with chain.naming():
            for entry in seal(chain, now, month)["sealed"]:
                if chain is not store:
                    entry["chain"] = chain.name
                sealed.append(entry)
    return {"sealed": sealed, "message": _message(sealed, month)}


def repack(store: Chain[Any], now: datetime, *, timeout: float | None = None) -> int:
    """Rewrite the running month into large gzip members, if it has many small ones. Its lines and
    their hashes stay, so nothing is recorded. Returns how many small members there were, or 0.

    Raises:
        PromptyoselfError: ``lock_timeout``; ``head_moved`` where it was rewritten meanwhile.
        ChainError, OSError: as :func:`seal`.
    """
    _refuse_newer(store, now)
    ledger, _ = store.ledger_and_index()
    with ledger.sealing(timeout) as sealing:
        position = store.snapshot().position
        if position.month < format_utc(now)[:7]:
            return 0  # it is over, and will be sealed
        small = sealing.count_small_members(position.month)
        if small < REPACK_FROM_MEMBERS:
            return 0
        prepared = sealing.repack(position)
        with store.exclusive():
            _refuse_newer(store, now)
            state, position = store.snapshot()
            sealing.put_in_place(prepared, position, partial(_write_index, store, state))
    return small


def has_unsealed(store: Chain[Any], snapshot: Snapshot[Any], now: datetime) -> bool:
    """Whether fewer months were ever sealed than are over. The log isn't read for that."""
    return bool(len(_over(store, snapshot, now)) > snapshot.state.counts.get("segment.sealed", 0))


def _over(store: Chain[Any], snapshot: Snapshot[Any], now: datetime) -> list[str]:
    """The months to which no event can be added, since the next one would bear a later month."""
    last = snapshot.position
    return [
        month
        for month in store.months()
        if month <= last.month and month < max(format_utc(now), last.ts)[:7]
    ]


def _seal(store: Chain[Any], sealing: Sealing, month: str, now: datetime) -> SealedMonth:
    for _ in range(_TRIES - 1):
        # A process whose clock is behind may add an event to the month meanwhile.
        with suppress(HeadMoved):
            return _try_to_seal(store, sealing, month, now)
    return _try_to_seal(store, sealing, month, now)


def _try_to_seal(store: Chain[Any], sealing: Sealing, month: str, now: datetime) -> SealedMonth:
    prepared = sealing.prepare(month, now)
    record = SegmentSealed(month, prepared.events, prepared.content_sha256)
    # What takes long was done without the lock. From now on nobody can append until the record is
    # there, which lies in a later month.
    with store.exclusive():
        _refuse_newer(store, now)
        state, position = store.snapshot()
        sealing.put_in_place(prepared, position, partial(_write_index, store, state))
        store.transact(now, lambda _: ([store.draft(record, None)], None))
    return {
        "month": month,
        "events": prepared.events,
        "content_sha256": prepared.content_sha256,
        "bytes_before": prepared.end.offset,
        "bytes_after": prepared.offset,
    }


def _write_index(store: Chain[Any], state: Any, moved: Position) -> None:
    _, index = store.ledger_and_index()
    index.save(Snapshot(state, moved), moved=True)


def _refuse_newer(store: Chain[Any], now: datetime) -> None:
    """Raise ``newer_events`` if a newer version has written. Otherwise every event is durable now,
    so that an index may contain it."""
    store.transact(now, lambda _: ([], None))


def _message(sealed: list[SealedMonth], month: str | None) -> str:
    if sealed:
        return "1 month sealed." if len(sealed) == 1 else f"{len(sealed)} months sealed."
    return f"{month} is sealed already." if month else "There is no month to seal."
