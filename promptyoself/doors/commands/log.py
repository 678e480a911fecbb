"""The log: its history and the answers in it, its proof, its index, its repair, and what is counted
from it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain as one_after_the_other
from itertools import tee
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import orjson

from promptyoself.core.errors import WrongUsage
from promptyoself.doors.command import MAX_ANSWER_BYTES, PROGRAM_DOORS, command
from promptyoself.doors.options import Whole, only_agent_option, reason_option, schedule_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.ledger import Envelope
    from promptyoself.store.chain import Chain
    from promptyoself.store.store import Store

_chain = click.option("--chain", type=click.Choice(["schedules", "desires"]), help="Which log.")


_limit_option = click.option(
    "--limit",
    type=Whole(1, 10**9),
    metavar="N",
    help="Only the newest N; to tools 100 at first, and 1000 at most.",
)


@command("history", shows_times=True)
@schedule_option("Only this schedule's or desire's.", required=False)
@only_agent_option
@click.option("--type", "type_", metavar="TYPE", help="Only this type: delivery, delivery.failed.")
@click.option("--since", metavar="T", help="Not before: 2027-01-30T09:00, '2h ago'.")
@click.option("--until", metavar="T", help="Not after: 2027-01-31, '1h ago'.")
@click.option("--slot", metavar="T", help="Only of this slot of --id: 2027-01-30T09:00:00Z.")
@click.option(
    "--text", "texts", is_flag=True, help="With --slot: also the text that was sent, word by word."
)
@click.option("--by", metavar="NAME", help="Only by this login, agent or client.")
@_limit_option
@click.option("--ndjson", is_flag=True, help="Stream the events, a line each, as stored.")
@click.option(
    "--follow",
    "-f",
    "follows",
    is_flag=True,
    help="Print the newest 10, or those since --since, and then each event as it is appended.",
)
@_chain
def history_command(
    session: Session,
    limit: int | None,
    ndjson: bool,
    follows: bool,
    texts: bool,
    chain: str | None,
    **options: Any,
) -> Document | None:
    """Show what happened, oldest first.

    Use it to find out whether a prompt was delivered, when, and why not: with --id, and --limit 10,
    say. Answers with events (seq, ts, type, id, data, …).
    """
    from promptyoself.service.schedules.history import filters_of, history

    if texts and (options["slot"] is None or ndjson or follows):
        message = "--text is for one slot, and neither for --ndjson nor for --follow."
        raise WrongUsage("conflicting_options", message, "Name the slot with --id and --slot.")
    store = session.reading(agent_id=options["agent_id"])
    of_desires = (options["id_"] or "").startswith("des_") or (
        (options["type_"] or "").partition(".")[0] == "desire"
    )
    desires = chain == "desires" or (chain is None and of_desires)
    if options["id_"] is not None and not desires:
        options["id_"] = session.schedule_id(options["id_"], store)
    log: Chain[Any] = store.desires if desires else store
    if follows:
        if options["until"] is not None:
            message = "--follow and --until exclude each other."
            raise WrongUsage("conflicting_options", message, "Give one of them.")
        from promptyoself.service.schedules.new_events import follow

        filters = filters_of(log, now=session.now(), **options)
        batches = partial(follow, log, filters, limit=limit)
        _print_batches(session, store, batches, _EVENTS, ndjson=ndjson)
        return None
    events = history(log, now=session.now(), **options)
    if session.caller.via in PROGRAM_DOORS:
        return _newest(events, min(limit or _FIRST, _MOST), _EVENTS)
    if options["slot"] is not None and not ndjson and (texts or session.for_people):
        from promptyoself.service.schedules.sent_texts import sent_texts

        events, again = tee(events)
        sent = sent_texts(store, again)
        session.beside["texts"] = sent
    if session.for_people and not ndjson:
        answer = _newest(events, limit or _FIRST, _EVENTS)
        session.add_names(store, (event["id"] for event in answer["events"]))
        return answer
    if limit is not None:
        events = iter(deque(events, limit))
    if ndjson:
        _print_lines(events, _EVENTS)
        return None
    shown = [event._asdict() for event in events]
    answer = {"events": shown, "count": len(shown)}
    return {**answer, "texts": sent} if texts else answer


@command("replies", shows_times=True)
@schedule_option("Only to this schedule's prompts.", required=False)
@only_agent_option
@click.option("--since", metavar="T", help="Recorded not before: 2027-01-30T09:00, '2h ago'.")
@click.option("--until", metavar="T", help="Recorded not after: 2027-01-31, '1h ago'.")
@_limit_option
@click.option("--ndjson", is_flag=True, help="Stream the answers, a line of JSON each.")
@click.option(
    "--follow",
    "-f",
    "follows",
    is_flag=True,
    help="Print the newest 10, or those since --since, and then each answer as it comes.",
)
def replies_command(
    session: Session, limit: int | None, ndjson: bool, follows: bool, **options: Any
) -> Document | None:
    """Show what agents answered, oldest first.

    Use it to read what became of a prompt. Answers with replies (id, agent_id, slot, at, replied,
    text, …); where there is no answer, code and error say why.
    """
    from promptyoself.service.schedules.replies.listing import (
        awaited,
        filters_of_replies,
        follow,
        replies,
        total_of_all,
    )

    store = session.reading(agent_id=options["agent_id"])
    if options["id_"] is not None:
        options["id_"] = session.schedule_id(options["id_"], store)
    filters = filters_of_replies(store, now=session.now(), **options)
    if follows:
        if options["until"] is not None:
            message = "--follow and --until exclude each other."
            raise WrongUsage("conflicting_options", message, "Give one of them.")
        batches = partial(follow, store, filters, limit=limit)
        _print_batches(session, store, batches, _REPLIES, ndjson=ndjson)
        return None
    if ndjson:
        _print_lines(replies(store, filters, limit), _REPLIES)
        return None
    if session.caller.via in PROGRAM_DOORS or session.for_people:
        most = limit or _FIRST_FOR_PEOPLE
        if session.caller.via in PROGRAM_DOORS:
            most = min(limit or _FIRST, _MOST)
        total = total_of_all(store, filters)
        found = replies(store, filters, None if total is None else most)
        answer = _newest(found, most, _REPLIES, total or 0)
    else:
        listed = list(replies(store, filters, limit))
        answer = {"replies": listed, "count": len(listed)}
    waiting = awaited(store, filters)
    if session.for_people and not answer["replies"] and not waiting:
        from promptyoself.service.schedules.replies.retention import why_none_is_kept

        session.add_warning(why_none_is_kept(store, options["id_"]))
    return {**answer, "awaited": waiting} if waiting else answer


class _Items(NamedTuple):
    """What a command tells of the log, item for item."""

    key: str  # in its answer
    document: Callable[[Any], Document]  # of an item
    line: Callable[[Any], bytes]  # of an item, without its newline


def _encoded(event: Envelope) -> bytes:
    from promptyoself.ledger import encode_line

    return encode_line(event)


_EVENTS = _Items("events", lambda event: event._asdict(), _encoded)
_REPLIES = _Items("replies", lambda reply: reply, orjson.dumps)


def _print_lines(items: Iterator[Any], kind: _Items) -> None:
    """Print items, a line each. An error must be the only document on stdout, so nothing is printed
    before the first item."""
    first = next(items, None)
    for item in one_after_the_other([first] if first else [], items):
        sys.stdout.buffer.write(kind.line(item) + b"\n")
    sys.stdout.buffer.flush()


def _print_batches(
    session: Session,
    store: Store,
    batches: Callable[..., Iterator[Sequence[Any]]],
    kind: _Items,
    *,
    ndjson: bool,
) -> None:
    """Print items as they come, until SIGINT or SIGTERM, or until nobody reads them."""
    from promptyoself.doors.waiting import until_stopped

    with until_stopped() as wait:
        for items in batches(wait=wait):
            if session.for_people and not ndjson:
                session.print_more(store, kind.key, [kind.document(item) for item in items])
                continue
            sys.stdout.buffer.write(b"".join(kind.line(item) + b"\n" for item in items))
            sys.stdout.buffer.flush()


_FIRST, _FIRST_FOR_PEOPLE, _MOST = 100, 20, 1000
_MOST_BYTES = MAX_ANSWER_BYTES // 2
"""The most bytes of the items in an answer, as lines. The answer is longer than they are."""


def _newest(items: Iterator[Any], limit: int, kind: _Items, known: int = 0) -> Document:
    """The newest items, as many as an answer may have, and the number of all if that is more.
    ``known`` is how many there are at least, where ``items`` needn't be all of them."""
    newest: deque[tuple[Any, int]] = deque()
    total = size = 0
    for item in items:
        newest.append((item, len(kind.line(item))))
        total += 1
        size += newest[-1][1]
        while len(newest) > limit or (size > _MOST_BYTES and len(newest) > 1):
            size -= newest.popleft()[1]
    total = max(total, known)
    answer: Document = {
        kind.key: [kind.document(item) for item, _ in newest],
        "count": len(newest),
    }
    return answer if total == len(newest) else {**answer, "total": total}


