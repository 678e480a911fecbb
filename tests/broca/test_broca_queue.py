"""Prompts in a Broca's queue: once, whatever is wrong with its database, with one outcome."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from broca.brocas import AGENT, USER, Broca, Turner
from target_contract import refusal

from promptyoself.events.target_names import worker_in_broca
from promptyoself.service.delivery import dispatcher as dispatching
from promptyoself.service.delivery.dispatcher import Dispatcher
from promptyoself.targets.api import HISTORY_GAP, Message
from promptyoself.targets.broca import BrocaQueue, Misfit, misfits
from promptyoself.targets.broca.database import NEEDED

if TYPE_CHECKING:
    from dispatch import Place

MESSAGE = Message(AGENT, "default", "Stretch.", "otid-1")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
FIT = {"DEBUG_MODE": "false", "USE_BACKGROUND_PROCESSING": "false"}


def queue_of(broca: Broca, route: str | None = USER, **options: Any) -> BrocaQueue:
    options = {"misfits": list, "call_timeout": 0.1, **options}
    return BrocaQueue(AGENT, str(broca.database), route, **options)


# -- in the queue once


def test_a_prompt_is_in_the_queue_once(any_broca: Path, broca: Broca) -> None:
    """However often it is sent, also by another process: it has the same run."""
    runs = {queue_of(broca).send(MESSAGE).run_id for _ in range(3)}
    (item,) = broca.items()
    assert runs == {f"broca-{item['id']}"}
    assert (item["message"], item["status"], item["attempts"]) == ("Stretch.", "pending", 0)
    assert len(broca.rows("SELECT * FROM messages")) == 1


def test_a_prompt_is_there_whole_or_not_at_all(any_broca: Path, broca: Broca) -> None:
    """Where the last of its rows can't be written, none is there."""
    queue = queue_of(broca)
    queue.send(MESSAGE)
    broca.change(
        "CREATE TRIGGER refuse BEFORE INSERT ON promptyoself_sent "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    other = replace(MESSAGE, otid="otid-2")
    refusal("retry", "broca_unreadable", queue.send, other)
    assert len(broca.items()) == len(broca.rows("SELECT * FROM messages")) == 1
    assert queue.find(other, LONG_AGO) is None


def test_it_goes_to_the_user_it_names(any_broca: Path, broca: Broca) -> None:
    """Else to the default one."""
    queue = queue_of(broca)
    queue.send(MESSAGE)
    queue.send(replace(MESSAGE, conversation="sink:u2", otid="otid-2"))
    users = broca.rows(
        "SELECT p.platform_user_id AS user FROM messages m "
        "JOIN platform_profiles p ON p.id = m.platform_profile_id ORDER BY m.id"
    )
    assert [row["user"] for row in users] == ["u1", "u2"]


def test_whom_broca_does_not_know(any_broca: Path, broca: Broca) -> None:
    unknown = replace(MESSAGE, conversation="sink:nobody")
    error = refusal("permanent", "conversation_not_found", queue_of(broca).send, unknown)
    assert "sink:nobody" in error.message
    refusal("permanent", "missing_route", queue_of(broca, None).send, MESSAGE)
    assert broca.items() == []


# -- what is wrong with the database


def test_a_locked_database(any_broca: Path, broca: Broca) -> None:
    """Nothing is written, and all is well once the lock is gone."""
    queue, holder = queue_of(broca), broca.connect()
    holder.execute("BEGIN EXCLUSIVE")
    error = refusal("retry", "broca_locked", queue.send, MESSAGE)
    assert "0.1 s" in error.message
    refusal("retry", "broca_locked", queue.find, MESSAGE, LONG_AGO)
    holder.rollback()
    queue.send(MESSAGE)
    assert len(broca.items()) == 1


def test_a_missing_database(any_broca: Path, broca: Broca) -> None:
    """It isn't made, since Broca's own tables would be missing in it."""
    broca.database.unlink()
    refusal("retry", "broca_missing", queue_of(broca).send, MESSAGE)
    refusal("retry", "broca_missing", queue_of(broca).check)
    assert not broca.database.exists()


@pytest.mark.parametrize("table", NEEDED)
def test_a_database_of_another_version(any_broca: Path, broca: Broca, table: str) -> None:
    column = max(
        NEEDED[table] - {"id", "letta_user_id", "message_id", "platform", "platform_user_id"}
        or {"platform"}
    )
    if table != "platform_profiles":
        broca.change(f"ALTER TABLE {table} RENAME COLUMN {column} TO another")
        error = refusal("retry", "broca_unsupported", queue_of(broca).send, MESSAGE)
        assert column in error.message
    broca.change("PRAGMA foreign_keys = OFF")
    broca.change(f"ALTER TABLE {table} RENAME TO another")
    error = refusal("retry", "broca_unsupported", queue_of(broca).send, MESSAGE)
    assert table in error.message
    assert "promptyoself_sent" not in {
        row["name"] for row in broca.rows("SELECT name FROM sqlite_master")
    }


def test_a_file_that_is_no_database(any_broca: Path, broca: Broca) -> None:
    broca.database.write_bytes(b"This was a database once. " * 100)
    refusal("retry", "broca_unreadable", queue_of(broca).send, MESSAGE)
    refusal("retry", "broca_unreadable", queue_of(broca).active_runs, MESSAGE)


def test_a_restored_database_proves_nothing(any_broca: Path, broca: Broca, tmp_path: Path) -> None:
    """Neither to the process that put the prompt in, nor to one whose log tells of later items. To
    others there is no sign that anything was lost."""
    queue, copy = queue_of(broca), tmp_path / "copy.db"
    queue.send(replace(MESSAGE, otid="otid-0"))
    shutil.copy(broca.database, copy)
    run_id = queue.send(MESSAGE).run_id
    shutil.copy(copy, broca.database)
    refusal("permanent", "run_not_found", queue.run, run_id)
    refusal("permanent", HISTORY_GAP, queue.find, MESSAGE, LONG_AGO)
    told = queue_of(broca)
    assert told.find(MESSAGE, LONG_AGO) is None
    told.remember(2)
    refusal("permanent", HISTORY_GAP, told.find, MESSAGE, LONG_AGO)


# -- what becomes of it there


@pytest.mark.parametrize(
    ("change", "status", "found"),
    [
        ("UPDATE queue SET status = 'pending'", "created", None),
        ("UPDATE queue SET status = 'processing'", "running", None),
        ("UPDATE queue SET status = 'completed'", "completed", True),
        ("UPDATE messages SET processed = 1", "completed", True),
        ("UPDATE queue SET status = 'failed'", "failed", HISTORY_GAP),
        ("UPDATE queue SET status = 'flushed'", "cancelled", None),
        ("DELETE FROM queue", "cancelled", HISTORY_GAP),
        ("UPDATE queue SET status = 'of another day'", "running", None),
    ],
)
def test_what_an_item_means(
    any_broca: Path, broca: Broca, change: str, status: str, found: bool | str | None
) -> None:
    queue = queue_of(broca)
    run_id = str(queue.send(MESSAGE).run_id)
    broca.change(change)
    run = queue.run(run_id)
    assert (run.status, run.otid) == (status, MESSAGE.otid)
    assert [run.run_id for run in queue.active_runs(MESSAGE)] == ([run_id] if run.active else [])
    if found == HISTORY_GAP:
        refusal("permanent", HISTORY_GAP, queue.find, MESSAGE, LONG_AGO)
    else:
        assert bool(queue.find(MESSAGE, LONG_AGO)) is bool(found)
    assert queue.send(MESSAGE).run_id == run_id


def test_others_in_the_queue_are_in_nobodys_way(any_broca: Path, broca: Broca) -> None:
    """Not even one that is stuck, as a killed Broca leaves it."""
    queue = queue_of(broca)
    queue.send(MESSAGE)
    broca.change("UPDATE queue SET status = 'processing'")
    assert queue.active_runs(replace(MESSAGE, otid="otid-2")) == []


def test_the_answer(any_broca: Path, broca: Broca) -> None:
    queue = queue_of(broca)
    queue.send(MESSAGE)
    assert queue.reply(MESSAGE, LONG_AGO, None) is None
    broca.change("UPDATE messages SET processed = 1, agent_response = 'Done. ✓'")
    reply = queue.reply(MESSAGE, LONG_AGO, None)
    assert reply is not None
    assert (reply.text, reply.tools) == ("Done. ✓", ())
    assert reply.date is not None
    broca.change("UPDATE messages SET agent_response = ?", "x" * (17 << 20))
    refusal("permanent", "reply_too_large", queue.reply, MESSAGE, LONG_AGO, None)
    broca.change("DELETE FROM messages")
    broca.change("DELETE FROM queue")
    refusal("permanent", HISTORY_GAP, queue.reply, MESSAGE, LONG_AGO, None)


# -- a Broca that would echo or repeat


@pytest.mark.parametrize(
    ("environ", "settings", "named"),
    [
        ({"DEBUG_MODE": None}, {}, "DEBUG_MODE"),
        ({"DEBUG_MODE": "True"}, {}, "DEBUG_MODE"),
        ({"USE_BACKGROUND_PROCESSING": None}, {}, "USE_BACKGROUND_PROCESSING"),
        ({"USE_BACKGROUND_PROCESSING": "TRUE"}, {}, "USE_BACKGROUND_PROCESSING"),
        ({}, {"message_mode": "echo"}, "message_mode"),
        ({"broca_message_mode": "echo"}, {}, "message_mode"),
        ({}, {"debug_mode": True}, "debug_mode"),
        ({}, {"debug_mode": "on"}, "debug_mode"),
        ({}, {"message_mode": "live", "debug_mode": "false"}, None),
        ({"BROCA_MESSAGE_MODE": "echo"}, {"message_mode": "live"}, None),
        ({"DEBUG_MODE": ""}, {}, None),
        ({}, {}, None),
    ],
)
def test_what_has_a_broca_echo_or_repeat(
    environ: dict[str, str | None], settings: dict[str, Any], named: str | None
) -> None:
    set_ = {name: value for name, value in {**FIT, **environ}.items() if value is not None}
    found = misfits(set_, settings)
    assert [named in misfit.message + misfit.hint for misfit in found] == [True] * bool(named)


def test_nothing_goes_into_such_a_queue(any_broca: Path, broca: Broca) -> None:
    queue = queue_of(broca, misfits=lambda: [Misfit("It echoes.", "Mend it.")])
    refusal("retry", "broca_unfit", queue.send, MESSAGE)
    refusal("retry", "broca_unfit", queue.check)
    assert broca.items() == []


# -- with a loop


@pytest.fixture
def inside(
    any_broca: Path, broca: Broca, place: Place, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dispatcher]:
    """A worker inside that Broca. Its prompts in ``place`` go there."""
    place.targets["broca"] = queue_of(broca)
    name = dispatching.new_worker_name
    with monkeypatch.context() as patch:
        patch.setattr("dispatch.new_worker_name", lambda: worker_in_broca(name(), AGENT))
        yield place.worker()


def prompt(place: Place, **asked: Any) -> str:
    id_ = place.add(AGENT, "Stretch.", time="in 1s", target="broca", **asked)
    place.ahead += dispatching.timedelta(seconds=2)
    return id_


def outcomes(place: Place) -> list[tuple[str, Any]]:
    """How the slots ended, with their codes or proofs."""
    ends = ("delivery.delivered", "delivery.failed", "delivery.skipped")
    events = (event for event in place.events() if event["type"] in ends)
    return [
        (event["type"].split(".")[1], event["data"].get("code") or event["data"].get("via"))
        for event in events
    ]


def test_only_its_own_loop_claims_what_goes_to_a_broca(
    place: Place, broca: Broca, any_broca: Path, inside: Dispatcher
) -> None:
    """Others leave it alone, also what it has left in doubt, and go on with what is theirs."""
    prompt(place)
    place.add("agent-1")
    place.ahead += dispatching.timedelta(seconds=2)
    outside = Dispatcher(
        place.store, place.targets, place.now, worker="wrk_0", mode="loop", concurrency=2
    )
    with place.store.workers.alive("wrk_0"):
        place.run(outside)
        assert outcomes(place) == [("delivered", "run")]
        assert broca.items() == []
        inside.tick(place.now())
        place.wait(inside, broca.items)
        place.die(inside)
        place.ahead += dispatching.timedelta(seconds=600)
        outside._adopted_at = float("-inf")
        outside.tick(place.now())
        assert outside.idle
    outside.close()
    assert len(broca.items()) == 1


def test_it_is_delivered_once_it_is_answered(
    place: Place, broca: Broca, inside: Dispatcher
) -> None:
    prompt(place, conversation_id="sink:u2")
    with Turner(broca):
        place.run(inside)
    assert outcomes(place) == [("delivered", "run")]
    (event,) = [event for event in place.events() if event["type"] == "delivery.delivered"]
    assert event["data"]["run_id"] == f"broca-{broca.items()[0]['id']}"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE queue SET status = 'failed'", "unknown"),
        ("UPDATE queue SET status = 'flushed'", "broca_flushed"),
        ("DELETE FROM queue", "unknown"),
        ("DELETE FROM promptyoself_sent", "unknown"),
    ],
)
def test_what_the_queue_gives_up_is_not_put_in_again(
    place: Place, broca: Broca, inside: Dispatcher, change: str, code: str
) -> None:
    prompt(place)
    inside.tick(place.now())
    place.wait(inside, broca.items)
    broca.change(change)
    place.run(inside)
    assert outcomes(place) == [("failed", code)]
    assert len(broca.rows("SELECT * FROM messages")) == 1


