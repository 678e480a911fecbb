"""Approvals: what counts as one, what doesn't and why, and that none is spent twice or lost."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from actors import Actor
from by_hand import WORKER, claim_due, settle
from calling import AGENT, add, call, events_of, lines_of, log_of, run_at_a_terminal
from chains import ACTOR, StepDisk, kill
from checker import check_chain
from conftest import Clock
from crashes import Unsynced, in_child
from tally import count, rounds
from world import DELIVERED, NOON, check_deliveries, check_slots, entries_of

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import load_settings
from promptyoself.events.kinds import PROBLEMS
from promptyoself.events.records import ApprovalGranted
from promptyoself.events.schedule_fields import content_of
from promptyoself.rules.claim import Claim, Decision, claim, orphans
from promptyoself.rules.outcome import Abandoned
from promptyoself.rules.policy import approval_in_log
from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.report import audit
from promptyoself.service.forecast.simulate import simulate
from promptyoself.service.schedules import approvals
from promptyoself.service.schedules.approval_tokens import Token, Tokens
from promptyoself.service.schedules.change import cancel, modify, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.views import show
from promptyoself.state.schedules import Schedule
from promptyoself.store.store import Store

ANY_TIME = ("register", "--agent-id", AGENT, "--prompt", "Hi", "--tier", "2")
TIER_2 = (*ANY_TIME, "--every", "1h")
NAMES = ("show", "approve", "revoke")


class Desk:
    """A data directory, people who approve, and a worker that claims; on a clock turned by hand."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.var, self.now, self.warnings = root / "var", NOON, list[str]()
        self.store = self.opened(disk or Unsynced())

    def opened(self, disk: Disk) -> Store:
        """As another process opens it."""
        settings = load_settings({"PROMPTYOSELF_VAR": str(self.var)})
        return Store(settings, ACTOR, warn=self.warnings.append, disk=disk)

    def register(self, agent: str = "agent-a", **asked: Any) -> str:
        request = Request(**{"agent_id": agent, "prompt": "Hi", "every": "1h", "tier": 2, **asked})
        return str(register(self.store, request, self.now)["id"])

    def approve(self, id_: str, uses: int = 1, ttl: str = "24h", **more: Any) -> dict[str, Any]:
        return approvals.approve(self.store, id_, ttl, uses, None, self.now, **more)

    def claim(self, **duration: float) -> Decision:
        """Let time pass, and claim what is due."""
        self.now += timedelta(**duration)
        checker = approvals.ApprovalChecker(self.store, self.now)
        decision = claim_due(self.store, self.now, checker)
        checker.update_tokens()
        return decision

    def settle(self, claimed: Claim, outcome: Any = DELIVERED) -> str:
        return settle(self.store, claimed, self.now, outcome)

    def approve_and_be_refused(self) -> str:
        """Have a slot claimed that an approval pays for, and refused for now; the schedule's id."""
        id_ = self.register(every="9h")
        self.approve(id_)
        (claimed,) = self.claim(hours=9).claims
        assert self.settle(claimed, Abandoned("letta_busy", "Busy.")) == "retrying"
        return id_

    def deliver(self, **duration: float) -> list[str]:
        """Claim and deliver; what came of each slot: ``delivered``, or why it was skipped."""
        decision = self.claim(**duration)
        skips = [f"{line['why']}: {line.get('detail')}" for line in decision.skipped]
        return skips + [self.settle(claimed) for claimed in decision.claims]

    def left_over(self) -> list[Claim]:
        """What is claimed, as it is taken over by another worker."""
        return list(orphans(self.store.read().state, [WORKER], self.now))

    def token(self, id_: str, folder: str = "pending") -> Path:
        return self.var / "approvals" / folder / f"{id_}.token"

    def says(self, id_: str) -> dict[str, Any]:
        """What the token says."""
        token: dict[str, Any] = orjson.loads(self.token(id_).read_bytes())
        return token

    def put_back(self, id_: str, content: bytes) -> None:
        """Restore a token that had this content."""
        self.token(id_).write_bytes(content)
        self.token(id_).chmod(0o600)

    def schedule(self, id_: str) -> Schedule:
        return self.store.read().state.schedules[id_]

    def listed(self, id_: str) -> tuple[str, int]:
        """An approval's state, and what is left of it."""
        listed = approvals.list_approvals(self.store, self.now)["approvals"]
        (line,) = [approval for approval in listed if approval["id"] == id_]
        return str(line["state"]), line["uses_left"]

    def events(self, type_: str = "") -> list[Any]:
        """The events of a type, or all; the whole log is checked in every way there is."""
        check_chain(self.var / "schedules")
        events = [event for batch in self.store.replay() for event in batch.envelopes]
        check_deliveries(events)
        check_slots(events, self.now)
        return [event for event in events if type_ in ("", event.type)]

    def sent(self) -> int:
        """How many slots of tier 2 were claimed, each paid for by an approval, which the audit
        checks."""
        attempts = [event.data["attempt"] for event in self.events("delivery.attempted")]
        assert attempts.count(1) == len(self.events("approval.consumed"))
        return attempts.count(1)


