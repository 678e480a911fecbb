"""The contract of a target (:class:`Target`), and what may be concluded where it fails.

No target has an idempotent send, so the one thing that matters about a failed call is whether the
target *may* have received the message. :attr:`DeliveryError.kind` is that answer. Whether a message
has arrived, the agent's history tells: every target can look for the ``otid`` that it was sent
with. Each target passes the same suite of tests against the real thing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

from promptyoself.core.errors import PromptyoselfError
from promptyoself.events.target_names import TARGET_TITLES, TargetName

Kind = Literal["retry", "busy", "permanent", "unauthorized", "doubt"]


class Traits(NamedTuple):
    """In what targets differ, as far as a delivery has to know."""

    name: TargetName
    # A run that has completed proves that the message has arrived. Without this, the history is
    # looked through after every run.
    run_proves_arrival: bool
    lists_runs: bool  # one question tells the runs of all agents: see `Target.all_active_runs`
    busy_code: str  # the code of an attempt that gave way to other turns
    clock_margin: timedelta  # how far its clock may be behind ours
    caution: str = ""  # what people are told when it is first used
    tells_ends: bool = False  # it tells by itself when a run ends: `Target.run` makes no call
    tells_replies: bool = True  # what an agent answers can be read: see `Target.reply`

    @property
    def title(self) -> str:
        """The target as sentences call it."""
        return TARGET_TITLES[self.name]


@dataclass(frozen=True, slots=True)
class Message:
    """A prompt that is to be sent, or is looked for."""

    agent_id: str
    conversation: str  # an id, `default` for the agent's own, or `new` for one that is made for it
    text: str
    otid: str  # the slot's own id, the same at every attempt
    title: str = ""  # of a conversation that is made for it
    tried: bool = False  # it may have been sent before, and a conversation made for it


class Sent(NamedTuple):
    """What a target says of a message that it has accepted."""

    run_id: str | None  # None: it has named none
    conversation_id: str | None = None  # of the conversation that was made for the message


@dataclass(frozen=True, slots=True)
class Run:
    """One turn of an agent, as the target tells it."""

    run_id: str
    agent_id: str
    status: str  # created | running | waiting | completed | failed | cancelled
    otid: str | None  # of the prompt, if it was sent from here
    created_at: datetime | None
    error: str | None
    conversation_id: str | None = None  # None: it isn't known, or the agent's own

    @property
    def active(self) -> bool:
        """Whether the agent may still be at work on it (or its server died over it)."""
        return self.status in ("created", "running", "waiting")

    @property
    def waits(self) -> bool:
        """Whether it waits for somebody to approve of a tool, perhaps for ever."""
        return self.status == "waiting"


class RunFailure(NamedTuple):
    """What a run that hasn't ended well, and hasn't left the message in the history, means."""

    code: str
    error: str
    permanent: bool = False  # the same message would fail for the same reason


@dataclass(frozen=True, slots=True)
class Found:
    """A message in an agent's history."""

    message_id: str  # or that of the summary which stands for it, or of its lost conversation
    run_id: str | None
    date: datetime | None  # by the target's clock, on Letta in whole seconds
    conversation_id: str | None = None  # of the conversation that was made for the message
    # Whether the agent has said or done anything since in answer to it. None: that isn't known.
    answered: bool | None = None


class Reply(NamedTuple):
    """What came of an agent's turn over a message, once that turn is over."""

    text: str | None  # what the agent said last; None: it has said nothing
    tools: tuple[str, ...] = ()  # the names of the tools that it called, in the order of the calls
    date: datetime | None = None  # when it said that, by the target's clock


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


