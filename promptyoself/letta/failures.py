"""What a failed call means: whether the message may have arrived, and what a person can do."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from promptyoself.addresses import is_ambiguous, presentable
from promptyoself.errors import PromptyoselfError
from promptyoself.letta.protocol import DeliveryError, Kind

__all__ = ["Failures", "require_address", "retry_after"]


class Failures:
    """Turns what went wrong with one server into a :class:`DeliveryError`."""

    def __init__(self, url: str, has_token: bool, timeout: float) -> None:
        """``url`` as it may be shown; ``timeout`` in seconds, for the error's sentence."""
        self._url = url
        self._has_token = has_token
        self._timeout = timeout

    def unreadable(self, doing: str) -> DeliveryError:
        """The server answered, but not as a Letta does."""
        return DeliveryError(
            "doubt",
            "letta_unreadable",
            f"{self._url} answered {doing} with something that is not Letta's.",
            "Check that LETTA_BASE_URL is a Letta server, and not another one or a proxy.",
        )

    def explained(
        self, err: Exception, doing: str, subject: dict[str, str], *, wrote: bool
    ) -> DeliveryError:
        """What an exception of the SDK means; ``wrote``: the call had begun to write."""
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
            return self.unreadable(doing)
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
        wait = retry_after(err.response.headers)

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
                f"{answered}: it wants another token"
                if self._has_token
                else f"{answered}: no token",
                "Set LETTA_API_KEY, or LETTA_SERVER_PASSWORD where the server has a password.",
            )
        if status == 404 and "No message found" in text:
            return self.unreadable(doing)  # a cursor that vanished while we turned pages
        if status == 404:
            ours = isinstance(err.body, dict) and err.body.get("detail") not in (None, "Not Found")
            if not subject or not ours:
                # What a proxy says while Letta behind it is down, or another server for good: it
                # is no word of Letta's about the agent.
                return error(
                    "retry",
                    "letta_unreachable",
                    f"{answered}, which is not Letta's answer",
                    "Check that LETTA_BASE_URL is a Letta server, and that it is up.",
                )
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


def require_address(base_url: str) -> str:
    """The base URL as it may be shown; raises ``invalid_base_url`` where it is none."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or is_ambiguous(base_url):
        raise PromptyoselfError(
            "invalid_base_url",
            "The Letta base URL is not of the form http(s)://host[:port].",
            "Set LETTA_BASE_URL, for instance to http://localhost:8283.",
        )
    return presentable(base_url)


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


def retry_after(headers: Any) -> float | None:
    """Seconds from a Retry-After of either form, never negative; ``None`` if there is none."""
    value = str(headers.get("retry-after") or "").strip()
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    # By the server's own clock: ours may be skewed. One that tells no time hasn't said how long.
    try:
        now = parsedate_to_datetime(str(headers.get("date") or ""))
    except ValueError:
        return None
    return max(0.0, (at - (now if now.tzinfo else now.replace(tzinfo=UTC))).total_seconds())
