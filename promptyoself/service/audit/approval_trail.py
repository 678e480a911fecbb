"""A schedule's approvals, and which claims spent them, as the audit follows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptyoself.state.fold import Folded


class _Approval(NamedTuple):
    grant: str  # its name
    expires: str
    uses_left: int
    allows_runs: bool  # whether a run that was asked for may spend it


class UnpaidClaim(NamedTuple):
    """A claim that needs an approval, and has not spent one yet."""

    data: Mapping[str, Any]  # of its event
    seq: int  # the number of its event


class ApprovalTrail:
    """Follows one schedule's approvals."""

    def __init__(self) -> None:
        self._approval: _Approval | None = None
        self._paid: set[str] = set()  # the slots on which one was spent
        self._unpaid: UnpaidClaim | None = None

    def grant(self, data: Mapping[str, Any]) -> None:
        """An approval was given."""
        allows_runs = data.get("allow_trigger") is not False
        self._approval = _Approval(data["grant"], data["expires"], data["uses"], allows_runs)

    def revoke(self) -> None:
        """The approval was taken back."""
        self._approval = None

    def void(self) -> None:
        """The schedule was changed, so nothing that was approved holds for it."""
        self._approval = None
        self._paid.clear()

    def claim(self, event: Folded) -> None:
        """A slot that needs an approval was claimed."""
        if event.data["slot"] not in self._paid:
            self._unpaid = UnpaidClaim(dict(event.data), event.seq)

    def consume(self, event: Folded) -> None:
        """An approval was spent: if it allows that, it pays for the claim right before."""
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

    def end(self, slot: str) -> None:
        """A slot has its outcome."""
        self._paid.discard(slot)

    def pop_unpaid(self) -> UnpaidClaim | None:
        """The claim that should have spent an approval by now, once."""
        claim, self._unpaid = self._unpaid, None
        return claim
