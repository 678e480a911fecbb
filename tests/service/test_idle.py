"""The idle policy: what is rendered from an agent's desires when a schedule fires, and what happens
where there are none, or where they can't be told."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import call, events_of
from checker import check_chain
from crashes import locked_elsewhere
from damage import store_in
from hypothesis import given
from hypothesis import strategies as st
from world import World, check_slots, entries_of

from promptyoself.core.errors import ChainError
from promptyoself.core.instants import format_utc
from promptyoself.rules.outcome import Abandoned
from promptyoself.rules.prompts import IDLE_LISTED, render_idle_prompt
from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.report import audit
from promptyoself.service.desires.manage import record
from promptyoself.service.schedules.change import run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.state.desires import Desire, Ranked

if TYPE_CHECKING:
    from conftest import Clock
    from dispatch import Place

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def ranked(number: int, text: str, strength: float = 0.5, tags: tuple[str, ...] = ()) -> Ranked:
    at = format_utc(NOON)
    return Ranked(
        strength, Desire(f"des_{number:08x}", "agent-a", text, strength, at, at, at, tags)
    )


WISHES = [ranked(1, "Learn Danish", 0.9, ("language", "slow")), ranked(2, "Paint", 0.25)]


# --- rendering ------------------------------------------------------------------------------------


def test_what_is_rendered() -> None:
    """A line for each, with id, strength and tags, between a head that makes no demand and a tail
    that says how to go on."""
    lines = render_idle_prompt(WISHES).split("\n")
    assert lines[2:4] == [
        "- des_00000001 (0.90) Learn Danish [language, slow]",
        "- des_00000002 (0.25) Paint",
    ]
    assert "none of them has been made a goal" in lines[0]
    assert "reinforce" in lines[-1]


@given(st.lists(st.text(min_size=1, max_size=60), max_size=IDLE_LISTED))
def test_rendering_is_deterministic(texts: list[str]) -> None:
    """The same desires give the same text, and whatever they say, each has one line of its own."""
    wishes = [ranked(number, text) for number, text in enumerate(texts)]
    text = render_idle_prompt(wishes)
    assert text == render_idle_prompt(list(wishes))
    listed = [line for line in text.split("\n") if line.startswith("- des_")]
    assert [line[2:14] for line in listed] == [wish.desire.id for wish in wishes]


# --- claims ---------------------------------------------------------------------------------------


def idle_world(wishes: list[Ranked]) -> tuple[World, list[str]]:
    """A world in which these are everybody's desires, and the agents whose desires were read."""
    world, asked = World(), []

    def strongest(agent_id: str, now: datetime) -> list[Ranked]:
        assert now == world.now
        asked.append(agent_id)
        return wishes

    world.strongest = strongest
    return world, asked


def test_the_text_is_in_the_log() -> None:
    """A claim holds what is sent, and its hash; nothing else has the text in its event."""
    world, asked = idle_world(WISHES)
    world.register("agent-b", "Plain")
    id_ = world.register("agent-a", None, template="idle", time="in 1m")
    world.advance(minutes=1)
    claims = {made.id: made for made in world.claim().claims}
    texts = {event.id: event.data for event in world.events if event.type == "delivery.attempted"}
    assert claims[id_].text == texts[id_]["text"] == render_idle_prompt(WISHES)
    digest = hashlib.sha256(render_idle_prompt(WISHES).encode()).hexdigest()
    assert texts.pop(id_)["text_sha256"] == digest
    assert ["text" in data for data in texts.values()] == [False]
    assert asked == ["agent-a"], "only an agent with an idle prompt due is asked for"
    for made in claims.values():
        world.settle(made)
    check_slots(world.events, world.now)


def test_the_envelope_is_around_it() -> None:
    """With --envelope, what is sent and recorded is the envelope with the list in it."""
    world, _ = idle_world(WISHES)
    world.register("agent-a", None, template="idle", time="in 1m", envelope=True)
    world.advance(minutes=1)
    text = world.claim_one().text
    assert text.startswith("Scheduled task ")
    assert text.endswith(f"\nPrompt: {render_idle_prompt(WISHES)}")
    assert world.last("delivery.attempted").text == text


@pytest.mark.parametrize("asked", [{"every": "1h"}, {"time": "in 1h"}, {"cron": "0 * * * *"}])
def test_without_desires_the_slot_is_skipped(asked: dict[str, Any]) -> None:
    """P2: no desires: nothing is sent, the slot has its reason, the next comes in its time, and no
    budget is spent."""
    world, _ = idle_world([])
    id_ = world.register("agent-a", None, template="idle", **asked)
    world.advance(hours=1)
    decision = world.claim()
    assert decision.claims == []
    assert [line["why"] for line in decision.skipped] == ["no_desires"]
    schedule = world.state.schedules[id_]
    assert (schedule.spent, schedule.repetition_count) == (0, 0)
    once = "time" in asked
    assert schedule.next_run == (None if once else "2026-11-20T14:00:00.000000Z")
    assert schedule.status == ("failed" if once else "active")
    (entry,) = [
        entry for entry in entries_of(world.events, world.now) if entry.outcome == "skipped"
    ]
    assert (entry.why, entry.slots) == ("no_desires", 1)
    check_slots(world.events, world.now)


