"""Bringing over the schedules of an SQLite-based promptyoself: `import-sqlite`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, Answer, call, lines_of, little_memory, log_of, run
from checker import check_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tally import rounds
from timing import cpu_seconds

from promptyoself.sandbox import Sandbox

if TYPE_CHECKING:
    from conftest import Clock

pytestmark = pytest.mark.usefixtures("var", "clock")

ALCHEMY = """
CREATE TABLE unified_reminders (id INTEGER PRIMARY KEY, agent_id VARCHAR, prompt_text TEXT,
    schedule_type VARCHAR, schedule_value VARCHAR, next_run DATETIME, active BOOLEAN,
    created_at DATETIME, last_run DATETIME, max_repetitions INTEGER, repetition_count INTEGER)
"""
PLAIN = """
CREATE TABLE schedules (id INTEGER PRIMARY KEY, agent_id TEXT NOT NULL, message TEXT,
    schedule_type TEXT, schedule_value TEXT, next_run TEXT, colour TEXT)
"""
ROW = {
    "agent_id": AGENT,
    "prompt_text": "Hello",
    "schedule_type": "once",
    "schedule_value": "2026-11-20 15:00:00",
    "next_run": "2026-11-20 15:00:00.000000",
    "active": 1,
    "repetition_count": 0,
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An empty database with the older schema."""
    path = tmp_path / "old.db"
    execute(path, ALCHEMY)
    return path


def execute(path: Path, statement: str, *rows: Any) -> None:
    """Change a database by one statement, for each of the rows if it has values for them."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(statement, rows) if rows else connection.execute(statement)
        connection.commit()


def add(path: Path, table: str = "unified_reminders", /, **changes: Any) -> None:
    """Add a row; what isn't said is as in ROW, where the table has it."""
    fields = {**(ROW if table == "unified_reminders" else {}), **changes}
    names, marks = ", ".join(fields), ", ".join("?" * len(fields))
    execute(path, f"INSERT INTO {table} ({names}) VALUES ({marks})", [*fields.values()])


def cron(value: str) -> dict[str, Any]:
    """The columns of a cron expression."""
    return {"schedule_type": "cron", "schedule_value": value}


def interval(value: Any) -> dict[str, Any]:
    """The columns of an interval."""
    return {"schedule_type": "interval", "schedule_value": value}


def take(path: Path, *more: str) -> dict[str, Any]:
    return call("import-sqlite", str(path), *more).success()


def schedules() -> list[dict[str, Any]]:
    """What was made of them, in the order of their prompts."""
    found = call("list", "--full").success()["schedules"]
    return sorted(found, key=lambda schedule: str(schedule["prompt"]))


def contents(folder: Path) -> dict[str, str]:
    """Every file in a folder by its name, with the hash of what it holds."""
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def test_a_database_is_brought_over(var: Path, database: Path) -> None:
    """One of each kind, from either table, with its next run; the answer names each row, what it
    became, and the log says where it came from."""
    add(database)
    add(database, prompt_text="Cron", **cron("0 9 * * 1-5"),
        next_run="2026-11-23 09:00:00.000000", max_repetitions=10, repetition_count=4)  # fmt: skip
    execute(database, PLAIN)
    add(database, "schedules", agent_id=AGENT, message="Every", **interval("30m"),
        next_run="2026-11-20T12:07:13Z", colour="red")  # fmt: skip
    answer = take(database)
    assert (answer["count"], answer["skipped"]) == (3, [])
    assert answer["message"] == "3 schedules imported."
    rows = [(row["table"], row["row"]) for row in answer["imported"]]
    assert rows == [("schedules", 1), ("unified_reminders", 1), ("unified_reminders", 2)]
    assert {"row", "id", "agent_id", "schedule_type", "next_run"} <= set(answer["imported"][0])
    daily, every, once = schedules()
    assert daily["next_run"] == "2026-11-23T09:00:00.000000Z"
    assert (daily["repetition_count"], daily["max_repetitions"]) == (4, 10)
    assert every["next_run"] == "2026-11-20T12:07:13.000000Z"
    assert once["next_run"] == "2026-11-20T15:00:00.000000Z"
    assert daily["reason"] == "import-sqlite: unified_reminders row 2"
    fires = call("next", "--id", every["id"], "--count", "3").success()["fires"]
    assert [fire["utc"][11:19] for fire in fires] == ["12:07:13", "12:37:13", "13:07:13"]
    check_chain(var / "schedules")


