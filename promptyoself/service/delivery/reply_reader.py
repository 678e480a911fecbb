"""The answers that agents give: each is read once its prompt's outcome is in the log.

Reading changes nothing, so it is repeated until an answer is there, or none can be had any more. It
has threads of its own, one of them while deliveries take all seats, so that it is never in the way
of the next slot. What is awaited is in the log. So if a worker dies, another one reads on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import format_duration
from promptyoself.events.kinds import KEEP_REPLY, KeepReply
from promptyoself.events.records import DeliveryReplied, DeliveryUnanswered
from promptyoself.events.target_names import TargetName, default_conversation, recorded_target
from promptyoself.rules.notices.replies import Answer, NoAnswer, reply_event
from promptyoself.service.delivery.job_pool import JobError, JobPool
from promptyoself.service.delivery.route import Route
from promptyoself.state.schedules import AwaitedReply, State, slot_key
from promptyoself.store.store import Store
from promptyoself.targets.api import DeliveryError, Message, Target

REPLY = "reply to "
"""In place of a delivery's key, before a slot's."""

_AT_ONCE, _BESIDE_DELIVERIES = 4, 1
"""How many reads are made at once, and how many while deliveries take all seats."""

_GATHER, _GATHER_BESIDE_DELIVERIES = 0.05, 0.5
"""Seconds after which an answer is recorded at the latest. Those that come meanwhile, and outcomes,
go into the same append."""

_PATIENCE = timedelta(days=7)
"""How long an answer is read for that can't be had yet. So long may a server be away, or a turn
wait for somebody to approve of a tool. After a machine has slept so long, its network may take
some moments, so that the first reads don't count."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 600.0  # seconds

_SOON = 3
"""A worker that only delivers what is due waits for an answer until it has read this often, which
takes about 2 s. Then it ends, and the next worker reads on."""


_REFUSED = "letta_rejected"
"""A question that was refused, perhaps by what stands in between, says nothing of the answer."""


class Read(NamedTuple):
    """What came of reading an answer. Neither: it isn't there yet."""

    answer: Answer | NoAnswer | None = None
    error: str | None = None  # why it could not be read; it is read again


class _Reading:
    """An answer that is awaited here."""

    def __init__(self, awaited: AwaitedReply) -> None:
        self.awaited = awaited
        self.tries = 0  # that are over
        self.error = ""  # of the latest of them

    def pause(self) -> float:
        """In how many seconds it is read again."""
        doubled = min(max(self.tries - 1, 0), 16)
        return float(min(_FIRST_PAUSE * 2**doubled, _LONGEST_PAUSE))


