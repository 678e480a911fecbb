"""Commands about a whole log: check all of it, name its head, rebuild its index."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, cast

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.events.versions import VERSIONS
from promptyoself.ledger import START, Batch, Envelope, Gap, Position, Torn
from promptyoself.service.proof import answers
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains


def verify_all(store: Store) -> answers.LogVerified:
    """:func:`verify` of every chain there is; what it says of the desires' is under ``desires``."""
    answer = verify(store)
    for chain in chains(store)[1:]:
        answer["desires"] = {**verify(chain)}
    return answer


def verify(store: Chain[Any], expected: str | None = None) -> answers.LogVerified:
    """Read every event and check it; ``expected`` is a head ``SEQ:HASH`` that was kept elsewhere.
    Memory doesn't grow with the number of events.

    Raises:
        PromptyoselfError: ``invalid_head``.
        ChainError: ``corrupt_chain``, naming the first bad event, or the record of a sealed month
            that isn't what was sealed; ``head_not_on_chain``;
            ``damaged_tail`` where the end is no append that was merely cut short;
            ``events_missing`` where the index bears witness that events were cut off.
    """
    with store.naming():
        return _verified(store, expected)


def _verified(store: Chain[Any], expected: str | None) -> answers.LogVerified:
    seq, hash_ = _parse_head(expected) if expected is not None else (0, START.hash)
    witness = store.witness()  # before the log, which may grow meanwhile
    chain = _CheckedChain(store, seq)
    position, losses = chain.position, chain.losses
    if chain.hash_at != hash_:
        loss = next((loss for loss in losses if loss.covers(seq)), None)
        why = "the chain ends before it" if chain.hash_at is None else "its hash is another"
        if loss is not None:
            why = f"it was lost, as event {loss.event} says"
        raise ChainError(
            "head_not_on_chain",
            f"Event {seq} is not on this chain with that hash: {why}.",
            "The log was cut off or rewritten after that head was taken: compare it with a backup, "
            "which `promptyoself verify --var BACKUP --head SEQ:HASH` proves.",
            seq=seq,
            expected=hash_,
            found=chain.hash_at,
        )
    store.require_seen(witness, position.seq, losses)
    answer: answers.LogVerified = {
        "valid": True,
        "events": position.seq,
        "segments": chain.months.count,
        "head": head_of(position),
        "seq": position.seq,
        "hash": position.hash,
        "ts": position.ts or None,
    }
    if chain.months.sealed:
        answer["sealed"] = chain.months.sealed
    if expected is not None:
        answer["contains"] = expected
    if losses:
        answer["recovered"] = [loss.to_json() for loss in losses]
    if chain.newer is not None:
        answer["newer"] = f"{chain.newer} was written by a newer promptyoself."
    if torn := _torn_tail(store, position):
        answer["torn_tail"] = torn._asdict()
        answer["message"] = (
            f"The {_where(torn, position)}, are the beginning of an append, as a process killed in "
            "the middle leaves it; the next command that writes moves them aside. Only a head kept "
            "elsewhere can tell it from an event that was cut."
        )
    return answer


def head(store: Chain[Any]) -> answers.LogHead:
    """The last event's number and hash: keep it elsewhere, and nothing can be cut off unnoticed."""
    state, position = store.read()
    answer: answers.LogHead = {
        "head": head_of(position),
        "seq": position.seq,
        "hash": position.hash,
        "ts": position.ts or None,
    }
    if losses := store.schema.losses(state).recorded:
        answer["recovered"] = [loss.to_json() for loss in losses]
    return answer


def head_of(position: Position) -> str:
    """A position in the form in which people keep it: SEQ:HASH."""
    return f"{position.seq}:{position.hash}"


def rebuild_all(store: Store, name: str | None = None) -> answers.Rebuilt:
    """:func:`rebuild` of one chain, or of all there are; then what it says of the desires' is under
    ``desires``."""
    first, *others = chains(store, name)
    answer = rebuild(first)
    for chain in others:
        answer["desires"] = {**rebuild(chain)}
    return answer


def rebuild(store: Chain[Any]) -> answers.Rebuilt:
    """Rebuild the index from the log.

    Raises:
        ChainError: the log is damaged; the index is left as it was.
    """
    snapshot = store.rebuild()
    answer = {
        "events": snapshot.position.seq,
        store.name: sum(snapshot.state.statuses.values()),
        "message": "The index was rebuilt from the log.",
    }
    return cast("answers.Rebuilt", answer)


