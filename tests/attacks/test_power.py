"""P1 after a loss of power: for short histories, every state that the disk may be in, examined."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from chains import ACTOR, NOW, Killed, chain, draft, first_type, index_in, schema
from checker import check_chain, lines
from crashes import Unsynced
from power import (
    Examiner,
    FilesNotSynced,
    FoldersNotSynced,
    History,
    Point,
    Recorder,
    Watched,
    whole_lines,
)
from tally import SCALE, count
from world import check_deliveries

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.core.settings import Caps, load_settings
from promptyoself.ledger.segments import compress
from promptyoself.rules.claim import Claim, claim
from promptyoself.rules.outcome import Delivered, outcome_events
from promptyoself.rules.policy import approval_in_log
from promptyoself.service.proof.verify import rebuild, verify
from promptyoself.service.schedules.approval_tokens import Tokens
from promptyoself.service.schedules.approvals import ApprovalChecker, approve
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.upkeep.recover import recover
from promptyoself.service.upkeep.seal import seal
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

SETTINGS = load_settings({"PROMPTYOSELF_VAR": "/nowhere"})
FINE, COARSE = (1, 0) if SCALE <= 1 else (9, 2)
DUE = NOW + timedelta(minutes=1)
ASKED = Request(agent_id="agent-a", prompt="Hi", time="in 1m")
HALF = compress(b"half of it was written\n")[:-5]


def store_in(root: Path, disk: Disk, warnings: list[str]) -> Any:
    """A store whose ledger, on a disk that records, tells what it acknowledged; or that of the
    desires."""
    both = Store(SETTINGS._replace(var=root / "var"), ACTOR, warn=warnings.append, disk=disk)
    store: Any = both.desires if chain() == "desires" else both
    if isinstance(disk, Recorder):
        folder = root / "var" / chain()
        store._ledger = Watched(folder, disk)
        store._index = index_in(folder / "index.json", store._ledger, warnings.append, disk)
    return store


def without_index(disk: Recorder) -> Any:
    """One that never writes its index."""
    store = store_in(disk.root, disk, [])
    store._index.save = lambda *_, **__: None
    return store


def add(disk: Recorder, *numbers: int, days: float = 0, index: bool = True) -> None:
    """What a command does, as a process of its own. Without the index there are fewer states."""
    store = store_in(disk.root, disk, []) if index else without_index(disk)
    drafts = [draft(number) for number in numbers]
    store.transact(NOW + timedelta(days=days), lambda _: (drafts, None))


def new_ledger(disk: Recorder) -> None:
    add(disk, 1)


def second_append(disk: Recorder) -> None:
    add(disk, 1)
    add(disk, 2, 3)


def new_month(disk: Recorder) -> None:
    add(disk, 1)
    add(disk, 2, days=20)


def index_replaced(disk: Recorder) -> None:
    for number in (1, 2, 3):
        add(disk, number)


def torn_end(disk: Recorder, days: float = 0) -> None:
    add(disk, 1, index=False)
    disk.plant(disk.root / "var" / chain() / "2026-11.ndjson.gz", HALF)
    add(disk, 2, days=days, index=False)


def vouched_for(disk: Recorder) -> None:
    """An append of nothing acknowledges what it found."""
    add(disk, 1)
    add(disk)


def claim_due(store: Any, **approvals: Any) -> Claim:
    """Claim the only thing that is due in a minute."""

    def claims(state: Any) -> Any:
        decision = claim(state, DUE, "wrk_1", Caps(), 5, **approvals)
        return [store.draft(record, id_) for record, id_ in decision.records], decision.claims

    (claimed,) = store.transact(DUE, claims)
    return claimed  # type: ignore[no-any-return]


def prompt_delivered(disk: Recorder) -> None:
    """Registered, claimed and settled, by two processes."""
    register(store_in(disk.root, disk, []), ASKED, NOW)
    store = store_in(disk.root, disk, [])
    claimed = claim_due(store)

    def settles(state: Any) -> Any:
        records, became = outcome_events(state, claimed, "wrk_1", Delivered("run", "run-1"), DUE)
        return [store.draft(record, claimed.id) for record in records], became

    assert store.transact(DUE, settles) == "delivered"


def spender(disk: Recorder) -> None:
    """A pass that claims what is due."""
    store = without_index(disk)
    checker = ApprovalChecker(store, DUE)
    claim_due(store, approvals=checker)
    checker.update_tokens()


def approver(disk: Recorder, uses: int = 1) -> None:
    store = without_index(disk)
    (id_,) = store.read().state.schedules
    approve(store, id_, "1h", uses, None, NOW)


def waiting(disk: Recorder) -> None:
    """A prompt that needs an approval."""
    register(store_in(disk.root, disk, []), ASKED._replace(tier=2), NOW)


def last_of(*steps: History) -> History:
    """A history in whose last step alone a process may die."""

    def history(disk: Recorder) -> None:
        with disk.spared():
            for step in steps[:-1]:
                step(disk)
        steps[-1](disk)

    return history


approver_of_two_uses = partial(approver, uses=2)
approved = last_of(waiting, approver)  # for the first time, which makes the key
approved_again = last_of(waiting, approver, approver_of_two_uses)
approval_spent = last_of(waiting, approver_of_two_uses, spender)
approval_used_up = last_of(waiting, approver, spender)


def sealer(disk: Recorder) -> None:
    seal(store_in(disk.root, disk, []), NOW + timedelta(days=20))


def month_sealed(disk: Recorder) -> None:
    with disk.spared():
        add(disk, 1)
        add(disk, 2)
        add(disk, 3, days=20)
    sealer(disk)


def last_month_sealed(disk: Recorder) -> None:
    """The month is over, but nothing has been written since; and its end is torn."""
    with disk.spared():
        add(disk, 1)
        disk.plant(disk.root / "var" / chain() / "2026-11.ndjson.gz", HALF)
    sealer(disk)


HISTORIES: dict[str, History] = {
    "a new ledger": new_ledger,
    "a second append in the month": second_append,
    "a new month": new_month,
    "the index replaced": index_replaced,
    "a torn end moved aside": torn_end,
    "a torn end, then a new month": partial(torn_end, days=20),
    "an answer from what was found": vouched_for,
    "a month sealed": month_sealed,
    "the last month sealed, with a torn end": last_month_sealed,
    "a prompt registered, claimed and delivered": prompt_delivered,
    "an approval": approved,
    "an approval replaced": approved_again,
    "a use of an approval spent": approval_spent,
    "an approval used up": approval_used_up,
}

ONLY_SCHEDULES = (prompt_delivered, approved, approved_again, approval_spent, approval_used_up)


class Recovered(Examiner):
    """Recovers from state after state."""

    def go_on(self, folder: Path, point: Point) -> None:
        """Use it as the next process would, and audit what it makes of it."""
        found = whole_lines(folder)
        assert tuple(found) in point.seen, "what is found never stood there"
        if point.head is not None and point.head.seq:
            assert len(found) >= point.head.seq, "what was acknowledged is lost"
            hash_ = sha256(found[point.head.seq - 1]).hexdigest()
            assert hash_ == point.head.hash, "what was acknowledged is another"
        warnings: list[str] = []
        store = store_in(self.place, Unsynced(), warnings)
        try:
            assert verify(store)["events"] == len(found)
        except ChainError as error:
            # Zeros and noise at the end look like damage to the last event: that is what it says.
            # Noise in the place of a month's first append may be somebody else's file.
            last = max(path for path in folder.glob("*.gz") if path.stat().st_size)
            begins = zip(last.read_bytes(), b"\x1f\x8b\x08", strict=False)
            foreign = any(byte not in (0, right) for byte, right in begins)
            assert error.code == ("corrupt_chain" if foreign else "damaged_tail")  # noqa: PT017
            if foreign:
                assert self._refused_and_recovered(store, last) == "corrupt_chain"
                store = store_in(self.place, Unsynced(), warnings)
                found = lines(folder)
        snapshot = store.read()
        replayed = [event for batch in store.replay() for event in batch.envelopes]
        assert len(replayed) == snapshot.position.seq == len(found)
        assert snapshot.state == schema().fold(schema().empty, replayed)
        if isinstance(snapshot.state, State):
            tokens = Tokens(self.place / "var", Unsynced())
            for schedule in snapshot.state.schedules.values():
                granted = approval_in_log(schedule, "2026-11-20T21:00:00.000000Z")
                if granted.grant is not None:
                    judged = tokens.judge(schedule, "2026-11-20T21:00:00.000000Z")
                    assert judged == granted, "what the log has granted doesn't count"
        assert not any("cut it off" in warning for warning in warnings), warnings
        check_deliveries(replayed)

        store.transact(NOW + timedelta(days=40), lambda _: ([draft(1000)], None))
        events = check_chain(folder)
        after = lines(folder)
        assert after[: len(found)] == found
        new = [event["type"] for event in events[len(found) :]]
        assert set(new[:-1]) <= {"ledger.created", "tail.quarantined"}
        assert new[-1] == first_type()
        content = [path.read_bytes() for path in (folder / "quarantine").glob("*")]
        assert all(torn in content for torn in point.kept), "a torn end was dropped"

    def _refused_and_recovered(self, store: Any, last: Path) -> str:
        """The code with which a write is refused that would have to cut somebody's file."""
        content = last.read_bytes()
        with pytest.raises(ChainError) as caught:
            store.transact(NOW + timedelta(days=40), lambda _: ([draft(1000)], None))
        assert last.read_bytes() == content
        both = Store(SETTINGS._replace(var=self.place / "var"), ACTOR, warn=lambda _: None)
        both.disk.fsync = lambda _: None
        recover(both, NOW + timedelta(days=40), name=chain(), agree=lambda _: True)
        kept = [path.read_bytes() for path in last.parent.glob("quarantine/*.damaged")]
        assert content in kept
        return caught.value.code


