"""Check an audit pack: python3 verify.py [--head SEQ:HASH] [FOLDER]

Needs Python 3.9 or newer, and nothing else. It reads heads.json and the months in schedules/, which
lie beside it or in FOLDER, and checks that every line follows from the one before it. It prints
`ok EVENTS SEQ:HASH` and exits 0; or says what the first thing wrong is, and exits 1. Where events
are lost, and that is stated, it prints after the first line which they are, and who says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["main"]

KEYS = ["v", "seq", "ts", "type", "id", "actor", "data", "prev"]
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}")
HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{64})", re.ASCII)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
NOTE = re.compile(
    r"promptyoself-head-v1 [a-z]+ (\d+:[0-9a-f]{64}) (\S+) [0-9a-f]{16} \S+", re.ASCII
)
FILE = re.compile(r".*\.ndjson\.gz", re.DOTALL)

# Honest data is far below these. They bound what other data can make this script allocate.
MOST_HEADS = 1 << 20
MOST_MEMBER = 64 << 20
MOST_LINE = 16 << 20
PIECE = 1 << 16
MOST_DIGITS = 18


class Bad(Exception):
    """Something is wrong; says what, in one line."""


class Place(NamedTuple):
    """An event's number, hash and time: a head."""

    seq: int
    hash: str
    ts: str


class Summary(NamedTuple):
    """What is known of a month whose lines have been read."""

    events: int
    digest: str


class Gap(NamedTuple):
    """A stretch that is lost, between the events `after` and `first`, as heads.json says; `event`
    is the number of the one that states it."""

    after: int
    after_hash: str
    first: int
    first_prev: str
    lost: int
    event: int


def bad(where: str, what: str, expected: object = None, found: object = None) -> Bad:
    """The one form of every complaint. Whatever was found is made plain and short."""
    text = f"bad {where}: {what}"
    if expected is not None:
        text += f": expected {shown(expected)}, found {shown(found)}"
    return Bad(text)


def shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return ascii(text[:200])[1:-1]


def read_json(text: str) -> Any:
    """JSON, without numbers that take for ever to read or that aren't any."""

    def whole(digits: str) -> int:
        if len(digits) > MOST_DIGITS + 1:
            raise ValueError("a number is too long")
        return int(digits)

    def unknown(name: str) -> None:
        raise ValueError(f"{name} is no number")

    return json.loads(text, parse_int=whole, parse_constant=unknown)


def is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def read_place(value: Any, where: str) -> Place:
    """A head in heads.json."""
    if isinstance(value, dict):
        place = Place(value.get("seq", -1), value.get("hash", ""), value.get("ts") or "")
        good = is_number(place.seq) and isinstance(place.hash, str) and isinstance(place.ts, str)
        if good and HASH.fullmatch(place.hash):
            if place.seq == 0 and place.hash == "0" * 64 and place.ts == "":
                return place
            if place.seq > 0 and INSTANT.fullmatch(place.ts):
                return place
    raise bad("heads.json", f"{where} is no head with seq, hash and ts")


def read_heads(folder: str) -> dict[str, Any]:
    """heads.json, as far as its form goes."""
    path = os.path.join(folder, "heads.json")
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_HEADS + 1)
    except OSError as error:
        raise bad("heads.json", f"it can't be read ({error.strerror})") from None
    if len(content) > MOST_HEADS:
        raise bad("heads.json", f"it has more than {MOST_HEADS} bytes")
    try:
        heads = read_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise bad("heads.json", f"it is not JSON ({shown(str(error))})") from None
    if not isinstance(heads, dict) or heads.get("format") not in (1, 2):
        raise bad("heads.json", "it is not of format 1 or 2")
    months = heads.get("months")
    if not isinstance(months, list) or not months:
        raise bad("heads.json", "it names no months")
    for before, entry in enumerate(months, -1):
        name = entry.get("month") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not MONTH.fullmatch(name):
            raise bad("heads.json", "what it says of a month has no month")
        if before >= 0 and name <= months[before]["month"]:
            raise bad("heads.json", f"{name} doesn't come after the month before it")
        if not is_number(entry.get("events")):
            raise bad("heads.json", f"what it says of {name} has no number of events")
    return heads


