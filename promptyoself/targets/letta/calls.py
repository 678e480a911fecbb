"""How a Letta is called: its SDK, and what every call of it needs. The only module that imports
``letta_client``, on first use: that costs 0.4 s, which no command that merely writes the log should
pay.

The SDK's own retries put one prompt into the history up to three times: ``max_retries=0``. Its
time-out is per read, so the connections of :mod:`~promptyoself.targets.http` honour one
deadline per call.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from promptyoself.core.errors import PromptyoselfError
from promptyoself.targets.api import DeliveryError
from promptyoself.targets.http import call_within, http_client
from promptyoself.targets.letta.failures import AnswerTooLong, Failures, require_address

if TYPE_CHECKING:
    from letta_client import Letta

T = TypeVar("T")

PAGE = 100
"""Rows of a page that are asked for."""

_MAX_PAGES = 1000


class Calls:
    """The calls to one Letta. They may be made from many threads at once.

    Each raises :class:`DeliveryError` and nothing else, within a time-out per request.
    """

    def __init__(self, base_url: str, token: str | None, call_timeout: float) -> None:
        """See :class:`~promptyoself.targets.letta.LettaClient`.

        Raises:
            PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
        """
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
        self.failures = Failures(self._url, bool(self._token), call_timeout)
        self._lock = threading.Lock()
        self._client: Letta | None = None

    def close(self) -> None:
        """Let go of connections. A later call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def fetch(self, doing: str, call: Callable[[Letta], Any], **subject: str) -> Any:
        """The JSON that a raw SDK call answers; the SDK's models accept any shape silently.

        ``subject`` names what the call is about, by its kind: ``agent``, ``conversation`` or
        ``run``. ``doing`` is what a sentence calls it.
        """

        def body(client: Letta) -> Any:
            return self._json(doing, call(client).http_response)

        return self.guarded(doing, body, **subject)

    def request(
        self,
        doing: str,
        method: str,
        path: str,
        subject: dict[str, str],
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Any:
        """As :meth:`fetch`, of a route that the SDK doesn't have."""

        def answer(client: Letta) -> Any:
            import httpx

            options: Any = {"params": query or {}}
            if method == "POST":
                response = client.post(path, cast_to=httpx.Response, body=body, options=options)
            else:
                response = client.get(path, cast_to=httpx.Response, options=options)
            return self._json(doing, response)

        return self.guarded(doing, answer, **subject)

    def rows(
        self, doing: str, call: Callable[[Letta], Any], **subject: str
    ) -> list[dict[str, Any]]:
        """As :meth:`fetch`, where a list of documents with ids is expected."""
        rows = self.fetch(doing, call, **subject)
        return self.require_rows(doing, rows)

    def require_rows(self, doing: str, rows: Any) -> list[dict[str, Any]]:
        """An answer, if it is a list of documents with ids."""
        if not isinstance(rows, list) or any(text_of(row, "id") is None for row in rows):
            raise self.failures.unreadable(doing, rows, 200)
        return rows

    def pages(
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
        limit = PAGE
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
        raise self.failures.unreadable("turning pages")

    def guarded(self, doing: str, call: Callable[[Letta], T], **subject: str) -> T:
        """What a call returns, within the time-out; what it raises, as :class:`DeliveryError`."""
        try:
            client = self._client or self._connect()
        except Exception as err:  # the SDK is missing, or is another
            raise self.failures.explained(err, doing, subject, wrote=False) from None
        with call_within(self._timeout) as progress:
            try:
                return call(client)
            except DeliveryError:
                raise
            except Exception as err:
                # The cause is named, not chained: what httpx and the SDK raise holds headers
                # and body.
                failure = self.failures.explained(err, doing, subject, wrote=progress.wrote)
                raise failure from None

    def _json(self, doing: str, response: Any) -> Any:
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            status, text = response.status_code, response.text
            raise self.failures.unreadable(doing, text, status) from None

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


def text_of(row: object, key: str) -> str | None:
    """A value of a JSON object, if that is an object, and the value a text."""
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, str) else None
