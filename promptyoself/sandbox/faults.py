"""What can go wrong in the sandbox, on demand, and the words that Letta has for it."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

from promptyoself.core.errors import PromptyoselfError

APPROVAL = (
    "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call. "
    "Please approve or deny the pending request before continuing."
)
NO_REDIS = (
    "INTERNAL_SERVER_ERROR: Background streaming requires Redis to be running. Please ensure Redis "
    "is properly configured. LETTA_REDIS_HOST: None, LETTA_REDIS_PORT: 6379"
)

ROUTES = (
    *("send", "agents", "agent", "messages", "runs", "run", "run_messages", "conversations"),
    *("conversation_list", "health", "any"),
)

FAULTS = {
    "slow": "handled as usual, `seconds` late",
    "refuse": "the connection is reset, nothing is stored (a true refusal is `stop()`)",
    "rate_limit": "429 with Retry-After: `retry_after` seconds; as a date with `http_date`",
    "out_of_credits": "402 with Retry-After: `retry_after` seconds (0: without it), and `detail`",
    "server_error": "`status` (500) with {'detail': `detail`}; nothing is stored unless `stored`",
    "lost_reply": "stored, then the connection is reset without an answer",
    "hang": "no answer until `clear_faults()` or `stop()`; stored where `stored`",
    "garbage": "200 with a `body` that is not JSON; stored where `stored`",
    "wrong_shape": "200 with JSON of another kind; stored where `stored`",
    "drip": "stored; the answer's `where` (headers or body) comes a byte per `interval` seconds",
    "pending_approval": "409 PENDINGAPPROVAL, as the blocking routes answer",
    "busy": "409, as a Letta with Redis answers while a conversation is at work",
    "conflict": "409, as for a row locked in the database, with Retry-After: 1",
    "status": "any `status` with {'detail': `detail`}, and Retry-After where `retry_after` isn't 0",
    "unauthorized": "401, as for a wrong token",
    "not_found": "404 Agent not found",
    "unprocessable": "422, as for a request of the wrong form",
    "run_pending_approval": "the run fails with Letta's text for a pending approval, not stored",
    "run_fails_before": "the run fails with `error` before the message is stored",
    "run_fails_after": "the run fails with `error` after the message was stored",
    "run_stuck": "the run stays `created` for ever; nothing is stored",
    "answers": "the agent calls `tools` (names with commas), and says `text`, drawn out to "
    "`megabytes`; with neither it says nothing",
    "asks_approval": "the agent asks somebody to approve of a call of `tool`, `asks` times one "
    "after the other; once it has all the answers it says `text`",
    "answer_late": "the agent calls a tool, whose result is drawn out to `megabytes`, and says "
    "something only once the sandbox was started again",
    "answer_gone": "the agent answers, and then the run's messages are gone",
    "model_401": "the run fails since the model refuses the key; nothing is stored",
    "model_402": "the run fails for lack of credits; nothing is stored",
}
PARAMS: dict[str, dict[str, Any]] = {
    "slow": {"seconds": 1.0},
    "rate_limit": {"retry_after": 1, "http_date": False},
    "out_of_credits": {"retry_after": 60, "detail": "You have not enough credits."},
    "server_error": {"status": 500, "stored": False, "detail": "An unknown error occurred"},
    "hang": {"stored": False},
    "garbage": {"stored": False, "body": "<html>It works!</html>"},
    "wrong_shape": {"stored": False},
    "drip": {"where": "body", "interval": 0.05},
    "status": {"status": 418, "detail": "a fault on demand", "retry_after": 0},
    "answers": {"text": "", "tools": "", "megabytes": 0},
    "answer_late": {"megabytes": 0},
    "asks_approval": {"tool": "wave", "text": "I have waved.", "asks": 1},
    "run_fails_before": {"error": "INTERNAL_SERVER_ERROR: a fault on demand"},
    "run_fails_after": {"error": "INTERNAL_SERVER_ERROR: a fault on demand"},
}
MODEL_ERRORS = {
    "run_pending_approval": APPROVAL,
    "model_401": "UNAUTHENTICATED: Authentication failed with OpenAI: Error code: 401 - "
    "{'error': {'message': 'Incorrect API key provided', 'code': 'invalid_api_key'}}",
    "model_402": "PAYMENT_REQUIRED: Insufficient credits: Error code: 402 - "
    "{'error': {'message': 'Payment required'}}",
}


@dataclass(slots=True)
class Fault:
    """A fault that waits for the requests that meet it."""

    kind: str  # one of FAULTS
    agent_id: str | None  # only requests for this agent meet it
    route: str  # one of ROUTES
    times: int | None  # how many more requests meet it; None: no end
    probability: float  # of a matching request to meet it, from 0 to 1
    params: dict[str, Any]
    released: threading.Event = field(default_factory=threading.Event)  # what hangs goes on


class FaultQueue:
    """The faults that are queued, the oldest first. Callers hold the sandbox's lock."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._faults: list[Fault] = []

    def add(
        self,
        kind: str,
        /,
        *,
        agent_id: str | None = None,
        route: str | None = None,
        times: int | None = None,
        probability: float | None = None,
        **params: Any,
    ) -> None:
        """Let the next matching requests go wrong.

        Args:
            kind: one of :data:`FAULTS`; ``params`` are its own.
            agent_id: only requests for this agent.
            route: one of :data:`ROUTES`; by default ``send``, into conversations too.
            times: how many requests; 1 by default, without an end with ``probability``.
            probability: of each matching request to go wrong, from 0 to 1.

        Raises:
            PromptyoselfError: ``unknown_fault`` or ``invalid_fault``; nothing is queued.
        """
        if kind not in FAULTS:
            raise PromptyoselfError(
                "unknown_fault", f"No fault is called {kind!r}.", f"There are: {', '.join(FAULTS)}."
            )
        known = PARAMS.get(kind, {})
        fault = Fault(
            kind,
            agent_id,
            "send" if route is None else route,
            1 if times is None and probability is None else times,
            1.0 if probability is None else probability,
            {**known, **params},
        )
        if wrong := _wrong(fault, known):
            raise PromptyoselfError(
                "invalid_fault",
                f"Fault {kind!r} does not take {', '.join(wrong)}.",
                f"It takes {known}, agent_id, route, times and probability.",
            )
        self._faults.append(fault)

    def pick(self, route: str, agent_id: str | None) -> Fault | None:
        """The first queued fault that this request meets."""
        for fault in self._faults:
            if fault.times == 0 or fault.route not in (route, "any"):
                continue
            if fault.agent_id is not None and fault.agent_id != agent_id:
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if fault.times is not None:
                fault.times -= 1
            if fault.times == 0 and fault.kind != "hang":  # one that hangs is to be released
                self._faults.remove(fault)
            return fault
        return None

    def clear(self) -> None:
        """Forget all of them, and release what hangs."""
        for fault in self._faults:
            fault.released.set()
        self._faults.clear()

    def release(self) -> None:
        """Release what hangs, and keep those that are still to be met."""
        for fault in self._faults:
            fault.released.set()
            fault.released = threading.Event()
        self._faults = [fault for fault in self._faults if fault.times != 0]

    def state(self) -> list[dict[str, Any]]:
        """Those that are still to be met, as ``GET /_sandbox/state`` shows them."""
        return [
            {
                "kind": fault.kind,
                "agent_id": fault.agent_id,
                "route": fault.route,
                "times": fault.times,
            }
            for fault in self._faults
            if fault.times != 0
        ]


