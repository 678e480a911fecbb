"""Webhooks: a notice as a POST of JSON, signed as the Standard Webhooks specification has it.

The receiver computes the signature again with the secret that both have, and so knows that the
notice is ours, and is neither changed nor old. See https://www.standardwebhooks.com.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from contextlib import closing, suppress
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from promptyoself import __version__
from promptyoself.core.diagnostics import excerpt
from promptyoself.core.setting_values import Destination
from promptyoself.core.visible import visible
from promptyoself.service.notices.notice import Notice, NoticeError
from promptyoself.service.notices.quotes import as_data
from promptyoself.targets.http import (
    TooLong,
    call_within,
    causes,
    http_client,
    retry_after,
    why_unreachable,
)

if TYPE_CHECKING:
    import httpx

SECRET_PREFIX = "whsec_"

_MOST_READ = 4096
"""Bytes of an answer that are read: it is only for people, who see the beginning of it."""

_LONGEST_HOST = 253  # characters, as in the domain name system

_GONE = 410
"""The only refusal that is believed for good: the receiver says that it wants nothing any more.
Whatever else is refused may be taken later, since people mend addresses, keys and receivers."""


def signature(secret: str, notice_id: str, timestamp: int, body: bytes) -> str:
    """What the header ``webhook-signature`` has; ``timestamp`` is in seconds of Unix time.

    Raises:
        ValueError: the secret isn't ``whsec_`` and base64.
    """
    key = b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    signed = b"%s.%d.%s" % (notice_id.encode(), timestamp, body)
    return f"v1,{b64encode(hmac.digest(key, signed, sha256)).decode()}"


def body_of(notice: Notice) -> bytes:
    """The notice as JSON: its id, type, time and title, and what it tells as ``data``."""
    document = {
        "id": notice.id,
        "type": f"notice.{notice.kind}",
        "timestamp": notice.at,
        "title": as_data(notice.title),
        "data": as_data(dict(notice.document)),
    }
    return orjson.dumps(document)


def post(destination: Destination, notice: Notice, *, timeout: float, now: datetime) -> int:
    """Send a notice to a webhook, and return HTTP's status, of 200 to 299.

    Nothing of the answer but its status decides, so a receiver may answer at leisure once that is
    there. Without a secret the notice isn't signed.

    Raises:
        NoticeError: see :func:`promptyoself.service.notices.senders.send`.
    """
    import httpx

    body = body_of(notice)
    sent_at = int(now.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"promptyoself/{__version__}",
        "webhook-id": notice.id,
        "webhook-timestamp": str(sent_at),
    }
    if destination.secret is not None:
        headers["webhook-signature"] = signature(destination.secret, notice.id, sent_at, body)
    url = destination.address
    is_tls = url.lower().startswith("https:")
    try:
        with (
            call_within(timeout) as call,
            closing(http_client(timeout, tls=is_tls, takes_packed=True)) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            if response.is_success:
                return int(response.status_code)
            said = _beginning(response)
    except (httpx.HTTPError, httpx.InvalidURL, TooLong, OSError, ValueError) as error:
        raise _broken(destination, error, timeout, wrote=call.wrote) from None
    raise _refusal(destination, response, excerpt(_without_keys(destination, said), notice.text))


def _beginning(response: httpx.Response) -> str:
    """What a refusal says, as far as it comes in time."""
    said = b""
    with suppress(Exception):  # the status is known, which is what counts
        for piece in response.iter_raw():
            said += piece
            if len(said) >= _MOST_READ:
                break
    return said[:_MOST_READ].decode("utf-8", "replace")


def _without_keys(destination: Destination, text: str) -> str:
    for part in sorted(destination.parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _host_of(address: str) -> str:
    """The host of an address that somebody else has written; ``""`` where it has none that can be
    shown."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return ""
    return visible(host, one_line=True) if len(host) <= _LONGEST_HOST else ""


def _refusal(destination: Destination, response: httpx.Response, said: str) -> NoticeError:
    status = response.status_code
    who = f"{destination.name} ({destination.shown})"
    details: dict[str, Any] = {"status": status, "destination": destination.name}
    if said:
        details["said"] = said
    if response.has_redirect_location:
        host = _without_keys(destination, _host_of(response.headers["location"]))
        return NoticeError(
            "retry",
            "destination_redirects",
            f"{who} answered with HTTP {status}, which leads elsewhere"
            f"{f' ({host})' if host else ''}. Redirects aren't followed.",
            f"Give the address that it leads to: `promptyoself notify add {destination.name} "
            "--replace`.",
            **details,
        )
    if status == _GONE:
        return NoticeError(
            "permanent",
            "destination_refused",
            f"{who} answered with HTTP 410: it is gone, and wants no notices any more.",
            f"`promptyoself notify remove {destination.name}` removes it.",
            **details,
        )
    wait = retry_after(response.headers)
    if status >= 500:
        return NoticeError(
            "retry",
            "destination_failed",
            f"{who} answered with HTTP {status}.",
            "What its receiver logs may say why.",
            retry_after=wait,
            **details,
        )
    return NoticeError(
        "retry",
        "destination_refused",
        f"{who} refused the notice with HTTP {status}.",
        "Check its address, and what its receiver logs.",
        retry_after=wait,
        **details,
    )


def _broken(
    destination: Destination, error: Exception, timeout: float, *, wrote: bool
) -> NoticeError:
    """What it means that no whole answer came."""
    roots = [error, *causes(error)]
    who, name = f"{destination.name} ({destination.shown})", destination.name
    if any("Timeout" in type(root).__name__ for root in roots):
        return NoticeError(
            "retry",
            "destination_timeout",
            f"{who} did not answer within {timeout:g} s.",
            "It may have arrived. Answer first, and work afterwards.",
            destination=name,
        )
    if not wrote:
        return NoticeError(
            "retry",
            "destination_unreachable",
            f"Cannot reach {who}: {why_unreachable(roots)}.",
            "Check that it runs, and that its address is right.",
            destination=name,
        )
    return NoticeError(
        "retry",
        "destination_connection_lost",
        f"{who} ended the connection, or answered with what isn't HTTP.",
        "It may have arrived. Answer first, and work afterwards.",
        destination=name,
    )
