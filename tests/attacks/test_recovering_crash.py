"""P1, P3, P4: `recover`, killed at every syscall, with the power lost in every state, and beside
others: no sound event is lost, and each loss is stated once."""

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from chains import StepDisk, append, draft, kill
from checker import check_chain, lines
from crashes import Unsynced, in_child, ways
from damage import store_in
from recoveries import DAMAGES, NOVEMBER, NOW, SOUND, damaged, found_lines, recovered, statements
from tally import SCALE, chance, count, rounds

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.service.proof.verify import verify
from promptyoself.service.upkeep import recover as recover_module
from promptyoself.service.upkeep.recover import recover


class Steps(StepDisk):
    """Counts what removes a name, too."""

    def unlink(self, path: Path) -> None:
        self._step("unlink", lambda: super(StepDisk, self).unlink(path))


class Case:
    """A damaged log, what its index knows, and what comes of an undisturbed recovery of it."""

    def __init__(self, root: Path, name: str, *, from_index: bool) -> None:
        self.root, self.from_index, self.made = root, from_index, 0
        self.damaged, self.good, self.index = damaged(root, name)
        before = found_lines(self.damaged)
        folder = self.copy()
        self.recover(folder)
        self.kept = [line for line in lines(folder) if line in self.good]
        assert self.kept == [line for line in self.good if line in before or line in self.kept]
        self.said = self._said(folder)
        self.prompts = _prompts(folder)

    def copy(self) -> Path:
        """The damaged log, once more."""
        self.made += 1
        if self.made > 3:
            shutil.rmtree(self.root / str(self.made - 3), ignore_errors=True)
        folder = self.root / str(self.made) / "schedules"
        shutil.copytree(self.damaged, folder)
        return folder

    def recover(self, folder: Path, disk: Any = None) -> dict[str, Any]:
        """As the command does it; where another has recovered the log, that is all right."""
        store = store_in(folder, disk or Unsynced())
        if self.from_index and recover(store, NOW, dry_run=True, agree=bool) != SOUND:
            return recover(store, NOW, from_index=True, agree=lambda _: True)
        return recover(store, NOW, agree=lambda _: True)

    def _said(self, folder: Path) -> list[Any]:
        """What is stated: each gap, and each piece."""
        stated = statements(folder)
        pieces = sorted(
            (piece["month"], piece["offset"], piece["sha256"])
            for statement in stated
            for piece in statement.get("quarantined", ())
        )
        return [_gaps(stated), pieces]

    def check(self, folder: Path, what: Any, torn: int = 0) -> None:
        """Recover it by the ordinary code, and see that nothing is lost or said twice. ``torn`` is
        how many recoveries may have died within an append."""
        self.recover(folder)
        assert [line for line in lines(folder) if line in self.good] == self.kept, what
        gaps, pieces = self._said(folder)
        more = [gap for gap in gaps if gap not in self.said[0]]
        assert [gap for gap in gaps if gap not in more] == self.said[0], what
        assert all(lost == 0 for _, _, lost in more), what
        ours = [piece for piece in pieces if piece not in self.said[1]]
        assert [piece for piece in pieces if piece not in ours] == self.said[1], what
        assert max(len(ours), len(more)) <= torn, what  # a statement's own append, cut short
        assert len(check_chain(folder)) == len(lines(folder)), what
        assert not list(folder.rglob("*.unrecorded")), what
        assert _gaps(verify(store_in(folder))["recovered"]) == gaps, what
        assert _prompts(folder) == self.prompts, what
        if len(self.kept) < len(self.good) and not self.from_index:
            kept = list((folder / "quarantine").glob("index-*/index.json"))
            assert [path.read_bytes() for path in kept] == [self.index], what
        append(store_in(folder, Unsynced())._ledger, 500, now=NOW + timedelta(hours=1))
        check_chain(folder)
        assert recovered(folder) == SOUND, what


