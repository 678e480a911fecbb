"""Prompts with values, from the registration to the log: what is refused, what is sent, and what
becomes of a slot whose template can't be filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, add, call, events_of
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, check_slots

from promptyoself.rules.claim import orphans
from promptyoself.rules.outcome import PARK_AFTER, Abandoned, Failed
from promptyoself.service.forecast.simulator import Simulator
from promptyoself.service.schedules.change import modify, run_now
from promptyoself.service.schedules.request import Request
from promptyoself.state.desires import Desire, Ranked

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Clock
    from dispatch import Place

BROKEN = "{{ desires[0].text }}"
"""A template that is in order, and can't be filled in while the agent has no desires."""


def wishing(*texts: str) -> World:
    """A world in which every agent has these desires."""
    world, at = World(), "2026-11-20T12:00:00.000000Z"
    wishes = [
        Ranked(0.5, Desire("des_1", "agent-a", text, 0.5, at, at, at, ("slow",))) for text in texts
    ]
    world.strongest = lambda *_: wishes
    return world


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{{ nope }}", "unknown_variable"),
        ("{{ now ", "invalid_template"),
        ("{% for a in range(2) %}" * 25 + "{% endfor %}" * 25, "invalid_template"),
        ("{{ name }} " * 10_000, "invalid_template"),
        ("{% include 'x' %}", "invalid_template"),
    ],
)
def test_a_wrong_template_is_refused_before_anything_is_written(
    text: str, code: str, var: Any
) -> None:
    """It is refused at registration, and by each change that would bring it about."""
    base = ("--agent-id", AGENT, "--every", "1h")
    message = call("register", *base, "--prompt", text, "--render").error(code)["message"]
    assert message.endswith(".")
    assert not message.endswith("..")
    assert not var.exists()
    plain = add(prompt=text)
    call("modify", "--id", plain, "--render").error(code)
    rendered = call("register", *base, "--prompt", "It is {{ now }}.", "--render").success()["id"]
    call("modify", "--id", rendered, "--prompt", text).error(code)
    call("modify", "--id", rendered, "--prompt", text, "--no-render").success()
    shown = call("show", "--id", rendered).success()["schedule"]
    assert shown["prompt"] == text
    assert "render" not in shown


def test_long_texts_leave_the_append_room() -> None:
    """P2: texts of many agents, each as long as may be, don't make one append that is too long, in
    which nobody's prompt would be claimed. All of them are claimed in the end."""
    world = World()
    text = "{% set s = '\x01\x01\x01\x01' %}" + "{% set s = s ~ s %}" * 15 + "{{ s }}"
    for number in range(80):
        world.register(f"agent-{number}", text, render="jinja2")
    world.register("agent-plain", "Hi")
    world.advance(minutes=2)
    claimed: list[str] = []
    while due := world.claim(seats=256):
        if not due.claims:
            break
        assert (
            sum(len(orjson.dumps(record._asdict())) for record, _ in due.records) < 32 * 1024 * 1024
        )
        claimed += [claim.agent_id for claim in due.claims]
    assert len(claimed) == len(set(claimed)) == 81


def test_an_idle_prompt_has_no_values(var: Any) -> None:
    """`--render` is for a prompt. A schedule that becomes an idle one is rendered no more."""
    base = ("register", "--agent-id", AGENT, "--every", "1h")
    call(*base, "--template", "idle", "--render").error("conflicting_options", 2)
    id_ = call(*base, "--prompt", "{{ name }}", "--render").success()["id"]
    call("modify", "--id", id_, "--template", "idle").success()
    assert call("show", "--id", id_).success()["schedule"]["template"] == "idle"
    assert "render" not in call("show", "--id", id_).success()["schedule"]


def test_a_wrong_template_is_not_imported(var: Any) -> None:
    """`import` checks templates as `register` does."""
    call("register", "--agent-id", AGENT, "--every", "1h", "--prompt", "{{ name }}", "--render")
    line = orjson.loads(call("export").out)
    line["schedule"]["prompt"] = "{{ nope }}"
    refused = call("import", "-", stdin=orjson.dumps(line)).error("bad_lines")
    assert refused["bad"][0]["code"] == "unknown_variable"


# --- what is sent ---------------------------------------------------------------------------------


def test_the_values_are_those_of_the_claim() -> None:
    """Times are by the clocks of the schedule's zone; the log has the text that is sent."""
    world = wishing("Learn Danish")
    text = (
        "{{ slot|date }} {{ now|date('%H:%M:%S') }} {{ zone }} #{{ fire_number }} {{ name }} "
        "{{ agent }} {{ last_run|date }} {{ last_reply is none }} {{ desires[0].text }} "
        "{{ desires[0].tags|join }} {{ desires[0].strength }}"
    )
    asked = {"cron": "0 9 * * *", "timezone": "Europe/Paris", "name": "plan"}
    world.register("agent-a", text, render="jinja2", **asked)
    world.now = datetime(2026, 11, 21, 8, 0, 5, tzinfo=UTC)
    claimed = world.claim_one()
    wanted = "2026-11-21 09:00 09:00:05 Europe/Paris #1 plan agent-a  True Learn Danish slow 0.5"
    assert claimed.text == wanted
    attempted = world.last("delivery.attempted")
    assert attempted.text == wanted
    assert attempted.text_sha256 == sha256(wanted.encode()).hexdigest()
    world.settle(claimed)
    world.now = datetime(2026, 11, 22, 8, 0, 5, tzinfo=UTC)
    again = world.claim_one()
    assert "#2 plan agent-a 2026-11-21 09:00 True" in again.text
    world.settle(again)
    check_slots(world.events, world.now)


