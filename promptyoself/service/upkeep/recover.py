"""Bringing a damaged or cut log back into service, without hiding anything.

Everything sound stays in force, before the damage and after it. What is lost is stated in the log,
and `verify` tells of it for ever. What an index from before the damage still knows is compared, and
put back only by new events, where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.events.draft import Draft
from promptyoself.events.records import LedgerRecovered
from promptyoself.index.parts import DamagedPart
from promptyoself.ledger import Gap
from promptyoself.ledger.maintenance import Recovery
from promptyoself.ledger.survey import Quarantined, Survey
from promptyoself.service.upkeep.restore import Difference, corrections, differences
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains

__all__ = ["recover"]

_MOST_NAMED = 1000

Agree = Callable[[dict[str, Any]], bool]
"""Shows what would be done, and says whether it may be done."""


class _Plan(NamedTuple):
    """What a recovery would do."""

    survey: Survey
    statements: list[LedgerRecovered]
    pieces: list[Quarantined]
    differences: list[Difference]
    corrections: list[Draft]
    known: int | None

    @property
    def shown(self) -> dict[str, Any]:
        """The same for people and programs."""
        last = self.survey.last
        unknown = [id_ for each in self.statements for id_ in each.unknown or ()]
        return {
            "sound_events": sum(map(len, self.survey.islands)),
            "head": f"{last.seq}:{last.hash}" if last else None,
            "lost_events": sum(each.lost for each in self.statements),
            "gaps": [_said(each) for each in self.statements],
            "unknown": unknown,
            "index": self.known,
            "differs": [difference.shown() for difference in self.differences],
        }


def recover(
    store: Store,
    now: datetime,
    *,
    name: str | None = None,
    dry_run: bool = False,
    from_index: bool = False,
    reason: str | None = None,
    agree: Agree,
) -> dict[str, Any]:
    """Bring every chain that is damaged back into service, or the one of that ``name``.

    ``from_index`` puts back, by new events, what the index still knows and the log has lost.
    ``agree`` is asked before anything is changed, unless it is a ``dry_run``.

    Raises:
        PromptyoselfError: ``forbidden_agent`` to a caller who is pinned to an agent;
            ``not_agreed``; ``log_changed`` where others have changed the log since it was asked
            about; ``nothing_known`` where ``from_index`` finds no index that knows more;
            ``lock_timeout``.
        ChainError: ``newer_events``; ``corrupt_chain`` where what is sound contradicts itself.
        OSError: the disk refused. Then the log is as it was, or can be recovered again.
    """
    if store.settings.only_agent is not None:
        raise PromptyoselfError(
            "forbidden_agent",
            "A recovery concerns the schedules of all agents.",
            "Run it without PROMPTYOSELF_ONLY_AGENT.",
        )
    answers = []
    for chain in chains(store, name):
        with chain.naming():
            answers.append(_recover(chain, now, dry_run, from_index, reason, agree))
    answer = answers[0]
    for chain, other in zip(chains(store, name)[1:], answers[1:], strict=True):
        answer[chain.name] = other
    return answer


def _recover(
    chain: Chain[Any],
    now: datetime,
    dry_run: bool,
    from_index: bool,
    reason: str | None,
    agree: Agree,
) -> dict[str, Any]:
    ledger, _ = chain.ledger_and_index()
    if _is_sound(chain):
        with ledger.recovering() as recovery:
            if not dry_run:
                recovery.confirm_copies()
            if not recovery.pieces_of(recovery.survey(None)):
                return {"recovered": False, "message": "The log is sound: nothing is to be done."}
    with ledger.recovering() as recovery:
        plan = _plan(chain, recovery, reason)
    shown = plan.shown
    if from_index and not plan.differences:
        raise PromptyoselfError(
            "nothing_known",
            "--from-index was given, but no index knows anything that the log has lost.",
            "Run `promptyoself recover` without it.",
            **shown,
        )
    if dry_run:
        return {
            "recovered": False,
            "dry_run": True,
            **shown,
            "message": f"Nothing was changed: this was a dry run. {_summary(plan, from_index)}",
        }
    if not agree({**shown, "message": _summary(plan, from_index)}):
        raise PromptyoselfError(
            "not_agreed",
            "Nothing was changed, since nobody has agreed to it.",
            "Look at `promptyoself recover --dry-run`; then give --yes.",
            **shown,
        )
    with ledger.recovering() as recovery:
        again = _plan(chain, recovery, reason)
        if again.shown != shown:
            raise PromptyoselfError(
                "log_changed",
                "The log was changed by others since it was looked at.",
                "Nothing was changed by this command. Stop whatever else writes there, and run "
                "`promptyoself recover` again.",
            )
        kept = _carry_out(chain, recovery, again, now, from_index)
    return {
        "recovered": True,
        **shown,
        **({"index_kept": kept} if kept else {}),
        "restored": len(plan.differences) if from_index else 0,
        "message": _summary(plan, from_index),
    }


def _is_sound(chain: Chain[Any]) -> bool:
    """Whether it can be read from end to end, and has everything that its index has seen."""
    try:
        witness = chain.witness()
        snapshot = chain.snapshot()
        end = 0
        for batch in chain.replay():
            end = batch.position.seq
        chain.torn(snapshot.position)
        chain.require_seen(witness, end, chain.schema.losses(snapshot.state).recorded)
    except ChainError:
        return False
    return True


def _plan(chain: Chain[Any], recovery: Recovery, reason: str | None) -> _Plan:
    witness = chain.witness()
    found = recovery.survey(witness)
    pieces = recovery.pieces_of(found, adopt=True)
    log = chain.schema.fold(chain.schema.empty, recovery.events(found))
    if newer := chain.schema.newer(log):
        raise ChainError(
            "newer_events",
            f"The log was written by a newer promptyoself: {newer} is not understood here.",
            "Nothing was changed. Run `promptyoself recover` of that version.",
        )
    unknown = list(chain.schema.losses(log).unknown)[:_MOST_NAMED]
    statements = _statements(found, witness, pieces, unknown, reason)
    truth, known = None, None
    if statements:
        truth, known = _known(chain, recovery, found, statements)
    told = [] if truth is None else differences(chain.name, log, truth)
    corrected = [chain.draft(record, id_) for id_, record in corrections(log)]
    return _Plan(found, statements, pieces, told, corrected, known)


def _statements(
    found: Survey,
    witness: tuple[int, str] | None,
    pieces: list[Quarantined],
    unknown: list[str],
    reason: str | None,
) -> list[LedgerRecovered]:
    gaps: list[Gap | None] = list(found.gaps())
    last = found.last
    seq, hash_ = (last.seq, last.hash) if last else (0, "0" * 64)
    told = any(
        event.data.get("first") is None
        and witness == (event.data.get("known"), event.data.get("known_hash"))
        for event in found.statements
    )
    cut = witness is not None and witness[0] > seq and not told
    mine: dict[Gap | None, list[dict[str, Any]]] = {}
    for piece in pieces:
        mine.setdefault(_gap_of(piece, found, gaps), []).append(piece.to_json())
    if cut or None in mine:
        gaps.append(None)
    gaps += [gap for gap in mine if gap is not None and gap not in gaps]
    statements = []
    for gap in sorted(gaps, key=lambda each: (each is None, each or Gap(0, "", 0, ""))):
        kept = mine.get(gap)
        if gap is None:
            known = witness if cut else None
            lost = known[0] - seq if known else 0
            statement = LedgerRecovered(
                seq,
                hash_,
                lost,
                known=known[0] if known else None,
                known_hash=known[1] if known else None,
                quarantined=kept,
            )
        else:
            lost = gap.first - gap.after - 1
            statement = LedgerRecovered(
                gap.after, gap.after_hash, lost, gap.first, gap.first_prev, quarantined=kept
            )
        statements.append(statement._replace(reason=reason))
    if statements and unknown:
        statements[-1] = statements[-1]._replace(unknown=unknown)
    return statements


def _gap_of(piece: Quarantined, found: Survey, gaps: list[Gap | None]) -> Gap | None:
    """The gap in which a piece lay: that behind the last sound event before it, or behind those
    that were read out of it. Where nothing is missing there, a gap of no event. ``None``: it lay
    behind the end."""
    lines = {line.seq: line for island in found.islands for line in island}
    after, read = piece.after, found.inside.get(piece.sha256, set())
    while (inside := lines.get(after + 1)) is not None and inside.hash in read:
        after += 1
    for gap in gaps:
        if gap is not None and piece.after <= gap.after <= after:
            return gap
    following = lines.get(after + 1)
    if following is None:
        later = [gap for gap in gaps if gap is not None and gap.after >= after]
        return min(later) if later else None
    before = lines.get(after)
    hash_ = before.hash if before else following.prev
    return Gap(after, hash_, following.seq, following.prev)


def _known(
    chain: Chain[Any], recovery: Recovery, found: Survey, statements: list[LedgerRecovered]
) -> tuple[Any | None, int | None]:
    """The state as the index knew it, with all that came after; and the event at which it stood.
    ``None`` where it was written before anything was lost, or is of another log."""
    _, index = chain.ledger_and_index()
    known = index.known()
    if known is None:
        return None, None
    seq, hash_ = known.position.seq, known.position.hash
    on_chain = {line.seq: line.hash for island in found.islands for line in island}
    last = found.last.seq if found.last else 0
    lost = [each for each in statements if each.lost]
    if on_chain.get(seq, hash_) != hash_ or not any(seq > each.after for each in lost):
        return None, None
    try:
        state = known.state
        if seq < last:
            events = (event for event in recovery.events(found) if event.seq > seq)
            state = chain.schema.fold(state, events)
        for table in chain.schema.tables(state):
            for _ in table.values():
                pass
    except (DamagedPart, ChainError):
        return None, None
    return state, seq


def _carry_out(
    chain: Chain[Any], recovery: Recovery, plan: _Plan, now: datetime, from_index: bool
) -> str | None:
    kept = None
    if plan.differences and not from_index:
        folder, name = chain.folder, f"index-{plan.known}"
        recovery.keep(folder / "index", f"{name}/index")
        kept = str(recovery.keep(folder / "index.json", f"{name}/index.json").parent)
    position = recovery.repair(plan.survey)
    drafts = [chain.draft(statement, None) for statement in plan.statements]
    drafts += plan.corrections
    if from_index:
        restored = {difference.id for difference in plan.differences}
        drafts = [each for each in drafts if each.id not in restored]
        drafts += [
            chain.draft(record, difference.id)
            for difference in plan.differences
            for record in difference.records
        ]
    ledger, index = chain.ledger_and_index()
    ledger.append(drafts, now, position)
    recovery.confirm_copies()
    with suppress(OSError):
        index.save(index.rebuild())
    return kept


def _said(statement: LedgerRecovered) -> dict[str, Any]:
    fields = statement._asdict()
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in ("unknown", "reason")
    }


def _summary(plan: _Plan, from_index: bool) -> str:
    lost = sum(each.lost for each in plan.statements)
    text = f"{lost} event{'' if lost == 1 else 's'} lost"
    damaged = sum(piece.bytes for piece in plan.pieces)
    if damaged:
        text += f", {damaged} damaged bytes kept in quarantine"
    text = f"{text}; everything else is in force."
    unknown = sum(len(each.unknown or ()) for each in plan.statements)
    if unknown:
        text += f" {unknown} schedules are only known by later events, so they are lost."
    if plan.differences:
        number = len(plan.differences)
        text += (
            f" What the index still knew of {number} was put back by new events."
            if from_index
            else f" The index still knows more of {number}: --from-index puts that back."
        )
    return text
