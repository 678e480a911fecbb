"""P3: reading a log in shares finds what reading it in one finds, and says it in the same words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from calling import call
from chains import kill
from forging import segments_of, story, write_segments
from tally import chance, count, rounds

from promptyoself.core.settings import load_settings
from promptyoself.service.proof import chain_check
from promptyoself.store.store import Store


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every log is long enough; what is yielded tells, for each, whether it was read in shares."""
    told: list[bool] = []
    in_shares = chain_check.check_in_shares

    def tell(*arguments: Any) -> chain_check.Checked | None:
        found = in_shares(*arguments)
        told.append(found is not None)
        return found

    monkeypatch.setattr(chain_check, "check_in_shares", tell)
    monkeypatch.setattr(chain_check, "SHARED_BYTES", 0)
    monkeypatch.setattr(chain_check, "_cores", lambda: 2)
    return told


def both(var: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[Any, Any]:
    """What verify says, reading in shares and in one."""
    shares = call("verify", *more, "--var", str(var)).document
    with monkeypatch.context() as patch:
        patch.setattr(chain_check, "_cores", lambda: 1)
        return shares, call("verify", *more, "--var", str(var)).document


@pytest.mark.parametrize("together", [1, 3, 100])
def test_a_sound_log(
    quick_path: Path, shared: list[bool], monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """A sound log has the same answer, with a head anywhere on it or on none, read by two."""
    write_segments(quick_path / "var", segments_of(story(), together=together))
    ours, theirs = both(quick_path / "var", monkeypatch)
    assert ours == theirs
    assert ours["valid"]
    assert shared == [True, False]
    heads = [
        f"{event['seq'] - 1}:{event['prev']}"
        for event in call("history", "--var", str(quick_path / "var")).document["events"]
    ]
    for head in [heads[0], *chance("heads").sample(heads[1:], 3), "3:" + "0" * 64]:
        ours, theirs = both(quick_path / "var", monkeypatch, "--head", head)
        assert ours == theirs
        assert (ours["status"] == "error") == head.startswith("3:000")


def test_damage_is_named_alike(
    quick_path: Path, shared: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped bit, a lost line, a lie in a field, wherever it is and whoever reads it: the
    document is that of a reading in one."""
    dice = chance("damage in shares")
    for number in range(rounds(12)):
        events = story()
        together = dice.choice([1, 4, 100])
        if number % 3 == 0:
            event = dice.choice([each for each in events[1:] if each["data"]])
            event["data"][dice.choice(sorted(event["data"]))] = dice.choice([None, 5, "x", [5]])
        segments = segments_of(events, together=together)
        if number % 3 == 1:
            name = dice.choice(sorted(segments))
            content = bytearray(segments[name])
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            segments[name] = bytes(content)
        elif number % 3 == 2:
            del events[dice.randrange(1, len(events))]
            segments = segments_of(events, together=together)
        var = quick_path / str(number)
        write_segments(var, segments)
        ours, theirs = both(var, monkeypatch)
        assert ours == theirs
        count("inputs fuzzed")
    assert shared


def test_a_dead_helper_is_no_harm(
    quick_path: Path, shared: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the other process dies, or can't be started, one process reads all of it."""
    write_segments(quick_path / "var", segments_of(story(), together=3))
    store = Store(load_settings(var=str(quick_path / "var")), {}, warn=print)
    monkeypatch.setattr(chain_check, "_check_share", _die)
    assert chain_check.check_in_shares(store, 0) is None
    assert call("verify", "--var", str(quick_path / "var")).document["valid"]
    assert shared == [False, False]


def _die(*_: object) -> None:
    kill()


def test_a_short_log_is_read_by_one(quick_path: Path) -> None:
    """P8: a second process isn't started for less than it costs."""
    write_segments(quick_path / "var", segments_of(story()))
    store = Store(load_settings(var=str(quick_path / "var")), {}, warn=print)
    before = len(os.listdir("/proc/self/fd"))
    assert chain_check.check_in_shares(store, 0) is None
    assert len(os.listdir("/proc/self/fd")) == before
