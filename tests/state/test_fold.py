"""P4, P6: the fold gives one answer, however the events reach it, and ids are what they are."""

import copy
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from chains import ACTOR, NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from tally import rounds

from promptyoself.core.errors import ChainError
from promptyoself.core.ids import schedule_id, slot_otid
from promptyoself.core.instants import format_utc
from promptyoself.events import records
from promptyoself.events.codec import is_known, write_event
from promptyoself.events.kinds import FINISHED
from promptyoself.events.schedule_fields import content_of
from promptyoself.events.versions import GAP
from promptyoself.ledger import Envelope
from promptyoself.rules.due import due
from promptyoself.rules.policy import approval_in_log
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY, State, agent_table, schedule_table, slot_key

AGENTS = ("agent-a", "agent-b")


def registration(number: int, life: int | None = None) -> records.ScheduleRegistered:
    return records.ScheduleRegistered(
        agent_id=AGENTS[number % 2],
        prompt=f"prompt {number} ü",
        schedule_type=("once", "cron", "interval")[number % 3],
        schedule_value=(at(99), "5m", "5m")[number % 3],
        timezone="Europe/London",
        next_run=at(number),
        anchor=at(0),
        tier=number % 3,
        misfire="coalesce",
        grace=86400,
        name="n" if number % 2 else None,
        life=life,
        envelope=True if number == 1 else None,
        max_repetitions=3 if number == 2 else None,
    )


def at(minutes: int) -> str:
    return format_utc(NOW + timedelta(minutes=minutes))


def id_of(number: int) -> str:
    return schedule_id(content_of(registration(number)))


@st.composite
def histories(draw: st.DrawFn) -> list[Envelope]:
    """Events in an order in which our writers could have written them."""
    history: list[Envelope] = []
    state = EMPTY
    minute = 0
    for _ in range(draw(st.integers(0, 25))):
        minute += draw(st.sampled_from([0, 1, 7, 1440]))
        number = draw(st.integers(0, 3))
        id_: str | None = id_of(number)
        schedule = state.schedules.get(str(id_))
        mine = sorted(slot.slot for slot in state.open.values() if slot.id == id_)
        options: list[Any] = []
        if schedule is None:
            options.append(registration(number))
        else:
            if schedule.status in ("completed", "cancelled", "failed"):
                options.append(registration(number, schedule.life + 1))
            else:
                options += [
                    records.ScheduleCancelled(draw(st.none() | st.text(max_size=5))),
                    records.SchedulePaused(at(minute + 9)),
                    records.ScheduleResumed(at(minute + 1)),
                    records.ScheduleModified({"tier": 2, "daily_budget": 4}, "why"),
                    records.ScheduleModified({"name": None, "next_run": None, "envelope": True}),
                    records.ScheduleCompleted("until", "completed"),
                    records.ApprovalGranted("apr", "0" * 64, at(minute + 9), 2),
                ]
            if schedule.approval is not None:
                options.append(records.ApprovalRevoked("apr", "why"))
            left = [
                slot for slot in state.open.values()
                if slot.id == id_ and slot.worker and not slot.approved
            ]  # fmt: skip
            if left and approval_in_log(schedule, at(minute)).grant:
                uses = schedule.approval_uses - 1
                options += 3 * [records.ApprovalConsumed("apr", left[0].slot, uses)]
            free = at(minute)
            if free not in mine:
                options += [
                    records.ScheduleTriggered(free),
                    records.DeliverySkipped(
                        free, at(minute + 5), 3, "grace", "scheduled", at(minute + 6)
                    ),
                    _attempt(str(id_), free, 1, at(minute + 5)),
                ]
            if mine:
                slot = draw(st.sampled_from(mine))
                attempt = state.open[slot_key(str(id_), slot)].attempt
                otid = slot_otid(str(id_), slot)
                options += [
                    records.DeliveryDelivered(slot, otid, attempt, "w1", "run", 12, "run-1"),
                    records.DeliveryFailed(
                        slot, otid, attempt, "w1", "gone", "404", True, parked=True
                    ),
                    records.DeliveryFailed(slot, otid, attempt, "w1", "unknown", "?", False),
                    records.DeliveryAbandoned(
                        slot, otid, attempt, "w1", "busy", "409", at(minute + 2)
                    ),
                    records.DeliverySkipped(slot, slot, 1, "budget", "trigger"),
                    _attempt(str(id_), slot, attempt + 1, None),
                ]
        record = draw(st.sampled_from(options))
        if draw(st.integers(0, 9)) == 0:
            slots = state.open.values()
            in_flight = [{"id": slot.id, "slot": slot.slot, "run_id": "r"} for slot in slots]
            record, id_ = records.WorkerStopped("w1", "signal", in_flight or None), None
        version, type_, data = write_event(record)
        if draw(st.integers(0, 19)) == 0:
            type_, version = draw(st.sampled_from([("moon.risen", 1), (type_, 2)]))
        event = Envelope(version, len(history) + 1, at(minute), type_, id_, ACTOR, data, "")
        state = fold(state, [event])
        history.append(event)
    return history


