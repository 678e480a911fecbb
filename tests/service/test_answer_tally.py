"""P10: the audit says what became of every answer and every notice, from the log alone."""

from typing import Any

import pytest
from world import World

from promptyoself.core.instants import format_utc
from promptyoself.events.records import DeliveryReplied, NoticeFailed, NoticeSent
from promptyoself.rules.notices.replies import Answer, NoAnswer
from promptyoself.service.audit.answer_tally import AnswerTally

EVER = ("0", "9")


def tally(world: World, *only: str | None, gap_before: int = 0) -> AnswerTally:
    """What is counted of a world's events. With ``gap_before``, those before it are lost."""
    counted = AnswerTally(*EVER, *(only or (None, None)))
    if gap_before:
        counted.begin_gap()
    for event in world.events[gap_before:]:
        counted.add(event)
    return counted


@pytest.fixture
def world() -> World:
    world = World()
    world.keep_reply = "excerpt"
    return world


def delivered(world: World, agent: str = "agent-a", **asked: Any) -> str:
    """A schedule of which a prompt was delivered."""
    id_ = world.register(agent, every="1h", **asked)
    world.advance(hours=1)
    world.deliver()
    return id_


def test_nothing_is_said_where_nothing_is_kept(world: World) -> None:
    world.keep_reply = "none"
    delivered(world)
    assert tally(world).answer() == {}


def test_each_answer_has_one_end(world: World) -> None:
    delivered(world)
    assert tally(world).answer() == {"answers": {"replied": 0, "unanswered": 0, "awaited": 1}}
    world.answer(Answer("Done."))
    world.advance(hours=1)
    world.deliver()
    world.answer(NoAnswer("no_answer", "Nothing."))
    world.advance(hours=1)
    world.deliver()
    assert tally(world).answer() == {"answers": {"replied": 1, "unanswered": 1, "awaited": 1}}


def test_each_notice_has_one_end(world: World) -> None:
    """A try that failed is none."""
    delivered(world, reply_to="me")
    world.answer(Answer("Done."))
    (owed,) = world.state.notices.values()
    about = (owed.notice, "me", "reply")
    assert tally(world).answer()["notices"] == {"sent": 0, "failed": 0, "owed": 1}
    later = format_utc(world.now)
    failed = NoticeFailed(*about, 1, "gone", "", owed.slot, retry_at=later)
    world.add([(failed, owed.id)])
    assert tally(world).answer()["notices"] == {"sent": 0, "failed": 0, "owed": 1}
    world.add([(NoticeSent(*about, 2, owed.slot), owed.id)])
    assert tally(world).answer()["notices"] == {"sent": 1, "failed": 0, "owed": 0}
    digest = NoticeFailed("ntc_2", "me", "digest", 9, "gone", "", until=later)
    world.add([(digest, None)])
    assert tally(world).answer()["notices"] == {"sent": 1, "failed": 1, "owed": 0}
    assert not tally(world).problems


def repeated(world: World, type_: str) -> World:
    """The same, with the last event of a type a second time."""
    event = next(event for event in reversed(world.events) if event.type == type_)
    world.events.append(event._replace(seq=len(world.events) + 1))
    return world


@pytest.mark.parametrize("type_", ["delivery.replied", "notice.sent"])
def test_what_ends_twice_is_found(world: World, type_: str) -> None:
    """No writer of ours writes that: the fold refuses it. The audit doesn't rest on the fold."""
    delivered(world, reply_to="me")
    world.answer(Answer("Done."))
    (owed,) = world.state.notices.values()
    world.add([(NoticeSent(owed.notice, "me", "reply", 1, owed.slot), owed.id)])
    (problem,) = tally(repeated(world, type_)).problems
    assert (problem["type"], problem["what"]) == (type_, "doubled")
    assert problem["seq"] == world.events[-1].seq


def test_an_answer_to_nothing_is_found(world: World) -> None:
    """Behind a gap it is none: what it answers may be lost."""
    world.keep_reply = "none"
    id_ = delivered(world)
    (delivery,) = [event.data for event in world.events if event.type == "delivery.delivered"]
    answer = DeliveryReplied(delivery["slot"], delivery["otid"], "wrk_1", "hash", 5, "0" * 64)
    with pytest.raises(Exception, match="contradicts"):
        world.add([(answer, id_)])
    world.keep_reply = "excerpt"
    world.advance(hours=1)
    world.deliver()
    world.answer(Answer("Done."))
    at = next(n for n, e in enumerate(world.events) if e.data.get("keep_reply"))
    whole = world.events[:]
    del world.events[at]
    (problem,) = tally(world).problems
    assert problem["what"] == "unexpected"
    world.events[:] = whole
    assert not tally(world, None, None, gap_before=at + 1).problems


def test_only_what_was_asked_about_is_counted(world: World) -> None:
    first, second = delivered(world), delivered(world, "agent-b")
    counts = tally(world).answer()["answers"]["awaited"]
    assert counts == tally(world, "agent-a", None).answer()["answers"]["awaited"] + 1
    assert tally(world, None, second).answer()["answers"]["awaited"] == 1
    assert tally(world, "agent-c", None).answer() == {}
    assert tally(world, "agent-b", first).answer() == {}
