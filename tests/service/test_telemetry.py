"""Metrics: what is counted of a log is what the log says, however it is read; and what is shown of
it is what docs/reference/metrics.md lists and docs/alerts.yml asks for."""

from __future__ import annotations

import builtins
import random
import re
import shutil
import subprocess
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml
from by_hand import deliver_due
from calling import AGENT, add, append_foreign, call, lines_of
from damage import store_in
from documents import table
from monitors import parsed
from prometheus_client.parser import text_string_to_metric_families
from world import DELIVERED, World

from promptyoself.core.errors import ChainError
from promptyoself.events.records import DeliveryDelivered, DeliverySkipped, SegmentSealed
from promptyoself.events.versions import VERSIONS
from promptyoself.ledger import Envelope, Position
from promptyoself.rules.outcome import Abandoned, Failed
from promptyoself.service.audit.log_auditor import LogAuditor
from promptyoself.service.metrics import collect
from promptyoself.service.metrics.catalogue import METRICS
from promptyoself.service.metrics.collect import Measurer
from promptyoself.service.metrics.log_counts import BUCKETS, LogCounts
from promptyoself.service.metrics.prometheus import render
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from conftest import Clock

DOCS = Path(__file__).resolve().parents[2] / "docs"
OUTCOMES = (
    DELIVERED,
    DELIVERED,
    DELIVERED,
    DELIVERED._replace(via="history"),
    Abandoned("letta_server_error", "x"),
    Failed("letta_rejected", "x", permanent=True),
    Failed("unknown", "x", permanent=False),
)


def lived(seed: int, steps: int = 120) -> World:
    """A world in which much has happened, at random."""
    chance = random.Random(seed)
    world = World(daily_per_agent=12)
    ids = []
    for step in range(steps):
        dice = chance.random()
        if dice < 0.2 or not ids:
            asked: dict[str, Any] = {"every": chance.choice(["1m", "7m", "3h"])}
            if chance.random() < 0.5:
                asked["daily_budget"] = chance.randrange(4)
            asked["misfire"] = chance.choice(["coalesce", "skip", "all"])
            ids.append(world.register(f"agent-{chance.randrange(4)}", f"p{step}", **asked))
        elif dice < 0.25:
            world.add([(SegmentSealed("2026-10", 1, "0" * 64), None)])
        else:
            world.advance(minutes=chance.choice([1, 5, 200, 2000]))
            for made in world.claim().claims:
                world.advance(seconds=chance.choice([0, 1, 40, 1000]))
                world.settle(made, chance.choice(OUTCOMES))
    return world


def by_hand(events: list[Any]) -> dict[str, Any]:
    """The same counts, by looking through all events for each."""
    slots: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.type == "delivery.delivered":
            slots["delivered", event.data["via"]] += 1
        elif event.type == "delivery.failed":
            slots["failed", event.data["code"]] += 1
        elif event.type == "delivery.skipped":
            slots["skipped", event.data["why"]] += event.data["slots"]
    late = [
        (datetime.fromisoformat(event.ts) - datetime.fromisoformat(event.data["slot"]))
        for event in events
        if event.type == "delivery.delivered"
    ]
    return {
        "slots": slots,
        "events": Counter(event.type for event in events),
        "attempts": sum(event.type == "delivery.attempted" for event in events),
        "parked": sum(bool(event.data.get("parked")) for event in events),
        "late": [
            sum(bisect_left(BUCKETS, lateness.total_seconds()) == at for lateness in late)
            for at in range(len(BUCKETS) + 1)
        ],
        "late_microseconds": sum(late, timedelta()) // timedelta(microseconds=1),
    }


