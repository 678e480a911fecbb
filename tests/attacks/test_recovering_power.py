"""P1, P3: `recover`, when the power is lost: in every state that the disk may then be in, no sound
event is lost, and the recovery comes to its end."""

import shutil
from pathlib import Path

import pytest
from chains import Killed
from checker import check_chain, lines
from damage import store_in
from power import Examiner, FilesNotSynced, FoldersNotSynced, Point, Recorder
from recoveries import NOW, SOUND, damaged, found_lines, recovered, statements
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


def lay_durably(source: Path, disk: Recorder) -> None:
    """Copy a folder to where a recorder works, as if it had always been there."""
    disk.mkdir(disk.root / "var")
    for path in [source, *sorted(source.rglob("*"))]:
        target = disk.root / "var" / path.relative_to(source.parent)
        if path.is_dir():
            disk.mkdir(target)
        elif path.name not in ("lock", "sealing"):
            disk.replace(target, path.read_bytes())
    for node in range(len(disk.nodes)):
        disk.settle_node(node)
    disk.points.clear()
    disk.calls = 0


class Recoveries(Examiner):
    """Recovers state after state."""

    def __init__(self, place: Path, good: list[bytes], kept: list[bytes], index: bytes) -> None:
        super().__init__(place)
        self.good, self.kept, self.index = good, kept, index

    def go_on(self, folder: Path, point: Point) -> None:
        what = point.call
        count("losses of power")
        recovered(folder)
        check_chain(folder)
        assert [line for line in lines(folder) if line in self.good] == self.kept, what
        losses = [(gap["after"], gap["lost"]) for gap in statements(folder) if gap["lost"]]
        assert sorted(losses) == sorted(dict(losses).items()), what
        assert verify(store_in(folder))["recovered"], what
        if losses:
            kept = (folder / "quarantine").glob("index-*/index.json")
            assert self.index in [path.read_bytes() for path in kept], what
        assert recovered(folder) == SOUND, what


def prepared(root: Path, name: str) -> tuple[Path, Recoveries]:
    folder, good, index = damaged(root, name)
    done = shutil.copytree(folder, root / "done" / "schedules")
    recovered(done)
    kept = [line for line in lines(done) if line in good]
    assert {line for line in good if line in found_lines(folder)} <= set(kept)
    return folder, Recoveries(root / "found", good, kept, index)


def recovery(folder: Path, root: Path, at: int = 0, kind: type[Recorder] = Recorder) -> Recorder:
    """A recovery on a disk that records; perhaps it dies after a syscall."""
    root.mkdir()
    disk = kind(root)
    lay_durably(folder, disk)
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
        recover(store_in(disk.root / "var" / "schedules", disk), NOW, agree=lambda _: True)
        examiner.examine(disk.points[began:])
    assert len(examiner.done) > 10


@pytest.mark.parametrize("kind", [FilesNotSynced, FoldersNotSynced])
def test_a_broken_disk_is_found_out(quick_path: Path, kind: type[Recorder]) -> None:
    """The check can fail: a disk that leaves out syncs is caught by it."""
    folder, examiner = prepared(quick_path, "two gaps in two months")
    with pytest.raises((AssertionError, PromptyoselfError, OSError)):
        examiner.examine(recovery(folder, quick_path / "real", kind=kind).points)
