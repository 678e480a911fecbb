"""What one pass tells the next of destinations that took no notice: how long they are let alone,
and how often a digest was tried.

A loop knows it by itself. A pass of ``execute`` ends soon, and another one would wait again for a
destination that never answers. The log tells how often other notices were tried. What is lost here
costs one try: the file may be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson

from promptyoself.core.disk import read_ours
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import settings_path
from promptyoself.events.records import NoticeFailed, NoticeSent
from promptyoself.service.notices.definitions import stamp_of
from promptyoself.state.schedules import OwedNotice
from promptyoself.store.store import Store

V = TypeVar("V")

_MOST_TRIES = 1_000_000
"""A digest that was tried that often can't be: it is sent for a day, with pauses."""

_FILE, _FORMAT = "notices.json", 1


class Pause(NamedTuple):
    """A destination that isn't tried ``until`` an instant."""

    failures: int  # in a row
    until: datetime


class TriedDigest(NamedTuple):
    """A digest that a destination has not taken."""

    notice: str
    tries: int
    retry_at: str | None  # None: it is sent again at once


class Remains:
    """What the pass before has left, and what this one knows and leaves to the next."""

    def __init__(self, store: Store | None) -> None:
        """Without a store, nothing was left, and nothing is: that is so in a process that lasts."""
        self._store = store
        self._before: _Left | None = None
        self._pauses: dict[str, Pause | None] = {}  # None: there is none any more
        self._digests: dict[str, TriedDigest | None] = {}  # the same

    def pause_of(self, to: str) -> tuple[int, datetime | None]:
        """How often in a row a destination took nothing, and until when it is let alone, as the
        pass before has left it."""
        return self._read().pauses.get(to) or (0, None)

    def with_tries(self, digest: OwedNotice) -> OwedNotice:
        """A digest with the number of tries, and the time of the next, that the pass before has
        left."""
        tried = self._read().digests.get(digest.to)
        if tried is None or tried.notice != digest.notice:
            return digest
        return digest._replace(tries=tried.tries, retry_at=tried.retry_at)

    def has_tried_digest(self, to: str) -> bool:
        """Whether the latest digest for a destination was tried, and not taken."""
        return (self._digests if to in self._digests else self._read().digests).get(to) is not None

    def note_pause(self, to: str, pause: Pause | None) -> None:
        """Leave a pause of a destination, or none."""
        self._pauses[to] = pause

    def note_record(self, record: NoticeSent | NoticeFailed) -> None:
        """Leave how often a digest was tried that wasn't taken."""
        if record.kind != "digest":
            return
        self._digests[record.to] = None
        if isinstance(record, NoticeFailed):
            tried = TriedDigest(record.notice, record.tries, record.retry_at)
            self._digests[record.to] = tried

    def leave(self) -> None:
        """Write it down. Where there is nothing, there is no file. Never fails. Only the process
        that sends may do it."""
        before = self._read()
        left = _Left(
            _without_none({**before.pauses, **self._pauses}),
            _without_none({**before.digests, **self._digests}),
        )
        if self._store is not None and left != before:
            _write(self._store, left)

    def _read(self) -> _Left:
        if self._before is None:
            self._before = _NOTHING if self._store is None else _read(self._store)
        return self._before


class _Left(NamedTuple):
    """What a pass leaves, by destination."""

    pauses: Mapping[str, Pause]
    digests: Mapping[str, TriedDigest]


_NOTHING = _Left({}, {})


def _without_none(values: Mapping[str, V | None]) -> dict[str, V]:
    return {name: value for name, value in values.items() if value is not None}


def _read(store: Store) -> _Left:
    """What was left. If the file of settings has changed since, there is no pause, and a digest is
    sent again at once: that may have mended what was wrong. A file that can't be read counts as
    none."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        kept = orjson.loads(read_ours(store.settings.var / _FILE))
        if kept["format"] == _FORMAT:
            is_same = kept["settings"] == _stamp()
            pauses = kept["pauses"].items() if is_same else ()
            return _Left(
                {
                    name: Pause(int(pause["failures"]), parse_utc(pause["until"]))
                    for name, pause in pauses
                },
                {name: _tried(digest, is_same) for name, digest in kept.get("digests", {}).items()},
            )
    return _NOTHING


def _tried(kept: Mapping[str, Any], is_same: bool) -> TriedDigest:
    tries = int(kept["tries"])
    if not 0 < tries < _MOST_TRIES:
        raise ValueError(tries)
    retry_at = format_utc(parse_utc(kept["retry_at"])) if is_same and kept["retry_at"] else None
    return TriedDigest(str(kept["notice"]), tries, retry_at)


def _write(store: Store, left: _Left) -> None:
    path = store.settings.var / _FILE
    if left == _NOTHING:
        store.disk.discard(path)
        return
    content = {
        "format": _FORMAT,
        "settings": _stamp(),
        "pauses": {
            name: {"failures": pause.failures, "until": format_utc(pause.until)}
            for name, pause in left.pauses.items()
        },
        "digests": {name: tried._asdict() for name, tried in left.digests.items()},
    }
    with suppress(OSError):
        store.disk.replace(path, orjson.dumps(content), durable=False)


def _stamp() -> list[int] | None:
    stamp = stamp_of(settings_path())
    return None if stamp is None else list(stamp)
