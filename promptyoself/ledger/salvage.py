"""Finds the sound events of a damaged chain, by whole gzip members, bytes that still read as event
lines, and the hash links between lines.

A line is *vouched for* if the line after it has its hash. It is *checked* if its member's checksum
is right. A line that is neither is left out, since its bytes may have been altered.

Lines that follow from each other are an *island*. The events between two islands are lost: a gap.
Nothing is invented. If two lines have the same number, the one from which more lines follow is
kept. A line that contradicts the island after it is left out.
"""

import os
import re
import zlib
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import read_ours
from promptyoself.core.long_work import tell
from promptyoself.ledger import segments
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope, event_of, hash_line
from promptyoself.ledger.survey import Line, Piece, Survey

_LINE = re.compile(rb'^\{"v":[^\n]{100,}\}(?=\n)', re.MULTILINE)
_LINE_START = b'{"v":'
UNRECORDED = ".unrecorded"
"""How the name of a piece in the quarantine ends while the chain has no statement of it."""

_COPY = re.compile(
    r"(\d{4}-\d\d)-(\d+)-after-(\d+)(-end)?-([0-9a-f]{16})\.damaged(\.unrecorded)?", re.ASCII
)

_HEADER_BYTES = 10
_SLICE_BYTES = 256
_MOST_ISLANDS = 2000
"""The most islands that are compared; of more, the longest are. Damage makes a handful; a log with
thousands was crafted."""


class Copy(NamedTuple):
    """A copy of damaged bytes in the quarantine, as its name describes it."""

    path: Path
    month: str  # where the bytes lay
    offset: int
    after: int  # the number of the sound event before them
    at_end: bool  # whether nothing lay behind them
    digest: str  # the first 16 digits of their SHA-256
    recorded: bool  # whether a recovery that recorded them came to its end


def copies(folder: Path) -> list[Copy]:
    """The damaged pieces in the quarantine of a chain's folder, by month and offset."""
    try:
        names = os.listdir(folder / segments.QUARANTINE)
    except FileNotFoundError:
        return []
    named = []
    for name in sorted(names):
        if match := _COPY.fullmatch(name):
            month, offset, after, end, digest, pending = match.groups()
            path = folder / segments.QUARANTINE / name
            named.append(Copy(path, month, int(offset), int(after), bool(end), digest, not pending))
    return sorted(named, key=lambda copy: (copy.month, copy.offset))


class _Stretch(NamedTuple):
    """Some bytes of a segment: a whole member, or the bytes between two."""

    @property
    def whole(self) -> bool:
        """Whether it is a member."""
        return self.size is not None

    start: int
    end: int
    lines: list[bytes]
    size: int | None  # how many bytes a member holds, unpacked; None for bytes between two


