"""The tests' own auditor. It shares no code with the package: zlib, hashlib and json only.

Called after every step of every test that touches a chain: whatever the step was about, nothing
else may have been broken by it.
"""

import hashlib
import json
import re
import time
import zlib
from pathlib import Path
from typing import Any

ACTOR = ["via", "who", "kind", "client", "login", "host", "for_agent"]
KEYS = ["v", "seq", "ts", "type", "id", "actor", "data", "prev"]
TS = re.compile(r"\d{4}-(0[1-9]|1[0-2])-[0-3]\d[T][0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z")


class TornMemberError(AssertionError):
    """A file ends within a gzip member: nobody has finished it, or nobody has yet."""


def members(content: bytes) -> list[bytes]:
    """The contents of the whole gzip members that ``content`` consists of, and of nothing else."""
    found, view, at = [], memoryview(content), 0
    while at < len(view):
        stream, parts = zlib.decompressobj(31), []
        while not stream.eof:  # in slices, since what follows a member would be copied each time
            piece = view[at : at + 2048]
            if not piece:
                raise TornMemberError
            parts.append(stream.decompress(piece))
            at += len(piece) - len(stream.unused_data)
        found.append(b"".join(parts))
    return found


def lines(folder: Path) -> list[bytes]:
    """Every line of a chain, without the newlines."""
    found = []
    for path in sorted(folder.glob("*.ndjson.gz")):
        for content in members(path.read_bytes()):
            assert content.endswith(b"\n"), "a member ends within a line"
            found += content[:-1].split(b"\n")
    return found


def check_chain(folder: Path, *, settled: bool = True) -> list[dict[str, Any]]:
    """Audit the chain in a folder and return its events.

    ``settled`` says that the latest append has returned: then nothing waits in the quarantine, and
    no file ends within a member. An append that goes on has ten seconds to end.
    """
    end = time.monotonic() + 10
    while True:
        try:
            return _check_chain(folder, settled)
        except TornMemberError:
            if settled or time.monotonic() > end:
                raise


def _check_chain(folder: Path, settled: bool) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    prev, ts, last = "0" * 64, "", 0
    stated = _statements(folder)
    for path in sorted(folder.glob("*.ndjson.gz")):
        assert re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])\.ndjson\.gz", path.name), path.name
        for content in members(path.read_bytes()):
            assert content.endswith(b"\n"), "a member ends within a line"
            for line in content[:-1].split(b"\n"):
                event = json.loads(line)
                where = f"{path.name}, after event {last}"
                gap = (last, prev, event["seq"], event["prev"])
                if gap in stated:  # what is lost is lost; what is left follows from it
                    assert stated.pop(gap) > event["seq"], where
                    prev, last = event["prev"], event["seq"] - 1
                assert list(event) == KEYS, where
                spelled = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
                assert spelled.encode() == line, where
                assert event["seq"] == last + 1, where
                assert type(event["v"]) is int
                assert event["v"] >= 1, where
                assert event["prev"] == prev, where
                assert TS.fullmatch(event["ts"]), where
                assert event["ts"] >= ts, where
                assert event["ts"][:7] == path.name[:7], where
                actor = event["actor"]
                assert [name for name in ACTOR if name in actor] == list(actor), where
                assert {"via", "who"} <= set(actor), where
                assert all(type(text) is str and text for text in actor.values()), where
                prev, ts = hashlib.sha256(line).hexdigest(), event["ts"]
                last = event["seq"]
                events.append(event)
    assert not any(gap[2] != gap[0] + 1 for gap in stated), "a gap is stated that isn't there"
    created = [event["seq"] for event in events if event["type"] == "ledger.created"]
    begun = [1] if events and events[0]["seq"] == 1 else []
    assert created == begun, "ledger.created is the first event, and only that"
    _check_quarantine(folder / "quarantine", events, settled)
    return events


def _statements(folder: Path) -> dict[tuple[Any, ...], int]:
    """The gaps that the chain states, each with the number of its statement."""
    names = ("after", "after_hash", "first", "first_prev")
    return {
        tuple(event["data"][name] for name in names): event["seq"]
        for event in map(json.loads, lines(folder))
        if event["type"] == "ledger.recovered" and "first" in event["data"]
    }


def _check_quarantine(folder: Path, events: list[dict[str, Any]], settled: bool) -> None:
    recorded = [event["data"] for event in events if event["type"] == "tail.quarantined"]
    pieces = [
        piece
        for event in events
        if event["type"] == "ledger.recovered"
        for piece in event["data"].get("quarantined", ())
    ]
    recorded += pieces
    names = [record["file"] for record in recorded]
    assert len(set(names)) == len(names), "a torn end is recorded twice"
    # Hidden is the temporary file of a copy that never came about: the end itself is still there.
    found = folder.iterdir() if folder.exists() else ()
    present = {path.name for path in found if path.is_file() and not path.name.startswith(".")}
    for record in recorded:
        name = record["file"]
        if not settled and name not in present:
            name += ".unrecorded"
        tail = (folder / name).read_bytes()
        assert len(tail) == record["bytes"]
        assert hashlib.sha256(tail).hexdigest() == record["sha256"]
        begins, ends = f"{record['month']}-{record['offset']}-", record["sha256"][:16]
        bears = f"{begins}{ends}.torn"
        damaged = record["file"].startswith(begins) and record["file"].endswith(f"-{ends}.damaged")
        assert record["file"] == bears or damaged, "a copy isn't of what lay there"
    if settled:
        assert present == set(names), "the quarantine holds what the log doesn't know of"