def _attempt(id_: str, slot: str, attempt: int, next_run: str | None) -> records.DeliveryAttempted:
    return records.DeliveryAttempted(
        slot, slot_otid(id_, slot), attempt, "w1", "0" * 64, next_run=next_run
    )


@settings(max_examples=rounds(120), deadline=None)
@given(histories(), st.integers(0, 25))
def test_incremental_is_full(history: list[Envelope], cut: int) -> None:
    """P4: folding on from any point, through the index or not, gives what a full replay gives, and
    leaves the earlier state as it was."""
    full = fold(EMPTY, history)
    early = fold(EMPTY, history[:cut])
    kept = copy.deepcopy(early)
    assert fold(early, history[cut:]) == full
    assert early == kept
    one_by_one = EMPTY
    for event in history:
        one_by_one = fold(one_by_one, [event])
    assert one_by_one == full
    assert State(schedule_table(), {}, agent_table(), {}, {}, {}, {}, {}, {}) == EMPTY


@settings(max_examples=rounds(80), deadline=None)
@given(histories())
def test_counts_agree(history: list[Envelope]) -> None:
    """What the state counts as it goes along is what counting it afresh gives."""
    state = fold(EMPTY, history)
    active = Counter(s.agent_id for s in state.schedules.values() if s.status == "active")
    assert {id_: agent.active for id_, agent in state.agents.items() if agent.active} == active
    assert state.statuses == Counter(s.status for s in state.schedules.values())
    for id_, agent in state.agents.items():
        mine = [s for s in state.schedules.values() if s.agent_id == id_]
        assert agent.schedules == len(mine)
        unfinished = sorted(s.id for s in mine if s.status not in FINISHED)
        assert list(agent.unfinished) == unfinished
    assert state.counts == dict(Counter(event.type for event in history))
    assert (state.newer is None) == all(is_known(e.type, e.v) for e in history)
    assert {slot.id for slot in state.open.values()} <= set(state.schedules)
    for instant, id_, key in due(state, at(10**5)):
        if key:
            assert state.open[key].worker is None
            assert state.open[key].retry_at == instant
        else:
            assert state.schedules[id_].status == "active"
            assert state.schedules[id_].next_run == instant


@settings(max_examples=rounds(80), deadline=None)
@given(histories())
def test_same_content_same_id(history: list[Envelope]) -> None:
    """P6: a registration's content gives its id, in every life, whatever was modified since."""
    state = fold(EMPTY, history)
    for schedule in state.schedules.values():
        assert schedule.id == "sch_" + schedule.registered[:8]


@pytest.mark.parametrize(
    ("type_", "id_", "data"),
    [
        ("delivery.delivered", "sch_00000000", {}),
        ("schedule.cancelled", "sch_00000000", {}),
        ("schedule.registered", "sch_00000000", {"agent_id": 5}),
        ("worker.stopped", None, {"worker": "w", "why": "y", "in_flight": [5]}),
        ("worker.stopped", None, {"worker": "w", "why": "y", "in_flight": 5}),
        ("schedule.cancelled", "sch_00000000", {"reason": "x", "more": 1}),
    ],
)
def test_contradictions(type_: str, id_: str | None, data: dict[str, Any]) -> None:
    """An event that no writer of ours can have written is damage, and is named."""
    event = Envelope(1, 42, at(0), type_, id_, ACTOR, data, "")
    with pytest.raises(ChainError, match=r"Event 42 \(.*\) contradicts those before it"):
        fold(EMPTY, [event])


