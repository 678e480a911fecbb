"""Damaged logs to be recovered, and what must be left of them."""

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checker import lines
from crashes import Unsynced
from damage import Log, lay, nine_events, raw_members, store_in

from promptyoself.service.upkeep.recover import recover

NOW = datetime(2026, 12, 5, 12, tzinfo=UTC)


def found_lines(folder: Path) -> set[bytes]:
    """Every line in a whole gzip member, wherever it lies: read without the package."""
    found = set()
    for path in folder.glob("*.ndjson.gz"):
        content = path.read_bytes()
        at = content.find(b"\x1f\x8b\x08")
        while at >= 0:
            stream = zlib.decompressobj(31)
            try:
                text = stream.decompress(content[at:])
            except zlib.error:
                text = b""
            whole = bool(text) and stream.eof
            if whole:
                found.update(text[:-1].split(b"\n"))
            at = content.find(
                b"\x1f\x8b\x08", len(content) - len(stream.unused_data) if whole else at + 1
            )
    return found


def statements(folder: Path) -> list[dict[str, Any]]:
    """What the recoveries of a log have stated in it."""
    events = map(json.loads, lines(folder))
    return [event["data"] for event in events if event["type"] == "ledger.recovered"]


def recovered(folder: Path, **options: Any) -> dict[str, Any]:
    """What a recovery answers that nobody objects to."""
    store = store_in(folder, Unsynced())
    return recover(store, NOW, agree=lambda _: True, **options)


SOUND = {"recovered": False, "message": "The log is sound: nothing is to be done."}
SEPTEMBER, OCTOBER, NOVEMBER = (f"2026-{month:02}.ndjson.gz" for month in (9, 10, 11))


def _without(content: bytes, *numbers: int) -> bytes:
    """A month without some of its members."""
    return b"".join(each for at, each in enumerate(raw_members(content)) if at not in numbers)


def _flipped(content: bytes, at: float, bit: int = 3) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def _headless(content: bytes, *numbers: int) -> bytes:
    """A month in which some members don't begin as they must; their text is legible."""
    return b"".join(
        b"\x1f\x8b\x09" + each[3:] if at in numbers else each
        for at, each in enumerate(raw_members(content))
    )


Damage = Callable[[Log, Log], Log]

DAMAGES: dict[str, tuple[bool, Damage]] = {
    "a bit of a sealed month": (True, lambda log, _: {OCTOBER: _flipped(log[OCTOBER], 0.7)}),
    "a member lost": (False, lambda log, _: {OCTOBER: _without(log[OCTOBER], 1)}),
    "two gaps in two months": (
        False,
        lambda log, _: {
            SEPTEMBER: _without(log[SEPTEMBER], 1),
            NOVEMBER: _flipped(log[NOVEMBER], 0.5),
        },
    ),
    "months exchanged": (False, lambda log, _: {SEPTEMBER: log[OCTOBER], OCTOBER: log[SEPTEMBER]}),
    "sealed months exchanged": (
        True,
        lambda log, _: {SEPTEMBER: log[OCTOBER], OCTOBER: log[SEPTEMBER]},
    ),
    "months exchanged, and damaged": (
        False,
        lambda log, _: {
            SEPTEMBER: _headless(log[OCTOBER], 0, 1),
            OCTOBER: _without(log[NOVEMBER], 0),
            NOVEMBER: _headless(log[SEPTEMBER], 1),
        },
    ),
    "legible members": (False, lambda log, _: {OCTOBER: _headless(log[OCTOBER], 0, 1, 2)}),
    "the end cut": (False, lambda log, _: {NOVEMBER: _without(log[NOVEMBER], 1, 2)}),
    "a torn group": (
        False,
        lambda log, _: {SEPTEMBER: _without(log[SEPTEMBER], 1), NOVEMBER: log[NOVEMBER][:-9]},
    ),
    "the last month is noise": (False, lambda *_: {NOVEMBER: b"noise " * 99}),
    "a stranger's first month": (False, lambda _, other: {SEPTEMBER: other[SEPTEMBER]}),
    "all is noise": (False, lambda log, _: dict.fromkeys(log, b"noise " * 99)),
}
"""Each damage, to a log that is sealed or not, as the months that are other ones then."""


def damaged(root: Path, name: str) -> tuple[Path, list[bytes], bytes]:
    """A log with that damage; its lines and its index as they were before."""
    sealed, damage = DAMAGES[name]
    folder = root / "good" / "schedules"
    log = nine_events(folder, sealed=sealed)
    stranger = nine_events(root / "other" / "schedules", sealed=sealed, first=77)
    good, index = lines(folder), (folder / "index.json").read_bytes()
    lay(folder, {**log, **damage(log, stranger)})
    return folder, good, index
