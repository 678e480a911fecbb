"""Approvals: people give, revoke and list them, and each claim of a slot checks them.

Which fields an approval covers is said in :mod:`promptyoself.events.schedule_fields`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING

from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.text_limits import MAX_REASON, check_text
from promptyoself.core.times import format_duration, parse_duration, shown
from promptyoself.core.visible import unseen
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.records import ApprovalGranted, ApprovalRevoked
from promptyoself.rules.policy import APPROVED_TIER, ApprovalVerdict
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.schedules.approval_tokens import MAX_USES, Token, Tokens
from promptyoself.service.schedules.transition import open_slots
from promptyoself.service.schedules.views import excerpt
from promptyoself.state.schedules import Schedule, State, ready_at, spec_hash, unfinished
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import ApprovalList, ApprovalView, Approved, Revoked

MAX_TTL = 366 * 86400
"""Seconds. After longer than this, a person doesn't remember what was approved."""


class ApprovalChecker:
    """Checks the approvals of the slots that one pass claims, by the log and by the tokens. It
    remembers the schedules that have one, so that their tokens can be updated afterwards."""

    def __init__(self, store: Store, now: datetime) -> None:
        """``now`` is the time of the claim."""
        self._store, self._now = store, now
        self._tokens = Tokens(store.settings.var, store.disk)
        self._ids: set[str] = set()

    def __call__(self, schedule: Schedule) -> ApprovalVerdict:
        """See :data:`~promptyoself.rules.policy.Approvals`."""
        now = self._store.not_before(self._now)
        verdict = self._tokens.judge(schedule, format_utc(now))
        if verdict.grant is not None or verdict.detail == "used_up":
            self._ids.add(schedule.id)
        return verdict

    def update_tokens(self) -> None:
        """Bring the tokens in line with the log. It is called after the claims were appended."""
        ids, self._ids = sorted(self._ids), set()
        if ids:
            _follow(self._store, self._tokens, ids)


def approve(
    store: Store,
    id_: str,
    ttl: str | None,
    uses: int,
    reason: str | None,
    now: datetime,
    *,
    content: str | None = None,
    allow_trigger: bool = False,
) -> Approved:
    """Allow ``uses`` deliveries of a schedule of tier 2, as the schedule now is.

    An earlier approval is replaced. ``ttl`` is a duration as a person writes it. Without one, the
    approval lasts until as many slots as it has uses are over. ``content`` is the hash of what the
    person has read, as `show` has it. ``allow_trigger`` lets a delivery that `trigger` asks for
    spend the approval.

    The answer says what was approved. It has a ``warning`` where the approval ends before the next
    slot is due.

    Raises:
        PromptyoselfError: ``unknown_id``, ``not_active``, ``no_approval_needed``, ``invalid_ttl``,
            ``invalid_uses``, ``invalid_reason``, ``invalid_content``, ``content_changed``,
            ``forbidden_command``, ``approval_key_unusable``.
    """
    require_person(store)
    duration = None if ttl is None else _parse_ttl(ttl)
    if not 1 <= uses <= MAX_USES:
        raise PromptyoselfError(
            "invalid_uses",
            f"--uses is {uses}; it must be a whole number from 1 to {MAX_USES}.",
            "Change it.",
        )
    check_text("reason", reason, MAX_REASON)
    _require_read(_require_approvable(store.read().state, id_), content)
    tokens = Tokens(store.settings.var, store.disk)

    def decide(state: State) -> tuple[list[Draft], Approved]:
        schedule = _require_approvable(state, id_)
        moment = store.not_before(now)
        end = _end_of(schedule, uses, moment) if duration is None else moment + duration
        expires = format_utc(end)
        _require_read(schedule, content)
        content_sha256 = spec_hash(schedule)
        grant = ApprovalGranted(token_hex(8), content_sha256, expires, uses, reason, allow_trigger)
        before = tokens.judge(schedule, format_utc(moment))
        tokens.follow(state, [id_])
        tokens.prepare(Token(id_, grant.grant, content_sha256, expires, uses))
        times = "once" if uses == 1 else f"{uses} times"
        answer: Approved = {
            "id": id_,
            "uses_left": uses,
            "expires": expires,
            "agent_id": schedule.agent_id,
            "prompt": excerpt(schedule.prompt),
            "content_sha256": content_sha256,
            "allow_trigger": allow_trigger,
            "message": f"It may be delivered {times}, up to {expires}.",
        }
        if schedule.template is not None:
            answer["template"] = schedule.template
        if invisible := unseen(schedule.prompt, schedule.name, schedule.agent_id):
            answer["invisible"] = invisible
        due = _next_slot(schedule, moment)
        if due is not None and (ready := ready_at(schedule, format_utc(due))) > expires:
            answer["warning"] = (
                f"Its next slot may begin at {ready}, when this approval is over: it can't serve. "
                "Give a longer --ttl, or approve it later."
            )
        if before.grant is not None:
            answer["replaced"] = {"uses_left": before.uses, "expires": schedule.approval_expires}
        return [store.draft(grant, id_, schedule.agent_id)], answer

    # One lock around all of it: of two approvals at once, the log's last is the token's too.
    with store.exclusive():
        answer = store.transact(now, decide)
        _follow(store, tokens, [id_])
    return answer


