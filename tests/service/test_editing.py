"""`edit`: a schedule as a text in somebody's editor, and what comes of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, Answer, add, call, events_of, log_of
from hypothesis import given
from hypothesis import strategies as st
from world import World

from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.agent_names import remember_names
from promptyoself.doors.session import Session
from promptyoself.doors.terminal import editor
from promptyoself.service.files.edited import (
    asked_by,
    text_of_schedule,
    with_complaint,
    with_place,
    without_complaint,
)
from promptyoself.service.files.registrations import parsed_toml
from promptyoself.service.files.tables import KEYS
from promptyoself.service.schedules.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable


BO = "agent-00000000-0000-4000-8000-000000000002"


@pytest.fixture
def edit(var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Call `edit` with an editor that runs a line of `sed`."""
    monkeypatch.setattr(editor.tempfile, "tempdir", str(tmp_path))

    def edit(id_: str, script: str, *more: str) -> Answer:
        (tmp_path / "script").write_text(script)
        monkeypatch.setenv("EDITOR", f"sed -E -i -f {tmp_path / 'script'}")
        return call("edit", "--id", id_, *(more or ("--yes",)))

    return edit


def shown(id_: str) -> dict[str, Any]:
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


def drafts(folder: Path) -> list[Path]:
    """The texts that were kept."""
    return list(folder.glob("promptyoself-*.toml"))


def test_what_is_saved_is_changed(edit: Any, var: Path, tmp_path: Path) -> None:
    """Only what differs is in the event, which is the one that `modify` writes."""
    id_ = add("--every", "1h", "--name", "plan", prompt="Plan\nthe day.")
    answer = edit(id_, "s/^the day/the week/; s/every = .*/every = '2h'/").success()
    assert answer["modified"] == ["prompt", "schedule_value"]
    assert shown(id_)["prompt"] == "Plan\nthe week."
    (event,) = events_of(var, "schedule.modified")
    assert set(event["data"]["changes"]) == {"prompt", "schedule_value", "anchor", "next_run"}
    assert not drafts(tmp_path)


def test_keys_are_added_and_taken_out(edit: Any) -> None:
    asked = "--every 1h --jitter 5m --tag a --envelope --until 2030-01-01"
    id_ = add(*asked.split())
    script = "/^(jitter|tags|envelope|until) =/d; s/^# (daily_budget = ).*/\\13/; "
    script += "s/^# name.*/name='n'/"
    edit(id_, script).success()
    schedule = shown(id_)
    assert (schedule["jitter"], schedule["envelope"], schedule["until"]) == (0, False, None)
    assert (schedule["daily_budget"], schedule["name"], "tags" in schedule) == (3, "n", False)
    edit(id_, "s/^every = .*/cron = '0 9 * * *'/").success()
    assert shown(id_)["schedule_type"] == "cron"
    edit(id_, "s/^cron = .*/when = 'every weekday at 9'/").success()
    assert shown(id_)["schedule_value"] != "0 9 * * *"


def test_agents_go_by_their_names_as_at_the_command_line(edit: Any, var: Path) -> None:
    """The name that Letta has told stands for the id, and the name of the agent that has the
    schedule changes nothing. A person is warned of what is neither."""
    remember_names(var, {AGENT: "Ada", BO: "Bo"})
    id_ = add()
    named = "s/^agent_id = .*/agent_id = 'Ada'/"
    assert edit(id_, named).success()["modified"] == []
    edit(
        id_, "s/^agent_id = .*/agent_id = 'Bo'/; s/^# on_failure = .*/on_failure = 'Ada'/"
    ).success()
    assert (shown(id_)["agent_id"], shown(id_)["on_failure"]) == (BO, AGENT)
    said = edit(id_, "s/^agent_id = .*/agent_id = 'Boo'/", "--yes", "--format", "table")
    assert "'Boo' doesn't look like an agent's id" in " ".join(said.out.decode().split())


