"""Bringing a damaged or cut log back into service, without hiding anything.

Everything sound stays in force, before the damage and after it. The log states its gaps, and
`verify` always shows them. An index from before the damage may know what the log has lost. That is
put back only on request, by new events.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.events.draft import Draft
from promptyoself.events.records import LedgerRecovered
from promptyoself.index.parts import DamagedPart
from promptyoself.ledger import GENESIS_HASH, Gap
from promptyoself.ledger.recovery import Recovery
from promptyoself.ledger.survey import Quarantined, Survey
from promptyoself.service.upkeep.answers import Recovered, RecoveryPlan
from promptyoself.service.upkeep.restore import Difference, corrections, differences
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains

_MOST_NAMED = 1000


class _RecoveryPlan(NamedTuple):
    """The steps of a recovery that isn't carried out yet."""

    survey: Survey
    statements: list[LedgerRecovered]  # the events that will state the gaps
    pieces: list[Quarantined]  # the damaged bytes
    differences: list[Difference]  # what the index knows and the log has lost
    corrections: list[Draft]  # the events that move schedules past slots that are over
    index_seq: int | None  # the event at which an index stands that knows more

    @property
    def shown(self) -> RecoveryPlan:
        """The same for people and programs."""
        last = self.survey.last
        unknown = [id_ for statement in self.statements for id_ in statement.unknown or ()]
        return {
            "sound_events": sum(map(len, self.survey.islands)),
            "head": f"{last.seq}:{last.hash}" if last else None,
            "lost_events": sum(statement.lost for statement in self.statements),
            "gaps": [_gap_json(statement) for statement in self.statements],
            "unknown": unknown,
            "index": self.index_seq,
            "differs": [
                {"id": difference.id, "agent_id": difference.agent_id, "fields": difference.fields}
                for difference in self.differences
            ],
        }