@pytest.mark.parametrize("seed", range(6))
def test_what_is_counted_is_what_the_log_says(seed: int) -> None:
    """P2: the counts are those of a look through all events; the audit, which counts by itself, has
    the same delivered, failed and skipped; and a schedule's budget left is what the fold says."""
    world = lived(seed)
    counts = LogCounts()
    counts.add(world.events)
    for name, expected in by_hand(world.events).items():
        assert getattr(counts, name) == expected, name
    assert sum(counts.late) > 10
    auditor = LogAuditor(datetime.min.replace(tzinfo=world.now.tzinfo), world.now)
    audited: Counter[str] = Counter()
    for event in world.events:
        for entry in auditor.add(event):
            audited[entry.outcome] += entry.slots
    counted = Counter[str]()
    for (outcome, _), number in counts.slots.items():
        counted[outcome] += number
    assert counted == {name: audited[name] for name in ("delivered", "failed", "skipped")}
    day = f"{world.now:%Y-%m-%d}"
    left, empty = counts.budgets_left(day, 1000)
    states = world.state.schedules.values()
    spending = {
        schedule.id: (schedule.daily_budget, max(schedule.daily_budget - schedule.spent, 0))
        for schedule in states
        if schedule.daily_budget is not None and schedule.spent_day == day
    }
    assert {id_: (budget, rest) for id_, budget, rest in left} == spending
    assert empty == sum(not rest for _, rest in spending.values())
    assert [rest for _, _, rest in left] == sorted(rest for _, rest in spending.values())


@pytest.mark.parametrize("seed", range(3))
def test_counting_can_stop_and_go_on_anywhere(seed: int) -> None:
    """Whatever the events come in, and though it is written down and read again in between, the
    counts are the same."""
    world, chance = lived(seed), random.Random(seed)
    whole, parts = LogCounts(), LogCounts()
    whole.add(world.events)
    rest = world.events
    while rest:
        cut = chance.randrange(1, 40)
        parts.add(rest[:cut])
        rest = rest[cut:]
        parts = LogCounts.from_json(orjson.loads(orjson.dumps(parts.to_json())))
    assert parts.to_json() == whole.to_json()


def test_nobody_makes_series_without_end() -> None:
    """A log written by somebody else can't make labels of its own, nor as many as it likes."""
    counts = LogCounts()

    def event(number: int, via: str, why: str) -> list[Envelope]:
        ts = f"2026-11-20T12:00:00.{number:06d}Z"
        delivered = DeliveryDelivered(ts, "o", 1, "w", via, 1)._asdict()
        skipped = DeliverySkipped(ts, ts, 1, why)._asdict()
        return [
            Envelope(1, 1, ts, f"delivery.{name}", "sch_1", {"via": "cli"},
                     {k: v for k, v in data.items() if v is not None}, "")
            for name, data in (("delivered", delivered), ("skipped", skipped))
        ]  # fmt: skip

    for number in range(500):
        counts.add(event(number, f"via_{number}", f'evil"}}\n{number}'))
    assert len(counts.slots) <= 102
    assert counts.slots["skipped", "other"] == 500
    assert counts.slots["delivered", "other"] > 300
    assert all(re.fullmatch(r"\w+", reason) for _, reason in counts.slots)


@pytest.mark.parametrize(
    "data",
    [
        {"slot": "2026-11-20T12:00:00.000000Z"},
        {"slot": "x", "otid": "o", "attempt": 1, "worker": "w", "via": "run", "latency_ms": 1},
        {"slot": None, "otid": "o", "attempt": 1, "worker": "w", "via": "run", "latency_ms": 1},
    ],
)
def test_nonsense_is_refused(data: dict[str, Any]) -> None:
    """An event that none of ours can have written is corruption, not a figure."""
    ts = "2026-11-20T12:00:00.000000Z"
    event = Envelope(1, 7, ts, "delivery.delivered", "sch_1", {"via": "cli"}, data, "")
    with pytest.raises(ChainError) as refused:
        LogCounts().add([event])
    assert (refused.value.code, refused.value.details["seq"]) == ("corrupt_chain", 7)


# --- the command ----------------------------------------------------------------------------------


def scraped() -> dict[str, dict[tuple[str, ...], float]]:
    """What `metrics` prints, as a Prometheus understands it: each sample by its labels' values."""
    answer = call("metrics")
    assert answer.code == 0, answer
    return parsed(answer.out)


BASE = ("register", "--agent-id", AGENT, "--prompt")