def test_limits_are_asked_first() -> None:
    """A slot that isn't allowed is skipped for that reason, and nobody's desires are read."""
    world, asked = idle_world([])
    world.register("agent-a", None, template="idle", time="in 1m", daily_budget=0)
    world.advance(minutes=1)
    assert [line["why"] for line in world.claim().skipped] == ["budget"]
    assert asked == []


def test_each_attempt_has_its_own_text() -> None:
    """P2: a further attempt at the same slot lists the desires as they are then, under the same
    otid, and its event has that text; where there are none any more, the slot is skipped."""
    wishes = [WISHES[0]]
    world, _ = idle_world(wishes)
    world.register("agent-a", None, template="idle", every="1h")
    world.advance(hours=1)
    first = world.claim_one()
    world.settle(first, Abandoned("letta_busy", "Busy."))
    wishes[:] = [WISHES[1]]
    world.advance(minutes=5)
    second = world.claim_one()
    assert (second.otid, second.slot, second.attempt) == (first.otid, first.slot, 2)
    assert "Paint" in second.text
    assert world.last("delivery.attempted").text == second.text
    world.settle(second, Abandoned("letta_busy", "Busy."))
    wishes.clear()
    world.advance(minutes=5)
    assert [line["why"] for line in world.claim().skipped] == ["no_desires"]
    assert not world.state.open
    check_slots(world.events, world.now)


def test_a_triggered_one_lists_them_too() -> None:
    """`trigger` on an idle schedule renders it then; without desires that slot is skipped."""
    wishes = list(WISHES)
    world, _ = idle_world(wishes)
    id_ = world.register("agent-a", None, template="idle", every="1h")
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    made = world.claim_one()
    assert (made.kind, made.text) == ("trigger", render_idle_prompt(WISHES))
    world.settle(made)
    wishes.clear()
    world.advance(seconds=1)
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    assert [line["why"] for line in world.claim().skipped] == ["no_desires"]
    check_slots(world.events, world.now)


@pytest.mark.parametrize("error", [ChainError("corrupt_chain", "It is."), OSError(5, "I/O")])
def test_unreadable_desires_stop_nobody_else(error: Exception) -> None:
    """A schedule whose agent's desires can't be told is reported and stays due; all others go on;
    and it is delivered once they can."""
    world, _ = idle_world([])
    able = world.strongest

    def broken(agent_id: str, now: datetime) -> list[Ranked]:
        raise error

    world.strongest = broken
    idle = world.register("agent-a", None, template="idle", time="in 1m")
    other = world.register("agent-b", "Plain", time="in 1m")
    same = world.register("agent-a", "Plain too", time="in 2m")
    world.advance(minutes=2)
    decision = world.claim()
    assert {made.id for made in decision.claims} == {other, same}
    assert set(decision.broken) == {idle}
    assert world.state.schedules[idle].next_run is not None
    for made in decision.claims:
        world.settle(made)
    world.strongest = able
    world.advance(minutes=1)
    assert [line["why"] for line in world.claim().skipped] == ["no_desires"]


# --- as commands, through the sandbox -------------------------------------------------------------


def received(sandbox: Sandbox, agent: str) -> list[str]:
    return [m.text for m in sandbox.messages(agent) if m.kind == "user_message"]


