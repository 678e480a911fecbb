"""How long a slot waits between two attempts to deliver it."""

from datetime import timedelta
from hashlib import sha256

_FIRST_SECONDS = 5.0
_MOST_SECONDS = 600.0
_MOST_SECONDS_ASKED_FOR = 3600.0


def retry_delay(otid: str, attempt: int, retry_after: float | None) -> timedelta:
    """How long to wait after a failed attempt; the first attempt is number 1.

    The delay is 5 s after the first attempt, then 10, 20, 40, 80, 160 and 320 s, and 600 s from the
    eighth attempt on. The slot's ``otid`` and the attempt move each delay by up to a fifth, so that
    slots that failed together don't return together. No delay of ours is longer than 600 s.

    ``retry_after`` is how many seconds the server asked for. It replaces our delay where it is
    longer, up to an hour.
    """
    digest = sha256(f"{otid}|{attempt}".encode()).digest()
    spread = 0.8 + 0.4 * int.from_bytes(digest[:4]) / 2**32
    doubled = min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** min(attempt - 1, 20)) * spread
    asked_for = min(retry_after or 0.0, _MOST_SECONDS_ASKED_FOR)
    return timedelta(seconds=max(min(doubled, _MOST_SECONDS), asked_for))
