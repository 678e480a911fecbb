"""A schedule's approvals, and which claims spent them, as the audit follows them."""

from __future__ import annotations

from typing import NamedTuple

from promptyoself.state.fold import Folded


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