@pytest.fixture
def desk(quick_path: Path) -> Desk:
    return Desk(quick_path)


# --- what counts ----------------------------------------------------------------------------------


def test_an_approval_allows_one_delivery(desk: Desk) -> None:
    """Without one a slot is skipped, with one it is delivered, and then the next is skipped; the
    claim and what it costs are one append, and the token is moved away."""
    id_ = desk.register()
    assert desk.deliver(hours=1) == ["approval: missing"]
    desk.approve(id_)
    assert desk.listed(id_) == ("live", 1)
    assert desk.deliver(hours=1) == ["delivered"]
    assert desk.listed(id_) == ("used_up", 0)
    assert not desk.token(id_).exists()
    assert desk.token(id_, "consumed").exists()
    assert desk.deliver(hours=1) == ["approval: used_up"]
    (attempted,), (consumed,) = map(desk.events, ("delivery.attempted", "approval.consumed"))
    assert consumed.seq == attempted.seq + 1
    assert consumed.ts == attempted.ts
    assert consumed.data["slot"] == attempted.data["slot"]
    assert desk.sent() == 1


def test_uses_are_counted_down(desk: Desk) -> None:
    """Of three uses each delivery takes one, in the log and in the token."""
    id_ = desk.register()
    desk.approve(id_, uses=3)
    left = []
    for _ in range(4):
        desk.deliver(hours=1)
        left.append((desk.listed(id_), desk.token(id_).exists() and desk.says(id_)["uses"]))
    assert left == [(("live", 2), 2), (("live", 1), 1), (("used_up", 0), 0), (("used_up", 0), 0)]
    assert desk.sent() == 3


def test_an_approval_ends_with_its_time(desk: Desk) -> None:
    """After its TTL it doesn't count; nor does setting the clock back, once the log has seen a
    later time, bring it back to life."""
    id_ = desk.register()
    desk.approve(id_, uses=9, ttl="90m")
    assert desk.deliver(hours=1) == ["delivered"]
    assert desk.deliver(hours=1) == ["approval: expired"]
    desk.now -= timedelta(hours=1, minutes=30)
    run_now(desk.store, id_, None, desk.now)
    assert desk.deliver(seconds=1) == ["approval: expired"]
    # By the log's time, which stands still meanwhile.
    desk.approve(id_, ttl="10m", allow_trigger=True)
    run_now(desk.store, id_, None, desk.now)
    assert desk.deliver(seconds=1) == ["delivered"]
    assert desk.sent() == 2


