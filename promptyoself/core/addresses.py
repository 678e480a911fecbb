"""The addresses of Letta servers and App Servers: their parts, and which of them are secrets.

Answers, errors, logs and checks show an address as :func:`presentable` gives it.
"""

import re
from typing import NamedTuple

_SCHEME = r"\s*[A-Za-z][A-Za-z0-9+.-]*:/+"
_LEAST = 4
"""A shorter password isn't hidden by itself: messages would lose every "x"."""
_TOKEN = 16
"""A user name of this many characters or more may be a token. The password means nothing then."""
_WEB_SOCKET = r"(wss?)://([^\s/?#@\[\]:]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/[^\s?#@]*)?"


class WebSocket(NamedTuple):
    """Where a WebSocket is, as an address without a user, a query or a fragment says it."""

    is_secure: bool
    host: str  # without the brackets around one of IPv6
    port: int | None
    path: str


def web_socket(url: str) -> WebSocket | None:
    """The parts of an address such as ``ws://127.0.0.1:4500``, or None where it isn't one."""
    match = re.fullmatch(_WEB_SOCKET, url)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        return None
    port = None if match[3] is None else int(match[3])
    return WebSocket(match[1] == "wss", match[2].strip("[]"), port, match[4] or "")


def presentable(url: str) -> str:
    """The address as everybody may see it: without user, password, query and fragment.

    It needn't be a good address. If it is ambiguous, everything before the @ becomes ``***``.
    """
    scheme, user, address = _parts(url)
    if user and is_ambiguous(url):
        address = f"***@{address}"
    return scheme + address.partition("?")[0].partition("#")[0]


def credentials(url: str) -> tuple[str, ...]:
    """The secrets of an address: as they are written, decoded, and as the header of HTTP."""
    _, user, _ = _parts(url)
    if not user:
        return ()
    from base64 import b64encode
    from urllib.parse import unquote

    name, _, password = user.partition(":")
    plain = f"{unquote(name)}:{unquote(password)}"
    header = b64encode(plain.encode("utf-8", "surrogateescape")).decode()
    secrets = [user, unquote(user), header]
    secrets += [text for text in (password, unquote(password)) if len(text) >= _LEAST]
    if not password or len(name) >= _TOKEN:
        secrets += [name, unquote(name)]
    return tuple(dict.fromkeys(text for text in secrets if text))


def is_ambiguous(url: str) -> bool:
    """Whether the address has an @, but no user that ends there. The password may have a ``/``,
    ``?`` or ``#`` that isn't encoded, and a part of it would be read as the host or the path."""
    scheme, user, _ = _parts(url)
    return bool(user) and (not scheme or not set("/?#").isdisjoint(user))


def is_loopback(host: str) -> bool:
    """Whether what goes to that host stays on this machine, as far as its name tells."""
    return host == "localhost" or host.endswith(".localhost") or host == "::1" or host[:4] == "127."


def _parts(url: str) -> tuple[str, str, str]:
    """The scheme with its slashes, the text before the last @, and the text behind it."""
    match = re.match(_SCHEME, url)
    scheme = match[0] if match else ""
    user, _, address = url[len(scheme) :].rpartition("@")
    return scheme, user, address