def test_nothing_is_changed_if_the_text_is_not(edit: Any, var: Path, tmp_path: Path) -> None:
    """Nor if only a comment is; the text isn't kept then."""
    id_ = add()
    log = log_of(var)
    for script in ("", "s/^# sch.*/# what?/"):
        assert edit(id_, script).success()["modified"] == []
    assert log_of(var) == log
    assert not drafts(tmp_path)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("s/^every = .*/every = 'soon'/", "invalid_duration"),
        ("s/^every = .*/every = /", "invalid_toml"),
        ("s/^every = .*/evry = '1h'/", "unknown_key"),
        ("s/^tier = .*/tier = '1'/", "wrong_type"),
        ("/^prompt = /d", "cannot_be_unset"),
        ("/^every = /d", "cannot_be_unset"),
        ("s/^prompt = .*/prompt = ''/", "empty_prompt"),
    ],
)
def test_a_wrong_edit_changes_nothing_and_is_kept(
    script: str, code: str, edit: Any, var: Path, tmp_path: Path
) -> None:
    """The error says where the text is."""
    id_ = add()
    log = log_of(var)
    error = edit(id_, script).error(code)
    assert log_of(var) == log
    (kept,) = drafts(tmp_path)
    assert error["file"] == str(kept)
    assert str(kept) in error["hint"]
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("script", "key"),
    [
        ("s/^every = .*/evry = '1h'/", "evry"),
        ("s/^tier = .*/tier = '1'/", "tier"),
        ("s/^every = .*/every = 'soon'/", "every"),
        ('s/^prompt = .*/prompt = """\\ntier = \'1\'\\n"""\\ncolour = \'red\'/', "colour"),
    ],
)
def test_what_is_wrong_has_its_line_and_its_key(
    script: str, key: str, edit: Any, var: Path, tmp_path: Path
) -> None:
    """Of the text as it was saved, and as it is opened again with the complaint on top."""
    error = edit(add(), script).document
    (kept,) = drafts(tmp_path)
    number = int(re.match(rf"Line (\d+), {key}: ", error["message"])[1])  # type: ignore[index]
    saved = kept.read_text()
    assert saved.splitlines()[number - 1].startswith(f"{key} = ")
    for _ in range(2):
        again = with_complaint(saved, with_place(PromptyoselfError(*_told(error, saved)), saved))
        line = int(re.match(rf"#! Line (\d+), {key}: ", again)[1])  # type: ignore[index]
        assert again.splitlines()[line - 1].startswith(f"{key} = ")
        saved = again


def _told(error: dict[str, Any], saved: str) -> tuple[str, str, str]:
    return error["code"], error["message"].split(": ", 1)[1], error["hint"]


def test_a_line_of_a_prompt_is_no_complaint(edit: Any, var: Path) -> None:
    """A prompt may have a line that begins as our remarks do."""
    text = "Run this:\n#!/bin/sh\n#! and this\n"
    id_ = add(prompt=text)
    assert edit(id_, "s/^tier = 0/tier = 1/").success()["modified"] == ["tier"]
    assert shown(id_)["prompt"] == text


