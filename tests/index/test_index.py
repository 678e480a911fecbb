"""P4: the index is disposable, the chain is not."""

import errno
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import chains
import pytest
from checker import check_chain
from tally import SCALE, chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError
from promptyoself.index.index import Index, Snapshot
from promptyoself.index.schema import decode_root
from promptyoself.ledger import START

pytestmark = pytest.mark.usefixtures("both_chains")


class Case:
    """A chain with its index, and what a full replay says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = chains.three_months(folder)
        self.path = folder / "index.json"
        self.warnings: list[str] = []
        self.truth = self.fresh(folder / "none").load()
        self.save()

    def fresh(self, path: Path | None = None, disk: Disk | None = None) -> Index:
        self.warnings = []
        return chains.index_in(path or self.path, self.ledger, self.warnings.append, disk)

    def save(self) -> bytes:
        index = self.fresh()
        with self.ledger.exclusive():
            index.save(index.load())
        return self.path.read_bytes()

    def written(self, snapshot: Snapshot) -> bytes:
        """The index of a snapshot."""
        index = self.fresh(self.folder / "other.json")
        with self.ledger.exclusive():
            index.save(snapshot)
        content = (self.folder / "other.json").read_bytes()
        (self.folder / "other.json").unlink()
        return content

    def assert_same(self, *, warned: bool) -> Index:
        before = chains.snapshot_of(self.folder)
        index = self.fresh()
        assert index.load() == self.truth
        assert len(self.warnings) == warned, self.warnings
        assert index.is_stale == warned
        assert chains.snapshot_of(self.folder) == before
        return index


@pytest.fixture
def case(quick_path: Path) -> Case:
    return Case(quick_path / "s")


def test_good_index_is_used(case: Case) -> None:
    """P4: an index at the chain's end is used as it is, and nothing is replayed."""
    index = case.assert_same(warned=False)
    case.ledger.replay = lambda *_: iter(())  # type: ignore[method-assign]
    assert index.load() == case.truth
    assert case.fresh().load() == case.truth


def test_index_is_readable(case: Case) -> None:
    """The index is one JSON object that jq can read."""
    body = json.loads(case.path.read_bytes())
    assert body["position"]["seq"] == 7
    assert len(body[chains.chain()]) == 6


def test_deleted(case: Case) -> None:
    """P4: a deleted index is rebuilt, says so, and is written again by the next save."""
    case.path.unlink()
    index = case.assert_same(warned=True)
    index.save(case.truth)
    assert not index.is_stale
    case.assert_same(warned=False)


def test_truncated_at_every_byte(case: Case) -> None:
    """P4: an index cut off at any byte is rebuilt."""
    content = case.path.read_bytes()
    for size in range(0, len(content), 1 if SCALE > 1 else 7):
        case.path.write_bytes(content[:size])
        case.assert_same(warned=True)


def test_every_byte_flipped(case: Case) -> None:
    """P4: an index with any byte changed is rebuilt, even where it is still good JSON."""
    content = case.path.read_bytes()
    dice = chance("bytes of the index")
    for at in range(0, len(content), 1 if SCALE > 1 else 5):
        other = content[at] ^ (1 << dice.randrange(8))
        case.path.write_bytes(content[:at] + bytes([other]) + content[at + 1 :])
        count("bits flipped")
        case.assert_same(warned=True)


def test_noise(case: Case) -> None:
    """P4: an index filled with noise, zeros, other JSON or nothing is rebuilt."""
    dice = chance("noise for an index")
    for content in (
        b"", b"{}", b"[]", b"null", b"\0" * 5000, b'{"sha256":"' + b"0" * 64 + b'",}',
        *(dice.randbytes(dice.randrange(3000)) for _ in range(rounds(30))),
    ):  # fmt: skip
        case.path.write_bytes(content)
        case.assert_same(warned=True)


def test_forged_with_a_checksum(case: Case) -> None:
    """P4: a body of another schema, though its checksum fits, is rebuilt and never an exception."""
    from hashlib import sha256

    body = json.loads(case.path.read_bytes())
    del body["sha256"]
    first, second = (kind.name for kind in chains.schema().table_schemas)
    own: list[dict[str, Any]] = [{"open": [[]]}] if chains.chain() == "schedules" else []
    for change in (
        {"position": None}, {"position": {"seq": 1}}, {first: [{"id": "x"}]}, {first: 5}, *own,
        {second: {"a": 1}}, {second: [[]]}, {"schema": []}, {"superseded": 5}, {"statuses": None},
        {"counts": 7},
    ):  # fmt: skip
        rest = json.dumps({**body, **change}, separators=(",", ":")).encode()[1:]
        case.path.write_bytes(b'{"sha256":"' + sha256(rest).hexdigest().encode() + b'",' + rest)
        case.assert_same(warned=True)


