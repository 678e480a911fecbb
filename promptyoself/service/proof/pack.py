"""Audit packs: one file that proves a stretch of the log to somebody without our software.

A pack is a zip of whole months as they lie in the log, the heads between which they lie, a script
that checks them, and a page that says what that proves. The same log and arguments give the same
bytes.
"""

import os
from datetime import datetime
from errno import EACCES, EPERM, EROFS
from hashlib import file_digest
from io import BufferedRandom
from pathlib import Path
from typing import Any, NamedTuple, cast
from zipfile import ZipFile, ZipInfo

import orjson

from promptyoself import __version__
from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError, PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.core.new_file import new_file
from promptyoself.core.settings import default_zone
from promptyoself.ledger import Position
from promptyoself.ledger.batch import end_before
from promptyoself.ledger.copy import Copied, check_copy, open_segment, pieces
from promptyoself.ledger.replay import Bridges
from promptyoself.phrases.moments import read_moment
from promptyoself.service.proof.answers import Packed
from promptyoself.service.proof.signed_heads import CHAIN, SigningKey, durable_head, sign_position
from promptyoself.service.proof.verify import head_of, verify
from promptyoself.store.access import forbidden
from promptyoself.store.store import Store

_HERE = Path(__file__).parent
_MAY_NOT_WRITE = {EROFS, EACCES, EPERM}


class _Range(NamedTuple):
    """The instants asked for; ``None`` where there is no bound."""

    since: str | None
    until: str | None

    @property
    def months(self) -> tuple[str, str]:
        """The first month and the last, or what sorts before and after all of them."""
        return (self.since or "")[:7], (self.until or "~")[:7]


