"""What happened in a while: deliveries, failures and skips, and what still waits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, cast

from promptyoself.core.errors import WrongUsage, impossible_event
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.text_limits import check_tags
from promptyoself.core.texts import first_line
from promptyoself.ledger import Envelope
from promptyoself.phrases.moments import read_moment
from promptyoself.rules.due import due
from promptyoself.service.schedules import answers
from promptyoself.service.schedules.replies.answers import ReportedReply
from promptyoself.service.schedules.views import excerpt
from promptyoself.state.schedules import OpenSlot, State
from promptyoself.store.store import Store

MAX_LINES = 200
"""How many lines each list of the answer has, unless the caller says another number."""

_ENDS = {
    "delivery.delivered": "delivered",
    "delivery.failed": "failed",
    "delivery.skipped": "skipped",
}
_BESIDE = {
    "delivery.replied": ("answers", "replied"),
    "delivery.unanswered": ("answers", "unanswered"),
    "notice.sent": ("notices", "sent"),
    "notice.failed": ("notices", "failed"),
}
"""What comes after outcomes: what it is counted under, in which group."""

_GROUPS = {"answers": ("replied", "unanswered"), "notices": ("sent", "failed")}
_TOLD = (
    *("why", "code", "error", "detail", "attempt", "run_id", "latency_ms", "kind"),
    *("turn", "conversation_id"),
)


def report(
    store: Store,
    *,
    since: str = "yesterday",
    until: str | None = None,
    agent_id: str | None = None,
    tags: Sequence[str] = (),
    limit: int | None = None,
    now: datetime,
) -> answers.Report:
    """What became of slots from ``since`` to ``until``: how many were delivered, failed and were
    skipped, by agent and by schedule; how many were answered, and what the latest answer was; and
    what still waits or is in doubt now.

    Only schedules are told that have all of ``tags`` now. What counts is when an outcome was
    recorded. Only the months of the log from ``since`` on are read. Each list has ``limit`` lines
    at most, by default :data:`MAX_LINES`.

    Raises:
        PromptyoselfError: ``invalid_time``, ``empty_window``, ``invalid_tag``,
            ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    wanted = store.require_agent(agent_id)
    wanted_tags = frozenset(check_tags(tags))
    zone = default_zone(store.settings)
    first = format_utc(read_moment(since, zone, now))
    end = now if until is None else min(read_moment(until, zone, now, end=True), now)
    last = format_utc(end)
    if first > last:
        raise WrongUsage(
            "empty_window",
            f"Nothing lies between {first} and {last}.",
            "Give a --since before --until, and before now.",
        )
    state = store.read().state
    sums = _Sums(state, wanted_tags, limit or MAX_LINES)
    for owner, event in store.tail(first[:7]).read():
        if event.ts > last:
            break
        if event.ts < first:
            continue
        if event.id is None:
            if wanted is None:
                sums.add_digest(event)
        elif owner is not None and wanted in (None, owner):
            sums.add(event.id, owner, event)
    for waiting in _waiting(state, format_utc(now), wanted):
        if waiting["slot"] <= last:
            sums.add_waiting(waiting)
    return sums.answer(first, last)


def _waiting(state: State, now: str, wanted: str | None) -> Iterator[answers.OpenDelivery]:
    """What is due and has no outcome yet: the slots that have begun, and those that nobody has
    claimed. The latter of one schedule count as one."""
    begun = set()
    for slot in state.open.values():
        if wanted in (None, slot.agent_id):
            begun.add((slot.id, slot.slot))
            yield _open_delivery(state, slot)
    for slot_at, id_, key in due(state, now, wanted):
        if not key and (id_, slot_at) not in begun:
            schedule = state.schedules[id_]
            yield {
                "slot": slot_at,
                "id": id_,
                "agent_id": schedule.agent_id,
                "name": schedule.name,
                "state": "due",
                "attempt": 0,
                "retry_at": None,
                "code": None,
                "error": None,
            }