def test_an_editor_that_fails_changes_nothing(
    edit: Any, var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    id_ = add()
    log = log_of(var)
    for command in ("false", str(tmp_path / "none"), "sh -c 'exit 3'"):
        monkeypatch.setenv("VISUAL", command)
        error = call("edit", "--id", id_, "--yes").error("editor_failed")
        assert "Errno" not in error["message"]
    assert log_of(var) == log
    assert not drafts(tmp_path)


def test_without_a_terminal_it_is_refused(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the command that needs none."""
    id_ = add()
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert f"modify --id {id_}" in call("edit", "--id", id_, "--yes").error("no_editor")["hint"]
    monkeypatch.setenv("EDITOR", "true")
    call("edit", "--id", id_).error("no_editor")


def test_somebody_elses_change_is_not_undone(
    edit: Any, var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was changed while the editor was open stays, and the text is kept."""
    id_ = add("--every", "1h", "--name", "a")
    other = f"{sys.executable} -m promptyoself modify --id {id_} --name c >/dev/null"
    (tmp_path / "both").write_text(f'{other}\nsed -i s/\\"a\\"/\\"b\\"/ "$1"\n')
    monkeypatch.setenv("VISUAL", f"sh {tmp_path / 'both'}")
    error = call("edit", "--id", id_, "--yes").error("changed_meanwhile")
    assert shown(id_)["name"] == "c"
    assert Path(error["file"]).exists()


def test_at_a_terminal_it_asks_and_offers_a_wrong_edit_again(
    edit: Any, var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second time the text begins with what was wrong; then the difference is shown."""
    monkeypatch.setattr(Session, "at_terminal", True)
    id_ = add()
    calls = tmp_path / "calls"
    (tmp_path / "ed").write_text(
        f'cp "$1" {calls}.$(ls {calls}.* 2>/dev/null | wc -l)\n'
        f'if [ -e {calls}.1 ]; then sed -i "s/^every.*/every = \'2h\'/" "$1"\n'
        'else sed -i "s/^every.*/every = \'x\'/" "$1"; fi\n'
    )
    monkeypatch.setenv("VISUAL", f"sh {tmp_path / 'ed'}")
    answer = call("edit", "--id", id_, stdin=b"y\ny\n")
    assert "duration" in answer.err
    assert re.search(r"^-every = \"1h\"$", answer.err, re.MULTILINE)
    assert re.search(r"^\+every = '2h'$", answer.err, re.MULTILINE)
    assert b'"modified":["schedule_value"]' in answer.out
    assert Path(f"{calls}.1").read_text().startswith("#! ")
    monkeypatch.setenv("VISUAL", "sed -i s/2h/3h/")
    refused = call("edit", "--id", id_, stdin=b"n\n")
    assert b'"modified":[]' in refused.out
    assert shown(id_)["schedule_value"] == "2h"
    assert len(drafts(tmp_path)) == 1


def test_what_it_warns_of_comes_before_the_question(
    var: Path, monkeypatch: pytest.MonkeyPatch, edit: Any
) -> None:
    """A mistyped agent is seen before the change is made, and isn't told twice."""
    monkeypatch.setattr(Session, "at_terminal", True)
    id_ = add()
    edit(id_, "")
    monkeypatch.setenv("EDITOR", "sed -i -E s/^agent_id.*/agent_id=\\'Boo\\'/")
    refused = call("edit", "--id", id_, "--format", "table", stdin=b"n\n")
    asked = refused.err.index("warning: 'Boo' doesn't look like")
    assert asked > refused.err.index("+agent_id")
    assert b"Boo" not in refused.out
    assert shown(id_)["agent_id"] == AGENT


PROMPTS = st.text(min_size=1, max_size=40).filter(str.strip).filter(lambda text: "\0" not in text)


@given(PROMPTS, PROMPTS)
def test_a_text_says_what_the_schedule_is(prompt: str, other: str) -> None:
    """Read again, it has the very prompt; unchanged it asks for nothing, and a complaint on top of
    it says nothing."""
    world = World()
    id_ = world.register(prompt=prompt, name=other.replace("\n", " ")[:50], tags=["a"], every="1h")
    text = text_of_schedule(world.state.schedules[id_])
    table = parsed_toml(text)
    assert table["prompt"] == prompt
    assert asked_by(text, text) == Request()
    renamed = world.state.schedules[id_]._replace(prompt=other)
    assert asked_by(text, text_of_schedule(renamed)) in (Request(prompt=other), Request())
    error = PromptyoselfError("x", "Line\nand line.", "Hint.")
    assert without_complaint(with_complaint(text, error)) == text


def test_a_text_has_every_field(var: Path) -> None:
    """Set or not, each key of `register` is there to be seen, but the reason and other times."""
    world = World()
    id_ = world.register(every="1h")
    text = text_of_schedule(world.state.schedules[id_])
    keys = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    assert set(KEYS) - keys <= {"time", "cron", "rrule", "when", "template", "reason"}