def test_without_render_the_text_is_verbatim() -> None:
    """Braces are text, whatever they hold, and the log has no second copy of it."""
    world = World()
    text = "{{ now }} {% for %} {# no"
    assert world.claimed(prompt=text).text == text
    assert world.last("delivery.attempted").text is None


def test_the_envelope_is_around_a_filled_in_prompt() -> None:
    world = World()
    claimed = world.claimed(prompt="#{{ fire_number }}", render="jinja2", envelope=True)
    assert claimed.text.startswith("Scheduled task ")
    assert claimed.text.endswith("\nPrompt: #1")
    assert world.last("delivery.attempted").text == claimed.text
    world.settle(claimed)
    check_slots(world.events, world.now)


def test_desires_are_read_only_where_they_are_named() -> None:
    """A damaged log of desires keeps no other prompt from being sent."""
    world = World()

    def unreadable(agent_id: str, now: datetime) -> list[Ranked]:
        raise OSError("the desires can't be read")

    world.strongest = unreadable
    world.register("agent-a", "{{ name }} says: desires!", render="jinja2", name="plan")
    listing = world.register("agent-b", "{{ desires|length }}", render="jinja2")
    world.advance(minutes=1)
    decision = world.claim()
    assert [claimed.text for claimed in decision.claims] == ["plan says: desires!"]
    assert list(decision.broken) == [listing]


def test_a_later_attempt_fills_it_in_again() -> None:
    """Each attempt has the time of its own claim, and the number of the fire stays."""
    world = World()
    first = world.claimed(prompt="#{{ fire_number }} {{ now|date('%S') }}", render="jinja2")
    world.settle(first, Abandoned("letta_unreachable", "Nobody answers."))
    world.advance(seconds=30)
    again = world.claim_one()
    assert (again.attempt, again.otid) == (2, first.otid)
    assert (first.text, again.text) == ("#1 00", "#1 30")
    world.settle(again)
    check_slots(world.events, world.now)


def test_a_triggered_one_is_filled_in_too() -> None:
    world = World()
    id_ = world.register("agent-a", "{{ fire_number }}", render="jinja2", every="1h")
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    assert world.claim_one().text == "0"


def test_an_empty_text_is_a_slot_to_skip() -> None:
    """A template may find that there is nothing to say; that is no failure."""
    world = wishing()
    world.register("agent-a", "{% if desires %}Think!{% endif %}\n", render="jinja2", every="1h")
    world.advance(hours=1)
    assert world.claim().claims == []
    assert world.last("delivery.skipped").why == "no_text"
    check_slots(world.events, world.now)


# --- what fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        BROKEN,
        "{{ name.upper }}",
        "{{ last_run.year }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{{ 'é' ~ 'y'|replace('y', name) ~ name * 1 }}{% endfor %}",
        r'{{ "\ud800" }}',
        r'{{ "\x00" }}',
        "{% for a in range(9000) %}" + "é" * 100 + "{% endfor %}",
    ],
)
def test_a_template_that_fails_is_a_failure_of_its_slot(text: str) -> None:
    """It is claimed, and fails at once without a call: the same code each time, and permanent."""
    world = wishing()
    world.register("agent-a", text, render="jinja2", every="1h")
    world.register("agent-b", "Sound.", every="1h")
    world.advance(hours=1)
    decision = world.claim()
    assert not decision.broken
    faulty, sound = sorted(decision.claims, key=lambda claimed: claimed.agent_id)
    assert faulty.fault
    assert (faulty.text, sound.text, sound.fault) == ("", "Sound.", None)
    world.settle(faulty, Failed("template_failed", faulty.fault, permanent=True))
    world.settle(sound)
    check_slots(world.events, world.now)


def test_a_failing_template_is_never_sent(place: Place) -> None:
    """Through the dispatcher: no call is made for it, it parks its schedule as any permanent
    failure does, and somebody is told."""
    asked = {"render": "jinja2", "every": "1m", "on_failure": "agent-b", "grace": "1h"}
    id_ = place.add("agent-a", BROKEN, **asked)
    worker = place.worker()
    for _ in range(PARK_AFTER + 2):
        place.ahead += timedelta(minutes=1)
        place.run(worker)
    failures = [event for event in place.events() if event["type"] == "delivery.failed"]
    assert [event["data"]["code"] for event in failures] == ["template_failed"] * PARK_AFTER
    assert all(event["data"]["permanent"] for event in failures)
    assert failures[-1]["data"]["parked"]
    assert failures[-1]["data"]["notice"].startswith("sch_")
    assert place.store.read().state.schedules[id_].status == "failed"
    place.run(worker)
    notices = [run.agent_id for run in place.letta.runs.values()]
    assert set(notices) <= {"agent-b"}, "nothing was sent to the agent of the template"


