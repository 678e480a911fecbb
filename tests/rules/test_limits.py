"""Budgets, caps and approvals hold whatever happens: random policies, clocks that jump, prompts
that breed prompts; and what they refuse is accounted for."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, call
from conftest import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import AGENTS, OUTCOMES, Story
from tally import count, rounds
from world import World, check_deliveries, entries_of

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.settings import Caps
from promptyoself.events.kinds import PROBLEMS
from promptyoself.rules.slots import next_wake
from promptyoself.service.schedules.budgets import budgets
from promptyoself.service.schedules.change import cancel, modify, pause
from promptyoself.service.schedules.request import Request

LIMITS = ("approval", "budget", "agent_cap")


def check_limits(events: Iterable[Any], caps: Caps) -> Counter[str]:
    """What holds of every log, counted from nothing but its events: on no day (UTC) more slots are
    claimed than a schedule's budget or an agent's cap allows, none of tier 2 is sent without an
    approval that was granted for it, not revoked, not too old, not for what it was before a change,
    and not spent; no agent has too many active schedules. How often each limit was met."""
    policy: dict[str, dict[str, Any]] = {}
    status: dict[str, str] = {}
    spent: Counter[tuple[str, str]] = Counter()
    grants: dict[str, list[Any]] = {}
    paid: set[tuple[str, str]] = set()
    unpaid: tuple[str, str] | None = None
    met: Counter[str] = Counter()
    for event in events:
        id_, data, day = event.id, event.data, event.ts[:10]
        assert unpaid is None or event.type == "approval.consumed", "sent without an approval"
        if "counts_from" in data:  # the clock was ahead: days after this one are still to come
            agent_id = policy.get(id_, data).get("agent_id")
            for whose, later in list(spent):
                if whose in (id_, agent_id) and later > data["counts_from"][:10]:
                    del spent[whose, later]
        match event.type:
            case "schedule.registered":
                policy[id_], status[id_] = dict(data), "active"
                grants.pop(id_, None)
                paid = {key for key in paid if key[0] != id_}
            case "schedule.modified":
                policy[id_].update(data["changes"])
                grants.pop(id_, None)
                paid = {key for key in paid if key[0] != id_}
            case "schedule.paused" | "schedule.cancelled" | "schedule.completed":
                status[id_] = "over"
            case "schedule.resumed":
                status[id_] = "active"
            case "delivery.failed" if data.get("parked"):
                status[id_] = "over"
            case "approval.granted":
                grants[id_] = [data["grant"], data["expires"], data["uses"]]
            case "approval.revoked":
                grants.pop(id_)
            case "approval.consumed":
                grant, expires, uses = grants[id_]
                assert unpaid == (id_, data["slot"])
                assert (data["grant"], uses > 0, event.ts <= expires) == (grant, True, True)
                grants[id_][2] -= 1
                paid.add(unpaid)
                unpaid = None
            case "delivery.attempted":
                agent_id, budget = policy[id_]["agent_id"], policy[id_].get("daily_budget")
                if data["attempt"] == 1:
                    spent[agent_id, day] += 1
                    spent[id_, day] += 1
                    assert spent[agent_id, day] <= caps.daily_per_agent
                    assert budget is None or spent[id_, day] <= budget
                if policy[id_]["tier"] >= 2 and (id_, data["slot"]) not in paid:
                    unpaid = id_, data["slot"]
            case "delivery.skipped" if data["why"] in LIMITS:
                met[data["why"]] += 1
        active = Counter(policy[one]["agent_id"] for one in status if status[one] == "active")
        assert max(active.values(), default=0) <= caps.max_active_per_agent
    assert unpaid is None
    return met


# --- any policy, any clock ------------------------------------------------------------------------

POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.sampled_from([0, 1, 2, 2]),
        "daily_budget": st.integers(0, 4),
        "misfire": st.sampled_from(["coalesce", "skip", "all"]),
        "grace": st.sampled_from(["30m", "40h"]),
        "jitter": st.sampled_from(["4m"]),
        "on_failure": st.sampled_from(["agent-0", "agent-1"]),
        "max_repetitions": st.integers(1, 9),
    },
)
WHENS = st.sampled_from(
    [{"every": "7m"}, {"every": "5h"}, {"cron": "*/20 * * * *"}, {"cron": "58 23 * * *"},
     {"time": "in 90m"}]
)  # fmt: skip
ASKED = st.builds(lambda when, policy: {**when, **policy}, WHENS, POLICIES)
NUMBERS = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("register"), st.tuples(AGENTS, ASKED)),
    st.tuples(st.just("wait"), st.integers(0, 5000)),
    st.tuples(st.just("wait"), st.sampled_from([600, 3600, 86400, 7 * 86400])),
    st.tuples(st.just("jump"), st.integers(-2 * 86400, 86400)),
    st.tuples(st.just("midnight"), st.integers(-120, 120)),
    *[st.tuples(st.just("pass"), st.integers(0, 1))] * 4,
    *[st.tuples(st.just("land"), OUTCOMES)] * 3,
    *[st.tuples(st.just("approve"), NUMBERS)] * 3,
    st.tuples(st.just("crash"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["pause", "resume", "cancel", "trigger", "revive"]), NUMBERS),
    st.tuples(st.just("modify"), st.tuples(NUMBERS, ASKED)),
)


@settings(max_examples=rounds(150), deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60), st.integers(1, 6), st.integers(1, 4))
def test_no_limit_is_ever_exceeded(steps: list[tuple[str, Any]], daily: int, active: int) -> None:
    """P2: whatever is registered, changed, triggered, approved; however the clock jumps, over
    midnight and back: no budget or cap is exceeded on any day, nothing of tier 2 is sent without a
    live approval; and the audit has each refused slot with its reason."""
    story = Story()
    caps = Caps(1, active, daily)
    story.world.settings = story.world.settings._replace(caps=caps)
    for what, detail in steps:
        if what == "midnight":  # of the day that begins, give or take
            start = story.world.now.replace(hour=0, minute=0, second=0, microsecond=0)
            story.world.now = start + timedelta(days=1, seconds=detail)
        else:
            story.step(what, detail)
        count("clock jumps", what in ("jump", "midnight"))
    story.record_outcomes()
    met = check_limits(story.world.events, caps)
    check_deliveries(story.world.events)
    entries = entries_of(story.world.events, story.world.now, [story.names[0]])
    assert not [entry for entry in entries if entry.outcome in PROBLEMS]
    # A verdict of fewer than no slots takes back one on a slot that comes again.
    told = Counter(entry.why for entry in entries if entry.why in LIMITS and entry.slots > 0)
    assert told == met, "a refused slot lacks its reason in the audit"


@pytest.mark.parametrize("broken", ["budget", "agent_cap", "approval"])
def test_the_check_finds_what_it_looks_for(broken: str) -> None:
    """A log in which a limit was exceeded doesn't pass."""
    world = World()
    asked: dict[str, Any] = {"budget": {"daily_budget": 1}, "approval": {"tier": 2}}.get(broken, {})
    id_ = world.register(every="1h", **asked)
    if broken == "approval":
        world.approve(id_, 2)
    for _ in range(2):
        world.advance(hours=1)
        if broken == "budget":  # forgotten
            schedule = world.state.schedules[id_]
            world.state.schedules[id_] = schedule._replace(spent=0)
        world.deliver()
    events = [event for event in world.events if event.type != "approval.consumed"]
    with pytest.raises(AssertionError):
        check_limits(events, Caps(daily_per_agent=1 if broken == "agent_cap" else 9))