def test_a_second_run_takes_nothing(var: Path, clock: Clock, database: Path) -> None:
    """P6: the same rows give the same ids, also later, and also after one was cancelled here."""
    add(database)
    add(database, prompt_text="Every", **interval("300"))
    first = take(database)
    call("cancel", "--id", first["imported"][0]["id"]).success()
    before = log_of(var)
    clock.advance(minutes=1)
    again = take(database)
    assert (again["count"], log_of(var)) == (0, before)
    assert [(skip["row"], skip["why"], skip["id"]) for skip in again["skipped"]] == [
        (row["row"], "exists", row["id"]) for row in first["imported"]
    ]
    assert len(again["skipped"]) == 2
    assert "cancelled" in again["skipped"][0]["detail"]
    registered = call("register", "--agent-id", AGENT, "--prompt", "Every", "--every", "5m")
    assert registered.success()["created"] is False


def test_a_dry_run_changes_nothing(var: Path, database: Path) -> None:
    """`--dry-run` answers as the import will, and makes not even a folder."""
    add(database)
    add(database, active=0)
    answer = take(database, "--dry-run")
    assert (answer["dry_run"], answer["count"], len(answer["skipped"])) == (True, 1, 1)
    assert not var.exists()
    done = take(database)
    assert (done["imported"], done["skipped"]) == (answer["imported"], answer["skipped"])


# changes to the row: (why, what the detail names, code)
SKIPPED: dict[str, tuple[dict[str, Any], str, str, str | None]] = {
    "inactive": ({"active": 0}, "inactive", "active", None),
    "inactive as text": ({"active": "false"}, "inactive", "active", None),
    "used up": ({"max_repetitions": 3, "repetition_count": 3}, "finished", "3 times", None),
    "long ago": ({"next_run": "2026-11-19 11:59:59"}, "overdue", "2026-11-19T11:59:59", None),
    "no prompt": ({"prompt_text": None}, "invalid", "prompt", "invalid_row"),
    "blank prompt": ({"prompt_text": " "}, "invalid", "blank", "empty_prompt"),
    "NUL": ({"prompt_text": "a\0b"}, "invalid", "NUL", "invalid_prompt"),
    "not UTF-8": ({"prompt_text": b"\xff\xfe"}, "invalid", "UTF-8", "invalid_row"),
    "long prompt": ({"prompt_text": "x" * 1048577}, "invalid", "1048577", "prompt_too_long"),
    "huge prompt": ({"prompt_text": b"x" * 5_000_000}, "invalid", "4 MiB", "invalid_row"),
    "no agent": ({"agent_id": None}, "invalid", "agent_id", "invalid_row"),
    "bad agent": ({"agent_id": "a b"}, "invalid", "a b", "invalid_agent_id"),
    "bad kind": ({"schedule_type": "often"}, "invalid", "often", "invalid_schedule_type"),
    "no kind": ({"schedule_type": None}, "invalid", "schedule_type", "invalid_row"),
    "no time": ({"next_run": None, "schedule_value": None}, "invalid", "time", "invalid_row"),
    "bad time": ({"next_run": "soon"}, "invalid", "soon", "invalid_time"),
    "time of another age": ({"next_run": 9e17}, "invalid", "90000", "invalid_time"),
    "infinite time": ({"next_run": float("inf")}, "invalid", "inf", "invalid_time"),
    "bad cron": (cron("x"), "invalid", "x", "invalid_cron"),
    "cron that never fires": (cron("0 0 31 2 *"), "invalid", "31 2", "cron_never_fires"),
    "no interval": (interval(None), "invalid", "empty", "invalid_row"),
    "zero interval": (interval("0"), "invalid", "0", "invalid_duration"),
    "short interval": (interval(5), "invalid", "5s", "interval_too_short"),
    "half an interval": (interval(90.5), "invalid", "90.5", "invalid_duration"),
    "endless interval": (interval(float("inf")), "invalid", "inf", "invalid_duration"),
    "odd interval": (interval("every full moon"), "invalid", "moon", "invalid_duration"),
    "no number": ({"max_repetitions": "many"}, "invalid", "many", "invalid_row"),
    "negative": ({"max_repetitions": -1}, "invalid", "-1", "invalid_max_repetitions"),
    "negative count": ({"repetition_count": -1}, "invalid", "-1", "invalid_row"),
}  # fmt: skip


