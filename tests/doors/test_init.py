"""`init`: what it asks, what it writes, and what it does where nobody can be asked, or no server
answers."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import Answer, call
from documents import ROOT, steps
from installed import converse, environ_of, home, place  # noqa: F401

from promptyoself.core.settings import read_file
from promptyoself.sandbox import Sandbox
from promptyoself.service.setup import systemd

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def letta() -> Iterator[Sandbox]:
    """A server with two agents."""
    with Sandbox(("echo", "other")) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On no machine does a test install a service."""
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "nowhere")


def values(home: Path) -> dict[str, str]:
    """What the file of settings says."""
    path = home / ".config" / "promptyoself" / ".env"
    return {name: entry.value for name, entry in read_file(path).items()}


def test_a_script_gives_the_answers(home: Path, letta: Sandbox) -> None:
    """With --yes nothing is asked. An agent may be given by its name; it is written by its id."""
    given = ("--url", letta.url, "--tz", "Europe/London", "--agent-id", "other")
    answer = call("init", "--yes", *given).success()
    assert values(home) == {
        "LETTA_BASE_URL": letta.url,
        "PROMPTYOSELF_TZ": "Europe/London",
        "PROMPTYOSELF_DEFAULT_AGENT_ID": letta.agents[1],
    }
    assert (answer["agents"], answer["agent_id"], answer["service"]) == (2, letta.agents[1], None)
    assert answer["changed"] == list(values(home))
    registered = call("register", "--prompt", "x", "--every", "1h").success()
    assert registered["timezone"] == "Europe/London"