class _ReadStretch(NamedTuple):
    """A stretch of a month and the events in it."""

    month: str
    stretch: _Stretch
    lines: list[Line]
    place: int  # as in Line
    copy: str | None  # its SHA-256, if a recovery that was killed has moved it to the quarantine
    at_end: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is a member of events and of nothing else."""
        return len(self.lines) == len(self.stretch.lines) and self.stretch.size == sum(
            len(line) + 1 for line in self.stretch.lines
        )


def survey(folder: Path, witness: tuple[int, str] | None = None) -> Survey:
    """Read every byte of a chain's segments. ``witness`` is the number and hash of the latest event
    that an index has seen. Of a broken end, only lines up to that event are kept.

    Raises:
        OSError: a segment can't be read.
    """
    stated: dict[str, Envelope] = {}
    seen = witness[1] if witness else ""
    reads = list(_read(folder, seen, stated))
    read_lines = [line for read in reads for line in read.lines]
    islands = _uncontradicted(_in_order(_islands(read_lines, seen), seen), witness)
    kept = {line.hash: line for island in islands for line in island}
    firsts = {island[0].hash for island in islands[1:]}
    pieces: list[Piece] = []
    broken: set[str] = set()
    inside: dict[str, set[str]] = {}
    latest = 0
    for read in reads:
        sound = [line for line in read.lines if kept.get(line.hash) is line]
        hashes = {line.hash for line in read.lines}
        if read.copy is not None:
            inside[read.copy] = hashes
            broken.update(line.ts[:7] for line in sound)
            continue
        whole = read.is_whole and len(sound) == len(read.lines)
        numbers = [latest, *(line.seq for line in sound)]
        in_place = all(line.ts[:7] == read.month for line in sound) and numbers == sorted(numbers)
        latest = max(numbers)
        if whole and in_place and firsts.isdisjoint(line.hash for line in sound[1:]):
            continue
        broken.update([read.month, *(line.ts[:7] for line in sound)])
        if not (whole and in_place):
            content = read_ours(folder / segments.segment_name(read.month))
            damaged = content[read.stretch.start : read.stretch.end]
            pieces.append(Piece(read.month, read.stretch.start, damaged, read.place, read.at_end))
            inside[sha256(damaged).hexdigest()] = hashes
    statements = [event for hash_, event in stated.items() if hash_ in kept]
    return Survey(islands, pieces, broken, statements, inside)


def _read(folder: Path, seen: str, stated: dict[str, Envelope]) -> Iterator[_ReadStretch]:
    """Every stretch of the segments, in order. ``seen`` is the hash of the event that an index has
    seen. The statements of earlier recoveries are put into ``stated``, by their hashes."""
    place = 0
    last = max((month for month, _ in segments.list_segments(folder)), default="")
    for month, content, aside in _sources(folder):
        for stretch in _stretches(content):
            texts, seen_hash = stretch.lines, ""
            if aside is not None:
                at_end = aside.at_end
            else:
                at_end = month == last and stretch.end == len(content)
            if at_end and not stretch.whole:
                # An append that was cut short was never acknowledged, unless an index has seen it.
                if seen in map(hash_line, texts):
                    seen_hash = seen
                else:
                    texts = []
            lines: list[Line] = []
            place += 1
            for number, text in enumerate(texts):
                event = event_of(text)
                if event is None:
                    continue
                hash_, line_place = hash_line(text), place + number
                checked = stretch.whole or hash_ == seen_hash
                moved = aside is not None
                line = Line(
                    event.seq, hash_, event.prev, event.ts, month, line_place, checked, moved
                )
                lines.append(line)
                if event.type == "ledger.recovered":
                    stated[hash_] = event
            copy = None if aside is None else sha256(content).hexdigest()
            yield _ReadStretch(month, stretch, lines, place, copy, at_end)
            place += len(texts)
            tell("events", place)
    tell("events", None)


def sound_lines(folder: Path, chosen: Collection[str]) -> dict[str, bytes]:
    """The lines that have these hashes, by hash, wherever they lie."""
    texts: dict[str, bytes] = {}
    for _, content, _ in _sources(folder):
        for stretch in _stretches(content):
            for line in stretch.lines:
                hash_ = hash_line(line)
                if hash_ in chosen:
                    texts.setdefault(hash_, line)
    return texts


# --- bytes ----------------------------------------------------------------------------------------


def _sources(folder: Path) -> Iterator[tuple[str, bytes, Copy | None]]:
    """Each month's segment, after the copies of its bytes by a recovery that was killed."""
    aside = [copy for copy in copies(folder) if not copy.recorded]
    months = {month for month, _ in segments.list_segments(folder)}
    for month in sorted(months | {copy.month for copy in aside}):
        for copy in aside:
            if copy.month == month:
                yield month, read_ours(copy.path), copy
        if month in months:
            yield month, read_ours(folder / segments.segment_name(month)), None


def _stretches(content: bytes) -> Iterator[_Stretch]:
    start = 0
    while start < len(content):
        try:
            member = segments.member_at(content, start)
        except segments.BrokenMember:
            end = segments.next_member(content, start + 1)
            yield _Stretch(start, end, _legible(content[start:end]), None)
        else:
            end = member.end
            yield _Stretch(start, end, _LINE.findall(member.content), len(member.content))
        start = end


