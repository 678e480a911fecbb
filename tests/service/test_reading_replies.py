"""Answers at the doors: `replies`, and what the other commands tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from by_hand import answer_all, deliver_due
from calling import AGENT, add, call, log_of
from damage import store_in

from promptyoself.doors import waiting
from promptyoself.doors.command import call_command
from promptyoself.doors.commands.log import replies_command
from promptyoself.doors.session import Caller
from promptyoself.rules.notices.replies import Answer, NoAnswer
from promptyoself.service.delivery.loop import StopFlag
from promptyoself.store.chain import Chain

if TYPE_CHECKING:
    from conftest import Clock

TEXT = "I have planned the day.\nThree things matter: rest, bread and Danish.\n"
OTHER = "agent-00000000-0000-4000-8000-000000000002"
AS_TOOL = Caller("mcp", StopFlag())
SILENT = NoAnswer("no_answer", "The agent's turn ended without an answer.", ("web_search",))


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch, var: Path) -> None:
    """Answers are kept, as they are by default."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "excerpt")


def answered(
    var: Path, clock: Clock, answer: Answer | NoAnswer | None, keep: Any = "excerpt"
) -> None:
    """Let an hour pass in which what is due is delivered, and answered like that; ``None``: not
    yet."""
    clock.advance(hours=1)
    store = store_in(var / "schedules")
    deliver_due(store, clock.now, keep)
    clock.advance(seconds=5)
    if answer is not None:
        answer_all(store, clock.now, answer)


def test_answers_are_listed_oldest_first(var: Path, clock: Clock) -> None:
    """An answer has its text, how long it was and its hash; a prompt that got none says why."""
    id_ = add("--every", "1h", "--name", "plan")
    answered(var, clock, Answer(TEXT, ("web_search",), clock.now))
    answered(var, clock, SILENT)
    answer = call("replies").success()
    assert answer["count"] == 2
    assert "awaited" not in answer
    told, silent = answer["replies"]
    assert told == {
        "id": id_,
        "name": "plan",
        "agent_id": AGENT,
        "slot": "2026-11-20T13:00:00.000000Z",
        "at": "2026-11-20T13:00:05.000000Z",
        "replied_at": "2026-11-20T12:00:00.000000Z",
        "replied": True,
        "kept": "full",
        "text": TEXT,
        "bytes": len(TEXT),
        "sha256": sha256(TEXT.encode()).hexdigest(),
        "tools": ["web_search"],
        "run_id": "run-1",
    }
    assert silent == {
        "id": id_,
        "name": "plan",
        "agent_id": AGENT,
        "slot": "2026-11-20T14:00:00.000000Z",
        "at": silent["at"],
        "replied": False,
        "run_id": "run-1",
        "tools": ["web_search"],
        "code": "no_answer",
        "error": "The agent's turn ended without an answer.",
    }


def test_answers_are_filtered(var: Path, clock: Clock) -> None:
    """By schedule, by name, by agent, and by when they were recorded."""
    plan = add("--every", "1h", "--name", "plan")
    other = add("--every", "1h", agent=OTHER)
    for word in ("first", "second"):
        answered(var, clock, Answer(word))

    def texts(*asked: str) -> list[tuple[str, str]]:
        found = call("replies", *asked).success()["replies"]
        return [(reply["id"], reply["text"]) for reply in found]

    everything = [(plan, "first"), (other, "first"), (plan, "second"), (other, "second")]
    assert sorted(texts()) == sorted(everything)
    assert texts("--id", plan) == texts("plan") == [(plan, "first"), (plan, "second")]
    assert texts("--agent-id", OTHER) == [(other, "first"), (other, "second")]
    assert texts("--id", plan, "--since", "2026-11-20T14:00") == [(plan, "second")]
    assert texts("--id", plan, "--until", "2026-11-20T13:30") == [(plan, "first")]
    assert texts("--id", plan, "--limit", "1") == [(plan, "second")]
    assert texts("--since", "2026-12-01") == []
    lines = call("replies", "--id", plan, "--ndjson").out.splitlines()
    assert [orjson.loads(line)["text"] for line in lines] == ["first", "second"]
    call("replies", "--id", "sch_00000000").error("unknown_id")
    call("replies", "--since", "soonish").error("invalid_time")