def test_the_command_prints_what_the_log_says(var: Path, clock: Clock) -> None:
    """`metrics` is Prometheus text: the log's length, its schedules, and who changed what."""
    first = call(*BASE, "a", "--every", "5m").success()["id"]
    call(*BASE, "b", "--every", "5m").success()
    call("cancel", "--id", first).success()
    call("cancel", "--id", first).error("already_cancelled")
    found = scraped()
    assert found["promptyoself_schedules"]["cancelled",] == 1
    assert found["promptyoself_schedules"]["active",] == 1
    assert found["promptyoself_schedule_events_total"]["cli", "registered"] == 2
    assert found["promptyoself_chain_events"]["schedules",] == len(lines_of(var))
    size = sum(path.stat().st_size for path in (var / "schedules").glob("*.ndjson.gz"))
    assert found["promptyoself_chain_bytes"]["schedules",] == size
    clock.advance(minutes=12)
    assert scraped()["promptyoself_oldest_due_seconds"][()] == 7 * 60


def test_without_the_library_one_error_says_what_to_install(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: `metrics` and `--metrics-port` need an extra, and say so before anything else is done."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for arguments in (("metrics",), ("execute", "--loop", "--metrics-port", "0")):
        assert "prometheus-client>=0.20" in call(*arguments).error("missing_package")["hint"]
    assert not var.exists()


def test_an_agent_that_is_pinned_sees_no_other(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PROMPTYOSELF_ONLY_AGENT pins the caller, no other agent's name or schedule is shown."""
    world_of(var, clock, agents=3)
    assert len(scraped()["promptyoself_agent_budget_left"]) == 3
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-1")
    found = scraped()
    assert list(found["promptyoself_agent_budget_left"]) == [("agent-1",)]
    assert len(found["promptyoself_schedule_budget_left"]) == 1


def world_of(var: Path, clock: Clock, agents: int) -> Store:
    """A data directory in which each agent has got one delivery, on a budget of three."""
    store = store_in(var / "schedules")
    for number in range(agents):
        add("--every", "5m", "--daily-budget", "3", agent=f"agent-{number}")
    deliver_due(store, clock.advance(minutes=5))
    return store


def test_a_thousand_agents_are_twenty_series(var: Path, clock: Clock) -> None:
    """However many agents and schedules there are, those with the least left are shown, and how
    many there are; the next day they count from 0 again."""
    store = world_of(var, clock, agents=60)
    found = scraped()
    assert found["promptyoself_agents_spending"][()] == 60
    assert set(found["promptyoself_agent_budget_left"].values()) == {499.0}
    assert len(found["promptyoself_agent_budget_left"]) == 20
    assert len(found["promptyoself_schedule_budget_left"]) == 20
    assert set(found["promptyoself_schedule_budget"].values()) == {3.0}
    assert sum(len(samples) for samples in found.values()) < 200
    tomorrow = Measurer(store).measure(clock.advance(days=1))
    assert tomorrow["promptyoself_agents_spending"] == [((), 0)]
    assert tomorrow["promptyoself_schedule_budget_left"] == []


# --- going on from where it was -------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many events were taken in, by each call."""
    numbers: list[int] = []
    take = LogCounts.add

    def noted(self: LogCounts, events: Any) -> None:
        numbers.append(len(events))
        take(self, events)

    monkeypatch.setattr(LogCounts, "add", noted)
    monkeypatch.setattr(collect, "_SAVE_EVERY", 1)
    return numbers  # type: ignore[return-value]


def fresh(store: Store, clock: Clock) -> bytes:
    """What a process that has never counted before says."""
    (store.settings.var / "metrics.json").unlink(missing_ok=True)
    return render(Measurer(store).measure(clock.now))


def test_only_what_came_after_is_read(var: Path, clock: Clock, counted: list[int]) -> None:
    """P8: a scrape, in the same process or another, takes in what came since the last one."""
    store = world_of(var, clock, agents=5)
    measurer = Measurer(store)
    measurer.measure(clock.now)
    assert sum(counted) == 16
    counted.clear()
    measurer.measure(clock.now)
    Measurer(store).measure(clock.now)
    assert counted == []
    call(*BASE, "more", "--every", "5m").success()
    text = render(Measurer(store).measure(clock.now))
    assert sum(counted) == 1
    assert text == fresh(store, clock)


def test_what_comes_while_it_is_measured_is_counted_next(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that is appended after the log was read, and before its end is looked up, isn't
    passed over for ever."""
    add(prompt="1")
    store = store_in(var / "schedules")
    measurer, head = Measurer(store), store._ledger.head

    def late(after: Position) -> Position:
        monkeypatch.setattr(store._ledger, "head", head)
        add(prompt="2")
        return head(after)

    monkeypatch.setattr(store._ledger, "head", late)
    measurer.measure(clock.now)
    name = "promptyoself_schedule_events_total"
    assert measurer.measure(clock.now)[name] == [(("registered", "cli"), 2)]


@pytest.mark.parametrize("how", ["gone", "noise", "cut", "flipped", "other format", "a folder"])
def test_what_was_counted_is_disposable(
    var: Path, clock: Clock, counted: list[int], how: str
) -> None:
    """P4: whatever becomes of metrics.json, the figures are the same."""
    store = world_of(var, clock, agents=5)
    expected = render(Measurer(store).measure(clock.now))
    path = var / "metrics.json"
    content = path.read_bytes()
    path.unlink()
    if how == "noise":
        path.write_bytes(random.Random(1).randbytes(5000))
    elif how == "cut":
        path.write_bytes(content[:200])
    elif how == "flipped":
        path.write_bytes(content.replace(b'"attempts":5', b'"attempts":6'))
    elif how == "other format":
        path.write_bytes(content.replace(b'"format":1', b'"format":9'))
    elif how == "a folder":
        path.mkdir()
    assert render(Measurer(store).measure(clock.now)) == expected


def test_another_log_is_counted_from_its_beginning(
    var: Path, clock: Clock, counted: list[int]
) -> None:
    """P4: counts that belong to another chain, of a backup that was put back, say, don't fit."""
    store = world_of(var, clock, agents=5)
    Measurer(store).measure(clock.now)
    kept = (var / "metrics.json").read_bytes()
    for path in sorted((var / "schedules").glob("*")):
        if path.is_file():
            path.unlink()
    clock.advance(minutes=1)
    call(*BASE, "another", "--every", "5m").success()
    (var / "metrics.json").write_bytes(kept)
    found = scraped()
    assert found["promptyoself_chain_events"]["schedules",] == 2
    assert found["promptyoself_delivery_attempts_total"][()] == 0


def test_sealing_changes_no_count(var: Path, clock: Clock, counted: list[int]) -> None:
    """Where a month is rewritten in between, counting goes on, and its bytes are the new ones."""
    store = world_of(var, clock, agents=5)
    measurer = Measurer(store)
    measurer.measure(clock.now)
    clock.advance(days=20)
    call("seal").success()
    counted.clear()
    found = parsed(render(measurer.measure(clock.now)))
    assert sum(counted) == 1
    size = sum(path.stat().st_size for path in (var / "schedules").glob("*.ndjson.gz"))
    assert found["promptyoself_chain_bytes"]["schedules",] == size
    assert parsed(fresh(store, clock)) == found


def test_a_newer_version_is_no_obstacle(var: Path, clock: Clock) -> None:
    """What a newer version has written is counted as other."""
    call(*BASE, "a", "--every", "5m").success()
    append_foreign(var, type="moon.landed", id=None)
    assert scraped()["promptyoself_events_total"]["schedules", "other"] == 1


# --- what is documented ---------------------------------------------------------------------------


def test_every_metric_is_described_and_no_other() -> None:
    """docs/reference/metrics.md has a row for each metric: kind, labels, source, own words."""
    rows = table("metrics.md", "The metrics")
    assert list(rows) == list(METRICS)
    for name, (kind, labels, source, text) in rows.items():
        metric = METRICS[name]
        assert (kind, source, text) == (metric.kind, metric.source, metric.help), name
        assert tuple(re.findall(r"`(\w+)`", labels)) == metric.labels, name


def test_every_metric_is_shown(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each metric that isn't the loop's own is in what `metrics` prints, with those labels: where
    there is nobody to be told, all but those of notices."""
    world_of(var, clock, agents=2)
    of_notices = {name for name in METRICS if "notice" in name}
    assert of_notices
    assert not of_notices & scraped().keys()
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_OPS", "https://example.org/hook")
    families = {
        family.name: family
        for family in text_string_to_metric_families(call("metrics").out.decode())
    }
    for name, metric in METRICS.items():
        if metric.source == "loop":
            continue
        family = families[name.removesuffix("_total") if metric.kind == "counter" else name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def expressions() -> dict[str, str]:
    """The alerts' expressions, by name."""
    document = yaml.safe_load((DOCS / "alerts.yml").read_text())
    assert list(document) == ["groups"]
    found = {}
    for group in document["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
            assert re.fullmatch(r"\d+[smhd]", rule["for"])
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert set(rule["annotations"]) == {"summary", "description"}
            found[rule["alert"]] = rule["expr"]
    return found


WORDS = {
    "and", "or", "unless", "on", "ignoring", "by", "without", "sum", "max", "min", "count", "rate",
    "increase", "time", "vector", "absent", "clamp_min", "avg_over_time", "offset", "bool",
    "histogram_quantile", "up", "group_left",
}  # fmt: skip


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    """docs/alerts.yml: each rule's expression is made of metrics that are shown, with labels that
    they have, of functions that there are, and of brackets that close."""
    found = expressions()
    assert {
        "PromptyoselfNothingDelivered",
        "PromptyoselfDeliveriesFail",
        "PromptyoselfAgentBudgetLow",
        "PromptyoselfScheduleBudgetLow",
        "PromptyoselfManyRegistrations",
        "PromptyoselfLoopStopped",
        "PromptyoselfChainRefused",
    } <= set(found)
    for alert, text in found.items():
        brackets = re.sub(r'"[^"]*"|[^()\[\]{}]', "", text)
        while brackets:  # take out what closes at once
            rest = re.sub(r"\(\)|\[\]|\{\}", "", brackets)
            assert rest != brackets, alert
            brackets = rest
        for name, inside in re.findall(r"(promptyoself_\w+)(?:\{([^}]*)\})?", text):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            metric = METRICS[name] if name in METRICS else METRICS[base]
            assert (metric.kind == "histogram") == (name not in METRICS), name
            for label, _ in re.findall(r"(\w+)\s*(=~|!~|!=|=)", inside):
                assert label in {*metric.labels, "le"}, f"{name} has no {label}"
        plain = re.sub(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}|promptyoself_\w+', " ", text)
        groups = re.findall(r"\b(?:by|on|ignoring|group_left) ?\(([^)]*)\)", plain)
        labels = set(re.findall(r"\w+", " ".join(groups)))
        words = set(re.findall(r"[a-zA-Z_]\w*", plain))
        assert words - labels <= WORDS, f"{alert}: {words - labels - WORDS}"


RULES_TEST = Path(__file__).parents[1] / "testdata" / "alerts.test.yml"


def test_the_alerts_are_tested_with_series_that_there_are() -> None:
    """The series that the alerts' own tests make up have names and labels of ours, and each alert
    has a test in which it fires."""
    document = yaml.safe_load(RULES_TEST.read_text())
    for series in (line["series"] for test in document["tests"] for line in test["input_series"]):
        name, _, inside = series.partition("{")
        if name != "up":
            assert set(re.findall(r"(\w+)=", inside)) - {"job"} <= set(METRICS[name].labels), series
    firing = RULES_TEST.read_text().split("promql_expr_test", maxsplit=1)[1]
    assert {alert for alert in expressions() if f'"{alert}"' in firing} == set(expressions())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed")
def test_the_alerts_fire_when_they_should() -> None:
    """Prometheus's own tool takes the rules, and finds each alert firing where it should."""
    for command in (("check", "rules", str(DOCS / "alerts.yml")), ("test", "rules", RULES_TEST)):
        done = subprocess.run(["promtool", *command], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_of_events_are_counted_by_name() -> None:
    """Each type that there is can be a label as it is."""
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", type_) for type_ in VERSIONS)