def recorded(root: Path, history: History, kind: type[Recorder] = Recorder) -> Recorder:
    """The history, on a disk of its own."""
    root.mkdir()
    disk = kind(root)
    history(disk)
    return disk


@pytest.mark.usefixtures("both_chains")
@pytest.mark.parametrize("name", HISTORIES)
def test_every_state_after_a_loss_of_power(quick_path: Path, name: str) -> None:
    """P1: at every syscall of the history, and in every state that the disk may then be left in,
    nothing acknowledged is lost, nothing is invented, no group is split, and work goes on."""
    if chain() == "desires" and HISTORIES[name] in ONLY_SCHEDULES:
        pytest.skip("a desire is never delivered, nor approved")
    disk = recorded(quick_path / "real", HISTORIES[name])
    examiner = Recovered(quick_path / "found")
    examiner.examine(disk.points, FINE)
    print(f"{name}: {len(disk.points)} instants, {len(examiner.done)} states")
    count("losses of power", len(examiner.done))
    assert len(examiner.done) > 25


def test_the_write_of_an_append_cut(quick_path: Path) -> None:
    """P1: the write of an append, cut at many of its bytes (a torture: at each), with nothing,
    zeros or noise after it, or zeros before it."""
    disk = recorded(quick_path / "real", new_ledger)
    (point,) = [point for point in disk.points if point.call == "write" and point.head is None][:1]
    examiner = Recovered(quick_path / "found")
    examiner.examine([point], fine=10_000 if SCALE > 1 else 30)
    count("writes cut", len(examiner.done))
    assert len(examiner.done) > 100


