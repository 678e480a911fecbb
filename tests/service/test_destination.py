"""Where prompts go: `--target` and `--conversation`, as they are given, recorded and shown."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, add, call, events_of, log_of
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from promptyoself import cli
from promptyoself.doors.agent_parameters import commands_of, parameters
from promptyoself.doors.session import Session
from promptyoself.doors.terminal.forms import show
from promptyoself.doors.terminal.screen import Screen
from promptyoself.events.target_names import (
    TARGETS,
    default_conversation,
    implied_target,
    stored_conversation,
    stored_target,
    target_of,
)

if TYPE_CHECKING:
    from conftest import Clock

LOCAL = "agent-local-7f3a"
CLOUD = ("--target", "letta-cloud")


@pytest.fixture(autouse=True)
def cloud(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "untested")


def shown(id_: str) -> dict[str, Any]:
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


def where(id_: str) -> tuple[str, str]:
    """Where the prompts of a schedule go, as one reads `show`."""
    schedule = shown(id_)
    target = schedule.get("target", "letta")
    return target, schedule["conversation_id"] or default_conversation(target)


# --- what is recorded -----------------------------------------------------------------------------

AGENTS = st.sampled_from([AGENT, LOCAL, "agent-local-", "agent-localhost", "x"])


@given(
    agent_id=AGENTS,
    target=st.sampled_from([None, *TARGETS]),
    conversation=st.sampled_from([None, "new", "default", "conv-1"]),
)
def test_what_is_recorded_means_what_was_asked_for(
    agent_id: str, target: str | None, conversation: str | None
) -> None:
    """And what is recorded is recorded as itself. Nothing is that follows from the agent's id."""
    effective = target_of(agent_id, target)
    kept = stored_target(agent_id, target)
    assert target_of(agent_id, kept) == effective
    assert stored_target(agent_id, kept) == kept != implied_target(agent_id)
    talk = stored_conversation(effective, conversation)
    default = default_conversation(effective)
    assert (talk or default) == (conversation or default)
    assert stored_conversation(effective, talk) == talk != default


@pytest.mark.parametrize(
    ("agent", "asked"),
    [
        (AGENT, ("--target", "letta")),
        (AGENT, ("--conversation", "default")),
        (AGENT, ("--conversation-id", "Default", "--target", "letta")),
        (LOCAL, ("--target", "letta-code", "--conversation", "new")),
        (LOCAL, ("--conversation", "NEW")),
        (AGENT, ("--target", "")),
        (LOCAL, ("--conversation", "")),
    ],
)
def test_what_the_id_says_already_is_no_content(
    agent: str, asked: tuple[str, ...], var: Path
) -> None:
    """P6: the id is the one without the options, and the event has none of them."""
    plain = add("--every", "1h", agent=agent)
    assert add("--every", "1h", *asked, agent=agent) == plain
    (event,) = events_of(var, "schedule.registered")
    assert event["v"] == 1
    assert not {"target", "conversation_id"} & event["data"].keys()


def test_each_other_place_is_another_schedule(var: Path) -> None:
    places = [(), ("--conversation", "new"), ("--conversation", "conv-1"), CLOUD]
    places += [(*CLOUD, "--conversation", "default"), (*CLOUD, "--conversation", "conv-1")]
    ids = [add("--every", "1h", *asked) for asked in places]
    assert len({*ids}) == len(places)
    assert [where(id_) for id_ in ids] == [
        ("letta", "default"),
        ("letta", "new"),
        ("letta", "conv-1"),
        ("letta-cloud", "new"),
        ("letta-cloud", "default"),
        ("letta-cloud", "conv-1"),
    ]
    assert add("--every", "1h", *CLOUD, "--conversation", "new") == ids[3]
    assert [event["v"] for event in events_of(var, "schedule.registered")] == [1, 2, 1, 2, 2, 2]


def test_a_target_is_shown_where_it_is_not_a_letta_server() -> None:
    """The answers about all others stay what they were."""
    assert "target" not in shown(add())
    assert shown(add(agent=LOCAL))["target"] == "letta-code"
    full = call("list", "--full").success()["schedules"]
    assert sorted(schedule.get("target", "") for schedule in full) == ["", "letta-code"]
    plain = call("list").success()["schedules"]
    assert not any("target" in schedule for schedule in plain)


