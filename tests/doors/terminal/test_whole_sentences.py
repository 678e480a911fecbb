"""What people are told in sentences stays whole at 80 columns, and says what it is about."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from calling import AGENT, add, call
from conftest import Clock
from rich.console import Console
from terminals import picture

from promptyoself.doors.commands.audit import retries_of
from promptyoself.doors.display import Reader, rendered
from promptyoself.doors.session import Caller, Session
from promptyoself.doors.terminal.forms import show
from promptyoself.doors.terminal.screen import Screen

_BAD = """
[[schedule]]
agent_id = "agent-00000000-0000-4000-8000-000000000000"
name = "first"
prompt = "Look."
cron = "0 25 * * *"

[[schedule]]
agent_id = "agent-00000000-0000-4000-8000-000000000000"
name = "second"
prompt = "Look."
every = "1 fortnight of days"
"""


def _words(shown: str) -> str:
    return " ".join(shown.split())


def test_errors_of_a_file_are_whole(var: Path, tmp_path: Path) -> None:
    """Where several entries are wrong, each says where, what, and what to do."""
    file = tmp_path / "bad.toml"
    file.write_text(_BAD)
    document = call("register", "--from", str(file)).document
    shown = picture("register", "--from", str(file))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for bad in document["bad"]:
        where = f"line {bad['line']}" + (f"  key {bad['key']}" if "key" in bad else "")
        assert where in shown
        assert _words(bad["message"]) in _words(shown)
        assert _words(bad["hint"]) in _words(shown)


def test_what_was_left_is_whole(var: Path) -> None:
    """What a command of many schedules left as they are says why, of each."""
    for name in ("a", "b"):
        add("--every", "1h", "--name", f"long-name-of-{name}")
    call("pause", "--all", "--yes").success()
    document = call("pause", "--all", "--yes").success()
    shown = picture("pause", "--all", "--yes")
    assert len(document["left"]) == 2
    for left in document["left"]:
        assert _words(left["message"]) in _words(shown)
        assert left["code"] in shown


def test_what_a_crontab_left_is_whole(var: Path, tmp_path: Path) -> None:
    """The lines of a crontab that are no prompts are shown whole, with the reason; one is one."""
    file = tmp_path / "crontab"
    file.write_text(f"*/5 * * * * /usr/local/bin/{'backup-of-a-disk-' * 6}\n")
    document = call("import-crontab", str(file), "--dry-run").document
    shown = picture("import-crontab", str(file), "--dry-run")
    assert "1 line is no prompt." in _words(shown)
    (left,) = document["left"]
    assert _words(left["why"]) in _words(shown)
    assert left["command"].replace(" ", "") in shown.replace("\n", "").replace(" ", "")


def test_what_is_said_of_letta_codes_tasks_is_whole(var: Path) -> None:
    """What is different for a task, for all of them, and why others were left."""
    file = str(Path(__file__).parents[2] / "testdata" / "crons-of-letta-0.34.12.json")
    document = call("import-letta-cron", file, "--dry-run").document
    shown = _words(picture("import-letta-cron", file, "--dry-run"))
    for sentence in document["differences"]:
        assert f"- {_words(sentence)}" in shown
    for task in document["taken"]:
        assert all(_words(note) in shown for note in task.get("notes", ()))


def test_history_says_what_was_modified(var: Path) -> None:
    """And not what followed from it: the next fire, and from when an interval counts."""
    id_ = add("--every", "1h")
    call("modify", "--id", id_, "--every", "2h", "--on-failure", AGENT).success()
    line = picture("history", "--id", id_).splitlines()[-1]
    assert "on failure, times, by " in line


def test_tags_of_a_diff_are_words(var: Path) -> None:
    """A list of tags is shown as people write one."""
    add("--every", "1h", "--tag", "work", "--tag", "home")
    shown = picture("diff", "--since", "0")
    assert "[" not in shown
    assert "home" in shown


@pytest.mark.parametrize("command", ["cancel", "show", "trigger", "pause"])
def test_an_id_that_may_be_an_argument_is_not_said_to_be_required(command: str) -> None:
    """The help of a command that takes a schedule as an argument doesn't demand --id."""
    assert "[required]" not in call(command, "--help").out.decode()