class ReplyReader:
    """The answers that one worker reads. Only one thread may call its methods."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        route_of: Callable[[TargetName], Route],
        pool: JobPool[Any],
    ) -> None:
        """Results come out of ``pool``, under keys that begin with :data:`REPLY`."""
        self.answers: list[tuple[AwaitedReply, Answer | NoAnswer]] = []  # to be recorded
        self._store, self._clock, self._route_of = store, clock, route_of
        self._pool = pool
        self._readings: dict[str, _Reading] = {}  # by slot_key
        self._waiting: list[tuple[float, str]] = []  # those not under way, the first due on top
        self._under_way = 0
        self.record_by = float("inf")  # when answers are to be recorded, by the monotonic clock

    @property
    def busy(self) -> bool:
        """Whether an answer is to be recorded, or is expected within moments."""
        return bool(self.answers) or any(
            reading.tries < _SOON for reading in self._readings.values()
        )

    def most(self, target: TargetName) -> KeepReply:
        """How much may be kept of the answers that a target tells."""
        if not self._route_of(target).target.traits.tells_replies:
            return "none"
        return self._most

    @property
    def _most(self) -> KeepReply:
        most = self._store.settings.keep_reply
        return next(keep for keep in KEEP_REPLY if keep == most)

    def __contains__(self, key: str) -> bool:
        """Whether the answer to a slot, by its :func:`slot_key`, is read here."""
        return key in self._readings

    def follow(self, replies: Iterable[AwaitedReply]) -> None:
        """Read these answers, from now on."""
        now = time.monotonic()
        for awaited in replies:
            key = slot_key(awaited.id, awaited.slot)
            if key not in self._readings:
                self._readings[key] = _Reading(awaited)
                heappush(self._waiting, (now, key))

    def wake(self, *, seats: bool) -> float:
        """When the next read may begin. ``seats`` says whether a seat is free."""
        if not self._waiting or self._under_way >= _most_at_once(seats):
            return float("inf")
        return self._waiting[0][0]

    def seek(self, *, seats: bool) -> None:
        """Begin the reads for which it is time."""
        now = time.monotonic()
        while self.wake(seats=seats) <= now:
            _, key = heappop(self._waiting)
            reading = self._readings[key]
            route = self._route_of(recorded_target(reading.awaited.target))
            hold = route.trouble.seconds_left(now)
            if hold > 0:
                heappush(self._waiting, (now + hold, key))
                continue
            self._under_way += 1
            look = partial(read_reply, route.target, reading.awaited, self._clock)
            self._pool.submit(f"{REPLY}{key}", look, _AT_ONCE)

    def handle(self, key: str, result: Read | JobError, *, beside_deliveries: bool) -> None:
        """Take in a result."""
        key = key.removeprefix(REPLY)
        reading = self._readings.get(key)
        self._under_way -= 1
        if reading is None:
            return
        reading.tries += 1
        if isinstance(result, JobError):
            self._store.seldom.warn(f"reply {key}", f"Reading an answer broke off: {result.text}")
            result = Read(error="A bug broke it off.")
        reading.error = result.error or reading.error
        age = self._clock() - parse_utc(reading.awaited.delivered_at)
        answer = result.answer
        if answer is None and age > _PATIENCE and reading.tries >= _SOON:
            answer = NoAnswer("reply_not_had", _gave_up(reading.error))
        if answer is None:
            heappush(self._waiting, (time.monotonic() + reading.pause(), key))
            return
        del self._readings[key]
        self.answers.append((reading.awaited, answer))
        pause = _GATHER_BESIDE_DELIVERIES if beside_deliveries else _GATHER
        self.record_by = min(self.record_by, time.monotonic() + pause)

    def recorded(self) -> None:
        """All answers are in the log."""
        self.answers.clear()
        self.record_by = float("inf")

    def records(
        self, state: State, worker: str
    ) -> Iterator[tuple[AwaitedReply, DeliveryReplied | DeliveryUnanswered]]:
        """The events of the answers that are to be recorded."""
        for awaited, answer in self.answers:
            event = reply_event(state, awaited, worker, answer, self._most)
            if event is not None:
                yield awaited, event


def read_reply(target: Target, awaited: AwaitedReply, clock: Callable[[], datetime]) -> Read:
    """Ask a target for an answer, once."""
    since = min(parse_utc(awaited.since), parse_utc(awaited.slot), clock())
    conversation = awaited.conversation_id or default_conversation(target.traits.name)
    message = Message(awaited.agent_id, conversation, "", awaited.otid, tried=True)
    try:
        reply = target.reply(message, since - target.traits.clock_margin, awaited.run_id)
    except DeliveryError as error:
        if error.kind == "permanent" and error.code != _REFUSED:
            return Read(NoAnswer(error.code, error.message))
        return Read(error=error.message)
    if reply is None:
        return Read()
    if reply.text is None:
        return Read(NoAnswer("no_answer", "The agent's turn ended without an answer.", reply.tools))
    return Read(Answer(reply.text, reply.tools, reply.date))


def line_of_reply(
    awaited: AwaitedReply, record: DeliveryReplied | DeliveryUnanswered
) -> dict[str, Any]:
    """The line about an answer that ``execute`` prints. It hasn't got the answer itself."""
    line: dict[str, Any] = {"id": awaited.id, "agent_id": awaited.agent_id, "slot": awaited.slot}
    if isinstance(record, DeliveryReplied):
        return line | {"replied": True, "kept": record.kept, "bytes": record.bytes}
    return line | {"replied": False, "code": record.code, "error": record.error}


def _most_at_once(seats: bool) -> int:
    return _AT_ONCE if seats else _BESIDE_DELIVERIES


def _gave_up(error: str) -> str:
    patience = format_duration(int(_PATIENCE.total_seconds()))
    if error:
        return f"It could not be read for {patience}: {error}"
    return f"The agent's turn wasn't over after {patience}."