# --- a week of prompts that breed -----------------------------------------------------------------


def test_prompts_that_breed_are_stopped_by_the_caps() -> None:
    """Each firing registers three more prompts, and one that repeats, for a week: no agent ever has
    more than its share of schedules or of deliveries on any day, and the log grows by no more than
    that explains."""
    active, daily = 12, 30
    world = World(max_active_per_agent=active, daily_per_agent=daily, min_interval=10)
    agents = ("agent-a", "agent-b")
    for agent in agents:
        world.register(agent, every="10s")
    end, refused, asked = world.now + timedelta(days=7), 0, 0
    while world.now < end:
        claims = world.claim().claims
        for made in claims:
            world.settle(made)
            for when in ({"time": "in 1m"}, {"time": "in 20m"}, {"time": "in 5h"}, {"every": "7h"}):
                asked += 1
                try:
                    world.register(made.agent_id, f"Again {asked}", **when)
                except PromptyoselfError as error:
                    assert error.code == "too_many_schedules"  # noqa: PT017
                    refused += 1
        if not claims:
            wake = next_wake(world.state, world.now)
            world.now = max(wake or end, world.now + timedelta(minutes=1))  # a loop that is slow
    met = check_limits(world.events, world.settings.caps)
    fired = Counter(
        (world.state.schedules[event.id].agent_id, event.ts[:10])
        for event in world.events
        if event.type == "delivery.attempted"
    )
    assert max(fired.values()) == daily, "the cap was never met, so nothing was shown"
    assert sum(fired.values()) <= 8 * daily * len(agents)
    assert refused > 100
    assert met["agent_cap"] > 100
    check_deliveries(world.events)
    entries = entries_of(world.events, world.now, ())
    assert not [entry for entry in entries if entry.outcome in PROBLEMS]
    assert sum(entry.why == "agent_cap" for entry in entries) == met["agent_cap"]


