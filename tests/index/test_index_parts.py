"""P4, P8: an index in parts answers as one that is whole, and costs what the work costs."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from calling import call
from chains import ACTOR, NOW, Killed, StepDisk, draft, ledger_in, replayed
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed_logs import side_by_side
from tally import chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import load_settings
from promptyoself.events import records
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import STATUSES
from promptyoself.index import parts as parts_module
from promptyoself.index import tree
from promptyoself.index.index import Index, Snapshot
from promptyoself.index.schedule_schema import SCHEDULE_SCHEMA
from promptyoself.index.schema import decode_root
from promptyoself.ledger import START
from promptyoself.rules.due import due
from promptyoself.service.schedules.change import cancel
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.views import list_schedules, show
from promptyoself.state.apply import fold
from promptyoself.state.overlay import PartFilter, Summary
from promptyoself.state.schedules import EMPTY, State
from promptyoself.store.store import Store

MANY = 1200


class Case:
    """A log with many schedules, its index in parts, and what a full replay says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "index.json"
        self.ledger = ledger_in(folder)
        self.warnings: list[str] = []

    @property
    def truth(self) -> State:
        state: State = replayed(self.ledger).state
        return state

    def index(self, disk: Disk | None = None) -> Index:
        return Index(self.path, SCHEDULE_SCHEMA, self.ledger, self.warnings.append, disk)

    def files(self) -> list[Path]:
        return sorted((self.folder / "index").glob("*/*.json"))

    def add(self, index: Index, *drafts: Draft) -> State:
        """What a command does: load, append, fold, save."""
        with self.ledger.exclusive():
            state, position = index.load()
            batch = self.ledger.append(drafts, NOW + timedelta(hours=1), position)
            state = fold(state, batch.envelopes)
            index.save(Snapshot(state, batch.position), grown=len(batch.content))
            return state


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is saved as often as a storm of other processes would."""
    monkeypatch.setattr("promptyoself.index.index._BURST_SECONDS", 0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(tmp_path_factory.mktemp("made") / "s")
    with case.ledger.exclusive():
        case.ledger.append([draft(n) for n in range(MANY)], NOW, START)
        index = case.index()
        index.save(index.load())
    return case.folder


@pytest.fixture
def case(made: Path, quick_path: Path) -> Case:
    shutil.copytree(made, quick_path / "s")
    return Case(quick_path / "s")


def answers(state: State) -> list[Any]:
    """What commands ask of a state."""
    end = format_utc(NOW + timedelta(days=60))
    return [
        dict(state.schedules.items()),
        dict(state.agents.items()),
        [key for key, _ in state.schedules.in_order(lambda _: True)],
        list(state.schedules.soonest(lambda summary: bool(summary.statuses[0]))),
        list(due(state, end)),
        state.schedules.next_ready(format_utc(NOW)),
        len(state.schedules),
        state.statuses,
        state.counts,
    ]


def test_parts_are_used_and_small(case: Case) -> None:
    """P8: many schedules lie in many small files, which the root names; together they say what the
    log says."""
    root = decode_root(SCHEDULE_SCHEMA, case.path.read_bytes())
    assert isinstance(root.tables[0], parts_module.Branch)
    assert len(case.files()) >= 16
    assert all(path.stat().st_size < 2 * tree.PART_BYTES for path in case.files())
    state = case.index().load().state
    assert state.schedules.base is not None
    assert answers(state) == answers(case.truth)
    assert case.warnings == []


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda content: content[:-2],
    "noise": lambda content: chance("noise in a part").randbytes(len(content)),
    "another bit": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
    "other JSON": lambda _: b"{}",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part(case: Case, damage: str) -> None:
    """P4: a part that is gone, cut, altered or noise is found out when it is needed; the answers
    are the same, out of the log, and the next save rebuilds it."""
    truth = answers(case.truth)
    for path in chance(damage).sample(case.files(), min(rounds(4), len(case.files()))):
        spoiled = DAMAGES[damage](path.read_bytes())
        if spoiled is None:
            path.unlink()
        else:
            path.write_bytes(spoiled)
        index = case.index()
        snapshot = index.load()
        assert case.warnings == []
        assert answers(snapshot.state) == truth
        assert len(case.warnings) == 1
        assert "read from the log" in case.warnings[0]
        assert index.is_stale
        with case.ledger.exclusive():
            index.save(snapshot)
        case.warnings.clear()
        assert answers(case.index().load().state) == truth
        assert case.warnings == []
        count("index parts damaged")


def test_parts_of_another_moment(case: Case) -> None:
    """P4: parts that were right once, brought back under the names of today's, aren't believed."""
    old = {path.name.partition("-")[0]: path.read_bytes() for path in case.files()}
    index = case.index()
    for number in range(2):
        case.add(index, *(draft(MANY + 200 * number + n) for n in range(200)))
    truth = answers(case.truth)
    swapped = 0
    for path in case.files():
        before = old.get(path.name.partition("-")[0])
        if before is not None and before != path.read_bytes():
            path.write_bytes(before)
            swapped += 1
    assert swapped
    assert answers(case.index().load().state) == truth
    assert len(case.warnings) == 1


def test_a_reader_of_an_older_root_goes_on(case: Case) -> None:
    """P4: who has loaded the index before others replaced it, once, twice, ten times, gets what
    was so at his moment, from the parts of then or from the log."""
    reader, other, writer = case.index(), case.index(), case.index()
    early, unread = reader.load().state, other.load().state
    truth = answers(case.truth)
    for number in range(10):
        case.add(writer, *(draft(10_000 + 150 * number + n) for n in range(150)))
        if number == 1:
            assert answers(early) == truth
            assert case.warnings == [], "the parts are kept for so long"
    assert answers(early) == truth
    assert case.warnings == []
    assert answers(unread) == truth
    assert len(case.warnings) == 1
    assert answers(reader.load().state) == answers(case.truth)


def test_a_loop_follows_who_writes_beside_it(case: Case) -> None:
    """P4: a process that goes on and on takes over the parts that others have written, and never
    needs the log for them."""
    loop, other = case.index(), case.index()
    loop.load()
    for number in range(30):
        case.add(other, *(draft(20_000 + 130 * number + n) for n in range(130)))
        assert loop.load().state.schedules.get(draft(20_000 + 130 * number).id or "") is not None
    assert answers(loop.load().state) == answers(case.truth)
    assert case.warnings == []


def test_nothing_is_left_behind(case: Case) -> None:
    """What no root speaks of any more is removed after a while, and all of it by a rebuild."""
    index = case.index()
    for number in range(12):
        case.add(index, *(draft(30_000 + 150 * number + n) for n in range(150)))
    named = len(set(spoken_of(case)))
    assert named <= len(case.files()) <= 3 * named
    (case.folder / "index" / "schedules" / "00-0123456789abcdef.json").write_bytes(b"litter")
    fresh = case.index()
    with case.ledger.exclusive():
        fresh.save(fresh.rebuild())
    assert sorted(set(spoken_of(case))) == [path.stem for path in case.files()]


def spoken_of(case: Case) -> Iterator[str]:
    """The files that the root needs."""
    root = decode_root(SCHEDULE_SCHEMA, case.path.read_bytes())
    parts = parts_module.PartFiles(case.folder / "index", Disk())

    def below(kind: parts_module.TableSchema[Any], node: tree.Node[Any]) -> Iterator[str]:
        if isinstance(node, parts_module.Branch):
            for file, _ in node.parts.values():
                yield file
                yield from below(kind, parts.read(kind, file))

    for kind, node in zip(SCHEDULE_SCHEMA.table_schemas, root.tables, strict=True):
        yield from below(kind, node)


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_death_at_every_step_of_a_save(case: Case, when: str, quick_path: Path) -> None:
    """P4: a process that dies at any syscall of writing the index leaves one that gives the right
    answers, from its parts or from the log, and that the next one writes again."""

    def die() -> None:
        raise Killed

    kept = quick_path / "kept"
    shutil.copytree(case.folder, kept)
    disk = StepDisk()
    case.add(case.index(disk), *(draft(50_000 + n) for n in range(150)))
    steps = len(disk.log)
    chosen = range(1, steps + 1) if rounds(1) > 1 else chance(when).sample(range(1, steps + 1), 12)
    for at in {*chosen, 1, 2, steps - 1, steps}:
        shutil.rmtree(case.folder)
        shutil.copytree(kept, case.folder)
        with suppress(Killed):  # half of a step that isn't a write is the whole
            case.add(case.index(StepDisk(at, when, die)), *(draft(50_000 + n) for n in range(150)))
        truth = answers(case.truth)
        assert answers(case.index().load().state) == truth
        case.add(case.index(), draft(60_000))
        assert answers(case.index().load().state) == answers(case.truth)
        count("index saves broken off")


def test_a_disk_that_refuses(case: Case) -> None:
    """P4: where a part or the root can't be written, the answers are the same, and a warning says
    so; what was there still holds."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    disk = StepDisk()
    case.add(case.index(disk), *(draft(70_000 + n) for n in range(130)))
    for at in chance("full").sample(range(1, len(disk.log)), 6):
        case.warnings.clear()
        index = case.index(StepDisk(at, "before", fail))
        with case.ledger.exclusive():
            state, position = case.index().load()
            batch = case.ledger.append([draft(-at)], NOW + timedelta(hours=2), position)
            snapshot = Snapshot(fold(state, batch.envelopes), batch.position)
            index.save(snapshot)
        assert any("could not be written" in warning for warning in case.warnings)
        case.warnings.clear()
        assert answers(case.index().load().state) == answers(case.truth)
        assert case.warnings == []


