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
import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from promptyoself.core.errors import PromptyoselfError
from promptyoself.events.target_names import DEFAULT
from promptyoself.targets.api import (
    Agent,
    DeliveryError,
    Found,
    Message,
    Run,
    RunFailure,
    Sent,
    Target,
    Traits,
)
from promptyoself.targets.letta.deadline import call_within, http_client
from promptyoself.targets.letta.failures import (
    AnswerTooLong,
    Failures,
    failure_of_run,
    require_address,
)

if TYPE_CHECKING:
    from letta_client import Letta

T = TypeVar("T")

_TAG = "otid:"
_PAGE = 100
_MAX_PAGES = 1000
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

    traits = Traits("letta", "Letta", True, True, "letta_busy", timedelta(hours=1))

    def __init__(
        self, base_url: str, token: str | None = None, *, call_timeout: float = 30.0
    ) -> None:
        self._base_url = base_url.strip()
        self._url = require_address(self._base_url)
        self._token = (token or "").strip() or None
        if self._token and not re.fullmatch(r"[!-~]+", self._token):
            raise PromptyoselfError(
                "invalid_token",
                "The Letta token has characters that no HTTP header can carry.",
                "Check LETTA_API_KEY or LETTA_SERVER_PASSWORD for spaces and line ends.",
            )
        self._timeout = call_timeout
        self._failures = Failures(self._url, bool(self._token), call_timeout)
        self._lock = threading.Lock()
        self._client: Letta | None = None
        self._owners: dict[str, str] = {}

    # -- what a delivery calls

    def active_runs(self, message: Message) -> list[Run]:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            return self._list_runs(agent_id=message.agent_id, active=True, limit=limit, **cursor)

        return [_run(row) for row in self._pages(page, "before", short_page_ends=True)]

    def all_active_runs(self) -> list[Run] | None:
        # In one page or not at all: pages would be of several instants.
        try:
            rows = self._list_runs(active=True, limit=_MOST_ACTIVE)
        except AnswerTooLong:
            return None
        return [_run(row) for row in rows] if len(rows) < _MOST_ACTIVE else None

    def ended_runs(self, most: int) -> list[Run]:
        return [_run(row) for row in self._list_runs(statuses=_ENDED, limit=min(most, _PAGE))]

    def send(self, message: Message) -> Sent:
        if message.conversation != DEFAULT:
            return Sent(self._stream(message, message.conversation))
        answer = self._fetch(
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
            raise self._failures.unreadable("sending", answer, 200)
        return Sent(run_id)

    def run(self, run_id: str) -> Run:
        row = self._fetch(
            "asking for a run", lambda c: c.runs.with_raw_response.retrieve(run_id), run=run_id
        )
        if _text(row, "id") != run_id or _text(row, "status") is None:
            raise self._failures.unreadable("asking for a run", row, 200)
        return _run(row)

    def failure(self, run: Run) -> RunFailure:
        return failure_of_run(run)

    def find(self, message: Message, since: datetime) -> Found | None:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            rows = self._list(
                "reading the history",
                lambda c: c.agents.messages.with_raw_response.list(
                    message.agent_id, order="desc", limit=limit, **cursor
                ),
                agent=message.agent_id,
            )
            # Newest first: the cursor is the last. 0.16.8 tells a page oldest first all the same.
            if len(rows) > 1 and (_instant(rows[0], "date") or since) <= (
                _instant(rows[-1], "date") or since
            ):
                rows.reverse()
            return rows

        # The server tells whole seconds. Its order is that of arrival in the history, in which a
        # long turn's question can come after a younger one: so a page must be too old as a whole.
        oldest = since - timedelta(seconds=1)

        def enough(rows: list[dict[str, Any]]) -> bool:
            dates = [_instant(row, "date") for row in rows]
            return all(date is not None and date < oldest for date in dates)

        for row in self._pages(page, "before", enough):
            if row.get("otid") == message.otid and row.get("message_type") == "user_message":
                return Found(row["id"], _text(row, "run_id"), _instant(row, "date"))
        return None

    def agents(self) -> list[Agent]:
        def page(limit: int, **cursor: Any) -> list[dict[str, Any]]:
            return self._list(
                "listing agents",
                lambda c: c.agents.with_raw_response.list(order="asc", limit=limit, **cursor),
            )

        return [_agent(row) for row in self._pages(page, "after", short_page_ends=True)]

    def agent(self, agent_id: str) -> Agent | None:
        try:
            row = self._fetch(
                "asking for an agent",
                lambda c: c.agents.with_raw_response.retrieve(agent_id),
                agent=agent_id,
            )
        except DeliveryError as err:
            # 422 is what Letta answers to an id that is not of its own form.
            if err.kind == "permanent" and err.status in (404, 422):
                return None
            raise
        if _text(row, "id") != agent_id:
            raise self._failures.unreadable("asking for an agent")
        return _agent(row)

    def health(self) -> str:
        answer = self._fetch("asking for its health", lambda c: c.with_raw_response.health())
        version = _text(answer, "version")
        if version is None:
            raise self._failures.unreadable("asking for its health")
        return version

    def check(self) -> None:
        self.ended_runs(1)  # small, and wants the token

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- how it is called

    def _stream(self, message: Message, conversation_id: str) -> str | None:
        """Send into a conversation: open the stream, read the run's id off it, close it."""
        owner = self._owners.get(conversation_id)
        if owner is None:
            row = self._fetch(
                "asking for a conversation",
                lambda c: c.conversations.with_raw_response.retrieve(conversation_id),
                conversation=conversation_id,
            )
            owner = _text(row, "agent_id")
            if owner is None:
                raise self._failures.unreadable("asking for a conversation")
            if len(self._owners) > 10_000:
                self._owners.clear()
            self._owners[conversation_id] = owner
        if owner != message.agent_id:
            # Letta would deliver it to the other agent, and we would search the wrong history.
            raise DeliveryError(
                "permanent",
                "conversation_of_another_agent",
                f"Conversation {conversation_id} belongs to {owner}, not to {message.agent_id}.",
                "Cancel the schedule and register it with the agent that has the conversation.",
            )

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
                raise self._failures.broke_off("sending", failure)
            if not seen:
                raise self._failures.unreadable("sending", status=200)
            return None

        return self._guarded("sending", opened, conversation=conversation_id)

    def _list_runs(self, **filters: Any) -> list[dict[str, Any]]:
        """One page of runs, newest first."""
        return self._list(
            "listing runs", lambda c: c.runs.with_raw_response.list(order="desc", **filters)
        )

    def _list(
        self, doing: str, call: Callable[[Letta], Any], **subject: str
    ) -> list[dict[str, Any]]:
        rows = self._fetch(doing, call, **subject)
        if not isinstance(rows, list) or any(_text(row, "id") is None for row in rows):
            raise self._failures.unreadable(doing, rows, 200)
        return rows

    def _pages(
        self,
        page: Callable[..., list[dict[str, Any]]],
        cursor_name: str,
        enough: Callable[[list[dict[str, Any]]], bool] = lambda _: False,
        *,
        short_page_ends: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The rows of page after page, each once.

        They end with a page that brings nothing new, or that is ``enough``. A page that is too long
        is asked for again in smaller ones.
        """
        seen: set[str] = set()
        cursor: dict[str, str] = {}
        limit = _PAGE
        for _ in range(_MAX_PAGES):
            try:
                rows = page(limit, **cursor)
            except AnswerTooLong:
                if limit == 1:
                    raise
                limit = max(limit // 10, 1)
                continue
            news = [row for row in rows if row["id"] not in seen]
            yield from news
            if not news or enough(rows) or (short_page_ends and len(rows) < limit):
                return
            seen.update(row["id"] for row in news)
            cursor = {cursor_name: rows[-1]["id"]}
        raise self._failures.unreadable("turning pages")

    def _fetch(self, doing: str, call: Callable[[Letta], Any], **subject: str) -> Any:
        """The JSON that a raw SDK call answers; the SDK's models accept any shape silently."""

        def body(client: Letta) -> Any:
            response = call(client).http_response
            try:
                return json.loads(response.content)
            except (ValueError, RecursionError):
                status, text = response.status_code, response.text
                raise self._failures.unreadable(doing, text, status) from None

        return self._guarded(doing, body, **subject)

    def _guarded(self, doing: str, call: Callable[[Letta], T], **subject: str) -> T:
        try:
            client = self._client or self._connect()
        except Exception as err:  # the SDK is missing, or is another
            raise self._failures.explained(err, doing, subject, wrote=False) from None
        with call_within(self._timeout) as progress:
            try:
                return call(client)
            except DeliveryError:
                raise
            except Exception as err:
                # The cause is named, not chained: what httpx and the SDK raise holds headers
                # and body.
                failure = self._failures.explained(err, doing, subject, wrote=progress.wrote)
                raise failure from None

    def _connect(self) -> Letta:
        with self._lock:
            if self._client is None:
                from letta_client import Letta

                # At DEBUG the SDK logs whole requests, prompts included.
                log = logging.getLogger("letta_client")
                log.setLevel(max(log.level, logging.INFO))
                client = Letta(
                    api_key="",
                    base_url=self._base_url,
                    max_retries=0,
                    http_client=http_client(self._timeout, tls=self._url.startswith("https")),
                )
                # None in the call above would have made the SDK look into the environment.
                client.api_key = self._token
                self._client = client
            return self._client


def _text(row: object, key: str) -> str | None:
    """A value of a JSON object, if that is an object, and the value a string."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, str) else None


def _run_id(row: object, key: str) -> str | None:
    run_id = _text(row, key)
    return run_id if run_id is not None and _ID(run_id) else None


def _instant(row: dict[str, Any], key: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(_text(row, key) or "")
    except ValueError:
        return None
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def _run(row: dict[str, Any]) -> Run:
    tag = _text(row.get("request_config"), "assistant_message_tool_name")
    metadata = row.get("metadata")
    error = metadata.get("error") if isinstance(metadata, dict) else None
    if isinstance(error, dict):  # of a streamed run: an error_message
        error = error.get("detail") or error.get("message") or error.get("error_type")
    status = _text(row, "status") or "unknown"
    if error is None and status == "failed":
        error = row.get("stop_reason")
    return Run(
        run_id=row["id"],
        agent_id=str(row.get("agent_id") or ""),
        status=status,
        otid=tag.removeprefix(_TAG) if tag and tag.startswith(_TAG) else None,
        created_at=_instant(row, "created_at"),
        error=None if error is None else str(error)[:1000],
    )


def _agent(row: dict[str, Any]) -> Agent:
    return Agent(
        id=row["id"],
        name=str(row.get("name") or ""),
        model=_text(row, "model"),
        created_at=_instant(row, "created_at"),
        last_run_at=_instant(row, "last_run_completion"),
    )
