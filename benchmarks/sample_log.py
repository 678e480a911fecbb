"""A log as a busy installation would have it, of any length, written without waiting for a disk."""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from promptyoself.core.instants import format_utc
from promptyoself.events.codec import write_event
from promptyoself.events.draft import Draft
from promptyoself.events.records import (
    DeliveryAttempted,
    DeliveryDelivered,
    LedgerCreated,
    Record,
    ScheduleRegistered,
)
from promptyoself.ledger import GENESIS_HASH, Envelope, encode_line
from promptyoself.ledger.envelope import hash_line
from promptyoself.ledger.sealing import MEMBER_BYTES
from promptyoself.ledger.segments import compress

MONTH = "2026-10"
_BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
_SCHEDULES = 500
_ACTOR = {"via": "cli", "who": "root"}


def lines(events: int) -> Iterator[bytes]:
    """The lines of this number of events, newlines included. They are registrations, and then
    deliveries with ids and hashes at random, all in one month, three quarters of a second apart or
    less."""
    chance = random.Random(4)
    head, step = GENESIS_HASH, timedelta(seconds=min(0.75, 2_000_000 / events))
    for seq, (id_, record) in enumerate(_records(chance), 1):
        version, type_, data = write_event(record)
        ts = format_utc(_BEGIN + seq * step)
        line = encode_line(Envelope(version, seq, ts, type_, id_, _ACTOR, data, head))
        head = hash_line(line)
        yield line + b"\n"
        if seq == events:
            return


def _records(chance: random.Random) -> Iterator[tuple[str | None, Record]]:
    yield None, LedgerCreated(1, "schedules", "promptyoself")
    texts: dict[str, str] = {}
    for number in range(_SCHEDULES):
        id_ = f"sch_{chance.getrandbits(32):08x}"
        texts[id_] = f"{chance.getrandbits(256):064x}"
        yield (
            id_,
            ScheduleRegistered(
                agent_id=f"agent-{UUID(int=chance.getrandbits(128))}",
                prompt=f"Look at the inbox, and answer what can't wait ({number}).",
                schedule_type="interval",
                schedule_value="5m",
                timezone="Europe/London",
                next_run=format_utc(_BEGIN),
                anchor=format_utc(_BEGIN),
                tier=0,
                misfire="coalesce",
                grace=86400,
            ),
        )
    worker = f"wrk_{chance.getrandbits(64):016x}"
    slot = _BEGIN
    while True:
        following = format_utc(slot + timedelta(minutes=5))
        for id_, text in texts.items():
            otid = str(UUID(int=chance.getrandbits(128)))
            claim = (format_utc(slot), otid, 1, worker)
            yield id_, DeliveryAttempted(*claim, text, "scheduled", following)
            run = f"run-{UUID(int=chance.getrandbits(128))}"
            latency = chance.randrange(500, 30_000)
            yield id_, DeliveryDelivered(*claim, "run", latency, run)
        slot += timedelta(minutes=5)


def registration(number: int) -> Draft:
    """That of a schedule unlike that of any other number."""
    record = ScheduleRegistered(
        agent_id="agent-1",
        prompt=f"Look at the inbox, and answer what can't wait ({number}).",
        schedule_type="interval",
        schedule_value="5m",
        timezone="UTC",
        next_run="2026-11-20T12:05:00.000000Z",
        anchor="2026-11-20T12:00:00.000000Z",
        tier=0,
        misfire="coalesce",
        grace=86400,
    )
    return Draft(record, f"sch_{number & 0xFFFFFFFF:08x}", _ACTOR)


def claims(count: int) -> list[Draft]:
    """This number of deliveries that begin at once."""
    found = []
    for id_, record in _records(random.Random(5)):
        if isinstance(record, DeliveryAttempted):
            found.append(Draft(record, id_, _ACTOR))
        if len(found) == count:
            break
    return found


def pack(log: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces of the size of a sealed month's members."""
    held: list[bytes] = []
    size = 0
    for line in log:
        if held and size + len(line) > MEMBER_BYTES:
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines of a file, about as many bytes at a time."""
    rest = b""
    while piece := file.read(MEMBER_BYTES):
        whole, newline, after = piece.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = after
        else:
            rest += piece


def write_raw(path: Path, log: Iterable[bytes]) -> None:
    """As plain NDJSON."""
    path.write_bytes(b"".join(log))


def write_open(folder: Path, log: Iterable[bytes]) -> None:
    """As a month to which each line was appended by itself."""
    _write(folder, log)


def write_sealed(folder: Path, log: Iterable[bytes]) -> None:
    """As a month that was sealed."""
    _write(folder, pack(log))


def _write(folder: Path, contents: Iterable[bytes]) -> None:
    folder.mkdir(parents=True)
    with (folder / f"{MONTH}.ndjson.gz").open("wb") as file:
        for content in contents:
            file.write(compress(content))