class Target(Protocol):
    """What a delivery calls. Every method may be called from many threads at once.

    Each answers or raises :class:`DeliveryError` within a time-out per request, and raises nothing
    else. Each may raise the kinds ``retry``, ``unauthorized`` and ``doubt``; others are said below.
    """

    traits: Traits

    def active_runs(self, message: Message) -> list[Run]:
        """The runs that have to end before this message may be sent, newest first.

        On a Letta server these are all of the agent's, in conversations or not: it has one turn at
        a time. Elsewhere they are those of the message's conversation, so that an agent may have
        turns in several at once. There is none if the agent isn't known, or where the message's own
        conversation has yet to be made. A Letta server that was killed keeps dead runs for ever.
        """

    def all_active_runs(self) -> list[Run] | None:
        """Every agent's runs that have not ended, newest first.

        They are as they were at one instant after the call was made. None: there are more of them
        than one answer can hold, or the target doesn't list runs (:attr:`Traits.lists_runs`).
        """

    def ended_runs(self, most: int) -> list[Run]:
        """The runs of all agents that have ended, at most ``most``: those that began last. Empty
        where the target doesn't list runs."""

    def send(self, message: Message) -> Sent:
        """Hand the message over, without waiting for the agent to answer it.

        Where it is to have a ``new`` conversation, the one that an earlier attempt has made for it
        is used, else one is made that can be found by the otid: never two.

        Raises:
            DeliveryError: any kind. ``permanent`` with ``agent_not_found``,
                ``conversation_not_found``, ``conversation_of_another_agent`` or ``letta_rejected``.
                A target that learns of new agents only when it is started tells
                ``agent_not_found`` as ``retry``.
                Where it is ``retry``, ``busy``, ``permanent`` or ``unauthorized``, a conversation
                may have been made, and the message certainly isn't in it.
        """

    def run(self, run_id: str) -> Run:
        """How a run stands. Raises ``permanent`` with ``run_not_found`` for one not known."""

    def failure(self, run: Run) -> RunFailure:
        """What a run means that is over and whose message isn't in the history. No call is made."""

    def find(self, message: Message, since: datetime) -> Found | None:
        """The user message with this otid in the history since then, or None.

        The whole history of the agent is looked through where the target has one; else the
        message's conversation, and the one that was made for it, if there is one.

        None does not mean that it was not received: on Letta a message is in the history only after
        the model's first answer. ``since`` is aware, and allows for the server's clock.

        Raises:
            DeliveryError: ``agent_not_found`` or ``conversation_not_found`` of any kind if it is
                gone, and the history with it; ``permanent`` with :data:`HISTORY_GAP` if the message
                isn't there, and the part of the history where it would be was summed up or lost, so
                that nothing follows from that.
        """

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        """What the agent has said and done in answer to a message that has arrived. None: its turn
        isn't over yet, or waits for somebody.

        Nothing changes by this. ``since`` is as in :meth:`find`. ``run_id`` is that of the run over
        the message, if it is known. The message's ``text`` may be empty here, and its
        ``conversation`` is the one that it went to. Only asked where :attr:`Traits.tells_replies`.

        Raises:
            DeliveryError: ``permanent`` where no answer can be had any more: with
                ``agent_not_found``, ``conversation_not_found``, :data:`HISTORY_GAP`, or
                ``reply_too_large`` for one that is longer than this takes in.
        """

    def agents(self) -> list[Agent]:
        """All agents, oldest first."""

    def agent(self, agent_id: str) -> Agent | None:
        """One agent. None: the target does not know it, or this cannot be an agent's id."""

    def health(self) -> str:
        """The version of what answers. Letta tells it without a token."""

    def check(self) -> None:
        """Ask for as little as the target answers only to those that it lets in. Raises what is in
        the way."""

    def close(self) -> None:
        """Let go of connections. A later call opens new ones."""


class Targets(Protocol):
    """The targets that a worker delivers to, by name. Making one costs nothing and calls nobody."""

    def __getitem__(self, name: TargetName, /) -> Target:
        """The target of that name; one whose every call raises ``target_not_configured`` where the
        settings have none."""


HISTORY_GAP = "history_compacted"
"""The code that says that a message isn't in the history, and may have been in what was summed up
or lost."""

SURE_TROUBLE = frozenset(
    {
        *("letta_unreachable", "letta_unauthorized"),
        *("letta_code_unreachable", "letta_code_unauthorized", "letta_code_too_old"),
        *("letta_code_not_installed", "target_not_configured"),
        *("broca_missing", "broca_unfit", "broca_unsupported"),
    }
)
"""Codes that say that the target itself can't be reached, or refuses us."""

TROUBLE = SURE_TROUBLE | {
    *("letta_timeout", "letta_server_error", "letta_unreadable", "letta_connection_lost"),
    *("letta_code_timeout", "letta_code_unreadable", "letta_code_connection_lost"),
    *("letta_client_unfit", "broca_locked", "broca_unreadable"),
}
"""Codes after which a loop holds all deliveries to that target back for a while: after one of
:data:`SURE_TROUBLE` at once, after another if several agents meet it."""
