"""Finds what is sound in a damaged chain: whole gzip members, bytes that still read as event lines,
and the hash links between lines.

A line is *vouched for* if the line after it has its hash. It is *checked* if its member's checksum
is right. A line that is neither isn't taken, since nobody can tell what it was.

Lines that follow from each other are an *island*. Between two islands lies a gap: the events there
are lost. Nothing is invented. If two lines claim the same place, the one from which more lines
follow is taken. A line that contradicts the island after it isn't taken either.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import read_ours
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope, decode_line, hash_line
from promptyoself.ledger.segments import (
    MAX_MEMBER_BYTES,
    QUARANTINE,
    BrokenMember,
    list_segments,
    member_at,
    next_member,
    segment_name,
)
from promptyoself.ledger.survey import Line, Piece, Survey

__all__ = ["UNRECORDED", "Copy", "copies", "sound_lines", "survey"]

_LINE = re.compile(rb'^\{"v":[^\n]{100,}\}(?=\n)', re.MULTILINE)
_LINE_START = b'{"v":'
UNRECORDED = ".unrecorded"
"""How the name of a piece in the quarantine ends for which there is no statement yet."""

_COPY = re.compile(
    r"(\d{4}-\d\d)-(\d+)-after-(\d+)(-end)?-([0-9a-f]{16})\.damaged(\.unrecorded)?", re.ASCII
)

_HEADER_BYTES = 10
_SLICE_BYTES = 256
_MOST_ISLANDS = 2000
"""The most islands that are weighed against each other; of more, the longest. Damage makes a
handful. What has thousands was made so."""


class Copy(NamedTuple):
    """A copy of damaged bytes in the quarantine, as far as its name tells."""

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
        names = os.listdir(folder / QUARANTINE)
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        if match := _COPY.fullmatch(name):
            month, offset, after, end, digest, pending = match.groups()
            path = folder / QUARANTINE / name
            found.append(Copy(path, month, int(offset), int(after), bool(end), digest, not pending))
    return sorted(found, key=lambda copy: (copy.month, copy.offset))


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


class _Read(NamedTuple):
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
    """Look at every byte of a chain's segments. ``witness`` is the number and hash of the latest
    event that an index has seen: of a broken end only what it vouches for is taken.

    Raises:
        OSError: a segment can't be read.
    """
    stated: dict[str, Envelope] = {}
    read = list(_read(folder, witness, stated))
    found = [line for each in read for line in each.lines]
    islands = _in_order(_islands(found, witness), witness)
    kept = {line.hash: line for island in islands for line in island}
    firsts = {island[0].hash for island in islands[1:]}
    pieces: list[Piece] = []
    broken: set[str] = set()
    inside: dict[str, set[str]] = {}
    latest = 0
    for each in read:
        mine = [line for line in each.lines if kept.get(line.hash) is line]
        hashes = {line.hash for line in each.lines}
        if each.copy is not None:
            inside[each.copy] = hashes
            broken.update(line.ts[:7] for line in mine)
            continue
        whole = each.is_whole and len(mine) == len(each.lines)
        numbers = [latest, *(line.seq for line in mine)]
        in_place = all(line.ts[:7] == each.month for line in mine) and numbers == sorted(numbers)
        latest = max(numbers)
        if whole and in_place and firsts.isdisjoint(line.hash for line in mine[1:]):
            continue
        broken.update([each.month, *(line.ts[:7] for line in mine)])
        if not (whole and in_place):
            content = read_ours(folder / segment_name(each.month))
            damaged = content[each.stretch.start : each.stretch.end]
            pieces.append(Piece(each.month, each.stretch.start, damaged, each.place, each.at_end))
            inside[sha256(damaged).hexdigest()] = hashes
    statements = [event for hash_, event in stated.items() if hash_ in kept]
    return Survey(islands, pieces, broken, statements, inside)


def _read(
    folder: Path, witness: tuple[int, str] | None, stated: dict[str, Envelope]
) -> Iterator[_Read]:
    """Every stretch of the segments, in order; ``stated`` then has the statements of earlier
    recoveries, by their hashes."""
    place = 0
    last = max((month for month, _ in list_segments(folder)), default="")
    for month, content, aside in _sources(folder):
        for stretch in _stretches(content):
            texts, known = stretch.lines, None
            if aside is not None:
                at_end = aside.at_end
            else:
                at_end = month == last and stretch.end == len(content)
            if at_end and not stretch.whole:
                # What was cut short was never acknowledged, but for what an index has seen.
                known = _seen(texts, witness)
                texts = texts if known is not None else []
            lines: list[Line] = []
            place += 1
            for number, text in enumerate(texts):
                event = _event(text)
                if event is None:
                    continue
                hash_ = hash_line(text)
                checked = stretch.whole or hash_ == known
                at = place + number
                lines.append(
                    Line(
                        event.seq,
                        hash_,
                        event.prev,
                        event.ts,
                        month,
                        stretch.start,
                        at,
                        checked,
                        aside is not None,
                    )
                )
                if event.type == "ledger.recovered":
                    stated[hash_] = event
            copy = None if aside is None else sha256(content).hexdigest()
            yield _Read(month, stretch, lines, place, copy, at_end)
            place += len(texts)


def sound_lines(folder: Path, chosen: Collection[str]) -> dict[str, bytes]:
    """The lines that have these hashes, by hash, wherever they lie."""
    found: dict[str, bytes] = {}
    for _, content, _ in _sources(folder):
        for stretch in _stretches(content):
            for line in stretch.lines:
                hash_ = hash_line(line)
                if hash_ in chosen:
                    found.setdefault(hash_, line)
    return found


# --- bytes ----------------------------------------------------------------------------------------


def _sources(folder: Path) -> Iterator[tuple[str, bytes, Copy | None]]:
    """Each month's segment, and before it what a recovery that was killed has moved out of it."""
    aside = [copy for copy in copies(folder) if not copy.recorded]
    months = {month for month, _ in list_segments(folder)}
    for month in sorted(months | {copy.month for copy in aside}):
        for copy in aside:
            if copy.month == month:
                yield month, read_ours(copy.path), copy
        if month in months:
            yield month, read_ours(folder / segment_name(month)), None


