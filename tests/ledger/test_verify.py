"""P3: what ``verify`` says of a log whose end isn't what it was."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from chains import flip, refused
from damage import store_in

from promptyoself.service.proof.verify import verify
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The month of a log with three prompts registered: four events."""
    store = store_in(tmp_path / "schedules")
    for number in range(3):
        register(store, Request(agent_id="a", prompt=f"prompt {number}", every="1h"), NOW)
    return store.folder / "2026-11.ndjson.gz"


def test_a_sound_log_is_valid(path: Path) -> None:
    """`verify` counts the events and names the head."""
    answer = verify(store_in(path.parent))
    assert (answer["valid"], answer["events"], answer["segments"]) == (True, 4, 1)
    assert answer["head"] == f"4:{answer['hash']}"


@pytest.mark.parametrize("cut", ["in the last event", "at its border", "to nothing"])
def test_the_index_bears_witness_to_a_cut(path: Path, cut: str) -> None:
    """P3: where acknowledged events were cut off, `verify` says so as long as the index is there;
    it never calls that an append that was merely interrupted."""
    store = store_in(path.parent)
    start = store.read().position.member
    size = {"in the last event": path.stat().st_size - 5, "at its border": start, "to nothing": 0}
    path.write_bytes(path.read_bytes()[: size[cut]])
    with refused("events_missing") as caught:
        verify(store_in(path.parent))
    assert "event 4" in caught.value.message


def test_looking_at_a_cut_log_destroys_no_evidence(path: Path) -> None:
    """P3: reading commands leave the index that knows of more events as it is, so that `verify`
    finds the cut after them too; each says on stderr that something is missing."""
    store = store_in(path.parent)
    path.write_bytes(path.read_bytes()[: store.read().position.member])
    for _ in range(2):
        warnings: list[str] = []
        assert store_in(path.parent, warnings=warnings).read().position.seq == 3
        assert len(warnings) == 1
        assert "knew of 4 events" in warnings[0]
    with refused("events_missing"):
        verify(store_in(path.parent))


def test_an_interrupted_append_is_no_error(path: Path) -> None:
    """The beginning of an append after the last event leaves the log valid, and is mentioned."""
    sound = path.read_bytes()
    path.write_bytes(sound + sound[:40])
    answer = verify(store_in(path.parent))
    assert answer["valid"]
    assert answer["torn_tail"] == {
        "month": "2026-11", "offset": len(sound), "size": 40, "cut_short": True,
    }  # fmt: skip


def test_other_bytes_at_the_end_are_an_error(path: Path) -> None:
    """Bytes after the last event that begin no append are `damaged_tail`, which says from where."""
    path.write_bytes(path.read_bytes() + b"\0" * 40)
    with refused("damaged_tail") as caught:
        verify(store_in(path.parent))
    assert "intact up to event 4" in caught.value.message


def test_a_flipped_bit_in_the_last_event_is_found(path: Path) -> None:
    """P3: damage to the last, acknowledged event isn't taken for a crash's remains."""
    flip(path, -12)
    with refused("events_missing"):
        verify(store_in(path.parent))
    path.with_name("index.json").unlink()
    with refused("damaged_tail"):
        verify(store_in(path.parent))


def test_a_kept_head_proves_that_nothing_was_cut_off(path: Path) -> None:
    """P3: against a head kept elsewhere, a cut at a member's border is found without the index."""
    store = store_in(path.parent)
    kept = verify(store)["head"]
    assert verify(store, kept)["contains"] == kept
    start = store.read().position.member
    path.with_name("index.json").unlink()
    path.write_bytes(path.read_bytes()[:start])
    assert verify(store_in(path.parent))["events"] == 3
    with refused("head_not_on_chain"):
        verify(store_in(path.parent), kept)
