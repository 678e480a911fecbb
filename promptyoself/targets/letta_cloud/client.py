"""Letta's cloud, as Letta Code's own program calls it. This is untested: nobody here has an
account, so it was only ever run against a stand-in of our own.

It is written from what Letta Code 0.34.12 sends and reads:

- A message is put into a conversation's queue by ``POST …/messages/enqueue``. The agent's computer
  or sandbox takes it from there, with all its tools. The answer names a *super run*, which stands
  for the message until its turn is over.
- Only a 503 that says ``admitted: false`` is sent again. Upon any other failure, Letta Code says,
  it isn't known whether the message was taken, and it must not be sent again blindly.
- A conversation tells its latest super run, except for the agent's own conversation (``default``).
  So in a conversation that was made for a message, the super run there is that message's.
- The id that the message was sent with is its ``otid`` in the conversation's messages.

Whether the cloud takes a second message with the same id isn't known. So the history decides here,
as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from promptyoself.events.target_names import DEFAULT, NEW
from promptyoself.targets.api import (
    Agent,
    DeliveryError,
    Found,
    Message,
    Reply,
    Run,
    RunFailure,
    Sent,
    Target,
    Traits,
)
from promptyoself.targets.letta import LettaClient
from promptyoself.targets.letta.calls import text_of
from promptyoself.targets.letta.conversations import Conversations
from promptyoself.targets.letta.failures import failure_of_run
from promptyoself.targets.letta.history import look_for, rows_since
from promptyoself.targets.turn_messages import instant_of, turn_after

_CAUTION = (
    "The target letta-cloud is untested: it was only ever run against a stand-in of Letta's cloud. "
    "Look into the agent's conversations, whether prompts arrive, and arrive once."
)

_UNCERTAIN = frozenset({408, 409, 423, 424, 425})
"""HTTP statuses upon which a Letta server has certainly not taken a message. Of the cloud's queue
that isn't known: a conflict, say, may be with the same message, taken before."""

_MOST_REMEMBERED = 10_000


class _SentAs(NamedTuple):
    """What a super run stands for."""

    agent_id: str
    otid: str


