"""What a ledger promises to those who append, read, lock and seal, whichever chain it is."""

import os
import signal
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chains import NOW, append, chain, draft, first_type, ledger_in, prompts, refused
from checker import check_chain
from crashes import in_threads, locked_elsewhere

from promptyoself.events.draft import Draft
from promptyoself.events.records import SegmentSealed
from promptyoself.ledger import GENESIS_HASH, START, Batch, FileLedger, HeadMoved, Position

pytestmark = pytest.mark.usefixtures("both_chains")


def events_of(ledger: FileLedger, after: Position = START) -> list[Any]:
    return [event for batch in ledger.replay(after) for event in batch.envelopes]


def test_empty(folder: Path) -> None:
    """A ledger nobody has written to is empty, and reading it makes nothing."""
    ledger = ledger_in(folder)
    assert ledger.head() == START
    assert list(ledger.replay()) == ledger.months() == []
    assert ledger.holds(START)
    assert ledger.torn() is None
    assert not folder.exists()


def test_first_append_creates_the_ledger(folder: Path) -> None:
    """The first append starts with ledger.created, and the returned batch has it."""
    batch = ledger_in(folder).append([draft(1)], NOW, START)
    assert [event.type for event in batch.envelopes] == ["ledger.created", first_type()]
    assert batch.envelopes[0].data["chain"] == chain()
    assert batch.envelopes[0].prev == GENESIS_HASH
    assert batch.position.seq == 2
    assert prompts(check_chain(folder)) == ["Water the plants 1"]


def test_returned_batch_is_what_replay_gives(folder: Path) -> None:
    """An append returns the very batch, and the very position, that every reader then meets."""
    ledger, position, batches = ledger_in(folder), START, []
    for number in range(5):
        when = NOW + timedelta(days=9 * number)
        batch = ledger.append([draft(number), draft(-number - 1)], when, position)
        position = batch.position
        batches.append(batch)
    assert [(tuple(b.envelopes), b.position) for b in batches] == [
        (tuple(b.envelopes), b.position) for b in ledger_in(folder).replay()
    ]
    check_chain(folder)


def test_replay_after_every_position(folder: Path) -> None:
    """Replay after any batch's position gives exactly what came after it, over months' ends."""
    ledger = ledger_in(folder)
    for number in range(6):
        append(ledger, number, now=NOW + timedelta(days=12 * number))
    batches = list(ledger.replay())
    assert len({batch.position.month for batch in batches}) == 3
    for at, batch in enumerate(batches):
        assert list(ledger.replay(batch.position)) == batches[at + 1 :]
        assert ledger.head(batch.position) == batches[-1].position
        assert ledger.holds(batch.position)


def test_holds_refuses_what_is_elsewhere(folder: Path, tmp_path: Path) -> None:
    """A position of another chain, or with any field changed, isn't held."""
    ledger, other = ledger_in(folder), ledger_in(tmp_path / "other")
    position = append(ledger, 1)
    append(ledger, 2)
    foreign = append(other, 7)
    assert ledger.holds(position)
    assert not ledger.holds(foreign)
    assert not ledger_in(tmp_path / "none").holds(position)
    for field in ("seq", "offset", "member", "earlier"):
        changed = position._replace(**{field: getattr(position, field) + 1})
        assert not ledger.holds(changed), field
    assert not ledger.holds(position._replace(hash="f" * 64))
    assert not ledger.holds(position._replace(ts="2026-11-20T20:30:00.000001Z"))
    assert not ledger.holds(position._replace(month="2026-12"))


def test_expecting(folder: Path) -> None:
    """Appending after anything but the end is refused, and changes nothing."""
    ledger = ledger_in(folder)
    first = append(ledger, 1)
    append(ledger, 2)
    before = check_chain(folder)
    for position in (START, first, first._replace(hash="f" * 64)):
        with pytest.raises(HeadMoved):
            ledger.append([draft(3)], NOW, position)
        with pytest.raises(HeadMoved):
            ledger.append([], NOW, position)
        assert check_chain(folder) == before


