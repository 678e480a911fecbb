"""What an App Server is asked: each question is a method, which returns rows as the server tells
them, or raises what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from promptyoself.targets.api import Kind, Message
from promptyoself.targets.letta_code.connection import Connection
from promptyoself.targets.letta_code.failures import Failures
from promptyoself.targets.letta_code.history import are_older
from promptyoself.targets.letta_code.watch import Watch

Row = dict[str, Any]

_PAGE = 200
_MOST_PAGES = 1000
_IDLE_FRESH = 60.0  # seconds
_TAGS = ["origin:schedule"]  # as Letta Code's own schedules mark theirs
_MOST_CONVERSATIONS = 100_000


class Questions:
    """Questions over one connection. Each method raises
    :class:`~promptyoself.targets.api.DeliveryError`: ``permanent`` with ``agent_not_found`` or
    ``conversation_not_found``, or of the kind ``failing`` where no answer came.
    """

    def __init__(
        self,
        connection: Connection,
        failures: Failures,
        timeout: float,
        *,
        failing: Kind = "doubt",
        deadline: float | None = None,
        messages_at_once: int = _PAGE,
    ) -> None:
        """Each may take ``timeout`` seconds, and none goes on after ``deadline``, by the monotonic
        clock. ``messages_at_once`` is the longest list of messages that is asked for."""
        self.connection = connection
        self._failures = failures
        self._timeout = timeout
        self._failing = failing
        self._deadline = deadline
        self._messages_at_once = messages_at_once

    def left(self) -> float:
        """Seconds that the next question may take. Raises where there are none."""
        if self._deadline is None:
            return self._timeout
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._failures.timeout("sending", self._timeout, self._failing)
        return min(left, self._timeout)

    def sync(self, agent_id: str, conversation_id: str, *, fresh: float = 0.0) -> None:
        """Have the server tell how that conversation stands, now and from now on. It succeeds
        whether or not there is such a conversation.

        It isn't asked if it has told that within the last ``fresh`` seconds, or a minute ago at
        most that the conversation is idle: the answer takes it a fifth of the time of a turn, and
        it tells every change by itself. A conversation that is idle no more refuses a message.
        """
        doing = "being told of a conversation"
        now = time.monotonic()
        told_at, idle = self.connection.looking(agent_id, conversation_id, _told)
        if now - told_at < (max(fresh, _IDLE_FRESH) if fresh and idle else fresh):
            return
        runtime = {"agent_id": agent_id, "conversation_id": conversation_id}
        self._ask("sync", doing, runtime=runtime, recover_approvals=False)
        if self.connection.looking(agent_id, conversation_id, _told)[0] == float("-inf"):
            raise self._failures.unreadable(doing, self._failing)

    def resume_queue(self, agent_id: str, conversation_id: str) -> None:
        """Have the server go on with what waits in the queue of that conversation."""
        runtime = {"agent_id": agent_id, "conversation_id": conversation_id}
        self._ask("resume_queue", "asking it to go on with its queue", runtime=runtime)

    def agent(self, agent_id: str) -> Row:
        """An agent."""
        doing = "asking for an agent"
        return self._row(self._ask("agent_retrieve", doing, agent_id=agent_id), "agent", doing)

    def agents(self) -> list[Row]:
        """All agents. Those that ran last come first."""
        doing = "listing agents"
        agents: dict[str, Row] = {}
        query: dict[str, Any] = {"limit": _PAGE}
        for _ in range(_MOST_PAGES):
            rows = self._rows(self._ask("agent_list", doing, query=query), "agents", doing)
            agents |= {row["id"]: row for row in rows}
            if len(rows) < _PAGE:
                return list(agents.values())
            query["after"] = rows[-1]["id"]
        raise self._failures.unreadable("turning pages")

    def conversation(self, conversation_id: str) -> Row:
        """A conversation that isn't an agent's own."""
        doing = "asking for a conversation"
        answer = self._ask("conversation_retrieve", doing, conversation_id=conversation_id)
        return self._row(answer, "conversation", doing)

    def made_for(self, message: Message) -> list[str]:
        """The conversations that were made for a message, the oldest first. There is one at most,
        unless the server made one after nobody waited for it any more."""
        doing = "listing conversations"
        of_agent = {"agent_id": message.agent_id, "include_hidden": True}
        query = {**of_agent, "summary_search": message.otid, "limit": _PAGE}
        answer = self._ask("conversation_list", doing, query=query)
        rows = self._rows(answer, "conversations", doing)
        if not rows and message.tried:
            # Somebody may have given it another summary since. The server doesn't search in tags.
            query = {**of_agent, "limit": _MOST_CONVERSATIONS}
            answer = self._ask("conversation_list", doing, query=query)
            every = self._rows(answer, "conversations", doing)
            rows = [row for row in every if _mark(message) in (row.get("tags") or ())]
        # Should a person have put the otid into another one's summary, that one is younger.
        rows.sort(key=lambda row: (str(row.get("created_at")), len(row["id"]), row["id"]))
        return [row["id"] for row in rows]

    def make_for(self, message: Message) -> str:
        """A new conversation, which :meth:`made_for` finds from now on."""
        doing = "making a conversation"
        body = {
            "agent_id": message.agent_id,
            "summary": f"{message.title} [{message.otid}]".lstrip(),
            "tags": [*_TAGS, _mark(message)],
        }
        answer = self._ask("conversation_create", doing, body=body)
        conversation_id: str = self._row(answer, "conversation", doing)["id"]
        self.connection.looking(
            message.agent_id, conversation_id, lambda watch: watch.was_made(time.monotonic())
        )
        return conversation_id

    def messages(self, agent_id: str, conversation_id: str, since: datetime) -> Iterator[Row]:
        """The messages of a conversation that are in its context, the newest first, back to
        ``since`` at least."""
        doing = "reading the history"
        limit = self._messages_at_once
        query: dict[str, Any] = {"agent_id": agent_id, "order": "desc", "limit": limit}
        for _ in range(_MOST_PAGES):
            answer = self._ask(
                "conversation_messages_list", doing, conversation_id=conversation_id, query=query
            )
            rows = self._rows(answer, "messages", doing)
            yield from rows
            before = answer.get("next_before")
            if not answer.get("has_more") or not before or are_older(rows, since):
                return
            query["before"] = before
        raise self._failures.unreadable("turning pages", self._failing)

    def _ask(self, kind: str, doing: str, **fields: Any) -> Row:
        answer = self.connection.ask(kind, doing, self.left(), self._failing, **fields)
        if answer.get("success") is not True:
            raise self._failures.unknown(str(answer.get("error") or ""), doing, self._failing)
        return answer

    def _rows(self, answer: Row, key: str, doing: str) -> list[Row]:
        rows = answer.get(key)
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows
        ):
            raise self._failures.unreadable(doing, self._failing, rows)
        return rows

    def _row(self, answer: Row, key: str, doing: str) -> Row:
        return self._rows({key: [answer.get(key)]}, key, doing)[0]


def _mark(message: Message) -> str:
    """The tag of the conversation that is made for a message."""
    return f"otid:{message.otid}"


def _told(watch: Watch) -> tuple[float, bool]:
    """When something was told of it, and whether it is idle."""
    return watch.told_at if watch.loop is not None else float("-inf"), watch.idle
