"""The notices that destinations are owed, sent by one process of all that deliver.

What is owed is in the log, and a notice stays owed until the log says that it was taken or given
up. So each arrives at least once, and has the same id however often it comes. One that was taken
just before its sender died is sent again.

Sending has threads of its own, a few for each destination, so one that hangs holds up nothing but
itself. The thread of the loop decides and records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.ids import notice_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import Destination, digest_time
from promptyoself.core.settings import default_zone
from promptyoself.core.times import zone_named
from promptyoself.events.draft import Draft
from promptyoself.events.records import NoticeFailed, NoticeSent
from promptyoself.rules.notices.digest_time import due_digest, is_of_clock_ahead, next_digest
from promptyoself.rules.notices.sending import (
    Refusal,
    failed_record,
    heads,
    is_held,
    is_too_old,
    is_worth_recording,
    pause_after,
    retry_time,
)
from promptyoself.rules.notices.to_agents import (
    TOO_MANY_SCHEDULES,
    AgentNotices,
    agent_of,
    notice_text,
)
from promptyoself.service.delivery.job_pool import JobError, JobPool
from promptyoself.service.notices.definitions import Definitions
from promptyoself.service.notices.handover import HandedOver, Taken, hand_over
from promptyoself.service.notices.notice import Notice
from promptyoself.service.notices.pauses import Pause, Remains
from promptyoself.state.schedules import OwedNotice, State
from promptyoself.store.store import Store

_THREADS = 4
"""How many notices are sent to one destination at once."""

_ROLE_EVERY = timedelta(seconds=5)
"""Time between two tries to become the one process that sends, where another one is."""


class _Way:
    """One destination, as far as this process knows it."""

    def __init__(self, pool: JobPool[HandedOver], failures: int, held_until: datetime | None):
        self.pool = pool
        self.under_way = 0
        self.failures = failures  # in a row
        self.held_until = held_until

    def has_room(self, now: datetime) -> bool:
        """Whether another notice may be sent. Where the latest was refused, one is tried alone."""
        if is_held(self.held_until, now):
            return False
        return self.under_way < (1 if self.failures else _THREADS)

    def ended(self, owed: OwedNotice, told: HandedOver, now: datetime) -> None:
        """Take in how sending has gone. One that is too old makes others wait the shortest time, so
        that what is given up in the end is given up soon, each after a last try."""
        self.under_way -= 1
        if isinstance(told, Refusal) and not told.permanent:
            self.failures = 1 if is_too_old(owed, now) else self.failures + 1
            self.held_until = now + pause_after(self.failures, told.retry_after)
        else:
            self.failures, self.held_until = 0, None
        if not self.under_way:
            self.pool.close()


class _Sending(NamedTuple):
    """A notice that is being sent, with what was known of it before."""

    owed: OwedNotice
    since: datetime | None = None  # the beginning of the time that a digest tells of


class _News(NamedTuple):
    """What has become of a notice."""

    owed: OwedNotice
    record: NoticeSent | NoticeFailed


class Notifier:
    """Sends what is owed. Only one thread may call its methods."""

    def __init__(self, store: Store, clock: Callable[[], datetime], *, lasts: bool = True) -> None:
        """``lasts`` says that this process goes on. One that doesn't records each failure, since
        only the log can tell the next one how long to wait."""
        self._store, self._clock, self._lasts = store, clock, lasts
        self._definitions = Definitions(store)
        self._role = store.role("notices")
        self._pool: JobPool[HandedOver] = JobPool()  # which the results of all others come out of
        self._ways: dict[str, _Way] = {}  # by destination
        self._sending: dict[str, _Sending] = {}  # by notice: under way, or not recorded yet
        self._results: list[tuple[_Sending, HandedOver]] = []  # to be recorded
        # Failures that the log doesn't have: how often it was tried, and when it is sent again.
        self._tries: dict[str, tuple[int, str]] = {}
        # Failures since a destination was defined otherwise, which count, by destination.
        self._refused_since: dict[str, set[str]] = {}
        self._seen: tuple[State | None, Mapping[str, Destination]] = (None, {})
        self._remains = Remains(None if lasts else store)
        self.next_wake: datetime | None = None
        """When the next call of :meth:`tick` has something to do, as far as the clock decides."""

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """The destinations as they are defined now."""
        return self._definitions.current()

    @property
    def idle(self) -> bool:
        """Whether nothing is being sent or to be recorded."""
        return not self._sending

    def has_news(self) -> bool:
        """Whether something is to be recorded."""
        self._collect(0.0)
        return bool(self._results)

    def has_work(self, state: State, now: datetime) -> bool:
        """Whether something is to be sent now."""
        due = self._due(state, self.destinations, now)
        return any(not is_held(self._remains.pause_of(sending.owed.to)[1], now) for sending in due)

    def tick(self, now: datetime, stamp: object = None) -> list[dict[str, Any]]:
        """Record what was sent, and begin to send what is due, without waiting. Returns a line for
        each notice that was sent, refused or given up. ``stamp`` is the ledger's, where the caller
        has just read it.

        Raises:
            PromptyoselfError, OSError: the log could not be read or written. Results are kept for
                the next call.
        """
        self._collect(0.0)
        self.beat()
        state, destinations = self._store.snapshot(stamp).state, self.destinations
        is_awake = self.next_wake is not None and now >= self.next_wake
        is_known = state is self._seen[0] and destinations is self._seen[1]
        if is_known and not is_awake and not self._results:
            return []
        self.next_wake = None
        if self._seen[0] is not None:
            self._try_again(self._seen[1], destinations)
        self._begin(state, destinations, now)
        self._seen = state, destinations
        lines = self._record(now) if self._results else []
        self._plan(state, destinations, now)
        return lines

    def beat(self) -> None:
        """Show that this process lives, so that no other one sends."""
        self._role.beat(self._clock().timestamp())

    def wait(self, seconds: float) -> None:
        """Sleep until something is to be recorded, at most ``seconds``."""
        if not self._results:
            self._collect(seconds)

    def stop(self, patience: float) -> list[dict[str, Any]]:
        """Begin nothing more, and record what there is. What is being sent gets ``patience``
        seconds. What then isn't known to be taken is sent again by the next process.

        Raises:
            PromptyoselfError, OSError: the log could not be written.
        """
        end = time.monotonic() + patience
        while len(self._results) < len(self._sending) and time.monotonic() < end:
            self._collect(end - time.monotonic())
        return self._record(self._clock()) if self._results else []

    def close(self) -> None:
        """Let another process send, and the threads end."""
        for way in self._ways.values():
            way.pool.close()
        if self._ways and not self._lasts:
            self._leave()
        self._role.give_back()

    # What is to be sent.

    def _try_again(
        self, before: Mapping[str, Destination], destinations: Mapping[str, Destination]
    ) -> None:
        """Let destinations that are defined otherwise than before be tried at once: it may be what
        was wrong with them that has changed."""
        for to in before.keys() | destinations.keys():
            if before.get(to) != destinations.get(to):
                self._refused_since[to] = set()
                if to in self._ways:
                    self._ways[to].held_until = None

    def _known(self, state: State) -> Iterator[OwedNotice]:
        """What is owed, with the failures that only this process knows of."""
        for owed in state.notices.values():
            yield self._with_tries(owed)

    def _with_tries(self, owed: OwedNotice) -> OwedNotice:
        tries, retry_at = self._tries.get(owed.notice, (0, ""))
        if tries <= owed.tries:
            return owed
        return owed._replace(tries=tries, retry_at=retry_at)

    def _digests(
        self, state: State, destinations: Mapping[str, Destination], now: datetime
    ) -> Iterator[_Sending]:
        """The digests that are due."""
        for to, (at, zone) in self._digest_times(destinations):
            last = parse_utc(state.digests[to]) if to in state.digests else None
            was_tried = self._remains.has_tried_digest(to)
            due = due_digest(at, zone_named(zone), last, now, late_first=was_tried)
            if due is not None:
                until = format_utc(due[1])
                name = notice_id(to, "digest", "", until)
                owed = OwedNotice(name, to, "digest", "", "", None, "", until)
                yield _Sending(self._with_tries(self._remains.with_tries(owed)), due[0])

    def _digest_times(
        self, destinations: Mapping[str, Destination]
    ) -> Iterator[tuple[str, tuple[Any, str]]]:
        for to, destination in destinations.items():
            read = digest_time(destination.digest or "")
            if read is not None:
                yield to, (read[0], read[1] or self._own_zone())

    def _waiting(
        self, state: State, destinations: Mapping[str, Destination], now: datetime
    ) -> Iterator[tuple[_Sending, datetime | None]]:
        """What isn't being sent and could be, with the time before which it isn't sent again."""
        blocked = {(sending.owed.to, sending.owed.id) for sending in self._sending.values()}
        candidates = [
            *self._digests(state, destinations, now),
            *(_Sending(owed) for owed in heads(self._known(state))),
        ]
        # One that is refused again and again holds no other up, and neither does a digest.
        for sending in sorted(candidates, key=lambda sending: sending.owed.tries):
            owed = sending.owed
            if (owed.to, owed.id) in blocked:
                continue
            if owed.retry_at is None or owed.notice not in self._refused_since.get(
                owed.to, {owed.notice}
            ):
                yield sending, None
            else:
                yield sending, retry_time(owed.retry_at, now)

    def _due(
        self, state: State, destinations: Mapping[str, Destination], now: datetime
    ) -> Iterator[_Sending]:
        for sending, retry_at in self._waiting(state, destinations, now):
            if retry_at is None or retry_at <= now:
                yield sending

    def _begin(self, state: State, destinations: Mapping[str, Destination], now: datetime) -> None:
        """Send what is due, if this process is the one that sends."""
        due = list(self._due(state, destinations, now))
        if not due:
            return
        if not self._role.take(now.timestamp()):
            self.next_wake = now + _ROLE_EVERY
            return
        for sending in due:
            owed = sending.owed
            way = self._way_to(owed.to, state)
            if not way.has_room(now):
                continue
            way.under_way += 1
            self._sending[owed.notice] = sending
            destination = destinations.get(owed.to)
            if destination is None:
                error = f"No destination of the name {owed.to} is defined."
                self._ended(sending, Refusal("unknown_destination", error))
                continue
            schedule = state.schedules.get(owed.id)
            name = None if schedule is None else schedule.name
            zone = self._zone_of(destination)
            job = partial(
                hand_over, self._store, destination, owed, name, sending.since, zone, self._clock
            )
            try:
                way.pool.submit(owed.notice, job, _THREADS)
            except OSError as error:  # the system has no thread for it
                way.pool = JobPool(self._pool)  # the job stands in the other, and is not to be done
                self._ended(sending, Refusal("destination_unreachable", str(error)))

    def _way_to(self, to: str, state: State) -> _Way:
        way = self._ways.get(to)
        if way is None:
            failures, until = self._remains.pause_of(to)
            refused = any(owed.tries for owed in state.notices.values() if owed.to == to)
            way = self._ways[to] = _Way(JobPool(self._pool), failures or int(refused), until)
        return way

    def _leave(self) -> None:
        """Tell the next pass which destinations took nothing, and how long to let them alone."""
        for to, way in self._ways.items():
            until = way.held_until
            self._remains.note_pause(to, None if until is None else Pause(way.failures, until))
        self._remains.leave()

    def _zone_of(self, destination: Destination) -> str:
        read = digest_time(destination.digest or "")
        return (read and read[1]) or self._own_zone()

    def _own_zone(self) -> str:
        """The zone of digests that name none. A setting of it that is wrong keeps nothing from
        being delivered or told."""
        try:
            return default_zone(self._store.settings)
        except PromptyoselfError as error:
            self._warn_seldom(f"{sentence(error)} Digests without a zone go by UTC.")
            return "UTC"

    def _plan(self, state: State, destinations: Mapping[str, Destination], now: datetime) -> None:
        """Find out when to look again. What is appended or recorded meanwhile is seen anyway."""
        wakes = [] if self.next_wake is None else [self.next_wake]
        for sending, retry_at in self._waiting(state, destinations, now):
            way = self._ways.get(sending.owed.to)
            held = None if way is None else way.held_until
            held = held if is_held(held, now) else None
            times = [instant for instant in (retry_at, held) if instant is not None]
            wakes += [max(times)] if times and max(times) > now else []
        for _, (at, zone) in self._digest_times(destinations):
            wakes.append(next_digest(at, zone_named(zone), now))
        self.next_wake = min(wakes, default=None)

    # What came of it.

    def _collect(self, seconds: float) -> None:
        """Take in the results that are there; wait for the first at most ``seconds``."""
        while (done := self._pool.next_result(seconds)) is not None:
            seconds = 0.0
            name, told = done
            if isinstance(told, JobError):
                self._store.seldom.warn(f"notice {name}", f"A notice broke off: {told.text}")
                told = Refusal("internal_error", "A bug broke it off.")
            self._ended(self._sending[name], told)

    def _ended(self, sending: _Sending, told: HandedOver) -> None:
        self._ways[sending.owed.to].ended(sending.owed, told, self._clock())
        self._results.append((sending, told))

    def _record(self, now: datetime) -> list[dict[str, Any]]:
        """Append what has become of notices. Returns a line for each of which the log tells."""
        results = self._results[:]

        def decide(state: State) -> tuple[list[Draft], list[_News]]:
            to_agents = AgentNotices(state, now, self._store.settings.caps, self._warn_seldom)
            news = [
                _News(owed, self._record_of(to_agents, owed, told, now))
                for (owed, _), told in results
                if _is_owed(state, owed, now)
            ]
            drafts = [
                self._store.draft(record, owed.id or None, owed.agent_id or None)
                for owed, record in news
                if isinstance(record, NoticeSent)
                or not self._lasts
                or is_worth_recording(state.notices.get(owed.notice, owed), record)
            ]
            return [*drafts, *to_agents.drafts], news

        news = self._store.transact(now, decide)
        del self._results[: len(results)]
        for sending, _ in results:
            del self._sending[sending.owed.notice]
            self._tries.pop(sending.owed.notice, None)
        for owed, record in news:
            self._remains.note_record(record)
            refused = self._refused_since.get(owed.to, set())
            refused.discard(owed.notice)
            if isinstance(record, NoticeFailed) and record.retry_at is not None:
                self._tries[owed.notice] = record.tries, record.retry_at
                refused.add(owed.notice)
        return [self._tell_of(owed, record) for owed, record in news]

    def _record_of(
        self, to_agents: AgentNotices, owed: OwedNotice, told: HandedOver, now: datetime
    ) -> NoticeSent | NoticeFailed:
        """What the log says of a notice that was handed over, or that an agent is to have."""
        if isinstance(told, Notice):
            agent_id = agent_of(self.destinations, owed.to) or ""
            reason = f"{owed.kind} for {owed.to}"
            about = owed.id or owed.to
            name = to_agents.register(agent_id, notice_text(told.text), reason, about)
            if name == TOO_MANY_SCHEDULES:
                told = Refusal(name, f"{agent_id} has as many active schedules as are allowed.")
            else:
                told = Taken(None)
        until = owed.at if owed.kind == "digest" else None
        if isinstance(told, Refusal):
            return failed_record(owed, owed.tries + 1, told, now)._replace(until=until)
        about_it = (owed.notice, owed.to, owed.kind, owed.tries + 1)
        return NoticeSent(*about_it, owed.slot, until, told.http_status)

    def _tell_of(self, owed: OwedNotice, record: NoticeSent | NoticeFailed) -> dict[str, Any]:
        """The line of a notice, which hasn't got its words."""
        line: dict[str, Any] = {"notice": owed.notice, "to": owed.to, "kind": owed.kind}
        if owed.id:
            line |= {"id": owed.id, "slot": owed.slot}
        line |= {"agent_id": owed.agent_id or None, "tries": record.tries}
        line["sent"] = isinstance(record, NoticeSent)
        if isinstance(record, NoticeSent):
            self._store.log.record("notice", state="sent", **line)
            return line
        line |= {"code": record.code, "error": record.error}
        if record.retry_at is not None:
            line["retry_at"] = record.retry_at
        end = "It is sent again." if record.retry_at else "It was given up."
        self._store.seldom.warn(
            f"notice {owed.to} {record.code} {end}",
            f"{owed.to} has not taken a notice: {sentence(record.error)} {end}",
        )
        self._store.log.record("notice", state="not_sent", **line)
        return line

    def _warn_seldom(self, message: str) -> None:
        self._store.seldom.warn(message, message)


def _is_owed(state: State, owed: OwedNotice, now: datetime) -> bool:
    """Whether nobody has settled it since."""
    if owed.kind == "digest":
        last = state.digests.get(owed.to, "")
        return last < owed.at or is_of_clock_ahead(parse_utc(last), now)
    return owed.notice in state.notices