@pytest.mark.parametrize("name", SKIPPED)
def test_a_row_that_is_not_taken_is_told_why(name: str, var: Path, database: Path) -> None:
    """P7: whatever is wrong with one row, it is in the answer with the reason, and the rows beside
    it are taken."""
    changes, why, named, code = SKIPPED[name]
    add(database, prompt_text="before")
    add(database, **changes)
    add(database, prompt_text="after")
    answer = take(database)
    (skip,) = answer["skipped"]
    assert (skip["row"], skip["table"], skip["why"]) == (2, "unified_reminders", why)
    assert named in skip["detail"]
    assert skip.get("code") == code
    assert [row["row"] for row in answer["imported"]] == [1, 3]
    check_chain(var / "schedules")


def test_the_same_twice_and_too_many(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the same content are one schedule; the cap of active schedules holds; and a caller
    that is pinned to an agent takes no other's."""
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "2")
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    for prompt in ("one", "one", "two", "three"):
        add(database, prompt_text=prompt)
    add(database, agent_id="another")
    answer = take(database)
    assert [row["row"] for row in answer["imported"]] == [1, 3]
    whys = {skip["row"]: skip["why"] for skip in answer["skipped"]}
    assert whys == {2: "duplicate", 4: "too_many", 5: "forbidden"}


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-20 15:00:00.000000", "2026-11-20 15:00:00", "2026-11-20T15:00:00",
        "2026-11-20T15:00:00Z", "2026-11-20T16:00:00+01:00", "2026-11-20 15:00",
        1795186800, 1795186800.0, "1795186800", 1795186800000, " 2026-11-20 15:00:00 ",
        b"2026-11-20 15:00:00",
    ],
)  # fmt: skip
def test_times_are_utc_however_written(database: Path, written: Any) -> None:
    """As SQLAlchemy, SQLite, ISO 8601 or the epoch have it: one instant, and so one id."""
    add(database)
    add(database, next_run=written)
    answer = take(database)
    assert (answer["count"], [skip["why"] for skip in answer["skipped"]]) == (1, ["duplicate"])


@pytest.mark.parametrize(
    "written",
    [
        1800, 1800.0, "1800", "1800.0", "30m", "0h30m", "30 minutes", "every 30 minutes",
        "Every 30 min", " 30 Minutes ", "1800 seconds", "1800s", "every 30m", "30 mins",
    ],
)  # fmt: skip
def test_intervals_are_understood(database: Path, written: Any) -> None:
    """A number is seconds; our own durations and plain words are understood too."""
    add(database, **interval(written), next_run=None)
    take(database)
    (schedule,) = schedules()
    assert schedule["schedule_value"] == "30m"
    assert schedule["next_run"] == "2026-11-20T12:30:00.000000Z"