# --- what it costs --------------------------------------------------------------------------------


def bytes_touched(run: Callable[[], Any]) -> tuple[int, int]:
    """The bytes that this thread reads and writes meanwhile, as the kernel counts them."""

    def now() -> tuple[int, int]:
        lines = Path("/proc/thread-self/io").read_text().splitlines()
        return int(lines[0].split()[1]), int(lines[1].split()[1])

    cost = now()
    cost = now()[0] - cost[0], cost[1]
    before = now()
    run()
    after = now()
    return after[0] - before[0] - cost[0], after[1] - before[1]


def filled(folder: Path, schedules: int) -> Path:
    """A data directory with that many schedules of many agents."""
    ledger = ledger_in(folder / "schedules")
    index = Index(folder / "schedules" / "index.json", SCHEDULE_SCHEMA, ledger, lambda _: None)
    with ledger.exclusive():
        position = START
        for at in range(0, schedules, 50):
            drafts = [draft(n) for n in range(at, min(at + 50, schedules))]
            drafts = [
                each._replace(record=each.record._replace(agent_id=f"agent-{n // 20}"))  # type: ignore[call-arg]
                for n, each in enumerate(drafts, at)
            ]
            position = ledger.append(drafts, NOW, position).position
        index.save(index.load())
    return folder