def event_of(minute: int, record: records.Record) -> Envelope:
    """An event of the schedule number 1, with its minute for its number."""
    version, type_, data = write_event(record)
    return Envelope(version, minute, at(minute), type_, id_of(1), ACTOR, data, "")


@pytest.mark.parametrize(
    ("minute", "triggered", "kind"),
    [
        (1, False, "scheduled"),
        (9, False, "scheduled"),
        (9, True, "scheduled"),
        (1, True, "trigger"),
        (0, False, "trigger"),
    ],
)
def test_a_slot_whose_beginning_is_lost(minute: int, triggered: bool, kind: str) -> None:
    """P2: an attempt tells that its slot had begun in a gap. It was a scheduled slot if it isn't
    before the schedule's next one, nor up to the last one that is known to be triggered."""
    slot, history = at(minute), [event_of(1, registration(1))]
    if triggered:
        history.append(event_of(5, records.ScheduleTriggered(at(5))))
    history.append(Envelope(1, 10, at(10), GAP, None, ACTOR, {}, ""))
    otid = slot_otid(id_of(1), slot)
    lost = records.DeliveryAbandoned(slot, otid, 2, "w1", "busy", "409", at(20))
    state = fold(EMPTY, [*history, event_of(10, lost)])
    schedule, begun = state.schedules[id_of(1)], state.open[slot_key(id_of(1), slot)]
    assert (begun.kind, begun.attempt, begun.retry_at) == (kind, 2, at(20))
    is_scheduled = kind == "scheduled"
    assert schedule.repetition_count == int(is_scheduled)
    assert schedule.last_slot == (slot if is_scheduled else None)
    assert (schedule.id in state.losses.moved) is is_scheduled


@pytest.mark.parametrize(
    ("end", "settled_at"),
    [
        (records.DeliveryDelivered(at(5), "o", 1, "w1", "run", 12), None),
        (records.DeliveryFailed(at(5), "o", 1, "w1", "unknown", "?", False), None),
        (records.DeliverySkipped(at(5), at(5), 1, "grace", "trigger"), at(7)),
    ],
)
def test_what_a_triggered_slot_settles(end: records.Record, settled_at: str | None) -> None:
    """P4: that only a triggered slot that is given up settles its schedule makes no sense. But what
    a written log says doesn't change."""
    triggered = records.ScheduleTriggered(at(5))
    history = [event_of(1, registration(1)), event_of(5, triggered), event_of(7, end)]
    assert fold(EMPTY, history).schedules[id_of(1)].settled_at == settled_at


def test_versions_begin_at_one() -> None:
    """A version of zero isn't known."""
    assert not is_known("schedule.registered", 0)
    assert is_known("schedule.registered", 1)


@pytest.mark.parametrize(
    ("record", "version"),
    [
        (registration(1), 1),
        (registration(1)._replace(tags=["work"]), 2),
        (registration(1)._replace(render="jinja2"), 2),
        (registration(1)._replace(schedule_type="rrule", schedule_value="FREQ=DAILY"), 2),
        (records.ScheduleModified({"name": "n"}), 1),
        (records.ScheduleModified({"tags": None}), 2),
        (records.SchedulePaused(at(3)), 1),
        (records.SchedulePaused(at(3), resume_at=at(9)), 2),
    ],
)
def test_the_lowest_version_is_written(record: records.Record, version: int) -> None:
    """A log that uses nothing new stays one that older software reads; what is new is no event of
    version 1."""
    written, type_, data = write_event(record)
    assert written == version
    history = [event_of(1, registration(1))] * (type_ != "schedule.registered")
    event = Envelope(version, 2, at(2), type_, id_of(1), ACTOR, data, "")
    assert fold(EMPTY, [*history, event]).newer is None
    if version == 2:
        with pytest.raises(ChainError, match="contradicts"):
            fold(EMPTY, [*history, event._replace(v=1)])
    assert fold(EMPTY, [*history, event._replace(v=3)]).newer is not None


def test_what_a_pause_ends() -> None:
    """A schedule forgets when it was to run again, as soon as it does or is cancelled."""
    history = [event_of(1, registration(1)), event_of(2, records.SchedulePaused(resume_at=at(9)))]
    assert fold(EMPTY, history).schedules[id_of(1)].resume_at == at(9)
    for end in (records.ScheduleResumed(at(9)), records.ScheduleCancelled()):
        assert fold(EMPTY, [*history, event_of(3, end)]).schedules[id_of(1)].resume_at is None
