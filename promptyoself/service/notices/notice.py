"""A notice as a destination gets it, and the error of one that it didn't take."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.events.kinds import NoticeKind

FailureKind = Literal["retry", "permanent"]


class Notice(NamedTuple):
    """What a destination is told."""

    id: str  # ntc_ and 16 digits, the same however often it is sent
    kind: NoticeKind | Literal["test"]
    at: str  # the instant of what it tells of
    title: str  # one line of our own words and the schedule's name
    text: str  # plain; what an agent said is quoted in it already, line by line
    document: Mapping[str, Any]  # all that it tells, as data; a webhook gets this


class NoticeError(PromptyoselfError):
    """A destination has not taken a notice, as far as is known.

    Of the kind ``retry``, it may take it later. Of the kind ``permanent``, it never will. No field
    has an address or a secret in it.
    """

    def __init__(
        self,
        kind: FailureKind,
        code: str,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        """``status`` is HTTP's, where there was an answer. ``retry_after`` is in seconds, where the
        destination asked for them."""
        if status is not None:
            details["http_status"] = status
        super().__init__(code, message, hint, **details)
        self.kind: FailureKind = kind
        self.status = status
        self.retry_after = retry_after