def test_stale_writer_recovers(folder: Path) -> None:
    """A writer that was overtaken catches up from where it was, and then succeeds."""
    mine, yours = ledger_in(folder), ledger_in(folder)
    position = append(mine, 1)
    append(yours, 2)
    with pytest.raises(HeadMoved):
        mine.append([draft(3)], NOW, position)
    mine.append([draft(3)], NOW, mine.head(position))
    assert len(prompts(check_chain(folder))) == 3


def test_group_shares_one_time(folder: Path) -> None:
    """All events of one append bear one ts and come back as one batch."""
    ledger = ledger_in(folder)
    append(ledger, *range(50))
    (batch,) = ledger.replay()
    assert len(batch.envelopes) == 51
    assert {event.ts for event in batch.envelopes} == {"2026-11-20T20:30:00.000000Z"}
    check_chain(folder)


def test_group_is_all_or_none(folder: Path) -> None:
    """Where one draft of a group can't be written, none is, and the ledger goes on."""
    ledger = ledger_in(folder)
    position = append(ledger, 1)
    before = check_chain(folder)
    bad = draft(2)._replace(actor={"via": "test", "who": "\ud800"})
    with pytest.raises(TypeError):
        ledger.append([draft(3), bad, draft(4)], NOW, position)
    assert check_chain(folder) == before
    ledger.append([draft(3)], NOW, position)
    assert len(check_chain(folder)) == len(before) + 1


def test_too_large(folder: Path) -> None:
    """More than one append, or one line, can hold is refused with its own code, and changes
    nothing."""
    ledger = ledger_in(folder)
    position = append(ledger, 1)
    before = check_chain(folder)
    for drafts in ([draft(n, "x" * (8 << 20)) for n in range(9)], [draft(2, "x" * (17 << 20))]):
        with refused("event_too_large"):
            ledger.append(drafts, NOW, position)
        assert check_chain(folder) == before


def test_no_drafts(folder: Path) -> None:
    """An append of nothing writes nothing, and returns the position it was given."""
    ledger = ledger_in(folder)
    assert ledger.append([], NOW, START) == Batch([], START, b"")
    position = append(ledger, 1)
    before = check_chain(folder)
    assert ledger.append([], NOW, position) == Batch([], position, b"")
    assert check_chain(folder) == before


def test_clock_running_back(folder: Path) -> None:
    """Where the clock has run back, even by months, ts stays at the last event's."""
    ledger = ledger_in(folder)
    append(ledger, 1, now=NOW)
    append(ledger, 2, now=NOW - timedelta(days=90))
    append(ledger, 3, now=NOW + timedelta(seconds=1))
    ts = [event["ts"] for event in check_chain(folder)]
    assert ts == ["2026-11-20T20:30:00.000000Z"] * 3 + ["2026-11-20T20:30:01.000000Z"]


def test_month_changes(folder: Path) -> None:
    """The chain runs on over months' and years' ends, also where months are left out."""
    ledger = ledger_in(folder)
    for number, days in enumerate((0, 9, 11, 12, 80, 400)):
        append(ledger, number, now=NOW + timedelta(days=days))
    months = {event["ts"][:7] for event in check_chain(folder)}
    assert months == {"2026-11", "2026-12", "2027-02", "2027-12"}
    assert ledger.months() == sorted(months)
    assert len(events_of(ledger)) == 7


def test_any_text_survives(folder: Path) -> None:
    """Newlines, NULs, every plane of Unicode and a megabyte come back as they went in."""
    texts = ["a\nb\r\n", "\0\x1f\x7f\x85\u2028", "\U0001f331ü漢", '\\"', "p" * (1 << 20), ""]
    ledger = ledger_in(folder)
    ledger.append([draft(n, text) for n, text in enumerate(texts)], NOW, START)
    found = prompts([event._asdict() for event in events_of(ledger)])
    assert found == [f"{text} {n}" for n, text in enumerate(texts)]
    assert prompts(check_chain(folder)) == found


