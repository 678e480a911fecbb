"""Answering for every slot, and saying what changed between two points of the log."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from promptyoself.core.errors import ChainError, PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import parse_moment
from promptyoself.events.codec import is_known
from promptyoself.events.kinds import OUTCOMES, PROBLEMS
from promptyoself.events.versions import GAP
from promptyoself.ledger import START, Envelope
from promptyoself.service.audit.loop_history import Loop
from promptyoself.service.audit.slot_auditor import Accounts, Entry
from promptyoself.service.proof.verify import head_of, recovered
from promptyoself.state.apply import fold
from promptyoself.state.fold import NO_LOSSES, Losses
from promptyoself.state.schedules import EMPTY, Schedule
from promptyoself.store.point import Cutoff, cutoff
from promptyoself.store.store import Store, chains

__all__ = ["audit", "diff"]

_OURS = frozenset(("id", "registered", "told", "retold"))
_EVER = datetime(1, 1, 1, tzinfo=UTC)


def audit(
    store: Store,
    *,
    since: str | None = None,
    until: str | None = None,
    agent_id: str | None = None,
    now: datetime,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Every slot from ``since`` to ``until`` (by default up to ``now``) with its one outcome:
    totals, for each schedule too, and each range of slots that was not delivered.

    Reads the whole log, whatever the window, since a slot may be decided long after it was due.
    ``progress`` is told the number of events read so far.

    Raises:
        PromptyoselfError: ``slots_unaccounted``, with the whole answer in its details, where a slot
            has no outcome, or two, or was none; ``invalid_time``, ``wrong_usage``,
            ``forbidden_agent``.
        ChainError: the log is damaged; ``newer_events`` where it can't be understood.
    """
    wanted = store.require_agent(agent_id)
    store = store.unpinned  # whether a slot was claimed twice, only all events together say
    zone = default_zone(store.settings)
    first = _EVER if since is None else parse_moment(since, zone, now)
    last = now if until is None else min(parse_moment(until, zone, now, end=True), now)
    if first > last:
        raise WrongUsage(
            "empty_window",
            f"Nothing lies between {format_utc(first)} and {format_utc(last)}.",
            "Give a --since before --until, and before now.",
        )
    # Before the log is read: who dies in between has left there what he did.
    living = store.workers.living()
    witness, losses = store.index.witness(), NO_LOSSES.branch()
    accounts = Accounts(first, last)
    callers = _Callers()
    book = _Book(wanted, callers)
    position = START
    try:
        for batch in store.ledger.replay():
            for event in batch.folded():
                if event.type == GAP:
                    accounts.pass_gap(event.seq)
                    continue
                _require_known(event)
                if event.type == "ledger.recovered":
                    losses.record(event)
                    accounts.pass_statement(event)
                callers.take(event)
                for entry in accounts.take(event):
                    book.enter(entry)
            position = batch.position
            if progress is not None:
                progress(position.seq)
        for entry in accounts.finish(now, living, unreadable=_desires_unreadable(store)):
            book.enter(entry)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ChainError(
            "corrupt_chain",
            f"An event after event {position.seq} can't be audited: {error!r}.",
            "No version of promptyoself writes this: run `promptyoself verify`, and compare it "
            "with a backup.",
            seq=position.seq + 1,
        ) from None
    store.require_seen(witness, position.seq, losses.recorded)
    broken = {
        id_: problem for id_, (agent, problem) in accounts.broken.items() if wanted in (None, agent)
    }
    answer = {
        "since": None if since is None else format_utc(first),
        "until": format_utc(last),
        **book.answer(),
        **_over_cap(accounts, wanted, store.settings.caps.daily_per_agent),
        "loops": [
            _describe_loop(loop, living)
            for loop in accounts.presence.loops.values()
            if loop.started <= format_utc(last)
            and (loop.worker in living or loop.seen >= format_utc(first))
        ],
        **({"broken": broken} if broken else {}),
        **recovered(losses.recorded),
        "head": head_of(position)["head"],
    }
    bad = sum(answer["totals"][problem] for problem in PROBLEMS)
    if bad or broken:
        what = []
        if bad:
            what.append(f"{bad} {'slot is' if bad == 1 else 'slots are'} not accounted for")
        if broken:
            several = "schedule" if len(broken) == 1 else "schedules"
            what.append(f"{len(broken)} {several} can't be audited")
        raise PromptyoselfError(
            "slots_unaccounted",
            f"{'; '.join(what)}.",
            "`promptyoself history --id ID --slot T` shows what the log has of one of them.",
            **answer,
        )
    return {**answer, "message": _all_accounted_for(answer["totals"]) + _told_of(losses)}