def read_gaps(heads: dict[str, Any]) -> list[Gap]:
    """The gaps that heads.json tells of: none where it is of format 1."""
    if (heads["format"] == 2) != ("gaps" in heads):
        raise bad("heads.json", "gaps are told in format 2, and only there")
    found = []
    entries = heads.get("gaps", [])
    for entry in entries if isinstance(entries, list) else [None]:
        names = Gap._fields
        gap = Gap._make(map(entry.get, names)) if isinstance(entry, dict) else None
        if gap is None or not is_gap(gap):
            raise bad("heads.json", "what it says of a gap is none")
        found.append(gap)
    return found


def is_gap(gap: Gap) -> bool:
    """Whether events may be lost there. Where no number is missing, none are."""
    numbers = all(map(is_number, (gap.after, gap.first, gap.lost, gap.event)))
    hashes = (gap.after_hash, gap.first_prev)
    if not numbers or not all(isinstance(text, str) and HASH.fullmatch(text) for text in hashes):
        return False
    return 0 < gap.lost == gap.first - gap.after - 1 and gap.first < gap.event


def read_lines(path: str) -> Iterator[bytes]:
    """The lines of a month, without their newlines.

    A segment is gzip members one after another, each with a checksum, each of one line or many.
    No line is handed out before its member's checksum is right.
    """
    with open(path, "rb") as file:
        rest = file.read(PIECE)
        while rest:
            member, content = zlib.decompressobj(31), bytearray()
            while not member.eof:
                if not rest:
                    raise ValueError("its gzip member ends in the middle")
                content += member.decompress(rest, PIECE)
                if len(content) > MOST_MEMBER:
                    raise ValueError(f"its gzip member holds more than {MOST_MEMBER} bytes")
                rest = member.unused_data or member.unconsumed_tail or file.read(PIECE)
            if not content.endswith(b"\n"):
                raise ValueError("its gzip member doesn't end with a line's end")
            start = 0
            while start < len(content):
                end = content.index(b"\n", start)
                if end - start > MOST_LINE:
                    raise ValueError(f"its line has more than {MOST_LINE} bytes")
                yield bytes(content[start:end])
                start = end + 1


def read_event(line: bytes) -> dict[str, Any]:
    """A line as an event. Raises ValueError, saying why it is none."""
    event = read_json(line.decode("utf-8"))
    if not isinstance(event, dict) or list(event) != KEYS:
        raise ValueError("its keys aren't " + ", ".join(KEYS))
    texts = [event[key] for key in ("ts", "type", "prev")]
    texts += [] if event["id"] is None else [event["id"]]
    if not all(isinstance(text, str) for text in texts) or not INSTANT.fullmatch(event["ts"]):
        raise ValueError("ts, type, id or prev is of another kind")
    if not is_number(event["v"]) or not is_number(event["seq"]):
        raise ValueError("v or seq is no number")
    if not isinstance(event["actor"], dict) or not isinstance(event["data"], dict):
        raise ValueError("actor or data is no object")
    return event


