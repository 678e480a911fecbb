"""P1: what is acknowledged survives SIGKILL, power loss, full disks and failing devices."""

import errno
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import chains
import pytest
from checker import check_chain, members
from crashes import Report, Unsynced, in_child, ways
from tally import SCALE, chance, count, rounds
from world import check_deliveries

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError
from promptyoself.core.settings import load_settings
from promptyoself.index.index import Snapshot
from promptyoself.ledger import START
from promptyoself.ledger.segments import compress
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.loop import StopFlag, execute_once
from promptyoself.service.desires.manage import record
from promptyoself.service.schedules.change import pause
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.store.store import Store
from promptyoself.targets.letta import LettaClient

TORN = compress(b"half of it was written\n")[:-5]


def scenario(folder: Path, disk: Disk, report: Report) -> None:
    """Every kind of write there is: a new ledger, a further append, an index, a new month, and a
    torn end moved aside and recorded."""
    ledger = chains.ledger_in(folder, disk)
    index = chains.index_in(folder / "index.json", ledger, lambda _: None, disk)
    for number, days in enumerate((0, 0, 20, 21)):
        if number == 3:
            with (folder / "2026-12.ndjson.gz").open("ab") as file:
                file.write(TORN)
        with ledger.exclusive():
            snapshot = index.load()
            when = chains.NOW + timedelta(days=days)
            drafts = [chains.draft(2 * number), chains.draft(2 * number + 1)]
            batch = ledger.append(drafts, when, snapshot.position)
            index.save(
                Snapshot(chains.schema().fold(snapshot.state, batch.envelopes), batch.position)
            )
        report(str(number))


def _new(root: Path) -> Path:
    root.mkdir()
    return root


def steps_of(folder: Path) -> list[str]:
    """The scenario's syscalls."""
    disk = chains.StepDisk()
    scenario(folder, disk, lambda _: None)
    check_chain(folder)
    return disk.log


def assert_recovers(folder: Path, acknowledged: list[str], torn: bool = False) -> None:
    """Nothing acknowledged is lost, nothing invented, no group split; and work goes on."""
    at_least = [f"Water the plants {2 * int(n) + k}" for n in acknowledged for k in (0, 1)]
    one_more = [f"Water the plants {len(at_least) + k}" for k in (0, 1)]
    before = chains.snapshot_of(folder)
    warnings: list[str] = []
    ledger = chains.ledger_in(folder)
    index = chains.index_in(folder / "index.json", ledger, warnings.append)
    loaded = index.load()
    assert loaded == chains.replayed(ledger)
    assert chains.snapshot_of(folder) == before, "a reader changed the chain"
    ledger.append([chains.draft(100)], chains.NOW + timedelta(days=30), loaded.position)
    events = check_chain(folder)
    registered = chains.prompts(events)
    assert registered in (
        [*at_least, "Water the plants 100"],
        [*at_least, *one_more, "Water the plants 100"],
    )
    if torn:
        kept = [path.read_bytes() for path in (folder / "quarantine").iterdir()]
        assert TORN in kept
    assert not list(folder.rglob("*.unrecorded"))
    chains.append(ledger, 101, now=chains.NOW + timedelta(days=31))
    assert len(check_chain(folder)) == len(events) + 1


@pytest.mark.usefixtures("both_chains")
def test_killed_at_every_syscall(quick_path: Path) -> None:
    """P1: SIGKILL before, after and in the middle of every syscall of appending, quarantining and
    writing the index loses nothing acknowledged, and the next command goes on."""
    steps = steps_of(_new(quick_path / "dry") / "s")
    for at, when in ways(steps):
        folder = _new(quick_path / f"{at}-{when}") / "s"
        disk = chains.StepDisk(at, when, chains.kill)
        acknowledged, ended_by = in_child(lambda r, f=folder, d=disk: scenario(f, d, r))
        assert ended_by == signal.SIGKILL, (at, when)
        count("kills by SIGKILL")
        assert_recovers(folder, acknowledged, torn=len(acknowledged) == 3)