COMMANDS: dict[str, tuple[str, ...]] = {
    "show": ("show", "--id", str(draft(7).id)),
    "register": ("register", "--agent-id", "agent-new", "--prompt", "New", "--every", "1d"),
    "cancel": ("cancel", "--id", str(draft(9).id)),
    "execute": ("execute",),
    "list of one agent": ("list", "--agent-id", "agent-0"),
    "list of a few": ("list", "--limit", "5"),
    "head": ("head",),
}


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/io"), reason="the kernel doesn't count")
def test_what_a_command_touches_does_not_grow(quick_path: Path) -> None:
    """P8: register, show, cancel, an idle execute, and lists that ask for little read and write as
    much with 15,000 schedules as with 1,500, and never more than a few parts of the index."""
    costs: dict[str, dict[int, tuple[int, int]]] = {}
    var = quick_path / "var"
    for number in (1500, 15_000):
        kept = filled(quick_path / str(number), number)
        for name, command in COMMANDS.items():
            for _ in range(2):  # the first time it imports what it needs
                shutil.rmtree(var, ignore_errors=True)
                shutil.copytree(kept, var)
                found: list[Any] = []
                costs.setdefault(name, {})[number] = bytes_touched(
                    lambda command=command, found=found: found.append(  # type: ignore[misc]
                        call(*command, "--var", str(var))
                    )
                )
                assert found[0].code == 0, found[0]
    print(costs)
    for name, by_number in costs.items():
        for few, many in zip(by_number[1500], by_number[15_000], strict=True):
            # A list of 20 schedules may read a part for each; each other command, a few parts.
            most = 20 if name == "list of one agent" else 1
            assert many <= 1.2 * few + most * tree.PART_BYTES, (name, costs)
            assert many <= (most + 8) * tree.PART_BYTES, (name, costs)