def test_a_refused_slot_is_skipped_once() -> None:
    """A slot that isn't allowed is decided in one pass, and nothing of it is left for the next."""
    world = World(daily_per_agent=3)
    for number, asked in enumerate(({"tier": 2}, {"daily_budget": 0}, {}, {}, {}, {})):
        world.register(prompt=f"{number}", every="1h", **asked)
    world.advance(hours=1)
    for _ in range(9):
        world.deliver()
    skips = [event for event in world.events if event.type == "delivery.skipped"]
    assert Counter(event.data["why"] for event in skips) == dict.fromkeys(LIMITS, 1)
    assert len({event.id for event in skips}) == 3
    before = len(world.events)
    for _ in range(5):
        world.advance(minutes=1)
        world.claim()
    assert len(world.events) == before


def test_a_weeks_sleep_is_no_storm() -> None:
    """After a week without a loop, prompts of which each is to be made up for come one by one, with
    a rest of a minute (or of their interval) after each answer, within the caps; and every slot of
    the week is accounted for."""
    world = World(daily_per_agent=40)
    hourly = world.register(every="1h", misfire="all", grace="30d")
    quick = world.register("agent-b", every="30s", misfire="all", grace="2h")
    world.advance(days=7)
    claimed: dict[str, list[str]] = {hourly: [], quick: []}
    awake, end = world.now, world.now + timedelta(hours=3)
    while world.now < end:
        claims = world.claim().claims
        assert len({made.agent_id for made in claims}) == len(claims)
        for made in claims:
            claimed[made.id].append(world.ts)
            world.settle(made)
        wake = next_wake(world.state, world.now)
        world.now = end if wake is None else wake
    for id_, rest in ((hourly, 60), (quick, 30)):
        times = [parse_utc(ts) for ts in claimed[id_]]
        assert times[0] == awake
        assert all(b - a >= timedelta(seconds=rest) for a, b in pairwise(times))
        assert len(times) == 40, "the day's cap ends it"
    check_limits(world.events, world.settings.caps)
    entries = entries_of(world.events, world.now, ())
    assert not [entry for entry in entries if entry.outcome in PROBLEMS]
    assert sum(entry.slots for entry in entries if entry.id == hourly) == 7 * 24 + 3