def test_replay_sees_what_comes_later(folder: Path) -> None:
    """A replay begun before an append may be finished after it, and neither is disturbed."""
    ledger = ledger_in(folder)
    append(ledger, 1)
    append(ledger, 2)
    replay = ledger.replay()
    first = next(replay)
    append(ledger, 3)
    assert [first, *replay][:2] == list(ledger.replay())[:2]


def test_stamp(folder: Path) -> None:
    """The stamp differs after each append, by whomever, and only then has to."""
    ledger, other = ledger_in(folder), ledger_in(folder)
    stamps = [ledger.stamp()]
    for number in range(4):
        append(other, number, now=NOW + timedelta(days=7 * number))
        stamps.append(ledger.stamp())
        assert ledger.stamp() == stamps[-1]
    assert all(stamps[at] != stamps[at + 1] for at in range(4))


def test_stamp_at(folder: Path) -> None:
    """The stamp at the chain's end is the stamp, as long as nobody appends; anywhere else there
    is none, or one that differs."""
    ledger, other = ledger_in(folder), ledger_in(folder)
    earlier = append(ledger, 1)
    for number in range(3):
        with ledger.exclusive():
            position = append(ledger, number, now=NOW + timedelta(days=20 * number))
            stamp = ledger.stamp_at(position)
        assert stamp == ledger.stamp() == other.stamp_at(position)
        append(other, number + 7, now=NOW + timedelta(days=20 * number))
        assert ledger.stamp() != stamp
    forged = position._replace(hash="f" * 64)
    assert ledger.stamp_at(forged) is other.stamp_at(forged) is None
    gone = earlier._replace(month="2026-10")
    assert ledger.stamp_at(gone) is None


def _seal(ledger: FileLedger, month: str, now: datetime) -> Position:
    with ledger.sealing() as sealing:
        prepared = sealing.prepare(month, now)
        with ledger.exclusive():
            moved = sealing.put_in_place(prepared, ledger.head(), lambda _: None)
            record = SegmentSealed(month, prepared.events, prepared.content_sha256)
            drafts = [Draft(record, None, {"via": "test", "who": "tester"})]
            return ledger.append(drafts, now, moved).position


def test_sealing_changes_no_event(folder: Path) -> None:
    """P1, P3: after sealing every event is where it was in the sequence, from every position
    ever taken, and appending goes on; what was recorded is known."""
    ledger, year = ledger_in(folder), NOW + timedelta(days=365)
    for number in range(12):
        append(ledger, number, now=NOW + timedelta(days=5 * number))
    before = check_chain(folder)
    positions = [START, *(batch.position for batch in ledger.replay())]
    months = ledger.months()
    for done, month in enumerate(months, 1):
        head = _seal(ledger_in(folder), month, year)
        positions.append(head)
        assert ledger.holds(head)
        assert check_chain(folder)[: len(before)] == before
        for position in positions:
            found = [event.seq for event in events_of(ledger, position)]
            assert found == list(range(position.seq + 1, head.seq + 1))
            assert ledger.head(position) == head
        with ledger.sealing() as sealing:
            assert sealing.recorded() == set(months[:done])
    append(ledger, 99, now=year)
    assert len(check_chain(folder)) == len(before) + len(months) + 1


def test_sealing_refuses(folder: Path) -> None:
    """P7: a month without events, or one that isn't over, isn't sealed; nor one to which events
    were added meanwhile, nor anything after a position that isn't the end."""
    ledger = ledger_in(folder)
    append(ledger, 1)
    first = append(ledger, 2, now=NOW + timedelta(days=20))
    later = NOW + timedelta(days=60)
    before = check_chain(folder)
    with ledger.sealing() as sealing:
        for month, now, code in (
            ("2026-10", later, "unknown_month"),
            ("2027-01", later, "unknown_month"),
            ("2026-12", NOW + timedelta(days=20), "month_not_over"),
        ):
            with refused(code):
                sealing.prepare(month, now)
        assert check_chain(folder) == before
        closed = sealing.prepare("2026-11", later)
        end = append(ledger, 3, now=NOW + timedelta(days=21))
        with ledger.exclusive(), pytest.raises(HeadMoved):
            sealing.put_in_place(closed, first, lambda _: None)
        prepared = sealing.prepare("2026-12", later)
        last = append(ledger, 4, now=NOW + timedelta(days=22))
        for position in (end, last):
            with ledger.exclusive(), pytest.raises(HeadMoved):
                sealing.put_in_place(prepared, position, lambda _: None)
    assert ledger.head() == last
    assert len(check_chain(folder)) == len(before) + 2