def _open_delivery(state: State, slot: OpenSlot) -> answers.OpenDelivery:
    schedule = state.schedules.get(slot.id)
    words = "in_doubt" if slot.in_doubt else "claimed" if slot.worker else "waiting"
    return {
        "slot": slot.slot,
        "id": slot.id,
        "agent_id": slot.agent_id,
        "name": None if schedule is None else schedule.name,
        "state": words,
        "attempt": slot.attempt,
        "retry_at": slot.retry_at,
        "code": slot.code,
        "error": slot.error,
    }


class _Sums:
    """Adds up outcomes, for each schedule and agent, and keeps the newest."""

    def __init__(self, state: State, tags: frozenset[str], limit: int) -> None:
        """``tags`` leaves out schedules that haven't all of them."""
        self._state, self._tags, self._limit = state, tags, limit
        self._sums: dict[tuple[str, str], Counter[str]] = {}  # by agent and schedule
        self._errors: dict[tuple[str, str], answers.LastError] = {}  # likewise
        self._replies: dict[tuple[str, str], ReportedReply] = {}  # likewise
        self._digests: Counter[str] = Counter()
        self._outcomes: deque[answers.OutcomeLine] = deque(maxlen=limit)
        self._total = 0  # of the outcomes
        self._open: list[answers.OpenDelivery] = []

    def add(self, id_: str, agent_id: str, event: Envelope) -> None:
        """Take in an event, if it ends a slot, or several, or tells what came of it. Raises
        ``corrupt_chain``."""
        if event.type not in (*_ENDS, *_BESIDE) or not self._has_tags(id_):
            return
        if event.type in _BESIDE:
            self._add_beside(id_, agent_id, event)
            return
        outcome, data = _ENDS[event.type], event.data
        try:
            slot, slots = str(data["slot"]), int(data.get("slots", 1))
            sums = self._sums.setdefault((agent_id, id_), Counter())
            sums[outcome] += slots
            if outcome == "skipped":
                sums[f"skipped {data['why']}"] += slots
            if outcome == "failed":
                self._errors[agent_id, id_] = {
                    "at": event.ts,
                    "slot": slot,
                    "code": data["code"],
                    "error": data["error"],
                }
        except (KeyError, TypeError, ValueError) as error:
            problem = f"Event {event.seq} ({event.type}) can't be read: {error!r}."
            raise impossible_event(event.seq, problem) from None
        self._total += 1
        line: dict[str, Any] = {
            "at": event.ts,
            "slot": slot,
            "id": id_,
            "agent_id": agent_id,
            "name": self._name(id_),
            "outcome": outcome,
        }
        if slots != 1:
            line |= {"last": data.get("last"), "slots": slots}
        line |= {name: data[name] for name in _TOLD if data.get(name) is not None}
        self._outcomes.append(line)  # type: ignore[arg-type]  # keys of `_TOLD`

    def add_digest(self, event: Envelope) -> None:
        """Take in an event that is about no schedule, if it is about a digest."""
        if event.type in _BESIDE and not self._tags:
            self._digests.update(_counted(event))

    def _add_beside(self, id_: str, agent_id: str, event: Envelope) -> None:
        """Take in an answer, or a notice."""
        key, data = (agent_id, id_), event.data
        self._sums.setdefault(key, Counter()).update(_counted(event))
        if event.type != "delivery.replied":
            return
        try:
            reply: ReportedReply = {"at": event.ts, "slot": data["slot"], "bytes": data["bytes"]}
        except KeyError as error:
            problem = f"Event {event.seq} ({event.type}) can't be read: {error!r}."
            raise impossible_event(event.seq, problem) from None
        if data.get("text") is not None:
            reply["text"] = excerpt(first_line(data["text"]))
        self._replies[key] = reply

    def add_waiting(self, waiting: answers.OpenDelivery) -> None:
        """Take in a delivery that has no outcome yet."""
        if not self._has_tags(waiting["id"]):
            return
        self._open.append(waiting)
        sums = self._sums.setdefault((waiting["agent_id"], waiting["id"]), Counter())
        sums["in_doubt" if waiting["state"] == "in_doubt" else "waiting"] += 1

    def _has_tags(self, id_: str) -> bool:
        if not self._tags:
            return True
        schedule = self._state.schedules.get(id_)
        return schedule is not None and self._tags <= set(schedule.tags or ())

    def _name(self, id_: str) -> str | None:
        schedule = self._state.schedules.get(id_)
        return None if schedule is None else schedule.name

    def answer(self, since: str, until: str) -> answers.Report:
        """The whole answer."""
        total = self._digests.copy()
        agents: dict[str, Counter[str]] = {}
        for (agent_id, _), sums in self._sums.items():
            total.update(sums)
            agents.setdefault(agent_id, Counter()).update(sums)
        schedules = sorted(self._sums, key=lambda key: (_trouble(self._sums[key]), key))
        answer: answers.Report = {
            "since": since,
            "until": until,
            "totals": _counts(total),
            "agents": [
                {"agent_id": agent_id, **_counts(sums)}
                for agent_id, sums in islice(sorted(agents.items()), self._limit)
            ],
            "schedules": [self._describe(*key) for key in schedules[: self._limit]],
            "outcomes": list(self._outcomes),
            "open": sorted(self._open, key=lambda slot: (slot["slot"], slot["id"]))[: self._limit],
            "count": len(self._outcomes),
            "message": _message(total, since, until),
        }
        left_out = {
            "agents": len(agents) - self._limit,
            "schedules": len(schedules) - self._limit,
            "outcomes": self._total - self._limit,
            "open": len(self._open) - self._limit,
        }
        if left_out := {name: number for name, number in left_out.items() if number > 0}:
            answer["left_out"] = left_out
        return answer

    def _describe(self, agent_id: str, id_: str) -> answers.ScheduleOutcomes:
        schedule = self._state.schedules.get(id_)
        described: dict[str, Any] = {
            "id": id_,
            "agent_id": agent_id,
            "name": None if schedule is None else schedule.name,
            "prompt": "" if schedule is None else excerpt(schedule.prompt),
            **_counts(self._sums[agent_id, id_]),
            "last_error": self._errors.get((agent_id, id_)),
        }
        if (reply := self._replies.get((agent_id, id_))) is not None:
            described["last_reply"] = reply
        return cast("answers.ScheduleOutcomes", described)


