"""Letta, through its SDK: the only module that imports ``letta_client``, on first use.

Importing that costs 0.4 s, which no command that merely writes the log should pay.

Measured with letta-client 1.12 against a Letta 0.16.8 server, and relied upon here:

- The SDK's own retries put one prompt into the history up to three times: ``max_retries=0``.
- Its time-out is per read, so a server that drips a byte a second holds a caller for ever: the
  pool below is given streams that honour one deadline per call.
- ``create_async`` answers at once with a run. The run keeps the request's
  ``assistant_message_tool_name`` in its ``request_config`` for good, which makes that field,
  otherwise without effect on our agents, the only trace of the otid before the model has answered.
- A message enters the history, with its otid, after the model's first answer; not at all where the
  model fails before.
- ``messages.list`` takes only ``before`` as a cursor to older messages, whichever ``order`` is
  asked for; runs too; agents take ``after``. The SDK always sends ``after``: so pages are turned
  by hand. A page may hold fewer or more messages than its limit, so only one without news ends.
- A plain send into a conversation leaves its run ``created`` for ever. A streaming one answers with
  a ping that names the run, before the model is asked; the stream may then be closed, or even reset
  before that, and the run goes on. With ``background=True`` it would need Redis (503 without).
- A list of runs without an agent has every agent's, in conversations or not, those that began last
  first; a row is the same as the run by itself has. ``active=True`` means ``created`` and
  ``running``; ``statuses`` is taken more than once, and prevails. ``limit`` is 1000 at most (422
  beyond). One answer is one query, hence one instant. Such a list of 9 runs took the server as long
  (17 ms) as a single run (16 ms), one of 100 not twice that.
- A conversation's messages are among its agent's, its runs among the agent's runs.
- A run of a server that was killed stays ``created`` or ``running`` for ever.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

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
from promptyoself.targets.letta.calls import PAGE, Calls, text_of
from promptyoself.targets.letta.conversations import Conversations
from promptyoself.targets.letta.failures import AnswerTooLong, failure_of_run
from promptyoself.targets.letta.history import look_for
from promptyoself.targets.letta.replies import read_reply
from promptyoself.targets.turn_messages import instant_of

if TYPE_CHECKING:
    from letta_client import Letta

_TAG = "otid:"
_MOST_ACTIVE = 1000  # the largest page of runs
_ENDED = ["completed", "failed", "cancelled"]
_ID = re.compile(r"[!-~]{1,200}").fullmatch


class LettaClient(Target):
    """One Letta server, called through its SDK. For what its methods promise, see its base class.

    Args:
        base_url: ``http(s)://host[:port][/prefix]``.
        token: API key or server password, sent as a bearer token; None or empty: none is sent.
        call_timeout: seconds that one HTTP request may take, however slowly it answers.

    Raises:
        PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
    """

    traits = Traits(
        "letta",
        run_proves_arrival=True,
        lists_runs=True,
        busy_code="letta_busy",
        clock_margin=timedelta(hours=1),
    )

    def __init__(
        self, base_url: str, token: str | None = None, *, call_timeout: float = 30.0
    ) -> None:
        self.calls = Calls(base_url, token, call_timeout)
        self._conversations = Conversations(self.calls)

    # -- what a delivery calls

    def active_runs(self, message: Message) -> list[Run]:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            return self._list_runs(agent_id=message.agent_id, active=True, limit=limit, **cursor)

        return [_run(row) for row in self.calls.pages(page, "before", short_page_ends=True)]

    def all_active_runs(self) -> list[Run] | None:
        # In one page or not at all: pages would be of several instants.
        try:
            rows = self._list_runs(active=True, limit=_MOST_ACTIVE)
        except AnswerTooLong:
            return None
        return [_run(row) for row in rows] if len(rows) < _MOST_ACTIVE else None

    def ended_runs(self, most: int) -> list[Run]:
        return [_run(row) for row in self._list_runs(statuses=_ENDED, limit=min(most, PAGE))]

    def send(self, message: Message) -> Sent:
        if message.conversation == NEW:
            conversation_id = self._conversations.make(message)
            return Sent(self._stream(message, conversation_id), conversation_id)
        if message.conversation != DEFAULT:
            self._conversations.require_owner(message.conversation, message.agent_id)
            return Sent(self._stream(message, message.conversation))
        answer = self.calls.fetch(
            "sending",
            lambda c: c.agents.messages.with_raw_response.create_async(
                message.agent_id,
                # Untyped, since the SDK needs a fifth of the call's time to check a typed body.
                extra_body={
                    "messages": [{"role": "user", "content": message.text, "otid": message.otid}],
                    "assistant_message_tool_name": _TAG + message.otid,
                },
            ),
            agent=message.agent_id,
        )
        run_id = _run_id(answer, "id")
        if run_id is None:
            raise self.calls.failures.unreadable("sending", answer, 200)
        return Sent(run_id)

    def run(self, run_id: str) -> Run:
        row = self.calls.fetch(
            "asking for a run", lambda c: c.runs.with_raw_response.retrieve(run_id), run=run_id
        )
        if text_of(row, "id") != run_id or text_of(row, "status") is None:
            raise self.calls.failures.unreadable("asking for a run", row, 200)
        return _run(row)

    def failure(self, run: Run) -> RunFailure:
        return failure_of_run(run)

    def find(self, message: Message, since: datetime) -> Found | None:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            rows = self.calls.rows(
                "reading the history",
                lambda c: c.agents.messages.with_raw_response.list(
                    message.agent_id, order="desc", limit=limit, **cursor
                ),
                agent=message.agent_id,
            )
            # Newest first: the cursor is the last. 0.16.8 tells a page oldest first all the same.
            if len(rows) > 1 and (instant_of(rows[0], "date") or since) <= (
                instant_of(rows[-1], "date") or since
            ):
                rows.reverse()
            return rows

        sighting = look_for(self.calls, page, message.otid, since)
        if sighting is None or message.conversation != NEW:
            return sighting
        return replace(sighting, conversation_id=self._conversations.made_for(message))

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        return read_reply(self, self.calls, message, since, run_id)

    def agents(self) -> list[Agent]:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            return self.calls.rows(
                "listing agents",
                lambda c: c.agents.with_raw_response.list(order="asc", limit=limit, **cursor),
            )

        return [_agent(row) for row in self.calls.pages(page, "after", short_page_ends=True)]

    def agent(self, agent_id: str) -> Agent | None:
        if not agent_id:  # the SDK makes no request of it
            return None
        try:
            row = self.calls.fetch(
                "asking for an agent",
                lambda c: c.agents.with_raw_response.retrieve(agent_id),
                agent=agent_id,
            )
        except DeliveryError as err:
            # 422 is what Letta answers to an id that is not of its own form.
            if err.kind == "permanent" and err.status in (404, 422):
                return None
            raise
        if text_of(row, "id") != agent_id:
            raise self.calls.failures.unreadable("asking for an agent")
        return _agent(row)

    def health(self) -> str:
        answer = self.calls.fetch("asking for its health", lambda c: c.with_raw_response.health())
        version = text_of(answer, "version")
        if version is None:
            raise self.calls.failures.unreadable("asking for its health")
        return version

    def check(self) -> None:
        self.ended_runs(1)  # small, and wants the token

    def close(self) -> None:
        self.calls.close()

    # -- how it is called

    def _stream(self, message: Message, conversation_id: str) -> str | None:
        """Send into a conversation: open the stream, read the run's id off it, close it."""

        def opened(client: Letta) -> str | None:
            seen, failure = False, None
            with client.conversations.messages.with_streaming_response.create(
                conversation_id,
                messages=[{"role": "user", "content": message.text, "otid": message.otid}],
                assistant_message_tool_name=_TAG + message.otid,
                streaming=True,
                include_pings=True,  # the first one comes at once, and names the run
            ) as response:
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    seen = True
                    if line[5:].strip() == "[DONE]":
                        break
                    event = json.loads(line[5:])
                    run_id = _run_id(event, "run_id")
                    if run_id is not None:
                        return run_id
                    if isinstance(event, dict) and (
                        event.get("message_type") == "error_message" or event.get("error")
                    ):
                        failure = failure or event
            if failure is not None:
                raise self.calls.failures.broke_off("sending", failure)
            if not seen:
                raise self.calls.failures.unreadable("sending", status=200)
            return None

        return self.calls.guarded("sending", opened, conversation=conversation_id)

    def _list_runs(self, **filters: Any) -> list[dict[str, Any]]:
        """One page of runs, newest first."""
        return self.calls.rows(
            "listing runs", lambda c: c.runs.with_raw_response.list(order="desc", **filters)
        )


def _run_id(row: object, key: str) -> str | None:
    run_id = text_of(row, key)
    return run_id if run_id is not None and _ID(run_id) else None


def _run(row: dict[str, Any]) -> Run:
    tag = text_of(row.get("request_config"), "assistant_message_tool_name")
    metadata = row.get("metadata")
    error = metadata.get("error") if isinstance(metadata, dict) else None
    if isinstance(error, dict):  # of a streamed run: an error_message
        error = error.get("detail") or error.get("message") or error.get("error_type")
    status = text_of(row, "status") or "unknown"
    if error is None and status == "failed":
        error = row.get("stop_reason")
    return Run(
        run_id=row["id"],
        agent_id=str(row.get("agent_id") or ""),
        status=status,
        otid=tag.removeprefix(_TAG) if tag and tag.startswith(_TAG) else None,
        created_at=instant_of(row, "created_at"),
        error=None if error is None else str(error)[:1000],
        conversation_id=text_of(row, "conversation_id"),
    )


def _agent(row: dict[str, Any]) -> Agent:
    return Agent(
        id=row["id"],
        name=str(row.get("name") or ""),
        model=text_of(row, "model"),
        created_at=instant_of(row, "created_at"),
        last_run_at=instant_of(row, "last_run_completion"),
    )
