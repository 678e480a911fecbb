"""What a delivery needs of Letta (:class:`LettaApi`), and what may be concluded where it fails.

Letta has no idempotent send, so the one thing that matters about a failed call is whether the
server *may* have received it. :attr:`DeliveryError.kind` is that answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from promptyoself.core.errors import PromptyoselfError

__all__ = [
    "SURE_TROUBLE",
    "TROUBLE",
    "Agent",
    "DeliveryError",
    "Found",
    "Kind",
    "LettaApi",
    "Message",
    "Run",
    "lacks_credits",
    "run_failure_is_busy",
    "run_failure_is_permanent",
    "run_failure_lacks_credits",
]

Kind = Literal["retry", "busy", "permanent", "unauthorized", "doubt"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent: ``otid`` is the slot's own id, the same at every attempt."""

    agent_id: str
    conversation_id: str | None
    text: str
    otid: str


@dataclass(frozen=True, slots=True)
class Run:
    """One turn of an agent as the server tells it; ``otid`` only where we started it."""

    run_id: str
    agent_id: str
    status: str  # created | running | completed | failed | cancelled
    otid: str | None
    created_at: datetime | None
    error: str | None

    @property
    def active(self) -> bool:
        """Whether the agent may still be at work on it (or its server died over it)."""
        return self.status in ("created", "running")


@dataclass(frozen=True, slots=True)
class Found:
    """A message in an agent's history. ``date`` is the server's clock, in whole seconds."""

    message_id: str
    run_id: str | None
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Agent:
    """What is told of an agent in a list of them."""

    id: str
    name: str
    model: str | None = None
    created_at: datetime | None = None
    last_run_at: datetime | None = None


class DeliveryError(PromptyoselfError):
    """A call that did not succeed, and what may be concluded from that.

    ``kind``: ``retry``: certainly not received, try again later (after ``retry_after`` seconds
    where the server said so); ``busy``: not received because the agent is occupied or waits for an
    approval, which is no failure; ``permanent``: not received, and the same call will never be;
    ``unauthorized``: the server itself refuses us, so nothing else will be accepted either;
    ``doubt``: nobody knows. Of a call that only reads, ``doubt`` means that there is no answer.
    ``status`` is the HTTP status where there was one. Neither the token nor the prompt is in it,
    but for ``detail``: what the server or the SDK said, in its own words, which may quote the
    prompt. Show it only as :func:`~promptyoself.core.diagnostics.excerpt` makes it.
    """

    def __init__(
        self,
        kind: Kind,
        code: str,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
        **details: Any,
    ) -> None:
        if status is not None:
            details["http_status"] = status
        super().__init__(code, message, hint, **details)
        self.kind: Kind = kind
        self.status = status
        self.retry_after = retry_after
        self.detail = detail


class LettaApi(Protocol):
    """Where prompts are delivered to. Every method may be called from many threads at once.

    Each answers or raises :class:`DeliveryError` within a time-out per request, and raises nothing
    else. Any may raise ``retry``, ``unauthorized`` and ``doubt``; the rest is said below.
    """

    def active_runs(self, agent_id: str) -> list[Run]:
        """The agent's runs that have not ended, newest first, in conversations or not.

        Empty for an agent that is not known. After a crash the server keeps dead ones for ever.
        """
        ...

    def all_active_runs(self) -> list[Run] | None:
        """Every agent's runs that have not ended, newest first, as they were at one instant after
        the call was made; None where there are more of them than one answer can hold."""
        ...

    def ended_runs(self, most: int) -> list[Run]:
        """The runs, of whatever agent, that have ended: those that began last, at most so many."""
        ...

    def send(self, message: Message) -> str | None:
        """Hand the message over, without waiting for the agent to answer it.

        Returns:
            The id of its run, or None where the message was taken without naming one.

        Raises:
            DeliveryError: any kind. ``permanent`` with ``agent_not_found``,
                ``conversation_not_found``, ``conversation_of_another_agent`` or ``letta_rejected``.
        """
        ...

    def run(self, run_id: str) -> Run:
        """How a run stands. Raises ``permanent`` with ``run_not_found`` for one not known."""
        ...

    def find(
        self, agent_id: str, conversation_id: str | None, otid: str, since: datetime
    ) -> Found | None:
        """The user message with this otid in the history, or None where there is none since then.

        None does not mean that it was not received: it shows after the model's first answer.
        ``since`` is aware, and allows for the server's clock. Raises ``permanent`` with
        ``agent_not_found``: the agent, and the evidence with it, is gone.
        """
        ...

    def agents(self) -> list[Agent]:
        """All agents, oldest first."""
        ...

    def agent(self, agent_id: str) -> Agent | None:
        """One agent; None: the server does not know it, or it cannot be an agent's id."""
        ...

    def health(self) -> str:
        """The server's version. Letta tells it without a token."""
        ...

    def close(self) -> None:
        """Let go of connections. A later call opens new ones."""
        ...


