"""How long destinations are let alone that took no notice, as one pass tells the next.

A loop knows it by itself. A pass of ``execute`` ends soon, and another one would wait again for a
destination that never answers. What is lost here costs one try: the file may be deleted.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import orjson

from promptyoself.core.disk import read_ours
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import settings_path
from promptyoself.service.notices.definitions import stamp_of
from promptyoself.store.store import Store

_FILE, _FORMAT = "notices.json", 1


class Pause(NamedTuple):
    """A destination that isn't tried ``until`` an instant."""

    failures: int  # in a row
    until: datetime


def read_pauses(store: Store) -> dict[str, Pause]:
    """The pauses that the pass before has left, by destination. None where the file of settings has
    changed since: that may have mended what was wrong. A file that can't be read counts as none."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        kept = orjson.loads(read_ours(store.settings.var / _FILE))
        if kept["format"] == _FORMAT and kept["settings"] == _stamp():
            return {
                name: Pause(int(pause["failures"]), parse_utc(pause["until"]))
                for name, pause in kept["pauses"].items()
            }
    return {}


def write_pauses(store: Store, pauses: Mapping[str, Pause]) -> None:
    """Leave pauses for the next pass. Where there are none, there is no file. Never fails. Only the
    process that sends may do it."""
    path = store.settings.var / _FILE
    if not pauses:
        store.disk.discard(path)
        return
    content = {
        "format": _FORMAT,
        "settings": _stamp(),
        "pauses": {
            name: {"failures": pause.failures, "until": format_utc(pause.until)}
            for name, pause in pauses.items()
        },
    }
    with suppress(OSError):
        store.disk.replace(path, orjson.dumps(content), durable=False)


def _stamp() -> list[int] | None:
    stamp = stamp_of(settings_path())
    return None if stamp is None else list(stamp)