class _Stretch(NamedTuple):
    """What a pack holds: the position before it, and each month."""

    before: Position
    months: list[Copied]

    @property
    def end(self) -> Position:
        """The position after the last event."""
        return self.months[-1].end

    @property
    def events(self) -> int:
        """How many events there are."""
        return sum(month.events for month in self.months)

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Every gap before one of the events, as heads.json has it."""
        return [
            {**gap._asdict(), "lost": gap.first - gap.after - 1, "event": statement}
            for month in self.months
            for gap, statement in month.gaps
        ]

    @property
    def first(self) -> int:
        """The number of the first event."""
        gaps = (gap["first"] for gap in self.gaps if gap["after"] == self.before.seq)
        return next(gaps, self.before.seq + 1)


def pack(
    store: Store,
    out: Path,
    *,
    since: str | None = None,
    until: str | None = None,
    key: SigningKey | None = None,
    now: datetime,
    disk: Disk,
) -> Packed:
    """Check the whole log, and write the months from ``since`` to ``until`` into the new file
    ``out``, which is private (0600), for prompts are in it. ``key`` signs the last head.

    Raises:
        PromptyoselfError: ``invalid_time``, ``empty_window``; ``nothing_to_pack`` where no
            month of the range has an event; ``file_exists``, ``unwritable_file``;
            ``forbidden_agent`` to a caller who is pinned to an agent.
        ChainError: the log is damaged, as `verify` finds it; nothing is packed then.
        OSError: the disk refused. In every case nothing has the name ``out`` that hadn't before.
    """
    if store.settings.only_agent is not None:
        what = "A pack holds what concerns other agents than"
        raise forbidden(what, store.settings.only_agent)
    wanted = _read_range(store, since, until, now)
    with new_file(disk, out) as (file, meanwhile):
        head = _end_of(store, now)
        verify(store, head_of(head) if head.seq else None)
        try:
            stretch = _write(store, wanted, head, file, meanwhile, key)
        except (ChainError, FileNotFoundError):
            # The log is sound, so a month was sealed between looking at it and copying it.
            head = _end_of(store, now)
            stretch = _write(store, wanted, head, file, meanwhile, key)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest = file_digest(file, "sha256").hexdigest()
    what = "Prompts and agents' answers" if _has_answers(store) else "Prompts"
    lost = sum(gap["lost"] for gap in stretch.gaps)
    answer = {
        "file": str(out),
        "months": [month.end.month for month in stretch.months],
        "events": stretch.events,
        **({"lost_events": lost} if lost else {}),
        "bytes": size,
        "first": stretch.first,
        "head": head_of(stretch.end),
        "sha256": digest,
        "message": f"Checked and packed. {what} are in it: give it only to whom they may be shown.",
    }
    return cast("Packed", answer)


def _read_range(store: Store, since: str | None, until: str | None, now: datetime) -> _Range:
    zone = default_zone(store.settings)
    first = None if since is None else format_utc(read_moment(since, zone, now))
    last = None if until is None else format_utc(read_moment(until, zone, now, end=True))
    if first is not None and last is not None and first > last:
        raise WrongUsage(
            "empty_window",
            f"--since, {first}, is later than --until, {last}.",
            "Give the earlier one as --since.",
        )
    return _Range(first, last)


def _end_of(store: Store, now: datetime) -> Position:
    try:
        return durable_head(store, now)
    except OSError as error:
        if error.errno not in _MAY_NOT_WRITE:
            raise
        # A copy on a medium that is read-only, or someone else's log: it can be packed, though
        # what its writers haven't made durable can't be made so from here.
        return store.read().position


def _write(
    store: Store,
    wanted: _Range,
    head: Position,
    file: BufferedRandom,
    meanwhile: Path,
    key: SigningKey | None,
) -> _Stretch:
    """Write the pack from the beginning of ``file``, whose name is ``meanwhile``."""
    folder = store.folder
    first, last = wanted.months
    last = min(last, head.month)
    months = [month for month in store.months() if first <= month <= last]
    if not months:
        raise PromptyoselfError(
            "nothing_to_pack",
            "The log has no event in any month of that range.",
            "`promptyoself history` shows what there is.",
        )
    stretch = _Stretch(end_before(store.replay(), months[0]), [])
    file.seek(0)
    file.truncate()
    with ZipFile(file, "w") as archive:
        archive.writestr(_entry("README.md"), _readme(store))
        archive.writestr(_entry("verify.py"), (_HERE / "pack_verifier.py").read_bytes())
        # Under the names of a data directory: unpacked, a whole log's pack is one.
        position = stretch.before
        bridges = Bridges(folder)
        for month in months:
            with open_segment(folder, head, month) as (segment, size):
                with archive.open(_entry(f"{CHAIN}/{month}.ndjson.gz", size), "w") as entry:
                    start = file.tell()
                    for piece in pieces(segment, size):
                        entry.write(piece)
                file.flush()
                copied = check_copy(meanwhile, start, size, month, position, bridges)
            stretch.months.append(copied)
            position = copied.end
        if position.month == head.month and position.hash != head.hash:
            raise ChainError(
                "corrupt_chain",
                f"What was copied of {head.month} doesn't end with event {head.seq}, as the log "
                "does.",
                "Something rewrites the log again and again; run `promptyoself verify`.",
                month=head.month,
                seq=head.seq,
                expected=head.hash,
                found=None,
            )
        archive.writestr(_entry("heads.json"), _heads(wanted, stretch, key))
    return stretch


def _readme(store: Store) -> bytes:
    page = (_HERE / "pack_readme.md").read_bytes()
    if not _has_answers(store):  # the pack of such a log has the bytes that it always had
        return page
    prompts = b"the prompts are in it"
    return page.replace(prompts, prompts + b", and\nwhat agents have answered", 1)


def _has_answers(store: Store) -> bool:
    """Whether the log has, or may have, texts of agents."""
    return bool(store.read().state.counts.get("delivery.replied"))


def _heads(wanted: _Range, stretch: _Stretch, key: SigningKey | None) -> bytes:
    document: dict[str, Any] = {
        "format": 2 if stretch.gaps else 1,
        "chain": CHAIN,
        "software": f"promptyoself {__version__}",
        "since": wanted.since,
        "until": wanted.until,
        "before": _position_fields(stretch.before),
        "months": [
            {"month": month.end.month, "events": month.events, **_position_fields(month.end)}
            for month in stretch.months
        ],
        "head": _position_fields(stretch.end),
    }
    if stretch.gaps:  # a verifier that knows of none must not call the pack altered
        document["gaps"] = stretch.gaps
    if key is not None:
        document["note"] = sign_position(stretch.end, key)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _position_fields(position: Position) -> dict[str, Any]:
    return {"seq": position.seq, "hash": position.hash, "ts": position.ts or None}


def _entry(name: str, size: int = 0) -> ZipInfo:
    """A file of the archive, whose ``size`` must be told where it is written in pieces."""
    # Without a time, a user or a mode of this machine's, and stored: segments are compressed, and
    # what is stored can be checked where it lies.
    info = ZipInfo(name)
    info.create_system = 3  # Unix, which is what makes the mode below one
    info.external_attr = 0o100600 << 16
    info.file_size = size
    return info