def test_what_still_waits_after_two_hours(
    place: Place, broca: Broca, inside: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say what will become of it."""
    monkeypatch.setattr(
        "promptyoself.service.delivery.delivery._LEFTOVER", dispatching.timedelta(seconds=0.6)
    )
    prompt(place)
    place.run(inside)
    assert outcomes(place) == [("failed", "unknown")]
    assert broca.items()[0]["status"] == "pending"


def test_a_lock_that_ends(place: Place, broca: Broca, inside: Dispatcher) -> None:
    """It is tried again, and arrives."""
    holder = broca.connect()
    holder.execute("BEGIN EXCLUSIVE")
    prompt(place)
    place.run(inside, until=lambda: place.types()["delivery.abandoned"] > 0)
    (event,) = [event for event in place.events() if event["type"] == "delivery.abandoned"]
    assert event["data"]["code"] == "broca_locked"
    holder.rollback()
    holder.close()
    place.ahead += dispatching.timedelta(minutes=10)
    with Turner(broca):
        place.run(inside, until=lambda: bool(outcomes(place)))
    assert outcomes(place) == [("delivered", "run")]
    assert len(broca.items()) == 1


def test_a_killed_process_leaves_what_the_next_one_finds(
    place: Place, broca: Broca, inside: Dispatcher, any_broca: Path
) -> None:
    """By our own row, though no run was ever told."""
    prompt(place)
    inside.tick(place.now())
    place.wait(inside, broca.items)
    place.die(inside)
    with Turner(broca):
        place.run(place.worker(), until=lambda: bool(outcomes(place)))
    assert outcomes(place)[0][0] == "delivered"
    assert len(broca.items()) == 1


def test_nothing_else_is_known_of_sqlite_here() -> None:
    """An error without a code, as some have it, is no lock."""
    from promptyoself.targets.broca.database import _is_locked

    assert not _is_locked(sqlite3.ProgrammingError("closed"))