def _all_accounted_for(totals: Mapping[str, Any]) -> str:
    if not totals["slots"]:
        return "Every slot is accounted for: there were none."
    counts = [
        f"{totals[outcome]} {outcome.replace('_', ' ')}"
        for outcome in OUTCOMES
        if totals.get(outcome) or outcome in ("delivered", "failed", "skipped")
    ]
    return f"Every slot is accounted for: {', '.join(counts)}."


def _told_of(losses: Losses) -> str:
    """What to say of gaps, for ever: what lies in them is in nobody's account."""
    if not losses.recorded:
        return ""
    events = sum(loss.lost for loss in losses.recorded)
    where = ", ".join(str(loss.event) for loss in losses.recorded[:3])
    return f" What {events} lost events said can't be accounted for (stated by event {where})."


def _over_cap(accounts: Accounts, wanted: str | None, cap: int) -> dict[str, Any]:
    """The agents that had more deliveries on a day than the cap allows that is set now."""
    found = [
        {"agent_id": agent_id, "day": day, "claims": claims, "cap": cap}
        for agent_id, (claims, day) in sorted(accounts.busiest.items(), key=str)
        if claims > cap and wanted in (None, agent_id)
    ]
    return {"over_cap": found} if found else {}


def diff(store: Store, *, from_: str, to: str | None, now: datetime) -> dict[str, Any]:
    """What is different at ``to`` (by default now) from what it was at ``from_``, each a time or
    an event's number, and the events that made the difference.

    Raises:
        PromptyoselfError: ``invalid_time``; ``empty_window`` where ``to`` is before ``from_``.
        ChainError: the log is damaged before that point.
    """
    start, end = cutoff(store, from_, now, end=False), cutoff(store, to or format_utc(now), now)
    events = (event for batch in store.unpinned.replay() for event in batch.folded())
    ahead, latest = next(events, None), None
    made: dict[str, list[dict[str, Any]]] = {}

    def up_to(point: Cutoff) -> Iterator[Envelope]:
        nonlocal ahead, latest
        while ahead is not None and point.covers(ahead):
            latest = ahead
            yield ahead
            ahead = next(events, None)

    def noted(stream: Iterator[Envelope]) -> Iterator[Envelope]:
        for event in stream:
            if event.id is not None:
                made.setdefault(event.id, []).append(_in_short(event))
            yield event

    before, reached = fold(EMPTY, up_to(start)), latest
    if reached is not None and not end.covers(reached):
        raise WrongUsage("empty_window", f"--to {to} is before --from {from_}.", "Exchange them.")
    after, passed = fold(before, noted(up_to(end))), latest
    store.mention_newer(after)
    seen = store.seen(after).schedules
    changes = [
        {
            "id": id_,
            "agent_id": after.schedules[id_].agent_id,
            "change": "changed" if id_ in before.schedules else "registered",
            "fields": fields,
            "events": made.get(id_, []),
        }
        for id_ in after.schedules
        if (fields := _differences(before.schedules.get(id_), after.schedules[id_])) and id_ in seen
    ]
    return {
        "from": _where(reached),
        "since": _where(reached),
        "to": _where(passed),
        "changes": changes,
        "count": len(changes),
    }


def _desires_unreadable(store: Store) -> bool:
    """Whether their log is refused, for which idle prompts have to wait."""
    try:
        for chain in chains(store)[1:]:
            chain.index.load()
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