def _wrong(fault: Fault, known: dict[str, Any]) -> list[str]:
    """The arguments that a fault doesn't take, each with its value."""
    params, times, probability = fault.params, fault.times, fault.probability
    wrong = [f"{k}={v!r}" for k, v in params.items() if not _is_like(v, known.get(k))]
    if times is not None and (not _is_like(times, 0) or times < 1):
        wrong.append(f"times={times!r}")
    if not _is_like(probability, 0.0) or not 0 <= probability <= 1:
        wrong.append(f"probability={probability!r}")
    if not isinstance(fault.agent_id, str | None):
        wrong.append(f"agent_id={fault.agent_id!r}")
    if not wrong and not 200 <= params.get("status", 200) <= 599:
        wrong.append(f"status={params['status']!r} (200 to 599)")
    if not wrong and params.get("where", "body") not in ("headers", "body"):
        wrong.append(f"where={params['where']!r} (headers or body)")
    if fault.route not in ROUTES:
        wrong.append(f"route={fault.route!r} (there are {', '.join(ROUTES)})")
    return wrong


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value is of its default's type; an integer will do for a float."""
    if isinstance(default, bool) or default is None:
        return default is not None and isinstance(value, bool)
    if isinstance(default, int | float):
        kinds = (int, float) if isinstance(default, float) else (int,)
        return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < 1e6
    return isinstance(value, str)