# --- the same answers as without parts ------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> list[list[Draft]]:
    """Groups of events about some schedules, as our writers could have written them."""
    groups: list[list[Draft]] = []
    known: dict[int, str] = {}
    for _ in range(draw(st.integers(1, 6))):
        group: list[Draft] = []
        for _ in range(draw(st.integers(1, 12))):
            number = draw(st.integers(0, 40))
            status = known.get(number)
            made = draft(number)
            if status is None:
                jitter = draw(st.sampled_from([None, 600]))
                hours = draw(st.integers(0, 5))
                at = format_utc(NOW + timedelta(hours=hours))
                group.append(made._replace(record=made.record._replace(next_run=at, jitter=jitter)))  # type: ignore[call-arg]
                known[number] = "active"
                continue
            if status in ("completed", "cancelled"):
                continue
            at = format_utc(NOW + timedelta(hours=draw(st.integers(0, 9))))
            record, after = draw(
                st.sampled_from(
                    [
                        (records.SchedulePaused(at), "paused"),
                        (records.ScheduleResumed(at), "active"),
                        (records.ScheduleCancelled(), "cancelled"),
                        (records.ScheduleCompleted("until", "completed"), "completed"),
                        (records.ScheduleModified({"agent_id": "agent-other"}), status),
                        (records.ScheduleModified({"prompt": "x" * 700}), status),
                    ]
                )
            )
            known[number] = after
            group.append(Draft(record, made.id, ACTOR))
        if group:
            groups.append(group)
    return groups


@settings(max_examples=rounds(60), deadline=None)
@given(stories(), st.lists(st.booleans(), min_size=6, max_size=6), st.integers(-1, 12))
def test_parts_answer_as_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[Draft]],
    saves: list[bool],
    hours: int,
) -> None:
    """P4: whatever happened, saved when it may, split as small as can be: each question has the
    answer that a plain replay gives."""
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "PART_BYTES", 1500)
        patch.setattr(tree, "ROOT_BYTES", 2500)
        ledger = ledger_in(folder)
        warnings: list[str] = []
        index = Index(folder / "index.json", SCHEDULE_SCHEMA, ledger, warnings.append)
        position = START
        for group, save in zip(groups, saves, strict=False):
            with ledger.exclusive():
                state, position = index.load()
                batch = ledger.append(group, NOW, position)
                state = fold(state, batch.envelopes)
                if save:
                    index.save(Snapshot(state, batch.position), moved=True)
        truth = replayed(ledger).state
        at = format_utc(NOW + timedelta(hours=hours))
        for loaded in (
            index.load().state,
            Index(folder / "index.json", SCHEDULE_SCHEMA, ledger, print).load().state,
        ):
            # Asked again, in part and in whole, by clocks that run on or back a little.
            for minutes in (0, 1, 61, 600, 59, 100_000):
                then = format_utc(NOW + timedelta(hours=hours, minutes=minutes))
                assert list(islice(due(loaded, then), 3)) == list(islice(due(truth, then), 3))
                assert list(due(loaded, at)) == list(due(truth, at))
                assert list(due(loaded, then)) == list(due(truth, then))
            assert loaded == truth
            assert dict(loaded.schedules.items()) == dict(truth.schedules.items())
            for status, name in enumerate(STATUSES):

                def has(summary: Summary, status: int = status) -> bool:
                    return bool(summary.statuses[status])

                assert list(loaded.schedules.soonest(has)) == list(truth.schedules.soonest(has))
                assert of_status(loaded, has, name) == of_status(truth, has, name)
            early, exact = loaded.schedules.next_ready(at), truth.schedules.next_ready(at)
            assert early is None or early > at
            assert exact is None or (early is not None and early <= exact)
        assert set(warnings) <= {"The index is missing; it was rebuilt from the log."}
    shutil.rmtree(folder)