def _counted(event: Envelope) -> Iterator[str]:
    """Under what an answer or a notice is counted, if it is: a notice that is sent again isn't."""
    if event.type != "notice.failed" or event.data.get("retry_at") is None:
        yield " ".join(_BESIDE[event.type])


def _trouble(sums: Mapping[str, int]) -> tuple[int, ...]:
    """What sorts schedules with the most trouble first."""
    return tuple(-sums[name] for name in ("failed", "in_doubt", "waiting", "skipped", "delivered"))


def _counts(sums: Mapping[str, int]) -> answers.OutcomeCounts:
    why = {
        key.removeprefix("skipped "): slots
        for key, slots in sorted(sums.items())
        if key.startswith("skipped ")
    }
    counts: answers.OutcomeCounts = {
        "delivered": sums["delivered"],
        "failed": sums["failed"],
        "skipped": sums["skipped"],
        "skipped_why": why,
        "waiting": sums["waiting"],
        "in_doubt": sums["in_doubt"],
    }
    for group, names in _GROUPS.items():
        counted = {name: sums[f"{group} {name}"] for name in names}
        if any(counted.values()):
            counts[group] = counted  # type: ignore[literal-required]  # keys of `_GROUPS`
    return counts


def _message(total: Mapping[str, int], since: str, until: str) -> str:
    window = f"from {since} to {until}"
    ended = [f"{total[name]:,} {name}" for name in ("delivered", "failed", "skipped")]
    waiting = [
        f"{total[name]:,} {words}"
        for name, words in (("waiting", "still waiting"), ("in_doubt", "in doubt"))
        if total[name]
    ]
    if not any(total[name] for name in ("delivered", "failed", "skipped")):
        message = f"Nothing was delivered {window}, nothing failed, and nothing was skipped."
        verb = "is" if (total["waiting"] or total["in_doubt"]) == 1 else "are"
        return message + (f" There {verb} {' and '.join(waiting)}." if waiting else "")
    return f"{', '.join([*ended, *waiting])}, {window}."
