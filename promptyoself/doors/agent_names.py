"""The names of agents, as Letta last told them: a file in the data directory, kept so that people
read names without a question to Letta at each call.

It is no part of the log. Where it is missing or damaged, agents go by their ids.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

import orjson

from promptyoself.core.disk import Disk, read_ours

_FILE = "agent-names.json"
_FORMAT = 1
_MOST = 10_000  # names; the newest stay
_MOST_CHARACTERS = 200


def known_names(var: Path) -> dict[str, str]:
    """The names by the ids of their agents; none where the file can't be read."""
    try:
        content = orjson.loads(read_ours(var / _FILE))
        names = content["names"] if content["format"] == _FORMAT else {}
        return {str(id_): str(name)[:_MOST_CHARACTERS] for id_, name in names.items() if name}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def remember_names(var: Path, told: Mapping[str, str | None]) -> None:
    """Keep what Letta tells, beside what it told before, and make a missing data directory for it.
    Where the file can't be written, nothing is kept."""
    before = known_names(var)
    fresh = {id_: name[:_MOST_CHARACTERS] for id_, name in told.items() if name}
    names = {id_: name for id_, name in before.items() if id_ not in told} | fresh
    if names == before:
        return
    kept = dict(list(names.items())[-_MOST:])
    disk, temporary = Disk(), var / f".{_FILE}.{token_hex(4)}.tmp"
    try:
        disk.make_directory(var)
        with open(disk.open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(orjson.dumps({"format": _FORMAT, "names": kept}))
        disk.rename(temporary, var / _FILE)
    except (OSError, TypeError):  # the latter of a name that isn't UTF-8
        disk.discard(temporary)
