"""What a person sees of answers: in `replies`, in `show`, `history`, `report` and `execute`."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from by_hand import answer_all, deliver_due
from calling import add
from damage import store_in
from rich.console import Console
from terminals import picture

from promptyoself.doors.terminal.forms import show
from promptyoself.doors.terminal.screen import Screen
from promptyoself.rules.notices.replies import Answer, NoAnswer

if TYPE_CHECKING:
    from conftest import Clock

    from promptyoself.events.kinds import KeepReply

EVIL = (
    "Here is \x1b[31mred\x1b[0m, \u202egnp.exe, zero\u200bwidth and a bell.\x07\nLine \u4e2d two."
)
SILENT = NoAnswer("no_answer", "The agent's turn ended without an answer.", ("search", "send"))


@pytest.fixture
def plan(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> str:
    """A schedule whose prompts are answered, at 13:00, 14:00, and so on."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "full")
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_OPS", "https://example.org/hook")
    return add("--every", "1h", "--name", "plan", "--reply-to", "ops", "--on-failure", "ops")


def answered(
    var: Path, clock: Clock, answer: Answer | NoAnswer | None, keep: KeepReply = "full"
) -> None:
    store = store_in(var / "schedules")
    clock.advance(hours=1)
    deliver_due(store, clock.now, keep)
    if answer is not None:
        answer_all(store, clock.now, answer)


def lines(*arguments: str, columns: int = 80) -> list[str]:
    return [line.rstrip() for line in picture(*arguments, columns=columns).splitlines()]


def test_nothing_that_an_agent_says_acts_on_the_terminal(
    plan: str, var: Path, clock: Clock
) -> None:
    """Control characters, such as turn the order around, and such as can't be seen, are escapes."""
    answered(var, clock, Answer(EVIL, ("search\x1b]0;title\x07",), clock.now))
    shown = lines("replies")
    assert shown == [
        "✓ today 12:00, slot today 13:00  plan  agent-00000000",
        r"  │ Here is \x1b[31mred\x1b[0m, \u202egnp.exe, zero\u200bwidth and a bell.\x07",
        "  │ Line 中 two.",
        r"  goes to ops, called search\x1b]0;title\x07",
    ]
    for command in (("show", plan), ("history",), ("report", "--since", "2026-11-20")):
        for text in lines(*command):
            assert not any(c in text for c in "\x1b\x07\u202e\u200b"), text
    assert any(r"Here is \x1b[31mred" in text for text in lines("history", columns=120))


def test_what_there_is_instead_of_words(plan: str, var: Path, clock: Clock) -> None:
    """Why there is no answer; that only the hash is kept, or the beginning; what is awaited."""
    assert lines("replies") == ["No answers."]
    answered(var, clock, SILENT)
    answered(var, clock, Answer("x" * 300), "hash")
    answered(var, clock, Answer("word " * 1000), "excerpt")
    answered(var, clock, Answer(""))
    answered(var, clock, None)
    shown = lines("replies")
    assert shown[:5] == [
        "· today 13:00  plan  agent-00000000",
        "  no answer: The agent's turn ended without an answer; goes to ops, called",
        "  search, send",
        "",
        "✓ today 14:00  plan  agent-00000000",
    ]
    assert shown[5].startswith("  300 bytes, of which only the SHA-256 is kept: ")
    assert "  the first 4,096 of 5,000 bytes are kept, goes to ops" in shown
    assert "  an empty answer, goes to ops" in shown
    assert shown[-3:] == [
        "Awaited",
        "DELIVERED          SCHEDULE  AGENT",
        "today 17:00 (now)  plan      agent-00000000",
    ]
    assert lines("replies", "--limit", "1")[0].startswith("3 earlier answers; --limit")
    assert lines("replies", "--limit", "3")[0].startswith("1 earlier answer; --limit")


