"""What can go wrong in the sandbox, on demand, and the words that Letta has for it."""

from __future__ import annotations

from typing import Any

__all__ = ["APPROVAL", "FAULTS", "MODEL_ERRORS", "NO_REDIS", "PARAMS", "ROUTES"]

APPROVAL = (
    "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call. "
    "Please approve or deny the pending request before continuing."
)
NO_REDIS = (
    "INTERNAL_SERVER_ERROR: Background streaming requires Redis to be running. Please ensure Redis "
    "is properly configured. LETTA_REDIS_HOST: None, LETTA_REDIS_PORT: 6379"
)

ROUTES = ("send", "agents", "agent", "messages", "runs", "run", "conversations", "health", "any")

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
