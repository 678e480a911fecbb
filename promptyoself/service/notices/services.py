"""The services of Apprise: chats, mail, telephones. The only module that imports ``apprise``.

That takes 0.3 s, and a second for the first address, so it is done where a notice is sent, or an
address is added.
"""

from __future__ import annotations

import logging
import re
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from promptyoself.core.diagnostics import excerpt
from promptyoself.core.errors import PromptyoselfError, missing_package
from promptyoself.core.setting_values import Destination
from promptyoself.service.notices.notice import Notice, NoticeError
from promptyoself.service.notices.quotes import on_a_line

if TYPE_CHECKING:
    from apprise import Apprise

_MOST_TITLE = 250  # characters
_STATUS = re.compile(r"\berror=([1-5][0-9]{2})\b")


def is_installed() -> bool:
    """Whether Apprise is there. It isn't imported for that."""
    return find_spec("apprise") is not None


def not_installed() -> PromptyoselfError:
    """What a person is told who needs Apprise: ``missing_package``."""
    return missing_package("Destinations of Apprise need", "notify")


def is_known(address: str) -> bool:
    """Whether Apprise, which is installed, has a service for that address."""
    return _apprise(address) is not None


def deliver(destination: Destination, notice: Notice, *, timeout: float) -> None:
    """Send a notice through Apprise.

    Apprise and the libraries of its services have time limits of their own, for each read. So a
    thread does it, of which nobody hears any more once ``timeout`` seconds are over.

    Raises:
        NoticeError: ``apprise_not_installed``, ``invalid_destination``, ``destination_timeout``,
            ``destination_refused``, ``destination_failed``.
    """
    who, name = f"{destination.name} ({destination.shown})", destination.name
    if not is_installed():
        missing = not_installed()
        raise NoticeError(
            "retry", "apprise_not_installed", missing.message, missing.hint, destination=name
        )
    attempt = _Attempt(destination, notice)
    attempt.start()
    attempt.join(timeout)
    if attempt.is_alive():
        raise NoticeError(
            "retry",
            "destination_timeout",
            f"{who} did not answer within {timeout:g} s.",
            "It may have arrived. Answer first, and work afterwards.",
            destination=name,
        )
    if attempt.is_taken:
        return
    if not attempt.is_known:
        raise NoticeError(
            "retry",
            "invalid_destination",
            f"Apprise has no service for the address of {who}.",
            f"`promptyoself notify add {name} --replace` gives it another one.",
            destination=name,
        )
    said = attempt.said
    details = {"destination": name} | ({"said": said} if said else {})
    status = _STATUS.search(said)
    is_refused = status is not None and status[1][0] == "4"
    raise NoticeError(
        "retry",
        "destination_refused" if is_refused else "destination_failed",
        f"{who} did not take the notice" + (f". Apprise says: {said}" if said else "."),
        "Check its address, and whether the service is there.",
        status=int(status[1]) if status else None,
        retry_after=None,
        **details,
    )


class _Attempt(threading.Thread):
    """One notice on its way. What Apprise logs meanwhile is kept for the error."""

    def __init__(self, destination: Destination, notice: Notice) -> None:
        super().__init__(name=f"notice {notice.id}", daemon=True)
        self._destination = destination
        self._notice = notice
        self._lines: list[str] = []
        self.is_known = False
        self.is_taken = False

    @property
    def said(self) -> str:
        """What Apprise said, on one line, without secrets and without the notice."""
        text = " ".join(self._lines)
        for part in sorted(self._destination.parts, key=len, reverse=True):
            text = text.replace(part, "***")
        return excerpt(text, self._notice.text)

    def run(self) -> None:
        """See :class:`threading.Thread`."""
        logger = _quiet_logger()
        handler = _Kept(self._lines)
        logger.addHandler(handler)
        try:
            services = _apprise(self._destination.address)
            self.is_known = services is not None
            if services is not None:
                notice = self._notice
                self.is_taken = bool(
                    services.notify(
                        body=f"{notice.text}\n\n{notice.id}",
                        title=on_a_line(notice.title, _MOST_TITLE),
                        body_format="text",
                    )
                )
        except Exception as error:  # a service of Apprise's may raise what it likes
            self._lines.append(f"{type(error).__name__}: {error}")
        finally:
            logger.removeHandler(handler)


class _Kept(logging.Handler):
    """Keeps what its own thread logs of warnings and worse."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        if record.thread == self._thread:
            self._lines.append(record.getMessage())


def _quiet_logger() -> logging.Logger:
    """Apprise's logger. What it and its library for HTTP log has addresses in it, so nobody else
    gets that."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    for quiet, least in ((logger, logging.WARNING), (logging.getLogger("urllib3"), logging.ERROR)):
        quiet.setLevel(max(quiet.level, least))
    return logger


def _apprise(address: str) -> Apprise | None:
    """Apprise with that one address, or None where it has no service for it.

    It sends in our thread, follows no redirects, keeps nothing on the disk, and cuts what is too
    long for a service, unless the address says otherwise.
    """
    from apprise import Apprise, AppriseAsset
    from apprise.common import OverflowMode

    asset = AppriseAsset(
        app_id="promptyoself",
        app_desc="promptyoself",
        async_mode=False,
        http_redirects=False,
        interpret_emojis=False,
        interpret_escapes=False,
        service_timeout=0,
        storage_mode="memory",
    )
    services = Apprise(asset=asset)
    if not services.add(address):
        return None
    if "overflow=" not in address:
        for service in services:
            service.overflow_mode = OverflowMode.TRUNCATE
    return services
