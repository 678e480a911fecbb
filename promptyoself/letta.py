"""The way to an agent: what a delivery needs (:class:`Deliverer`), and how Letta is asked for it.

Nothing else in the package imports ``letta_client``, and even this module does so on first use:
importing it costs 0.4 s, which no command that merely writes the log should pay.

Letta has no idempotent send, so the one thing that matters about a failed call is whether the
server *may* have received it. :attr:`DeliveryError.kind` is that answer. It is decided by one fact,
noted below the HTTP library: did this call write a single byte to a socket?

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
- A conversation's messages are among its agent's, its runs among the agent's runs.
- A run of a server that was killed stays ``created`` or ``running`` for ever.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from promptyoself.errors import PromptyoselfError

if TYPE_CHECKING:
    from letta_client import Letta

__all__ = [
    "Agent",
    "Deliverer",
    "DeliveryError",
    "Found",
    "Kind",
    "LettaDeliverer",
    "Message",
    "Run",
    "run_failure_is_busy",
    "run_failure_is_permanent",
]

Kind = Literal["retry", "busy", "permanent", "unauthorized", "doubt"]
T = TypeVar("T")

_TAG = "otid:"
_PAGE = 100
_MAX_PAGES = 1000
_CONNECTIONS = 128  # twice the most threads that a loop may run
_KEEPALIVE = 2.0  # seconds; uvicorn, which serves Letta, drops idle connections after 5
_CONNECT_TIMEOUT = 10.0
_CHUNK = 16 * 1024


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
    ``status`` is the HTTP status where there was one. Neither the token nor the prompt is in it.
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
        **details: Any,
    ) -> None:
        if status is not None:
            details["http_status"] = status
        super().__init__(code, message, hint, **details)
        self.kind: Kind = kind
        self.status = status
        self.retry_after = retry_after


class Deliverer(Protocol):
    """Where prompts are delivered to. Every method may be called from many threads at once.

    Each answers or raises :class:`DeliveryError` within a time-out per request, and raises nothing
    else. Any may raise ``retry``, ``unauthorized`` and ``doubt``; the rest is said below.
    """

    def active_runs(self, agent_id: str) -> list[Run]:
        """The agent's runs that have not ended, newest first, in conversations or not.

        Empty for an agent that is not known. After a crash the server keeps dead ones for ever.
        """
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
    """Whether a failed run's error says that the model refuses the key or the account (401, 402).

    Letta prefixes its code, and most providers' own text follows: ``UNAUTHENTICATED:
    Authentication failed with OpenAI: Error code: 401 - {…}``, ``PAYMENT_REQUIRED: Insufficient
    credits: Error code: 402 - {…}``. Anything else (rate limits, 5xx, time-outs) may pass.
    """
    head = re.sub(r"\s+", " ", error or "").strip()[:200]
    return bool(
        re.match(r"(UNAUTHENTICATED|PAYMENT_REQUIRED|llm_authentication|llm_insufficient)", head)
        or re.match(r"[^{]*\bError code: 40[12]\b", head)
    )


def run_failure_is_busy(error: str | None) -> bool:
    """Whether a run failed only since its agent waits for an approval or is occupied.

    An asynchronous send to such an agent is taken (200), and its run then fails with ``CONFLICT:
    Cannot send a new message: …``, the message not stored: so it is to be waited for, as a 409 is.
    """
    return bool(re.match(r"\s*CONFLICT: Cannot send a new message", error or ""))


# --- one deadline for each call -------------------------------------------------------------------


class _Call(threading.local):
    """This thread's call in progress: when it must be over, and whether a byte has left us."""

    deadline: float | None = None
    wrote = False


_call = _Call()


def _left(timeout: float | None, error: str) -> float | None:
    """Seconds that a single operation may take; raises httpcore's ``error`` when none are left."""
    if _call.deadline is None:
        return timeout
    left = _call.deadline - time.monotonic()
    if left <= 0:
        import httpcore

        raise getattr(httpcore, error)("the call's deadline has passed")
    return left if timeout is None else min(left, timeout)


