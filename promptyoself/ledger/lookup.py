"""Finding one event by its number, without reading the log up to it.

A month's members stand in the order of their events, so a place for the event is guessed between
two members that are known, the next member after it is read, and the guess is bettered. Whether the
month is sealed makes no difference.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import BinaryIO, NamedTuple

from promptyoself.ledger.envelope import Envelope, decode_line
from promptyoself.ledger.segments import BrokenMember, Member, members_of

__all__ = ["Borders", "seek"]

_HEADER = re.compile(rb"\x1f\x8b\x08")
_SEQ = re.compile(rb'\{"v":[0-9]{1,9},"seq":([1-9][0-9]{0,17}),')
_NEAR_BYTES = 1 << 12
"""This near to the event, in bytes, members are read one after the other."""

_CHUNK_BYTES = 1 << 14
_MOST_GUESSES = 8
"""The first guesses are made by the events' numbers. After these, the middle is taken, which always
gets there."""

_MOST_BORDERS = 1 << 14


class Borders(NamedTuple):
    """Where members of one file start, as far as that is known: the number of the first event of
    each, rising, and its place."""

    numbers: list[int]
    places: list[int]

    def add(self, number: int, place: int) -> None:
        """Remember one."""
        at = bisect_right(self.numbers, number)
        if (at and self.numbers[at - 1] == number) or len(self.numbers) >= _MOST_BORDERS:
            return
        self.numbers.insert(at, number)
        self.places.insert(at, place)


def seek(file: BinaryIO, size: int, seq: int, borders: Borders) -> Envelope | None:
    """The event of that number in an unbuffered file; ``None`` where it isn't there, or what is
    there can't be read. ``borders`` are those of the same file, and are added to."""
    if not borders.numbers:
        first = _member_from(file, 0, 1)
        if first is None:
            return None
        borders.add(first[1], 0)
    at = bisect_right(borders.numbers, seq)
    if at == 0:
        return None
    low, low_seq = borders.places[at - 1], borders.numbers[at - 1]
    high, high_seq = size, 0
    if at < len(borders.numbers):
        high, high_seq = borders.places[at], borders.numbers[at]
    guesses = 0
    while high - low > _NEAR_BYTES and low_seq < seq:
        guesses += 1
        place = (low + high) // 2
        if high_seq and guesses <= _MOST_GUESSES:
            share = (seq - low_seq) / (high_seq - low_seq)
            place = low + int((high - low) * share) - _NEAR_BYTES // 2
        elif not high_seq and guesses == 1:
            place = high - _CHUNK_BYTES  # the last members tell how densely events lie
        place = min(max(place, low + 1), high - 1)
        found = _member_from(file, place, high)
        if found is None:
            high = place
            continue
        member, number = found
        borders.add(number, member.start)
        if number > seq:
            high, high_seq = place, number
        else:
            low, low_seq = member.start, number
            if seq < number + member.content.count(b"\n"):
                break
    return _walk(file, low, seq, borders)


def _walk(file: BinaryIO, start: int, seq: int, borders: Borders) -> Envelope | None:
    """The event in the member there, or in one of those that follow."""
    try:
        for member in members_of(file, start):
            match = _SEQ.match(member.content)
            if match is None or (first := int(match[1])) > seq:
                return None
            borders.add(first, member.start)
            if seq < first + member.content.count(b"\n"):
                envelope = decode_line(member.content.split(b"\n")[seq - first])
                return envelope if envelope.seq == seq else None
    except (BrokenMember, ValueError):
        pass
    return None


def _member_from(file: BinaryIO, place: int, until: int) -> tuple[Member, int] | None:
    """The first whole member that starts from ``place`` on and before ``until``, and the number of
    its first event."""
    while place < until:
        file.seek(place)
        chunk = file.read(min(_CHUNK_BYTES, until - place) + 2)
        for match in _HEADER.finditer(chunk):
            try:
                member = next(members_of(file, place + match.start()), None)
            except BrokenMember:  # bytes within a member that look like the beginning of one
                continue
            if member is not None and (found := _SEQ.match(member.content)):
                return member, int(found[1])
        place += _CHUNK_BYTES
    return None
