"""Torn ends: moved aside, and recorded.

A torn end goes through three steps, each safe to die after: a durable copy named
``….torn.unrecorded``; the cut; the event, with the append that found it. Only then does the copy
lose its suffix, so one whose event was never written is recorded by the next append.
"""

import os
import re
from hashlib import sha256
from pathlib import Path

from promptyoself.core.disk import Disk, open_ours, read_ours
from promptyoself.events.records import TailQuarantined
from promptyoself.ledger.batch import Torn
from promptyoself.ledger.segments import segment_name
from promptyoself.ledger.statements import statements

_PENDING = ".unrecorded"
_COPY = re.compile(r"\d{4}-\d\d-\d+-[0-9a-f]{16}\.torn\.unrecorded", re.ASCII)


def pending_copies(quarantine: Path) -> set[Path]:
    """The copies whose names say that no event records them yet."""
    try:
        names = os.listdir(quarantine)
    except FileNotFoundError:
        return set()
    return {quarantine / name for name in names if _COPY.fullmatch(name)}


def move_aside(folder: Path, quarantine: Path, torn: Torn, disk: Disk) -> Path:
    """Copy a torn end to the quarantine, durably, and cut it off; returns the copy."""
    path = folder / segment_name(torn.month)
    with open_ours(path) as file:
        file.seek(torn.offset)
        tail = file.read()
    disk.make_directory(quarantine)
    disk.fsync_directory(folder)  # the process that made the quarantine may have died
    digest = sha256(tail).hexdigest()
    copy = quarantine / f"{torn.month}-{torn.offset}-{digest[:16]}.torn{_PENDING}"
    disk.replace(copy, tail)
    disk.truncate(path, torn.offset)
    return copy


def records_of(folder: Path, copies: set[Path]) -> list[TailQuarantined]:
    """The records of those copies that the chain doesn't record yet."""
    recorded = {
        f"{event.data.get('file')}{_PENDING}"
        for event in (statements(folder, "tail.quarantined") if copies else ())
    }
    return [_record(copy) for copy in sorted(copies) if copy.name not in recorded]


def _record(copy: Path) -> TailQuarantined:
    tail = read_ours(copy)
    name = copy.with_suffix("").name
    month, offset = name[:7], name[8:].partition("-")[0]
    return TailQuarantined(month, int(offset), len(tail), sha256(tail).hexdigest(), name)
