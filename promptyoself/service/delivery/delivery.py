"""One delivery: wait until the agent is free, send, follow the run; and what to do in doubt.

The protocol is a generator: it does what it can at once and yields how many seconds it would then
wait, so that waiting costs no thread, and tests no time. It returns an outcome. What it must never
do is send while an earlier copy may still arrive: Letta would take both.

How its agent's runs stand, it may be told by a look that several share; but only by one that was
asked for after whatever it is to tell about. Otherwise it asks by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from threading import Lock

from promptyoself.core.diagnostics import excerpt, masked
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import format_duration
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, Outcome
from promptyoself.targets.api import (
    DeliveryError,
    Found,
    LettaApi,
    Message,
    Run,
    run_failure_is_busy,
    run_failure_is_permanent,
    run_failure_lacks_credits,
)
from promptyoself.targets.letta import RunSnapshot

__all__ = ["Delivery", "DeliverySteps"]

DeliverySteps = Generator[float, None, Outcome]

_CLOCK_MARGIN = timedelta(hours=1)
"""How far Letta's clock may be behind ours when we ask for messages since the claim."""

_LEFTOVER = timedelta(hours=2)
"""A run still active after this is a leftover: a server that was killed never ends its runs."""

_BUSY_PATIENCE = 120.0
"""Seconds that one attempt waits for its agent to be free, before it makes way for a later one."""

_SEND_WINDOW = timedelta(seconds=150)
"""An attempt is sent within this time of its claim, or never: a process that was suspended in
between makes way too. So whoever finds the claim of a dead worker knows how late it can have sent.
"""

_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 10.0

_LONGEST_RETRY_AFTER = 3600.0

_LOOK_KEEPS = 1.0
"""Seconds after its answer in which a look is good for sending: its reader may be held up."""