@pytest.mark.parametrize("command", [("agents",), ("test",), ("init", "--yes")])
def test_names_are_known_before_there_is_a_data_directory(
    home: Path, letta: Sandbox, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The first command that asks Letta makes the folder, so that the next one knows the names."""
    monkeypatch.setenv("LETTA_BASE_URL", letta.url)
    call(*command).success()
    (file,) = home.rglob("agent-names.json")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    id_ = call("register", "--agent-id", "other", "--prompt", "x", "--every", "1h").success()["id"]
    assert call("show", id_).success()["schedule"]["agent_id"] == letta.agents[1]


def test_an_address_of_letta_code_is_tried_as_one(home: Path) -> None:
    """Where no App Server answers, nothing is written; with --skip-letta the address is."""
    error = call("init", "--yes", "--url", "ws://127.0.0.1:9").error("letta_code_unreachable")
    assert "--skip-letta" in error["hint"]
    assert values(home) == {}
    call("init", "--yes", "--skip-letta", "--url", "ws://127.0.0.1:9").success()
    assert values(home)["PROMPTYOSELF_LETTA_CODE_URL"] == "ws://127.0.0.1:9"
    assert "LETTA_BASE_URL" not in values(home)
    call("init", "--yes", "--url", "ws://u:p@127.0.0.1:9").error("invalid_setting")


def test_again_it_changes_only_what_is_answered_otherwise(home: Path, letta: Sandbox) -> None:
    """What is set stays the default, and other lines stay as they are."""
    call("config", "set", "interval", "5").success()
    call("init", "--yes", "--url", letta.url, "--tz", "Asia/Tokyo", "--agent-id", "echo").success()
    before = values(home)
    assert call("init", "--yes").success()["changed"] == []
    answer = call("init", "--yes", "--tz", "Europe/Paris").success()
    assert answer["changed"] == ["PROMPTYOSELF_TZ"]
    assert values(home) == before | {"PROMPTYOSELF_TZ": "Europe/Paris"}


def test_a_person_reads_no_more_than_what_is_new(home: Path, letta: Sandbox) -> None:
    """The answers are on the screen already: what is left to say is where they went, and what to do
    next."""
    answer = call("init", "--yes", "--url", letta.url, "--format", "table")
    shown = " ".join(answer.out.decode().split())
    assert "settings were written to" in shown
    assert "`promptyoself register --agent-id AGENT --prompt" in shown
    assert letta.url not in shown


def test_the_zone_is_the_machines_and_the_only_agent_is_the_default(
    place: Path, tmp_path: Path
) -> None:
    """The defaults are what most would answer."""
    environ = {**environ_of(place, tmp_path), "TZ": "America/New_York"}
    with Sandbox(("alone",)) as letta:
        asked = ("init", "--yes", "--url", letta.url)
        answer = converse(*asked, environ=environ, replies=[]).success()
        assert (answer["timezone"], answer["agent_id"]) == ("America/New_York", letta.agents[0])


def test_without_a_terminal_it_says_what_to_do(home: Path) -> None:
    """Nothing is asked, nothing hangs, and nothing is written."""
    error = call("init").error("no_terminal", 2)
    assert "`promptyoself init --yes --url URL" in error["hint"]
    assert not (home / ".config").exists()


def test_a_server_that_does_not_answer(home: Path) -> None:
    """Nothing is written, unless that is asked for."""
    error = call("init", "--yes", "--url", NOWHERE).error("letta_unreachable")
    assert "--skip-letta" in error["hint"]
    assert not (home / ".config").exists()
    answer = call("init", "--yes", "--url", NOWHERE, "--skip-letta").success()
    assert (answer["url"], answer["version"]) == (NOWHERE, None)
    assert values(home)["LETTA_BASE_URL"] == NOWHERE


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--url", "letta", "invalid_setting"),
        ("--tz", "Londn", "unknown_zone"),
        ("--agent-id", "nobody", "agent_not_found"),
    ],
)
def test_a_wrong_answer_writes_nothing(
    home: Path, letta: Sandbox, option: str, value: str, code: str
) -> None:
    call("init", "--yes", "--url", letta.url, option, value).error(code)
    assert not (home / ".config").exists()


def test_a_service_where_there_is_no_systemd(home: Path, letta: Sandbox) -> None:
    """One message says what to do, before anything is written."""
    error = call("init", "--yes", "--url", letta.url, "--service").error("no_systemd")
    assert "`promptyoself service install --cron`" in error["hint"]
    assert not (home / ".config").exists()


def test_a_person_is_asked(place: Path, tmp_path: Path, letta: Sandbox) -> None:
    """The address is tried, a wrong zone is asked for again, and agents are numbered."""
    replies = [
        ("Address of your Letta server", letta.url),
        ("Time zone", "Europe/Londn"),
        ("Time zone", "Europe/London"),
        ("Your agent", "2"),
    ]
    answer = asked(place, tmp_path, replies)
    document = answer.success()
    assert "with 2 agents" in answer.err
    assert "Did you mean Europe/London" in answer.err
    assert f"2  other  {letta.agents[1]}" in answer.err
    assert document["agent_id"] == letta.agents[1]
    assert values(tmp_path)["PROMPTYOSELF_TZ"] == "Europe/London"


def test_a_password_is_asked_for_unseen(place: Path, tmp_path: Path) -> None:
    """Where the server wants one; a wrong one is asked for again."""
    with Sandbox(("echo",), token="hush-hush") as letta:
        _is_asked_for_a_password(place, tmp_path, letta)


def _is_asked_for_a_password(place: Path, tmp_path: Path, letta: Sandbox) -> None:
    replies = [
        ("Address of your Letta server", letta.url),
        ("not shown", "wrong-one"),
        ("not shown", "hush-hush"),
        ("Time zone", ""),
        ("Your agent", "echo"),
    ]
    answer = asked(place, tmp_path, replies)
    answer.success()
    assert values(tmp_path)["LETTA_SERVER_PASSWORD"] == "hush-hush"
    assert "wrong-one" not in answer.err
    assert "hush-hush" not in answer.err + answer.out.decode()


def test_a_password_that_is_wrong_is_not_written(place: Path, tmp_path: Path) -> None:
    """Also where the address is written all the same."""
    with Sandbox(("echo",), token="hush-hush") as letta:
        replies = [
            ("Address of your Letta server", letta.url),
            ("not shown", "wrong-1"),
            ("not shown", "wrong-2"),
            ("all the same", "y"),
            ("Time zone", ""),
        ]
        asked(place, tmp_path, replies).success()
    assert values(tmp_path).keys() == {"LETTA_BASE_URL", "PROMPTYOSELF_TZ"}


def test_a_person_may_write_it_all_the_same(place: Path, tmp_path: Path) -> None:
    """An address that isn't there yet, but only after a yes."""
    replies = [
        ("Address of your Letta server", NOWHERE),
        ("all the same", "n"),
        ("Address of your Letta server", NOWHERE),
        ("all the same", "y"),
        ("Time zone", ""),
    ]
    asked(place, tmp_path, replies).success()
    assert values(tmp_path)["LETTA_BASE_URL"] == NOWHERE


def test_the_first_day_shows_what_is_asked(place: Path, tmp_path: Path) -> None:
    """docs/tutorial/first-day.md has these questions, in this order, and what is said between."""
    (step,) = steps(
        (ROOT / "docs/tutorial/first-day.md").read_text(), "a test at a terminal runs it"
    )
    with Sandbox(("echo-1", "echo-2", "echo-3")) as letta:
        replies = [
            ("Address of your Letta server", letta.url),
            ("Time zone", ""),
            ("Your agent", "1"),
        ]
        screen = asked(place, tmp_path, replies).err
    *lines, _ = step.shown.splitlines()  # the last asks for a service, which this test leaves out
    at = 0
    for line in lines:
        what = line.partition("/home/")[0].partition(" [")[0]
        assert what in screen[at:], (line, screen)
        at = screen.index(what, at) + len(what)


def asked(place: Path, home: Path, replies: list[tuple[str, str]]) -> Answer:
    """An `init` at a terminal, which offers no service."""
    environ = environ_of(place, home)
    return converse("init", "--no-service", environ=environ, replies=replies)
