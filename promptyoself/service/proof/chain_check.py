"""Reading the whole log and checking all of it: links, events, and what was recorded of sealed
months; a long one on two cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from promptyoself.core.errors import ChainError
from promptyoself.events.records import VERSIONS
from promptyoself.index.form import Form
from promptyoself.ledger import START, Batch, Envelope, FileLedger, Gap, HeadMoved, Position
from promptyoself.ledger.maintenance import Share
from promptyoself.state.fold import Loss
from promptyoself.state.schedules import CHAIN
from promptyoself.store.chain import Chain

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Checked", "check", "check_in_shares"]

_TELL_EVERY = 500

SHARED_BYTES = 8 * 1024 * 1024
"""A log of so many bytes is worth a second process: reading it takes a second or more, and starting
one a fifth of that."""


class Checked(NamedTuple):
    """A log that was found sound, up to a ``position``: the hash that was ``found`` at the event
    asked for, how many ``months`` have events, how many are ``sealed``, an event that is too new
    to be read, and the ``losses`` that are stated."""

    position: Position
    found: str | None
    months: int
    sealed: int
    newer: str | None
    losses: Sequence[Loss] = ()


def check(
    form: Form[Any],
    batches: Iterable[Batch],
    seq: int,
    progress: Callable[[int], None] | None = None,
) -> Checked:
    """Read events, and fold them as their chain's ``form`` has it; ``seq`` is the number of one
    whose hash is wanted.

    Raises:
        ChainError: ``corrupt_chain``, naming the first bad event, or the record of a sealed month
            that isn't what was sealed.
    """
    position, found, told = START, START.hash if seq == 0 else None, 0
    months = _Months()

    def events() -> Iterator[Envelope]:
        nonlocal position, found, told
        for batch in batches:
            for event in batch.envelopes:
                if event.seq == seq + 1 and (batch.gap is None or event.seq != batch.gap.first):
                    found = event.prev
            yield from batch.folded()
            months.add(batch)
            position = batch.position
            if position.seq == seq:
                found = position.hash
            if progress is not None and position.seq >= told + _TELL_EVERY:
                told = position.seq
                progress(told)

    state = form.fold(form.empty, events())
    losses = form.losses(state).recorded
    return Checked(position, found, months.count, months.sealed, form.newer(state), losses)


def check_in_shares(
    store: Chain[Any], seq: int, progress: Callable[[int], None] | None = None
) -> Checked | None:
    """As :func:`check` of all that the log has now, half of the ids in another process. Where
    that isn't worth it, or either finds anything wrong, ``None``: reading it in one tells what."""
    if _bytes(store.folder) < SHARED_BYTES or _cores() < 2 or not sys.executable:
        return None
    from multiprocessing import get_context

    mine, theirs = store.ledger.shares(2)
    # Not forked: what other threads of ours hold at that moment would be held there for ever.
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (store.folder, store.name, theirs, seq, sender)
    other = context.Process(target=_check_share, args=arguments, daemon=True)
    try:
        other.start()
        sender.close()
        ours = check(store.form, store.ledger.replay_share(mine), seq, progress)
        read: Checked | None = receiver.recv()
    except (ChainError, HeadMoved, EOFError, OSError):
        return None
    finally:
        receiver.close()
        if other.pid is not None:
            other.kill()
            other.join()
    if read is None or read.position != ours.position:
        return None
    return ours._replace(found=ours.found or read.found, newer=ours.newer or read.newer)


def _check_share(folder: Path, name: str, share: Share, seq: int, sender: Connection) -> None:
    try:
        sender.send(check(_form_of(name), FileLedger(folder, name).replay_share(share), seq))
    except (ChainError, HeadMoved, OSError):
        sender.send(None)


def _form_of(name: str) -> Form[Any]:
    """The form of a chain's state, by the chain's name, for a form can't be sent to a process."""
    if name == CHAIN:
        from promptyoself.index.schedule_form import SCHEDULE_FORM

        return SCHEDULE_FORM
    from promptyoself.index.desire_form import DESIRE_FORM

    return DESIRE_FORM


def _bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.glob("*.ndjson.gz"))
    except OSError:
        return 0


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Months:
    """What was read of each month, against what was recorded of it when it was sealed."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[int, Any]] = {}
        self._open: dict[Gap, str] = {}  # not stated yet, with the month in which the chain goes on
        self.sealed = 0

    @property
    def count(self) -> int:
        """How many months have events."""
        return len(self._read)

    def add(self, batch: Batch) -> None:
        """Take in the next events, and check the records among them.

        Raises:
            ChainError: ``corrupt_chain``.
        """
        month = batch.position.month
        if batch.gap is not None:
            self._open[batch.gap] = month
        for event in batch.envelopes:
            if event.type == "segment.sealed" and event.v <= VERSIONS[event.type]:
                self._check(event, month)
            elif event.type == "ledger.recovered":
                said = tuple(event.data.get(name) for name in Gap._fields)
                self._open = {gap: month for gap, month in self._open.items() if gap != said}
        events, content = self._read.get(month) or (0, sha256())
        content.update(batch.content)
        self._read[month] = (events + batch.content.count(b"\n"), content)

    def _check(self, event: Envelope, month: str) -> None:
        sealed = event.data.get("month")
        expected = {name: event.data.get(name) for name in ("events", "content_sha256")}
        found: dict[str, Any] = {"events": 0, "content_sha256": None}
        if isinstance(sealed, str) and sealed != month and sealed in self._read:
            events, content = self._read[sealed]
            found = {"events": events, "content_sha256": content.hexdigest()}
        if found != expected and not (isinstance(sealed, str) and self._is_broken(sealed)):
            raise ChainError(
                "corrupt_chain",
                f"Event {event.seq} records that {sealed} was sealed, with another content than "
                "it has.",
                "Nothing was changed. That month or this record was rewritten, and the chain after "
                "it: compare it with a backup, which `promptyoself verify --var BACKUP` proves.",
                month=sealed,
                seq=event.seq,
                expected=expected,
                found=found,
            )
        self.sealed += 1

    def _is_broken(self, month: str) -> bool:
        """Whether a gap that is stated only later lies in the month, or between it and its record.
        Then it may lack some of what was recorded of it; what it has is held by the links."""
        return any(month <= after for after in self._open.values())