class LettaCloud(Target):
    """Letta's cloud, for agents of Letta Code. Untested. For what its methods promise, see its base
    class.

    Args:
        base_url: ``https://api.letta.com``.
        token: API key.
        call_timeout: seconds that one HTTP request may take, however slowly it answers.

    Raises:
        PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
    """

    traits = Traits(
        "letta-cloud",
        run_proves_arrival=False,
        lists_runs=False,
        busy_code="letta_busy",
        clock_margin=timedelta(hours=1),
        caution=_CAUTION,
    )

    def __init__(
        self, base_url: str, token: str | None = None, *, call_timeout: float = 30.0
    ) -> None:
        self._letta = LettaClient(base_url, token, call_timeout=call_timeout)
        self._calls = self._letta.calls
        self._conversations = Conversations(self._calls)
        self._super_runs: dict[str, _SentAs] = {}  # by their ids
        self._latest: dict[str, str] = {}  # super run in an agent's own conversation

    def active_runs(self, message: Message) -> list[Run]:
        conversation_id = message.conversation
        if conversation_id == DEFAULT:  # of the agent's own, the cloud tells nothing
            run_id = self._latest.get(message.agent_id)
            run = self.run(run_id) if run_id else None
            return [run] if run and run.active else []
        if conversation_id == NEW:
            made = self._conversations.made_for(message)
            if made is None:
                return []
            conversation_id = made
        try:
            row = self._calls.request(
                "asking for the latest super run",
                "GET",
                f"/v1/conversations/{quote(conversation_id, safe='')}/super-run",
                {"conversation": conversation_id},
            )
        except DeliveryError as error:
            if error.code == "conversation_not_found":  # there is none, or no conversation
                return []
            raise
        id_ = self._id_of(row)
        if message.conversation == NEW:
            self._remember(id_, message)
        sent_as = self._super_runs.get(id_)
        run = self._run(row, message.agent_id, sent_as.otid if sent_as else None)
        return [run] if run.active else []

    def all_active_runs(self) -> list[Run] | None:
        return None

    def ended_runs(self, most: int) -> list[Run]:  # noqa: ARG002
        return []

    def send(self, message: Message) -> Sent:
        conversation_id = message.conversation
        if conversation_id == NEW:
            conversation_id = self._conversations.make(message)
        elif conversation_id != DEFAULT:
            self._conversations.require_owner(conversation_id, message.agent_id)
        content = {
            "role": "user",
            "content": message.text,
            "client_message_id": message.otid,
        }
        try:
            receipt = self._calls.request(
                "sending",
                "POST",
                f"/v1/conversations/{quote(conversation_id, safe='')}/messages/enqueue",
                _subject(conversation_id, message),
                body={
                    "agent_id": message.agent_id,
                    "client_message_id": message.otid,
                    "messages": [content],
                },
            )
        except DeliveryError as error:
            if error.status in _UNCERTAIN:
                error.kind = "doubt"
            elif error.code == "letta_unreachable" and error.status in (404, 405):
                error.hint = (
                    "Only Letta's cloud has such a queue. Prompts go to a server of your own with "
                    "--target letta."
                )
            raise
        id_ = text_of(receipt, "super_run_id")
        if (
            not id_
            or not text_of(receipt, "workflow_id")
            or text_of(receipt, "client_message_id") != message.otid
        ):
            raise self._calls.failures.unreadable("sending", receipt, 200)
        self._remember(id_, message)
        return Sent(id_, conversation_id if message.conversation == NEW else None)

    def run(self, run_id: str) -> Run:
        sent_as = self._super_runs.get(run_id)
        if sent_as is None:
            raise DeliveryError(
                "permanent", "run_not_found", f"Nobody here has heard of super run {run_id}."
            )
        return self._super_run(sent_as.agent_id, run_id, sent_as.otid)

    def _super_run(self, agent_id: str, run_id: str, otid: str) -> Run:
        row = self._calls.request(
            "asking for a super run",
            "GET",
            f"/v1/agents/{quote(agent_id, safe='')}/super-runs/{quote(run_id, safe='')}",
            {"run": run_id},
        )
        if self._id_of(row) != run_id:
            raise self._calls.failures.unreadable("asking for a super run", row, 200)
        return self._run(row, agent_id, otid)

    def failure(self, run: Run) -> RunFailure:
        return failure_of_run(run)

    def find(self, message: Message, since: datetime) -> Found | None:
        if message.conversation != NEW:
            in_its_own = self._find_in(message.conversation, message, since)
            if in_its_own is not None:
                return in_its_own
        made = self._conversations.made_for(message)
        if made is not None:
            return self._find_in(made, message, since, made=made)
        if self.agent(message.agent_id) is None:
            raise DeliveryError(
                "permanent",
                "agent_not_found",
                f"Letta Cloud does not know agent {message.agent_id}.",
            )
        return None

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        is_over = run_id is not None
        if run_id is not None and self._super_run(message.agent_id, run_id, message.otid).active:
            return None
        page = self._pages_of(message.conversation, message)
        turn, is_followed = turn_after(rows_since(self._calls, page, since), message.otid)
        return turn.reply if is_over or is_followed or turn.ends_in_words else None

    def agents(self) -> list[Agent]:
        return self._letta.agents()

    def agent(self, agent_id: str) -> Agent | None:
        return self._letta.agent(agent_id)

    def health(self) -> str:
        return self._letta.health()

    def check(self) -> None:
        self._letta.check()

    def close(self) -> None:
        self._letta.close()

    # -- how it is done

    def _find_in(
        self, conversation_id: str, message: Message, since: datetime, made: str | None = None
    ) -> Found | None:
        page = self._pages_of(conversation_id, message)
        return look_for(self._calls, page, message.otid, since, made_for_it=made)

    def _pages_of(
        self, conversation_id: str, message: Message
    ) -> Callable[..., list[dict[str, Any]]]:
        """What asks for a page of a conversation, the newest messages first."""

        def page(limit: int, **cursor: str) -> list[dict[str, Any]]:
            query = {"order": "desc", "limit": str(limit), **cursor}
            if conversation_id == DEFAULT:
                query["agent_id"] = message.agent_id
            doing = "reading a conversation"
            rows = self._calls.request(
                doing,
                "GET",
                f"/v1/conversations/{quote(conversation_id, safe='')}/messages",
                _subject(conversation_id, message),
                query=query,
            )
            return self._calls.require_rows(doing, rows)

        return page

    def _run(self, row: dict[str, Any], agent_id: str, otid: str | None) -> Run:
        """A super run as a run. Whether its turn ended well, its own run tells."""
        id_ = self._id_of(row)
        error = row.get("error")
        text = None
        if isinstance(error, dict):
            text = ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
        if row.get("errored_at"):
            status, text = "failed", text or "The super run has failed."
        elif row.get("status") == "CAN" or row.get("cancelled_at"):
            status = "cancelled"
        elif row.get("status") == "COM" or row.get("completed_at"):
            status, text = self._turn(row)
        else:
            status = "running" if row.get("run_ids") else "created"
        return Run(id_, agent_id, status, otid, instant_of(row, "created_at"), text)

    def _turn(self, row: dict[str, Any]) -> tuple[str, str | None]:
        """The status and the error of the turn of a super run that is over."""
        run_ids = row.get("run_ids")
        run_id = run_ids[0] if isinstance(run_ids, list) and run_ids else None
        if not isinstance(run_id, str):
            return "completed", None
        try:
            run = self._letta.run(run_id)
        except DeliveryError as error:
            if error.code == "run_not_found":
                return "completed", None
            raise
        return run.status, run.error

    def _id_of(self, row: object) -> str:
        id_ = text_of(row, "id")
        if not id_:
            raise self._calls.failures.unreadable("asking for a super run", row, 200)
        return id_

    def _remember(self, super_run_id: str, message: Message) -> None:
        """A super run can only be asked for by its agent's id."""
        if len(self._super_runs) > _MOST_REMEMBERED:
            self._super_runs.clear()
            self._latest.clear()
        self._super_runs[super_run_id] = _SentAs(message.agent_id, message.otid)
        if message.conversation == DEFAULT:
            self._latest[message.agent_id] = super_run_id


def _subject(conversation_id: str, message: Message) -> dict[str, str]:
    """What the cloud doesn't know if it answers with a 404."""
    if conversation_id == DEFAULT:
        return {"agent": message.agent_id}
    return {"conversation": conversation_id}