def run_failure_is_permanent(error: str | None) -> bool:
    """Whether a failed run's error says that the model refuses the key (401).

    Letta prefixes its code, and most providers' own text follows: ``UNAUTHENTICATED:
    Authentication failed with OpenAI: Error code: 401 - {…}``. Anything else (rate limits, 5xx,
    time-outs) may pass.
    """
    head = _head(error)
    return bool(
        re.match(r"(UNAUTHENTICATED|llm_authentication)", head)
        or re.match(r"[^{]*\bError code: 401\b", head)
    )


def run_failure_lacks_credits(error: str | None) -> bool:
    """Whether a failed run's error says that somebody has to pay before the model answers again.

    ``PAYMENT_REQUIRED: Insufficient credits: Error code: 402 - {…}`` is Letta's word for it. Of
    OpenAI it is a 429 with ``insufficient_quota``, of Anthropic a 400.
    """
    head = _head(error)
    if run_failure_is_permanent(error):
        return False
    return bool(
        re.match(r"(PAYMENT_REQUIRED|llm_insufficient)", head)
        or re.match(r"[^{]*\bError code: 402\b", head)
        or lacks_credits(error or "")
    )


def lacks_credits(text: str, *, surely: bool = False) -> bool:
    """Whether the text of a refusal says that credits, a quota or an account's balance are used up.
    ``surely`` counts only words that nobody would use in a prompt, which the text may quote."""
    return bool((_SURELY if surely else _PERHAPS).search(text))


_SURELY = re.compile(
    r"PAYMENT_REQUIRED|llm_insufficient|insufficient_(quota|credits?|funds|balance)"
    r"|billing_(hard_limit|not_active)|credit balance is too low|exceeded your current quota"
)
_PERHAPS = re.compile(
    _SURELY.pattern + r"|payment required"
    r"|\b(insufficient|not enough|no more|out of|lacks?|without) (credits?|funds|balance|quota)\b"
    r"|\b(credits?|quota|balance)\b[^.]{0,40}\b(exhausted|exceeded|used up|depleted|too low)\b"
    r"|\bexceeded\b[^.]{0,40}\b(quota|credits?|billing)\b",
    re.IGNORECASE,
)


def run_failure_is_busy(error: str | None) -> bool:
    """Whether a run failed only since its agent waits for an approval or is occupied.

    An asynchronous send to such an agent is taken (200), and its run then fails with ``CONFLICT:
    Cannot send a new message: …``, the message not stored: so it is to be waited for, as a 409 is.
    """
    return bool(re.match(r"\s*CONFLICT: Cannot send a new message", error or ""))


def _head(error: str | None) -> str:
    return re.sub(r"\s+", " ", error or "").strip()[:200]


SURE_TROUBLE = frozenset({"letta_unreachable", "letta_unauthorized"})
"""Codes that say that Letta itself can't be reached, or refuses us."""

TROUBLE = SURE_TROUBLE | {
    *("letta_timeout", "letta_server_error", "letta_unreadable", "letta_connection_lost"),
    "letta_client_unfit",
}
"""Codes after which a loop holds all deliveries back for a while: after one of
:data:`SURE_TROUBLE` at once, after another if several agents meet it."""
