"""Damaged logs: every kind of alteration, and what is to be said of each."""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from chains import ACTOR, append, ledger_in, snapshot_of
from tally import SCALE, chance

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError
from promptyoself.core.settings import load_settings
from promptyoself.ledger import START, Position
from promptyoself.ledger.segments import compress, read_members
from promptyoself.service.upkeep.seal import seal
from promptyoself.store.store import Store

DAMAGED = Path(__file__).parents[1] / "testdata" / "damaged"


def verdict(folder: Path) -> tuple[Position, ChainError | None]:
    """How far a replay comes, and what it says then."""
    position = START
    try:
        for batch in ledger_in(folder).replay():
            position = batch.position
    except ChainError as error:
        return position, error
    return position, None


def broken(folder: Path) -> ChainError:
    """What a replay says that must come upon damage."""
    error = verdict(folder)[1]
    assert error is not None
    return error


def borders(path: Path) -> list[tuple[int, int, int]]:
    """The start, the end, and the first event's number of each member of a month."""
    return [
        (member.start, member.end, json.loads(member.content.partition(b"\n")[0])["seq"])
        for member in read_members(path)
    ]


def flips(path: Path, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Flip each bit of some bytes of a file, one at a time; afterwards they are as before."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:  # in place: to cut it and to write it again is slow
        for at in range(start, end):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[at] ^ 1 << bit]), at)
                yield at, bit
            os.pwrite(file.fileno(), content[at : at + 1], at)


Log = dict[str, bytes]
"""Every segment's bytes, by name."""

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def store_in(folder: Path, disk: Disk | None = None, warnings: list[str] | None = None) -> Store:
    """A store on the chain in a folder named ``schedules``."""
    assert folder.name == "schedules"
    settings = load_settings({"PROMPTYOSELF_VAR": str(folder.parent)})
    warned = [] if warnings is None else warnings
    return Store(settings, ACTOR, warn=warned.append, disk=disk)


