"""One delivery: wait until the agent is free, send, follow the run; and what to do in doubt.

The protocol is a generator. It does what it can at once and then yields a :class:`Wait`, so that
waiting costs no thread, and tests no time. It returns an outcome. It never sends while an earlier
copy may still arrive, since Letta would take both.

A delivery needs to know how its agent's runs stand. A snapshot of all runs, which several share,
can tell it, if that was asked for after the event that the delivery wants to know about. Otherwise
the delivery asks Letta by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import Literal, NamedTuple

from promptyoself.core.diagnostics import excerpt, redact_secrets
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import format_duration
from promptyoself.events.kinds import TurnEnd
from promptyoself.events.target_names import NEW
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, Outcome
from promptyoself.service.delivery.job_pool import JobError
from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Found, Message, Run, Target
from promptyoself.targets.run_snapshot import RunSnapshot


class Wait(NamedTuple):
    """A delivery waits, and then takes its next step."""

    seconds: float
    holds_seat: bool  # it waits for its agent's answer; in other waits it leaves its seat
    wants: Literal["agent", "run"] | None = None
    """What a snapshot could tell its next step: whether its agent is free, or how its run stands.
    """


class Step(NamedTuple):
    """What a step of a delivery has led to."""

    then: Wait | Outcome | JobError
    heard: bool  # Letta has answered it during the step
    stalls: Sequence[Stalled]  # what it has met, once per code and HTTP status in all its steps
    contradicts: bool  # a snapshot lacked its run, though that was active


_GONE = frozenset({"agent_not_found", "conversation_not_found"})
"""Codes that say that the history is gone, in which the message would be."""

_LEFTOVER = timedelta(hours=2)
"""A run still active after this is a leftover: a server that was killed never ends its runs."""

_BUSY_PATIENCE = 120.0
"""Seconds that one attempt waits for its agent to be free, before it makes way for a later one."""

_SEND_WINDOW = timedelta(seconds=150)
"""An attempt is sent within this time of its claim, or never, even if its process was suspended in
between. So another worker that finds the claim of a dead one knows how late it can have been sent.
"""

_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 10.0

_ASKED, _TOLD = 8, 32  # see `_pace`: where a look asks the target, and where it was told before

_LONGEST_RETRY_AFTER = 3600.0

_SNAPSHOT_KEEPS = 1.0
"""Seconds after its answer in which a snapshot is good for sending: its reader may be held up."""


class Delivery:
    """One claimed slot on its way. Not to be advanced by two threads at once."""

    def __init__(
        self,
        claim: Claim,
        target: Target,
        clock: Callable[[], datetime],
        *,
        reconcile_grace: float,
        call_timeout: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``reconcile_grace`` seconds without a trace prove that nothing arrived. A send may take
        ``call_timeout`` seconds. ``clock`` tells when something was, and ``monotonic`` how long
        something took: setting the clock must not make patience run out.
        """
        self.claim = claim
        self.run_id = claim.run_id  # once it is known
        self._conversation_id: str | None = None  # of the one that was made for it, once known
        is_late = claim.claimed_at - parse_utc(claim.slot) > _SEND_WINDOW
        self._message = Message(
            claim.agent_id,
            claim.conversation,
            claim.text,
            claim.otid,
            claim.title,
            tried=claim.in_doubt or claim.attempt > 1 or is_late,
        )
        self.wait = Wait(0.0, not claim.in_doubt, None if claim.in_doubt else "agent")
        self._target = target
        self._clock = clock
        self._monotonic = monotonic
        self._grace = reconcile_grace
        self._call_timeout = timedelta(seconds=call_timeout)
        self._lock = Lock()  # of the next two: what was withdrawn unsent is never sent
        self.may_have_arrived = claim.in_doubt  # as far as is known
        self._withdrawn = False
        self._holds_seat = not claim.in_doubt
        self._heard = False
        self._contradicts = False
        self._snapshot: RunSnapshot | None = None  # for the next step
        self._answer = claim.stalled  # what left it in doubt, if that was an answer to its send
        self._not_before = float("-inf")
        self._stalls: list[Stalled] = []
        self._met: set[tuple[str, int | None]] = set()
        self._since = monotonic()  # a snapshot that was asked for earlier tells nothing
        self._protocol = self._run()

    def withdraw(self) -> bool:
        """Send nothing from now on; whether nothing was sent. From any thread."""
        with self._lock:
            self._withdrawn = True
            return not self.may_have_arrived

    def advance(self) -> Step:
        """Take the next step. A bug that ends it is in the answer too."""
        then: Wait | Outcome | JobError
        try:
            then = self.wait = next(self._protocol)
        except StopIteration as stop:
            then = stop.value
        except BaseException as error:  # which must not take other deliveries along
            then = JobError(error)
        step = Step(then, self._heard, self._stalls, self._contradicts)
        self._heard, self._stalls, self._contradicts = False, [], False
        return step

    def use(self, snapshot: RunSnapshot) -> bool | None:
        """Let the next step use a snapshot; whether that step will then make no call at all.

        ``None``: it isn't used, since it was asked for too early to tell this delivery anything.
        """
        if self.wait.wants is None or snapshot.asked < self._since:
            return None
        self._snapshot = snapshot
        follows = self.wait.wants == "run" and self.run_id
        run = snapshot.runs.get(self.run_id or "") if follows else None
        return run is not None and (run.active or run.status == "completed")

    def _run(self) -> _Steps:
        """The protocol, from where this delivery stands to its outcome."""
        if self.claim.in_doubt:
            latest = self.claim.claimed_at + _SEND_WINDOW + self._call_timeout
            passed = (self._clock() - latest).total_seconds()
            return (yield from self._follow(self._stopwatch(max(passed, 0.0))))
        claim = self.claim
        if claim.fault is not None:
            return Failed("template_failed", claim.fault, permanent=True)
        waited = self._stopwatch()
        while True:
            outcome = yield from self._wait_until_free(waited)
            if outcome is not None:
                return outcome
            self._holds_seat = True
            if self._clock() - claim.claimed_at > _SEND_WINDOW:
                return Abandoned("too_slow", "This process was held up after its claim.")
            if not self._begin_to_send():
                return Abandoned("worker_stopped", "The worker was stopped before it was sent.")
            try:
                self.run_id, self._conversation_id = self._target.send(self._message)
                self._heard = True
            except DeliveryError as error:
                if error.kind == "doubt":
                    self._doubt(error)
                else:
                    self.may_have_arrived = False
                    if error.kind == "busy" and waited() < _BUSY_PATIENCE:
                        self._holds_seat, self._heard = False, True
                        self._met_with(error, False, _BUSY_PATIENCE - waited())
                        yield self._wait(_pace(waited()), "agent")
                        continue
                    return self._not_sent(error)
            # Counted from here, not from before the call: until now it may have been on its way.
            sent = self._stopwatch()
            if self.run_id is not None:
                yield self._wait(_SHORTEST_WAIT, "run")  # no model answers at once
            elif self._stalls:
                yield self._wait(_SHORTEST_WAIT)  # so that they are told before a long call
            return (yield from self._follow(sent))

    def _begin_to_send(self) -> bool:
        with self._lock:
            self.may_have_arrived = not self._withdrawn
            return self.may_have_arrived

    def _wait_until_free(
        self, waited: Callable[[], float]
    ) -> Generator[Wait, None, Outcome | None]:
        """Wait until no run of the agent is active. An outcome where there is no use in sending.

        The message may have been sent before: by an earlier attempt; or, where the slot is long
        past, before the log was restored to an older copy. Then it is looked for first. Runs are
        asked for before the history, so that a run that ends in between is in the history.
        """
        claim = self.claim
        while True:
            try:
                active = self._active_runs()
                self._heard = True
                own = next((run for run in active if run.otid == claim.otid), None)
                busy = any(self._is_fresh(run) for run in active)
                if own is None and not busy:
                    sent = self._find() if self._message.tried else None
                    return self._arrived(sent) if sent else None
            except DeliveryError as error:
                if error.code != HISTORY_GAP:
                    return self._not_sent(error)
                # By the log nothing has arrived, unless an earlier attempt has left no trace.
                return _unknown(error.message, None) if claim.untraced else None
            if own is not None and self._begin_to_send():  # an earlier attempt's, taken for lost
                self.run_id = own.run_id
                return (yield from self._follow(self._stopwatch()))
            self._holds_seat = False
            if waited() >= _BUSY_PATIENCE:
                return Abandoned(
                    self._target.traits.busy_code, "The agent is busy with another run."
                )
            yield self._wait(_pace(waited()), "agent")

    def _follow(self, waited: Callable[[], float]) -> _Steps:
        """Find out what becomes of what was sent, or may have been.

        ``waited`` counts from when it was sent at the latest.
        """
        while True:
            if self.run_id is None or waited() >= _BUSY_PATIENCE:
                self._holds_seat = False
            try:
                outcome = self._find_out(waited())
            except DeliveryError as error:
                outcome = self._unanswered(error, waited())
            if outcome is not None:
                return self._answered(outcome)
            # Without a run it asks by itself; and late too, when it asks for more than its run.
            follows = self.run_id is not None and waited() < (_LEFTOVER / 2).total_seconds()
            is_told = self.run_id is not None and self._target.traits.tells_ends
            pause = _pace(waited(), _TOLD if is_told else _ASKED)
            yield self._wait(pause, "run" if follows else None)

    def _find_out(self, waited: float) -> Outcome | None:
        """What has become of it, or ``None`` where that can't be told yet."""
        asked = waited  # before the calls, which may take their time
        run = self._own_run()
        self._heard = True
        is_recent = asked < _LEFTOVER.total_seconds()
        if run is not None and run.active and not run.waits and is_recent:
            return None
        traits = self._target.traits
        if run is not None and run.status == "completed" and traits.run_proves_arrival:
            return Delivered("run", run.run_id, conversation_id=self._made_for_it(run))
        try:
            message = self._find()
        except DeliveryError as error:
            if error.code != HISTORY_GAP:
                raise
            if run is not None and run.status == "completed":
                return Delivered("run", run.run_id, conversation_id=self._made_for_it(run))
            return _unknown(error.message, self.run_id)
        if message:
            return self._arrived(message, run)
        if run is None:
            return None if asked < self._grace else self._without_trace(asked)
        if run.active:
            took = format_duration(round(asked))
            return _unknown(f"Its run is still {run.status} after {took}.", run.run_id)
        code, text, permanent = self._target.failure(run)
        if permanent:
            return Failed(code, text, permanent=True, run_id=run.run_id)
        return Abandoned(code, text)

    def _arrived(self, message: Found, run: Run | None = None) -> Delivered:
        """The message is in the history, whatever became of its run."""
        run_id = message.run_id if run is None else run.run_id
        where = message.conversation_id or self._made_for_it(run)
        turn: TurnEnd | None = None
        error = None
        if run is None:
            if message.answered is False:
                turn, error = "cut_off", "Its turn has ended without an answer."
        elif run.waits:
            turn, error = "waits_for_approval", "Its turn waits for an approval of a tool."
        elif run.status != "completed":  # a run can fail after the agent has read the prompt
            error = redact_secrets(run.error) if run.error else f"The run is {run.status}."
            turn = "cut_off" if run.status == "cancelled" else "failed"
        if self._target.traits.run_proves_arrival:
            turn = None  # where the run is the proof, the log has had its error alone all along
        return Delivered("history", run_id, error, turn=turn, conversation_id=where)

    def _made_for_it(self, run: Run | None) -> str | None:
        """The conversation that was made for the message, if that is known."""
        if self._message.conversation != NEW or self._conversation_id is not None:
            return self._conversation_id
        return run.conversation_id if run else None

    def _own_run(self) -> Run | None:
        """The run by its id; else, among those that are active, the one that bears our tag."""
        snapshot = self._latest_snapshot()
        if self.run_id is not None:
            if snapshot is not None and self.run_id in snapshot.runs:
                return snapshot.runs[self.run_id]
            try:
                run = self._target.run(self.run_id)
            except DeliveryError as error:
                if error.code != "run_not_found":
                    raise
                self._met_with(error, True)
                self.run_id = None
            else:
                self._contradicts = snapshot is not None and run.active
                return run
        active = self._target.active_runs(self._message)
        own = next((run for run in active if run.otid == self.claim.otid), None)
        if own is not None:
            self.run_id = own.run_id
        return own

    def _active_runs(self) -> list[Run]:
        snapshot = self._latest_snapshot()
        if snapshot is not None:
            return snapshot.active.get(self.claim.agent_id, [])
        return self._target.active_runs(self._message)

    def _wait(self, seconds: float, wants: Literal["agent", "run"] | None = None) -> Wait:
        self._since = self._monotonic()
        return Wait(seconds, self._holds_seat, wants)

    def _latest_snapshot(self) -> RunSnapshot | None:
        """The snapshot that was given for this step, if it is still fresh. It is used up then."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None or self._monotonic() - snapshot.answered > _SNAPSHOT_KEEPS:
            return None
        return snapshot

    def _unanswered(self, error: DeliveryError, waited: float) -> Outcome | None:
        """Without an answer it stays in doubt, unless there will never be one.

        There will never be one where the agent, or its conversation, was deleted with its history.
        A target that can't be sure of that says ``retry``, and is asked for two hours.
        """
        is_gone, is_final = error.code in _GONE, error.kind == "permanent"
        is_late = waited >= _LEFTOVER.total_seconds()
        if not ((is_gone and is_final) or ((is_gone or is_final) and is_late)):
            self._met_with(error, True)
            return None
        text = f"{error.message} It can't be told any more whether it arrived."
        return _unknown(text, self.run_id)._replace(
            http_status=error.status, detail=self._excerpt(error)
        )

    def _doubt(self, error: DeliveryError) -> None:
        """Its send had no answer, or one that doesn't tell whether it has arrived."""
        self._holds_seat = False
        self._not_before = self._monotonic() + min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER)
        self._answer = self._met_with(error, True, self._grace)

    def _met_with(
        self, error: DeliveryError, in_doubt: bool, makes_way: float | None = None
    ) -> Stalled:
        """Something keeps it from its end, though it goes on.

        After ``makes_way`` seconds it will make way for a later attempt, if that is known.
        """
        until = None if makes_way is None else self._clock() + timedelta(seconds=makes_way)
        stalled = Stalled(
            error.code, error.message, in_doubt, error.status, self._excerpt(error), until
        )
        if (error.code, error.status) not in self._met:
            self._met.add((error.code, error.status))
            self._stalls.append(stalled)
        return stalled

    def _without_trace(self, waited: float) -> Abandoned:
        """It hasn't arrived. Another attempt follows at once, unless Letta asked for patience."""
        since = "it can have been sent" if self.claim.in_doubt else "it was sent"
        text = f"No trace of it {waited:.0f} s after {since}."
        if self._answer is not None and self._answer.error:
            text += f" The answer to that was: {self._answer.error}"
        left = self._not_before - self._monotonic()
        if left > 0:
            return Abandoned("no_trace", text, left)
        return Abandoned("no_trace", text, at_once=True)

    def _answered(self, outcome: Outcome) -> Outcome:
        """The outcome, with the answer to its send where that answer had left it in doubt."""
        answer = self._answer
        if answer is None or outcome.http_status is not None or outcome.detail is not None:
            return outcome
        return outcome._replace(http_status=answer.http_status, detail=answer.detail)

    def _not_sent(self, error: DeliveryError) -> Outcome:
        """The outcome after a call that certainly left nothing with the agent."""
        status, detail = error.status, self._excerpt(error)
        if error.kind == "permanent":
            return Failed(error.code, error.message, True, None, status, detail)
        return Abandoned(
            error.code, error.message, error.retry_after, http_status=status, detail=detail
        )

    def _excerpt(self, error: DeliveryError) -> str | None:
        return excerpt(error.detail, self.claim.text) or None if error.detail else None

    def _find(self) -> Found | None:
        """Our message in the agent's history.

        It may have been sent into another conversation, since the schedule may have been changed.
        It wasn't sent before its slot, nor after now, though the log may say so where the clock has
        run back.
        """
        claim = self.claim
        since = min(claim.since, parse_utc(claim.slot), self._clock())
        return self._target.find(self._message, since - self._target.traits.clock_margin)

    def _is_fresh(self, run: Run) -> bool:
        return run.created_at is None or run.created_at > self._clock() - _LEFTOVER

    def _stopwatch(self, head_start: float = 0.0) -> Callable[[], float]:
        started = self._monotonic() - head_start
        return lambda: self._monotonic() - started


_Steps = Generator[Wait, None, Outcome]


def _pace(waited: float, part: int = _ASKED) -> float:
    """How many seconds to wait until the next look at a run, after ``waited`` seconds.

    It is an eighth of them. So a sixteenth is lost on average between a run's end and its being
    found, however long the run takes; and a long run is asked for rarely. It is a smaller ``part``
    where a look makes no call.
    """
    return min(max(waited / part, _SHORTEST_WAIT), _LONGEST_WAIT)


def _unknown(error: str, run_id: str | None) -> Failed:
    return Failed("unknown", error, permanent=False, run_id=run_id)
