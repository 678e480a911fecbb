"""`import-crontab`: which lines of a crontab become schedules, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, Answer, call, events_of
from hypothesis import example, given
from hypothesis import strategies as st

from promptyoself.service.files.crontab import lines_of

if TYPE_CHECKING:
    from pathlib import Path

CRONTAB = f"""\
# The office.
SHELL=/bin/bash
MAILTO = "me@example.org"
0 9 * * 1-5  letta-prompt --agent-id {AGENT} --prompt "Plan the day." >/dev/null 2>&1
@daily cd /srv && /usr/bin/env X=1 letta --agent={AGENT} -p 'It costs $5.'
CRON_TZ=Europe/Paris
30 7 * * *   curl -sS -X POST http://localhost:8283/v1/agents/{AGENT}/messages \
-H 'Content-Type: application/json' -d '{{"messages":[{{"role":"user","content":"Bonjour."}}]}}'
*/5 * * * *  /usr/local/bin/backup --all
@reboot      letta --agent {AGENT} -p "Hello."
0 8 * * *    say --agent {AGENT} -%Good morning.%100\\% yours.
15 8 * * *   say --agent {AGENT} "It is $(date)."
0 0 1 * *    promptyoself trigger --id sch_12345678
what is this?
"""


def take(content: str, *more: str) -> Answer:
    """Import a crontab from stdin."""
    return call("import-crontab", "-", *more, stdin=content.encode())


def test_letta_with_an_agents_id_and_a_text_is_a_prompt(var: Path) -> None:
    """The options between them are another program's. A text is what has spaces."""
    agent = "agent-123e4567-e89b-12d3-a456-426614174000"
    answer = take(
        f'0 9 * * * letta send --quiet {agent} "Good morning."\n0 9 * * * letta show {agent}\n'
    ).success()
    (taken,) = answer["taken"]
    assert (taken["line"], taken["agent_id"]) == (1, agent)
    assert [line["line"] for line in answer["left"]] == [2]
    (event,) = events_of(var, "schedule.registered")
    assert event["data"]["prompt"] == "Good morning."


def test_a_line_with_a_wrong_time_is_told_what_is_wrong_with_it(var: Path) -> None:
    agent = "agent-123e4567-e89b-12d3-a456-426614174000"
    refusal = take(f'61 9 * * * letta send {agent} "Good morning."\n').error("bad_entries")
    assert "61 in its minute field" in refusal["message"]


def test_lines_that_prompt_become_schedules(var: Path) -> None:
    """With their times, zones and texts; all others are left, with the line and the reason."""
    answer = take(CRONTAB).success()
    taken = [(line["line"], line["cron"]) for line in answer["taken"]]
    assert taken == [(4, "0 9 * * 1-5"), (5, "@daily"), (7, "30 7 * * *"), (10, "0 8 * * *")]
    data = [event["data"] for event in events_of(var, "schedule.registered")]
    assert [(event["prompt"], event["timezone"]) for event in data] == [
        ("Plan the day.", "UTC"),
        ("It costs $5.", "UTC"),
        ("Bonjour.", "Europe/Paris"),
        ("Good morning.\n100% yours.", "Europe/Paris"),
    ]
    assert {event["agent_id"] for event in data} == {AGENT}
    assert len({event["ts"] for event in events_of(var, "schedule.registered")}) == 1
    assert [(line["line"], line["why"].split()[1]) for line in answer["left"]] == [
        (8, "isn't"),
        (9, "runs"),
        (11, "shell"),
        (12, "triggers"),
        (13, "isn't"),
    ]
    assert "twice" in answer["hint"]


def test_the_same_crontab_again_changes_nothing(var: Path) -> None:
    assert take(CRONTAB, "--dry-run").success()["new"] == 4
    assert not var.exists()
    take(CRONTAB).success()
    again = take(CRONTAB).success()
    assert (again["new"], again["existing"]) == (0, 4)


def test_a_crontab_of_the_system_names_users(var: Path) -> None:
    line = f"0 9 * * * root letta --agent {AGENT} -m 'Hi there.'\n"
    assert take(line, "--system", "--tz", "Europe/London").success()["new"] == 1
    (event,) = events_of(var, "schedule.registered")
    assert (event["data"]["prompt"], event["data"]["timezone"]) == ("Hi there.", "Europe/London")


def test_a_prompt_that_cannot_be_registered_stops_all(var: Path) -> None:
    """One bad line among good ones: nothing is registered, and the line is named."""
    bad = f"0 9 31 2 * letta --agent {AGENT} -m 'Never.'\n"
    error = take(CRONTAB + bad).error("bad_entries")
    assert [(each["line"], each["code"]) for each in error["bad"]] == [(14, "cron_never_fires")]
    assert not var.exists()


def test_a_crontab_without_prompts_writes_nothing(var: Path) -> None:
    for content in ("", "# nothing\n", "0 9 * * * /bin/true\n"):
        answer = take(content).success()
        assert (answer["new"], answer["taken"]) == (0, [])
    assert not var.exists()
    call("import-crontab", "-", stdin=b"\xff\xfe0").error("invalid_file")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (f"x --agent-id {AGENT} --message='a b'", "a b"),
        (f"x --agent_id {AGENT} 'two words'", "two words"),
        (f"x --agent {AGENT} word", None),
        (f"x --agent {AGENT}", None),
        ("x --prompt 'no agent'", None),
        (f"true; y && x --agent {AGENT} -m z || mail", "z"),
        (f'x --agent {AGENT} -m "$TEXT"', None),
        (f"x --agent {AGENT} -m 'never closed", None),
        (f"curl -d@body.json h/v1/agents/{AGENT}/messages", None),
        (f'curl --json \'{{"input":"hi"}}\' h/v1/agents/{AGENT}/messages/async', "hi"),
        (f"curl -d '[]' h/v1/agents/{AGENT}/messages", None),
        (f"curl -d '{{\"messages\":[1]}}' h/v1/agents/{AGENT}/messages", None),
        (f"curl h/v1/agents/{AGENT}/messages", None),
        (f"curl -d '{{}}' h/v1/agents/{AGENT}", None),
        (f"promptyoself register --agent-id {AGENT} --prompt p --every 1h", "p"),
    ],
)
def test_what_counts_as_a_prompt(command: str, text: str | None, var: Path) -> None:
    """An agent and a text that stands in the line; nothing is guessed."""
    answer = take(f"0 9 * * * {command}\n").success()
    assert len(answer["taken"]) + len(answer["left"]) == 1
    prompts = [event["data"]["prompt"] for event in events_of(var, "schedule.reg")] if text else []
    assert prompts == ([text] if text else [])


@given(st.text(alphabet="ab \t*%\\'\"$`;&|<>()=@-{}[]/0\n", max_size=60))
@example("0 0 * * * ")
@example("@ x")
def test_no_line_is_lost_and_none_breaks_it(content: str) -> None:
    """Whatever stands there, each line that isn't blank or a comment is told of or sets a value."""
    crontab = "".join(f"0 9 * * * x --agent a {part}\n" for part in content.split("\n"))
    answer: dict[str, Any] = call(
        "import-crontab", "-", "--dry-run", stdin=(content + "\n" + crontab).encode()
    ).document
    numbers = {line.number for system in (0, 1) for line in lines_of(content, system=bool(system))}
    assert numbers <= set(range(1, content.count("\n") + 2))
    if answer["status"] == "success":
        told = [line["line"] for line in [*answer["taken"], *answer["left"]]]
        assert len(set(told)) == len(told) >= crontab.count("\n")
    else:
        assert answer["code"] == "bad_entries", answer
