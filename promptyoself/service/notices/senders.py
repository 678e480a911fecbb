"""Sending a notice: which way leads to which destination."""

from datetime import datetime

from promptyoself.core.diagnostics import register_secrets
from promptyoself.core.setting_values import AGENT, Destination
from promptyoself.service.notices.notice import Notice, NoticeError
from promptyoself.service.notices.services import deliver
from promptyoself.service.notices.webhook import post

__all__ = ["Notice", "NoticeError", "destination_agent", "send"]


def destination_agent(destination: Destination) -> str | None:
    """The id of the agent that the destination is, if it is one. A notice for an agent is a prompt,
    which is registered and not sent."""
    if destination.kind != "agent":
        return None
    return destination.address.removeprefix(AGENT)


def send(destination: Destination, notice: Notice, *, timeout: float, now: datetime) -> int | None:
    """Send a notice, once, within ``timeout`` seconds. Returns HTTP's status, where there is one.

    The destination isn't an agent.

    Raises:
        NoticeError: ``destination_unreachable``, ``destination_timeout``,
            ``destination_connection_lost``, ``destination_refused``, ``destination_redirects``,
            ``destination_failed``; of Apprise's services ``apprise_not_installed`` and
            ``invalid_destination`` too.
    """
    register_secrets(*destination.secrets)
    if destination.kind == "apprise":
        deliver(destination, notice, timeout=timeout)
        return None
    return post(destination, notice, timeout=timeout, now=now)
