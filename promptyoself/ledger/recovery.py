"""Bringing a damaged chain back into service: everything sound in its place, everything else aside.

The order of the steps, and why each is safe to die after:

1. Every piece that isn't taken over is copied to ``quarantine/``, durably, under a name that says
   behind which event it lay and ends in ``.unrecorded``. Nothing else has changed; the next try
   writes the same files.
2. Each broken month is written beside the old file: the sound lines, in members, with a gap at a
   member's border. It is synced, read back and compared, and takes the old one's name, which is
   atomic. Where nothing of a month is sound, its file is removed. Whoever dies between two months
   leaves the one mended and the other as it was; the next survey reads the pieces of step 1 too,
   and so finds the same sound lines, even those that lay in another month's file.
3. One append states every gap, with the pieces that belong to it. Until then whoever reads stops at
   the gap: nobody takes it for whole. Whoever dies before leaves the copies, whose names say where
   they belong, so that the next try states the same.
4. The copies lose their suffix. Whoever dies before that leaves copies that are recorded: the next
   recovery gives them their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself.digests import sha256
from promptyoself.durable import Disk, read_ours
from promptyoself.ledger.envelope import Envelope, decode_line, hash_line
from promptyoself.ledger.position import START, Position
from promptyoself.ledger.protocol import Batch, BatchAfterGap, Gap
from promptyoself.ledger.salvage import UNRECORDED, Line, Piece, Survey, sound_lines, survey
from promptyoself.ledger.sealing import packed
from promptyoself.ledger.segments import (
    UNSETTLED,
    compress,
    list_segments,
    read_members,
    segment_name,
)
from promptyoself.ledger.statements import statements

__all__ = ["FileRecovery", "Quarantined"]

_COPY = re.compile(r"(\d{4}-\d\d)-(\d+)-after-(\d+)-[0-9a-f]{16}\.damaged\.unrecorded", re.ASCII)


class Quarantined(NamedTuple):
    """Damaged bytes that were moved aside, which lay in a ``month`` at an ``offset``, behind the
    sound event number ``after``."""

    month: str
    offset: int
    bytes: int
    sha256: str
    file: str
    after: int

    def said(self) -> dict[str, Any]:
        """As ``ledger.recovered`` has it."""
        fields = self._asdict()
        del fields["after"]
        return fields


class FileRecovery:
    """A :class:`~promptyoself.ledger.upkeep.Recovery` of a folder. Its maker holds both locks."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._quarantine = folder / "quarantine"

    def survey(self, witness: tuple[int, str] | None) -> Survey:
        """See :meth:`Recovery.survey`."""
        return survey(self._folder, witness)

    def events(self, found: Survey) -> Iterator[Envelope]:
        """See :meth:`Recovery.events`."""
        texts = sound_lines(
            self._folder, {line.hash for island in found.islands for line in island}
        )
        after, hash_ = START.seq, START.hash
        for island in found.islands:
            gap = Gap(after, hash_, island[0].seq, island[0].prev)
            batch = Batch([decode_line(texts[line.hash]) for line in island], START, b"")
            if (gap.first, gap.first_prev) != (after + 1, hash_):
                batch = BatchAfterGap.after(gap, batch)
            yield from batch.folded()
            after, hash_ = island[-1].seq, island[-1].hash

    def pieces_of(self, found: Survey) -> list[Quarantined]:
        """See :meth:`Recovery.pieces_of`."""
        lines = sorted(
            (line for island in found.islands for line in island), key=lambda each: each.place
        )
        pieces = [_described(piece, _before(lines, piece)) for piece in found.pieces]
        return [*pieces, *(each for each in self._left_over() if each not in pieces)]

    def repair(self, found: Survey) -> Position:
        """See :meth:`Recovery.repair`."""
        pieces = self.pieces_of(found)
        by_place = {(piece.month, piece.offset): piece.content for piece in found.pieces}
        if found.pieces:
            self._disk.make_directory(self._quarantine)
            self._disk.fsync_directory(self._folder)
        for piece in pieces:
            content = by_place.get((piece.month, piece.offset))
            if content is not None and len(content) == piece.bytes:
                self._disk.replace(self._quarantine / (piece.file + UNRECORDED), content)
        moved = {
            line.hash for island in found.islands for line in island if line.ts[:7] in found.broken
        }
        texts = sound_lines(self._folder, moved)  # all, before the first file has changed
        for month in sorted(found.broken):
            self._write_again(month, found, texts)
        return self._end(found.last)

    def settle(self, pieces: Iterable[Quarantined]) -> None:
        """See :meth:`Recovery.settle`."""
        for piece in pieces:
            with suppress(OSError):  # their record is durable: the next recovery tries again
                copy = self._quarantine / (piece.file + UNRECORDED)
                self._disk.rename(copy, copy.with_suffix(""))

    def keep(self, path: Path, name: str) -> Path:
        """See :meth:`Recovery.keep`."""
        target = self._quarantine / name
        self._disk.make_directory(self._quarantine)
        if path.is_dir():
            for each in sorted(path.rglob("*")):
                if each.is_file() and not each.is_symlink():
                    self._disk.make_directory((target / each.relative_to(path)).parent)
                    self._disk.replace(target / each.relative_to(path), read_ours(each))
        elif path.exists():
            self._disk.make_directory(target.parent)
            self._disk.replace(target, read_ours(path))
        return target

    def _left_over(self) -> Iterator[Quarantined]:
        """The copies that a recovery left that was killed, but for those that have their record;
        these get their names."""
        with suppress(FileNotFoundError):
            recorded = {
                str(each.get("file"))
                for event in statements(self._folder, "ledger.recovered")
                for each in event.data.get("quarantined") or ()
            }
            for name in sorted(os.listdir(self._quarantine)):
                if match := _COPY.fullmatch(name):
                    copy = self._quarantine / name
                    if copy.with_suffix("").name in recorded:
                        with suppress(OSError):
                            self._disk.rename(copy, copy.with_suffix(""))
                        continue
                    content = read_ours(copy)
                    month, offset, after = match[1], int(match[2]), int(match[3])
                    yield _described(Piece(month, offset, content, 0), after)

    def _write_again(self, month: str, found: Survey, texts: dict[str, bytes]) -> None:
        path = self._folder / segment_name(month)
        runs = [
            [line for line in island if line.ts[:7] == month]
            for island in found.islands
            if any(line.ts[:7] == month for line in island)
        ]
        if not runs:
            with suppress(FileNotFoundError):
                self._disk.unlink(path)
            self._disk.fsync_directory(self._folder)
            return
        self._disk.write_beside(path, _members(runs, texts))
        beside = self._disk.beside(path)
        written = [
            hash_line(text)
            for member in read_members(beside)
            for text in member.content.split(b"\n")[:-1]
        ]
        if written != [line.hash for run in runs for line in run]:
            raise OSError(f"{beside} doesn't read as it was written: a failing disk or memory")
        mark = self._folder / UNSETTLED
        os.close(self._disk.open_own(mark, os.O_WRONLY | os.O_CREAT))
        self._disk.put_in_place(path)
        self._disk.discard(mark)

    def _end(self, last: Line | None) -> Position:
        if last is None:
            return START
        earlier = 0
        for month, size in list_segments(self._folder):
            if month < last.ts[:7]:
                earlier += size
        member = None
        for each in read_members(self._folder / segment_name(last.ts[:7])):
            member = each
        if member is None or hash_line(member.content[:-1].rpartition(b"\n")[2]) != last.hash:
            raise OSError(f"{segment_name(last.ts[:7])} doesn't end as it was written")
        return Position(
            last.seq, last.hash, last.ts, last.ts[:7], member.end, member.start, earlier
        )


def _members(runs: Sequence[Sequence[Line]], texts: dict[str, bytes]) -> Iterator[bytes]:
    for run in runs:
        for content in packed(texts[line.hash] + b"\n" for line in run):
            yield compress(content)


def _before(lines: Sequence[Line], piece: Piece) -> int:
    """The sound event behind which a piece lies, in the order of the files."""
    seq = 0
    for line in lines:
        if line.place >= piece.place:
            break
        seq = line.seq
    return seq


def _described(piece: Piece, after: int) -> Quarantined:
    digest = sha256(piece.content).hexdigest()
    name = f"{piece.month}-{piece.offset}-after-{after}-{digest[:16]}.damaged"
    return Quarantined(piece.month, piece.offset, len(piece.content), digest, name, after)