class Passes:
    """Many data directories, each with one prompt that is due to an agent of its own, and what
    `execute` does in each, in processes of their own, some at a time."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self.root, self.sandbox = root, sandbox
        self.otids: dict[str, str] = {}

    def store(self, name: str, disk: Disk) -> Store:
        settings = load_settings(
            {
                "PROMPTYOSELF_VAR": str(self.root / name),
                "LETTA_BASE_URL": self.sandbox.url,
                "PROMPTYOSELF_RECONCILE_GRACE": "0.3",
            }
        )
        return Store(settings, chains.ACTOR, warn=lambda _: None, disk=disk)

    def register(self, name: str, kind: str = "plain") -> None:
        """One prompt, due since half a minute: plain, rendered when it fires (``idle``), or
        ``paused`` until a quarter of a minute before it was due."""
        agent, now = self.sandbox.create_agent(name), datetime.now(UTC)
        store, before = self.store(name, Unsynced()), now - timedelta(minutes=1)
        request = Request(agent_id=agent, prompt="Hi", time="in 30s")
        if kind == "idle":
            record(store, agent, "Learn Danish", 0.5, [], before)
            request = request._replace(prompt=None, template="idle")
        id_ = register(store, request, before)["id"]
        if kind == "paused":
            pause(store, id_, None, before, until="in 15s")

    def execute(self, name: str, disk: Disk) -> None:
        """One pass, as the command makes it."""
        store = self.store(name, disk)
        letta = LettaClient(store.settings.base_url, store.settings.token, call_timeout=60)
        clock = lambda: datetime.now(UTC)  # noqa: E731
        execute_once(store, {"letta": letta}, clock, concurrency=2, deadline=30, stop=StopFlag())

    def all_at_once(self, disks: dict[str, Disk], expect: int) -> None:
        """Each in a child, four at a time; ``expect`` is the signal that must end it."""

        def ended_by(name: str) -> int:
            return in_child(lambda _: self.execute(name, disks[name]))[1]

        with ThreadPoolExecutor(4) as pool:
            signals = dict(zip(disks, pool.map(ended_by, disks), strict=True))
        assert signals == dict.fromkeys(disks, expect)

    def assert_settled(self, name: str) -> None:
        """One outcome in the log, one copy in the agent's history."""
        store = self.store(name, Unsynced())
        store.transact(datetime.now(UTC), lambda _: ([chains.draft(1)], None))
        events = check_chain(self.root / name / "schedules")
        registered = next(e for e in events if e["type"] == "schedule.registered")
        check_deliveries(event for batch in store.replay() for event in batch.envelopes)
        delivered = [e for e in events if e["type"] == "delivery.delivered"]
        assert len(delivered) == 1, name
        agent = registered["data"]["agent_id"]
        otids = [m.otid for m in self.sandbox.messages(agent) if m.kind == "user_message"]
        assert otids == [delivered[0]["data"]["otid"]], name
        assert not store.read().state.open


def test_killed_at_every_syscall_of_a_delivery(quick_path: Path) -> None:
    """P1, P2: `execute`, killed with SIGKILL before, after and in the middle of every change it
    makes to the disk, from its claim to its outcome: a second one settles the slot, and the agent
    has the prompt once: plain, rendered, or back from a pause."""
    with Sandbox(("dry",), latency=0.02) as sandbox:
        passes = Passes(quick_path, sandbox)
        dry = chains.StepDisk()
        passes.register("dry")
        passes.execute("dry", dry)
        passes.assert_settled("dry")
        assert dry.log.count("write") >= 4
        disks: dict[str, Disk] = {}
        for at, call in enumerate(dry.log, 1):
            moments = ["after", "half"] if call == "write" else ["after"]
            # Before it is after the one before it, unless something was sent in between.
            if at == 1 or dry.log[at - 2] == "rename":
                moments.append("before")
            for when in moments:
                disks[f"{at}-{call}-{when}"] = chains.StepDisk(at, when, chains.kill)
        for number, name in enumerate(disks):
            passes.register(name, ("plain", "idle", "paused")[number % 3])
        passes.all_at_once(disks, signal.SIGKILL)
        count("kills by SIGKILL", len(disks))
        passes.all_at_once({name: Unsynced() for name in disks}, 0)
        for name in disks:
            passes.assert_settled(name)


@pytest.mark.usefixtures("both_chains")
def test_killed_twice(quick_path: Path) -> None:
    """P1: a process that dies at any step of recovering from another's death loses nothing."""

    def start(folder: Path) -> None:
        chains.append(chains.ledger_in(folder, Unsynced()), 0, 1)
        with (folder / "2026-11.ndjson.gz").open("ab") as file:
            file.write(TORN)

    def recover(folder: Path, disk: Disk) -> None:
        chains.append(chains.ledger_in(folder, disk), 2, 3)

    start(quick_path / "dry" / "s")
    disk = chains.StepDisk()
    recover(quick_path / "dry" / "s", disk)
    kinds = [(at, when) for at in range(1, disk.count + 1) for when in ("before", "half", "after")]
    for first in kinds:
        for second in chance(f"killed twice {first}").sample(kinds, 5):
            folder = quick_path / "-".join(map(str, first + second)) / "s"
            start(folder)
            for at, when in (first, second):
                dying = chains.StepDisk(at, when, chains.die)
                try:
                    recover(folder, dying)
                except chains.Killed:
                    continue
            chains.append(chains.ledger_in(folder, Unsynced()), 9)
            events = check_chain(folder)
            assert chains.prompts(events)[:2] == ["Water the plants 0", "Water the plants 1"]
            kept = [path.read_bytes() for path in (folder / "quarantine").iterdir()]
            assert kept.count(TORN) == 1
            recorded = [e for e in events if e["type"] == "tail.quarantined"]
            assert len(recorded) == len(kept)


