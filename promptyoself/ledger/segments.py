"""Reading monthly segments: files of whole gzip members, each one append, each one or more lines.

No line is handed out before the trailer (CRC-32 and length) of its member has been checked:
``gzip.GzipFile`` would hand out the lines of a torn member and raise only afterwards.
"""

import io
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from struct import Struct
from types import ModuleType
from typing import BinaryIO, NamedTuple

from promptyoself.core.disk import Disk, is_ours, open_ours
from promptyoself.core.errors import ChainError
from promptyoself.ledger.batch import Position
from promptyoself.ledger.envelope import Envelope, decode_line, event_of, hash_line

MAX_MEMBER_BYTES = 64 * 1024 * 1024
"""The most that one member may hold, uncompressed. A prompt of 1 MiB escapes to at most 6 MiB, so
an honest member stays far below; it bounds what a crafted one can make a reader allocate."""

SUFFIX = ".ndjson.gz"
"""How the name of every month's file ends."""

UNSETTLED = ".unsettled"
"""A file that exists while the renaming of a month may not be durable. The next append makes it
durable; else the old file could come back, without the events added to the new one."""

QUARANTINE = "quarantine"
"""The folder for damaged bytes, within the chain's own."""

_NAME = re.compile(r"(\d{4}-(?:0[1-9]|1[0-2]))\.ndjson\.gz", re.ASCII)
_SMALL_BYTES = 1 << 10  # an event or two: deflating them takes longer than all else
_LARGE_BYTES = 1 << 12  # from here on it is worth importing a faster library
# RFC 1952, 2.3, and RFC 1951, 3.2.4: a header, and the only block, stored; CRC and length.
_HEADER = bytes.fromhex("1f8b08000000000000ff01")
_STORED, _TRAILER = Struct("<11sHH").pack, Struct("<LL").pack
_READ_BYTES = 1 << 16
_FIRST_BYTES = 1 << 10
_SLICE_BYTES = 1 << 12
_GZIP_HEADER = b"\x1f\x8b\x08"
_MAGIC = re.compile(re.escape(_GZIP_HEADER))
_LINE_START = b'{"v":'
_LEAST_LINE_BYTES = 128  # an envelope's keys, its instant and its hash alone have more
_GZIP = 31  # zlib's wbits for a gzip header and trailer around a 32 KiB window


class Member(NamedTuple):
    """One whole member."""

    start: int  # where it begins in its file, in bytes
    end: int
    content: bytes  # uncompressed

    @property
    def last_line(self) -> bytes:
        """Its last line, without the newline."""
        return self.content[:-1].rpartition(b"\n")[2]


class BrokenMember(Exception):
    """There is no whole member at ``offset``; ``cause`` says why."""

    def __init__(self, offset: int, cause: str, *, cut_short: bool = False) -> None:
        super().__init__(cause)
        self.offset = offset
        self.cause = cause
        self.cut_short = cut_short


def segment_name(month: str) -> str:
    """The file name for a month such as ``2026-11``."""
    return f"{month}.ndjson.gz"


def is_month(text: str) -> bool:
    """Whether a text is a month such as ``2026-11``."""
    return _NAME.fullmatch(segment_name(text)) is not None


@contextmanager
def unsettled(folder: Path, disk: Disk) -> Iterator[None]:
    """Rename or remove a month meanwhile, and make that durable. If that is cut short, the mark
    stays for the next append."""
    mark = folder / UNSETTLED
    os.close(disk.open_own(mark, os.O_WRONLY | os.O_CREAT))
    yield
    disk.discard(mark)


def list_segments(folder: Path) -> list[tuple[str, int]]:
    """The months that have a segment, oldest first, each with its size in bytes. An empty file
    doesn't count: a crash leaves one between making the file and writing to it."""
    return [(month, state.st_size) for month, state in stat_segments(folder)[0]]


def stat_segments(folder: Path) -> tuple[list[tuple[str, os.stat_result]], list[str]]:
    """The months with the stat of each file, and every name in the folder.

    Raises:
        OSError: a month is no regular file, such as a link.
    """
    root, segments = str(folder), []
    try:
        names = os.listdir(root)
        for name in names:
            if name.endswith(SUFFIX) and (match := _NAME.fullmatch(name)):
                path = f"{root}/{name}"
                state = is_ours(os.lstat(path), path)
                if state.st_size:
                    segments.append((match[1], state))
    except FileNotFoundError:  # the folder; or a month has gone, and nothing is certain
        return [], []
    segments.sort(key=itemgetter(0))
    return segments, names


def compress(content: bytes) -> bytes:
    """One gzip member. Its header bears no time and no name: equal content gives equal bytes,
    where the same library makes them. An event alone is stored as it is: sealing compresses it."""
    size = len(content)
    if size < _SMALL_BYTES:
        return b"%b%b%b" % (
            _STORED(_HEADER, size, size ^ 0xFFFF),
            content,
            _TRAILER(zlib.crc32(content), size),
        )
    if size >= _LARGE_BYTES and (isal := _isal()) is not None:
        compressed: bytes = isal.compress(content, 1, _GZIP)
        return compressed
    return zlib.compress(content, 6, _GZIP)


