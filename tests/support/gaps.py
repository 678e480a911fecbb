"""Losing events of a log, as damage does, and forging what a log says of its losses."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from checker import members

STATES = ("after", "after_hash", "first", "first_prev", "lost")


def drop(folder: Path, *numbers: int) -> int:
    """Take the members that have events of these numbers out of a log; how many events that are."""
    lost = 0
    for path in sorted(folder.glob("*.ndjson.gz")):
        found = members(path.read_bytes())
        kept = [text for text in found if not _numbers(text) & set(numbers)]
        lost += sum(len(_numbers(text)) for text in found if text not in kept)
        if len(kept) == len(found):
            continue
        if kept:
            path.write_bytes(b"".join(map(gzip.compress, kept)))
        else:
            path.unlink()
    return lost


def _numbers(text: bytes) -> set[int]:
    return {json.loads(line)["seq"] for line in text.splitlines()}


def restate(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the last event of a log says, which must be its only statement of a loss. No link
    tells of that."""
    path = max(folder.glob("*.ndjson.gz"))
    *before, last = members(path.read_bytes())
    *earlier, line = last.splitlines()
    event = json.loads(line)
    assert event["type"] == "ledger.recovered"
    change(event)
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
    content = b"".join(each + b"\n" for each in [*earlier, text])
    path.write_bytes(b"".join(map(gzip.compress, [*before, content])))


def false_statements(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Changes that make the statement of a gap one of another gap, or of none."""
    for name in STATES:
        value = data[name]
        others = [value + 1, value - 1] if isinstance(value, int) else ["1" * 64, value[:-1]]
        for other in (*others, None, [], str(value) + " "):
            yield {name: other}


def hidden_alteration(folder: Path, number: int) -> None:
    """Alter the event of that number, which must be a member by itself and not the last, and let
    the log end with a statement that between it and the next one no event is lost."""
    prev, seq, said = "", 0, {}
    for path in sorted(folder.glob("*.ndjson.gz")):
        found = members(path.read_bytes())
        for at, text in enumerate(found):
            event = json.loads(text.splitlines()[-1])
            if event["seq"] == number:
                event["actor"]["who"] = "somebody else"
                line = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
                found[at] = line + b"\n"
                said = {"after": number, "after_hash": hashlib.sha256(line).hexdigest(), "lost": 0}
            elif event["seq"] == number + 1:
                said |= {"first": number + 1, "first_prev": event["prev"]}
            seq, prev = event["seq"], hashlib.sha256(found[at].splitlines()[-1]).hexdigest()
        path.write_bytes(b"".join(map(gzip.compress, found)))
    made = {"v": 1, "seq": seq + 1, "ts": event["ts"], "type": "ledger.recovered", "id": None}
    actor = {"via": "test", "who": "x"}
    made |= {"actor": actor, "data": {name: said[name] for name in _ORDER}, "prev": prev}
    line = json.dumps(made, separators=(",", ":")).encode()
    with path.open("ab") as file:
        file.write(gzip.compress(line + b"\n"))


_ORDER = ("after", "after_hash", "lost", "first", "first_prev")