def test_behind(case: Case) -> None:
    """P4: an index that is behind is caught up with, silently, from where it was."""
    batches = list(case.ledger.replay())
    for batch in batches:
        events = [e for b in batches if b.position.seq <= batch.position.seq for e in b.envelopes]
        case.path.write_bytes(
            case.written(
                Snapshot(chains.schema().fold(chains.schema().empty, events), batch.position)
            )
        )
        case.assert_same(warned=False)


def test_of_another_chain(case: Case, quick_path: Path) -> None:
    """P4: the index of another chain, even one of the same length, is not believed."""
    other = chains.ledger_in(quick_path / "other")
    for number, days in enumerate((-78, -77, -48, -47, -17, -16)):
        chains.append(other, number + 1, now=chains.NOW + timedelta(days=days))
    foreign = chains.index_in(quick_path / "other.json", other, lambda _: None)
    with other.exclusive():
        foreign.save(foreign.load())
    case.path.write_bytes((quick_path / "other.json").read_bytes())
    case.assert_same(warned=True)


def test_ahead(case: Case) -> None:
    """P3, P4: an index ahead of the chain isn't believed, and the warning says what was cut off."""
    content = {path.name: path.read_bytes() for path in case.folder.glob("*.gz")}
    chains.append(case.ledger, 77)
    case.save()
    for name, data in content.items():
        (case.folder / name).write_bytes(data)
    index = case.fresh()
    assert index.load() == case.truth
    assert "knew of 8 events, but the log ends at event 7" in case.warnings[0]
    assert not index.is_stale, "nobody who only reads may write over the witness"


def test_older_schema(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: an index that another version wrote is rebuilt."""
    with monkeypatch.context() as patch:
        older = chains.schema()._replace(fingerprint="0123456789abcdef")
        patch.setattr(chains, "schema", lambda: older)
        case.path.write_bytes(case.written(case.truth))
    case.assert_same(warned=True)
    assert "another version" in case.warnings[0]


def test_older_schema_that_knew_less(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: an index of a version that knew fewer events is used, since it bears witness of the log;
    but not if that version left out events that are known here."""
    older, newer = (
        "0123456789abcdef",
        chains.schema()._replace(older=frozenset({"0123456789abcdef"})),
    )
    with monkeypatch.context() as patch:
        patch.setattr(chains, "schema", lambda: newer._replace(fingerprint=older))
        used = case.written(case.truth)
        left_out = case.written(
            case.truth._replace(state=case.truth.state._replace(newer="event 5"))
        )
    monkeypatch.setattr(chains, "schema", lambda: newer)
    case.path.write_bytes(used)
    case.assert_same(warned=False)
    case.path.write_bytes(left_out)
    case.assert_same(warned=True)
    assert "older version" in case.warnings[0]


@pytest.mark.parametrize("index", ["good", "noise", "empty"])
def test_chain_is_gone(case: Case, index: str) -> None:
    """P4: an index without a chain means that the chain was taken away: it isn't new."""
    for path in case.folder.glob("*.gz"):
        path.unlink()
    if index != "good":
        case.path.write_bytes(b"noise" if index == "noise" else b"")
    content = case.path.read_bytes()
    for attempt in (case.fresh().load, case.fresh().rebuild):
        with chains.refused("chain_missing"):
            attempt()
    assert case.path.read_bytes() == content


def test_chain_goes_while_running(case: Case) -> None:
    """P4: a process that has seen the chain doesn't begin a new one where it vanishes, index and
    all."""
    index = case.fresh()
    index.load()
    for path in case.folder.glob("*"):
        path.unlink()
    with chains.refused("chain_missing") as caught:
        index.load()
    assert caught.value.details["events"] == 7


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_chain_goes_while_it_grows(case: Case, how: str) -> None:
    """P4: nor where it vanishes, or loses its end, between an append and the note of it."""
    index = case.fresh()
    snapshot = index.load()
    with case.ledger.exclusive():
        batch = case.ledger.append([chains.draft(99)], chains.NOW, snapshot.position)
        path = max(case.folder.glob("*.gz"))
        content = path.read_bytes()
        if how == "cut":
            path.write_bytes(content[: batch.position.member])
        else:
            for each in case.folder.glob("*.gz"):
                each.unlink()
        index.save(Snapshot(chains.schema().fold(snapshot.state, batch.envelopes), batch.position))
    assert case.ledger.head() != batch.position
    if how == "cut":
        assert index.load().position == case.ledger.head()
        return
    with chains.refused("chain_missing"):
        index.load()


def test_nothing_yet(quick_path: Path) -> None:
    """Before the first event there is nothing to say, to write or to warn of."""
    warnings: list[str] = []
    index = chains.index_in(
        quick_path / "index.json", chains.ledger_in(quick_path), warnings.append
    )
    assert index.load() == Snapshot(chains.schema().empty, START)
    assert not index.is_stale
    assert warnings == []


@pytest.mark.parametrize("index", ["good", "missing", "noise"])
@pytest.mark.parametrize("month", ["2026-09", "2026-10", "2026-11"])
@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_damaged_chain(case: Case, index: str, month: str, damage: str) -> None:
    """P4: a damaged chain is refused wherever its index doesn't vouch for it, never read as empty,
    and never written over."""
    if index == "missing":
        case.path.unlink()
    elif index == "noise":
        case.path.write_bytes(b"noise")
    path = case.folder / f"{month}.ndjson.gz"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[10:])
    elif damage == "bit":
        path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    else:
        path.unlink()
    before = chains.snapshot_of(case.folder)
    fresh = case.fresh()
    if damage == "gone" and month == "2026-11":
        assert fresh.load().position.seq == 5  # only a head kept elsewhere, or the index, can tell
        assert len(case.warnings) == 1
        assert ("cut it off" in case.warnings[0]) == (index == "good")
    elif index == "good" and damage == "bit":
        assert fresh.load() == case.truth  # its own position is sound: `verify` reads the rest
        with pytest.raises(ChainError):
            fresh.rebuild()
    else:
        with chains.refused("corrupt_chain") as caught:
            fresh.load()
        assert caught.value.details["month"] in (month, "2026-10", "2026-11")
    assert chains.snapshot_of(case.folder) == before


