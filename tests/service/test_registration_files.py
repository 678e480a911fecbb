"""`register --from`: many schedules from a file, all of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, Answer, add, call, events_of, log_of
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.doors.agent_names import remember_names
from promptyoself.service.files.registrations import _places, parsed_toml

if TYPE_CHECKING:
    from pathlib import Path

PLAN = f"""\
# What the office needs.
[[schedule]]
agent-id = "{AGENT}"
name = "plan"
prompt = '''
Plan the day.
key = "no key"
[[schedule]] is only a text here.'''
cron = "0 9 * * MON-FRI"
tz = "Europe/London"
tags = ["work", "day"]

[[schedule]]
agent_id = "{AGENT}"
prompt = "It is {{{{ now|date }}}}."
render = true
every = "2h"
start-at = 2027-01-31
jitter = 300
envelope = true
tier = 1
"""


def register_from(content: str, *more: str) -> Answer:
    """Register what a text says, from stdin."""
    return call("register", "--from", "-", *more, stdin=content.encode())


def shown(id_: str) -> dict[str, Any]:
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


def test_all_of_a_file_is_registered_at_once(var: Path) -> None:
    """Each as `register` would, in one append."""
    answer = register_from(PLAN).success()
    assert (answer["new"], answer["existing"], answer["count"]) == (2, 0, 2)
    assert [line["line"] for line in answer["schedules"]] == [2, 13]
    first, second = (shown(line["id"]) for line in answer["schedules"])
    assert first["prompt"].startswith("Plan the day.\nkey =")
    assert (first["name"], first["timezone"], first["tags"]) == (
        "plan",
        "Europe/London",
        ["work", "day"],
    )
    assert (second["render"], second["start_at"]) == ("jinja2", "2027-01-31T00:00:00.000000Z")
    assert (second["jitter"], second["envelope"], second["tier"]) == (300, True, 1)
    assert len({event["ts"] for event in events_of(var, "schedule.registered")}) == 1


def test_lines_of_json_are_the_same(var: Path) -> None:
    """The same content has the same id in either form, and by the options."""
    schedules = parsed_toml(PLAN.replace("2027-01-31", '"2027-01-31"'))["schedule"]
    content = b"\n".join(map(orjson.dumps, schedules)).decode()
    from_json = [line["id"] for line in register_from(content).success()["schedules"]]
    again = register_from(PLAN).success()
    assert [line["id"] for line in again["schedules"]] == from_json
    assert (again["new"], again["existing"], again["differing"]) == (0, 2, 0)


def test_the_same_file_again_changes_nothing(var: Path) -> None:
    """What is new, what is there, and what is there and differs is told apart."""
    register_from(PLAN).success()
    before = log_of(var)
    call("modify", "--id", add(prompt="x"), "--name", "x")
    log = log_of(var)
    changed = PLAN.replace("jitter = 300", "jitter = 600")
    answer = register_from(changed).success()
    assert (answer["new"], answer["existing"], answer["differing"]) == (0, 2, 1)
    assert answer["schedules"][1]["differs"] == ["jitter"]
    assert log_of(var) == log != before


def test_twice_in_one_file_is_once(var: Path) -> None:
    answer = register_from(PLAN + PLAN).success()
    assert [line["created"] for line in answer["schedules"]] == [True, True, False, False]
    assert len(events_of(var, "schedule.registered")) == 2


def test_a_dry_run_writes_nothing(var: Path) -> None:
    answer = register_from(PLAN, "--dry-run").success()
    assert (answer["new"], answer["dry_run"]) == (2, True)
    assert not var.exists()


@pytest.mark.parametrize(
    ("old", "new", "key", "code"),
    [
        ('name = "plan"', "nam = 1", "nam", "unknown_key"),
        ('name = "plan"', "name = 1", "name", "wrong_type"),
        ("tier = 1", "tier = '1'", "tier", "wrong_type"),
        ("tier = 1", "tier = 7", "tier", "invalid_tier"),
        ("tier = 1", "tier = 1\ntier_ = 1", "tier_", "unknown_key"),
        ("render = true", "render = 3", "render", "wrong_type"),
        ("envelope = true", 'envelope = "yes"', "envelope", "wrong_type"),
        ('tags = ["work", "day"]', "tags = [1]", "tags", "wrong_type"),
        ("now|date", "nov|date", "prompt", "unknown_variable"),
        ("0 9 * * MON-FRI", "0 9 * *", "cron", "invalid_cron"),
        ("Europe/London", "london", "tz", "unknown_zone"),
        ('every = "2h"', 'every = "soon"', "every", "invalid_duration"),
        ('every = "2h"\n', "", None, "missing_option"),
        ("jitter = 300", "jitter = 30000", "jitter", "invalid_jitter"),
    ],
)
def test_an_error_names_the_line_and_the_key(
    old: str, new: str, key: str | None, code: str, var: Path
) -> None:
    """And nothing of the file is registered."""
    assert old in PLAN
    content = PLAN.replace(old, new)
    error = register_from(content).error("bad_entries")
    (bad,) = error["bad"]
    assert (bad.get("key"), bad["code"]) == (key, code)
    begin = f"{key} =" if key else "[[schedule]]\nagent_id"
    assert content.count("\n", 0, content.rindex(f"\n{begin}")) + 2 == bad["line"]
    assert f"Line {bad['line']}" in error["message"]
    assert not var.exists()


def test_every_error_is_told_at_once_and_of_many_the_first_ten(var: Path) -> None:
    """Ten are listed, the others counted: 450 bad lines are no line of 450 errors."""
    line = orjson.dumps({"agent_id": AGENT, "prompt": "p", "every": "x", "tire": 1}).decode()
    error = register_from("\n".join([line] * 450)).error("bad_entries")
    assert (len(error["bad"]), error["bad_count"]) == (10, 450)
    assert [bad["line"] for bad in error["bad"]] == list(range(1, 11))
    assert len(orjson.dumps(error)) < 5000
    assert "440 more" in error["message"]
    mixed = PLAN.replace("tier = 1", "tier = 9").replace("0 9 * * MON-FRI", "x")
    assert [bad["line"] for bad in register_from(mixed).error("bad_entries")["bad"]] == [9, 21]


def test_limits_count_all_of_them_together(var: Path, monkeypatch: Any) -> None:
    """Three where two are allowed: none is registered, and the third is named."""
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "2")
    lines = [
        orjson.dumps({"agent_id": AGENT, "prompt": f"{n}", "every": "1h"}).decode()
        for n in range(3)
    ]
    error = register_from("\n".join(lines)).error("bad_entries")
    assert [(bad["line"], bad["code"]) for bad in error["bad"]] == [(3, "too_many_schedules")]
    assert not events_of(var) if var.exists() else True
    assert register_from("\n".join(lines[:2])).success()["new"] == 2


def test_a_caller_who_is_pinned_registers_for_that_agent_alone(var: Path, monkeypatch: Any) -> None:
    theirs = add(agent="agent-2", prompt="p")
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    register_from('{"agent_id": "agent-2", "prompt": "q", "every": "1h"}').error("bad_entries")
    own = '{"prompt": "p", "every": "1h"}'
    answer = register_from(f"{own}\n{own}").success()
    assert [line["created"] for line in answer["schedules"]] == [True, False]
    assert answer["schedules"][0]["id"] != theirs


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "empty_file"),
        ("# nothing\n", "empty_file"),
        ("[[schedule]]\nname = ", "invalid_toml"),
        ("prompt = 'p'\n", "invalid_file"),
        ("[schedule]\nprompt = 'p'\n", "invalid_file"),
        ("[[schedules]]\nprompt = 'p'\n", "invalid_file"),
        ('{"prompt": ', "bad_entries"),
        ("{}\n[]\n", "bad_entries"),
        ("a = " + "[" * 100_000, "invalid_toml"),
    ],
)
def test_what_is_no_such_file_is_refused(content: str, code: str, var: Path) -> None:
    error = register_from(content).error(code)
    assert code != "invalid_toml" or "line" in error or "recursion" in error["message"]
    assert not var.exists()


def test_from_stands_alone(var: Path, tmp_path: Path) -> None:
    call("register", "--from", "x", "--name", "y").error("conflicting_options", 2)
    call("register", "--from", str(tmp_path / "none")).error("unreadable_file")
    (tmp_path / "bad").write_bytes(b"\xff\xfea")
    call("register", "--from", str(tmp_path / "bad")).error("invalid_file")
    (tmp_path / "good.toml").write_text(PLAN)
    assert call("register", "--from", str(tmp_path / "good.toml")).success()["new"] == 2


TEXTS = st.text(alphabet="ab\"'#=[]\\\n ", max_size=20)


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), TEXTS, min_size=1), max_size=4))
def test_the_lines_of_keys_are_found_whatever_the_texts_hold(tables: list[dict[str, str]]) -> None:
    """Quotes, brackets and equals signs in a text don't look like keys."""
    lines: list[str] = []
    wanted: list[tuple[int, dict[str, int]]] = []
    for table in tables:
        lines.append("[[schedule]]  # 'a")
        begin, places = len(lines), {}
        for number, (key, text) in enumerate(table.items()):
            places[key] = len(lines) + 1
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            if number % 2:
                lines += f'{key} = """{escaped}""" # "'.split("\n")
            else:
                quoted = escaped.replace("\n", "\\n")
                lines.append(f"{key} = \"{quoted}\" # '''")
        wanted.append((begin, places))
    document = "\n".join(lines)
    parsed_toml(document)
    assert list(_places(document)) == wanted


def test_agents_go_by_their_names_as_at_the_command_line(var: Path) -> None:
    """In a file, too, the name that Letta has told stands for the id; a person is told once of what
    is neither."""
    remember_names(var, {AGENT: "echo-1", "agent-3": "twin", "agent-4": "twin"})
    line = {"agent_id": "echo-1", "prompt": "p", "every": "1h", "on_failure": "echo-1"}
    (entry,) = register_from(orjson.dumps(line).decode()).success()["schedules"]
    assert (shown(entry["id"])["agent_id"], shown(entry["id"])["on_failure"]) == (AGENT, AGENT)
    lines = [line | {"agent_id": "twin", "prompt": prompt} for prompt in ("q", "r")]
    content = "\n".join(orjson.dumps(line).decode() for line in lines)
    for entry in register_from(content).success()["schedules"]:
        assert shown(entry["id"])["agent_id"] == "twin"
    said = " ".join(register_from(content, "--format", "table").out.decode().split())
    assert said.count("'twin' doesn't look like an agent's id") == 1