class _Callers:
    """The actor of every event. There are few different ones, so each event costs four bytes."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._actors: list[Mapping[str, Any]] = []
        self._by_seq = array("I")

    def take(self, event: Envelope) -> None:
        number = self._numbers.setdefault(orjson.dumps(event.actor), len(self._actors))
        if number == len(self._actors):
            self._actors.append(event.actor)
        self._by_seq.append(number)

    def of(self, seq: int) -> Mapping[str, Any] | None:
        return self._actors[self._by_seq[seq - 1]] if 1 <= seq <= len(self._by_seq) else None


class _Book:
    """Adds up entries, for each schedule and altogether, and keeps those not delivered."""

    def __init__(self, agent_id: str | None, callers: _Callers) -> None:
        self._agent_id, self._callers = agent_id, callers
        self._sums: dict[tuple[str, str], Counter[str]] = {}
        self._undelivered: list[dict[str, Any]] = []

    def enter(self, entry: Entry) -> None:
        if self._agent_id not in (None, entry.agent_id):
            return
        if entry.slots < 0 and not self._taken_back(entry):
            return
        sums = self._sums.setdefault((entry.id, entry.agent_id), Counter())
        sums[entry.outcome] += entry.slots
        if entry.outcome == "skipped":
            sums[f"skipped {entry.why}"] += entry.slots
        if entry.outcome not in ("doubled", "unexpected"):  # those are beside the slot's outcome
            sums["slots"] += entry.slots
        if entry.outcome != "delivered" and entry.slots > 0:
            self._undelivered.append(
                {
                    "id": entry.id,
                    "agent_id": entry.agent_id,
                    "slot": format_utc(entry.first),
                    "last": format_utc(entry.last),
                    "slots": entry.slots,
                    "kind": entry.kind,
                    "outcome": entry.outcome,
                    "why": entry.why,
                    "seq": entry.seq,
                    "by": self._callers.of(entry.seq),
                }
            )

    def _taken_back(self, entry: Entry) -> bool:
        """Remove the line of an entry that doesn't hold any more; whether there was one."""
        same = (entry.id, entry.seq, format_utc(entry.first), format_utc(entry.last))
        for at, line in enumerate(self._undelivered):
            if (line["id"], line["seq"], line["slot"], line["last"]) == same:
                del self._undelivered[at]
                return True
        return False

    def answer(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        for sums in self._sums.values():
            total.update(sums)
        self._undelivered.sort(key=lambda line: (line["slot"], line["id"], line["seq"]))
        return {
            "totals": _spelled(total),
            "schedules": [
                {"id": id_, "agent_id": agent_id, **_spelled(sums)}
                for (id_, agent_id), sums in sorted(self._sums.items())
            ],
            "undelivered": self._undelivered,
        }


def _spelled(sums: Mapping[str, int]) -> dict[str, Any]:
    reasons = {
        key.removeprefix("skipped "): slots
        for key, slots in sorted(sums.items())
        if key.startswith("skipped ")
    }
    outcomes: dict[str, int] = {
        outcome: sums.get(outcome, 0)
        for outcome in OUTCOMES
        if outcome != "lost" or sums.get(outcome)  # which hardly any log has
    }
    return {"slots": sums.get("slots", 0), **outcomes, "skipped_why": reasons}


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


def _differences(before: Schedule | None, after: Schedule) -> dict[str, Any]:
    """The fields that differ, each with its values before and after."""
    if before is None:
        return {
            name: {"from": None, "to": value}
            for name, value in after._asdict().items()
            if value != after._field_defaults.get(name) and name not in _OURS
        }
    return {
        name: {"from": old, "to": new}
        for name, old, new in zip(Schedule._fields, before, after, strict=True)
        if old != new and name not in _OURS
    }


def _in_short(event: Envelope) -> dict[str, Any]:
    line = {"seq": event.seq, "ts": event.ts, "type": event.type, "by": event.actor}
    reason = event.data.get("reason")
    return line if reason is None else {**line, "reason": reason}


def _where(event: Envelope | None) -> dict[str, Any]:
    return {"seq": 0, "ts": None} if event is None else {"seq": event.seq, "ts": event.ts}