def _gaps(statements: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    return sorted((gap["after"], gap.get("first", 0), gap["lost"]) for gap in statements)


def _prompts(folder: Path) -> dict[str, str | None]:
    schedules = store_in(folder).read().state.schedules
    return {id_: schedule.prompt for id_, schedule in schedules.items()}


@pytest.fixture(params=[*DAMAGES, "the end cut, from the index", "a member lost, from the index"])
def case(quick_path: Path, request: pytest.FixtureRequest) -> Case:
    name, from_index, _ = request.param.partition(", from the index")
    return Case(quick_path, name, from_index=bool(from_index))


def killed(case: Case, folder: Path, at: int, when: str) -> None:
    """A recovery that dies at a syscall."""
    disk = Steps(at, when, kill)
    _, ended_by = in_child(lambda _: case.recover(folder, disk))
    count("kills by SIGKILL", ended_by == signal.SIGKILL)


def test_killed_at_every_syscall(case: Case) -> None:
    """P1: SIGKILL before, after and in the middle of every syscall of a recovery: run again, it
    comes to the same end as if nothing had disturbed it."""
    disk = Steps()
    case.recover(case.copy(), disk)
    choose, share = chance("recovery killed"), 1.0 if SCALE > 1 else 0.3
    for at, when in ways(disk.log):
        if choose.random() < share:
            folder = case.copy()
            killed(case, folder, at, when)
            case.check(folder, (at, when, disk.log[at - 1]), torn=when == "half")


def test_killed_twice(case: Case) -> None:
    """P1: the same where the one who recovers it again is killed as well."""
    disk = Steps()
    case.recover(case.copy(), disk)
    kinds, choose = list(ways(disk.log)), chance("recovery killed twice")
    for _ in range(rounds(4)):
        folder = case.copy()
        first, second = choose.choice(kinds), choose.choice(kinds)
        killed(case, folder, *first)
        killed(case, folder, *second)
        case.check(folder, (first, second), torn=[first[1], second[1]].count("half"))


def _one_of_many(folder: Path, report: Callable[[str], None]) -> None:
    try:
        answer = recover(store_in(folder), NOW, agree=lambda _: True)
        report("sound" if answer == SOUND else "recovered")
    except PromptyoselfError as error:
        report(error.code)


def _writer(folder: Path, who: int, report: Callable[[str], None]) -> None:
    """Registers until it has been let in ten times."""
    store, done = store_in(folder), 0
    while done < 10:
        with suppress(ChainError, PromptyoselfError):
            new = draft(1000 * who + done)
            store.transact(NOW, lambda _, d=new: ([d], None))  # type: ignore[misc]
            report(str(new.id))
            done += 1


@pytest.mark.parametrize("name", ["a member lost", "the end cut"])
def test_recoveries_and_writers_at_once(quick_path: Path, name: str) -> None:
    """P3, P5: of several recoveries at once one wins, and the others say so. Writers that hammer
    meanwhile lose nothing, and nobody waits for ever."""
    folder = Case(quick_path, name, from_index=False).copy()
    (folder / "index.json").unlink()
    if name == "the end cut":
        (folder / NOVEMBER).write_bytes((folder / NOVEMBER).read_bytes() + b"noise " * 9)
    jobs = [lambda r: _one_of_many(folder, r)] * 3
    jobs += [lambda r, w=who: _writer(folder, w, r) for who in (1, 2)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        reports = [reported for reported, _ in pool.map(in_child, jobs)]
    said = [reported[0] for reported in reports[:3]]
    assert set(said) <= {"recovered", "sound", "log_changed"}
    ids = [id_ for reported in reports[3:] for id_ in reported]
    assert len(ids) == 20
    left = recovered(folder)
    assert (said.count("recovered") or left["recovered"]) <= 1
    events = check_chain(folder)
    assert set(ids) <= {event["id"] for event in events}
    count("processes racing", len(jobs))


def test_another_recovery_ends_while_this_one_looks(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: a recovery that found the log damaged, and finds it mended once it has the lock, says
    that it did nothing."""
    folder = Case(quick_path, "a member lost", from_index=False).copy()
    look = recover_module._is_sound

    def look_and_lose_the_race(chain: Any) -> bool:
        found = look(chain)
        monkeypatch.setattr(recover_module, "_is_sound", look)
        assert recovered(folder)["recovered"] is True
        return found

    monkeypatch.setattr(recover_module, "_is_sound", look_and_lose_the_race)
    assert recover(store_in(folder), NOW, agree=lambda _: True) == SOUND