# --- the shortest interval ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("least", "asked", "refused"),
    [
        ("10", ("--every", "9s"), True),
        ("10", ("--every", "10s"), False),
        ("60", ("--cron", "* * * * *"), False),
        ("61", ("--cron", "* * * * *"), True),
        ("300", ("--cron", "*/5 * * * *"), False),
        ("301", ("--cron", "*/5 * * * *"), True),
        ("300", ("--cron", "0,4 9 1 1 *"), True),
        ("300", ("--cron", "58 23 * * MON"), False),
        ("300", ("--cron", "58 23,0 * * *"), False),
        ("300", ("--cron", "1,59 0,23 * * MON"), False),
        ("300", ("--cron", "1,59 0,23 * * MON,TUE"), True),
        ("300", ("--cron", "0 * 30 2 *"), None),
        ("90000", ("--cron", "@daily"), True),
        ("86400", ("--cron", "@daily"), False),
    ],
)
def test_the_shortest_interval_holds_for_cron_too(
    var: Path, monkeypatch: pytest.MonkeyPatch, least: str, asked: tuple[str, str], refused: bool
) -> None:
    """PROMPTYOSELF_MIN_INTERVAL refuses intervals that are shorter, and expressions with any two
    fires that are closer, at registration and at every change."""
    monkeypatch.setenv("PROMPTYOSELF_MIN_INTERVAL", least)
    words = ("register", "--agent-id", AGENT, "--prompt", "Hi")
    if refused is None:  # it never fires, which is another matter
        call(*words, *asked).error("cron_never_fires")
        return
    known = call(*words, "--time", "in 1d").success()["id"]
    for command in (words, ("modify", "--id", known)):
        answer = call(*command, *asked)
        if refused:
            document = answer.error("interval_too_short")
            assert repr(asked[1]) in document["message"]
        else:
            answer.success()


# --- budgets, told --------------------------------------------------------------------------------