def test_what_is_overdue_is_delivered_late_and_once(
    var: Path, clock: Clock, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a one-off within its grace is delivered late; of an interval's missed slots one is, in
    its own phase; a row whose next run isn't a slot of its expression waits for the next one."""
    with Sandbox(("one", "two", "three"), latency=0.02) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        one, two, three = sandbox.agents
        add(database, agent_id=one, next_run="2026-11-20 09:00:00")
        add(database, agent_id=two, **interval("3600"), next_run="2026-11-20 09:30:00")
        add(database, agent_id=three, **cron("0 * * * *"), next_run="2026-11-20 09:07:00")
        assert take(database)["count"] == 3
        executed = call("execute").success()["executed"]
        assert sorted(line["slot"] for line in executed) == [
            "2026-11-20T09:00:00.000000Z", "2026-11-20T11:30:00.000000Z",
        ]  # fmt: skip
        assert take(database)["count"] == 0
        clock.advance(minutes=30)
        lines = call("execute").success()["executed"]
        assert [line["slot"] for line in lines] == ["2026-11-20T12:30:00.000000Z"]
        assert set(sandbox.deliveries.values()) == {1}
        assert [len(sandbox.messages(agent)) for agent in sandbox.agents] == [1, 2, 0]
    check_chain(var / "schedules")


def test_slots_of_long_ago_are_not_counted_up(database: Path) -> None:
    """P8: a database that has slept for ten years doesn't make us walk through every minute: what
    is too late to be delivered was the old one's to account for."""
    for text, when in (("cron", cron("* * * * *")), ("interval", interval("60"))):
        add(database, prompt_text=text, **when, next_run="2016-01-01 00:00:00")
    took, _ = cpu_seconds(lambda: take(database))
    assert took < 5
    assert {schedule["next_run"] for schedule in schedules()} == {"2026-11-19T12:00:00.000000Z"}


def test_the_rest_of_the_repetitions_comes(sandbox: Sandbox, clock: Clock, database: Path) -> None:
    """Of ten repetitions, seven of which are done, three are delivered."""
    agent = sandbox.agents[0]
    add(database, agent_id=agent, **interval("1h"), next_run="2026-11-20 12:30:00",
        max_repetitions=10, repetition_count=7)  # fmt: skip
    take(database)
    for _ in range(6):
        clock.advance(hours=1)
        call("execute").success()
    assert len(sandbox.messages(agent)) == 3


def test_cron_is_read_in_the_zone_that_is_given(database: Path) -> None:
    """`--tz` says in which zone the old one meant its expressions; UTC by default, whatever
    PROMPTYOSELF_TZ is. A next run that isn't a slot there is computed again."""
    add(database, **cron("0 9 * * *"), next_run="2026-11-21 09:00:00")
    answer = take(database, "--tz", "Europe/Paris", "--dry-run")
    assert answer["imported"][0]["next_run"] == "2026-11-21T08:00:00.000000Z"
    assert take(database)["imported"][0]["next_run"] == "2026-11-21T09:00:00.000000Z"
    call("import-sqlite", str(database), "--tz", "Moon/Sea").error("unknown_zone")


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    """Names of tables and columns in any case, no id, no next run, no `active`: what is there is
    enough; views and other tables are none of ours."""
    path = tmp_path / "x.db"
    execute(path, "CREATE TABLE Schedules (AGENT_ID, Text, Schedule_Type, schedule_value)")
    execute(path, "INSERT INTO schedules VALUES (?, 'Hi', 'ONCE', '2026-11-20T13:00:00')", [AGENT])
    execute(path, "CREATE VIEW unified_reminders AS SELECT * FROM schedules")
    assert take(path)["imported"][0]["next_run"] == "2026-11-20T13:00:00.000000Z"


# Files that are no such database.


def test_files_that_are_no_such_database(var: Path, tmp_path: Path) -> None:
    """P7: a missing file, a folder, an empty file, text, an encrypted database, one of something
    else, a pipe: each is one clear error, and makes nothing."""
    for name in ("none", ".", "a\0b", "\ud800", "x" * 5000, ""):
        path = str(tmp_path / name) if name not in ("", "\ud800") else name
        call("import-sqlite", path).error("unreadable_file")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call("import-sqlite", str(fifo)).error("unreadable_file")
    noise = {
        "empty": b"", "text": b"Hello", "encrypted": os.urandom(8192),
        "magic": b"SQLite format 3\0", "beginning": b"SQLite format 3\0" + b"\xff" * 84,
    }  # fmt: skip
    for name, content in noise.items():
        (tmp_path / name).write_bytes(content)
        call("import-sqlite", str(tmp_path / name)).error("not_sqlite")
    other = tmp_path / "other.db"
    execute(other, "CREATE TABLE bookmarks (id)")
    call("import-sqlite", str(other)).error("no_schedules_table")
    execute(other, "CREATE TABLE schedules (id, agent_id, schedule_type)")
    error = call("import-sqlite", str(other)).error("no_schedules_table")
    assert "schedule_value, prompt_text" in error["message"]
    call("import-sqlite").error("missing_option", 2)
    assert not var.exists()
    assert not list(tmp_path.glob("*-*"))


def test_an_odd_path_is_a_path(database: Path) -> None:
    """A name with characters that mean something in a URI, or in no encoding, names its file."""
    add(database)
    for name in ("a b?mode=rwc&x=%41#.db", os.fsdecode(b"\xff.db")):
        database = database.rename(database.parent / name)
        assert take(database, "--dry-run")["count"] == 1
    link = database.parent / "link.db"
    link.symlink_to(database)
    assert take(link)["count"] == 1


@settings(max_examples=rounds(80), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.integers(0, 12287), st.binary(min_size=1, max_size=40))
def test_a_damaged_database_is_no_traceback(database: Path, at: int, noise: bytes) -> None:
    """P7: bytes changed anywhere give an error, or rows that are named; nothing is changed in the
    file, and the answer is one document."""
    if not (database.parent / "whole").exists():
        for number in range(30):
            add(database, prompt_text=f"Prompt {number} " + "x" * 300)
        (database.parent / "whole").write_bytes(database.read_bytes())
    content = bytearray((database.parent / "whole").read_bytes())
    content[at : at + len(noise)] = noise
    database.write_bytes(content)
    answer = call("import-sqlite", str(database), "--dry-run")
    assert "Traceback" not in answer.err
    if answer.code:
        assert answer.document["code"] in (
            "not_sqlite", "database_damaged", "no_schedules_table", "unreadable_file",
        )  # fmt: skip
    assert database.read_bytes() == bytes(content)


def test_a_locked_database_is_told(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: a writer that has the database to itself makes an error that says so, not a wait."""
    monkeypatch.setattr("promptyoself.service.transfer.sqlite_rows._BUSY_SECONDS", 0.05)
    add(database)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        call("import-sqlite", str(database)).error("database_locked")
    assert take(database)["count"] == 1


@pytest.fixture
def wal(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A database in WAL mode in a folder of its own, with a writer that has it open: a row in the
    file, and another only in the WAL."""
    folder = tmp_path / "live"
    folder.mkdir()
    path = folder / "old.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute(ALCHEMY)
        writer.commit()
        add(path)
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        add(path, prompt_text="in the WAL")
        yield path, writer


def test_a_live_writer_is_left_alone(wal: tuple[Path, sqlite3.Connection]) -> None:
    """A WAL database is read with what is in its WAL, beside a writer in the middle of a
    transaction, whose rows don't count yet; its files stay as they are."""
    path, writer = wal
    writer.execute("INSERT INTO unified_reminders (agent_id) VALUES ('uncommitted')")
    before = contents(path.parent)
    answer = take(path)
    assert (answer["count"], answer["skipped"]) == (2, [])
    after = contents(path.parent)
    assert {**after, "old.db-shm": ""} == {**before, "old.db-shm": ""}
    writer.commit()


def test_a_database_whose_writer_has_gone_gets_no_litter(
    wal: tuple[Path, sqlite3.Connection], tmp_path: Path
) -> None:
    """A WAL database that was closed in order, one that was copied with its WAL, and one in a
    folder that can't be written: each is read whole, and the folder is as before to the byte."""
    path, writer = wal
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("old.db", "old.db-wal"):
        (copied / name).write_bytes((path.parent / name).read_bytes())
    before = contents(copied)
    assert take(copied / "old.db", "--dry-run")["count"] == 2
    assert contents(copied) == before
    writer.close()
    before = contents(path.parent)
    assert set(before) == {"old.db"}
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        assert take(path)["count"] == 2
        assert contents(path.parent) == before
    finally:
        path.parent.chmod(0o700)


def test_it_is_a_program_like_the_others(environ: dict[str, str], database: Path) -> None:
    """As a process: one document; a database with a value of 100 MB in it takes no such memory; and
    of the file not one byte is changed."""
    add(database, next_run="2999-01-01 00:00:00")
    execute(
        database,
        "INSERT INTO unified_reminders (agent_id, prompt_text, schedule_type) "
        "VALUES ('a', zeroblob(100000000), 'once')",
    )
    before = sha256(database.read_bytes()).digest()

    words = ("import-sqlite", str(database))
    answer = run(*words, environ=environ, prepare=little_memory).success()
    assert (answer["count"], answer["skipped"][0]["why"]) == (1, "invalid")
    assert sha256(database.read_bytes()).digest() == before
    assert not list(database.parent.glob("*-*"))


def test_killed_while_importing(environ: dict[str, str], var: Path, database: Path) -> None:
    """P1: SIGKILL at any moment leaves all of it or nothing, and a second run completes it."""
    for number in range(90):
        add(database, prompt_text=f"Prompt {number}", next_run="2999-01-01 00:00:00")
    script = [sys.executable, "-m", "promptyoself", "import-sqlite", str(database)]
    began = time.monotonic()
    subprocess.run([*script, "--dry-run"], env=environ, stdout=subprocess.DEVNULL, check=True)
    usual = time.monotonic() - began
    for number in range(rounds(8)):
        folder = var.parent / f"var-{number}"
        mine = {**environ, "PROMPTYOSELF_VAR": str(folder)}
        process = subprocess.Popen(script, env=mine, stdout=subprocess.PIPE)
        time.sleep(usual * (0.5 + number / 10))
        process.kill()
        out, _ = process.communicate()
        again = run(*script[3:], environ=mine).success()
        assert again["count"] in (0, 90)
        if out.endswith(b"\n"):
            assert orjson.loads(out)["count"] == 90
            assert again["count"] == 0
        assert len(check_chain(folder / "schedules")) == 91


def test_no_secret_and_no_other_column_is_taken(var: Path, tmp_path: Path) -> None:
    """Only what a schedule needs goes into the log: not what else the table may hold."""
    path = tmp_path / "x.db"
    execute(path, PLAIN)
    add(path, "schedules", agent_id=AGENT, message="Hi", **interval("1h"), colour="sk-secret")
    assert take(path)["count"] == 1
    assert b"sk-secret" not in b"".join(lines_of(var))


def test_an_answer_is_a_table_too(database: Path) -> None:
    """`--format table` shows what was taken and what wasn't."""
    add(database)
    add(database, active=0)
    answer: Answer = call("import-sqlite", str(database), "--format", "table")
    assert answer.code == 0
    assert "inactive" in answer.out.decode()


@pytest.mark.parametrize("taken", [("rowid",), ("rowid", "_rowid_"), ("rowid", "_rowid_", "oid")])
def test_import_sqlite_reads_each_row_once_whatever_the_columns_are_called(
    tmp_path: Path, taken: tuple[str, ...]
) -> None:
    path = tmp_path / "named.db"
    columns = ", ".join(f"{name} TEXT" for name in taken)
    table = f"CREATE TABLE schedules (agent_id, message, schedule_type, schedule_value, {columns})"
    execute(path, table)
    marks = ", ".join("?" * (4 + len(taken)))
    texts = ("Hello 0", "x" * (5 * 1024 * 1024), "Hello 1", "Hello 2")
    rows = [(AGENT, text, "cron", "0 9 * * *", *("same" for _ in taken)) for text in texts]
    execute(path, f"INSERT INTO schedules VALUES ({marks})", *rows)
    answer = take(path)
    assert [schedule["prompt"] for schedule in schedules()] == ["Hello 0", "Hello 1", "Hello 2"]
    assert answer["count"] == 3
    (skipped,) = answer["skipped"]
    assert (skipped["row"], skipped["why"]) == (2, "invalid")
    assert "larger than 4 MiB" in skipped["detail"]


def test_import_sqlite_takes_a_table_that_has_no_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "bare.db"
    execute(
        path,
        "CREATE TABLE schedules (agent_id TEXT, message TEXT PRIMARY KEY, schedule_type TEXT, "
        "schedule_value TEXT) WITHOUT ROWID",
    )
    add(path, "schedules", agent_id=AGENT, message="Hello", **cron("0 9 * * *"))
    assert take(path)["count"] == 1


def test_import_sqlite_time_grows_with_the_rows_where_one_is_called_rowid(tmp_path: Path) -> None:
    def seconds(rows: int) -> float:
        path = tmp_path / f"{rows}.db"
        columns = "rowid TEXT, agent_id, message, schedule_type, schedule_value, active"
        execute(path, f"CREATE TABLE schedules ({columns})")
        row = ("same", AGENT, "Hello", "cron", "0 9 * * *", 0)
        execute(path, "INSERT INTO schedules VALUES (?, ?, ?, ?, ?, ?)", *[row] * rows)
        took, report = cpu_seconds(lambda: take(path))
        assert len(report["skipped"]) == rows
        return took

    seconds(10)
    few, many = min(seconds(500), seconds(501)), seconds(5000)
    assert many < 40 * few
