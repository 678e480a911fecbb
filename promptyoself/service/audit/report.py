"""The answer of the audit: sums of verdicts, and the slots that were not delivered."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from promptyoself.core.errors import ChainError, PromptyoselfError, WrongUsage, impossible_event
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.events.codec import is_known
from promptyoself.events.kinds import OUTCOMES, PROBLEMS
from promptyoself.events.versions import GAP
from promptyoself.ledger import START, Envelope
from promptyoself.phrases.moments import read_moment
from promptyoself.service.audit.answer_tally import AnswerTally
from promptyoself.service.audit.audited_log import AuditEnd
from promptyoself.service.audit.log_auditor import LogAuditor
from promptyoself.service.audit.loop_history import Loop
from promptyoself.service.audit.slot_verdicts import SlotVerdict
from promptyoself.service.proof.verify import head_of
from promptyoself.state.fold import NO_LOSSES, Losses
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store, chains

_EVER = datetime(1, 1, 1, tzinfo=UTC)


def audit(
    store: Store,
    *,
    since: str | None = None,
    until: str | None = None,
    agent_id: str | None = None,
    id_: str | None = None,
    now: datetime,
) -> dict[str, Any]:
    """Every slot from ``since`` to ``until`` with its one outcome.

    The answer has totals, for each schedule too, and each range of slots that was not delivered.
    Without ``since`` and ``until``, the window is from the log's beginning to ``now``. The whole
    log is read, whatever the window, since a slot may be decided long after it was due.

    Raises:
        PromptyoselfError: ``slots_unaccounted``, with the whole answer in its details, where a slot
            has no outcome, or two, or was none; ``invalid_time``, ``wrong_usage``,
            ``unknown_id``,
            ``forbidden_agent``.
        ChainError: the log is damaged; ``newer_events`` where it can't be understood.
    """
    wanted = store.require_agent(agent_id)
    if id_ is not None:
        find_schedule(store.snapshot().state, id_)
    store = store.unpinned  # whether a slot was claimed twice, only all events together say
    zone = default_zone(store.settings)
    first = _EVER if since is None else read_moment(since, zone, now)
    last = now if until is None else min(read_moment(until, zone, now, end=True), now)
    if first > last:
        raise WrongUsage(
            "empty_window",
            f"Nothing lies between {format_utc(first)} and {format_utc(last)}.",
            "Give a --since before --until, and before now.",
        )
    # Asked before the log is read: a worker that dies in between has left its events there.
    living = store.workers.living()
    witness, losses = store.witness(), NO_LOSSES.copy()
    auditor = LogAuditor(first, last)
    answers = AnswerTally(format_utc(first), format_utc(last), wanted, id_)
    actors = EventActors()
    totals = AuditTotals(wanted, id_, actors)
    position = START
    try:
        for batch in store.replay():
            for event in batch.folded():
                if event.type == GAP:
                    auditor.begin_gap(event.seq)
                    answers.begin_gap()
                    continue
                _require_known(event)
                if event.type == "ledger.recovered":
                    losses.record(event)
                    auditor.state_gap(event)
                actors.add(event)
                answers.add(event)
                for verdict in auditor.add(event):
                    totals.add(verdict)
            position = batch.position
        end = AuditEnd(now, living, _desires_unreadable(store))
        for verdict in auditor.finish(end):
            totals.add(verdict)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"An event after event {position.seq} can't be audited: {error!r}."
        raise impossible_event(position.seq + 1, problem) from None
    store.require_seen(witness, position.seq, losses.recorded)
    broken = {
        broken_id: problem
        for broken_id, (agent, problem) in auditor.broken.items()
        if wanted in (None, agent) and id_ in (None, broken_id)
    }
    answer = {
        "since": None if since is None else format_utc(first),
        "until": format_utc(last),
        **totals.answer(),
        **answers.answer(),
        **_over_cap(auditor, wanted, store.settings.caps.daily_per_agent),
        "loops": [
            _describe_loop(loop, living)
            for loop in auditor.log.loops.loops.values()
            if loop.started <= format_utc(last)
            and (loop.worker in living or loop.seen >= format_utc(first))
        ],
        **({"broken": broken} if broken else {}),
        **({"recovered": [loss.to_json() for loss in losses.recorded]} if losses.recorded else {}),
        "head": head_of(position),
    }
    bad = sum(answer["totals"][problem] for problem in PROBLEMS)
    if problems := _named_problems(bad, len(broken), len(answers.problems)):
        raise PromptyoselfError(
            "slots_unaccounted",
            f"{'; '.join(problems)}.",
            "`promptyoself history --id ID --slot T` shows what the log has of one of them.",
            **answer,
        )
    message = _all_accounted_for(answer["totals"]) + _answers_sentence(answer)
    return {**answer, "message": message + _loss_sentence(losses)}


def _named_problems(slots: int, broken: int, ends: int) -> list[str]:
    """What breaks a promise, by how many slots, schedules and ends of answers it is about."""
    numbers = (
        (slots, ("slot is", "slots are"), "not accounted for"),
        (broken, ("schedule", "schedules"), "can't be audited"),
        (ends, ("end of an answer or a notice", "ends of answers or notices"), "can't be"),
    )
    return [
        f"{number} {words[number > 1]} {problem}" for number, words, problem in numbers if number
    ]


class EventActors:
    """The actor of every event. There are few different ones, so an event takes eight bytes."""

    def __init__(self) -> None:
        self._numbers = array("I")  # of the events, ascending; some may be lost
        self._which = array("I")  # the place of each event's actor among the different ones
        self._places: dict[bytes, int] = {}  # of each actor, by its JSON
        self._different: list[Mapping[str, Any]] = []

    def add(self, event: Envelope) -> None:
        """Take in the next event."""
        place = self._places.setdefault(orjson.dumps(event.actor), len(self._different))
        if place == len(self._different):
            self._different.append(event.actor)
        self._numbers.append(event.seq)
        self._which.append(place)

    def of(self, seq: int) -> Mapping[str, Any] | None:
        """The actor of an event by its number; ``None`` if there is no such event."""
        index = bisect_left(self._numbers, seq)
        if index == len(self._numbers) or self._numbers[index] != seq:
            return None
        return self._different[self._which[index]]


class AuditTotals:
    """Adds up verdicts, for each schedule and altogether, and keeps those not delivered."""

    def __init__(self, agent_id: str | None, id_: str | None, actors: EventActors) -> None:
        """``agent_id`` leaves out the verdicts on all other agents' slots, and ``id_`` those on all
        other schedules'."""
        self._agent_id, self._id, self._actors = agent_id, id_, actors
        self._sums: dict[tuple[str, str], Counter[str]] = {}  # by schedule and agent
        self._undelivered: list[dict[str, Any]] = []

    def add(self, verdict: SlotVerdict) -> None:
        """Count a verdict."""
        if self._agent_id not in (None, verdict.agent_id) or self._id not in (None, verdict.id):
            return
        if verdict.slots < 0 and not self._withdraw(verdict):
            return
        sums = self._sums.setdefault((verdict.id, verdict.agent_id), Counter())
        sums[verdict.outcome] += verdict.slots
        if verdict.outcome == "skipped":
            sums[f"skipped {verdict.why}"] += verdict.slots
        if verdict.outcome not in ("doubled", "unexpected"):  # those are beside a slot's outcome
            sums["slots"] += verdict.slots
        if verdict.outcome != "delivered" and verdict.slots > 0:
            self._undelivered.append(
                {
                    "id": verdict.id,
                    "agent_id": verdict.agent_id,
                    "slot": format_utc(verdict.first),
                    "last": format_utc(verdict.last),
                    "slots": verdict.slots,
                    "kind": verdict.kind,
                    "outcome": verdict.outcome,
                    "why": verdict.why,
                    "seq": verdict.seq,
                    "by": self._actors.of(verdict.seq),
                }
            )

    def _withdraw(self, verdict: SlotVerdict) -> bool:
        """Remove the line of a verdict that doesn't hold any more. Returns whether it was there."""
        key = (verdict.id, verdict.seq, format_utc(verdict.first), format_utc(verdict.last))
        for number, line in enumerate(self._undelivered):
            if (line["id"], line["seq"], line["slot"], line["last"]) == key:
                del self._undelivered[number]
                return True
        return False

    def answer(self) -> dict[str, Any]:
        """The keys of the answer that have sums and lines."""
        total: Counter[str] = Counter()
        for sums in self._sums.values():
            total.update(sums)
        self._undelivered.sort(key=lambda line: (line["slot"], line["id"], line["seq"]))
        return {
            "totals": _described(total),
            "schedules": [
                {"id": id_, "agent_id": agent_id, **_described(sums)}
                for (id_, agent_id), sums in sorted(self._sums.items())
            ],
            "undelivered": self._undelivered,
        }


