"""One delivery: wait until the agent is free, send, follow the run; and what to do in doubt.

The protocol is a generator: it does what it can at once and yields how many seconds it would then
wait, so that waiting costs no thread, and tests no time. It returns an outcome. What it must never
do is send while an earlier copy may still arrive: Letta would take both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta

from promptyoself.letta import (
    Deliverer,
    DeliveryError,
    Found,
    Message,
    Run,
    run_failure_is_busy,
    run_failure_is_permanent,
)
from promptyoself.service.claiming import Abandoned, Claim, Delivered, Failed, Outcome

__all__ = ["Delivery"]

Waits = Generator[float, None, Outcome]

_CLOCK_MARGIN = timedelta(hours=1)
"""How far Letta's clock may be behind ours when we ask for messages since the claim."""

_LEFTOVER = timedelta(hours=2)
"""A run still active after this is a leftover: a server that was killed never ends its runs."""

_BUSY_PATIENCE = timedelta(seconds=120)
"""How long one attempt waits for its agent to be free, before it makes way for a later one."""

_SEND_WINDOW = timedelta(seconds=150)
"""An attempt is sent within this time of its claim, or never: a process that was suspended in
between makes way too. So whoever finds the claim of a dead worker knows how late it can have sent."""

_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 10.0


class Delivery:
    """One claimed slot on its way. Not to be advanced by two threads at once."""

    def __init__(
        self,
        claim: Claim,
        letta: Deliverer,
        clock: Callable[[], datetime],
        *,
        reconcile_grace: float,
        call_timeout: float,
    ) -> None:
        """``reconcile_grace`` is how many seconds without a trace prove that nothing arrived;
        ``call_timeout`` how many a send may take."""
        self.claim = claim
        self.may_have_arrived = claim.in_doubt
        self.run_id = claim.run_id
        self.slow = claim.in_doubt  # waits for something else than the agent's own work
        self._letta = letta
        self._clock = clock
        self._grace = timedelta(seconds=reconcile_grace)
        self._call_timeout = timedelta(seconds=call_timeout)

    def steps(self) -> Waits:
        """The protocol, from where this delivery stands to its outcome."""
        if self.claim.in_doubt:
            latest = self.claim.claimed_at + _SEND_WINDOW + self._call_timeout
            return (yield from self._reconcile(min(latest, self._clock())))
        began = self._clock()
        while True:
            outcome = yield from self._wait_until_free(began)
            if outcome is not None:
                return outcome
            self.slow = False
            sent_at = self._clock()
            if sent_at - self.claim.claimed_at > _SEND_WINDOW:
                return Abandoned("too_slow", "This process was held up after its claim.")
            self.may_have_arrived = True
            try:
                self.run_id = self._letta.send(self._message())
            except DeliveryError as error:
                if error.kind == "doubt":
                    return (yield from self._reconcile(sent_at))
                self.may_have_arrived = False
                if error.kind == "busy" and self._clock() - began < _BUSY_PATIENCE:
                    self.slow = True
                    yield self._pace(began)
                    continue
                return _not_sent(error)
            if self.run_id is None:
                return (yield from self._reconcile(sent_at))
            return (yield from self._follow(self.run_id, sent_at))

    def _wait_until_free(self, began: datetime) -> Generator[float, None, Outcome | None]:
        """Step 2: no run of the agent is active. An outcome only where there is no use in sending."""
        try:
            if self.claim.attempt > 1 and (found := self._find()):
                return Delivered("history", found.run_id)
            while True:
                runs = self._fresh(self._letta.active_runs(self.claim.agent_id))
                own = next((run for run in runs if run.otid == self.claim.otid), None)
                if own is not None:  # an earlier attempt's, which was taken for lost
                    self.may_have_arrived = True
                    return (yield from self._follow(own.run_id, began))
                if not runs:
                    return None
                self.slow = True
                if self._clock() - began >= _BUSY_PATIENCE:
                    return Abandoned("letta_busy", "The agent is busy with another run.")
                yield self._pace(began)
        except DeliveryError as error:
            return _not_sent(error)

    def _follow(self, run_id: str, began: datetime) -> Waits:
        """Step 4: ask after the run until it has ended."""
        self.run_id = run_id
        while True:
            try:
                run = self._letta.run(run_id)
            except DeliveryError as error:
                if error.kind == "permanent":  # the server has lost the run, or our word for it
                    return (yield from self._reconcile(began))
            else:
                if not run.active:
                    outcome = self._after(run)
                    if outcome is not None:
                        return outcome
                elif self._clock() - began >= _LEFTOVER:
                    return self._leftover(run)
            if self._clock() - began >= _BUSY_PATIENCE:
                self.slow = True
            yield self._pace(began)

    def _after(self, run: Run) -> Outcome | None:
        """What an ended run means; ``None`` while the history can't be asked."""
        if run.status == "completed":
            return Delivered("run", run.run_id)
        error = run.error or f"The run is {run.status}."
        try:
            # A run can fail after the agent has read the prompt.
            if self._find():
                return Delivered("history", run.run_id, error)
        except DeliveryError as failure:
            return _evidence_gone(failure, run.run_id)
        if run_failure_is_busy(run.error):
            return Abandoned("letta_busy", error)
        if run_failure_is_permanent(run.error):
            return Failed("model_refused", error, permanent=True, run_id=run.run_id)
        return Abandoned("run_failed", error)

    def _leftover(self, run: Run) -> Outcome:
        try:
            if found := self._find():
                return Delivered("history", found.run_id, f"The run is still {run.status}.")
        except DeliveryError:
            pass
        return _unknown(f"Its run is still {run.status} after 2 hours.", run.run_id)

    def _reconcile(self, sent_at: datetime) -> Waits:
        """In doubt: find out whether it arrived, without ever sending it again on a guess.

        Runs are asked for before the history: one that ends in between is then in the history.
        """
        self.slow = True
        began = self._clock()
        while True:
            asked_at = self._clock()
            try:
                if self.run_id is not None:
                    return (yield from self._follow_or_forget(self.run_id, sent_at))
                runs = self._letta.active_runs(self.claim.agent_id)
                own = next((run for run in runs if run.otid == self.claim.otid), None)
                if own is not None:
                    return (yield from self._follow(own.run_id, sent_at))
                if found := self._find():
                    return Delivered("history", found.run_id)
                if asked_at - sent_at >= self._grace:
                    error = f"No trace of it {self._grace.total_seconds():g} s after it was sent."
                    return Abandoned("no_trace", error, at_once=True)
            except DeliveryError as error:
                outcome = _evidence_gone(error, self.run_id)
                if outcome is not None:
                    return outcome
            yield self._pace(began)

    def _follow_or_forget(self, run_id: str, sent_at: datetime) -> Waits:
        try:
            self._letta.run(run_id)
        except DeliveryError as error:
            if error.kind != "permanent":
                raise
            self.run_id = None
            return (yield from self._reconcile(sent_at))
        return (yield from self._follow(run_id, sent_at))

    def _find(self) -> Found | None:
        claim = self.claim
        since = claim.since - _CLOCK_MARGIN
        return self._letta.find(claim.agent_id, claim.conversation_id, claim.otid, since)

    def _fresh(self, runs: list[Run]) -> list[Run]:
        oldest = self._clock() - _LEFTOVER
        return [run for run in runs if run.created_at is None or run.created_at > oldest]

    def _message(self) -> Message:
        claim = self.claim
        return Message(claim.agent_id, claim.conversation_id, claim.text, claim.otid)

    def _pace(self, began: datetime) -> float:
        """A quarter of what has been waited already: never far off, and soon rarely."""
        waited = (self._clock() - began).total_seconds()
        return min(max(waited / 4, _SHORTEST_WAIT), _LONGEST_WAIT)


def _not_sent(error: DeliveryError) -> Outcome:
    """What a call means that certainly left nothing with the agent."""
    if error.kind == "permanent":
        return Failed(error.code, error.message, permanent=True)
    return Abandoned(error.code, error.message, error.retry_after)


def _evidence_gone(error: DeliveryError, run_id: str | None) -> Outcome | None:
    """``None`` while it makes sense to ask again; a deleted agent takes the evidence with it."""
    if error.kind != "permanent":
        return None
    return _unknown(f"{error.message} It can't be told any more whether it arrived.", run_id)


def _unknown(error: str, run_id: str | None) -> Outcome:
    return Failed("unknown", error, permanent=False, run_id=run_id)