def test_an_undo_names_its_schedule(var: Path) -> None:
    """What was taken back says of which schedule, by its name, its id and what it says; the keys
    that programs read aren't shown."""
    id_ = add("--every", "1h", "--name", "stretch", prompt="Stand up. " * 20)
    call("modify", id_, "--every", "2h").success()
    answer = call("undo", "--dry-run").success()
    shown = picture("undo", "--dry-run")
    first = _words(shown.split("  prompt", 1)[0])
    assert first.endswith(f"stretch {id_}")
    assert "Stand up. Stand up." in shown
    assert "schedule modified" in _words(shown)
    assert answer["undone"] not in shown
    assert "seq" not in shown


def test_the_help_says_which_form_is_for_whom() -> None:
    """The first help is true of both forms, and of the zone of times."""
    said = _words(call("--help").out.decode())
    assert "At a terminal every command answers in a form for people" in said
    assert "Every command prints one JSON document" not in said
    assert "for agents in UTC" in said


def test_reasons_of_deliveries_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a delivery failed goes on below where the screen is narrow."""
    monkeypatch.setenv("COLUMNS", "80")
    error = "the server said that it has no agent of that id, and that nobody else has one either"
    line = {"id": "sch_00000000", "agent_id": "a", "state": "failed", "error": error}
    document = {"status": "success", "executed": [line], "skipped": []}
    shown = rendered("execute", document, Reader())[0].decode()
    assert _words(error) in _words(shown)


def test_an_id_that_is_a_key_can_be_copied() -> None:
    """Where an answer counts something for each schedule, the ids stand as they are."""
    document = {"status": "success", "delivered": {"sch_16eca925": 1}, "next_run": None}
    console = Console(file=io.StringIO(), width=80)
    show("demo", document, Screen(console, "UTC", None))
    assert "sch_16eca925" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_prompt_that_waits_says_when_it_is_tried_again(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A one-off that couldn't be sent has no further time, but another attempt. What it met is told
    once."""
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "ws://127.0.0.1:9")
    id_ = add("--time", "in 5s", agent="agent-local-1")
    clock.advance(seconds=6)
    (tried,) = call("execute").success()["executed"]
    assert tried["code"] == "letta_code_unreachable"
    (line,) = [line for line in picture("list", columns=120).splitlines() if id_ in line]
    assert "again today" in line
    shown = _words(picture("show", "--id", id_))
    assert shown.count("Cannot reach a Letta Code App Server") == 1


@pytest.mark.parametrize(
    ("why", "retry_at", "said"),
    [
        ("soon", None, "pending: it is tried in a moment"),
        ("soon", "2026-11-28T10:00:00.000000Z", "pending: it is tried in a moment"),
        ("soon", "2026-11-28T11:05:00.000000Z", "pending: another attempt follows today 11:05"),
        ("held", None, "pending: its target can't be reached, so it is held back"),
        ("no_loop", None, "pending: no loop is running"),
        ("overlap", None, "pending: an earlier slot of its schedule isn't settled"),
    ],
)
def test_an_audit_says_what_a_slot_waits_for(why: str, retry_at: str | None, said: str) -> None:
    """In a clause, where JSON has a word."""
    slot = "2026-11-28T09:00:00.000000Z"
    line = {"id": "sch_1", "slot": slot, "last": slot, "outcome": "pending", "why": why}
    document = {
        "status": "success", "message": "All slots are accounted for.", "since": slot,
        "until": slot, "head": "1:f", "schedules": [], "undelivered": [line],
        "totals": {"slots": 1, "pending": 1, "skipped_why": {}},
    }  # fmt: skip
    beside = {"retries": {f"sch_1|{slot}": retry_at}} if retry_at else {}
    console = Console(width=120, file=io.StringIO())
    now = datetime(2026, 11, 28, 11, tzinfo=UTC)
    show("audit", document, Screen(console, "UTC", now, beside=beside))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().rstrip().endswith(said)


