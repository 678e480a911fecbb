"""What the App Server has told of one conversation: whether it is busy, and what became of the
turns that we began there.

A turn isn't named when it begins, and the frames that follow don't name the prompt. So which turn
is ours follows from the order of the frames: it begins when its ``input`` is accepted, and ends
with the next ``turn_finished`` that isn't of a run from before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

IDLE = "WAITING_ON_INPUT"
_ASKS = "WAITING_ON_APPROVAL"

_ENDS_LATE = 5.0
"""Seconds after which a turn is over that the server no longer works on, though it hasn't told its
end. It tells the end of one that was broken off only when the model's answer is over."""

_NEVER_ANSWERED = 600.0  # seconds; no request is waited for that long

_MOST_RUNS = 100
_LONGEST_ERROR = 1000  # characters


@dataclass(slots=True)
class Turn:
    """The agent's turn over a prompt that we have sent. Times are seconds of a monotonic clock."""

    otid: str
    request_id: str  # of the `input` that is to begin it
    stage: Literal["offered", "queued", "begun", "over"] = "offered"
    runs: set[str] = field(default_factory=set)  # each step of the model is a run of its own
    begun_at: float = 0.0
    queued_at: float = 0.0  # or when its conversation was last told to be at work since
    was_busy: bool = False
    idle_since: float | None = None
    stop_reason: str | None = None
    error: str | None = None
    failed_unstored: bool = False  # its end named no run

    @property
    def was_stored(self) -> bool:
        """Whether its prompt is known to be stored, which comes before its first run."""
        return bool(self.runs) and not self.failed_unstored

    @property
    def alive(self) -> bool:
        """Whether it was accepted, and its end hasn't been told."""
        return self.stage in ("queued", "begun")

    def is_over(self, now: float) -> bool:
        """Whether its end was told, or is taken for granted by now."""
        left = self.idle_since is not None and now - self.idle_since > _ENDS_LATE
        return self.stage == "over" or (self.stage == "begun" and left)

    def is_forgotten(self, now: float) -> bool:
        """Whether the server won't say any more if it takes the prompt."""
        return self.stage == "offered" and now - self.begun_at > _NEVER_ANSWERED

    def is_silent(self, now: float) -> bool:
        """Whether nothing was told of it for so long that one should ask."""
        return self.stage == "begun" and not self.was_busy and now - self.begun_at > _ENDS_LATE

    def is_held_up(self, now: float, *, loop: str | None) -> bool:
        """Whether it waits in the queue of a conversation that has been at rest for a while."""
        return self.stage == "queued" and loop == IDLE and now - self.queued_at > _ENDS_LATE

    def status(self, now: float, *, asks: bool) -> str:
        """How it stands, in the words of :class:`~promptyoself.targets.api.Run`. ``asks``: its
        conversation waits for an approval."""
        if not self.is_over(now):
            if self.stage != "begun":
                return "created"
            return "waiting" if asks else "running"
        if self.stop_reason in (None, "cancelled"):
            return "cancelled"
        return "completed" if self.stop_reason == "end_turn" else "failed"