class Walk:
    """Goes through the months, line by line."""

    def __init__(self, before: Place, wanted: Place | None, gaps: list[Gap]) -> None:
        self.place = before
        self.wanted = wanted
        self.found = before.hash if wanted and wanted.seq == before.seq else None
        self.months: dict[str, Summary] = {}
        self.gaps = gaps  # those to come
        self.open: dict[Gap, str] = {}  # not stated yet; the months that come after them
        self.lost: list[str] = []

    def month(self, folder: str, month: str) -> None:
        """Read one month. Raises Bad."""
        path = os.path.join(folder, "schedules", month + ".ndjson.gz")
        digest, events = hashlib.sha256(), 0
        try:
            for line in read_lines(path):
                self.step(line, month)
                digest.update(line + b"\n")
                events += 1
        except FileNotFoundError:
            raise bad(self.where(month), "the file is missing") from None
        except OSError as error:
            raise bad(self.where(month), f"the file can't be read ({error.strerror})") from None
        except (ValueError, zlib.error, RecursionError) as error:
            raise bad(self.where(month), shown(str(error))) from None
        except MemoryError:
            raise bad(self.where(month), "it needs more memory than there is") from None
        self.months[month] = Summary(events, digest.hexdigest())

    def where(self, month: str) -> str:
        """The event that should come next, in words."""
        return f"event {self.place.seq + 1} in {month}.ndjson.gz"

    def step(self, line: bytes, month: str) -> None:
        """Check that a line may stand here. Raises Bad or ValueError."""
        event = read_event(line)
        last = self.over(event, month)
        for what, expected, found in (
            ("its number is another", last.seq + 1, event["seq"]),
            ("it doesn't follow from the line before it", last.hash, event["prev"]),
            ("its time runs backwards", max(last.ts, event["ts"]), event["ts"]),
            ("it lies in another month", month, event["ts"][:7]),
        ):
            if expected != found:
                raise bad(self.where(month), what, expected, found)
        if event["type"] == "segment.sealed" and event["v"] == 1:
            self.seal(event["data"], month)
        self.state(event, month)
        self.place = Place(event["seq"], hashlib.sha256(line).hexdigest(), event["ts"])
        if self.wanted and self.wanted.seq == self.place.seq:
            self.found = self.place.hash

    def over(self, event: dict[str, Any], month: str) -> Place:
        """What an event must follow from: the line before it, or one that is lost."""
        last = self.place
        gap = self.gaps[0] if self.gaps else None
        if gap is None or gap[:4] != (last.seq, last.hash, event["seq"], event["prev"]):
            return last
        del self.gaps[0]
        self.open[gap] = month
        if self.wanted and gap.after < self.wanted.seq < gap.first:
            what = f"that of --head is lost, as event {gap.event} is to state"
            raise bad(f"event {self.wanted.seq}", what)
        return Place(gap.first - 1, gap.first_prev, last.ts)

    def state(self, event: dict[str, Any], month: str) -> None:
        """Compare what an event states to be lost with what heads.json says."""
        is_statement = event["type"] == "ledger.recovered" and event["v"] == 1
        said = tuple(event["data"].get(name) for name in Gap._fields[:5]) if is_statement else None
        for gap in [gap for gap in self.open if gap.event == event["seq"] or gap[:5] == said]:
            if said != gap[:5] or gap.event != event["seq"]:
                what = f"heads.json says that event {gap.event} states this gap, and that isn't so"
                raise bad(self.where(month), what, gap[:5], said)
            del self.open[gap]
            self.lost.append(told(gap.lost, gap.after, f"as event {gap.event} states"))
        if is_statement and event["data"].get("first") is None:
            lost, after = event["data"].get("lost"), event["data"].get("after")
            if not is_number(lost) or not is_number(after):
                raise bad(self.where(month), "it doesn't state what is lost")
            if lost:
                self.lost.append(told(lost, after, f"as event {event['seq']} states"))

    def finish(self) -> None:
        """All months are read: what heads.json says is lost must have been missing."""
        for gap in self.gaps:
            raise bad("heads.json", f"nothing is missing after event {gap.after} as it says")
        for gap in self.open:
            if gap.event <= self.place.seq:
                raise bad("heads.json", f"event {gap.event}, which is to state a gap, isn't there")
            who = f"as heads.json alone claims: event {gap.event} is not in this pack"
            self.lost.append(told(gap.lost, gap.after, who))

    def seal(self, data: dict[str, Any], month: str) -> None:
        """Compare what was recorded when a month was rewritten with what that month holds."""
        sealed = data.get("month")
        if not isinstance(sealed, str) or not sealed < month:
            raise bad(self.where(month), "it seals what isn't an earlier month")
        summary = self.months.get(sealed)
        if summary is None:
            return  # it isn't in the pack
        if any(sealed <= after for after in self.open.values()):
            return  # some of it may have been lost since
        recorded = data.get("events"), data.get("content_sha256")
        if recorded != tuple(summary):
            what = f"it was sealed with other content in {sealed}"
            raise bad(self.where(month), what, recorded, tuple(summary))