def test_an_audit_tells_when_another_attempt_follows(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of the log's own state."""
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "ws://127.0.0.1:9")
    id_ = add("--time", "in 5s", agent="agent-local-1")
    clock.advance(seconds=6)
    call("execute").success()
    store = Session(str(var), Caller()).store()
    (slot,) = call("show", id_).success()["schedule"]["open"]
    assert slot["retry_at"]
    assert retries_of(store) == {f"{id_}|{slot['slot']}": slot["retry_at"]}


def test_no_comma_follows_a_full_stop() -> None:
    """A pass tells why, and when another attempt follows."""
    line = {
        "id": "sch_0", "agent_id": "a", "state": "retrying", "error": "Nobody answers.",
        "retry_at": "2026-11-28T11:05:00.000000Z",
    }  # fmt: skip
    console = Console(width=120, file=io.StringIO())
    now = datetime(2026, 11, 28, 11, tzinfo=UTC)
    show("execute", {"status": "success", "executed": [line]}, Screen(console, "UTC", now))
    assert isinstance(console.file, io.StringIO)
    assert "Nobody answers; again today 11:05" in console.file.getvalue()


def test_what_to_do_stands_after_what_is_wrong(var: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[[schedule]]\npromt = "Look."\n')
    heading = next(
        line
        for line in picture("register", "--from", str(file), columns=160).splitlines()
        if line.startswith("LINE")
    )
    assert heading.index("MESSAGE") < heading.index("HINT")


@pytest.mark.parametrize("group", ["service", "config", "notify", "completion", "letta-code"])
def test_no_summary_of_a_command_is_cut(group: str, var: Path) -> None:
    _, heading, summaries = call(group, "--help").out.decode().partition("Commands:")
    assert heading
    assert "..." not in summaries


def test_what_went_wrong_is_shown_as_it_is_written() -> None:
    """A code is shown in words; a sentence keeps its underscores."""
    console = Console(file=io.StringIO(), width=120)
    tried = {"id": "sch_00000000", "agent_id": "a", "state": "failed"}
    sentence = "SecurityError: access to attribute '__class__' is unsafe."
    executed = [{**tried, "error": sentence}, {**tried, "why": "over_budget"}]
    show("execute", {"status": "success", "executed": executed}, Screen(console, "UTC"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert sentence in shown
    assert "over budget" in shown


def test_each_time_is_said_once(var: Path, clock: Clock) -> None:
    """An error has a past time by two clocks; a person reads it in words."""
    shown = _words(picture("register", "--prompt", "x", "--agent-id", AGENT, "--when", "yesterday"))
    assert "T00:00" not in shown
    assert "isn't in the future: it is today " in shown
    assert "The time " in shown


def test_lengths_of_time_have_their_unit(var: Path) -> None:
    id_ = add("--every", "1h", "--jitter", "10m")
    call("modify", id_, "--grace", "2h", "--jitter", "5m").success()
    shown = [_words(line) for line in picture("diff", "--from", "2").splitlines()]
    assert "grace 1 d → 2 h" in shown
    assert "jitter 10 min → 5 min" in shown


def test_what_the_list_hides_is_counted(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all, or of the agent that is asked for or that the caller is; --all hides nothing."""
    kept = [add("--every", f"{hours}h", "--name", f"n{hours}") for hours in (1, 2, 3)]
    assert "more" not in picture("list")
    call("cancel", kept[0]).success()
    assert "1 more is completed, cancelled or failed; --all lists it too." in picture("list")
    call("cancel", kept[1]).success()
    counted = "2 more are completed, cancelled or failed; --all lists them too."
    assert counted in picture("list")
    assert counted in picture("list", "--agent-id", AGENT)
    for hiding_nothing in (("--all",), ("--status", "active"), ("--name", "n")):
        assert "more" not in picture("list", *hiding_nothing)
    assert "more" not in picture("list", "--agent-id", OTHER)
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OTHER)
    assert "more" not in picture("list")


OTHER = "agent-00000000-0000-4000-8000-000000000009"
