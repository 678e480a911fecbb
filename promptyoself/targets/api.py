"""What a delivery needs of Letta (:class:`LettaApi`), and what may be concluded where it fails.

Letta has no idempotent send, so the one thing that matters about a failed call is whether the
server *may* have received it. :attr:`DeliveryError.kind` is that answer.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from promptyoself.core.errors import PromptyoselfError

Kind = Literal["retry", "busy", "permanent", "unauthorized", "doubt"]


@dataclass(frozen=True, slots=True)
class Message:
    """A prompt that is to be sent."""

    agent_id: str
    conversation_id: str | None
    text: str
    otid: str  # the slot's own id, the same at every attempt


@dataclass(frozen=True, slots=True)
class Run:
    """One turn of an agent, as the server tells it."""

    run_id: str
    agent_id: str
    status: str  # created | running | completed | failed | cancelled
    otid: str | None  # of the prompt, if it was sent from here
    created_at: datetime | None
    error: str | None

    @property
    def active(self) -> bool:
        """Whether the agent may still be at work on it (or its server died over it)."""
        return self.status in ("created", "running")


@dataclass(frozen=True, slots=True)
class Found:
    """A message in an agent's history."""

    message_id: str
    run_id: str | None
    date: datetime | None  # by the server's clock, in whole seconds


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, as a list of agents tells it."""

    id: str
    name: str
    model: str | None = None
    created_at: datetime | None = None
    last_run_at: datetime | None = None


class DeliveryError(PromptyoselfError):
    """A call that did not succeed, and what may be concluded from that.

    The kinds:

    - ``retry``: certainly not received; it may be tried again later.
    - ``busy``: not received, because the agent is occupied or waits for an approval. That is no
      failure.
    - ``permanent``: not received, and the same call will never be.
    - ``unauthorized``: the server itself refuses us, so it will accept nothing else either.
    - ``doubt``: nobody knows. If the call only reads, there is no answer.

    The token and the prompt are in none of the fields but ``detail``.
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
        self.status = status  # of HTTP, if there was an answer
        self.retry_after = retry_after  # seconds, if the server asked for them
        # The words of the server or the SDK, which may quote the prompt. They are shown only as
        # `core.diagnostics.excerpt` makes them.
        self.detail = detail


class LettaApi(Protocol):
    """What a delivery calls. Every method may be called from many threads at once.

    Each answers or raises :class:`DeliveryError` within a time-out per request, and raises nothing
    else. Each may raise the kinds ``retry``, ``unauthorized`` and ``doubt``; others are said below.
    """

    def active_runs(self, agent_id: str) -> list[Run]:
        """The agent's runs that have not ended, newest first, in conversations or not.

        There is none if the agent isn't known. After a crash the server keeps dead runs for ever.
        """

    def all_active_runs(self) -> list[Run] | None:
        """Every agent's runs that have not ended, newest first.

        They are as they were at one instant after the call was made. None: there are more of them
        than one answer can hold.
        """

    def ended_runs(self, most: int) -> list[Run]:
        """The runs of all agents that have ended, at most ``most``: those that began last."""

    def send(self, message: Message) -> str | None:
        """Hand the message over, without waiting for the agent to answer it.

        Returns:
            The id of its run, or None if the server accepted the message without naming one.

        Raises:
            DeliveryError: any kind. ``permanent`` with ``agent_not_found``,
                ``conversation_not_found``, ``conversation_of_another_agent`` or ``letta_rejected``.
        """

    def run(self, run_id: str) -> Run:
        """How a run stands. Raises ``permanent`` with ``run_not_found`` for one not known."""

    def find(self, agent_id: str, otid: str, since: datetime) -> Found | None:
        """The user message with this otid in the history since then, or None.

        An agent's history has the messages of its conversations too.

        None does not mean that it was not received: a message is in the history only after the
        model's first answer. ``since`` is aware, and allows for the server's clock. Raises
        ``permanent`` with ``agent_not_found`` if the agent is gone, and the history with it.
        """

    def agents(self) -> list[Agent]:
        """All agents, oldest first."""

    def agent(self, agent_id: str) -> Agent | None:
        """One agent. None: the server does not know it, or this cannot be an agent's id."""

    def health(self) -> str:
        """The server's version. Letta tells it without a token."""

    def close(self) -> None:
        """Let go of connections. A later call opens new ones."""


SURE_TROUBLE = frozenset({"letta_unreachable", "letta_unauthorized"})
"""Codes that say that Letta itself can't be reached, or refuses us."""

TROUBLE = SURE_TROUBLE | {
    *("letta_timeout", "letta_server_error", "letta_unreadable", "letta_connection_lost"),
    "letta_client_unfit",
}
"""Codes after which a loop holds all deliveries back for a while: after one of
:data:`SURE_TROUBLE` at once, after another if several agents meet it."""