class Delivery:
    """One claimed slot on its way. Not to be advanced by two threads at once.

    ``slow`` says that it waits for something else than the agent's answer to it; ``heard`` that
    Letta has answered it, until someone sets it back; ``run_id`` is its run, once it is known.
    ``looks`` says that a look at all runs would serve its next step, and ``follows`` that this is
    about its run; ``contradicted`` that a look lacked its run though that was active.
    """

    def __init__(
        self,
        claim: Claim,
        letta: LettaApi,
        clock: Callable[[], datetime],
        *,
        reconcile_grace: float,
        call_timeout: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``reconcile_grace`` is how many seconds without a trace prove that nothing arrived;
        ``call_timeout`` how many a send may take. ``clock`` tells when something was, and
        ``monotonic`` how long something took: setting the clock, or suspending the machine, must
        not make patience run out."""
        self.claim = claim
        self.run_id = claim.run_id
        self.slow = claim.in_doubt
        self.heard = False
        self.looks = not claim.in_doubt
        self.follows = False
        self.contradicted = False
        self._letta = letta
        self._clock = clock
        self._monotonic = monotonic
        self._grace = reconcile_grace
        self._call_timeout = timedelta(seconds=call_timeout)
        self._lock = Lock()  # of the next two: what was withdrawn unsent is never sent
        self._may_have_arrived = claim.in_doubt
        self._withdrawn = False
        self._look: RunSnapshot | None = None
        self._answer = claim.stalled  # what left it in doubt, if that was an answer to its send
        self._not_before = float("-inf")
        self._stalls: list[Stalled] = []
        self._met: set[tuple[str, int | None]] = set()
        self._since = monotonic()  # of what was asked before, nothing holds for us

    @property
    def may_have_arrived(self) -> bool:
        """Whether it may have reached the agent, as far as is known."""
        return self._may_have_arrived

    def withdraw(self) -> bool:
        """See to it that nothing is sent from now on; whether nothing was. From any thread."""
        with self._lock:
            self._withdrawn = True
            return not self._may_have_arrived

    def take_stalls(self) -> list[Stalled]:
        """What it has met on its way since this was last asked: one for each code and HTTP status,
        however often it meets them. Not while it takes a step."""
        stalls, self._stalls = self._stalls, []
        return stalls

    def take(self, look: RunSnapshot) -> bool | None:
        """Let the next step use a look; whether that step will then make no call at all. ``None``:
        it was asked for too early to tell anything about this delivery, and isn't used."""
        if not self.looks or look.asked < self._since:
            return None
        self._look = look
        run = look.runs.get(self.run_id) if self.follows and self.run_id else None
        return run is not None and (run.active or run.status == "completed")

    def steps(self) -> DeliverySteps:
        """The protocol, from where this delivery stands to its outcome."""
        if self.claim.in_doubt:
            latest = self.claim.claimed_at + _SEND_WINDOW + self._call_timeout
            passed = (self._clock() - latest).total_seconds()
            return (yield from self._follow(self._stopwatch(max(passed, 0.0))))
        waited = self._stopwatch()
        while True:
            outcome = yield from self._wait_until_free(waited)
            if outcome is not None:
                return outcome
            self.slow = False
            if self._clock() - self.claim.claimed_at > _SEND_WINDOW:
                return Abandoned("too_slow", "This process was held up after its claim.")
            if not self._begin_to_send():
                return Abandoned("worker_stopped", "The worker was stopped before it was sent.")
            try:
                self.run_id = self._letta.send(self._message())
                self.heard = True
            except DeliveryError as error:
                if error.kind == "doubt":
                    self._doubt(error)
                else:
                    self._may_have_arrived = False
                    if error.kind == "busy" and waited() < _BUSY_PATIENCE:
                        self.slow = self.heard = True
                        self._met_with(error, False, _BUSY_PATIENCE - waited())
                        self._wants_look()
                        yield _pace(waited())
                        continue
                    return self._not_sent(error)
            # Counted from here, not from before the call: until now it may have been on its way.
            sent = self._stopwatch()
            if self.run_id is not None:
                self._wants_look(follows=True)
                yield _SHORTEST_WAIT  # no model answers at once
            elif self._stalls:
                yield _SHORTEST_WAIT  # to be told before anything is asked, which may take long
            return (yield from self._follow(sent))

    def _begin_to_send(self) -> bool:
        with self._lock:
            self._may_have_arrived = not self._withdrawn
            return self._may_have_arrived

    def _wait_until_free(
        self, waited: Callable[[], float]
    ) -> Generator[float, None, Outcome | None]:
        """Step 2: no run of the agent is active. An outcome where there is no use in sending.

        A message that was sent before is looked for first: at a further attempt; and where the
        slot is long past, since the log may have been restored from before it was delivered.
        Runs are asked for before the history: one that ends in between is then in the history.
        """
        claim = self.claim
        late = claim.claimed_at - parse_utc(claim.slot) > _SEND_WINDOW
        while True:
            try:
                active = self._active_runs()
                self.heard = True
                own = next((run for run in active if run.otid == claim.otid), None)
                busy = any(self._is_fresh(run) for run in active)
                if own is None and not busy:
                    found = self._find() if claim.attempt > 1 or late else None
                    return Delivered("history", found.run_id) if found else None
            except DeliveryError as error:
                return self._not_sent(error)
            if own is not None and self._begin_to_send():  # an earlier attempt's, taken for lost
                self.run_id = own.run_id
                return (yield from self._follow(self._stopwatch()))
            self.slow = True
            if waited() >= _BUSY_PATIENCE:
                return Abandoned("letta_busy", "The agent is busy with another run.")
            self._wants_look()
            yield _pace(waited())

    def _follow(self, waited: Callable[[], float]) -> DeliverySteps:
        """Step 4, and in doubt: find out what becomes of it, without sending it again on a guess.

        ``waited`` counts from when it was sent at the latest.
        """
        while True:
            self.slow = self.slow or self.run_id is None or waited() >= _BUSY_PATIENCE
            try:
                outcome = self._find_out(waited())
            except DeliveryError as error:
                outcome = self._unanswered(error, waited())
            if outcome is not None:
                return self._answered(outcome)
            # In doubt it asks by itself; and in the end too, when more than its run is asked for.
            if self.run_id is not None and waited() < (_LEFTOVER / 2).total_seconds():
                self._wants_look(follows=True)
            yield _pace(waited())

    def _find_out(self, waited: float) -> Outcome | None:
        """What has become of it, or ``None`` where that can't be told yet."""
        asked = waited  # before the calls, which may take their time
        run = self._own_run()
        self.heard = True
        if run is not None and run.active and asked < _LEFTOVER.total_seconds():
            return None
        if run is not None and run.status == "completed":
            return Delivered("run", run.run_id)
        found = self._find()
        if run is None:
            if found:
                return Delivered("history", found.run_id)
            return None if asked < self._grace else self._without_trace(asked)
        error = masked(run.error) if run.error else f"The run is {run.status}."
        if found:  # a run can fail after the agent has read the prompt
            return Delivered("history", run.run_id, error)
        if run.active:
            took = format_duration(round(asked))
            return _unknown(f"Its run is still {run.status} after {took}.", run.run_id)
        if run_failure_is_busy(run.error):
            return Abandoned("letta_busy", error)
        if run_failure_is_permanent(run.error):
            return Failed("model_refused", error, permanent=True, run_id=run.run_id)
        if run_failure_lacks_credits(run.error):
            return Abandoned("letta_out_of_credits", f"Out of credits, or of quota. {error}")
        return Abandoned("run_failed", error)

    def _own_run(self) -> Run | None:
        """The run by its id; else, among those that are active, the one that bears our tag."""
        look = self._latest_look()
        if self.run_id is not None:
            if look is not None and self.run_id in look.runs:
                return look.runs[self.run_id]
            try:
                run = self._letta.run(self.run_id)
            except DeliveryError as error:
                if error.code != "run_not_found":
                    raise
                self._met_with(error, True)
                self.run_id = None
            else:
                self.contradicted = look is not None and run.active
                return run
        active = self._letta.active_runs(self.claim.agent_id)
        own = next((run for run in active if run.otid == self.claim.otid), None)
        if own is not None:
            self.run_id = own.run_id
        return own

    def _active_runs(self) -> list[Run]:
        look = self._latest_look()
        if look is not None:
            return look.active.get(self.claim.agent_id, [])
        return self._letta.active_runs(self.claim.agent_id)

    def _wants_look(self, *, follows: bool = False) -> None:
        """From here on a look that is asked for would tell what we want to know."""
        self.looks, self.follows = True, follows
        self._since = self._monotonic()

    def _latest_look(self) -> RunSnapshot | None:
        """The look that was taken for this step, which is then used up."""
        look, self._look = self._look, None
        self.looks = self.follows = False
        fresh = look is not None and self._monotonic() - look.answered <= _LOOK_KEEPS
        return look if fresh else None

    def _unanswered(self, error: DeliveryError, waited: float) -> Outcome | None:
        """Without an answer it stays in doubt, unless there will never be one: a deleted agent
        takes the evidence with it."""
        if error.code != "agent_not_found" and (
            error.kind != "permanent" or waited < _LEFTOVER.total_seconds()
        ):
            self._met_with(error, True)
            return None
        text = f"{error.message} It can't be told any more whether it arrived."
        return _unknown(text, self.run_id)._replace(
            http_status=error.status, detail=self._excerpt(error)
        )

    def _doubt(self, error: DeliveryError) -> None:
        """Its send had an answer that doesn't tell whether it has arrived, or none."""
        self.slow = True
        self._not_before = self._monotonic() + min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER)
        self._answer = self._met_with(error, True, self._grace)

    def _met_with(
        self, error: DeliveryError, in_doubt: bool, makes_way: float | None = None
    ) -> Stalled:
        """Something keeps it from its end, though it goes on; for so many seconds, if that is
        known."""
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
        """The outcome with the answer that its send had got, where that had left it in doubt."""
        answer = self._answer
        if answer is None or outcome.http_status is not None or outcome.detail is not None:
            return outcome
        return outcome._replace(http_status=answer.http_status, detail=answer.detail)

    def _not_sent(self, error: DeliveryError) -> Outcome:
        """What a call means that certainly left nothing with the agent."""
        status, detail = error.status, self._excerpt(error)
        if error.kind == "permanent":
            return Failed(error.code, error.message, True, None, status, detail)
        return Abandoned(
            error.code, error.message, error.retry_after, http_status=status, detail=detail
        )

    def _excerpt(self, error: DeliveryError) -> str | None:
        return excerpt(error.detail, self.claim.text) or None if error.detail else None

    def _find(self) -> Found | None:
        """Our message in all of the agent's history, whichever conversation it was sent into: the
        schedule's may have been changed since. Nor may it have been sent before its slot, or
        after now, though the log says so where the clock has run backwards."""
        claim = self.claim
        since = min(claim.since, parse_utc(claim.slot), self._clock()) - _CLOCK_MARGIN
        return self._letta.find(claim.agent_id, None, claim.otid, since)

    def _is_fresh(self, run: Run) -> bool:
        return run.created_at is None or run.created_at > self._clock() - _LEFTOVER

    def _message(self) -> Message:
        claim = self.claim
        return Message(claim.agent_id, claim.conversation_id, claim.text, claim.otid)

    def _stopwatch(self, head_start: float = 0.0) -> Callable[[], float]:
        started = self._monotonic() - head_start
        return lambda: self._monotonic() - started


def _pace(waited: float) -> float:
    """An eighth of what has been waited already: on average a sixteenth is lost between a run's end
    and its being found, whatever it takes; and soon it is asked for rarely."""
    return min(max(waited / 8, _SHORTEST_WAIT), _LONGEST_WAIT)


def _unknown(error: str, run_id: str | None) -> Failed:
    return Failed("unknown", error, permanent=False, run_id=run_id)