@cache
def _isal() -> ModuleType | None:
    """Intel's library, where it is installed (the extra ``fast``): at its level 1 it makes
    slightly smaller members than zlib at 9, in a tenth of the time or less.

    It is only for writing. It also unpacks large members in half the time, but that is a twentieth
    of the cost of replaying an event. And it accepts some crafted members that zlib and ``zcat``
    refuse; which logs are sound must not depend on the libraries that are installed.
    """
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


def read_members(path: Path, start: int = 0) -> Iterator[Member]:
    """As :func:`members_of`, of a file by its name.

    Raises:
        BrokenMember: after the last whole member, if the file goes on.
    """
    with open_ours(path) as file:
        yield from members_of(file, start)


def last_member(path: Path) -> Member | None:
    """The last member of a file; ``None`` if it is empty.

    Raises:
        BrokenMember: not all of the file is whole members.
    """
    members = deque(read_members(path), maxlen=1)
    return members[0] if members else None


def members_of(file: BinaryIO, start: int = 0) -> Iterator[Member]:
    """The members of an unbuffered file, from the start of one. One member at a time is in memory.

    Raises:
        BrokenMember: after the last whole member, if the file goes on.
    """
    file.seek(start)
    buffer, cursor = b"", 0
    while True:
        decompressor = zlib.decompressobj(_GZIP)
        parts: list[bytes] = []
        size, end, slice_bytes = 0, start, _FIRST_BYTES
        while True:
            # In slices, since zlib copies whatever follows the member into unused_data; a small
            # one first, since most members are.
            piece = buffer[cursor : cursor + slice_bytes]
            if not piece:
                buffer, cursor = file.read(_READ_BYTES), 0
                if buffer:
                    continue
                if end == start:
                    return
                raise BrokenMember(start, "it ends in the middle", cut_short=True)
            try:
                content = decompressor.decompress(piece, MAX_MEMBER_BYTES + 1 - size)
            except zlib.error as error:
                raise BrokenMember(start, str(error)) from None
            size += len(content)
            if size > MAX_MEMBER_BYTES:
                raise BrokenMember(start, f"it holds more than {MAX_MEMBER_BYTES} bytes")
            used = len(piece) - len(decompressor.unused_data)
            cursor += used
            end += used
            if decompressor.eof:
                break
            parts.append(content)
            slice_bytes = _READ_BYTES
        yield Member(start, end, b"".join([*parts, content]) if parts else content)
        start = end


def ends_at(file: BinaryIO, position: Position) -> bool:
    """Whether the position's event is the last of the member that the position names."""
    if position.member < 0:  # an index may say so, and no file can be read from there
        return False
    try:
        member = next(members_of(file, position.member), None)
        if member is None or member.end != position.offset:
            return False
        if hash_line(member.last_line) != position.hash:
            return False
        envelope = decode_line(member.last_line)
    except (BrokenMember, ValueError):
        return False
    return (envelope.seq, envelope.ts) == (position.seq, position.ts)


def relocate(file: BinaryIO, position: Position) -> Member | None:
    """The member that has the position's event, cut down to the lines after that event; ``None`` if
    there is none. The event's hash vouches for everything before it, too."""
    try:
        for member in members_of(file):
            first = decode_line(member.content.partition(b"\n")[0]).seq
            lines = _split(member.content)[:-1]
            if first <= position.seq < first + len(lines):
                index = position.seq - first
                if hash_line(lines[index]) != position.hash:
                    return None
                content = b"".join(line + b"\n" for line in lines[index + 1 :])
                return member._replace(content=content)
    except (BrokenMember, ValueError):
        pass
    return None


def has_member_after(file: BinaryIO, offset: int) -> bool:
    """Whether a whole member with an event line starts anywhere after ``offset``.

    This distinguishes damage in the middle from a torn end: nothing follows an append that was cut
    short, since the next writer moves it aside first. In doubt the answer is yes: damage.
    """
    file.seek(offset)
    tail = memoryview(file.read())
    budget = 2 * MAX_MEMBER_BYTES
    for tries, header in enumerate(_MAGIC.finditer(tail, 1)):
        # Noise has one header in 16 MB. Bytes with a thousand, or that unpack to that much, are no
        # torn end, and must not cost minutes.
        if tries >= 1000 or budget <= 0:
            return True
        content, whole, cost = _unpack(tail[header.start() :])
        budget -= cost
        if whole and event_of(content.partition(b"\n")[0]) is not None:
            return True
    return False


def member_at(content: bytes, start: int) -> Member:
    """The whole member that begins there.

    Raises:
        BrokenMember: none does.
    """
    for member in members_of(io.BytesIO(content), start):
        return member
    raise BrokenMember(start, "it is empty")


def next_member(content: bytes, start: int) -> int:
    """The offset, from ``start`` on, of the next whole member with an event line; else the end."""
    view = memoryview(content)
    for header in _MAGIC.finditer(view, start):
        text, whole, _ = _unpack(view[header.start() :])
        if whole and event_of(text.partition(b"\n")[0]) is not None:
            return header.start()
    return len(content)