def test_a_former_registration_with_default_is_found(var: Path, clock: Clock) -> None:
    """A version that knew no `default` took it for an id, so it was content."""
    from promptyoself.core.ids import schedule_id

    add("--time", "2030-01-01T09:00", "--conversation", "conv-1")
    line = orjson.loads(call("export").out)
    content = {**line["schedule"], "conversation_id": "default"}
    line["schedule"] = content
    names = ("agent_id", "prompt", "schedule_type", "schedule_value", "timezone", "conversation_id")
    line["id"] = schedule_id({name: content[name] for name in names})
    file = var.parent / "former.jsonl"
    file.write_bytes(orjson.dumps(line) + b"\n")
    call("import", str(file)).success()
    answer = call(
        *("register", "--agent-id", AGENT, "--prompt", "p", "--time", "2030-01-01T09:00"),
        *("--conversation-id", "default"),
    ).success()
    assert (answer["id"], answer["created"]) == (line["id"], False)


# --- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "before", "change", "after"),
    [
        (AGENT, (), ("--agent-id", LOCAL), ("letta-code", "default")),
        (LOCAL, (), ("--agent-id", AGENT), ("letta", "new")),
        (AGENT, ("--conversation", "new"), ("--agent-id", LOCAL), ("letta-code", "new")),
        (AGENT, (), ("--agent-id", LOCAL, "--conversation", ""), ("letta-code", "new")),
        (AGENT, (), CLOUD, ("letta-cloud", "default")),
        (AGENT, CLOUD, ("--target", "letta"), ("letta", "new")),
        (AGENT, CLOUD, ("--target", ""), ("letta", "new")),
        (AGENT, CLOUD, ("--target", "", "--conversation", "default"), ("letta", "default")),
        (AGENT, CLOUD, ("--agent-id", "agent-8"), ("letta-cloud", "new")),
        (AGENT, ("--conversation", "conv-1"), CLOUD, ("letta-cloud", "conv-1")),
        (LOCAL, ("--target", "letta"), ("--agent-id", AGENT), ("letta", "default")),
        (AGENT, ("--target", "letta-code"), ("--agent-id", LOCAL), ("letta-code", "new")),
        (LOCAL, ("--conversation", "default"), ("--conversation", ""), ("letta-code", "new")),
        (LOCAL, (), ("--name", "n"), ("letta-code", "new")),
    ],
)
def test_a_change_keeps_what_is_not_named(
    agent: str, before: tuple[str, ...], change: tuple[str, ...], after: tuple[str, str]
) -> None:
    """A change of the target or the agent leaves the conversation what it was, unless it is named
    too. It is taken back as a whole."""
    id_ = add("--every", "1h", *before, agent=agent)
    was, content = where(id_), shown(id_)["content_sha256"]
    answer = call("modify", "--id", id_, *change).success()
    assert where(id_) == after
    recorded = orjson.loads(call("export").out)["schedule"]
    assert recorded.get("target") != implied_target(recorded["agent_id"])
    kept = "still go" in answer["message"]
    assert kept == (
        "conversation_id" in answer["modified"]
        and "--conversation" not in change
        and after[1] != default_conversation(after[0])
    )
    call("undo", "--id", id_).success()
    assert where(id_) == was
    assert shown(id_)["content_sha256"] == content


def test_a_change_to_what_it_is_already_changes_nothing(var: Path) -> None:
    id_ = add(agent=LOCAL)
    log = log_of(var)
    for change in (("--target", "letta-code"), ("--conversation", "new"), ("--target", "")):
        assert call("modify", "--id", id_, *change).success()["modified"] == []
    assert log_of(var) == log


# --- what is refused ------------------------------------------------------------------------------


def asked_of(command: str) -> tuple[str, ...]:
    if command == "modify":
        return ("--id", add())
    prompt = () if command == "idle" else ("--prompt", "x")
    return ("--agent-id", AGENT, "--every", "1h", *prompt)


