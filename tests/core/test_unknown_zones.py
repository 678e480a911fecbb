"""A schedule whose times this machine can't compute breaks nothing else, and can be mended."""

import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from calling import AGENT, call, lines_of
from checker import check_chain
from conftest import Clock
from forging import segments_of

from promptyoself.core import times
from promptyoself.sandbox import Sandbox

BASE = ("register", "--agent-id")


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[Any]:
    """Makes a zone that only this machine has, and says whether it is there."""
    folder = tmp_path / "zones"
    (folder / "Mars").mkdir(parents=True)
    london = (Path(root) / "Europe" / "London" for root in zoneinfo.TZPATH)
    source = next(path for path in london if path.is_file())
    (folder / "Mars" / "Base").write_bytes(source.read_bytes())
    path = list(zoneinfo.TZPATH)

    def show(there: bool) -> None:
        zoneinfo.reset_tzpath(to=[str(folder), *path] if there else path)
        zoneinfo.ZoneInfo.clear_cache()
        times.zone_named.cache_clear()

    show(there=True)
    yield show
    zoneinfo.reset_tzpath(to=path)
    zoneinfo.ZoneInfo.clear_cache()
    times.zone_named.cache_clear()


def test_an_unknown_zone_breaks_nothing_else(
    var: Path, clock: Clock, hidden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, shows, simulations, agendas, exports and deliveries go on; what can't be told is named
    as the schedule's problem, and by doctor and audit; the loop says so."""
    with Sandbox(["a", "b"]) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        a, b = sandbox.agents
        cron = ("--prompt", "p", "--cron", "0 * * * *")
        broken = call(*BASE, a, *cron, "--tz", "Mars/Base").success()["id"]
        every = ("--prompt", "q", "--every", "1h", "--tz", "Mars/Base", "--envelope")
        local = call(*BASE, a, *every).success()["id"]
        good = call(*BASE, b, *cron).success()["id"]
        hidden(there=False)
        for command in (("list", "--full"), ("list",), ("list", "--agent-id", a)):
            listed = {each["id"]: each for each in call(*command).success()["schedules"]}
            assert "Mars/Base" in listed[broken]["problem"]
        shown = call("show", "--id", broken).success()["schedule"]
        assert (shown["next_run_local"], shown["next_run"] is None) == (None, False)
        told = call("show", "--id", local).success()["schedule"]["problem"]
        assert "delivered all the same" in told
        assert "problem" not in call("show", "--id", good).success()["schedule"]
        for other in (["stats"], ["budgets"], ["approvals"], ["export", "--out", str(var / "e")]):
            call(*other).success()
        simulated = call("simulate", "--until", "in 3h").success()
        assert any(day["delivered"] for day in simulated.get("days", [{"delivered": 1}]))
        named = {line["id"]: line for line in call("agenda", "--for", "3h").success()["broken"]}
        assert set(named) == {broken, local}
        assert call("next", "--id", local, "--count", "2").success()["fires"][1]["local"] is None
        call("next", "--id", broken).error("unknown_zone")
        (check,) = [c for c in call("doctor").document["checks"] if c["name"] == "times"]
        assert not check["ok"]
        assert broken in check["detail"]
        clock.advance(hours=2)
        answer = call("execute")
        done = {line["id"] for line in answer.success()["executed"] if line["delivered"]}
        assert done == {local, good}
        assert f"{broken} can't be delivered: There is no time zone 'Mars/Base'." in answer.err
        assert ".." not in answer.err
        error = call("audit").error("slots_unaccounted")
        assert "1 schedule" in error["message"]
        assert list(error["broken"]) == [broken]
        check_chain(var / "schedules")


@pytest.mark.parametrize("how", ["cancel", "modify", "pause, modify and resume", "prompt"])
@pytest.mark.parametrize("kind", [("--cron", "0 * * * *"), ("--every", "1h")])
def test_an_unknown_zone_can_be_mended(
    var: Path, clock: Clock, hidden: Any, how: str, kind: tuple[str, str]
) -> None:
    """The ordinary commands mend it, whether the zone comes back or not, and the audit is clean
    then on a machine that knows the zone and on one that doesn't."""
    id_ = call(*BASE, AGENT, "--prompt", "p", *kind, "--tz", "Mars/Base").success()["id"]
    hidden(there=False)
    clock.advance(hours=3, minutes=30)
    if how == "cancel":
        call("cancel", "--id", id_).success()
    elif how == "modify":
        answer = call("modify", "--id", id_, "--tz", "Europe/London").success()
        assert answer["next_run_local"].endswith("+00:00")
    elif how == "prompt":
        call("modify", "--id", id_, "--prompt", "Other", "--name", "n").success()
        call("modify", "--id", id_, "--until", "2027-01-01T00:00Z", "--tz", "UTC").success()
    else:
        call("pause", "--id", id_).success()
        if kind[0] == "--cron":
            error = call("resume", "--id", id_).error("unknown_zone")
            assert f"modify --id {id_} --tz" in error["hint"]
        call("modify", "--id", id_, "--tz", "Europe/London").success()
        call("resume", "--id", id_).success()
    assert "problem" not in call("show", "--id", id_).success()["schedule"]
    call("audit").success()
    call("verify").success()
    hidden(there=True)
    assert not call("audit").success()["totals"]["unaccounted"]
    check_chain(var / "schedules")


def test_a_cron_expression_of_another_version_breaks_nothing_else(var: Path, clock: Clock) -> None:
    """A log may have what isn't a cron expression any more: it is shown with the reason, cancelled
    and modified, and the others go on."""
    bad = call(*BASE, AGENT, "--prompt", "p", "--cron", "0 9 * * *").success()["id"]
    good = call(*BASE, AGENT, "--prompt", "q", "--every", "1h").success()["id"]
    events = [orjson.loads(line) for line in lines_of(var)]
    for event in events:
        if event["type"] == "schedule.registered" and event["id"] == bad:
            event["data"]["schedule_value"] = "0 9 15W * *"
    for name, content in segments_of(events).items():
        (var / "schedules" / name).write_bytes(content)
    (var / "schedules" / "index.json").unlink()
    shown = call("show", "--id", bad).success()["schedule"]
    assert "0 9 15W * *" in shown["problem"]
    assert call("list", "--full").success()["count"] == 2
    call("pause", "--id", bad).success()
    call("resume", "--id", bad).error("invalid_cron")
    call("modify", "--id", bad, "--cron", "0 9 1 * *").success()
    call("resume", "--id", bad).success()
    call("cancel", "--id", good).success()
    call("audit").success()