class _Stream:
    """A connection whose reads and writes end at the call's deadline (httpcore's NetworkStream)."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._inner.read(max_bytes, _left(timeout, "ReadTimeout"))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces, as the inner stream applies its time-out to each of its sends anew.
        for start in range(0, len(buffer), _CHUNK):
            left = _left(timeout, "WriteTimeout")
            _call.wrote = True
            self._inner.write(buffer[start : start + _CHUNK], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        left = _left(timeout, "ConnectTimeout")
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend:
    """Opens such connections (httpcore's NetworkBackend)."""

    def __init__(self) -> None:
        import httpcore

        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        import httpcore

        # One by one, since ``socket.create_connection`` gives each address the whole time-out.
        # The resolver has its own, which nobody can shorten from here.
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as err:  # socket.gaierror, or a name that cannot be encoded
            raise httpcore.ConnectError("name resolution failed") from err
        except UnicodeError as err:
            raise httpcore.ConnectError("not a host name") from err
        failure: Exception = httpcore.ConnectError("no address")
        for *_, address in addresses:
            try:
                return _Stream(
                    self._inner.connect_tcp(
                        str(address[0]),
                        port,
                        _left(timeout, "ConnectTimeout"),
                        local_address,
                        socket_options,
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as err:
                failure = err
        raise failure

    def connect_unix_socket(self, *_: Any, **__: Any) -> _Stream:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _http_client(call_timeout: float, *, tls: bool) -> Any:
    import httpcore
    import httpx

    # The environment decides on certificates (SSL_CERT_FILE, SSL_CERT_DIR), not on proxies nor,
    # by ~/.netrc, on passwords: what is sent once must go to the server that was named, and a
    # proxy's 403, 502 or silent repetition would be taken for Letta's own.
    # Reading the certificates takes 30 ms, so only where they are needed.
    context = httpx.create_ssl_context(trust_env=True) if tls else None
    transport = httpx.HTTPTransport(verify=context or False)
    transport._pool.close()
    transport._pool = httpcore.ConnectionPool(
        ssl_context=context,
        max_connections=_CONNECTIONS,
        max_keepalive_connections=_CONNECTIONS,
        keepalive_expiry=_KEEPALIVE,
        network_backend=_Backend(),  # type: ignore[arg-type]
    )
    timeout = httpx.Timeout(call_timeout, connect=min(call_timeout, _CONNECT_TIMEOUT))
    # A redirect is refused: a POST would be repeated elsewhere, or turned into a GET.
    return httpx.Client(
        transport=transport, timeout=timeout, trust_env=False, follow_redirects=False
    )


# --- Letta ----------------------------------------------------------------------------------------


class LettaDeliverer(Deliverer):
    """The deliverer that speaks to one Letta server, through its SDK.

    What its methods promise stands at :class:`Deliverer`.

    Args:
        base_url: ``http(s)://host[:port][/prefix]``.
        token: API key or server password, sent as a bearer token; None or empty: none is sent.
        call_timeout: seconds that one HTTP request may take, however slowly it answers.

    Raises:
        PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
    """

    def __init__(
        self, base_url: str, token: str | None = None, *, call_timeout: float = 30.0
    ) -> None:
        self._base_url = base_url.strip()
        self._url = _presentable(self._base_url)
        self._token = (token or "").strip() or None
        if self._token and not re.fullmatch(r"[!-~]+", self._token):
            raise PromptyoselfError(
                "invalid_token",
                "The Letta token has characters that no HTTP header can carry.",
                "Check LETTA_API_KEY or LETTA_SERVER_PASSWORD for spaces and line ends.",
            )
        self._timeout = call_timeout
        self._lock = threading.Lock()
        self._client: Letta | None = None
        self._owners: dict[str, str] = {}

    # -- the protocol

    def active_runs(self, agent_id: str) -> list[Run]:
        def page(cursor: str | None) -> list[dict[str, Any]]:
            more: dict[str, Any] = {"before": cursor} if cursor else {}
            return self._list(
                "listing runs",
                lambda c: c.runs.with_raw_response.list(
                    agent_id=agent_id, active=True, order="desc", limit=_PAGE, **more
                ),
            )

        return [_run(row) for row in self._pages(page, short_page_ends=True)]

    def send(self, message: Message) -> str | None:
        if message.conversation_id and message.conversation_id != "default":
            return self._stream(message, message.conversation_id)
        answer = self._ask(
            "sending",
            lambda c: c.agents.messages.with_raw_response.create_async(
                message.agent_id,
                messages=[{"role": "user", "content": message.text, "otid": message.otid}],
                assistant_message_tool_name=_TAG + message.otid,
            ),
            agent=message.agent_id,
        )
        run_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(run_id, str) or not run_id:
            raise self._unreadable("sending")
        return run_id

    def run(self, run_id: str) -> Run:
        row = self._ask(
            "asking for a run", lambda c: c.runs.with_raw_response.retrieve(run_id), run=run_id
        )
        if (
            not isinstance(row, dict)
            or row.get("id") != run_id
            or not isinstance(row.get("status"), str)
        ):
            raise self._unreadable("asking for a run")
        return _run(row)

    def find(
        self, agent_id: str, conversation_id: str | None, otid: str, since: datetime
    ) -> Found | None:
        filters: dict[str, Any] = {}
        if conversation_id and conversation_id != "default":
            filters["conversation_id"] = conversation_id

        def page(cursor: str | None) -> list[dict[str, Any]]:
            more: dict[str, Any] = {**filters, "before": cursor} if cursor else filters
            rows = self._list(
                "reading the history",
                lambda c: c.agents.messages.with_raw_response.list(
                    agent_id, order="desc", limit=_PAGE, **more
                ),
                agent=agent_id,
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

        for row in self._pages(page, enough):
            if row.get("otid") == otid and row.get("message_type") == "user_message":
                run_id = row.get("run_id")
                return Found(
                    str(row["id"]),
                    run_id if isinstance(run_id, str) else None,
                    _instant(row, "date"),
                )
        return None

    def agents(self) -> list[Agent]:
        def page(cursor: str | None) -> list[dict[str, Any]]:
            more: dict[str, Any] = {"after": cursor} if cursor else {}
            return self._list(
                "listing agents",
                lambda c: c.agents.with_raw_response.list(order="asc", limit=_PAGE, **more),
            )

        return [_agent(row) for row in self._pages(page, short_page_ends=True)]

    def agent(self, agent_id: str) -> Agent | None:
        try:
            row = self._ask(
                "asking for an agent",
                lambda c: c.agents.with_raw_response.retrieve(agent_id),
                agent=agent_id,
            )
        except DeliveryError as err:
            # 422 is what Letta answers to an id that is not of its own form.
            if err.kind == "permanent" and err.status in (404, 422):
                return None
            raise
        if not isinstance(row, dict) or row.get("id") != agent_id:
            raise self._unreadable("asking for an agent")
        return _agent(row)

    def health(self) -> str:
        answer = self._ask("asking for its health", lambda c: c.with_raw_response.health())
        version = answer.get("version") if isinstance(answer, dict) else None
        if not isinstance(version, str):
            raise self._unreadable("asking for its health")
        return version

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # -- below it

    def _stream(self, message: Message, conversation_id: str) -> str | None:
        """Send into a conversation: open the stream, read the run's id off it, close it."""
        owner = self._owners.get(conversation_id)
        if owner is None:
            row = self._ask(
                "asking for a conversation",
                lambda c: c.conversations.with_raw_response.retrieve(conversation_id),
                conversation=conversation_id,
            )
            owner = row.get("agent_id") if isinstance(row, dict) else None
            if not isinstance(owner, str):
                raise self._unreadable("asking for a conversation")
            if len(self._owners) > 10_000:
                self._owners.clear()
            self._owners[conversation_id] = owner
        if owner != message.agent_id:
            # It would be delivered, to another agent, in whose stead we'd search the wrong history.
            raise DeliveryError(
                "permanent",
                "conversation_of_another_agent",
                f"Conversation {conversation_id} belongs to {owner}, not to {message.agent_id}.",
                "Cancel the schedule and register it with the agent that has the conversation.",
            )

        def opened(client: Letta) -> str | None:
            seen = False
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
                    if isinstance(event, dict) and isinstance(event.get("run_id"), str):
                        return str(event["run_id"])
            if not seen:
                raise self._unreadable("sending")
            return None

        return self._guarded("sending", opened, conversation=conversation_id)

    def _list(
        self, doing: str, call: Callable[[Letta], Any], **subject: str
    ) -> list[dict[str, Any]]:
        rows = self._ask(doing, call, **subject)
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows
        ):
            raise self._unreadable(doing)
        return rows

    def _pages(
        self,
        page: Callable[[str | None], list[dict[str, Any]]],
        enough: Callable[[list[dict[str, Any]]], bool] = lambda _: False,
        *,
        short_page_ends: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Rows of page after page, each once, until one brings nothing new or is ``enough``."""
        seen: set[str] = set()
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            rows = page(cursor)
            news = [row for row in rows if row["id"] not in seen]
            yield from news
            if not news or enough(rows) or (short_page_ends and len(rows) < _PAGE):
                return
            seen.update(row["id"] for row in news)
            cursor = rows[-1]["id"]
        raise self._unreadable("turning pages")

    def _ask(self, doing: str, call: Callable[[Letta], Any], **subject: str) -> Any:
        """The JSON that a raw SDK call answers. The SDK's models take any shape without a word."""

        def body(client: Letta) -> Any:
            return json.loads(call(client).http_response.content)

        return self._guarded(doing, body, **subject)

    def _guarded(self, doing: str, call: Callable[[Letta], T], **subject: str) -> T:
        client = self._client or self._connect()
        _call.deadline, _call.wrote = time.monotonic() + self._timeout, False
        try:
            return call(client)
        except DeliveryError:
            raise
        except Exception as err:
            # The cause is named, not chained: what httpx and the SDK raise holds headers and body.
            raise self._explained(err, doing, subject, wrote=_call.wrote) from None
        finally:
            _call.deadline = None

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
                    http_client=_http_client(self._timeout, tls=self._url.startswith("https")),
                )
                # None in the call above would have made the SDK look into the environment.
                client.api_key = self._token
                self._client = client
            return self._client

    def _unreadable(self, doing: str) -> DeliveryError:
        return DeliveryError(
            "doubt",
            "letta_unreadable",
            f"{self._url} answered {doing} with something that is not Letta's.",
            "Check that LETTA_BASE_URL is a Letta server, and not another one or a proxy.",
        )

    def _explained(
        self, err: Exception, doing: str, subject: dict[str, str], *, wrote: bool
    ) -> DeliveryError:
        from letta_client import APIStatusError

        if isinstance(err, APIStatusError):
            return self._refused(err, doing, subject)
        roots = [err, *_causes(err)]
        cause = type(roots[-1]).__name__
        if not wrote:
            names = {type(root).__name__ for root in roots}
            unfit = isinstance(err, ValueError | TypeError) or "LocalProtocolError" in names
            if not unfit:
                return DeliveryError(
                    "retry",
                    "letta_unreachable",
                    f"Cannot reach Letta at {self._url} ({_reason(roots)}).",
                    "Start the server, or set LETTA_BASE_URL to where it is.",
                    cause=cause,
                )
            return DeliveryError(
                "permanent",
                "letta_rejected",
                f"The request to {self._url} could not even be written ({cause}).",
                "Check the agent id and the text of the prompt.",
                cause=cause,
            )
        if any("Timeout" in type(root).__name__ for root in roots):
            return DeliveryError(
                "doubt",
                "letta_timeout",
                f"Letta at {self._url} did not answer {doing} within {self._timeout:g} s.",
                "Nothing is sent again before the agent's history has been looked through.",
                cause=cause,
            )
        if isinstance(err, ValueError):
            return self._unreadable(doing)
        return DeliveryError(
            "doubt",
            "letta_connection_lost",
            f"The connection to {self._url} broke while {doing} ({cause}).",
            "Nothing is sent again before the agent's history has been looked through.",
            cause=cause,
        )

    def _refused(self, err: Any, doing: str, subject: dict[str, str]) -> DeliveryError:
        """Classify by HTTP status. The body is read for a decision, never quoted: it may echo."""
        status: int = err.status_code
        text = json.dumps(err.body) if err.body is not None else ""
        wait = _retry_after(err.response.headers)

        def error(kind: Kind, code: str, sentence: str, hint: str = "") -> DeliveryError:
            return DeliveryError(
                kind, code, f"{self._url} {sentence}.", hint, status=status, retry_after=wait
            )

        answered = f"answered {doing} with HTTP {status}"
        if status in (401, 403):
            if '"llm_' in text or '"bedrock_' in text:  # the model's refusal, passed on
                return error("permanent", "letta_rejected", f"{answered}: the model refuses")
            return error(
                "unauthorized",
                "letta_unauthorized",
                f"{answered}: it wants another token" if self._token else f"{answered}: no token",
                "Set LETTA_API_KEY, or LETTA_SERVER_PASSWORD where the server has a password.",
            )
        if status == 404 and "No message found" in text:
            return self._unreadable(doing)  # a cursor that vanished while we turned pages
        if status == 404 and subject and '"Not Found"' not in text:
            thing, name = next(iter(subject.items()))
            return error(
                "permanent",
                f"{thing}_not_found",
                f"does not know {thing} {name} (HTTP 404)",
                "`promptyoself agents` lists what it has." if thing == "agent" else "",
            )
        if status == 408:
            return error("retry", "letta_timeout", answered)
        if status == 409:
            if "PENDING_APPROVAL" in text or "waiting for approval" in text:
                return error("busy", "letta_busy", f"{answered}: the agent awaits an approval")
            if re.search(r"BUSY|busy|being processed|in progress", text):
                return error("busy", "letta_busy", f"{answered}: the agent is occupied")
            return error("retry", "letta_conflict", answered)
        if status in (425, 429):
            return error("retry", "letta_rate_limited", f"{answered}: too many requests")
        if 300 <= status < 400:
            return error(
                "permanent",
                "letta_rejected",
                f"{answered}: a redirect",
                "Set LETTA_BASE_URL to it.",
            )
        if 400 <= status < 500 and status != 499:  # 499: it lost sight of us, and may have gone on
            return error("permanent", "letta_rejected", answered)
        return error("doubt", "letta_server_error", answered)


def _presentable(base_url: str) -> str:
    """The base URL without user information; raises ``invalid_base_url``."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PromptyoselfError(
            "invalid_base_url",
            "The Letta base URL is not of the form http(s)://host[:port].",
            "Set LETTA_BASE_URL, for instance to http://localhost:8283.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def _causes(err: BaseException) -> Iterator[BaseException]:
    for _ in range(10):
        following = err.__cause__ or err.__context__
        if following is None:
            return
        yield following
        err = following


def _reason(roots: Iterable[BaseException]) -> str:
    for root in roots:
        if isinstance(root, socket.gaierror):
            return "its name is not known"
        if isinstance(root, ConnectionRefusedError):
            return "connection refused"
        if isinstance(root, TimeoutError):
            return "no answer to connecting"
    return "no connection"


def _retry_after(headers: Any) -> float | None:
    """Seconds from a Retry-After of either form, never negative."""
    value = str(headers.get("retry-after") or "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    # By the server's own clock where it tells it: ours may be skewed.
    try:
        now = parsedate_to_datetime(str(headers.get("date") or ""))
    except ValueError:
        now = datetime.now(UTC)
    return max(0.0, (at - (now if now.tzinfo else now.replace(tzinfo=UTC))).total_seconds())


def _instant(row: dict[str, Any], key: str) -> datetime | None:
    value = row.get(key)
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _run(row: dict[str, Any]) -> Run:
    config = row.get("request_config")
    tag = config.get("assistant_message_tool_name") if isinstance(config, dict) else None
    metadata = row.get("metadata")
    error = metadata.get("error") if isinstance(metadata, dict) else None
    if isinstance(error, dict):  # of a streamed run: an error_message
        error = error.get("detail") or error.get("message") or error.get("error_type")
    status = row.get("status")
    if error is None and status == "failed":
        error = row.get("stop_reason")
    return Run(
        run_id=str(row["id"]),
        agent_id=str(row.get("agent_id") or ""),
        status=status if isinstance(status, str) else "unknown",
        otid=tag[len(_TAG) :] if isinstance(tag, str) and tag.startswith(_TAG) else None,
        created_at=_instant(row, "created_at"),
        error=None if error is None else str(error)[:1000],
    )


def _agent(row: dict[str, Any]) -> Agent:
    model = row.get("model")
    return Agent(
        id=str(row["id"]),
        name=str(row.get("name") or ""),
        model=model if isinstance(model, str) else None,
        created_at=_instant(row, "created_at"),
        last_run_at=_instant(row, "last_run_completion"),
    )