def _described(sums: Mapping[str, int]) -> dict[str, Any]:
    reasons = {
        key.removeprefix("skipped "): slots
        for key, slots in sorted(sums.items())
        if key.startswith("skipped ")
    }
    outcomes: dict[str, int] = {
        outcome: sums.get(outcome, 0)
        for outcome in OUTCOMES
        if outcome != "lost" or sums.get(outcome)  # hardly any log has lost slots
    }
    return {"slots": sums.get("slots", 0), **outcomes, "skipped_why": reasons}


def _all_accounted_for(totals: Mapping[str, Any]) -> str:
    if not totals["slots"]:
        return "Every slot is accounted for: there were none."
    counts = [
        f"{totals[outcome]} {outcome.replace('_', ' ')}"
        for outcome in OUTCOMES
        if totals.get(outcome) or outcome in ("delivered", "failed", "skipped")
    ]
    return f"Every slot is accounted for: {', '.join(counts)}."


def _answers_sentence(answer: Mapping[str, Any]) -> str:
    """The sentence about answers and notices, if there are any."""
    text = ""
    for name, counts in ((name, answer.get(name)) for name in ("answers", "notices")):
        if counts:
            parts = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
            text += f" {name.capitalize()}: {parts}."
    return text


def _loss_sentence(losses: Losses) -> str:
    """The sentence about events that were lost. It stays, for their slots can't be found."""
    if not losses.recorded:
        return ""
    events = sum(loss.lost for loss in losses.recorded)
    where = ", ".join(str(loss.event) for loss in losses.recorded[:3])
    return f" What {events} lost events said can't be accounted for (stated by event {where})."