def test_why_no_answers_are_kept_is_told(
    plan: str, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = add("--every", "2h", "--keep-reply", "none", prompt="Write.")
    assert lines("replies") == lines("replies", plan) == ["No answers."]
    assert f"`promptyoself modify {diary} " in " ".join(lines("replies", diary, columns=120))
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "none")
    assert "as PROMPTYOSELF_KEEP_REPLY says." in " ".join(lines("replies", columns=120))


def test_the_card_has_the_last_answer(plan: str, var: Path, clock: Clock) -> None:
    """Of a long one the beginning, and the command that shows the rest."""
    answered(var, clock, Answer("\n".join(f"Line {number}." for number in range(30))))
    shown = lines("show", plan)
    assert "  answers     are kept, up to 1 MiB, go to ops" in shown
    assert "  on failure  tells ops" in shown
    at = shown.index("Last answer  today 13:00")
    assert shown[at + 1 : at + 3] == ["  │ Line 0.", "  │ Line 1."]
    assert shown[at + 10] == "  │ Line 9."
    assert shown[at + 11 :] == [
        "  goes to ops",
        f"  `promptyoself replies {plan} --limit 1` shows the rest of it.",
    ]


def test_history_and_report_tell_of_answers(plan: str, var: Path, clock: Clock) -> None:
    """In words: the first line of each, and how many there were."""
    answered(var, clock, Answer("\n\n  All is well.\nReally.", ("search",)))
    answered(var, clock, SILENT)
    shown = lines("history", "--type", "delivery", columns=120)
    assert "  answered    plan      All is well; called search, notice to ops" in shown[3]
    assert "  unanswered  plan      The agent's turn ended without an answer; " in shown[6]
    shown = lines("report", "--since", "2026-11-20", columns=120)
    assert shown[2] == "agent-00000000  2 delivered, 1 answered, 1 unanswered"
    at = shown.index("Last answers")
    assert shown[at + 2] == "today 13:00  plan      All is well."


def test_execute_tells_what_was_read_and_sent() -> None:
    """A line for each answer, and for each notice."""
    about = {"id": "sch_1", "agent_id": "a", "slot": "2026-11-28T10:00:00.000000Z"}
    notice = {"notice": "ntc_1", "to": "ops", "kind": "reply", "tries": 1, **about}
    digest = {"notice": "ntc_2", "to": "ops", "kind": "digest", "tries": 2, "agent_id": None}
    document: dict[str, Any] = {
        "status": "success",
        "message": "0 prompts executed",
        "executed": [],
        "replies": [
            {**about, "replied": True, "kept": "hash", "bytes": 1234},
            {**about, "replied": False, "code": "no_answer", "error": "Nothing was said."},
        ],
        "notices": [
            {**notice, "sent": True},
            {**digest, "sent": False, "code": "timeout", "error": "It is slow.",
             "retry_at": "2026-11-28T11:05:00.000000Z"},
        ],
    }  # fmt: skip
    console = Console(width=100, file=io.StringIO())
    show("execute", document, Screen(console, "UTC", datetime(2026, 11, 28, 11, tzinfo=UTC)))
    assert isinstance(console.file, io.StringIO)
    assert [text.rstrip() for text in console.file.getvalue().splitlines()] == [
        "11:00:00  ✓  answered         sch_1   a  1,234 bytes",
        "11:00:00  ·  unanswered       sch_1   a  Nothing was said.",
        "11:00:00  ✓  notice sent      sch_1   a  to ops",
        "11:00:00  ✗  notice not sent  digest     It is slow; to ops, again today 11:05",
    ]


def test_a_destination_that_is_gone_is_said_to_be(
    plan: str, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its answers nor its failures are told, so the card doesn't say that they are."""
    monkeypatch.delenv("PROMPTYOSELF_DESTINATION_OPS")
    gone = "ops, which isn't defined any more"
    for command in (("show", plan), ("list", "--full")):
        card = lines(*command)
        assert f"  answers     are kept, up to 1 MiB, go to {gone}" in card
        assert f"  on failure  tells {gone}" in card
