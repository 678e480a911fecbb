"""Bringing a damaged chain back into service: sound lines stay, and all else is put in quarantine.

The order of the steps, and why each is safe to die after:

1. Every piece that isn't sound is copied to ``quarantine/``, durably, under a name that says
   behind which event it lay and ends in ``.unrecorded``. Nothing else has changed; the next try
   writes the same files.
2. Each broken month is written beside the old file: the sound lines, in members, with a gap at a
   member's border. The new file is synced, read back and compared. Then it takes the old one's
   name, which is atomic. Where nothing of a month is sound, its file is removed. A recovery that is
   killed between two months leaves the one mended and the other as it was. The next survey reads
   the pieces of step 1 too, and so finds the same sound lines, even those that lay in another
   month's file.
3. One append states every gap, with the pieces that belong to it. Until then every reader stops at
   the gap. A recovery that is killed before the append leaves
   the copies. Their names say where they belong, so that the next try states the same.
4. The copies lose their suffix. A recovery that is killed before that leaves copies that are
   recorded. The next recovery gives them their names.

If the log was damaged again and has lost that statement, the copies are recorded again.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from promptyoself.core.disk import Disk, read_ours
from promptyoself.ledger import segments
from promptyoself.ledger.batch import START, Batch, Position
from promptyoself.ledger.envelope import Envelope, decode_line, hash_line
from promptyoself.ledger.salvage import UNRECORDED, Copy, copies, sound_lines, survey
from promptyoself.ledger.sealing import packed
from promptyoself.ledger.statements import statements
from promptyoself.ledger.survey import Line, Piece, Quarantined, Survey


class Recovery:
    """The one right to bring a damaged chain back into service. Nobody appends meanwhile, and
    nobody seals: its maker holds both locks."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._quarantine = folder / segments.QUARANTINE

    def survey(self, witness: tuple[int, str] | None) -> Survey:
        """What is sound and what isn't; reads everything and changes nothing. ``witness`` is the
        number and the hash of the latest event that an index has seen.

        Raises:
            OSError: a segment can't be read.
        """
        return survey(self._folder, witness)

    def events(self, survey: Survey) -> Iterator[Envelope]:
        """The sound events as a fold takes them in, with what stands for each gap."""
        texts = sound_lines(self._folder, {line.hash for line in survey.lines()})
        for gap, island in survey.in_turn():
            events = [decode_line(texts[line.hash]) for line in island]
            yield from Batch(events, START, b"", gap).folded()

    def pieces_of(self, survey: Survey, *, adopt: bool = False) -> list[Quarantined]:
        """The damaged bytes that :meth:`repair` moves aside, and those that a recovery has moved
        that was killed before it could record them; with ``adopt`` also those whose record is
        lost. Changes nothing."""
        recorded = self._recorded()
        copied = [
            _described(copy)
            for copy in copies(self._folder)
            if copy.path.name.removesuffix(UNRECORDED) not in recorded
            and (adopt or not copy.recorded)
        ]
        named = {piece.file for piece in copied}
        return [*copied, *(piece for piece, _ in self._pieces(survey) if piece.file not in named)]

    def repair(self, survey: Survey) -> Position:
        """Leave only what is sound in its place. Returns the end of the chain.

        Until the gaps have their statement, which the caller appends, readers stop at them.

        Raises:
            OSError: the disk refused. What was kept and what is sound is there.
        """
        if survey.pieces:
            self._disk.make_directory(self._quarantine)
            self._disk.fsync_directory(self._folder)
        for piece, content in self._pieces(survey):
            self._disk.replace(self._quarantine / (piece.file + UNRECORDED), content)
        moved = {line.hash for line in survey.lines() if line.ts[:7] in survey.broken}
        texts = sound_lines(self._folder, moved)  # all, before the first file has changed
        for month in sorted(survey.broken):
            self._write_again(month, survey, texts)
        self._disk.fsync_directory(self._folder)  # a removal by a recovery that was killed
        return self._end(survey.last)

    def confirm_copies(self) -> None:
        """Give the copies of which the chain has a record their names for good."""
        recorded, synced = self._recorded(), False
        with suppress(OSError):  # the next recovery tries again
            for copy in copies(self._folder):
                if not copy.recorded and copy.path.with_suffix("").name in recorded:
                    if not synced:  # its recorder may have been killed before that
                        last = max(month for month, _ in segments.list_segments(self._folder))
                        self._disk.sync(self._folder / segments.segment_name(last))
                        synced = True
                    self._disk.rename(copy.path, copy.path.with_suffix(""))

    def keep(self, path: Path, name: str) -> Path:
        """Copy a file or a folder to the quarantine, durably; returns where it lies there."""
        target = self._quarantine / name
        self._disk.make_directory(self._quarantine)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    self._disk.make_directory((target / file.relative_to(path)).parent)
                    self._disk.replace(target / file.relative_to(path), read_ours(file))
        elif path.exists():
            self._disk.make_directory(target.parent)
            self._disk.replace(target, read_ours(path))
        return target

    def _pieces(self, survey: Survey) -> Iterator[tuple[Quarantined, bytes]]:
        """The pieces of a survey with their bytes. A piece that an earlier recovery has copied
        keeps the name of that copy, since the events before it may have changed."""
        lines = sorted(survey.lines(), key=lambda line: line.place)
        copied = {
            (copy.month, copy.offset, copy.digest): _described(copy)
            for copy in copies(self._folder)
            if not copy.recorded
        }
        for piece in survey.pieces:
            before = bisect_left(lines, piece.place, key=lambda line: line.place)
            described = _named(piece, lines[before - 1].seq if before else 0)
            key = piece.month, piece.offset, described.sha256[:16]
            yield copied.get(key, described), piece.content

    def _recorded(self) -> set[str]:
        """The names of the copies that the chain has a record of."""
        return {
            str(piece.get("file"))
            for event in statements(self._folder, "ledger.recovered")
            for piece in event.data.get("quarantined") or ()
        }

    def _write_again(self, month: str, survey: Survey, texts: dict[str, bytes]) -> None:
        path = self._folder / segments.segment_name(month)
        runs = [[line for line in island if line.ts[:7] == month] for island in survey.islands]
        if not any(runs):
            with segments.unsettled(self._folder, self._disk):
                with suppress(FileNotFoundError):
                    self._disk.unlink(path)
                self._disk.fsync_directory(self._folder)
            return
        self._disk.write_beside(path, _members(runs, texts))
        beside = self._disk.beside(path)
        written = [
            hash_line(text)
            for member in segments.read_members(beside)
            for text in member.content.split(b"\n")[:-1]
        ]
        if written != [line.hash for run in runs for line in run]:
            raise OSError(f"{beside} doesn't read as it was written: a failing disk or memory")
        with segments.unsettled(self._folder, self._disk):
            self._disk.put_in_place(path)

    def _end(self, last: Line | None) -> Position:
        if last is None:
            return START
        earlier = sum(
            size for month, size in segments.list_segments(self._folder) if month < last.ts[:7]
        )
        member = segments.last_member(self._folder / segments.segment_name(last.ts[:7]))
        if member is None or hash_line(member.last_line) != last.hash:
            raise OSError(f"{segments.segment_name(last.ts[:7])} doesn't end as it was written")
        return Position(
            last.seq, last.hash, last.ts, last.ts[:7], member.end, member.start, earlier
        )


def _members(runs: Sequence[Sequence[Line]], texts: dict[str, bytes]) -> Iterator[bytes]:
    for run in runs:
        for content in packed(texts[line.hash] + b"\n" for line in run):
            yield segments.compress(content)


def _named(piece: Piece, after: int) -> Quarantined:
    """A piece as it will lie in the quarantine; ``after`` is the last sound event before it."""
    digest = sha256(piece.content).hexdigest()
    end = "-end" if piece.at_end else ""
    name = f"{piece.month}-{piece.offset}-after-{after}{end}-{digest[:16]}.damaged"
    return Quarantined(piece.month, piece.offset, len(piece.content), digest, name, after)


def _described(copy: Copy) -> Quarantined:
    content = read_ours(copy.path)
    name = copy.path.name.removesuffix(UNRECORDED)
    digest = sha256(content).hexdigest()
    return Quarantined(copy.month, copy.offset, len(content), digest, name, copy.after)