def test_sealing_excludes_sealers_only(folder: Path) -> None:
    """P5: while one seals no other can begin to, and those who append don't wait for it."""
    ledger = ledger_in(folder)
    append(ledger, 1)

    def attempt() -> None:
        with refused("lock_timeout"), ledger_in(folder).sealing(timeout=0.02):
            pass

    with ledger.sealing():
        in_threads(attempt)
        append(ledger_in(folder, lock_timeout=0.05), 2)
    with ledger_in(folder).sealing(timeout=0):
        pass


def test_exclusive_is_reentrant(folder: Path) -> None:
    """A thread may take the lock again while it holds it, and others get it only at the end."""
    ledger = ledger_in(folder)

    def attempt() -> None:
        with refused("lock_timeout"):
            append(ledger_in(folder, lock_timeout=0.02), 9)

    with ledger.exclusive():
        with ledger.exclusive():
            append(ledger, 1)
        in_threads(attempt)
    append(ledger_in(folder), 2)
    assert len(check_chain(folder)) == 3


def test_exclusive_excludes_threads(folder: Path) -> None:
    """Two threads of one process, sharing one ledger, never hold the lock together (P5)."""
    ledger = ledger_in(folder)
    inside, overlaps = [0], []

    def work(number: int) -> None:
        for at in range(10):
            with ledger.exclusive(), ledger.exclusive():
                inside[0] += 1
                overlaps.append(inside[0])
                append(ledger, 100 * number + at)
                inside[0] -= 1

    in_threads(*(partial(work, number) for number in range(4)))
    assert set(overlaps) == {1}
    assert len(set(prompts(check_chain(folder)))) == 40


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_exclusive_excludes_processes(folder: Path, how: int) -> None:
    """P5: while another process holds the lock one waits, and the error names the holder. Once that
    one is killed, the lock is free."""
    with locked_elsewhere(lambda: ledger_in(folder).exclusive()) as child:
        with refused("lock_timeout") as caught:
            append(ledger_in(folder, lock_timeout=0.05), 1)
        assert f"process {child.pid}" in caught.value.message
        assert "0.05 seconds" in caught.value.message
        with refused("lock_timeout") as caught, ledger_in(folder).exclusive(timeout=0):
            pass
        assert "0 seconds" in caught.value.message
        # Readers never wait.
        assert ledger_in(folder).head() == START
        os.kill(child.pid, how)
        child.join()
    append(ledger_in(folder, lock_timeout=0.5), 1)
    assert len(check_chain(folder)) == 2


def test_lock_released_by_an_error(folder: Path) -> None:
    """An exception under the lock frees it."""
    ledger = ledger_in(folder)
    with pytest.raises(ZeroDivisionError), ledger.exclusive():
        _ = 1 / 0
    append(ledger_in(folder, lock_timeout=0.05), 1)


def test_one_event_by_its_number(folder: Path) -> None:
    """An event is found by its number and month, whatever was appended since; what isn't there
    is nothing."""
    ledger = ledger_in(folder)
    assert ledger.event(1, "2026-11") is None
    position = START
    for number in range(0, 300, 3):
        more = [draft(n, prompt="x" * (n * 37 % 3000)) for n in range(number, number + 3)]
        position = ledger.append(more, NOW, position).position
    events = events_of(ledger)
    again = ledger_in(folder)
    for at in (*range(0, len(events), 7), len(events) - 1, 0, 1):
        assert ledger.event(events[at].seq, events[at].ts[:7]) == events[at]
        assert again.event(events[at].seq, events[at].ts[:7]) == events[at]
    for seq, month in ((0, "2026-11"), (len(events) + 1, "2026-11"), (1, "2026-12")):
        assert ledger.event(seq, month) is None
    assert ledger.event(1, "../schedules/2026-11") is None