def test_killed_at_random(quick_path: Path, both_chains: str) -> None:
    """P1: appending in a loop and killed at any instant, what was acknowledged is there."""
    dice = chance("killed at random")
    folder = quick_path / "0"
    wanted: list[int] = []
    for attempt in range(rounds(150 if both_chains == "schedules" else 40)):
        if attempt % 10 == 0:
            folder, wanted = quick_path / str(attempt), []

        def loop(report: Report, folder: Path = folder, attempt: int = attempt) -> None:
            ledger, position, number = chains.ledger_in(folder), START, 1000 * attempt
            while True:
                number += 1
                with ledger.exclusive():
                    position = ledger.head(position)
                    when = chains.NOW + timedelta(hours=position.seq)
                    position = ledger.append([chains.draft(number)], when, position).position
                report(str(number))

        acknowledged, ended_by = in_child(loop, 0.003 + dice.random() * 0.03)
        assert ended_by == signal.SIGKILL
        count("kills by SIGKILL")
        wanted += [int(text) for text in acknowledged]
        chains.append(chains.ledger_in(folder), -attempt - 1, now=chains.NOW)
        registered = [int(text.rpartition(" ")[2]) for text in chains.prompts(check_chain(folder))]
        assert len(set(registered)) == len(registered)
        assert set(wanted) <= set(registered)
        extra = [n for n in registered if n >= 0 and n not in wanted]
        assert len(extra) <= attempt % 10 + 1, "more than the one under way was written"


def _tails(whole: bytes) -> Iterator[bytes]:
    noise = chance("tails").randbytes(len(whole))
    for cut in range(1, len(whole)):
        yield whole[:cut]
        if SCALE > 1 or cut % 8 == 0 or cut > len(whole) - 9:
            yield whole[:cut] + bytes(len(whole) - cut)
            yield whole[:cut] + noise[cut:]
    yield bytes(len(whole))
    yield noise


@pytest.mark.usefixtures("both_chains")
@pytest.mark.parametrize("case", ["first of all", "same month", "first of a month"])
def test_torn_at_every_byte(folder: Path, case: str) -> None:
    """P1: a write that got through up to any byte, with nothing, zeros or noise in place of the
    rest, is moved aside whole, recorded once, and costs nothing acknowledged."""
    disk = Unsynced()
    ledger = chains.ledger_in(folder, disk)
    earlier = {"first of all": [], "same month": [-40, 0], "first of a month": [-40, -20]}[case]
    for number, days in enumerate(earlier):
        chains.append(ledger, number, now=chains.NOW + timedelta(days=days))
    sound = chains.snapshot_of(folder)
    chains.append(ledger, 8)
    last = folder / "2026-11.ndjson.gz"
    whole = last.read_bytes()[len(sound.get(last.name, b"")) :]
    wanted = [f"Water the plants {number}" for number in range(len(earlier))]
    for tail in _tails(whole):
        for path in (folder / "quarantine").glob("*"):
            path.unlink()
        for path in folder.glob("*.gz"):
            path.unlink()
        for name, content in sound.items():
            (folder / name).write_bytes(content)
        last.write_bytes(sound.get(last.name, b"") + tail)
        if tail == whole:
            continue  # the last bytes were zeros anyhow
        count("writes cut")
        ledger = chains.ledger_in(folder, disk)
        begins = zip(tail, whole[:3], strict=False)
        if last.name not in sound and any(byte not in (0, right) for byte, right in begins):
            # It is no gzip at all: it may be somebody else's file.
            with pytest.raises(ChainError) as caught:
                chains.append(ledger, 9, now=chains.NOW + timedelta(days=20))
            assert caught.value.code == "corrupt_chain"
            assert last.read_bytes() == tail
            continue
        found = ledger.torn()
        assert found is not None
        assert (found.month, found.size) == ("2026-11", len(tail))
        assert chains.snapshot_of(folder) == {**sound, last.name: sound.get(last.name, b"") + tail}
        batch = ledger.append([chains.draft(9)], chains.NOW + timedelta(days=20), ledger.head())
        kinds = [event.type for event in batch.envelopes]
        genesis = ["ledger.created"] if case == "first of all" else []
        assert kinds == [*genesis, "tail.quarantined", chains.first_type()]
        events = check_chain(folder)
        assert chains.prompts(events) == [*wanted, "Water the plants 9"]
        (kept,) = (folder / "quarantine").iterdir()
        assert kept.read_bytes() == tail
        assert ledger.torn() is None