class Watch:
    """One conversation, as the frames of one connection tell it. Not for two threads at once."""

    def __init__(self, agent_id: str, conversation_id: str) -> None:
        self.agent_id = agent_id
        self.conversation_id = conversation_id
        self.loop: str | None = None  # None: nothing was told of it yet
        self.told_at = float("-inf")  # when something was, last
        self.queue: list[dict[str, Any]] = []
        self.active_run: str | None = None
        self.turns: list[Turn] = []  # ours that haven't ended
        self.was_busy = False  # since it was last set to False
        self._asks = False
        self._runs: dict[str, None] = {}  # of other turns, in the order in which they were told

    @property
    def idle(self) -> bool:
        """Whether nothing is at work there, and nothing waits."""
        return self.loop == IDLE and not self.queue

    @property
    def asks(self) -> bool:
        """Whether it waits for somebody to approve of a tool."""
        return self.loop == _ASKS or (self.loop != IDLE and self._asks)

    @property
    def otid(self) -> str | None:
        """Of the prompt that is at work there, or waits, if we have sent it."""
        return next((turn.otid for turn in self.turns if turn.alive), None)

    def was_made(self, now: float) -> None:
        """It was made just now, so nothing is at work there."""
        self.loop = IDLE
        self.told_at = now

    def offer(self, otid: str, request_id: str, now: float) -> Turn:
        """The turn that an ``input`` with this id will begin, if the server accepts that."""
        for earlier in [turn for turn in self.turns if turn.is_over(now)]:
            self._end(earlier, None)
        turn = Turn(otid, request_id, begun_at=now)
        self.turns.append(turn)
        return turn

    def see(self, frame: dict[str, Any], now: float) -> None:
        """Take in the next frame. Those of kinds that tell nothing are passed over."""
        self.told_at = now
        kind = frame.get("type")
        if kind == "input_accepted":
            self._answered(frame, now)
        elif kind == "update_loop_status":
            self._looped(_dict(frame.get("loop_status")), now)
        elif kind == "update_queue":
            self._queued(frame, now)
        elif kind == "update_device_status":
            status = _dict(frame.get("device_status"))
            self._asks = bool(status.get("pending_control_requests"))
        elif kind == "stream_delta":
            self._ran(_dict(frame.get("delta")).get("run_id"))
        elif kind == "turn_finished":
            self._finished(frame)

    def _answered(self, frame: dict[str, Any], now: float) -> None:
        turn = next((t for t in self.turns if t.request_id == frame.get("request_id")), None)
        if turn is None:
            return
        if frame.get("accepted") is not True:
            self.turns.remove(turn)
        elif frame.get("disposition") == "queued":
            turn.stage, turn.queued_at = "queued", now
        else:
            _begin(turn, now)

    def _looped(self, status: dict[str, Any], now: float) -> None:
        loop = status.get("status")
        self.loop = loop if isinstance(loop, str) else self.loop
        busy = self.loop != IDLE
        self.was_busy = self.was_busy or busy
        for run, otids in _dict(status.get("client_message_ids_by_run_id")).items():
            for turn in self.turns:
                if turn.alive and isinstance(otids, list) and turn.otid in otids:
                    _begin(turn, now)
                    turn.runs.add(run)
        active = status.get("active_run_ids")
        runs = [run for run in active if isinstance(run, str)] if isinstance(active, list) else []
        self.active_run = runs[-1] if runs else None
        for run in runs:
            self._ran(run)
        for turn in self.turns if busy else ():
            turn.queued_at = now
        current = self._current()
        if current is None:
            return
        current.was_busy = current.was_busy or busy
        if busy:
            current.idle_since = None
        elif current.was_busy or current.is_silent(now):
            current.idle_since = now if current.idle_since is None else current.idle_since

    def _queued(self, frame: dict[str, Any], now: float) -> None:
        self.queue = _dicts(frame.get("queue"))
        removed = {item.get("client_message_id") for item in _dicts(frame.get("removed"))}
        for turn in self.turns:
            # Older servers give an input without that id one of their own.
            if turn.stage == "queued" and (turn.otid in removed or not self.queue):
                _begin(turn, now)

    def _ran(self, run: object) -> None:
        if not isinstance(run, str) or run in self._runs:
            return
        current = self._current()
        if current is not None:
            current.runs.add(run)
        else:
            self._is_anothers(run)

    def _finished(self, frame: dict[str, Any]) -> None:
        run = frame.get("run_id")
        turn = self._current()
        if turn is not None and (run is None or run in turn.runs or run not in self._runs):
            turn.error = _sentence(frame.get("error"), str(frame.get("stop_reason")))
            turn.failed_unstored = run is None
            if isinstance(run, str):
                turn.runs.add(run)
            self._end(turn, str(frame.get("stop_reason")))
        if isinstance(run, str):
            self._is_anothers(run)

    def _end(self, turn: Turn, stop_reason: str | None) -> None:
        turn.stage = "over"
        turn.stop_reason = stop_reason
        self.turns.remove(turn)
        for run in turn.runs:
            self._is_anothers(run)

    def _current(self) -> Turn | None:
        return next((turn for turn in self.turns if turn.stage == "begun"), None)

    def _is_anothers(self, run: str) -> None:
        self._runs[run] = None
        if len(self._runs) > _MOST_RUNS:
            del self._runs[next(iter(self._runs))]


def _begin(turn: Turn, now: float) -> None:
    if turn.stage != "begun":
        turn.stage = "begun"
        turn.begun_at = now


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sentence(error: object, stop_reason: str) -> str | None:
    """What a turn's end says is wrong. An error of the model comes as JSON within JSON."""
    if stop_reason in ("end_turn", "cancelled") and not error:
        return None
    said = error if isinstance(error, str) and error else f"The turn ended with {stop_reason}."
    try:
        inner: object = json.loads(said)
    except (ValueError, RecursionError):
        inner = None
    while isinstance(inner, dict):
        inner = inner.get("error") or inner.get("message") or inner.get("detail")
    return (inner if isinstance(inner, str) and inner else said)[:_LONGEST_ERROR]