def _next_slot(schedule: Schedule, now: datetime) -> datetime | None:
    """The next slot that may still be delivered, if there is one."""
    if schedule.next_run is None:
        return None
    first = parse_utc(schedule.next_run)
    if now - first <= timedelta(seconds=schedule.grace):
        return first
    return next_fire_time(schedule_trigger(schedule), now - timedelta(seconds=schedule.grace))


def _end_of(schedule: Schedule, uses: int, now: datetime) -> datetime:
    """When the next ``uses`` slots are over, with their jitter and their grace. That is a day hence
    where no slot is to come, and :data:`MAX_TTL` from now at the latest."""
    latest = now + timedelta(seconds=MAX_TTL)
    slot = _next_slot(schedule, now)
    if slot is None:
        return now + timedelta(days=1)
    for _ in range(uses - 1):
        following = next_fire_time(schedule_trigger(schedule), slot)
        if following is None or following > latest:
            break
        slot = following
    try:
        return min(slot + timedelta(seconds=schedule.grace + (schedule.jitter or 0)), latest)
    except OverflowError:  # the calendar's end
        return latest


def revoke(store: Store, id_: str, reason: str | None, now: datetime) -> Revoked:
    """Take back what is left of a schedule's approval.

    Raises:
        PromptyoselfError: ``unknown_id``, ``no_approval``, ``invalid_reason``,
            ``forbidden_command``.
    """
    require_person(store)
    check_text("reason", reason, MAX_REASON)

    def require_live(state: State) -> Schedule:
        schedule = find_schedule(state, id_)
        if schedule.approval is None or schedule.approval_void or schedule.approval_uses < 1:
            raise PromptyoselfError(
                "no_approval",
                f"{id_} has no approval that could be revoked.",
                "`promptyoself approvals` lists those there are.",
            )
        return schedule

    def decide(state: State) -> tuple[list[Draft], Revoked]:
        schedule = require_live(state)
        message = "Approval revoked."
        if any(slot.approved for slot in open_slots(state, id_)):
            message += " A delivery that it has paid for goes on; `cancel` ends it."
        record = ApprovalRevoked(schedule.approval or "", reason)
        answer: Revoked = {"id": id_, "revoked_uses": schedule.approval_uses, "message": message}
        return [store.draft(record, id_, schedule.agent_id)], answer

    require_live(store.read().state)
    with store.exclusive():
        answer = store.transact(now, decide)
        _follow(store, Tokens(store.settings.var, store.disk), [id_])
    return answer