def die_and_go_on(
    first: History, second: History, root: Path, at: int, when: str, kind: type[Recorder] = Recorder
) -> tuple[Recorder, int] | None:
    """One process that dies at a syscall, if it comes so far; then another, and where in the
    record that one begins."""
    root.mkdir()
    disk = kind(root, die_at=at, when=when)
    try:
        first(disk)
    except Killed:
        disk.revive()
        began = len(disk.points)
        second(disk)
        return disk, began
    return None


def same_month(disk: Recorder) -> None:
    add(disk, 8, 9)


def next_month(disk: Recorder) -> None:
    add(disk, 8, days=40)


def nothing_new(disk: Recorder) -> None:
    add(disk)


def reader(disk: Recorder) -> None:
    """It writes the index where that is missing."""
    store_in(disk.root, disk, []).read()


def rebuilder(disk: Recorder) -> None:
    rebuild(store_in(disk.root, disk, []))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *product([new_ledger, new_month], [same_month, next_month, nothing_new, reader, rebuilder]),
        (torn_end, same_month),
        (torn_end, next_month),
        (month_sealed, sealer),
        (month_sealed, reader),
        (last_month_sealed, sealer),
        *([(month_sealed, next_month), (last_month_sealed, next_month)] if SCALE > 1 else []),
    ],
)
def test_power_fails_after_a_writer_died(quick_path: Path, first: History, second: History) -> None:
    """P1: one process is killed at any syscall, another goes on from what it finds, and then the
    power fails at any instant: what the second built upon is as durable as what it built."""
    examiner, at, died = Recovered(quick_path / "found"), 0, 0
    while at == died:
        at += 1
        # Before it is after the one before it.
        for when in ("half", "after") if at > 1 else ("before", "half", "after"):
            run = die_and_go_on(first, second, quick_path / f"{at}-{when}", at, when)
            if run is not None:
                died = at
                disk, began = run
                examiner.examine(disk.points[began:], COARSE)
    print(f"{at - 1} syscalls, {len(examiner.done)} states")
    count("losses of power", len(examiner.done))
    assert died > 10