@pytest.mark.parametrize("command", ["register", "modify", "idle"])
def test_an_unknown_target_is_refused(command: str) -> None:
    error = call(command, *asked_of(command), "--target", "leta").error("invalid_value", 2)
    assert all(name in error["message"] for name in TARGETS)


@pytest.mark.parametrize("command", ["register", "modify", "idle"])
def test_a_target_that_is_off_is_refused(
    command: str, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: what to set is said, and nothing is changed."""
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "off")
    asked = asked_of(command)
    log = log_of(var)
    for change, setting in (
        (("--agent-id", LOCAL), "PROMPTYOSELF_LETTA_CODE_URL"),
        (("--target", "letta-code"), "PROMPTYOSELF_LETTA_CODE_URL"),
        (CLOUD, "PROMPTYOSELF_LETTA_CLOUD"),
    ):
        error = call(command, *asked, *change).error("target_not_configured")
        assert setting in error["message"] + error["hint"]
        assert error["target"] == ("letta-cloud" if change is CLOUD else "letta-code")
    assert log_of(var) == log


def test_a_schedule_of_a_target_that_is_off_can_be_changed(monkeypatch: Any) -> None:
    """So that it can be brought elsewhere, renamed or cancelled."""
    id_ = add(agent=LOCAL)
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    call("modify", "--id", id_, "--name", "n").success()
    call("modify", "--id", id_, "--target", "letta").success()


# --- files ----------------------------------------------------------------------------------------


def test_a_file_of_registrations_has_both(var: Path, tmp_path: Path) -> None:
    file = tmp_path / "many.toml"
    entry = "[[schedule]]\nagent_id = 'agent-1'\nprompt = 'x'\nevery = '1h'\n"
    file.write_text(f"{entry}target = 'letta-cloud'\nconversation = 'default'\n\n{entry}")
    first, second = call("register", "--from", str(file)).success()["schedules"]
    assert where(first["id"]) == ("letta-cloud", "default")
    assert where(second["id"]) == ("letta", "default")
    log = log_of(var)
    file.write_text(f"{entry}target = 'leta'\n")
    error = call("register", "--from", str(file)).error("bad_entries")
    (bad,) = error["bad"]
    assert (bad["code"], bad["key"], bad["line"]) == ("invalid_target", "target", 5)
    assert log_of(var) == log


def test_an_export_has_what_is_recorded(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids stay, and a line without a target means what it always did."""
    ids = [add(), add(agent=LOCAL), add("--every", "1h", *CLOUD, "--conversation", "default")]
    file = tmp_path / "export.jsonl"
    file.write_bytes(call("export").out)
    lines = {line["id"]: line for line in map(orjson.loads, file.read_bytes().splitlines())}
    assert [lines[id_]["schedule"].get("target") for id_ in ids] == [None, None, "letta-cloud"]
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "other"))
    call("import", str(file)).success()
    places = [where(id_) for id_ in ids]
    assert places == [("letta", "default"), ("letta-code", "new"), ("letta-cloud", "default")]
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "third"))
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "off")
    (bad,) = call("import", str(file)).error("bad_lines")["bad"]
    assert bad["code"] == "target_not_configured"


def test_a_crontab_names_a_conversation(tmp_path: Path, var: Path) -> None:
    file = tmp_path / "crontab"
    file.write_text(f"0 9 * * * letta -p 'Plan the day.' --agent {LOCAL} --conversation default\n")
    (line,) = call("import-crontab", str(file)).success()["taken"]
    assert where(line["id"]) == ("letta-code", "default")


def test_a_difference_names_the_target(clock: Clock) -> None:
    id_ = add()
    head = call("head").success()["seq"]
    call("modify", "--id", id_, *CLOUD).success()
    (change,) = call("diff", "--from", str(head)).success()["changes"]
    assert change["fields"]["target"] == {"from": None, "to": "letta-cloud"}
    assert change["fields"]["conversation_id"] == {"from": None, "to": "default"}


