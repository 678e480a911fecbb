"""What the audit checks of claims: whether a slot was claimed before, whether an approval was spent
on it, and whether the schedule's text was sent to its recipient."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from promptyoself.core.instants import MICROSECOND, parse_utc
from promptyoself.events.target_names import target_of
from promptyoself.rules.prompts import with_header
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.state.fold import Folded


class _Run(NamedTuple):
    """Claimed slots of a trigger from ``first`` to ``last``, none left out."""

    trigger: Trigger
    first: datetime
    last: datetime


class ClaimedSlots:
    """The slots that were claimed, in every incarnation of a schedule and by every clock."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __contains__(self, slot: datetime) -> bool:
        return any(
            slot in (run.first, run.last) or next_fire_time(run.trigger, slot - MICROSECOND) == slot
            for run in self._runs
            if run.first <= slot <= run.last
        )

    def add(self, slot: datetime, trigger: Trigger) -> None:
        """Take in a claim. If its slot follows the latest one, it joins that one's run."""
        if self._runs:
            run = self._runs[-1]
            if run.trigger is trigger and next_fire_time(run.trigger, run.last) == slot:
                self._runs[-1] = run._replace(last=slot)
                return
        self._runs.append(_Run(trigger, slot, slot))


class _Approval(NamedTuple):
    grant: str  # its name
    expires: str
    uses_left: int
    allows_runs: bool  # whether a run that was asked for may spend it


class ApprovalTrail:
    """Follows one schedule's approvals."""

    def __init__(self) -> None:
        self._approval: _Approval | None = None
        self._paid: set[str] = set()  # the slots on which one was spent
        self._unpaid: Folded | None = None  # a claim that needs an approval, and has spent none yet

    def follow(self, event: Folded) -> None:
        """An approval was given, taken back or spent."""
        data = event.data
        match event.type:
            case "approval.granted":
                allows_runs = data.get("allow_trigger") is not False
                self._approval = _Approval(
                    data["grant"], data["expires"], data["uses"], allows_runs
                )
            case "approval.revoked":
                self._approval = None
            case "approval.consumed":
                self._consume(event)

    def void(self) -> None:
        """The schedule was changed, so nothing that was approved holds for it."""
        self._approval = None
        self._paid.clear()

    def claim(self, event: Folded) -> None:
        """A slot that needs an approval was claimed."""
        if event.data["slot"] not in self._paid:
            self._unpaid = event

    def end(self, slot: str) -> None:
        """A slot has its outcome."""
        self._paid.discard(slot)

    def pop_unpaid(self) -> Folded | None:
        """The claim that should have spent an approval by now, once."""
        claim, self._unpaid = self._unpaid, None
        return claim

    def _consume(self, event: Folded) -> None:
        """If the approval allows that, it pays for the claim right before."""
        data, claim, approval = event.data, self._unpaid, self._approval
        if claim is None or approval is None or claim.data["slot"] != data["slot"]:
            return
        is_run = claim.data.get("kind", "scheduled") == "trigger"
        if (
            approval.grant == data["grant"]
            and event.ts <= approval.expires
            and approval.uses_left > data["uses_left"] >= 0
            and (approval.allows_runs or not is_run)
        ):
            self._approval = approval._replace(uses_left=data["uses_left"])
            self._paid.add(data["slot"])
            self._unpaid = None


def sending_mistake(
    id_: str, fields: Mapping[str, Any], event: Folded, fire_number: int, *, own_time: bool
) -> str | None:
    """What is wrong with a claim's prompt or recipient, by the schedule's ``fields`` of then.
    ``fire_number`` counts the scheduled fires from 1. ``own_time`` says that the event's time is
    its writer's own."""
    data = event.data
    recipient = data.get("agent_id")
    if recipient is not None and not _goes_to_its_recipient(fields, data):
        return "another recipient"
    text, has_header = data.get("text"), bool(fields.get("envelope"))
    if text is not None and _hash(text) != data["text_sha256"]:
        return "another text"
    is_filled_in = bool(fields.get("render"))
    fields = {**fields, "prompt": ""} if is_filled_in else fields
    if has_header:
        kind = data.get("kind", "scheduled")
        expected = with_header(id_, fields, data["slot"], kind, parse_utc(event.ts), fire_number)
    else:
        expected = fields["prompt"]
    if is_filled_in and text == "":  # it could not be filled in, and nothing was sent
        return None
    if is_filled_in or fields.get("template"):  # this log doesn't tell what was filled in
        return None if text is not None and text.startswith(expected) else "another text"
    if _hash(expected) == data["text_sha256"]:
        return None
    # Older versions didn't record the time in the header, where it isn't that of the event.
    time_unknown = has_header and recipient is None and not own_time
    return None if time_unknown else "another text"


def _goes_to_its_recipient(fields: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether a claim goes where the schedule's prompts were to go then."""
    if (data["agent_id"], data.get("conversation_id")) != (
        fields["agent_id"],
        fields.get("conversation_id"),
    ):
        return False
    target, own = data.get("target"), fields.get("target")
    # Older versions sent everything to a Letta server, whatever the agent's id.
    is_older = target is None and own is None
    return is_older or (target or "letta") == target_of(fields["agent_id"], own)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
