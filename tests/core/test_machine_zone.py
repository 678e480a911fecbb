"""The zone of times that name none: the machine's for people, UTC for agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, call

from promptyoself.core.settings import default_zone
from promptyoself.core.zones import machine_zone
from promptyoself.doors.session import Caller, Session

if TYPE_CHECKING:
    from conftest import Clock

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")


@pytest.fixture(autouse=True)
def no_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTYOSELF_TZ isn't set."""
    if "var" in request.fixturenames:
        request.getfixturevalue("var")
    monkeypatch.delenv("PROMPTYOSELF_TZ", raising=False)


ZONES = "/usr/share/zoneinfo/"


@pytest.mark.parametrize(
    ("tz", "zone"),
    [
        ("America/New_York", "America/New_York"),
        (":Europe/London", "Europe/London"),
        (f"{ZONES}Asia/Tokyo", "Asia/Tokyo"),
        ("", "UTC"),
        ("UTC", "UTC"),
        ("Etc/UTC", "UTC"),
        ("EST", "Etc/GMT+5"),
    ],
)
def test_tz_names_the_zone(tz: str, zone: str) -> None:
    assert machine_zone(tz) == (zone, "")


@pytest.mark.parametrize("tz", ["EST5EDT4,M3.2.0,M11.1.0", "<+03>-3", "Mars/Olympus", "localtime"])
def test_a_zone_without_a_name_is_utc_with_a_warning(tz: str) -> None:
    zone = machine_zone(tz)
    assert zone.name == "UTC"
    assert tz[:10] in zone.problem


@pytest.mark.parametrize(
    ("link", "timezone", "zone", "is_warned"),
    [
        (f"{ZONES}Europe/Paris", "", "Europe/Paris", False),
        (f"{ZONES}Etc/UTC", "", "UTC", False),
        ("../usr/share/zoneinfo/Europe/Paris", "", "Europe/Paris", False),
        (None, "Europe/Paris", "Europe/Paris", False),
        (None, "", "UTC", True),
        ("nowhere", "", "UTC", True),
        ("", "Europe/Paris", "UTC", False),
    ],
)
def test_the_machine_names_its_zone(
    link: str | None, timezone: str, zone: str, is_warned: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By a link, or by a copy and a file with its name; without either it is UTC."""
    monkeypatch.delenv("TZ", raising=False)
    if link:
        (tmp_path / "localtime").symlink_to(link)
    elif link is None:
        (tmp_path / "localtime").write_bytes(b"TZif")
    if timezone:
        (tmp_path / "timezone").write_text(f"{timezone}\n")
    found = machine_zone(etc=str(tmp_path))
    assert (found.name, bool(found.problem)) == (zone, is_warned)


def test_times_are_the_machines_unless_a_zone_is_named(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    answer = call(*BASE, "--time", "2027-01-31T09:00").success()
    assert (answer["next_run"], answer["timezone"]) == (
        "2027-01-31T14:00:00.000000Z", "America/New_York",
    )  # fmt: skip
    assert call(*BASE, "--cron", "0 9 * * *", "--tz", "UTC").success()["timezone"] == "UTC"
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Europe/London")
    assert call(*BASE, "--cron", "0 9 * * *").success()["timezone"] == "Europe/London"


def test_an_interval_of_hours_has_no_use_for_a_zone(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it has the id that it has always had. One of days finds what a former version has made."""
    monkeypatch.setenv("TZ", "UTC")
    hours, days = (call(*BASE, "--every", every).success()["id"] for every in ("2h", "1d"))
    monkeypatch.setenv("TZ", "America/New_York")
    assert call(*BASE, "--every", "2h").success()["id"] == hours
    assert call(*BASE, "--every", "1d").success()["id"] == days
    assert call(*BASE, "--every", "3d").success()["timezone"] == "America/New_York"


def test_a_broken_zone_is_said(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Mars/Olympus")
    answer = call(*BASE, "--time", "2027-01-31T09:00").success()
    assert answer["timezone"] == "UTC"
    assert "Mars/Olympus" in answer["warning"]
    assert "Mars" not in call(*BASE, "--every", "2h").success().get("warning", "")
    assert "Mars" in call("next", "--cron", "0 9 * * *").success()["warning"]


def test_agents_have_utc(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless PROMPTYOSELF_TZ names another zone."""
    monkeypatch.setenv("TZ", "America/New_York")
    for door in ("mcp", "sanctum"):
        assert default_zone(Session(None, Caller(via=door)).settings) == "UTC"
    assert default_zone(Session(None, Caller()).settings) == "America/New_York"
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Europe/London")
    assert default_zone(Session(None, Caller(via="mcp")).settings) == "Europe/London"