def _over_cap(auditor: LogAuditor, wanted: str | None, cap: int) -> dict[str, Any]:
    """The agents that had more deliveries on a day than the cap of today's settings allows."""
    over_cap = [
        {"agent_id": agent_id, "day": day, "claims": claims, "cap": cap}
        for agent_id, (claims, day) in sorted(auditor.log.busiest.items(), key=str)
        if claims > cap and wanted in (None, agent_id)
    ]
    return {"over_cap": over_cap} if over_cap else {}


def _desires_unreadable(store: Store) -> bool:
    """Whether the log of desires is refused, so that idle prompts have to wait."""
    try:
        for chain in chains(store)[1:]:
            chain.snapshot()
    except (ChainError, OSError):
        return True
    return False


def _require_known(event: Envelope) -> None:
    if not is_known(event.type, event.v):
        raise ChainError(
            "newer_events",
            f"The log was written by a newer promptyoself: event {event.seq} "
            f"({event.type}, version {event.v}) is not understood here.",
            "Upgrade promptyoself, then run `promptyoself audit` again.",
            seq=event.seq,
        )


def _describe_loop(loop: Loop, living: Collection[str]) -> dict[str, Any]:
    alive = loop.worker in living
    ended = "running" if alive else "stopped" if loop.stopped else "killed"
    return {
        "worker": loop.worker,
        "host": loop.host,
        "started": loop.started,
        "last_seen": loop.seen,
        "ended": ended,
    }
