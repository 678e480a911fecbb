"""P1, P3: `recover`, when the power is lost: in every state that the disk may then be in, no sound
event is lost, and the recovery comes to its end."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from chains import Killed
from checker import check_chain, lines
from crashes import Unsynced
from damage import lay, nine_events, store_in
from power import Point, Recorder, Tree, digest, lay_out, states
from recoveries import DAMAGES, NOW, SOUND, found_lines
from tally import SCALE, chance, count

from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.proof.verify import verify
from promptyoself.service.upkeep.recover import recover

CASES = (
    "a bit of a sealed month",
    "two gaps in two months",
    "the end cut",
    "the last month is noise",
    *(["months exchanged"] if SCALE > 1 else []),
)


class Laid(Recorder):
    """A recorder that begins with files that are durable."""

    def lay(self, source: Path) -> None:
        """Copy a folder to where it works."""
        for path in [source, *sorted(source.rglob("*"))]:
            target = self.root / "var" / path.relative_to(source.parent)
            if path.is_dir():
                if target.parent == self.root / "var" and not target.parent.exists():
                    self.mkdir(target.parent)
                self.mkdir(target)
            elif path.name not in ("lock", "sealing"):
                self.replace(target, path.read_bytes())
        for node in range(len(self.nodes)):
            self.settle_node(node)
        self.points.clear()
        self.calls = 0


class Examiner:
    """Goes on from state after state, each once."""

    def __init__(self, place: Path, good: list[bytes], kept: list[bytes], index: bytes) -> None:
        self.place, self.good, self.kept, self.index = place, good, kept, index
        self.done: set[bytes] = set()

    def examine(self, points: list[Point]) -> None:
        """Every state at every one of these instants."""
        for point in points:
            for tree in states(point, 0):
                if (key := digest(tree)) not in self.done:
                    self.done.add(key)
                    self.go_on(tree, point.call)
                    count("losses of power")

    def go_on(self, tree: Tree, what: str) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        folder = lay_out(tree, self.place) / "var" / "schedules"
        recover(store_in(folder, Unsynced()), NOW, agree=lambda _: True)
        check_chain(folder)
        assert [line for line in lines(folder) if line in self.good] == self.kept, what
        said = [
            event["data"]
            for event in map(json.loads, lines(folder))
            if event["type"] == "ledger.recovered"
        ]
        lost = sorted({each["after"]: each["lost"] for each in said if each["lost"]}.items())
        assert sum(each["lost"] for each in said) == sum(number for _, number in lost), what
        assert verify(store_in(folder))["recovered"], what
        if lost:
            kept = (folder / "quarantine").glob("index-*/index.json")
            assert self.index in [path.read_bytes() for path in kept], what
        assert recover(store_in(folder, Unsynced()), NOW, agree=bool) == SOUND, what


def prepared(root: Path, name: str) -> tuple[Path, Examiner]:
    sealed, damage = DAMAGES[name]
    folder = root / "good" / "schedules"
    log = nine_events(folder, sealed=sealed)
    stranger = nine_events(root / "other" / "schedules", sealed=sealed, first=77)
    good, index = lines(folder), (folder / "index.json").read_bytes()
    lay(folder, damage(log, stranger))
    done = shutil.copytree(folder, root / "done" / "schedules")
    recover(store_in(done, Unsynced()), NOW, agree=lambda _: True)
    kept = [line for line in lines(done) if line in good]
    assert {line for line in good if line in found_lines(folder)} <= set(kept)
    return folder, Examiner(root / "found", good, kept, index)


def recovery(folder: Path, root: Path, at: int = 0, kind: type[Laid] = Laid) -> Laid:
    """A recovery on a disk that records; perhaps it dies after a syscall."""
    root.mkdir()
    disk = kind(root)
    disk.lay(folder)
    disk.die_at, disk.when = at, "after"
    try:
        recover(store_in(root / "var" / "schedules", disk), NOW, agree=lambda _: True)
    except Killed:
        disk.revive()
    return disk


@pytest.mark.parametrize("name", CASES)
def test_every_state_after_a_loss_of_power(quick_path: Path, name: str) -> None:
    """P1: at every syscall of a recovery, in every state that the disk may then be left in."""
    folder, examiner = prepared(quick_path, name)
    disk = recovery(folder, quick_path / "real")
    examiner.examine(disk.points)
    print(f"{name}: {len(disk.points)} instants, {len(examiner.done)} states")
    assert len(examiner.done) > 15


@pytest.mark.parametrize("name", CASES)
def test_power_fails_after_a_recovery_died(quick_path: Path, name: str) -> None:
    """P1: one recovery is killed at any syscall, another goes on, and then the power fails: what it
    built upon is as durable as what it built."""
    folder, examiner = prepared(quick_path, name)
    calls = recovery(folder, quick_path / "real").calls
    choose = chance("recovery died, then no power")
    for at in range(1, calls + 1):
        if choose.random() > (1.0 if SCALE > 1 else 0.2):
            continue
        disk = recovery(folder, quick_path / str(at), at)
        began = len(disk.points)
        recover(
            store_in(quick_path / str(at) / "var" / "schedules", disk), NOW, agree=lambda _: True
        )
        examiner.examine(disk.points[began:])
    assert len(examiner.done) > 10


class FilesUnsynced(Laid):
    def fsync(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            super().fsync(descriptor)


class FoldersUnsynced(Laid):
    def fsync(self, descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            super().fsync(descriptor)


@pytest.mark.parametrize("kind", [FilesUnsynced, FoldersUnsynced])
def test_a_broken_disk_is_found_out(quick_path: Path, kind: type[Laid]) -> None:
    """The check can fail: a disk that leaves out syncs is caught by it."""
    folder, examiner = prepared(quick_path, "two gaps in two months")
    with pytest.raises((AssertionError, PromptyoselfError, OSError)):
        examiner.examine(recovery(folder, quick_path / "real", kind=kind).points)
