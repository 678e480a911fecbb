"""Finding one event by its number, the newest ones, or the end of a month, without reading the log
up to them.

A month's members are in the order of their events. So the event's offset is guessed between two
known members, and the next member from there is read. It bounds the next guess. Sealed months are
read in the same way.
"""

import re
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from promptyoself.ledger.batch import START, Position
from promptyoself.ledger.envelope import Envelope, decode_line, hash_line
from promptyoself.ledger.segments import (
    BrokenMember,
    Member,
    last_member,
    list_segments,
    members_of,
    segment_name,
)

_HEADER = re.compile(rb"\x1f\x8b\x08")
_SEQ = re.compile(rb'\{"v":[0-9]{1,9},"seq":([1-9][0-9]{0,17}),')
_NEAR_BYTES = 1 << 12
"""Within this number of bytes before the event, members are read one after the other."""

_CHUNK_BYTES = 1 << 14
_NEWEST_BYTES = 1 << 17
_MOST_GUESSES = 8
"""The number of guesses that are made by the events' numbers. Later ones halve the range, which
always ends."""

_MOST_BORDERS = 1 << 14


class Borders(NamedTuple):
    """Where some members of one file start, in rising order."""

    numbers: list[int]  # the number of each member's first event
    offsets: list[int]  # where the member starts, in bytes

    def add(self, number: int, offset: int) -> None:
        """Remember a member, unless it is known or there are too many."""
        index = bisect_right(self.numbers, number)
        if (index and self.numbers[index - 1] == number) or len(self.numbers) >= _MOST_BORDERS:
            return
        self.numbers.insert(index, number)
        self.offsets.insert(index, offset)


class Lines(NamedTuple):
    """The events of a member."""

    first: int  # the number of its first event
    lines: list[bytes]

    def event(self, seq: int) -> Envelope | None:
        """The event of that number; ``None`` if it isn't among them or can't be read."""
        if not 0 <= seq - self.first < len(self.lines):
            return None
        try:
            envelope = decode_line(self.lines[seq - self.first])
        except ValueError:
            return None
        return envelope if envelope.seq == seq else None


def end_before(folder: Path, month: str) -> Position:
    """The position after the last event before a month. One file is read for it, and none of its
    events. Where that file can't be read, it is the position before the first event: a reader who
    goes on from there is told of the damage.

    Raises:
        OSError: the disk refused.
    """
    earlier = [segment for segment in list_segments(folder) if segment[0] < month]
    if not earlier:
        return START
    last = earlier.pop()[0]
    try:
        member = last_member(folder / segment_name(last))
        if member is None:
            return START
        event = decode_line(member.last_line)
    except (BrokenMember, ValueError, FileNotFoundError):
        return START
    size = sum(size for _, size in earlier)
    hash_ = hash_line(member.last_line)
    return Position(event.seq, hash_, event.ts, last, member.end, member.start, size)


def seek(file: BinaryIO, size: int, seq: int, borders: Borders) -> Lines | None:
    """The member of an unbuffered file that has the event of that number; ``None`` if it isn't
    there or can't be read. ``borders`` are those of the same file. New ones are added."""
    if not borders.numbers:
        first = _member_from(file, 0, 1)
        if first is None:
            return None
        borders.add(first[1], 0)
    index = bisect_right(borders.numbers, seq)
    if index == 0:
        return None
    low, low_seq = borders.offsets[index - 1], borders.numbers[index - 1]
    high, high_seq = size, 0
    if index < len(borders.numbers):
        high, high_seq = borders.offsets[index], borders.numbers[index]
    guesses = 0
    while high - low > _NEAR_BYTES and low_seq < seq:
        guesses += 1
        offset = (low + high) // 2
        if high_seq and guesses <= _MOST_GUESSES:
            share = (seq - low_seq) / (high_seq - low_seq)
            offset = low + int((high - low) * share) - _NEAR_BYTES // 2
        elif not high_seq and guesses == 1:
            offset = high - _CHUNK_BYTES  # the last members show how densely events lie
        offset = min(max(offset, low + 1), high - 1)
        member_and_number = _member_from(file, offset, high)
        if member_and_number is None:
            high = offset
            continue
        member, number = member_and_number
        borders.add(number, member.start)
        if number > seq:
            high, high_seq = offset, number
        else:
            low, low_seq = member.start, number
            if seq < number + member.content.count(b"\n"):
                break
    return _walk(file, low, seq, borders)


def newest(file: BinaryIO, size: int) -> list[Envelope]:
    """The events of the last members of an unbuffered file, some :data:`_NEWEST_BYTES` of them,
    oldest first. An unfinished end is left out."""
    envelopes: list[Envelope] = []
    start = max(size - _NEWEST_BYTES, 0)
    first = _member_from(file, start, size)
    if first is not None:
        with suppress(BrokenMember, ValueError):
            for member in members_of(file, first[0].start):
                envelopes += map(decode_line, member.content.splitlines())
    return envelopes


def _walk(file: BinaryIO, start: int, seq: int, borders: Borders) -> Lines | None:
    """The member that has the event: the one at ``start`` or one of those that follow."""
    try:
        for member in members_of(file, start):
            match = _SEQ.match(member.content)
            if match is None or (first := int(match[1])) > seq:
                return None
            borders.add(first, member.start)
            lines = member.content.split(b"\n")[:-1]
            if seq < first + len(lines):
                return Lines(first, lines)
    except BrokenMember:
        pass
    return None


def _member_from(file: BinaryIO, offset: int, until: int) -> tuple[Member, int] | None:
    """The first whole member from ``offset`` and before ``until``, and its first event's number."""
    while offset < until:
        file.seek(offset)
        chunk = file.read(min(_CHUNK_BYTES, until - offset) + 2)
        for match in _HEADER.finditer(chunk):
            try:
                member = next(members_of(file, offset + match.start()), None)
            except BrokenMember:  # bytes within a member that look like the beginning of one
                continue
            if member is not None and (seq_match := _SEQ.match(member.content)):
                return member, int(seq_match[1])
        offset += _CHUNK_BYTES
    return None