def test_a_worker_that_dies_over_a_failing_template_leaves_nothing_in_doubt_for_ever(
    place: Place,
) -> None:
    """What was claimed is looked for, tried again, and fails; it is never sent."""
    place.add("agent-a", BROKEN, render="jinja2", time="in 1s")
    place.ahead += timedelta(seconds=2)
    dying = place.worker()
    dying._in_flight.begin = lambda _: None  # type: ignore[method-assign]
    dying.tick(place.now())
    place.die(dying)
    heir = place.worker()
    place.run(heir, until=lambda: place.types()["delivery.failed"] == 1)
    assert not place.letta.sends


def test_a_kill_between_claim_and_send_sends_what_the_log_says(place: Place) -> None:
    """The heir claims again, and the text of its claim is what is sent."""
    sent: list[str] = []
    letta_send = place.letta.send
    place.letta.send = lambda message: (sent.append(message.text), letta_send(message))[1]
    place.add("agent-a", "{{ name }} #{{ fire_number }}", render="jinja2", name="x", time="in 1s")
    place.ahead += timedelta(seconds=2)
    dying = place.worker()
    dying._in_flight.begin = lambda _: None  # type: ignore[method-assign]
    dying.tick(place.now())
    place.die(dying)
    place.run(place.worker(), until=lambda: place.types()["delivery.delivered"] == 1)
    texts = [e["data"]["text"] for e in place.events() if e["type"] == "delivery.attempted"]
    assert texts == ["x #1", "x #1"]
    assert sent == ["x #1"]


# --- what others make of it -----------------------------------------------------------------------


def test_the_audit_finds_a_text_that_the_log_does_not_have() -> None:
    """A claim of a rendered prompt has its text; a claim without it is an unexpected one."""
    world = World()
    claimed = world.claimed(prompt="{{ name }}", render="jinja2")
    world.settle(claimed)
    check_slots(world.events, world.now)
    number = next(n for n, e in enumerate(world.events) if e.type == "delivery.attempted")
    event = world.events[number]
    data = {name: value for name, value in event.data.items() if name != "text"}
    world.events[number] = event._replace(data=data)
    with pytest.raises(AssertionError):
        check_slots(world.events, world.now)


def test_a_simulation_fails_where_a_loop_would() -> None:
    """Its events are those that a loop would write, also of a template that fails."""
    world = wishing()
    world.register("agent-a", BROKEN, render="jinja2", every="1h")
    world.register("agent-b", "{{ slot|date }}", render="jinja2", every="1h")
    simulator = Simulator(world.state, world.settings.caps, world.now, rank_desires=world.strongest)
    events = list(simulator.until(world.now + timedelta(hours=8)))
    counted = [event.type for event in events]
    assert counted.count("delivery.failed") == PARK_AFTER
    assert counted.count("delivery.delivered") == 8


def test_what_was_sent_is_in_the_history(sandbox: Any, clock: Clock, var: Path) -> None:
    """By the command line, to a Letta over HTTP: the agent gets the text that `history` has."""
    prompt = "For {{ agent }} at {{ slot|date('%H:%M') }}"
    agent = sandbox.agents[0]
    add("--time", "in 1m", "--render", agent=agent, prompt=prompt)
    clock.advance(minutes=2)
    call("execute").success()
    (attempt,) = events_of(var, "delivery.attempted")
    assert attempt["data"]["text"].startswith(f"For {agent} at ")
    assert attempt["data"]["text"] in [message.text for message in sandbox.messages(agent)]
    assert call("audit").success()["totals"]["delivered"] == 1


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["wait", "plain", "values", "broken", "modify"]), max_size=12))
def test_any_story_with_templates_has_a_clean_audit(steps: list[str]) -> None:
    """Whatever becomes of prompts with values, each slot has its outcome."""
    world = wishing()
    ids: list[str] = []
    for number, step in enumerate(steps):
        if step == "wait":
            world.advance(minutes=50)
            for claimed in world.claim().claims:
                fault = claimed.fault
                world.settle(claimed, *([Failed("template_failed", fault, True)] if fault else []))
        elif step == "modify" and ids:
            request = Request(prompt=BROKEN, render=("jinja2", "")[number % 2])
            modify(world, ids[-1], request, world.now)  # type: ignore[arg-type]
        else:
            text = {"values": "{{ fire_number }}"}.get(step, BROKEN)
            render = None if step == "plain" else "jinja2"
            ids.append(
                world.register(f"a{number % 2}", f"{number} {text}", render=render, every="1h")
            )
    check_slots(world.events, world.now)
    assert not list(orphans(world.state, ["wrk_1"], world.now))