def test_index_torn(folder: Path) -> None:
    """P1: bytes kept in the quarantine bear the month and the offset at which they lay."""
    chains.append(chains.ledger_in(folder), 1)
    path = folder / "2026-11.ndjson.gz"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\x1f\x8b\x08rubbish")
    chains.append(chains.ledger_in(folder), 2)
    record = next(e["data"] for e in check_chain(folder) if e["type"] == "tail.quarantined")
    assert (record["month"], record["offset"], record["bytes"]) == ("2026-11", size, 10)


def test_strangers_in_the_quarantine(folder: Path) -> None:
    """Files that people put into the quarantine keep nobody from appending."""
    chains.append(chains.ledger_in(folder), 1)
    (folder / "quarantine").mkdir()
    for name in ("notes.unrecorded", "x", ".unrecorded", "2026-11-xx.torn.unrecorded"):
        (folder / "quarantine" / name).write_text("hello")
    chains.append(chains.ledger_in(folder), 2)
    assert len(chains.ledger_in(folder).head().hash) == 64


@pytest.mark.usefixtures("both_chains")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_errors_at_every_syscall(quick_path: Path, number: int) -> None:
    """P1: a syscall that fails, having done nothing, half or all of its work, raises and leaves the
    chain as it was, or succeeds; the next command goes on."""
    steps = steps_of(_new(quick_path / "dry") / "s")
    for at, when in ways(steps):
        folder = _new(quick_path / f"{at}-{when}") / "s"
        acknowledged: list[dict[str, bytes]] = []

        def report(_: str, folder: Path = folder, acknowledged: Any = acknowledged) -> None:
            acknowledged.append(chains.snapshot_of(folder))

        count("disk errors")
        try:
            scenario(folder, chains.failing_disk(at, when, number), report)
        except OSError as error:
            assert error.errno == number  # noqa: PT017
            assert len(acknowledged) < 4
            after = {name: data for name, data in chains.snapshot_of(folder).items() if data}
            if len(acknowledged) < 3:
                assert after == (acknowledged[-1] if acknowledged else {}), (at, when)
        else:
            assert len(acknowledged) == 4
            check_chain(folder, settled=False)
        chains.append(chains.ledger_in(folder), 100, now=chains.NOW + timedelta(days=30))
        wanted = [f"Water the plants {n}" for n in range(2 * len(acknowledged))]
        assert chains.prompts(check_chain(folder)) == [*wanted, "Water the plants 100"]


def test_short_writes(quick_path: Path) -> None:
    """P1: a disk that takes a few bytes at a time gets the same bytes in the end."""

    class Slow(Unsynced):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            return super().write(descriptor, data[:7])

    for name, disk in (("slow", Slow()), ("fast", Unsynced())):
        scenario(quick_path / name, disk, lambda _: None)
        check_chain(quick_path / name)
    assert chains.snapshot_of(quick_path / "slow") == chains.snapshot_of(quick_path / "fast")


def test_write_of_nothing(quick_path: Path) -> None:
    """A device that takes no byte and reports no error is an error, not an endless loop."""

    class Stuck(Disk):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:  # noqa: ARG002
            return 0

    with pytest.raises(OSError, match="No space"):
        chains.append(chains.ledger_in(quick_path / "s", Stuck()), 1)
    chains.append(chains.ledger_in(quick_path / "s"), 1)
    assert len(check_chain(quick_path / "s")) == 2


def test_cut_back_fails_too(folder: Path) -> None:
    """P1: where the write fails and cutting it back fails as well, the torn end is moved aside."""

    class Broken(Disk):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            super().write(descriptor, data[:50])
            raise OSError(errno.EIO, "device")

        def ftruncate(self, descriptor: int, size: int) -> None:  # noqa: ARG002
            raise OSError(errno.EIO, "device")

    chains.append(chains.ledger_in(folder), 1)
    with pytest.raises(OSError, match="device"):
        chains.append(chains.ledger_in(folder, Broken()), 2)
    chains.append(chains.ledger_in(folder), 3)
    events = check_chain(folder)
    assert chains.prompts(events) == ["Water the plants 1", "Water the plants 3"]
    assert len(list((folder / "quarantine").iterdir())) == 1


def test_member_count(quick_path: Path) -> None:
    """A group is one gzip member."""
    chains.append(chains.ledger_in(quick_path / "s"), 1, 2, 3)
    assert len(members((quick_path / "s" / "2026-11.ndjson.gz").read_bytes())) == 1