# The examiner must find what is wrong, or it proves nothing.


class SyncedTooLate(Recorder):
    """What a sync was asked for is durable only by the next syscall: after the acknowledgement."""

    late: int | None = None

    def open(self, path: Path, flags: int) -> int:
        self.settle_node(self.late)
        self.late = None
        return super().open(path, flags)

    def fsync(self, descriptor: int) -> None:
        self.late = self._id(descriptor)


class RenamedBeforeSynced(Recorder):
    def replace(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        super().replace(path, data, durable=False)
        if durable:
            self.fsync_directory(path.parent)
            self.sync(path)


class SealedBeforeSynced(Recorder):
    """A sealed month gets its name before its bytes are durable."""

    def write_beside(self, path: Path, pieces: Iterable[bytes]) -> Path:
        temporary = self.beside(path)
        self._write_temporary(temporary, pieces, durable=False)
        return temporary


class NameSyncedLast(Recorder):
    """The folder of a new file is synced after the file, not before its first byte."""

    def append_to(self, descriptor: int, path: Path, data: bytes, offset: int) -> None:
        self.write(descriptor, data)
        self.fsync(descriptor)
        if offset == 0:
            self.fsync_directory(path.parent)


class OthersNotSynced(Recorder):
    """What another process wrote before is taken to be durable."""

    def sync(self, path: Path) -> None:
        pass


class FoldersTakenOnTrust(Recorder):
    def sync_parents(self, path: Path) -> None:
        pass


class CutBeforeCopied(Recorder):
    """A torn end is cut off before its copy is durable."""

    def replace(self, path: Path, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002
        super().replace(path, data, durable=False)


def examine(examiner: Examiner, root: Path, kind: type[Recorder], *histories: History) -> None:
    """Examine a whole history; or what a second process makes of a first that died, at any
    syscall."""
    if len(histories) == 1:
        examiner.examine(recorded(root, *histories, kind).points, 0)
        return
    first, second = histories
    root.mkdir()
    for at in range(1, 100):
        recorded_run = die_and_go_on(first, second, root / str(at), at, "after", kind)
        if recorded_run is None:
            return
        disk, began = recorded_run
        examiner.examine(disk.points[began:], 0)


MUTANTS: list[tuple[type[Recorder], tuple[History, ...]]] = [
    *product(
        [FilesNotSynced, SyncedTooLate], [(new_ledger,), (second_append,), (prompt_delivered,)]
    ),
    *product([FoldersNotSynced], [(new_ledger,), (new_month,), (torn_end,)]),
    *product([FilesNotSynced, FoldersNotSynced], [(approved_again,)]),
    (RenamedBeforeSynced, (torn_end, same_month)),
    (CutBeforeCopied, (torn_end,)),
    (SealedBeforeSynced, (month_sealed,)),
    (NameSyncedLast, (new_ledger, same_month)),
    (NameSyncedLast, (new_month, same_month)),
    (OthersNotSynced, (new_ledger, next_month)),
    (OthersNotSynced, (new_ledger, nothing_new)),
    (FoldersTakenOnTrust, (new_ledger, same_month)),
]
SOUND: set[tuple[History, ...]] = set()
"""What has been seen to pass with a sound disk."""


@pytest.mark.parametrize(
    ("kind", "histories"),
    MUTANTS,
    ids=[f"{number}-{kind.__name__}" for number, (kind, _) in enumerate(MUTANTS)],
)
def test_a_broken_disk_is_found_out(
    quick_path: Path, kind: type[Recorder], histories: tuple[History, ...]
) -> None:
    """The check can fail: a disk that leaves out or moves a single sync is caught by it."""
    if histories not in SOUND:
        examine(Recovered(quick_path / "found"), quick_path / "real", Recorder, *histories)
        SOUND.add(histories)
    with pytest.raises((AssertionError, PromptyoselfError)):
        examine(Recovered(quick_path / "found"), quick_path / "broken", kind, *histories)
