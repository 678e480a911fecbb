"""Reading monthly segments: files of whole gzip members, each one append, each one or more lines.

No line is handed out before the trailer (CRC-32 and length) of its member has been checked:
``gzip.GzipFile`` would hand out the lines of a torn member and raise only afterwards.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from promptyoself.errors import ChainError
from promptyoself.ledger.envelope import Envelope, decode_line, hash_line
from promptyoself.ledger.protocol import Position

__all__ = [
    "MAX_MEMBER_BYTES",
    "BrokenMember",
    "Member",
    "compress",
    "damaged",
    "has_member_after",
    "link",
    "list_segments",
    "read_members",
    "segment_name",
]

MAX_MEMBER_BYTES = 64 * 1024 * 1024
"""The most that one member may hold, uncompressed. A prompt of 1 MiB escapes to at most 6 MiB, so
an honest member stays far below; it bounds what a crafted one can make a reader allocate."""

_NAME = re.compile(r"(\d{4}-(?:0[1-9]|1[0-2]))\.ndjson\.gz")
_READ_BYTES = 1 << 18
_MAGIC = b"\x1f\x8b\x08"
_GZIP = 31  # zlib's wbits for a gzip header and trailer around a 32 KiB window


class Member(NamedTuple):
    """One whole member: where it lies in its file, and what it holds."""

    start: int
    end: int
    content: bytes


class BrokenMember(Exception):
    """What lies at ``offset`` isn't a whole member; ``cause`` says in what way."""

    def __init__(self, offset: int, cause: str) -> None:
        super().__init__(cause)
        self.offset = offset
        self.cause = cause


def segment_name(month: str) -> str:
    """The file name for a month such as ``2026-11``."""
    return f"{month}.ndjson.gz"


def list_segments(folder: Path) -> list[tuple[str, int]]:
    """The months that have a segment, oldest first, each with its size in bytes. An empty file is
    none: a crash can leave one, between making it and writing to it."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (match[1], size)
                for entry in entries
                if (match := _NAME.fullmatch(entry.name)) and (size := entry.stat().st_size)
            ]
    except FileNotFoundError:
        return []
    return sorted(found)


def compress(content: bytes) -> bytes:
    """One gzip member. Its header bears no time and no name: equal content gives equal bytes."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return compressor.compress(content) + compressor.flush()


def read_members(path: Path, start: int = 0) -> Iterator[Member]:
    """The members of a file from a member's border on, in constant memory.

    Raises:
        BrokenMember: after the last whole member, if the file goes on.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        base, buffer, at = start, b"", 0  # buffer[at] lies at base + at in the file
        while True:
            parts: list[bytes] = []
            size = 0
            decompressor = zlib.decompressobj(_GZIP)
            while not decompressor.eof:
                # Small slices, since zlib copies whatever follows the member into unused_data.
                piece = buffer[at : at + 4096]
                if not piece:
                    base, buffer, at = base + at, file.read(_READ_BYTES), 0
                    if not buffer:
                        if base == start:
                            return
                        raise BrokenMember(start, "it ends in the middle")
                    continue
                at += len(piece)
                while piece:
                    try:
                        part = decompressor.decompress(piece, MAX_MEMBER_BYTES + 1 - size)
                    except zlib.error as error:
                        raise BrokenMember(start, str(error)) from None
                    parts.append(part)
                    size += len(part)
                    if size > MAX_MEMBER_BYTES:
                        raise BrokenMember(start, f"it holds more than {MAX_MEMBER_BYTES} bytes")
                    piece = decompressor.unconsumed_tail
            at -= len(decompressor.unused_data)
            yield Member(start, base + at, b"".join(parts))
            start = base + at


def has_member_after(path: Path, offset: int) -> bool:
    """Whether a whole member with an event line starts anywhere after ``offset``.

    It tells damage in the middle from a torn end: an append that was cut short is followed by
    nothing, since the next writer moves it aside first.
    """
    with path.open("rb") as file:
        file.seek(offset)
        tail = file.read()
    view = memoryview(tail)
    at = tail.find(_MAGIC, 1)
    while at >= 0:
        decompressor = zlib.decompressobj(_GZIP)
        try:
            content = decompressor.decompress(view[at:], MAX_MEMBER_BYTES)
            if decompressor.eof:
                decode_line(content.partition(b"\n")[0])
                return True
        except (zlib.error, ValueError):
            pass
        at = tail.find(_MAGIC, at + 1)
    return False


def link(position: Position, member: Member, month: str, earlier: int) -> tuple[list[Envelope], Position]:
    """Check that a member's lines follow from ``position``, and step over them.

    Raises:
        ChainError: ``corrupt_chain``, naming the first bad event and what was expected and found.
    """
    seq, head, ts = position.seq, position.hash, position.ts
    if not member.content.endswith(b"\n"):
        raise damaged(month, member.start, seq + 1, "its last line has no end", "\\n", "none")
    envelopes = []
    for line in member.content[:-1].split(b"\n"):
        seq += 1
        try:
            envelope = decode_line(line)
        except ValueError as error:
            raise damaged(
                month, member.start, seq, f"the line isn't an event: {error}", "an event line", "other bytes"
            ) from None
        if envelope.seq != seq:
            raise damaged(month, member.start, seq, "the sequence is broken", seq, envelope.seq)
        if envelope.prev != head:
            raise damaged(
                month, member.start, seq, "it doesn't follow from the line before it", head, envelope.prev
            )
        if envelope.ts < ts:
            raise damaged(month, member.start, seq, "its time runs backwards", ts, envelope.ts)
        if envelope.ts[:7] != month:
            raise damaged(month, member.start, seq, "it lies in another month", month, envelope.ts[:7])
        head, ts = hash_line(line), envelope.ts
        envelopes.append(envelope)
    return envelopes, Position(seq, head, ts, month, member.end, member.start, earlier)


def damaged(
    month: str, offset: int, seq: int, what: str, expected: object, found: object
) -> ChainError:
    """The one error for a chain that isn't what it must be."""
    return ChainError(
        "corrupt_chain",
        f"The log is damaged at event {seq}, in {segment_name(month)} at byte {offset}: {what}.",
        "Nothing was changed. Run `promptyoself verify` for the details, and restore that segment "
        "from a backup; the events before it are sound.",
        month=month,
        seq=seq,
        offset=offset,
        expected=expected,
        found=found,
    )