def check(folder: str, wanted: Place | None) -> tuple[int, Place, list[str]]:
    """How many events there are, the last one, and what is lost. Raises Bad."""
    heads = read_heads(folder)
    before, head = read_place(heads.get("before"), "before"), read_place(heads.get("head"), "head")
    names = {entry["month"] + ".ndjson.gz" for entry in heads["months"]}
    try:
        present = os.listdir(os.path.join(folder, "schedules"))
    except OSError as error:
        raise bad("schedules", f"the folder can't be read ({error.strerror})") from None
    if extra := sorted(name for name in present if FILE.fullmatch(name) and name not in names):
        raise bad(shown(extra[0]), "heads.json doesn't name it")
    walk = Walk(before, wanted, read_gaps(heads))
    for entry in heads["months"]:
        month = entry["month"]
        walk.month(folder, month)
        if entry["events"] != walk.months[month].events or not entry["events"]:
            what = f"its number of events in {month} is another"
            raise bad("heads.json", what, walk.months[month].events, entry["events"])
        compare(f"the head of {month}", read_place(entry, month), walk.place)
    walk.finish()
    compare("the last head", head, walk.place)
    check_note(heads, walk.place)
    if wanted and walk.found != wanted.hash:
        raise not_here(wanted, walk.found, before, walk.place)
    return sum(summary.events for summary in walk.months.values()), walk.place, walk.lost


def told(lost: int, after: int, who: str) -> str:
    """What is lost, and who says so, for people."""
    return f"lost {lost} event{'' if lost == 1 else 's'} after event {after}, {who}"


def check_note(heads: dict[str, Any], last: Place) -> None:
    """That a signed note, if there is one, is about the last head. Its signature isn't checked."""
    if "note" in heads:
        note = heads["note"]
        match = NOTE.fullmatch(note) if isinstance(note, str) else None
        if match is None:
            raise bad("heads.json", "its note isn't one")
        expected = f"{last.seq}:{last.hash} {last.ts}"
        if f"{match[1]} {match[2]}" != expected:
            raise bad("heads.json", "its note is about another head", expected, match[1])


def compare(what: str, said: Place, found: Place) -> None:
    """That heads.json says what was found."""
    if said != found:
        raise bad("heads.json", f"{what} is another", " ".join(map(str, found)),
                  " ".join(map(str, said)))  # fmt: skip


def not_here(wanted: Place, found: str | None, before: Place, last: Place) -> Bad:
    """Why the head that was given isn't proved."""
    if found is not None:
        return bad(f"event {wanted.seq}", "it isn't the one of --head", wanted.hash, found)
    where = f"it has events {before.seq + 1} to {last.seq}"
    return bad(f"event {wanted.seq}", f"that of --head isn't in this pack: {where}")


def main(arguments: list[str]) -> int:
    """Check the pack that the arguments name; the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Check an audit pack.")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="the unpacked pack")
    parser.add_argument("--head", metavar="SEQ:HASH", help="prove that this head is in the pack")
    options = parser.parse_args(arguments)
    wanted = None
    if options.head is not None:
        match = HEAD.fullmatch(options.head.strip())
        if not match:
            parser.error("--head is not SEQ:HASH")
        wanted = Place(int(match[1]), match[2], "")
    folder = options.folder or os.path.dirname(os.path.abspath(__file__))
    try:
        events, last, lost = check(folder, wanted)
    except Bad as problem:
        print(problem)
        return 1
    print(f"ok {events} {last.seq}:{last.hash}")
    for each in lost:
        print(each)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