def _legible(damaged: bytes) -> list[bytes]:
    """The bytes of a broken member that read as lines: text that was stored uncompressed, and what
    can be unpacked from behind the header up to the damage."""
    plain = []
    for text in damaged.split(b"\n", len(damaged) // 100)[:-1]:
        if text.endswith(b"}"):  # the bytes before a line are a header, or noise
            starts = {text.find(_LINE_START), text.rfind(_LINE_START)} - {-1}
            plain += [text[start:] for start in sorted(starts)]
    stream = zlib.decompressobj(-15)
    out, size = [], 0
    try:
        for slice_start in range(_HEADER_BYTES, len(damaged), _SLICE_BYTES):
            for step in range(slice_start, min(slice_start + _SLICE_BYTES, len(damaged))):
                out.append(stream.decompress(damaged[step : step + 1], segments.MAX_MEMBER_BYTES))
                size += len(out[-1])
            if stream.eof or size > segments.MAX_MEMBER_BYTES:
                break
    except zlib.error:
        pass
    return list(dict.fromkeys([*_LINE.findall(b"".join(out)), *plain]))


# --- links ----------------------------------------------------------------------------------------


def _islands(read_lines: list[Line], seen: str) -> list[list[Line]]:
    """Lines that follow from each other, each line once. Of two that follow from the same line,
    the one with more lines after it is kept; of equals, the one that an index has seen."""
    lines: dict[str, Line] = {}
    for line in read_lines:
        duplicate = lines.get(line.hash)
        if duplicate is None or _worth(line) > _worth(duplicate):
            lines[line.hash] = line
    children: dict[str, list[Line]] = {}
    for line in lines.values():
        parent = lines.get(line.prev)
        if parent is not None and parent.seq + 1 == line.seq and parent.ts <= line.ts:
            children.setdefault(parent.hash, []).append(line)
    length: dict[str, int] = {}
    following: dict[str, Line] = {}
    for line in sorted(lines.values(), key=lambda candidate: -candidate.seq):
        children_of_line = children.get(line.hash, ())
        best = max(
            children_of_line,
            key=lambda child: (length.get(child.hash, 0), child.hash == seen, child.checked),
            default=None,
        )
        if best is not None and length.get(best.hash, 0):
            following[line.hash] = best
            length[line.hash] = 1 + length[best.hash]
        else:
            # The last line of an island is kept only if it is checked. But a line whose hash is
            # in another line is vouched for, even if that other line is left out.
            length[line.hash] = 1 if line.checked or children_of_line else 0
    islands = []
    led = {line.hash for line in following.values()}
    for line in lines.values():
        if line.hash in led or not length[line.hash]:
            continue
        parent = lines.get(line.prev)
        if (
            parent is not None
            and following.get(parent.hash) not in (None, line)
            and (parent.seq + 1 == line.seq)
        ):
            continue  # another line has its number
        island = [line]
        while (after := following.get(island[-1].hash)) is not None:
            island.append(after)
        islands.append(island)
    return sorted(islands, key=lambda island: (island[0].seq, island[0].place))


def _worth(line: Line) -> tuple[bool, bool, bool]:
    """The rank of one copy of a line: of several, the one that needn't be moved is kept."""
    return line.checked, not line.aside, line.ts[:7] == line.month


_Best = tuple[int, tuple[int, int] | None]
"""The most lines up to an island, and the island before it. Each island has two of these: one where
it contradicts the island before it (index 1), and one where it doesn't (index 0)."""


def _in_order(islands: list[list[Line]], seen: str) -> list[list[Line]]:
    """The islands that can all be true and together have the most lines, in the order of the chain.

    Two islands with no number between them contradict each other, since the second should follow
    from the first: one line was altered. An island that contradicts both its neighbours doesn't
    belong to this chain.
    """
    if len(islands) > _MOST_ISLANDS:
        longest = sorted(islands, key=len, reverse=True)[:_MOST_ISLANDS]
        islands = sorted(longest, key=lambda island: (island[0].seq, island[0].place))
    best: list[list[_Best | None]] = []
    total = sum(map(len, islands))
    for number, island in enumerate(islands):
        first = island[0]
        weight = len(island)
        if any(line.hash == seen for line in island):
            weight += total  # the event that an index has seen outweighs all others
        own_ways: list[_Best | None] = [(weight, None), None]
        for earlier in range(number):
            last = islands[earlier][-1]
            if not (last.seq < first.seq and last.ts <= first.ts):
                continue
            against = int(last.seq + 1 == first.seq)
            for before, way in enumerate(best[earlier]):
                if way is None or (against and before):
                    continue
                lines = way[0] + weight - against
                rival = own_ways[against]
                if rival is None or lines > rival[0]:
                    own_ways[against] = lines, (earlier, before)
        best.append(own_ways)
    ends = [
        (way[0], (number, against))
        for number, ways in enumerate(best)
        for against, way in enumerate(ways)
        if way is not None
    ]
    if not ends:
        return []
    chosen: list[list[Line]] = []
    step: tuple[int, int] | None = max(ends)[1]
    while step is not None:
        chosen.append(islands[step[0]])
        way = best[step[0]][step[1]]
        step = way[1] if way is not None else None
    chosen.reverse()
    return chosen


def _uncontradicted(islands: list[list[Line]], witness: tuple[int, str] | None) -> list[list[Line]]:
    """The islands without the altered lines. If two islands contradict each other and the second is
    vouched for, the line before it was altered; else the second was. The witness decides first."""
    kept: list[list[Line]] = []
    for island in islands:
        if island[0].seq == 1 and island[0].prev != GENESIS_HASH:
            island = island[1:]  # noqa: PLW2901
            if not island:
                continue
        if kept and kept[-1][-1].seq + 1 == island[0].seq:
            if not _is_vouched_for(island, witness):
                continue
            kept[-1] = kept[-1][:-1]
            if not kept[-1]:
                kept.pop()
        kept.append(island)
    return kept


def _is_vouched_for(island: list[Line], witness: tuple[int, str] | None) -> bool:
    if witness is not None and island[0].seq <= witness[0] <= island[-1].seq:
        return island[witness[0] - island[0].seq].hash == witness[1]
    return len(island) > 1