def test_an_edited_text_has_both(
    var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    id_ = add("--every", "1h", *CLOUD, "--conversation", "default")
    script = tmp_path / "script"
    monkeypatch.setenv("EDITOR", f"sed -E -i -f {script}")
    script.write_text("s/^target = \"letta-cloud\"$/target = 'letta'/")
    call("edit", "--id", id_, "--yes").success()
    assert where(id_) == ("letta", "default")
    script.write_text("s/^# target = .*/target = 'letta-cloud'/; s/^# conversation_id .*//")
    call("edit", "--id", id_, "--yes").success()
    script.write_text("/^(target|conversation_id) = /d")
    call("edit", "--id", id_, "--yes").success()
    assert where(id_) == ("letta", "default")


# --- what people and agents see -------------------------------------------------------------------


SERVED = "conv-00000000-0000-4000-8000-000000000001"


def seen(*arguments: str) -> str:
    """An answer as a person reads it."""
    return call(*arguments, "--format", "table").out.decode()


@pytest.mark.parametrize(
    ("agent", "asked", "words"),
    [
        (AGENT, (), None),
        (AGENT, ("--conversation", SERVED), f"Letta, conversation {SERVED}"),
        (AGENT, ("--conversation", "new"), "Letta, a new conversation each fire"),
        (LOCAL, (), "Letta Code, a new conversation each fire"),
        (LOCAL, ("--conversation", "default"), "Letta Code, the agent's own conversation"),
        (
            AGENT,
            (*CLOUD, "--conversation", "conv-1"),
            "Letta Cloud (untested), conversation conv-1",
        ),
    ],
)
def test_a_person_reads_where_prompts_go(
    agent: str, asked: tuple[str, ...], words: str | None
) -> None:
    """In the answer to the registration, on the card, and in the full list; unless it is what
    everybody's prompts do."""
    base = ("register", "--agent-id", agent, "--prompt", "p", "--every", "1h", "--name", "n")
    for text in (seen(*base, *asked), seen("show", "n"), seen("list", "--full")):
        told = re.search("goes to +(.*)", text)
        assert (told and told[1].rstrip()) == words
        assert "look like" not in text, "both are ids"


def test_an_approval_is_asked_for_with_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever approves reads where the prompt goes."""
    monkeypatch.setattr(Session, "at_terminal", True)
    id_ = add("--every", "1h", "--tier", "2", *CLOUD)
    asked = call("approve", id_, stdin=b"n\n").err
    assert "target: letta-cloud" in asked


def test_history_tells_the_turn_and_the_conversation() -> None:
    event = {
        "seq": 1, "ts": "2026-11-28T09:00:00.000000Z", "id": "sch_1", "actor": {"who": "root"},
    }  # fmt: skip
    told: list[tuple[str, dict[str, Any]]] = [
        ("attempted", {"target": "letta-code", "attempt": 1}),
        ("delivered", {"turn": "cut_off", "conversation_id": "c1"}),
        ("delivered", {"turn": "waits_for_approval"}),
        ("delivered", {"turn": "failed", "error": "Gone."}),
        ("delivered", {}),
    ]
    events = [{**event, "type": f"delivery.{type_}", "data": data} for type_, data in told]
    console = Console(width=120, file=io.StringIO())
    show("history", {"status": "success", "events": events}, Screen(console, "UTC", None))
    assert isinstance(console.file, io.StringIO)
    lines = [line.partition("sch_1")[2].strip() for line in console.file.getvalue().splitlines()]
    assert lines[1:] == [
        "to Letta Code",
        "the agent's turn was cut off, in conversation c1",
        "the agent waits for an approval",
        "the agent's turn failed, Gone.",
        "",
    ]


def test_both_spellings_are_one_parameter() -> None:
    """Agents are told of one name, and may write the other too. Of targets they aren't told."""
    group = cli.cli
    for name, command in commands_of(group, ("register", "modify", "idle")).items():
        by_name = {parameter.name: parameter for parameter in parameters(command)}
        assert by_name["conversation-id"].aliases == ("conversation",), name
        assert "conversation" not in by_name
        assert "target" not in by_name
    twice = ("--conversation", "new", "--conversation-id", "conv-1")
    asked = ("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h")
    call(*asked, *twice, verbatim=True).error("repeated_option", 2)
