"""What the messages of a turn say that the agent has said and done."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from promptyoself.targets.api import HISTORY_GAP, DeliveryError
from promptyoself.targets.turn_messages import turn_after, turn_of

Row = dict[str, Any]

PROMPT = {"message_type": "user_message", "otid": "ours", "content": "p"}
OTHER = {"message_type": "user_message", "otid": "another", "content": "q"}


def says(content: object, date: str = "2026-11-20T12:00:00+00:00") -> Row:
    return {"message_type": "assistant_message", "content": content, "date": date}


def call(name: object, number: int = 0, kind: str = "tool_call_message", **arguments: Any) -> Row:
    called = {"name": name, "tool_call_id": f"call-{number}", "arguments": json.dumps(arguments)}
    return {"message_type": kind, "tool_call": called}


RETURN = {"message_type": "tool_return_message", "tool_return": "It is done."}


def test_the_last_words_count() -> None:
    turn = turn_of([says("second"), RETURN, call("look"), says("first"), PROMPT], "ours")
    assert turn.reply == ("second", ("look",), datetime(2026, 11, 20, 12, tzinfo=UTC))
    assert turn.ends_in_words


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}], "two parts"),
        ([{"type": "image"}, {"type": "text", "text": "a picture"}, "odd", None], "a picture"),
        ({"type": "text", "text": "one part"}, "one part"),
        ("", None),
        (" \n", None),
        (None, None),
        (7, None),
        ([{"text": 7}], None),
    ],
)
def test_words_come_in_several_forms(content: object, text: str | None) -> None:
    assert turn_of([says(content), PROMPT], "ours").reply.text == text


def test_words_before_a_tool_are_the_last_where_none_follow() -> None:
    turn = turn_of([RETURN, call("look"), says("I look."), PROMPT], "ours")
    assert (turn.reply.text, turn.reply.tools, turn.ends_in_words) == ("I look.", ("look",), False)


def test_tools_are_told_in_their_order_and_once() -> None:
    """A call that somebody approved of is told as a request, and then as a call."""
    several = call("note", 2)
    several["tool_calls"] = [call("look", 3)["tool_call"], call("look", 4)["tool_call"]]
    rows = [says("ok"), several, call("shell", 1), call("shell", 1, "approval_request_message")]
    assert turn_of([*rows, PROMPT], "ours").reply.tools == ("shell", "look", "look")


@pytest.mark.parametrize("arguments", [{"message": "Hello."}, {"message": "Hello.", "more": 1}])
def test_agents_of_older_kinds_say_something_by_a_tool(arguments: Row) -> None:
    turn = turn_of([RETURN, call("send_message", **arguments), PROMPT], "ours")
    assert (turn.reply.text, turn.reply.tools) == ("Hello.", ())


@pytest.mark.parametrize("said", ["", "[]", "{", "7", '{"message": 7}', "[" * 100_000])
def test_what_is_said_by_a_tool_in_no_words(said: str) -> None:
    row = call("send_message")
    row["tool_call"]["arguments"] = said
    assert turn_of([row, PROMPT], "ours").reply == (None, (), None)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"message_type": 7},
        {"message_type": "tool_call_message"},
        {"message_type": "tool_call_message", "tool_call": "look", "tool_calls": ["look"]},
        {"message_type": "assistant_message", "date": "soon"},
    ],
)
def test_odd_rows_say_nothing(row: Row) -> None:
    assert turn_of([row, PROMPT], "ours").reply == (None, (), None)


def test_a_call_without_a_name_is_a_call() -> None:
    assert turn_of([call(None), PROMPT], "ours").reply.tools == ("unnamed",)


def test_a_turn_ends_where_another_prompt_follows() -> None:
    turn, is_followed = turn_after([says("to another"), OTHER, says("ours"), PROMPT], "ours")
    assert (turn.reply.text, is_followed) == ("ours", True)
    turn, is_followed = turn_after([says("ours"), PROMPT, says("before")], "ours")
    assert (turn.reply.text, is_followed) == ("ours", False)


def test_no_more_is_read_than_back_to_the_prompt() -> None:
    rows = iter([says("ours"), PROMPT, says("before")])
    turn_after(rows, "ours")
    assert next(rows) == says("before")


def test_a_prompt_that_is_gone() -> None:
    with pytest.raises(DeliveryError) as raised:
        turn_after([says("to another"), OTHER], "ours")
    assert (raised.value.kind, raised.value.code) == ("permanent", HISTORY_GAP)
    assert not turn_of([says("to another"), OTHER], "ours").has_prompt