def nine_events(folder: Path, *, sealed: bool, first: int = 1) -> Log:
    """Nine events in three months; sealed: the first two months in one member each."""
    store = store_in(folder)
    for number in range(9):
        when = datetime(2026, 9 + number // 3, 3 + number % 3, tzinfo=UTC)
        append(store._ledger, first + number, now=when)
    if sealed:
        assert len(seal(store, datetime(2026, 11, 20, tzinfo=UTC))["sealed"]) == 2
    store.read()
    return snapshot_of(folder)


def raw_members(content: bytes) -> list[bytes]:
    """A file's members."""
    pieces = []
    while content:
        stream = zlib.decompressobj(31)
        stream.decompress(content)
        pieces.append(content[: len(content) - len(stream.unused_data)])
        content = stream.unused_data
    return pieces


def _line_alterations(log: Log) -> Iterator[tuple[str, Log]]:
    """Each line dropped, repeated, swapped with the next, edited, forged and blanked."""
    months = {name: gzip.decompress(content).splitlines() for name, content in log.items()}
    for name, good in months.items():
        for at, line in enumerate(good):
            forged = json.loads(line)
            forged["actor"]["who"] = "somebody else"
            spelled = json.dumps(forged, separators=(",", ":"), ensure_ascii=False).encode()
            changes = {
                "dropped": good[:at] + good[at + 1 :],
                "repeated": good[: at + 1] + good[at:],
                "forged": [*good[:at], spelled, *good[at + 1 :]],
                "slipped in": [*good[:at], spelled, *good[at:]],
                "blanked": [*good[:at], b"", *good[at + 1 :]],
            }
            if at + 1 < len(good):
                changes["swapped"] = [*good[:at], good[at + 1], line, *good[at + 2 :]]
            for what, changed in changes.items():
                text = b"".join(each + b"\n" for each in changed)
                yield f"{name} line {at + 1} {what}", {**log, name: compress(text) if text else b""}


def _member_alterations(log: Log) -> Iterator[tuple[str, Log]]:
    """Each member cut, repeated, dropped, swapped with the next, and put into the next month."""
    names = sorted(log)
    step = 1 if SCALE > 1 else 29
    for name, content in log.items():
        pieces = raw_members(content)
        for at, piece in enumerate(pieces):
            before, after = b"".join(pieces[:at]), b"".join(pieces[at + 1 :])
            where = f"{name} member {at + 1}"
            for cut in range(1, len(piece), step):
                yield f"{where} cut at {cut}", {**log, name: before + piece[:cut] + after}
                left = before + piece[cut:] + after
                yield f"{where} without its first {cut}", {**log, name: left}
            yield f"{where} repeated", {**log, name: before + piece + piece + after}
            yield f"{where} dropped", {**log, name: before + after}
            if at + 1 < len(pieces):
                swapped = pieces[at + 1] + piece + b"".join(pieces[at + 2 :])
                yield f"{where} swapped", {**log, name: before + swapped}
            for other in names:
                if other != name:
                    moved = {name: before + after, other: log[other] + piece}
                    yield f"{where} moved to {other}", {**log, **moved}


def _month_alterations(log: Log, stranger: Log) -> Iterator[tuple[str, Log]]:
    """Each month removed, emptied, cut at every byte, exchanged for another's, or a stranger's."""
    names = sorted(log)
    step = 1 if SCALE > 1 else 37
    for name, content in log.items():
        yield f"{name} removed", {other: log[other] for other in names if other != name}
        yield f"{name} a stranger's", {**log, name: stranger[name]}
        borders, end = {0}, 0
        for piece in raw_members(content)[:-1]:
            end += len(piece)
            borders.add(end)
        for size in sorted(borders | set(range(1, len(content), step))):
            yield f"{name} cut at {size}", {**log, name: content[:size]}
    for one, other in pairwise(names):
        yield f"{one} and {other} exchanged", {**log, one: log[other], other: log[one]}


def _bit_flips(log: Log) -> Iterator[tuple[str, Log]]:
    """Every bit, or an eighth of them chosen by chance."""
    dice = chance("bits of a log")
    for name, content in log.items():
        for at in range(len(content)):
            for bit in range(8) if SCALE > 1 else ([dice.randrange(8)] if not at % 4 else []):
                flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
                yield f"{name} bit {bit} of byte {at}", {**log, name: flipped}


def lay(folder: Path, log: Log) -> None:
    for path in folder.glob("*.gz"):
        path.unlink()
    for name, content in log.items():
        (folder / name).write_bytes(content)


ALTERATIONS: dict[str, tuple[str, Callable[[Log, Log], Iterator[tuple[str, Log]]]]] = {
    "bits": ("bits flipped", lambda log, _: _bit_flips(log)),
    "lines": ("lines altered", lambda log, _: _line_alterations(log)),
    "members": ("members and months altered", lambda log, _: _member_alterations(log)),
    "months": ("members and months altered", _month_alterations),
}

ANSWERS: dict[str, tuple[str, int]] = {
    "bit-flipped-in-the-middle": ("corrupt_chain", 4),
    "line-dropped": ("corrupt_chain", 3),
    "line-edited": ("corrupt_chain", 4),
    "lines-swapped": ("corrupt_chain", 3),
    "member-repeated": ("corrupt_chain", 4),
    "member-without-its-trailer": ("corrupt_chain", 3),
    "first-member-missing": ("corrupt_chain", 1),
    "another-months-events": ("corrupt_chain", 1),
    "not-gzip-at-all": ("corrupt_chain", 1),
    "plain-text": ("corrupt_chain", 1),
    "cut-in-the-last-member": ("torn", 6),
    "zeros-at-the-end": ("torn", 7),
    "bit-flipped-in-the-last-member": ("torn", 6),
    "cut-between-members": ("short", 5),
    "other-header-bytes": ("sound", 7),
    "recompressed": ("sound", 7),
    "month-missing": ("corrupt_chain", 5),
    "months-exchanged": ("corrupt_chain", 1),
    "month-of-another-chain": ("corrupt_chain", 5),
    "event-forged-without-linking-again": ("corrupt_chain", 7),
    "noise-before-the-first-member": ("corrupt_chain", 1),
    "last-month-missing": ("short", 7),
    "sealed-and-sound": ("sound", 13),
    "sealed-month-bit-flipped": ("corrupt_chain", 1),
    "sealed-month-cut": ("corrupt_chain", 5),
    "sealed-month-emptied": ("corrupt_chain", 5),
    "sealed-month-repeated": ("corrupt_chain", 8),
    "sealed-month-line-dropped": ("corrupt_chain", 6),
    "sealed-month-line-edited": ("corrupt_chain", 7),
    "sealed-record-dropped": ("corrupt_chain", 11),
}
"""What each damaged log under testdata/damaged is, and the event at which one notices. They were
made once and are kept: what is read differently one day is noticed."""