def _torn_tail(store: Chain[Any], position: Position) -> Torn | None:
    """The beginning of an append after the last event, which a crash has left.

    Raises:
        ChainError: ``damaged_tail``: what is there is no such beginning.
    """
    if store.torn(position) is None:
        return None
    with store.exclusive():  # unless it was an append under way
        torn = store.torn(position)
    if torn is not None and not torn.cut_short:
        raise ChainError(
            "damaged_tail",
            f"The log is intact up to event {position.seq}; the {_where(torn, position)}, are no "
            "event.",
            "A crash can leave this, and so can damage to the last event. Run `promptyoself verify "
            "--head SEQ:HASH` with a head kept elsewhere; the next command that writes moves these "
            "bytes aside.",
            month=torn.month,
            seq=position.seq + 1,
            offset=torn.offset,
            expected="the end of the log, or a whole gzip member",
            found=f"{torn.size} other bytes",
        )
    return torn


def _where(torn: Torn, position: Position) -> str:
    return f"{torn.size} bytes after event {position.seq}, in {torn.month} at byte {torn.offset}"


def _parse_head(text: str) -> tuple[int, str]:
    seq, _, hash_ = text.strip().partition(":")
    right = seq.isascii() and seq.isdigit() and len(seq) < 19 and len(hash_) == 64
    if not right or set(hash_) - set("0123456789abcdef"):
        raise PromptyoselfError(
            "invalid_head",
            f"--head {text[:100]!r} is not SEQ:HASH.",
            'Give what `promptyoself head` printed as "head".',
        )
    return int(seq), hash_


class _CheckedChain:
    """A whole chain, read event by event, and folded as its schema has it."""

    def __init__(self, store: Chain[Any], seq: int) -> None:
        """``seq`` is the number of an event whose hash is wanted."""
        self._seq = seq
        self.position = START
        """After the last event."""
        self.hash_at = START.hash if seq == 0 else None
        """The hash of the event that was asked for; ``None`` if there is none."""
        self.months = _Months()
        state = store.schema.fold(store.schema.empty, self._events(store.replay()))
        self.newer = store.schema.newer(state)
        self.losses = store.schema.losses(state).recorded

    def _events(self, batches: Iterable[Batch]) -> Iterator[Envelope]:
        """Every event, for the fold."""
        for batch in batches:
            for event in batch.envelopes:
                # The event has the hash of the one before it, unless a gap lies between them.
                follows = batch.gap is None or event.seq != batch.gap.first
                if event.seq == self._seq + 1 and follows:
                    self.hash_at = event.prev
            yield from batch.folded()
            self.months.add(batch)
            self.position = batch.position
            if self.position.seq == self._seq:
                self.hash_at = self.position.hash


class _Months:
    """Compares the content of each month with the record of its sealing."""

    def __init__(self) -> None:
        self.sealed = 0
        """The number of months whose record is right."""
        self._read: dict[str, tuple[int, Any]] = {}  # events and SHA-256 of each month's content
        # The gaps that are not stated yet, each with the month in which the chain goes on.
        self._open: dict[Gap, str] = {}

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
                stated = tuple(event.data.get(name) for name in Gap._fields)
                self._open = {gap: month for gap, month in self._open.items() if gap != stated}
        events, content = self._read.get(month) or (0, sha256())
        content.update(batch.content)
        self._read[month] = (events + batch.content.count(b"\n"), content)

    def _check(self, event: Envelope, month: str) -> None:
        sealed = event.data.get("month")
        expected = {name: event.data.get(name) for name in ("events", "content_sha256")}
        actual: dict[str, Any] = {"events": 0, "content_sha256": None}
        if isinstance(sealed, str) and sealed != month and sealed in self._read:
            events, content = self._read[sealed]
            actual = {"events": events, "content_sha256": content.hexdigest()}
        if actual != expected and not (isinstance(sealed, str) and self._is_broken(sealed)):
            raise ChainError(
                "corrupt_chain",
                f"Event {event.seq} records that {sealed} was sealed, with another content than "
                "it has.",
                "Nothing was changed. That month or this record was rewritten, and the chain after "
                "it: compare it with a backup, which `promptyoself verify --var BACKUP` proves.",
                month=sealed,
                seq=event.seq,
                expected=expected,
                found=actual,
            )
        self.sealed += 1

    def _is_broken(self, month: str) -> bool:
        """Whether a gap that is stated only later lies in the month, or between it and its record.
        Then the month may lack events that its record counts. The links prove those that it has."""
        return any(month <= after for after in self._open.values())
