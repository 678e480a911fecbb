"""Commands about a whole log: check all of it, name its head, rebuild its index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.ledger import START, Position
from promptyoself.state.fold import Loss
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains

if TYPE_CHECKING:
    from promptyoself.service.proof.answers import Head
    from promptyoself.service.proof.chain_check import CheckedChain


def verify_all(store: Store, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """:func:`verify` of every chain there is; what it says of the desires' is under ``desires``."""
    answer = verify(store, None, progress)
    for chain in chains(store)[1:]:
        answer[chain.name] = verify(chain)
    return answer


def verify(
    store: Chain[Any], expected: str | None = None, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Read every event and check it; ``expected`` is a head ``SEQ:HASH`` that was kept elsewhere.

    ``progress`` is told the number of events read so far, now and then. Memory doesn't grow with
    their number.

    Raises:
        PromptyoselfError: ``invalid_head``.
        ChainError: ``corrupt_chain``, naming the first bad event, or the record of a sealed month
            that isn't what was sealed; ``head_not_on_chain``;
            ``damaged_tail`` where the end is no append that was merely cut short;
            ``events_missing`` where the index bears witness that events were cut off.
    """
    with store.naming():
        return _verified(store, expected, progress)


def _verified(
    store: Chain[Any], expected: str | None, progress: Callable[[int], None] | None
) -> dict[str, Any]:
    from promptyoself.service.proof.chain_check import check  # `head` needs none of it

    seq, hash_ = _parse_head(expected) if expected is not None else (0, START.hash)
    witness = store.witness()  # before the log, which may grow meanwhile
    read = check(store.schema, store.replay(), seq, progress)
    position, found = read.position, read.hash_at
    if expected is not None and found != hash_:
        raise ChainError(
            "head_not_on_chain",
            f"Event {seq} is not on this chain with that hash: {_why_not(seq, read)}.",
            "The log was cut off or rewritten after that head was taken: compare it with a backup, "
            "which `promptyoself verify --var BACKUP --head SEQ:HASH` proves.",
            seq=seq,
            expected=hash_,
            found=found,
        )
    store.require_seen(witness, position.seq, read.losses)
    answer: dict[str, Any] = {
        "valid": True,
        "events": position.seq,
        "segments": read.months,
        **head_of(position),
    }
    if read.sealed:
        answer["sealed"] = read.sealed
    if expected is not None:
        answer["contains"] = expected
    answer.update(recovered(read.losses))
    if read.newer is not None:
        answer["newer"] = f"{read.newer} was written by a newer promptyoself."
    answer.update(_tail(store, position))
    return answer


def _why_not(seq: int, read: CheckedChain) -> str:
    loss = next((loss for loss in read.losses if loss.covers(seq)), None)
    if loss is not None:
        return f"it was lost, as event {loss.event} says"
    return "the chain ends before it" if read.hash_at is None else "its hash is another"


def recovered(losses: Sequence[Loss]) -> dict[str, Any]:
    """What is lost of a log and was stated, for an answer: nothing where nothing is."""
    if not losses:
        return {}
    return {"recovered": [loss.to_json() for loss in losses]}


def head(store: Chain[Any]) -> dict[str, Any]:
    """The last event's number and hash: keep it elsewhere, and nothing can be cut off unnoticed."""
    state, position = store.read()
    return {**head_of(position), **recovered(store.schema.losses(state).recorded)}


def head_of(position: Position) -> Head:
    """A position in the form in which people keep it."""
    return {
        "head": f"{position.seq}:{position.hash}",
        "seq": position.seq,
        "hash": position.hash,
        "ts": position.ts or None,
    }


def rebuild_all(store: Store, name: str | None = None) -> dict[str, Any]:
    """:func:`rebuild` of one chain, or of all there are; then what it says of the desires' is under
    ``desires``."""
    first, *others = chains(store, name)
    answer = rebuild(first)
    for chain in others:
        answer[chain.name] = rebuild(chain)
    return answer


def rebuild(store: Chain[Any]) -> dict[str, Any]:
    """Rebuild the index from the log.

    Raises:
        ChainError: the log is damaged; the index is left as it was.
    """
    snapshot = store.rebuild()
    return {
        "events": snapshot.position.seq,
        store.name: sum(snapshot.state.statuses.values()),
        "message": "The index was rebuilt from the log.",
    }


def _tail(store: Chain[Any], position: Position) -> dict[str, Any]:
    if store.torn(position) is None:
        return {}
    with store.exclusive():  # unless it was an append under way
        torn = store.torn(position)
    if torn is None:
        return {}
    where = f"{torn.size} bytes after event {position.seq}, in {torn.month} at byte {torn.offset}"
    if not torn.cut_short:
        raise ChainError(
            "damaged_tail",
            f"The log is intact up to event {position.seq}; the {where}, are no event.",
            "A crash can leave this, and so can damage to the last event. Run `promptyoself verify "
            "--head SEQ:HASH` with a head kept elsewhere; the next command that writes moves these "
            "bytes aside.",
            month=torn.month,
            seq=position.seq + 1,
            offset=torn.offset,
            expected="the end of the log, or a whole gzip member",
            found=f"{torn.size} other bytes",
        )
    message = (
        f"The {where}, are the beginning of an append, as a process killed in the middle leaves "
        "it; the next command that writes moves them aside. Only a head kept elsewhere can tell "
        "it from an event that was cut."
    )
    return {"torn_tail": torn._asdict(), "message": message}


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