def read(desk: Desk, id_: str) -> str:
    """The hash that `show` tells."""
    return str(show(desk.store, id_, now=desk.now)["content_sha256"])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Pay them."},
        {"conversation_id": "conv-1"},
        {"target": "letta-code"},
        {"every": "2h"},
        {"envelope": True},
        {"misfire": "all"},
        {"daily_budget": 9},
        {"on_failure": "agent-b"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_was_read_is_what_is_approved(desk: Desk, change: dict[str, Any]) -> None:
    """What was changed between `show` and `approve`, in anything, is refused, and nothing is
    granted; what wasn't is approved, and the answer says what that was."""
    id_ = desk.register()
    content = read(desk, id_)
    modify(desk.store, id_, Request(**change), desk.now)
    events = len(desk.events())
    with pytest.raises(PromptyoselfError) as refused:
        desk.approve(id_, content=content)
    assert refused.value.code == "content_changed"
    assert refused.value.details["content_sha256"] == read(desk, id_) != content
    assert len(desk.events()) == events
    assert not desk.token(id_).exists()
    answer = desk.approve(id_, content=read(desk, id_).upper())
    assert answer["content_sha256"] == read(desk, id_)
    assert answer["prompt"] == desk.schedule(id_).prompt
    assert desk.events()[-1].data["content_sha256"] == read(desk, id_)
    assert desk.says(id_)["content_sha256"] == read(desk, id_)


def test_a_hash_that_is_none_is_refused(desk: Desk) -> None:
    """P7: a part of one, or something else, isn't taken for one that has changed."""
    id_ = desk.register()
    for content in ("", "12ab", read(desk, id_)[:-1], "g" * 64):
        with pytest.raises(PromptyoselfError) as refused:
            desk.approve(id_, content=content)
        assert refused.value.code == "invalid_content"


def test_a_trigger_spends_no_approval_that_is_not_for_it(desk: Desk) -> None:
    """By default an approval is for what is scheduled: a trigger is skipped and says so at once,
    and the approval is still there for the slot that it was meant for."""
    id_ = desk.register()
    desk.approve(id_)
    assert "--allow-trigger" in run_now(desk.store, id_, None, desk.now)["warning"]
    assert desk.deliver(seconds=1) == ["approval: trigger_not_allowed"]
    assert desk.deliver(hours=1) == ["delivered"]
    desk.approve(id_, allow_trigger=True)
    assert "warning" not in run_now(desk.store, id_, None, desk.now)
    assert desk.deliver(seconds=1) == ["delivered"]
    assert desk.sent() == 2


def test_approvals_of_earlier_versions_are_as_they_were(desk: Desk) -> None:
    """One that doesn't say whether it is for triggers is, and its token has the hash of the content
    alone."""
    id_ = desk.register()
    content = content_hash(content_of(desk.schedule(id_)))
    expires = format_utc(desk.now + timedelta(days=1))
    tokens = Tokens(desk.var, desk.store.disk)

    def decide(state: Any) -> Any:
        tokens.prepare(Token(id_, "old", content, expires, 2))
        return [desk.store.draft(ApprovalGranted("old", content, expires, 2), id_)], None

    desk.store.transact(desk.now, decide)
    run_now(desk.store, id_, None, desk.now)
    assert desk.deliver(seconds=1) == ["delivered"]
    assert desk.deliver(hours=1) == ["delivered"]
    assert desk.sent() == 2


def test_the_audit_finds_a_trigger_that_an_approval_was_not_for(desk: Desk) -> None:
    """From the log alone: a claim that was paid for by what didn't allow it wasn't approved."""
    id_ = desk.register()
    desk.approve(id_)
    run_now(desk.store, id_, None, desk.now)
    desk.now += timedelta(seconds=1)

    def decide(state: Any) -> Any:
        forged = state.schedules.copy()
        forged[id_] = forged[id_]._replace(approval_triggers=True)
        decision = claim(
            state._replace(schedules=forged), desk.now, WORKER, desk.store.settings.caps, 99,
            approvals=lambda schedule: approval_in_log(schedule, format_utc(desk.now)),
        )  # fmt: skip
        return [desk.store.draft(*record) for record in decision.records], decision

    (claimed,) = desk.store.transact(desk.now, decide).claims
    desk.settle(claimed)
    events = [event for batch in desk.store.replay() for event in batch.envelopes]
    problems = [entry.why for entry in entries_of(events, desk.now) if entry.outcome in PROBLEMS]
    assert problems == ["not approved"]


def test_at_a_terminal_it_is_shown_and_asked_for(var: Path, environ: dict[str, str]) -> None:
    """A person reads the text, what can't be seen in it as escapes, and says yes or no."""
    prompt = "Send it\u202e to Bob."
    id_ = call(*TIER_2, "--prompt", prompt).success()["id"]
    refused = run_at_a_terminal("approve", "--id", id_, environ=environ, typed=b"n\n")
    refused.error("not_confirmed")
    assert "Send it\\u202e to Bob." in refused.err
    assert "invisible characters: 1" in refused.err
    assert "grace: 1 d" in refused.err
    assert "next run: " in refused.err
    assert "000Z" not in refused.err
    assert call("approvals").success()["count"] == 0
    approved = run_at_a_terminal("approve", "--id", id_, environ=environ, typed=b"y\n")
    answer = approved.success()
    assert answer["prompt"] == prompt
    schedule = call("show", "--id", id_).success()["schedule"]
    assert answer["content_sha256"] == schedule["content_sha256"]


def test_a_change_voids_it(desk: Desk) -> None:
    """An approval is for the schedule as it was: any change voids it, also one that is undone; and
    a new one replaces it."""
    id_ = desk.register()
    for changes in ({"prompt": "Another"}, {"grace": "2h"}, {"on_failure": "agent-b"}):
        desk.approve(id_, uses=9)
        before = desk.schedule(id_)
        modify(desk.store, id_, Request(**changes), desk.now)
        assert desk.listed(id_) == ("modified", 0)
        assert desk.deliver(hours=1) == ["approval: modified"]
    modify(desk.store, id_, Request(prompt=before.prompt, on_failure=""), desk.now)
    assert desk.deliver(hours=1) == ["approval: modified"]
    desk.approve(id_)
    assert desk.deliver(hours=1) == ["delivered"]


def test_a_schedule_that_comes_back_needs_a_new_one(desk: Desk) -> None:
    """What is cancelled and registered again has no approval left, though its token is there."""
    id_ = desk.register()
    desk.approve(id_, uses=9)
    cancel(desk.store, id_, None, desk.now)
    assert desk.register() == id_
    assert desk.token(id_).exists()
    assert desk.deliver(hours=1) == ["approval: unrecorded"]


def test_a_revoked_one_is_gone(desk: Desk) -> None:
    """Revoking ends it at once, for good, and says how many deliveries it would have allowed."""
    id_ = desk.register()
    desk.approve(id_, uses=4)
    kept = desk.token(id_).read_bytes()
    assert approvals.revoke(desk.store, id_, "no", desk.now)["revoked_uses"] == 4
    assert not desk.token(id_).exists()
    desk.put_back(id_, kept)
    assert desk.deliver(hours=1) == ["approval: revoked"]


def test_budgets_come_before_what_is_spent(desk: Desk) -> None:
    """A slot that its budget refuses costs no approval."""
    id_ = desk.register(daily_budget=1)
    desk.approve(id_, uses=2)
    assert desk.deliver(hours=1) == ["delivered"]
    assert desk.deliver(hours=1) == ["budget: None"]
    assert desk.listed(id_) == ("live", 1)


# --- what doesn't ---------------------------------------------------------------------------------


def _rewritten(**changes: Any) -> Callable[[Path, Path], None]:
    def spoil(token: Path, _: Path) -> None:
        token.write_bytes(orjson.dumps({**orjson.loads(token.read_bytes()), **changes}))

    return spoil


def _with(content: bytes) -> Callable[[Path, Path], None]:
    return lambda token, _: token.write_bytes(content) and None


def _of_another_owner(token: Path, _: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(token, 12345, -1)


SPOILED: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "more uses": (_rewritten(uses=5), "forged"),
    "a later end": (_rewritten(expires="2027-11-20T12:00:00.000000Z"), "forged"),
    "another content": (_rewritten(content_sha256="0" * 64), "forged"),
    "another mark": (_rewritten(hmac="0" * 64), "forged"),
    "a mark that is no text": (_rewritten(hmac=5), "forged"),
    "a mark of other letters": (_rewritten(hmac="ä" * 64), "forged"),
    "true uses": (_rewritten(uses=True), "forged"),
    "uses beyond all": (_rewritten(uses=2**63), "forged"),
    "a field too many": (_rewritten(more=1), "forged"),
    "no JSON": (_with(b"\xff{"), "forged"),
    "a list": (_with(b"[]"), "forged"),
    "nothing in it": (_with(b""), "forged"),
    "deep JSON": (_with(b"[" * 4000), "forged"),
    "another key": (
        lambda token, _: (token.parent.parent / "key").write_bytes(bytes(32)), "forged"
    ),
    "no key": (lambda token, _: (token.parent.parent / "key").unlink(), "forged"),
    "another's token": (lambda token, other: shutil.copy2(other, token), "copied"),
    "a link": (
        lambda token, _: token.symlink_to(token.rename(token.with_name("elsewhere"))), "unreadable"
    ),
    "a link to nowhere": (lambda token, _: (token.unlink(), token.symlink_to("x")), "unreadable"),
    "a folder": (lambda token, _: (token.unlink(), token.mkdir()), "unreadable"),
    "a pipe": (lambda token, _: (token.unlink(), os.mkfifo(token, 0o600)), "unreadable"),
    "ten megabytes": (_with(bytes(10 * 1024 * 1024)), "unreadable"),
    "readable for others": (lambda token, _: token.chmod(0o644), "unreadable"),
    "of another owner": (_of_another_owner, "unreadable"),
    "none": (lambda token, _: token.unlink(), "missing"),
    "no folder": (lambda token, _: shutil.rmtree(token.parent), "missing"),
    "a file for a folder": (
        lambda token, _: (shutil.rmtree(token.parent), token.parent.touch()), "unreadable"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_token_does_not_count(desk: Desk, name: str) -> None:
    """Whatever lies there instead of the token that was made: the slot is skipped, the log says
    why, and neither the claim nor the listing waits, breaks, or keeps others from their prompts."""
    spoil, detail = SPOILED[name]
    id_, other = desk.register(), desk.register("agent-b", every="9h")
    free = desk.register("agent-c", tier=1)
    desk.approve(id_)
    desk.approve(other)
    spoil(desk.token(id_), desk.token(other))
    assert desk.listed(id_) == (detail, 0)
    decision = desk.claim(hours=1)
    assert [claimed.id for claimed in decision.claims] == [free]
    assert [(line["why"], line["detail"]) for line in decision.skipped] == [("approval", detail)]
    (skipped,) = desk.events("delivery.skipped")
    assert (skipped.data["why"], skipped.data["detail"]) == ("approval", detail)


def test_a_token_from_a_backup_is_not_spent_again(desk: Desk) -> None:
    """The log's own count decides: a token restored after it was used up doesn't count, one with
    uses that were spent meanwhile counts for what is left, and an older one for nothing."""
    id_ = desk.register()
    desk.approve(id_, uses=2)
    backup = desk.token(id_).read_bytes()
    assert desk.deliver(hours=1) == ["delivered"]
    desk.put_back(id_, backup)
    assert desk.listed(id_) == ("live", 1)
    assert desk.deliver(hours=1) == ["delivered"]
    desk.put_back(id_, backup)
    assert desk.deliver(hours=1) == ["approval: used_up"]
    desk.approve(id_)
    desk.put_back(id_, backup)
    assert desk.deliver(hours=1) == ["approval: unrecorded"]
    assert desk.sent() == 2


def test_a_log_from_a_backup_gives_nothing_back(desk: Desk, tmp_path: Path) -> None:
    """Where the log is restored from before an approval was spent, its token still knows."""
    id_ = desk.register()
    desk.approve(id_, uses=2)
    shutil.copytree(desk.var / "schedules", tmp_path / "backup")
    assert desk.deliver(hours=1) == ["delivered"]
    shutil.rmtree(desk.var / "schedules")
    shutil.copytree(tmp_path / "backup", desk.var / "schedules")
    desk.store = desk.opened(Unsynced())
    assert desk.listed(id_) == ("live", 1)
    assert desk.deliver(hours=1) == ["misfire: None", "delivered"]
    assert desk.deliver(hours=1) == ["approval: used_up"]


def test_what_nobody_granted_is_listed(desk: Desk) -> None:
    """A token of a schedule that the log has no approval for is shown, and counts for nothing."""
    id_ = desk.register()
    desk.approve(id_)
    stray, unknown = desk.register("agent-b"), "sch_00000000"
    for ungranted in (stray, unknown):
        shutil.copy2(desk.token(id_), desk.token(ungranted))
    desk.token("../../x").parent.mkdir(exist_ok=True)
    assert desk.listed(stray) == ("copied", 0)
    assert desk.listed(unknown) == ("unrecorded", 0)


# --- retries --------------------------------------------------------------------------------------


def test_a_retry_is_paid_already(desk: Desk) -> None:
    """A slot that has to be tried again costs nothing more, however late, also after its approval
    has expired or been spent on others."""
    id_ = desk.approve_and_be_refused()
    assert desk.listed(id_) == ("used_up", 0)
    assert desk.deliver(minutes=1) == ["delivered"]
    first, again = (event.data for event in desk.events("delivery.attempted"))
    assert (first["slot"], again["attempt"]) == (again["slot"], 2)
    assert desk.sent() == 1


@pytest.mark.parametrize("approved_again", [False, True])
def test_what_was_approved_is_what_is_sent(desk: Desk, approved_again: bool) -> None:
    """A slot that was paid for isn't sent with a prompt that was changed since: it needs a new
    approval."""
    id_ = desk.approve_and_be_refused()
    modify(desk.store, id_, Request(prompt="Something else"), desk.now)
    if approved_again:
        desk.approve(id_)
        assert desk.deliver(minutes=1) == ["delivered"]
        first, again = (event.data["slot"] for event in desk.events("approval.consumed"))
        assert first == again
    else:
        assert desk.deliver(minutes=1) == ["approval: modified"]
        desk.events()


def test_a_raised_tier_holds_for_what_waits(desk: Desk) -> None:
    """A slot that was tried before its schedule came to need approvals needs one too."""
    id_ = desk.register(tier=0)
    (made,) = desk.claim(hours=1).claims
    desk.settle(made, Abandoned("letta_busy", "Busy."))
    modify(desk.store, id_, Request(tier=2), desk.now)
    assert desk.deliver(minutes=1) == ["approval: missing"]
    desk.events()


def test_a_forged_claim_is_found_out(desk: Desk) -> None:
    """A log in which a claim is not paid for, links intact, doesn't pass the audit; one that pays
    with what was never granted, or twice, is refused as corrupt."""
    id_ = desk.register()
    desk.approve(id_)
    desk.deliver(hours=1)
    events = desk.events()
    unpaid = [event for event in events if event.type != "approval.consumed"]
    with pytest.raises(AssertionError, match="not approved"):
        check_slots(unpaid, desk.now)


# --- simulated ------------------------------------------------------------------------------------


def test_approvals_are_simulated(desk: Desk) -> None:
    """What is approved is foreseen as delivered, as often as that holds; a spoiled token isn't."""
    id_, other = desk.register(), desk.register("agent-b")
    desk.approve(id_, uses=2)
    desk.approve(other, uses=2)
    desk.token(other).unlink()
    answer = simulate(desk.store, "in 5h", desk.now)
    assert (answer["fired"], answer["skipped"]) == (2, {"approval": 8})
    desk.approve(id_, uses=9, ttl="3h")
    assert simulate(desk.store, "in 5h", desk.now)["fired"] == 3
    assert desk.listed(id_) == ("live", 9)


# --- crashes --------------------------------------------------------------------------------------


def approving(root: Path, disk: Disk, report: Callable[[str], None]) -> None:
    """All there is: the first approval with its key, one that replaces it, a claim that spends one
    use, one that spends the last, and an approval that is revoked."""
    desk = Desk(root, disk)
    (id_,) = desk.store.read().state.schedules
    desk.approve(id_)
    report("approved")
    desk.approve(id_, uses=2)
    report("replaced")
    for _ in range(2):
        desk.claim(hours=1)
        report("claimed")
        for made in desk.left_over():
            desk.settle(made)
    desk.approve(id_)
    report("approved again")
    approvals.revoke(desk.store, id_, None, desk.now)
    report("revoked")


LEFT = {0: 0, 1: 1, 2: 2, 3: 1, 4: 0, 5: 1, 6: 0}
"""How many deliveries are approved after that number of acknowledgements."""


def recover(root: Path, acknowledged: list[str]) -> None:
    """After a death in the middle: what is left is what was acknowledged, or what was under way;
    no more is sent than was approved; and a person can go on."""
    desk = Desk(root)
    desk.store.transact(desk.now, lambda _: ([], None))  # which moves a torn end aside
    (id_,) = desk.store.read().state.schedules
    at = len(acknowledged)
    left = desk.listed(id_)[1] if desk.schedule(id_).approval else 0
    assert left in {LEFT[at], LEFT.get(at + 1, 0)}, (acknowledged, desk.listed(id_))
    for _ in range(4):
        for made in [*desk.claim(hours=3).claims, *desk.left_over()]:
            desk.settle(made)
    granted = {event.data["grant"]: event.data["uses"] for event in desk.events("approval.granted")}
    spent = Counter(event.data["grant"] for event in desk.events("approval.consumed"))
    assert all(spent[grant] <= uses for grant, uses in granted.items())
    assert sum(spent.values()) == desk.sent()
    desk.approve(id_)
    assert desk.listed(id_) == ("live", 1)
    assert "delivered" in desk.deliver(hours=1)
    pending = {path.name for path in (desk.var / "approvals" / "pending").iterdir()}
    assert pending <= {f".{id_}.token.tmp"}


def test_killed_at_every_syscall(quick_path: Path) -> None:
    """P1: SIGKILL before, after and in the middle of every change to the disk that approving,
    spending and revoking make: no approval is spent twice, and none that was acknowledged is
    lost."""
    dry = StepDisk()
    Desk(quick_path / "dry").register()
    approving(quick_path / "dry", dry, lambda _: None)
    assert dry.log.count("rename") > 6
    for at, name in enumerate(dry.log, 1):
        # Before it is after the one before it.
        for when in ("after", *(["half"] if name == "write" else [])):
            root = quick_path / f"{at}-{when}"
            Desk(root).register()
            disk = StepDisk(at, when, kill)
            acknowledged, ended_by = in_child(lambda r, f=root, d=disk: approving(f, d, r))
            assert ended_by == signal.SIGKILL, (at, when)
            count("kills by SIGKILL")
            recover(root, acknowledged)
            shutil.rmtree(root)


def test_a_full_disk_changes_nothing(quick_path: Path) -> None:
    """P1: where the disk refuses any one change that approving makes, the approval there was goes
    on to count, unless the log has the new one already."""

    def refuse() -> None:
        raise OSError(28, os.strerror(28))

    def approved(root: Path, disk: Disk) -> tuple[Desk, str]:
        desk = Desk(root)
        id_ = desk.register()
        desk.approve(id_, uses=3)
        desk.store = desk.opened(disk)
        return desk, id_

    dry = StepDisk()
    desk, id_ = approved(quick_path / "dry", dry)
    desk.approve(id_, uses=7)
    for at in range(1, len(dry.log) + 1):
        desk, id_ = approved(quick_path / str(at), StepDisk(at, "before", refuse))
        failed = False
        try:
            desk.approve(id_, uses=7)
        except OSError:
            failed = True
        count("disk errors")
        desk.store = desk.opened(Unsynced())
        granted = desk.events("approval.granted")
        assert desk.listed(id_) == ("live", 7 if len(granted) == 2 else 3)
        assert failed == (len(granted) == 1)


class NoNames(Unsynced):
    """A disk that refuses to give a token its name."""

    def put_in_place(self, path: Path) -> None:
        raise OSError(28, os.strerror(28), str(path))


class NoAppends(Unsynced):
    """A disk that refuses what the log is to get."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:  # noqa: ARG002
        raise OSError(28, os.strerror(28))


def test_an_approval_counts_from_its_append_on(desk: Desk) -> None:
    """P1: an approval whose token has not got its name yet counts, and isn't lost by another
    attempt to approve that fails."""
    id_ = desk.register()
    desk.store = desk.opened(NoNames())
    desk.approve(id_, uses=5)
    assert "could not be brought up to date" in desk.warnings[-1]
    assert desk.listed(id_) == ("live", 5)
    desk.store = desk.opened(NoAppends())
    with pytest.raises(OSError, match="No space"):
        desk.approve(id_, uses=7)
    desk.store = desk.opened(Unsynced())
    assert desk.listed(id_) == ("live", 5)
    assert desk.deliver(hours=1) == ["delivered"]
    assert desk.says(id_)["uses"] == 4


# --- many at once ---------------------------------------------------------------------------------


@pytest.fixture
def cast() -> Iterator[Callable[[dict[str, str]], Actor]]:
    with ExitStack() as stack:
        yield lambda environ: stack.enter_context(Actor(environ))


def at_once(actors: list[Actor], *arguments: str) -> list[dict[str, Any]]:
    for actor in actors:
        actor.begin(*arguments)
    return [actor.end().success() for actor in actors]


def test_many_approve_at_once(
    var: Path, environ: dict[str, str], cast: Callable[[dict[str, str]], Actor]
) -> None:
    """P5: processes that make the key, and approve the same schedule, at the same moment: there is
    one key, and the approval that counts is the log's last, whole."""
    schedule = call(*TIER_2).success()["id"]
    actors = [cast(environ) for _ in range(3)]
    for _ in range(rounds(4)):
        shutil.rmtree(var / "approvals", ignore_errors=True)
        at_once(actors, "approve", "--id", schedule, "--uses", "5")
        (found,) = call("approvals").success()["approvals"]
        assert (found["state"], found["uses_left"]) == ("live", 5)
        count("processes racing", 3)


def test_loops_that_race_for_an_approval(
    tmp_path: Path, environ: dict[str, str], cast: Callable[[dict[str, str]], Actor]
) -> None:
    """P5: several `execute` at once on prompts that have one approval, one budget, one cap: none is
    overspent, whichever wins."""
    agents = tuple(f"agent-{number}" for number in range(3))
    with Sandbox(agents, latency=0.02) as sandbox:
        environ.update(LETTA_BASE_URL=sandbox.url, PROMPTYOSELF_DAILY_PER_AGENT="3")
        environ["PROMPTYOSELF_VAR"] = str(tmp_path / "var")
        store = Store(load_settings(environ), ACTOR, warn=print)
        now = datetime.now(UTC)
        ids = {}
        for agent in sandbox.agents:
            asked = {"agent_id": agent, "every": "1d"}
            for what, more in (
                ("approved", {"tier": 2}),
                ("budgeted", {"daily_budget": 1}),
                ("free", {}),
            ):
                request = Request(**asked, prompt=what, **more)  # type: ignore[arg-type]
                ids[agent, what] = register(store, request, now)["id"]
            approvals.approve(store, ids[agent, "approved"], "1h", 1, None, now, allow_trigger=True)
        actors = [cast(environ) for _ in range(3)]
        for _ in range(3):
            for id_ in ids.values():
                run_now(store, id_, None, datetime.now(UTC))
            at_once(actors, "execute")
            count("processes racing", 3)
        at_once(actors, "execute")
        delivered = Counter(
            event.id
            for batch in store.replay()
            for event in batch.envelopes
            if event.type == "delivery.attempted"
        )
        # A free one is the third that its agent's cap allows.
        assert delivered == dict.fromkeys(ids.values(), 1)
        whys = audit(store, now=datetime.now(UTC))["totals"]["skipped_why"]
        assert set(whys) <= {"approval", "budget", "agent_cap"}
        assert sum(whys.values()) == 3 * 9 - 9


# --- through the real client ----------------------------------------------------------------------


def test_a_real_delivery_of_tier_two(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """`execute` delivers what is approved through the real client, with the others that are due,
    and skips what isn't."""
    one, two = sandbox.agents
    approved, free, refused = (
        add("--time", "in 30s", "--tier", tier, agent=agent, prompt=f"Tier {tier}")
        for agent, tier in ((one, "2"), (two, "0"), (two, "2"))
    )
    call("approve", "--id", approved, "--reason", "go ahead").success()
    clock.advance(minutes=1)
    call("execute").success()
    clock.advance(minutes=1)
    call("execute").success()
    assert {event["id"] for event in events_of(var, "delivery.delivered")} == {approved, free}
    (skipped,) = events_of(var, "delivery.skipped")
    assert (skipped["id"], skipped["data"]["detail"]) == (refused, "missing")
    assert len(sandbox.deliveries) == 2
    assert not (var / "approvals" / "pending" / f"{approved}.token").exists()


# --- the commands ---------------------------------------------------------------------------------


def test_secrets_stay_where_they_are(var: Path, clock: Clock) -> None:
    """Neither the key nor a token's mark is in an answer or in the log; files are 0600."""
    answer = call(*TIER_2)
    id_ = answer.success()["id"]
    assert f"approve --id {id_}" in answer.success()["warning"]
    outs = [call("approve", "--id", id_, "--ttl", "2h", "--uses", "2", "--reason", "go").out]
    for words in (("approvals",), ("history",), *((name, "--id", id_) for name in NAMES)):
        outs.append(call(*words).out)
    key = (var / "approvals" / "key").read_bytes()
    token = (var / "approvals" / "consumed" / f"{id_}.token").read_bytes()
    mark = orjson.loads(token)["hmac"].encode()
    for text in (*outs, *lines_of(var)):
        assert key not in text
        assert key.hex().encode() not in text
        assert mark not in text
    for path in (var / "approvals").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    granted = next(orjson.loads(line) for line in lines_of(var) if b"approval.granted" in line)
    assert granted["data"]["reason"] == "go"
    assert granted["actor"]["via"] == "cli"


def test_nothing_is_made_for_a_refusal(var: Path) -> None:
    """P7: approving what isn't there makes no key and no folder."""
    call("approve", "--id", "sch_00000000").error("unknown_id")
    call("approvals").success()
    assert not var.exists()


BAD = {
    "zero": (("--ttl", "0s"), "invalid_ttl", 1, "'0s'"),
    "negative": (("--ttl", "-1h"), "invalid_ttl", 1, "'-1h'"),
    "another unit": (("--ttl", "24x"), "invalid_ttl", 1, "'24x'"),
    "absurd": (("--ttl", "50w500d"), "invalid_ttl", 1, "366d"),
    "a century": (("--ttl", "9" * 30 + "d"), "invalid_ttl", 1, "999"),
    "blank": (("--ttl", ""), "invalid_ttl", 1, "''"),
    "no uses": (("--uses", "0"), "invalid_uses", 1, "0"),
    "negative uses": (("--uses", "-1"), "invalid_uses", 1, "-1"),
    "too many uses": (("--uses", "1001"), "invalid_uses", 1, "1001"),
    "uses of another kind": (("--uses", "many"), "invalid_value", 2, "many"),
    "a reason that is too long": (("--reason", "x" * 2001), "invalid_reason", 1, "2001"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_approval_is_refused(var: Path, name: str) -> None:
    """P7: one code, one sentence that names the value, nothing changed: not even a key is made."""
    id_ = call(*TIER_2).success()["id"]
    more, code, exit_code, said = BAD[name]
    before = log_of(var)
    document = call("approve", "--id", id_, *more).error(code, exit_code)
    assert said in document["message"]
    assert document["hint"]
    assert log_of(var) == before
    assert not (var / "approvals").exists()


@pytest.mark.parametrize("how", ["tier 0", "tier 1", "cancelled", "completed", "unusable key"])
def test_what_cannot_be_approved_is_refused(var: Path, how: str) -> None:
    """P7: a schedule that needs no approval, or is over; and where the key is no key."""
    tier = {"tier 0": "0", "tier 1": "1"}.get(how, "2")
    id_ = call(*TIER_2, "--tier", tier).success()["id"]
    code = "no_approval_needed" if tier != "2" else "not_active"
    if how == "cancelled":
        call("cancel", "--id", id_).success()
    elif how == "completed":
        id_ = call(*ANY_TIME, "--time", "in 1s").success()["id"]
        desk = Desk(var.parent)
        desk.now = datetime.now(UTC) + timedelta(seconds=2)
        assert desk.deliver() == ["approval: missing"]
    elif how == "unusable key":
        (var / "approvals").mkdir()
        (var / "approvals" / "key").write_bytes(bytes(32))  # which others may read
        code = "approval_key_unusable"
    before = log_of(var)
    document = call("approve", "--id", id_).error(code)
    assert document["hint"]
    call("revoke", "--id", id_).error("no_approval")
    assert log_of(var) == before


def test_agents_cannot_approve(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that is pinned to an agent is refused, also for its own schedules."""
    id_ = call(*TIER_2).success()["id"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    for words in (("approve", "--id", id_), ("revoke", "--id", id_), ("approvals",)):
        call(*words).error("forbidden_command")
    assert not (var / "approvals").exists()


@pytest.mark.parametrize(
    ("asked", "more", "expires", "too_late_for"),
    [
        # Next Friday, with its grace and its jitter.
        (("--cron", "0 17 * * FRI", "--grace", "2h", "--jitter", "5m"), (), "2026-11-20T19:05", ""),
        (("--cron", "0 11 * * FRI", "--grace", "2h", "--jitter", "5m"), (), "2026-11-27T13:05", ""),
        (("--cron", "0 11 * * FRI", "--grace", "2h"), ("--uses", "3"), "2026-12-11T13:00", ""),
        (("--time", "in 10m", "--grace", "1h"), ("--uses", "3"), "2026-11-20T13:10", ""),
        # 366 days is the most.
        (("--time", "2029-01-01T00:00"), (), "2027-11-21T12:00", "2029-01-01T00:00"),
        (("--cron", "0 11 * * FRI",), ("--ttl", "7d"), "2026-11-27T12:00", ""),
        (("--cron", "0 11 * * FRI",), ("--ttl", "24h"), "2026-11-21T12:00", "2026-11-27T11:00"),
    ],
)  # fmt: skip
def test_an_approval_lasts_until_its_slots_are_over(
    var: Path, clock: Clock, asked: tuple[str, ...], more: tuple[str, ...],
    expires: str, too_late_for: str,
) -> None:  # fmt: skip
    """Without a --ttl an approval serves the next slot, however far off that is. P9: one that ends
    before the next slot is due is granted with a warning."""
    id_ = call(*ANY_TIME, *asked).success()["id"]
    answer = call("approve", "--id", id_, *more).success()
    assert answer["expires"].startswith(expires)
    warning = answer.get("warning", "")
    assert ("it can't serve" in warning) == bool(too_late_for)
    if too_late_for:
        assert warning.startswith(f"Its next slot may begin at {too_late_for}:00.000000Z, ")


def test_an_approval_after_a_missed_slot_serves_that_one(var: Path, clock: Clock) -> None:
    """A slot that may still be delivered is the next one; one that is too late isn't."""
    id_ = call(*ANY_TIME, "--cron", "0 13 * * FRI", "--grace", "3h").success()["id"]
    clock.set("2026-11-20T14:00:00")
    assert call("approve", "--id", id_).success()["expires"].startswith("2026-11-20T16:00")
    clock.set("2026-11-20T17:00:00")
    assert call("approve", "--id", id_).success()["expires"].startswith("2026-11-27T16:00")