def test_unwritable(case: Case) -> None:
    """P4: where the index can't be written, the answers are the same, and a warning says so."""

    def fail() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    before = case.path.read_bytes()
    position = chains.append(case.ledger, 50)
    for at in range(1, 4):
        index = case.fresh(disk=chains.StepDisk(at, "before", fail))
        snapshot = index.load()
        assert snapshot.position == position
        index.save(snapshot)
        assert case.warnings == [
            "The index could not be written (Read-only file system); the log has everything."
        ]
        assert case.path.read_bytes() == before
    assert case.fresh().load().position == position


def test_unreadable(case: Case) -> None:
    """P4: an index that can't be read, being a folder, say, is done without."""
    case.path.unlink()
    case.path.mkdir()
    index = case.assert_same(warned=True)
    index.save(case.truth)
    assert "could not be written" in case.warnings[-1]


def test_follows_the_chain(case: Case) -> None:
    """One Index, used on and on beside other writers, always says what a full replay says (P4)."""
    index, other = case.fresh(), case.fresh()
    for number in range(40, 60):
        (index if number % 3 else other).load()
        chains.append(case.ledger, number, now=chains.NOW + timedelta(days=number))
        with case.ledger.exclusive():
            if number % 2:
                other.save(other.load())
        snapshot = index.load()
        assert snapshot == chains.replayed(case.ledger)
    assert case.warnings == []
    check_chain(case.folder)


def test_chain_cut_while_running(case: Case) -> None:
    """P4: a process that has seen more events than there are now starts over, and says so."""
    index = case.fresh()
    index.load()
    path = case.folder / "2026-11.ndjson.gz"
    path.unlink()
    assert index.load().position.seq == 5
    assert len(case.warnings) == 1


def test_the_root_says_where_it_stands(case: Case) -> None:
    """An index that is small is one file, which has everything."""
    root = decode_root(chains.schema(), case.path.read_bytes())
    assert root.position == case.truth.position
    assert root.tables[0] == dict(chains.schema().tables(case.truth.state)[0].items())
    assert not (case.folder / "index").exists()