def _stretches(content: bytes) -> Iterator[_Stretch]:
    at = 0
    while at < len(content):
        try:
            member = member_at(content, at)
        except BrokenMember:
            end = next_member(content, at + 1)
            yield _Stretch(at, end, _legible(content[at:end]), None)
        else:
            end = member.end
            yield _Stretch(at, end, _LINE.findall(member.content), len(member.content))
        at = end


def _legible(damaged: bytes) -> list[bytes]:
    """What reads as lines in a broken member: the text itself, where it was stored as it is; and
    what can be unpacked of it behind its header, as far as that goes."""
    plain = []
    for text in damaged.split(b"\n", len(damaged) // 100)[:-1]:
        if text.endswith(b"}"):  # what comes before a line is a header, or noise
            starts = {text.find(_LINE_START), text.rfind(_LINE_START)} - {-1}
            plain += [text[start:] for start in sorted(starts)]
    stream = zlib.decompressobj(-15)
    out, size = [], 0
    try:
        for at in range(_HEADER_BYTES, len(damaged), _SLICE_BYTES):
            for step in range(at, min(at + _SLICE_BYTES, len(damaged))):
                out.append(stream.decompress(damaged[step : step + 1], MAX_MEMBER_BYTES))
                size += len(out[-1])
            if stream.eof or size > MAX_MEMBER_BYTES:
                break
    except zlib.error:
        pass
    return list(dict.fromkeys([*_LINE.findall(b"".join(out)), *plain]))


def _event(line: bytes) -> Envelope | None:
    try:
        return decode_line(line)
    except ValueError:
        return None


def _seen(lines: list[bytes], witness: tuple[int, str] | None) -> str | None:
    hashes = {hash_line(line) for line in lines} if witness else set()
    return witness[1] if witness is not None and witness[1] in hashes else None


# --- links ----------------------------------------------------------------------------------------


def _islands(found: list[Line], witness: tuple[int, str] | None) -> list[list[Line]]:
    """Lines that follow from each other, each line once. Of two that follow from the same line, the
    one is taken from which more follow; of equals, the one that an index has seen."""
    seen = witness[1] if witness else None
    lines: dict[str, Line] = {}
    for line in found:
        known = lines.get(line.hash)
        if known is None or _worth(line) > _worth(known):
            lines[line.hash] = line
    children: dict[str, list[Line]] = {}
    for line in lines.values():
        parent = lines.get(line.prev)
        if parent is not None and parent.seq + 1 == line.seq and parent.ts <= line.ts:
            children.setdefault(parent.hash, []).append(line)
    length: dict[str, int] = {}
    following: dict[str, Line] = {}
    for line in sorted(lines.values(), key=lambda each: -each.seq):
        mine = children.get(line.hash, ())
        best = max(
            mine,
            key=lambda each: (length.get(each.hash, 0), each.hash == seen, each.checked),
            default=None,
        )
        if best is not None and length.get(best.hash, 0):
            following[line.hash] = best
            length[line.hash] = 1 + length[best.hash]
        else:
            # The last of its island is taken only if it was checked. But a line whose hash stands
            # in another line is vouched for, even where that line itself isn't taken.
            length[line.hash] = 1 if line.checked or mine else 0
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
            continue  # another line has its place
        island = [line]
        while (after := following.get(island[-1].hash)) is not None:
            island.append(after)
        islands.append(island)
    return sorted(islands, key=lambda island: (island[0].seq, island[0].place))


def _worth(line: Line) -> tuple[bool, bool, bool]:
    """Of a line that lies in several places, the one is taken that needn't be moved."""
    return line.checked, not line.aside, line.ts[:7] == line.month


_Best = tuple[int, tuple[int, int] | None]
"""The most lines up to an island, and the one before it. Of each island there are two: where it
contradicts the one before it (1), and where it doesn't (0)."""


def _in_order(islands: list[list[Line]], witness: tuple[int, str] | None) -> list[list[Line]]:
    """Those islands, in the order of the chain, that have the most lines and can all be true.

    Two islands without a number between them contradict each other, since the second should have
    followed from the first: one line was altered. An island that contradicts those on both sides of
    it is none of this chain.
    """
    if len(islands) > _MOST_ISLANDS:
        longest = sorted(islands, key=len, reverse=True)[:_MOST_ISLANDS]
        islands = sorted(longest, key=lambda island: (island[0].seq, island[0].place))
    best: list[list[_Best | None]] = []
    total = sum(map(len, islands))
    for at, island in enumerate(islands):
        first = island[0]
        weight = len(island)
        if witness is not None and any(line.hash == witness[1] for line in island):
            weight += total  # what an index has seen decides before all else
        mine: list[_Best | None] = [(weight, None), None]
        for earlier in range(at):
            last = islands[earlier][-1]
            if not (last.seq < first.seq and last.ts <= first.ts):
                continue
            against = int(last.seq + 1 == first.seq)
            for before, found in enumerate(best[earlier]):
                if found is None or (against and before):
                    continue
                lines = found[0] + weight - against
                known = mine[against]
                if known is None or lines > known[0]:
                    mine[against] = lines, (earlier, before)
        best.append(mine)
    ends = [
        (found[0], (at, against))
        for at, each in enumerate(best)
        for against, found in enumerate(each)
        if found is not None
    ]
    if not ends:
        return []
    chosen: list[list[Line]] = []
    came: tuple[int, int] | None = max(ends)[1]
    while came is not None:
        chosen.append(islands[came[0]])
        found = best[came[0]][came[1]]
        came = found[1] if found is not None else None
    chosen.reverse()
    return _uncontradicted(chosen, witness)


def _uncontradicted(islands: list[list[Line]], witness: tuple[int, str] | None) -> list[list[Line]]:
    """Where two islands contradict each other and the second is vouched for, the line before it was
    altered; else the second was. What an index has seen decides before all else."""
    found: list[list[Line]] = []
    for island in islands:
        if island[0].seq == 1 and island[0].prev != GENESIS_HASH:
            island = island[1:]  # noqa: PLW2901
            if not island:
                continue
        if found and found[-1][-1].seq + 1 == island[0].seq:
            if not _is_vouched_for(island, witness):
                continue
            found[-1] = found[-1][:-1]
            if not found[-1]:
                found.pop()
        found.append(island)
    return found


def _is_vouched_for(island: list[Line], witness: tuple[int, str] | None) -> bool:
    if witness is not None and island[0].seq <= witness[0] <= island[-1].seq:
        return island[witness[0] - island[0].seq].hash == witness[1]
    return len(island) > 1