@command("verify", shows_times=True)
@click.option("--head", metavar="SEQ:HASH", help="Prove that this head is on the chain.")
@click.option("--note", metavar="FILE", help="Prove it of every signed head in FILE; - is stdin.")
@click.option("--key", metavar="PUB", help="The public key of --note: its file, or ed25519:….")
@_chain
def verify_command(
    session: Session, head: str | None, note: str | None, key: str | None, chain: str | None
) -> Document:
    """Check every event of the log.

    It names the first bad one, and exits 1. Use it where the history is in question. It reads the
    whole log; without --chain the log of the desires too, and --head is then one of the schedules'.
    Answers with valid, how many events there are, and the head. Damage is an error that says where
    it is.
    """
    from promptyoself.service.proof.verify import verify, verify_all
    from promptyoself.store.store import chains

    if note is not None and head is not None:
        raise WrongUsage("conflicting_options", "Both --head and --note were given.", "Give one.")
    if (note is None) != (key is None):
        raise WrongUsage(
            "missing_option",
            "--note and --key go together.",
            "Give the notes, and the public key of their signer.",
        )
    store = session.reading().unpinned
    if head is None and chain is None:
        check = partial(verify_all, store)
    else:
        check = partial(verify, chains(store, chain)[0], head)
    if note is not None and key is not None:
        _require_schedules(chain)
        from promptyoself.doors.commands.proof import read_signed_heads
        from promptyoself.service.proof.signed_heads import verify_signed_heads

        check = partial(verify_signed_heads, store, read_signed_heads(note, key))
    return check()


