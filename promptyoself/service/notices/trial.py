"""A notice that says that it is a test, so that a person sees whether a destination takes any."""

import time
from datetime import datetime
from typing import Any, Final

from promptyoself.core.ids import notice_id
from promptyoself.core.instants import format_utc
from promptyoself.core.setting_values import Destination
from promptyoself.service.notices.notice import Notice
from promptyoself.service.notices.senders import destination_agent, send

_KIND: Final = "test"


def notice_for(destination: Destination, now: datetime) -> Notice:
    """What is sent."""
    at = format_utc(now)
    return Notice(
        notice_id(destination.name, _KIND, "", at),
        _KIND,
        at,
        f"promptyoself: a test of {destination.name}",
        f"This is a test. promptyoself can send its notices to {destination.name}.",
        {"destination": destination.name, "text": "This is a test."},
    )


def try_out(destination: Destination, timeout: float, now: datetime) -> dict[str, Any]:
    """Send a test to a destination, within ``timeout`` seconds, and say what came of it.

    An agent gets nothing: what it would get is a prompt, which costs a turn, and stays in its
    history.

    Raises:
        NoticeError: it wasn't taken; see :func:`promptyoself.service.notices.senders.send`.
    """
    answer: dict[str, Any] = {"name": destination.name, "kind": destination.kind}
    agent_id = destination_agent(destination)
    if agent_id is not None:
        return answer | {
            "sent": False,
            "message": f"{destination.name} is the agent {agent_id}. A notice for it is a prompt, "
            "registered for it; a test registers none.",
        }
    notice = notice_for(destination, now)
    begun = time.monotonic()
    status = send(destination, notice, timeout=timeout, now=now)
    answer |= {"sent": True, "notice": notice.id}
    if status is not None:
        answer["http_status"] = status
    said = "" if status is None else f" It answered with HTTP {status}."
    return answer | {
        "latency_ms": round((time.monotonic() - begun) * 1000),
        "message": f"{destination.name} ({destination.shown}) has taken the notice.{said}",
    }
