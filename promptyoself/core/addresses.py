"""The address of a Letta server: what of it may be shown, and what of it is a secret.

Whatever shows an address, in an answer, an error, a log or a check, shows :func:`presentable`.
"""

from __future__ import annotations

import re

__all__ = ["credentials", "is_ambiguous", "presentable"]

_SCHEME = r"\s*[A-Za-z][A-Za-z0-9+.-]*:/+"
_LEAST = 4
"""A shorter password isn't hidden by itself: messages would lose every "x"."""
_TOKEN = 16
"""A user name of this many characters or more may be a token. The password means nothing then."""


def presentable(url: str) -> str:
    """The address as everybody may see it: without the part before the @, which names a user and a
    password, and without query and fragment.

    It needn't be a good address. Where the @ isn't in its place, everything before it is ``***``.
    """
    scheme, user, rest = _parts(url) if "@" in url else ("", "", url)
    if user and is_ambiguous(url):
        rest = f"***@{rest}"
    return scheme + rest.partition("?")[0].partition("#")[0]


def credentials(url: str) -> tuple[str, ...]:
    """What is secret in an address, in each form in which it may turn up elsewhere: as it stands,
    decoded, and as the header in which HTTP sends it."""
    if "@" not in url:
        return ()
    _, user, _ = _parts(url)
    if not user:
        return ()
    from base64 import b64encode
    from urllib.parse import unquote

    name, _, password = user.partition(":")
    plain = f"{unquote(name)}:{unquote(password)}"
    header = b64encode(plain.encode("utf-8", "surrogateescape")).decode()
    found = [user, unquote(user), header]
    found += [text for text in (password, unquote(password)) if len(text) >= _LEAST]
    if not password or len(name) >= _TOKEN:
        found += [name, unquote(name)]
    return tuple(dict.fromkeys(text for text in found if text))


def is_ambiguous(url: str) -> bool:
    """Whether an @ stands where no user ends: the password may have a ``/``, ``?`` or ``#`` as it
    is, so that a part of it would be taken for the host's name or the path."""
    if "@" not in url:
        return False
    scheme, user, _ = _parts(url)
    return bool(user) and (not scheme or not set("/?#").isdisjoint(user))


def _parts(url: str) -> tuple[str, str, str]:
    """The scheme with its slashes, what is before the last @, and the rest."""
    match = re.match(_SCHEME, url)
    scheme = match[0] if match else ""
    user, _, rest = url[len(scheme) :].rpartition("@")
    return scheme, user, rest