def test_the_agent_gets_its_ten_strongest(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """The ten strongest at the instant of the fire, none of another agent's, none that was pruned;
    and the log has the very text that the agent got."""
    agent, other = sandbox.agents
    ids = {}
    for number in range(12):
        strength = str(0.3 + number / 20)
        asked = ("desire", "--agent-id", agent, "--text", f"Wish {number}", "--strength", strength)
        ids[number] = call(*asked).success()["id"]
        clock.advance(seconds=1)
    call("desire", "--agent-id", other, "--text", "Not mine", "--strength", "1").success()
    call("idle", "--agent-id", agent, "--cron", "0 * * * *").success()
    clock.set("2026-11-20T12:59:00")
    call("reinforce", "--id", ids[0], "--by", "1").success()
    clock.set("2026-11-20T13:00:00")
    assert call("execute").success()["message"] == "1 prompt executed"
    (text,) = received(sandbox, agent)
    listed = [line.split()[1] for line in text.split("\n") if line.startswith("- des_")]
    assert listed == [ids[number] for number in (0, 11, 10, 9, 8, 7, 6, 5, 4, 3)]
    assert received(sandbox, other) == []
    check_chain(var / "schedules")
    (data,) = (event["data"] for event in events_of(var, "delivery.attempted"))
    assert data["text"] == text
    assert data["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert call("verify").success()["desires"]["valid"]


def test_what_has_faded_is_not_listed(sandbox: Sandbox, clock: Clock) -> None:
    """Below a hundredth a desire is listed no more; where no other is left, the slot is skipped."""
    agent = sandbox.agents[0]
    call("desire", "--agent-id", agent, "--text", "Faint", "--strength", "0.02").success()
    call("idle", "--agent-id", agent, "--every", "20d", "--grace", "1d").success()
    clock.advance(days=20, seconds=1)
    assert call("execute").success()["message"] == "1 prompt executed"
    clock.advance(days=20)
    answer = call("execute").success()
    assert answer["message"] == "0 prompts executed, 1 skipped (no_desires)"
    assert call("audit").success()["totals"]["skipped_why"] == {"no_desires": 1}


@pytest.mark.parametrize("how", ["noise", "a file", "another chain"])
def test_a_damaged_log_of_desires(sandbox: Sandbox, var: Path, clock: Clock, how: str) -> None:
    """P4: where their log is refused, only idle prompts wait; the rest is delivered, and they are
    once it has been restored."""
    agent, other = sandbox.agents
    call("desire", "--agent-id", agent, "--text", "Learn Danish").success()
    call("idle", "--agent-id", agent, "--time", "in 1m").success()
    call("register", "--agent-id", other, "--prompt", "Hi", "--time", "in 1m").success()
    folder, kept = var / "desires", var / "kept"
    folder.rename(kept)
    if how == "noise":
        folder.mkdir()
        (folder / "2026-10.ndjson.gz").write_bytes(b"noise" * 50)
        (folder / "2026-11.ndjson.gz").write_bytes((kept / "2026-11.ndjson.gz").read_bytes())
    elif how == "a file":
        folder.write_bytes(b"")
    else:
        folder.mkdir()
        name = "2026-11.ndjson.gz"
        (folder / name).write_bytes((var / "schedules" / name).read_bytes())
    clock.advance(minutes=1)
    answer = call("execute")
    assert answer.success()["message"] == "1 prompt executed"
    assert "can't be delivered" in answer.err
    assert received(sandbox, other) == ["Hi"]
    assert call("desires", "--agent-id", agent).code == 1
    if how != "a file":
        document = call("verify").error("corrupt_chain")
        assert document["chain"] == "desires"
        assert document["message"].startswith("In the log of desires: ")
        assert call("verify", "--chain", "schedules").success()["valid"]
        shutil.rmtree(folder)
    else:
        folder.unlink()
    kept.rename(folder)
    assert call("execute").success()["message"] == "1 prompt executed"
    assert "Learn Danish" in received(sandbox, agent)[0]


def test_who_writes_desires_holds_up_nobody(
    sandbox: Sandbox, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: an idle prompt is rendered without waiting for the holder of the lock of their log."""
    agent = sandbox.agents[0]
    call("desire", "--agent-id", agent, "--text", "Learn Danish").success()
    call("idle", "--agent-id", agent, "--time", "in 1m").success()
    clock.advance(minutes=1)
    with locked_elsewhere(store_in(var / "schedules").desires.exclusive):
        assert call("execute").success()["message"] == "1 prompt executed"
        assert "Learn Danish" in received(sandbox, agent)[0]
        monkeypatch.setenv("PROMPTYOSELF_LOCK_TIMEOUT", "0")
        call("desire", "--agent-id", agent, "--text", "Paint").error("lock_timeout")


def test_a_loop_tries_a_broken_one_again(place: Place) -> None:
    """A loop that can't tell the desires asks again within a minute, though nothing is appended to
    the schedules' log; it says so once."""
    record(place.store, "agent-0", "Learn Danish", 0.5, [], place.now())
    (segment,) = (place.var / "desires").glob("*.gz")
    content = segment.read_bytes()
    segment.write_bytes(b"noise" + content)
    request = Request(agent_id="agent-0", template="idle", time="in 1s")
    register(place.store, request, place.now())
    place.ahead += timedelta(seconds=2)
    worker = place.worker()
    for _ in range(3):
        assert not worker.tick(place.now())
        wake = worker.next_wake(place.now())
        assert wake is not None
        assert timedelta(0) < wake - place.now() <= timedelta(seconds=60)
        place.ahead += timedelta(seconds=61)
    assert len([told for told in place.warnings if "can't be delivered" in told]) == 1
    place.register(2)  # to agent-0 and another
    place.run(worker)
    entries = audit(place.store, now=place.now())
    assert entries["totals"]["pending"] == 1
    assert [line["why"] for line in entries["undelivered"]] == ["desires"]
    segment.write_bytes(content)
    place.ahead += timedelta(seconds=61)
    place.run(worker)
    assert place.types()["delivery.delivered"] == 3
    assert worker.next_wake(place.now()) is None


# --- commands on templated schedules --------------------------------------------------------------


def test_the_shorthand_is_the_same(var: Path, clock: Clock) -> None:
    """P6: `idle` is `register --template idle`: the same content, hence the same id; a prompt with
    the same words is another."""
    first = call("idle", "--agent-id", "a", "--cron", "0 9 * * *", "--tier", "1").success()
    asked = ("register", "--agent-id", "a", "--cron", "0 9 * * *", "--tier", "1")
    again = call(*asked, "--template", "idle").success()
    assert (again["id"], again["created"]) == (first["id"], False)
    assert call(*asked, "--prompt", "idle").success()["created"]
    listed = {schedule["id"]: schedule for schedule in call("list").success()["schedules"]}
    mine = listed.pop(first["id"])
    assert (mine["prompt"], mine["template"]) == ("", "idle")
    assert all("template" not in schedule for schedule in listed.values())
    shown = call("show", "--id", first["id"]).success()["schedule"]
    assert shown["template"] == "idle"
    assert call("next", "--id", first["id"], "--count", "2").success()["fires"]


def test_modify_exchanges_prompt_and_template(var: Path, clock: Clock) -> None:
    """`modify --prompt` makes a plain prompt of an idle one, and `--template` the reverse."""
    id_ = call("idle", "--agent-id", "a", "--every", "1h").success()["id"]
    asked = ("modify", "--id", id_)
    assert call(*asked, "--prompt", "Hi").success()["modified"] == ["prompt", "template"]
    shown = call("show", "--id", id_).success()["schedule"]
    assert (shown["prompt"], shown["template"]) == ("Hi", None)
    assert call(*asked, "--template", "idle").success()["modified"] == ["prompt", "template"]
    assert call(*asked, "--template", "idle").success()["modified"] == []
    call(*asked, "--template", "idle", "--prompt", "Hi").error("conflicting_options", 2)
    call("rebuild").success()
    assert call("show", "--id", id_).success()["schedule"]["template"] == "idle"


def test_exported_and_imported(var: Path, tmp_path: Path, clock: Clock) -> None:
    """An idle schedule goes to another machine with its id, modified or not."""
    plain = call("idle", "--agent-id", "a", "--every", "1h").success()["id"]
    made = ("register", "--agent-id", "a", "--prompt", "Hi", "--every", "2h")
    modified = call(*made).success()["id"]
    call("modify", "--id", modified, "--template", "idle").success()
    lines = call("export").out
    there = ("--var", str(tmp_path / "there"))
    answer = call("import", "-", *there, stdin=lines).success()
    assert (answer["count"], answer["bad_count"]) == (2, 0)
    listed = call("list", "--full", *there).success()["schedules"]
    templates = {schedule["id"]: schedule["template"] for schedule in listed}
    assert templates == {plain: "idle", modified: "idle"}
    bad = lines.replace(b'"template":"idle"', b'"template":"busy"')
    call("import", "-", "--var", str(tmp_path / "other"), stdin=bad).error("bad_lines")


def test_simulate_lets_them_fade(var: Path, clock: Clock) -> None:
    """A simulation lists what there is, as it fades: what falls below the floor is skipped."""
    call("desire", "--agent-id", "a", "--text", "Faint", "--strength", "0.02").success()
    call("idle", "--agent-id", "a", "--every", "1d").success()
    call("idle", "--agent-id", "b", "--every", "10d").success()
    answer = call("simulate", "--until", "in 60d").success()
    assert (answer["fired"], answer["skipped"]) == (30, {"no_desires": 36})
    assert answer["broken"] == []


def test_exactly_one_of_three(var: Path) -> None:
    """P7: a prompt, a file of it, or a template: one, and only one."""
    base = ("register", "--agent-id", "a", "--every", "1h")
    call(*base).error("missing_option", 2)
    for two in (("--prompt", "x"), ("--prompt-file", "-")):
        call(*base, "--template", "idle", *two).error("conflicting_options", 2)
    call(*base, "--template", "busy").error("invalid_value", 2)
    call("idle", "--agent-id", "a").error("missing_option", 2)
    call("idle", "--agent-id", "a", "--prompt", "x", "--every", "1h").error("unknown_option", 2)
    assert not var.exists()