def is_foreign(file: BinaryIO) -> bool:
    """Whether a file begins neither with a gzip header nor with the zeros that a loss of power
    leaves. Then it isn't the torn end of a first append but damaged, or somebody else's: nothing
    may be cut off it."""
    file.seek(0)
    head = file.read(len(_GZIP_HEADER))
    return any(byte not in (0, right) for byte, right in zip(head, _GZIP_HEADER, strict=False))


def _unpack(data: memoryview) -> tuple[bytes, bool, int]:
    """The content of the member that starts here, or nothing if that isn't an event; whether the
    member is whole; and how many bytes were unpacked."""
    decompressor = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size = 0
    try:
        # The first bytes are checked first: not every header is worth a whole decompression.
        if decompressor.decompress(data[:1024], len(_LINE_START)) != _LINE_START:
            return b"", False, 0
        decompressor = zlib.decompressobj(_GZIP)
        for start in range(0, len(data), _SLICE_BYTES):
            piece = data[start : start + _SLICE_BYTES]
            parts.append(decompressor.decompress(piece, MAX_MEMBER_BYTES + 1 - size))
            size += len(parts[-1])
            if decompressor.eof or size > MAX_MEMBER_BYTES:
                break
    except zlib.error:
        return b"", False, size
    return b"".join(parts), decompressor.eof, size


def check_links(
    position: Position, member: Member, month: str, earlier: int
) -> tuple[list[Envelope], Position]:
    """Check that a member's lines follow from ``position``, and step over them.

    Raises:
        ChainError: ``corrupt_chain``, naming the first bad event and what was expected and found.
    """
    seq, head, ts = position.seq, position.hash, position.ts
    envelopes = []
    for line in _lines_of(member, month, seq):
        seq += 1
        envelope = _check_line(line, seq, head, ts, month, member.start)
        ts = envelope.ts
        head = sha256(line).hexdigest()
        envelopes.append(envelope)
    return envelopes, Position(seq, head, ts, month, member.end, member.start, earlier)


def _lines_of(member: Member, month: str, seq: int) -> list[bytes]:
    """The lines of a member, which follow event ``seq``, each without its newline.

    Raises:
        ChainError: ``corrupt_chain``: there are none, or the last one has no newline.
    """
    if member.content and not member.content.endswith(b"\n"):
        raise corrupt_error(month, member.start, seq + 1, "its last line has no end", "\\n", "none")
    lines = _split(member.content)[:-1]
    if not lines:
        raise corrupt_error(
            month, member.start, seq + 1, "its gzip member is empty", "an event line", ""
        )
    return lines


def _check_line(line: bytes, seq: int, head: str, ts: str, month: str, offset: int) -> Envelope:
    """The event of a line, which must be number ``seq`` and follow the line with the hash ``head``
    and the time ``ts``, in the segment of a month, in its member at ``offset``.

    Raises:
        ChainError: ``corrupt_chain``, saying what was expected and found.
    """
    try:
        envelope = decode_line(line)
    except ValueError as error:
        what = f"the line isn't an event: {error}"
        excerpt = line[:200].decode("utf-8", "backslashreplace")
        raise corrupt_error(month, offset, seq, what, "an event line", excerpt) from None
    if envelope.seq != seq or envelope.prev != head or envelope.ts < ts or envelope.ts[:7] != month:
        checks = (
            ("the sequence is broken", seq, envelope.seq),
            ("it doesn't follow from the line before it", head, envelope.prev),
            ("its time runs backwards", max(ts, envelope.ts), envelope.ts),
            ("it lies in another month", month, envelope.ts[:7]),
        )
        what, expected, actual = next(check for check in checks if check[1] != check[2])
        raise corrupt_error(month, offset, seq, what, expected, actual)
    return envelope


def _split(content: bytes) -> list[bytes]:
    """The lines, and the bytes after the last newline. A crafted member can have 64 million lines.
    The split stops at a number that is only reached if a line is too short for an event."""
    return content.split(b"\n", len(content) // _LEAST_LINE_BYTES + 1)


def broken_member(month: str, offset: int, seq: int, cause: str) -> ChainError:
    """The error for a member that can't be decompressed and isn't a torn end."""
    what = f"its gzip member is broken ({cause})"
    return corrupt_error(month, offset, seq, what, "a whole gzip member", cause)


def corrupt_error(
    month: str, offset: int, seq: int, what: str, expected: object, found: object
) -> ChainError:
    """The error for a chain that is damaged."""
    return ChainError(
        "corrupt_chain",
        f"The log is damaged at event {seq}, in {segment_name(month)} at byte {offset}: {what}.",
        "Nothing was changed. Run `promptyoself verify` for the details, and restore that segment "
        "from a backup; the events before it are sound: `promptyoself history --ndjson` prints "
        "them.",
        month=month,
        seq=seq,
        offset=offset,
        expected=expected,
        found=found,
    )