def test_what_is_left_is_told(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`budgets` says what each agent and each of its schedules has spent, may spend, and has left
    today; from midnight (UTC) on there is as much as before."""
    world = World(daily_per_agent=5, max_active_per_agent=7)
    one = world.register(every="1h", daily_budget=2, name="Hourly")
    two = world.register("agent-b", every="1h")
    world.register("agent-c", time="in 9d")
    for _ in range(3):
        world.advance(hours=1)
        world.deliver()
    store: Any = world
    answer = budgets(store, None, world.now)
    midnight = "2026-11-21T00:00:00.000000Z"
    assert answer["agents"] == [
        {"agent_id": f"agent-{agent}", "spent": spent, "limit": 5, "left": 5 - spent,
         "resets_at": midnight, "active": 1, "max_active": 7, "prompt_bytes": 2,
         "max_prompt_bytes": 4194304}
        for agent, spent in (("a", 2), ("b", 3), ("c", 0))
    ]  # fmt: skip
    told = {line["id"]: line for line in answer["schedules"]}
    assert told[one] == {
        "id": one, "agent_id": "agent-a", "name": "Hourly", "status": "active",
        "spent": 2, "limit": 2, "left": 0, "resets_at": midnight,
    }  # fmt: skip
    assert (told[two]["spent"], told[two]["limit"], told[two]["left"]) == (3, None, None)
    only = budgets(store, "agent-b", world.now)
    assert [line["agent_id"] for line in only["agents"]] == ["agent-b"]
    assert [line["id"] for line in only["schedules"]] == [two]
    world.advance(days=-1)  # a clock that is set back gives nothing back
    assert budgets(store, "agent-b", world.now) == only
    world.advance(days=2)
    later = budgets(store, "agent-a", world.now)
    assert {line["spent"] for line in (*later["agents"], *later["schedules"])} == {0}
    assert later["agents"][0]["resets_at"] == "2026-11-22T00:00:00.000000Z"
    nobody = budgets(store, "agent-z", world.now)
    assert (nobody["agents"][0]["left"], nobody["schedules"]) == (5, [])


def test_what_is_told_is_what_is_claimed() -> None:
    """What `budgets` says is left is how often it can still be claimed today."""
    world = World(daily_per_agent=9)
    store: Any = world
    ids = [world.register(prompt=f"{n}", every="20m", daily_budget=n) for n in range(1, 5)]
    world.advance(hours=1)
    world.deliver()
    before = budgets(store, None, world.now)
    left = {line["id"]: line["left"] for line in before["schedules"]}
    spent = Counter[str]()
    while parse_utc(before["agents"][0]["resets_at"]) > world.now:
        for made in world.claim().claims:
            spent[made.id] += 1
            world.settle(made)
        world.advance(minutes=1)
    assert sum(spent.values()) == before["agents"][0]["left"]
    assert all(spent[id_] <= left[id_] for id_ in ids)
    assert [spent[id_] for id_ in ids[:2]] == [left[id_] for id_ in ids[:2]]


def test_a_pinned_caller_sees_its_own(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTYOSELF_ONLY_AGENT shows no other agent's."""
    for agent in (AGENT, "agent-b"):
        call("register", "--agent-id", agent, "--prompt", "Hi", "--every", "1h").success()
    assert call("budgets").success()["count"] == 2
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    answer = call("budgets").success()
    assert {line["agent_id"] for line in (*answer["agents"], *answer["schedules"])} == {AGENT}
    call("budgets", "--agent-id", "agent-b").error("forbidden_agent")


# --- bytes ----------------------------------------------------------------------------------------


def total_of(world: World, agent: str) -> int:
    """The bytes of an agent's prompts, counted one by one."""
    return sum(
        len(each.prompt.encode())
        for each in world.state.schedules.values()
        if each.agent_id == agent and each.status in ("active", "paused")
    )


def test_an_agents_prompts_together_have_a_limit() -> None:
    """P7: beyond it `register`, `modify` and `resume` change nothing and say why; in bytes, not in
    characters; what is over counts no more, and other agents have their own."""
    world = World(max_prompt_bytes_per_agent=1000)
    store: Any = world
    first = world.register(prompt="\u00e4" * 300, every="1h")
    second = world.register(prompt="b" * 400, every="1h")

    def refused(call: Callable[[], object]) -> None:
        events = len(world.events)
        with pytest.raises(PromptyoselfError) as error:
            call()
        assert error.value.code == "prompts_too_large"
        assert error.value.details["limit"] == 1000
        assert len(world.events) == events

    refused(lambda: world.register(prompt="c", every="1h"))
    refused(lambda: modify(store, second, Request(prompt="d" * 401), world.now))
    world.register("agent-b", prompt="e" * 1000, every="1h")
    refused(lambda: modify(store, second, Request(agent_id="agent-b"), world.now))
    modify(store, second, Request(prompt="d" * 400), world.now)
    pause(store, first, None, world.now)
    refused(lambda: world.register(prompt="c", every="1h"))
    modify(store, first, Request(prompt="f"), world.now)
    world.register(prompt="c" * 599, every="1h")
    cancel(store, second, None, world.now)
    world.register(prompt="g" * 400, every="1h")
    for agent in ("agent-a", "agent-b"):
        assert world.state.agent(agent).prompt_bytes == total_of(world, agent) == 1000


def test_where_the_limit_was_lowered_prompts_can_be_shortened() -> None:
    """An agent that has more than it now may can still get less."""
    world = World(max_prompt_bytes_per_agent=1000)
    store: Any = world
    id_ = world.register(prompt="a" * 900, every="1h")
    world.settings = world.settings._replace(
        caps=world.settings.caps._replace(max_prompt_bytes_per_agent=100)
    )
    modify(store, id_, Request(prompt="a" * 800), world.now)
    with pytest.raises(PromptyoselfError):
        modify(store, id_, Request(prompt="a" * 801), world.now)