def list_approvals(store: Store, now: datetime) -> ApprovalList:
    """Every approval of a schedule that isn't over, and every token that the log didn't grant.

    The ``state`` of each is ``live``, or what is wrong with it (see :meth:`Tokens.judge`).

    Raises:
        PromptyoselfError: ``forbidden_command``.
    """
    require_person(store)
    state, position = store.read()
    text = max(format_utc(now), position.ts)
    tokens = Tokens(store.settings.var, store.disk)
    with_token = tokens.ids()
    approvals: list[ApprovalView] = []
    for schedule in unfinished(state):
        if schedule.approval is None and schedule.id not in with_token:
            continue
        verdict = tokens.judge(schedule, text)
        approvals.append(
            {
                "id": schedule.id,
                "agent_id": schedule.agent_id,
                "state": "live" if verdict.grant else verdict.detail,
                "uses_left": verdict.uses,
                "expires": schedule.approval_expires,
                "next_run": schedule.next_run if schedule.status == "active" else None,
                "allow_trigger": schedule.approval is not None and schedule.approval_triggers,
            }
        )
    approvals += [
        {
            "id": id_,
            "allow_trigger": False,
            "agent_id": None,
            "uses_left": 0,
            "expires": None,
            "next_run": None,
            "state": "unrecorded",
        }
        for id_ in with_token
        if id_ not in state.schedules
    ]
    approvals.sort(key=lambda line: (line["state"] != "live", line["expires"] or "", line["id"]))
    return {"approvals": approvals, "count": len(approvals)}


def require_person(store: Store) -> None:
    """Refuse a caller that is pinned to one agent: an agent doesn't approve what it does itself.

    Raises:
        PromptyoselfError: ``forbidden_command``.
    """
    if store.pinned_to is not None:
        raise PromptyoselfError(
            "forbidden_command",
            "Approvals are for people, and this caller is pinned to an agent.",
            "Unset PROMPTYOSELF_ONLY_AGENT for this command, if you are one.",
        )


def _require_read(schedule: Schedule, content: str | None) -> None:
    if content is None or content.lower() == spec_hash(schedule):
        return
    if not re.fullmatch("[0-9a-f]{64}", content.lower()):
        raise PromptyoselfError(
            "invalid_content",
            f"--content is {shown(content)}, which is not a SHA-256 of 64 hexadecimal digits.",
            f"`promptyoself show --id {schedule.id}` tells it, as content_sha256.",
        )
    raise PromptyoselfError(
        "content_changed",
        f"{schedule.id} isn't what was read: its content is {spec_hash(schedule)} now, "
        f"not {content.lower()}. Nothing was approved.",
        f"Read it again with `promptyoself show --id {schedule.id}`.",
        content_sha256=spec_hash(schedule),
    )


def _require_approvable(state: State, id_: str) -> Schedule:
    schedule = find_schedule(state, id_)
    if schedule.status in FINISHED:
        raise PromptyoselfError(
            "not_active", f"{id_} is {schedule.status}.", "Nothing of it is to be delivered."
        )
    if schedule.tier < APPROVED_TIER:
        raise PromptyoselfError(
            "no_approval_needed",
            f"{id_} is of tier {schedule.tier}, whose deliveries need no approval.",
            "`modify --tier 2` lets it wait for one each time.",
        )
    return schedule


def _parse_ttl(text: str) -> timedelta:
    try:
        seconds = parse_duration(text)
        problem = f"{shown(text)} is longer than {format_duration(MAX_TTL)}."
    except PromptyoselfError as error:
        seconds, problem = MAX_TTL + 1, error.message
    if seconds > MAX_TTL:
        raise PromptyoselfError(
            "invalid_ttl", f"--ttl: {problem}", "Give how long it holds, as 90s, 30m, 24h or 7d."
        )
    return timedelta(seconds=seconds)


def _follow(store: Store, tokens: Tokens, ids: list[str]) -> None:
    """Bring these tokens in line with the log. A failure is only a warning: the log is what counts,
    and the next claim tries again."""
    try:
        with store.exclusive():
            tokens.follow(store.snapshot().state, ids)
    except (PromptyoselfError, OSError) as error:
        warning = f"The files of approvals could not be brought up to date: {sentence(error)}"
        store.seldom.warn("approvals", warning)