def test_how_much_is_kept(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long answer an excerpt, of another only the hash; the length and the hash are always of
    the whole."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "full")
    whole = "é" * 5000
    add("--every", "1h")
    for keep in ("excerpt", "hash", "full"):
        answered(var, clock, Answer(whole), keep)
    excerpt, hashed, full = call("replies").success()["replies"]
    assert (excerpt["kept"], excerpt["text"]) == ("excerpt", "é" * 2048)
    assert hashed["kept"] == "hash"
    assert "text" not in hashed
    assert (full["kept"], full["text"]) == ("full", whole)
    for reply in (excerpt, hashed, full):
        assert reply["bytes"] == 10_000
        assert reply["sha256"] == sha256(whole.encode()).hexdigest()


def test_what_is_awaited_is_told(var: Path, clock: Clock) -> None:
    """A prompt that has arrived and has no answer yet is named, as far as the filters want it."""
    id_ = add("--every", "1h", "--name", "plan")
    answered(var, clock, None)
    answer = call("replies").success()
    assert answer["replies"] == []
    assert answer["awaited"] == [
        {
            "id": id_,
            "name": "plan",
            "agent_id": AGENT,
            "slot": "2026-11-20T13:00:00.000000Z",
            "delivered_at": "2026-11-20T13:00:00.000000Z",
        }
    ]
    assert "awaited" not in call("replies", "--agent-id", OTHER).success()
    assert "awaited" not in call("replies", "--until", "2026-11-20T12:30").success()


def test_a_pinned_caller_sees_its_own_alone(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another agent has answered is nobody else's business: neither in `replies`, nor as the
    last answer of a schedule that was the other's before."""
    mine, theirs = add("--every", "1h"), add("--every", "1h", agent=OTHER)
    answered(var, clock, Answer("secret"))
    answered(var, clock, None)
    call("modify", "--id", theirs, "--agent-id", AGENT).success()
    assert call("show", "--id", theirs).success()["schedule"]["last_reply"]["agent_id"] == OTHER
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    answer = call("replies").success()
    assert [reply["id"] for reply in answer["replies"]] == [mine]
    assert {reply["agent_id"] for reply in answer["awaited"]} == {AGENT}
    call("replies", "--agent-id", OTHER).error("forbidden_agent")
    shown = call("show", "--id", theirs).success()["schedule"]
    assert "last_reply" not in shown
    assert call("replies", "--id", theirs).success()["replies"] == []
    assert call("show", "--id", mine).success()["schedule"]["last_reply"]["text"] == "secret"
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OTHER)
    call("replies", "--id", mine).error("forbidden_agent")


def test_an_answer_is_that_of_the_agent_that_was_prompted(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it came after its schedule had become another agent's, and whether all of the log
    is read or its end."""
    id_ = add("--every", "1h", agent=OTHER)
    answered(var, clock, None)
    call("modify", "--id", id_, "--agent-id", AGENT).success()
    answer_all(store_in(var / "schedules"), clock.now, Answer("secret"))
    for since in ([], ["--since", "2026-11-20"]):
        for agent, number in ((OTHER, 1), (AGENT, 0)):
            assert call("replies", "--agent-id", agent, *since).success()["count"] == number
        for agent, number in ((OTHER, 1), (AGENT, 0)):
            with monkeypatch.context() as pinned:
                pinned.setenv("PROMPTYOSELF_ONLY_AGENT", agent)
                assert call("replies", *since).success()["count"] == number


def in_four_months(var: Path, clock: Clock) -> str:
    """Let there be answers to two schedules' prompts, two and one in each of four months. Returns
    the id of the first."""
    id_ = add("--every", "1h", "--grace", "59m")
    add("--every", "2h", "--grace", "59m", agent=OTHER)
    for month in range(4):
        for number in range(2):
            answered(var, clock, Answer(f"{month}.{number}"))
        clock.advance(days=31)
    return id_


def test_the_newest_answers_are_those_of_the_whole_log(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Months are read from the newest one back, until there are enough answers. What is answered is
    the same as if all of them had been read, with the number of all where it is told."""
    id_ = in_four_months(var, clock)
    everything = call("replies").success()["replies"]
    assert len(everything) > 10
    read: list[str] = []
    tail = Chain.tail
    monkeypatch.setattr(
        Chain, "tail", lambda chain, month: read.append(month) or tail(chain, month)
    )
    monkeypatch.setattr(Chain, "events", None)
    for limit in (1, 2, 3, 4, len(everything), 100):
        answer = call("replies", "--limit", str(limit)).success()
        assert answer["replies"] == everything[-limit:]
        assert "total" not in answer
        lines = call("replies", "--ndjson", "--limit", str(limit)).out.splitlines()
        assert [orjson.loads(line) for line in lines] == everything[-limit:]
        told = orjson.loads(call_command(replies_command, ["--limit", str(limit)], AS_TOOL))
        assert told["replies"] == everything[-limit:]
        assert told.get("total", limit) == max(len(everything), limit)
    own = [reply for reply in everything if reply["id"] == id_]
    assert call("replies", "--id", id_, "--limit", "3").success()["replies"] == own[-3:]
    read.clear()
    call("replies", "--limit", "1").success()
    shown = call("replies", "--format", "table", "--limit", "1")
    assert read == ["2027-02"] * 2
    assert f"{len(everything) - 1} earlier answers" in shown.out.decode()


def test_damage_is_told_where_it_is_read(var: Path, clock: Clock) -> None:
    """The newest answers are had though an old month is damaged. Where the newest month is gone,
    those that are left are told, as without a limit."""
    in_four_months(var, clock)
    everything = call("replies").success()["replies"]
    oldest, *_, newest = sorted((var / "schedules").glob("*.gz"))
    content = oldest.read_bytes()
    oldest.write_bytes(content[:-20] + bytes(20))
    assert call("replies", "--limit", "3").success()["replies"] == everything[-3:]
    call("replies", "--limit", "100").error("corrupt_chain")
    oldest.write_bytes(content)
    newest.unlink()
    left = call("replies")
    limited = call("replies", "--limit", "2")
    assert limited.success()["replies"] == left.success()["replies"][-2:] == everything[-5:-3]
    assert limited.err == left.err


def test_show_has_the_last_answer(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: it is read by its place in the log, which isn't read through for it. At an earlier time
    it is the one of then."""
    id_ = add("--every", "1h")
    assert "last_reply" not in call("show", "--id", id_).success()["schedule"]
    for word in ("first", "second"):
        answered(var, clock, Answer(word))
    first, second = call("replies", "--id", id_).success()["replies"]
    then = call("show", "--id", id_, "--at", "2026-11-20T13:30").success()["schedule"]
    assert then["last_reply"] == first
    with monkeypatch.context() as patch:
        for reads_through in ("events", "replay", "tail", "newest_events"):
            patch.setattr(Chain, reads_through, lambda *_: pytest.fail("the log is read through"))
        shown = call("show", "--id", id_).success()["schedule"]
    assert shown["last_reply"] == second


def test_what_takes_effect_is_shown(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is a default and a ceiling; who asks for more is warned."""

    def keep(id_: str) -> Any:
        return call("show", "--id", id_).success()["schedule"].get("keep_reply")

    plain = add("--every", "1h")
    answer = call(
        *("register", "--agent-id", AGENT, "--prompt", "x", "--every", "1h", "--keep-reply", "full")
    ).success()
    assert "--keep-reply full is more than PROMPTYOSELF_KEEP_REPLY allows" in answer["warning"]
    assert "4 KiB" in answer["warning"]
    full = answer["id"]
    less = add("--every", "1h", "--keep-reply", "hash", prompt="y")
    assert [keep(id_) for id_ in (plain, full, less)] == ["excerpt", "excerpt", "hash"]
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "full")
    assert [keep(id_) for id_ in (plain, full, less)] == ["full", "full", "hash"]
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "none")
    assert [keep(id_) for id_ in (plain, full, less)] == [None, "none", "none"]
    assert call("list", "--full").success()["schedules"][0].get("keep_reply") in (None, "none")
    warned = call("modify", "--id", plain, "--keep-reply", "hash").success()["warning"]
    assert "nothing is kept of its answers" in warned


@pytest.mark.parametrize("keep", ["none", "hash"])
def test_notices_need_the_text(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    """A destination of answers of which no text is kept is refused, at `register` and `modify`."""
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_ME", "https://example.org/hook")
    base = ("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--reply-to", "me")
    error = call(*base, "--keep-reply", keep).error("reply_not_kept")
    assert "--keep-reply" in error["hint"]
    assert not log_of(var)
    id_ = call(*base).success()["id"]
    before = log_of(var)
    call("modify", "--id", id_, "--keep-reply", keep).error("reply_not_kept")
    assert log_of(var) == before
    plain = add("--every", "2h", "--keep-reply", keep)
    call("modify", "--id", plain, "--reply-to", "me").error("reply_not_kept")
    call("modify", "--id", plain, "--reply-to", "me", "--keep-reply", "").success()
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", keep)
    error = call("modify", "--id", id_, "--keep-reply", "full").error("reply_not_kept")
    assert "config set PROMPTYOSELF_KEEP_REPLY" in error["hint"]
    call("modify", "--id", id_, "--reply-to", "").success()


def test_answers_are_followed(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes as it is recorded, once, after the newest that were there."""
    add("--every", "1h")
    for word in ("first", "second"):
        answered(var, clock, Answer(word))
    further = iter(("third", "fourth"))

    @contextmanager
    def until_stopped() -> Iterator[Callable[[], bool]]:
        def wait() -> bool:
            word = next(further, None)
            if word is not None:
                answered(var, clock, Answer(word))
            return word is not None

        yield wait

    monkeypatch.setattr(waiting, "until_stopped", until_stopped)
    lines = call("replies", "--follow", "--limit", "1").out.splitlines()
    assert [orjson.loads(line)["text"] for line in lines] == ["second", "third", "fourth"]
    call("replies", "--follow", "--until", "2026-11-20").error("conflicting_options", 2)


def test_answers_are_exported(var: Path, clock: Clock, tmp_path: Path) -> None:
    """For other tools: the lines of `replies`, of all agents or of one. They are no schedules."""
    add("--every", "1h")
    add("--every", "1h", agent=OTHER)
    answered(var, clock, Answer(TEXT))
    answered(var, clock, SILENT)
    file = tmp_path / "answers.ndjson"
    said = call("export", "--answers", "--out", str(file)).success()
    assert (said["count"], said["message"]) == (4, "4 answers exported.")
    assert file.read_bytes() == call("replies", "--ndjson").out
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert [line["replied"] for line in lines] == [True, True, False, False]
    own = call("export", "--answers", "--agent-id", OTHER).out.splitlines()
    assert [orjson.loads(line) for line in own] == [li for li in lines if li["agent_id"] == OTHER]
    call("import", str(file)).error("bad_lines")