def of_status(state: State, has: PartFilter, name: str) -> list[str]:
    """The keys of the schedules of a status, out of the parts that have any of it."""
    return [key for key, schedule in state.schedules.in_order(has) if schedule.status == name]


def test_nothing_is_in_parts_at_first() -> None:
    """A state before the first event has no base to ask."""
    assert EMPTY.schedules.base is None
    assert len(EMPTY.schedules) == 0
    assert EMPTY.schedules.next_ready("") is None
    assert list(EMPTY.schedules.soonest(lambda _: True)) == []


# --- beside each other ----------------------------------------------------------------------------


def _write(var: Path, name: str, times: int, report: Any) -> None:
    warnings: list[str] = []
    store = Store(load_settings(var=str(var)), {"via": "test", "who": name}, warn=warnings.append)
    for number in range(times):
        request = Request(agent_id=f"agent-{name}-{number % 50}", prompt=f"{number}", every="1d")
        id_ = str(register(store, request, datetime.now(UTC))["id"])
        if number % 3 == 0:
            cancel(store, id_, None, datetime.now(UTC))
    report.send(warnings)


def _read(var: Path, known: str, times: int, report: Any) -> None:
    warnings: list[str] = []
    for number in range(times):
        settings = load_settings(var=str(var))
        store = Store(settings, {"via": "test", "who": "reader"}, warn=warnings.append)
        now = datetime.now(UTC)
        assert show(store, known, now=now)["prompt"] == "Water the plants 7"
        assert len(list_schedules(store, limit=30, now=now)["schedules"]) == 30
        if number % 10 == 0:
            everything = list_schedules(store, status="all", now=now)
            assert everything["count"] >= 1200
            assert "total" not in everything
    report.send(warnings)


def test_processes_beside_each_other(case: Case) -> None:
    """P1, P4: while processes write an index in parts and remove what it supersedes, readers
    without a lock get whole answers; in the end it says what the log says."""
    var = case.folder.with_name("var")
    var.mkdir()
    case.folder.rename(var / "schedules")
    jobs: list[tuple[Any, tuple[Any, ...]]] = [
        *((_write, (var, f"writer-{number}", rounds(150))) for number in range(3)),
        *((_read, (var, str(draft(7).id), rounds(60))) for _ in range(2)),
    ]
    for warnings in side_by_side(jobs):
        # A part may have been removed under a reader; then the log answers, and that is all.
        assert all("can't be read" in warning for warning in warnings), warnings
    case = Case(var / "schedules")
    assert answers(case.index().load().state) == answers(case.truth)
    assert case.warnings == []
    assert len(case.truth.schedules) == MANY + 3 * rounds(150)
    count("processes racing", len(jobs))


def test_it_follows_the_log_by_bytes_too(case: Case) -> None:
    """A few long prompts take as long to read again as a thousand short ones: the next process
    never has more than a few hundred KiB of events to read, however few they are."""
    ids = islice(case.truth.schedules, 8)
    for number, id_ in enumerate(ids):
        index = case.index()  # as another process
        change = records.ScheduleModified({"prompt": str(number) * (1 << 20)}, None)
        case.add(index, Draft(change, id_, ACTOR))
        assert index.witness()[0] == case.ledger.head().seq
    short = [records.ScheduleModified({"prompt": "s" * 60_000}, None) for _ in range(6)]
    behind = []
    for change in short:
        index = case.index()
        case.add(index, Draft(change, next(iter(case.truth.schedules)), ACTOR))
        behind.append(case.ledger.head().seq - index.witness()[0])
    assert max(behind) == 4  # 256 KiB
    assert answers(case.index().load().state) == answers(case.truth)
