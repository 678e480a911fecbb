"""What can happen to an answer, and to a notice: more of the classes of
:mod:`~promptyoself.events.records`."""

from typing import NamedTuple

from promptyoself.events import kinds
from promptyoself.events.schedule_fields import Instant


class DeliveryReplied(NamedTuple):
    """What the agent has said last in its turn over a prompt that had arrived.

    ``kept`` says how much of that is here: all of it (``full``), its beginning (``excerpt``), or
    no ``text`` (``hash``). ``bytes`` and ``sha256`` are of all of it, in UTF-8. ``tools`` are the
    names of the tools that the agent called meanwhile. ``at`` is when it said it, by the target's
    clock. ``to`` is the destination that is told of it, and ``notice`` the notice, as in
    :class:`~promptyoself.events.records.DeliverySkipped`.
    """

    slot: Instant
    otid: str
    worker: str
    kept: kinds.KeptReply
    bytes: int
    sha256: str
    text: str | None = None
    run_id: str | None = None
    tools: list[str] | None = None
    at: Instant | None = None
    to: str | None = None
    notice: str | None = None


class DeliveryUnanswered(NamedTuple):
    """No answer is there, or none can be had any more, and why. ``tools``, ``to`` and ``notice`` as
    in :class:`DeliveryReplied`."""

    slot: Instant
    otid: str
    worker: str
    code: str
    error: str
    run_id: str | None = None
    tools: list[str] | None = None
    to: str | None = None
    notice: str | None = None


class NoticeSent(NamedTuple):
    """A destination has taken a notice; ``notice`` is what it can be told by from others there.

    ``slot`` is the slot that it tells of. ``until`` is the end of the time that a digest tells of.
    ``tries`` counts how often it was sent.
    """

    notice: str
    to: str
    kind: kinds.NoticeKind
    tries: int
    slot: Instant | None = None
    until: Instant | None = None
    http_status: int | None = None


class NoticeFailed(NamedTuple):
    """A destination has not taken a notice, as far as is known. It is sent again at ``retry_at``;
    without that it was given up. The others as in :class:`NoticeSent`."""

    notice: str
    to: str
    kind: kinds.NoticeKind
    tries: int
    code: str
    error: str
    slot: Instant | None = None
    until: Instant | None = None
    http_status: int | None = None
    retry_at: Instant | None = None