def recover(
    store: Store,
    now: datetime,
    *,
    name: str | None = None,
    dry_run: bool = False,
    from_index: bool = False,
    reason: str | None = None,
    agree: Callable[[Recovered], bool],
) -> Recovered:
    """Bring every chain that is damaged back into service, or the one of that ``name``.

    ``from_index`` puts back, by new events, what the index still knows and the log has lost.
    ``agree`` is called with the plan before anything is changed, unless it is a ``dry_run``. It
    returns whether the plan may be carried out.

    Raises:
        PromptyoselfError: ``forbidden_agent`` to a caller who is pinned to an agent;
            ``not_agreed``; ``log_changed`` where others have changed the log since the plan was
            made; ``nothing_known`` where ``from_index`` finds no index that knows more;
            ``lock_timeout``.
        ChainError: ``newer_events``; ``corrupt_chain`` where sound events contradict each other.
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
    answer, *others = answers
    for other in others:
        answer["desires"] = other
    return answer


def _recover(
    chain: Chain[Any],
    now: datetime,
    dry_run: bool,
    from_index: bool,
    reason: str | None,
    agree: Callable[[Recovered], bool],
) -> Recovered:
    ledger, _ = chain.ledger_and_index()
    if _is_sound(chain):
        with ledger.recovering() as recovery:
            if not dry_run:
                recovery.confirm_copies()
            if not recovery.pieces_of(recovery.survey(None)):
                return _sound()
    with ledger.recovering() as recovery:
        plan = _plan_recovery(chain, recovery, reason)
        # Another recovery may have ended between the look above and this one.
        if not plan.statements and not plan.pieces and _is_sound(chain):
            return _sound()
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
        again = _plan_recovery(chain, recovery, reason)
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
        **kept,
        "restored": len(plan.differences) if from_index else 0,
        "message": _summary(plan, from_index),
    }


def _sound() -> Recovered:
    return {"recovered": False, "message": "The log is sound: nothing is to be done."}


def _is_sound(chain: Chain[Any]) -> bool:
    """Whether the log can be read from end to end and has every event that its index has seen."""
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


def _plan_recovery(chain: Chain[Any], recovery: Recovery, reason: str | None) -> _RecoveryPlan:
    witness = chain.witness()
    survey = recovery.survey(witness)
    pieces = recovery.pieces_of(survey, adopt=True)
    log = chain.schema.fold(chain.schema.empty, recovery.events(survey))
    if newer := chain.schema.newer(log):
        raise ChainError(
            "newer_events",
            f"The log was written by a newer promptyoself: {newer} is not understood here.",
            "Nothing was changed. Run `promptyoself recover` of that version.",
        )
    unknown = list(chain.schema.losses(log).unknown)[:_MOST_NAMED]
    statements = _statements(survey, witness, pieces, unknown, reason)
    truth, index_seq = None, None
    if statements:
        truth, index_seq = _state_of_index(chain, recovery, survey, statements)
    differing = [] if truth is None else differences(chain.name, log, truth)
    corrected = [chain.draft(record, id_) for id_, record in corrections(log)]
    return _RecoveryPlan(survey, statements, pieces, differing, corrected, index_seq)


def _statements(
    survey: Survey,
    witness: tuple[int, str] | None,
    pieces: list[Quarantined],
    unknown: list[str],
    reason: str | None,
) -> list[LedgerRecovered]:
    gaps = list(survey.gaps())
    last = survey.last
    seq, hash_ = (last.seq, last.hash) if last else (0, GENESIS_HASH)
    pieces_by_gap: dict[Gap | None, list[dict[str, Any]]] = {}
    for piece in pieces:
        pieces_by_gap.setdefault(_gap_of(piece, survey, gaps), []).append(piece.to_json())
    gaps += [gap for gap in pieces_by_gap if gap is not None and gap not in gaps]
    statements = [
        LedgerRecovered(
            gap.after,
            gap.after_hash,
            gap.first - gap.after - 1,
            gap.first,
            gap.first_prev,
            quarantined=pieces_by_gap.get(gap),
            reason=reason,
        )
        for gap in sorted(gaps)
    ]
    is_stated = any(
        event.data.get("first") is None
        and witness == (event.data.get("known"), event.data.get("known_hash"))
        for event in survey.statements
    )
    seen = witness if witness is not None and witness[0] > seq and not is_stated else None
    if seen is not None or None in pieces_by_gap:
        known, known_hash = seen or (None, None)
        statements.append(
            LedgerRecovered(
                seq,
                hash_,
                known - seq if known else 0,
                known=known,
                known_hash=known_hash,
                quarantined=pieces_by_gap.get(None),
                reason=reason,
            )
        )
    if statements and unknown:
        statements[-1] = statements[-1]._replace(unknown=unknown)
    return statements


def _gap_of(piece: Quarantined, survey: Survey, gaps: list[Gap]) -> Gap | None:
    """The gap in which a piece lay. It begins behind the last sound event before the piece, or
    behind the sound events that were read out of the piece. If no event is missing there, the gap
    is one of no event. ``None`` if the piece lay behind the end."""
    lines = {line.seq: line for line in survey.lines()}
    after, read = piece.after, survey.inside.get(piece.sha256, set())
    while (inside := lines.get(after + 1)) is not None and inside.hash in read:
        after += 1
    for gap in gaps:
        if piece.after <= gap.after <= after:
            return gap
    following = lines.get(after + 1)
    if following is None:
        return min((gap for gap in gaps if gap.after >= after), default=None)
    before = lines.get(after)
    hash_ = before.hash if before else following.prev
    return Gap(after, hash_, following.seq, following.prev)


def _state_of_index(
    chain: Chain[Any], recovery: Recovery, survey: Survey, statements: list[LedgerRecovered]
) -> tuple[Any | None, int | None]:
    """The state of the index with all later sound events, and the event at which the index stands.
    ``None`` if the index was written before the lost events, or belongs to another log."""
    _, index = chain.ledger_and_index()
    snapshot = index.known()
    if snapshot is None:
        return None, None
    seq, hash_ = snapshot.position.seq, snapshot.position.hash
    on_chain = {line.seq: line.hash for line in survey.lines()}
    last = survey.last.seq if survey.last else 0
    lost = [statement for statement in statements if statement.lost]
    if on_chain.get(seq, hash_) != hash_ or not any(seq > statement.after for statement in lost):
        return None, None
    try:
        state = snapshot.state
        if seq < last:
            events = (event for event in recovery.events(survey) if event.seq > seq)
            state = chain.schema.fold(state, events)
        for table in chain.schema.tables(state):
            for _ in table.values():
                pass
    except (DamagedPart, ChainError):
        return None, None
    return state, seq


def _carry_out(
    chain: Chain[Any], recovery: Recovery, plan: _RecoveryPlan, now: datetime, from_index: bool
) -> RecoveryPlan:
    """Returns where the index is kept, if it is."""
    kept: RecoveryPlan = {}
    if plan.differences and not from_index:
        folder, name = chain.folder, f"index-{plan.index_seq}"
        recovery.keep(folder / "index", f"{name}/index")
        copy = recovery.keep(folder / "index.json", f"{name}/index.json")
        kept["index_kept"] = str(copy.parent)
    position = recovery.repair(plan.survey)
    drafts = [chain.draft(statement, None) for statement in plan.statements]
    drafts += plan.corrections
    if from_index:
        restored = {difference.id for difference in plan.differences}
        drafts = [draft for draft in drafts if draft.id not in restored]
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


def _gap_json(statement: LedgerRecovered) -> dict[str, Any]:
    return {
        name: value
        for name, value in statement._asdict().items()
        if value is not None and name not in ("unknown", "reason")
    }


def _summary(plan: _RecoveryPlan, from_index: bool) -> str:
    lost = sum(statement.lost for statement in plan.statements)
    text = f"{lost} event{'' if lost == 1 else 's'} lost"
    damaged = sum(piece.bytes for piece in plan.pieces)
    if damaged:
        text += f", {damaged} damaged bytes kept in quarantine"
    text = f"{text}; everything else is in force."
    unknown = sum(len(statement.unknown or ()) for statement in plan.statements)
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