@command("head", shows_times=True)
@click.option("--note", is_flag=True, help="Print it as one signed line instead of JSON.")
@click.option("--key", metavar="FILE", help="The private key for --note (else keys/head.key).")
@_chain
def head_command(
    session: Session, note: bool, key: str | None, chain: str | None
) -> Document | None:
    """Print the number and the hash of the log's last event.

    Kept elsewhere, they prove that nothing was cut off. Use it to note down how far the log has
    come, for `verify` later on. Answers with head, seq, hash and ts.
    """
    from promptyoself.service.proof.verify import head
    from promptyoself.store.store import chains

    if note:
        _require_schedules(chain)
        from promptyoself.doors.commands.proof import print_signed_head

        print_signed_head(session, key)
        return None
    if key is not None:
        raise WrongUsage("missing_option", "--key is for --note.", "Give --note too.")
    return head(chains(session.reading().unpinned, chain)[0])


def _require_schedules(chain: str | None) -> None:
    if chain == "desires":
        raise WrongUsage(
            "conflicting_options",
            "Both --note and --chain desires were given; signed heads are of the schedules' log.",
            "Keep the desires' head itself: `promptyoself head --chain desires`.",
        )


@command("rebuild")
@_chain
def rebuild_command(session: Session, chain: str | None) -> Document:
    """Rebuild the index from the log.

    Without --chain, that of the desires too.
    """
    from promptyoself.service.proof.verify import rebuild_all

    return rebuild_all(session.store().unpinned, chain)


@command("seal")
@click.option("--month", metavar="YYYY-MM", help="Only this one; else every month that is over.")
@_chain
def seal_command(session: Session, month: str | None, chain: str | None) -> Document:
    """Rewrite months that are over, to a third of their size.

    The lines stay the same, in large gzip members. Without --chain, those of the desires' log too.
    """
    from promptyoself.service.upkeep.seal import seal_all

    return seal_all(session.store().unpinned, session.now(), month, chain)


@command("recover")
@click.option(
    "--chain",
    "name",
    type=click.Choice(["schedules", "desires"]),
    help="Only this log: that of the schedules, or that of the desires.",
)
@click.option("--dry-run", is_flag=True, help="Say what is lost and what would be done.")
@click.option("--yes", is_flag=True, help="Don't ask before the log is changed.")
@click.option(
    "--from-index",
    is_flag=True,
    help="Put back, by new events, what the index still knows and the log has lost.",
)
@reason_option
def recover_command(session: Session, yes: bool, reason: str | None, **options: Any) -> Document:
    """Bring a damaged or cut log back into service. Everything sound stays in force.

    Use it where commands refuse with events_missing or corrupt_chain, and no backup has what is
    missing. It states in the log what is lost, and keeps the damaged bytes in the quarantine.
    `verify` tells of it from then on. Look at it with --dry-run first.
    """
    from promptyoself.core.text_limits import MAX_REASON, check_text
    from promptyoself.service.upkeep.recover import recover

    check_text("reason", reason, MAX_REASON)

    def agree(shown: Document) -> bool:
        return yes or _is_confirmed(session, shown)

    return recover(session.store().unpinned, session.now(), reason=reason, agree=agree, **options)


def _is_confirmed(session: Session, shown: Document) -> bool:
    """Ask the person at the terminal; nobody is there to ask elsewhere."""
    if session.caller.stop is not None or sys.stdin is None or not sys.stdin.isatty():
        return False
    print(f"promptyoself: {shown['message']}", file=sys.stderr)
    for gap in shown["gaps"]:
        until = f"event {gap['first']}" if "first" in gap else "the end"
        print(f"  {gap['lost']} lost between event {gap['after']} and {until}", file=sys.stderr)
    print("Bring the log back into service like that? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@command("stats", shows_times=True)
def stats_command(session: Session) -> Document:
    """Count schedules, desires, events and bytes.

    Use it for an overview; `list` names the schedules. Answers with schedules by status, agents,
    open_slots, events, events_by_type and bytes.
    """
    from promptyoself.service.schedules.views import stats

    return stats(session.reading().unpinned)


@command("metrics")
def metrics_command(session: Session) -> None:
    """Print metrics in Prometheus's text format.

    It needs the package prometheus-client. The metrics are counted from the log, so that every
    process says the same; `execute --loop --metrics-port` serves them too, with what only the loop
    knows. Errors are JSON.
    """
    from promptyoself.service.metrics.collect import Measurer
    from promptyoself.service.metrics.prometheus import render, require_library

    require_library()
    text = render(Measurer(session.reading()).measure(session.now()))
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
