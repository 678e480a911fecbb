"""What a Letta says on the wire: the sandbox, and with ``make test-letta`` a real server too.
Nothing of ours is in between, so that an error there can't hide one here."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from loops import wait_for

if TYPE_CHECKING:
    from lettas import Letta

UNKNOWN = "11111111-1111-4111-8111-111111111111"
NONE = type(None)


def form(texts: str, **others: type | None) -> dict[str, type | None]:
    """The types of a document's fields: those that are texts, and the others."""
    return {**dict.fromkeys(texts.split(), str), **others}


RUN = form(
    "id status created_at completed_at agent_id stop_reason",
    conversation_id=NONE,
    background=bool,
    metadata=dict,
    request_config=dict,
)
MESSAGE = form(
    "id date message_type otid step_id run_id content",
    name=NONE,
    sender_id=NONE,
    is_err=NONE,
    seq_id=NONE,
)
AGENT = form(
    "id name created_at updated_at agent_type model system",
    last_run_completion=NONE,
    message_ids=list,
    description=NONE,
    tags=list,
    tools=list,
    blocks=list,
)
CONVERSATION = form("id agent_id created_at", summary=NONE, in_context_message_ids=list)
PING = {**MESSAGE, "otid": NONE, "step_id": NONE, "content": None}


def ask(letta: Letta, method: str, path: str, body: object = None) -> httpx.Response:
    return httpx.request(method, letta.url + path, json=body, timeout=60, trust_env=False)


def turn(letta: Letta, agent_id: str, messages: list[dict[str, object]]) -> dict[str, Any]:
    """Send messages that our own client wouldn't, and wait for the run's end."""
    path = f"/v1/agents/{agent_id}/messages/async"
    answer = ask(letta, "POST", path, {"messages": messages})
    assert answer.status_code == 200, answer.text
    until = time.monotonic() + 60
    run: dict[str, Any] = answer.json()
    while run["status"] in ("created", "running") and time.monotonic() < until:
        time.sleep(0.05)
        run = ask(letta, "GET", f"/v1/runs/{run['id']}").json()
    return run


def kinds(letta: Letta, path: str) -> list[str]:
    """What kinds of messages a list has, after the first, which tells an agent what it is."""
    first, *others = (row["message_type"] for row in ask(letta, "GET", path).json())
    assert first == "system_message"
    return others


def stream(letta: Letta, conversation_id: str, **more: object) -> list[dict[str, Any] | str]:
    """A turn in a conversation, as its events: documents, and the words that stand for its end."""
    body = {"messages": [{"role": "user", "content": "Hi", "otid": "o-1"}], "streaming": True}
    path = f"/v1/conversations/{conversation_id}/messages"
    answer = ask(letta, "POST", path, {**body, **more})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in answer.text.split("\n") if line]
    return [
        json.loads(line[6:]) if line.startswith("data: {") else line.removeprefix("data: ")
        for line in lines
    ]


def test_the_documents_have_the_same_form(any_letta: Letta) -> None:
    """What the sandbox tells, a real server tells too, under the same names and as the same types;
    without a setting that is off by default none says when an agent last ran."""
    agent_id = any_letta.agent()
    run = turn(any_letta, agent_id, [{"role": "user", "content": "Hi", "otid": "o-1"}])
    _, message, answer = ask(any_letta, "GET", f"/v1/agents/{agent_id}/messages").json()
    talk = any_letta.conversation(agent_id)
    for document, expected in (
        (run, RUN),
        (message, MESSAGE),
        (answer, MESSAGE),
        (ask(any_letta, "GET", f"/v1/agents/{agent_id}").json(), AGENT),
        (ask(any_letta, "GET", f"/v1/conversations/{talk}").json(), CONVERSATION),
        (stream(any_letta, talk, include_pings=True)[0], PING),
    ):
        wanted = {name: kind for name, kind in expected.items() if kind is not None}
        assert {name: type(document[name]) for name in wanted} == wanted
        assert any_letta.real or set(document) == set(wanted)
    assert (run["status"], run["stop_reason"], run["background"]) == ("completed", "end_turn", True)
    assert run["metadata"]["run_type"] == "send_message_async"


def test_conversations_are_found_by_their_summary(any_letta: Letta) -> None:
    """A part of the summary finds a conversation, its case counts, and an agent that isn't known
    has none. Lists are newest first, of 50 at most, and page by ``after``."""
    agent_id, other = any_letta.agent(), any_letta.agent()
    path = f"/v1/conversations/?agent_id={agent_id}"
    marked = ask(any_letta, "POST", path, {"summary": "Tea [o-1]"}).json()
    plain = ask(any_letta, "POST", path).json()
    ask(any_letta, "POST", f"/v1/conversations/?agent_id={other}", {"summary": "Tea [o-1]"})
    expected = {**CONVERSATION, "summary": str}
    assert {name: type(marked[name]) for name in expected} == expected
    assert any_letta.real or set(marked) == set(expected)
    # What is created or listed tells no messages, though there is one.
    assert (marked["summary"], marked["in_context_message_ids"]) == ("Tea [o-1]", [])

    def ids(asked: str) -> list[str]:
        return [row["id"] for row in ask(any_letta, "GET", path + asked).json()]

    assert ask(any_letta, "GET", f"{path}&summary_search=o-1").json() == [marked]
    assert ids("&summary_search=tea") == ids("&limit=0") == []
    assert ids("") == ids("&summary_search=") == [plain["id"], marked["id"]]
    assert ids("&order=asc&limit=1") == [marked["id"]]
    assert ids(f"&order=asc&after={marked['id']}") == [plain["id"]]
    assert ids(f"&after={marked['id']}") == []
    everybodys = ask(any_letta, "GET", "/v1/conversations/?summary_search=o-1").json()
    assert len(everybodys) == 2
    for unknown in ("nobody", f"agent-{UNKNOWN}"):
        assert ask(any_letta, "GET", f"/v1/conversations/?agent_id={unknown}").json() == []
    for _ in range(50):
        ask(any_letta, "POST", path, {})
    assert len(ids("")) == 50


def test_what_it_refuses(any_letta: Letta) -> None:
    """Status and reason of what can't be: unknown, malformed, beyond a limit."""
    agent_id = any_letta.agent()
    send = {"messages": [{"role": "user", "content": "Hi"}]}
    gone = f"/v1/agents/agent-{UNKNOWN}"
    cases: list[tuple[str, str, object, int, str]] = [
        ("GET", "/v1/health", None, 307, ""),
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("GET", gone, None, 404, f"Agent with ID agent-{UNKNOWN} not found"),
        ("GET", "/v1/agents/nobody", None, 422, "[{'type': 'string_pattern_mismatch'"),
        ("DELETE", gone, None, 404, f"Agent not found with id='['agent-{UNKNOWN}']', access"),
        ("GET", f"{gone}/messages", None, 404, "Agent not found"),
        ("GET", f"/v1/agents/{agent_id}/messages?order=odd", None, 422, "[{'type': 'literal_er"),
        ("POST", f"{gone}/messages/async", send, 404, "Agent not found"),
        ("POST", "/v1/agents/nobody/messages/async", send, 422, "[{'type': 'string_pattern"),
        ("POST", f"/v1/agents/{agent_id}/messages/async", {}, 422, "[{'type': 'value_error'"),
        (
            *("POST", f"/v1/agents/{agent_id}/messages/async"),
            *({"messages": [{"role": "nobody", "content": "Hi"}]}, 422, "[{'type': 'literal_er"),
        ),
        ("GET", f"/v1/runs/run-{UNKNOWN}", None, 404, f"Run not found with id='['run-{UNKNOWN}']'"),
        ("GET", "/v1/runs/odd", None, 400, "INVALID_ARGUMENT: Invalid run ID format: odd. Exp"),
        ("GET", "/v1/runs/?limit=0", None, 422, "[{'type': 'greater_than_equal'"),
        ("GET", "/v1/runs/?limit=1001", None, 422, "[{'type': 'less_than_equal'"),
        ("GET", "/v1/runs/?limit=x", None, 422, "[{'type': 'int_parsing'"),
        ("GET", "/v1/runs/?statuses=odd", None, 400, "'odd' is not a valid RunStatus"),
        ("POST", f"/v1/conversations/?agent_id=agent-{UNKNOWN}", {}, 404, "Agent not found"),
        ("POST", "/v1/conversations/?agent_id=nobody", {}, 404, "Agent not found"),
        ("POST", "/v1/conversations/", {}, 422, "[{'type': 'missing'"),
        (
            *("POST", f"/v1/conversations/?agent_id={agent_id}", {"summary": 5}, 422),
            "[{'type': 'string_type'",
        ),
        ("GET", "/v1/conversations/?limit=x", None, 422, "[{'type': 'int_parsing'"),
        ("GET", "/v1/conversations/?order=odd", None, 422, "[{'type': 'literal_error'"),
        (
            *("GET", f"/v1/conversations/?after=conv-{UNKNOWN}", None, 404),
            f"Conversation not found with id='['conv-{UNKNOWN}']', access",
        ),
        (
            *("GET", f"/v1/conversations/conv-{UNKNOWN}", None, 404),
            f"Conversation not found with id='['conv-{UNKNOWN}']', access",
        ),
        ("GET", "/v1/conversations/odd", None, 422, "[{'type': 'string_too_short'"),
        ("GET", "/v1/conversations/odd/messages", None, 422, "[{'type': 'string_pattern_mism"),
    ]
    for method, path, body, status, detail in cases:
        answer = ask(any_letta, method, path, body)
        assert answer.status_code == status, (method, path, answer.text)
        if detail:
            assert answer.json()["detail"].startswith(detail), (method, path)
    answer = ask(any_letta, "GET", f"/v1/conversations/conv-{UNKNOWN}/messages")
    assert (answer.status_code, answer.json()) == (200, [])


def test_messages_that_are_none_empty_or_several(any_letta: Letta) -> None:
    """No message, and one without text, are taken, and their run fails without a trace; of several
    the agent remembers all and answers the last."""
    agent_id = any_letta.agent()
    where = f"/v1/agents/{agent_id}/messages"
    for messages, error in (
        ([], "list index out of range"),
        ([{"role": "user", "content": ""}], "Message content is empty or invalid"),
    ):
        run = turn(any_letta, agent_id, messages)
        assert (run["status"], run["metadata"]["error"]) == ("failed", error)
        assert kinds(any_letta, where) == []
    two = [{"role": "user", "content": text, "otid": text} for text in ("one", "two")]
    assert turn(any_letta, agent_id, two)["status"] == "completed"
    assert kinds(any_letta, where) == ["user_message", "user_message", "assistant_message"]
    rows = ask(any_letta, "GET", where).json()[1:]
    assert [row["content"] for row in rows] == ["one", "two", "You said: two"]
    assert [row["otid"] for row in rows[:2]] == ["one", "two"]
    parts = [{"type": "text", "text": text} for text in ("th", "ree")]
    turn(any_letta, agent_id, [{"role": "user", "content": parts}])
    said, answer = ask(any_letta, "GET", where).json()[-2:]
    assert said["content"] == [{**part, "signature": None} for part in parts]
    assert answer["content"] == "You said: three"


@pytest.mark.parametrize("talking", [False, True])
def test_what_a_turn_that_fails_leaves(any_letta: Letta, talking: bool) -> None:
    """Before its first step, nothing; later, the prompt and that step: a call of a tool and what
    came of it. In a conversation the stream tells the error; and a later failure isn't one: its run
    has completed, and only why it stopped is told."""
    agent_id = any_letta.agent()
    talk = any_letta.conversation(agent_id) if talking else None
    where = f"/v1/agents/{agent_id}/messages{f'?conversation_id={talk}' if talk else ''}"
    step = ["tool_call_message", "tool_return_message"]
    error_told = ["stop_reason", "event: error", "error_message"]
    for after, left, expected in (
        (False, [], ["ping", *error_told, "[DONE]"]),
        (True, ["user_message", *step], ["ping", *step, *error_told]),
    ):
        any_letta.fail(agent_id, after_a_step=after)
        if talk is None:
            run = turn(any_letta, agent_id, [{"role": "user", "content": "Hi"}])
            assert (run["status"], run["stop_reason"]) == ("failed", "error")
            assert run["metadata"]["error"].startswith("INTERNAL_SERVER_ERROR: ")
        else:
            events = stream(any_letta, talk, include_pings=True)
            assert [e if isinstance(e, str) else e["message_type"] for e in events] == expected
            (run,) = ask(any_letta, "GET", f"/v1/runs/?agent_id={agent_id}&limit=1").json()
            assert run["status"] == ("completed" if after else "failed")
            assert run["stop_reason"] == "llm_api_error"
            assert ("error" in run["metadata"]) is not after
        assert kinds(any_letta, where) == left


def test_a_turn_in_a_conversation(any_letta: Letta) -> None:
    """Its events in order; the conversation has a beginning of its own, which is among the agent's
    messages too, and a context of its own, of which the agent's knows nothing."""
    agent_id = any_letta.agent()
    talk = any_letta.conversation(agent_id)
    events = stream(any_letta, talk, include_pings=True)
    assert [e if isinstance(e, str) else e["message_type"] for e in events] == [
        *("ping", "assistant_message", "stop_reason", "usage_statistics", "[DONE]")
    ]
    turned = ["user_message", "assistant_message"]
    assert kinds(any_letta, f"/v1/agents/{agent_id}/messages?conversation_id={talk}") == turned
    assert kinds(any_letta, f"/v1/agents/{agent_id}/messages") == ["system_message", *turned]
    rows = ask(any_letta, "GET", f"/v1/conversations/{talk}/messages").json()
    assert [row["message_type"] for row in rows] == [*reversed(turned), "system_message"]
    shown = ask(any_letta, "GET", f"/v1/conversations/{talk}").json()
    assert shown["in_context_message_ids"] == [row["id"] for row in reversed(rows)]
    assert len(ask(any_letta, "GET", f"/v1/agents/{agent_id}").json()["message_ids"]) == 1


def test_a_turn_in_the_background_wants_redis(any_letta: Letta) -> None:
    """It is refused, and its run is there all the same, failed."""
    agent_id = any_letta.agent()
    path = f"/v1/conversations/{any_letta.conversation(agent_id)}/messages"
    body = {"messages": [{"role": "user", "content": "Hi"}], "streaming": True, "background": True}
    answer = ask(any_letta, "POST", path, body)
    reason = "INTERNAL_SERVER_ERROR: Background streaming requires Redis"
    assert (answer.status_code, answer.json()["detail"][: len(reason)]) == (503, reason)
    (run,) = ask(any_letta, "GET", f"/v1/runs/?agent_id={agent_id}").json()
    assert (run["status"], run["background"], run["stop_reason"]) == ("failed", True, None)
    assert run["metadata"]["error"].startswith(reason)
    assert any_letta.history(agent_id) == []


def test_of_two_turns_at_once_one_is_forgotten(any_letta: Letta) -> None:
    """Both are in the history, but only one of them in what the agent has in mind afterwards."""
    agent_id = any_letta.agent()
    any_letta.hold()
    path = f"/v1/agents/{agent_id}/messages/async"
    for text in ("one", "two"):
        ask(any_letta, "POST", path, {"messages": [{"role": "user", "content": text}]})
    any_letta.finish()
    wait_for(lambda: not any_letta.active_runs(agent_id), timeout=60)
    rows = any_letta.history(agent_id)
    assert sorted(row["content"] for row in rows) == ["one", "two"]
    context = ask(any_letta, "GET", f"/v1/agents/{agent_id}").json()["message_ids"]
    assert len({row["id"] for row in rows} & set(context)) == 1


def test_a_deleted_agent_leaves_nothing(any_letta: Letta) -> None:
    """Its runs, one under way too, its conversations and its history go with it."""
    agent_id = any_letta.agent()
    talk = any_letta.conversation(agent_id)
    any_letta.hold()
    send = {"messages": [{"role": "user", "content": "Hi"}]}
    run_id = ask(any_letta, "POST", f"/v1/agents/{agent_id}/messages/async", send).json()["id"]
    answer = ask(any_letta, "DELETE", f"/v1/agents/{agent_id}")
    assert answer.json() == {"message": f"Agent id={agent_id} successfully deleted"}
    any_letta.finish()
    for path in (f"/v1/agents/{agent_id}", f"/v1/runs/{run_id}", f"/v1/conversations/{talk}"):
        assert ask(any_letta, "GET", path).status_code == 404
    assert ask(any_letta, "GET", f"/v1/conversations/{talk}/messages").json() == []
    assert any_letta.active_runs(agent_id) == []


def test_the_messages_of_a_run(any_letta: Letta) -> None:
    """Its own alone, as the agent's history has them; with ``order=desc`` the newest first, of
    which ``before`` has the older ones. There are none before its first step is over."""
    agent_id = any_letta.agent()
    any_letta.calls(agent_id, "look_around")
    run = turn(any_letta, agent_id, [{"role": "user", "content": "Hi", "otid": "o-1"}])
    turn(any_letta, agent_id, [{"role": "user", "content": "Bye", "otid": "o-2"}])
    path = f"/v1/runs/{run['id']}/messages"

    def rows(asked: str = "") -> list[dict[str, Any]]:
        answer = ask(any_letta, "GET", path + asked)
        assert answer.status_code == 200, answer.text
        return list(answer.json())

    oldest_first = rows()
    _, *history = ask(any_letta, "GET", f"/v1/agents/{agent_id}/messages?order=asc").json()
    assert oldest_first == rows("?order=asc") == history[:4]
    assert [row["message_type"].removesuffix("_message") for row in oldest_first] == [
        *("user", "tool_call", "tool_return", "assistant"),
    ]
    assert {row["run_id"] for row in oldest_first} == {run["id"]}
    assert rows("?order=desc") == oldest_first[::-1]
    assert rows("?order=desc&limit=1") == oldest_first[3:]
    assert rows(f"?order=desc&before={oldest_first[2]['id']}") == oldest_first[1::-1]
    assert rows(f"?order=desc&before={oldest_first[0]['id']}") == []
    any_letta.hold()
    send = {"messages": [{"role": "user", "content": "Hi"}]}
    held = ask(any_letta, "POST", f"/v1/agents/{agent_id}/messages/async", send).json()["id"]
    assert ask(any_letta, "GET", f"/v1/runs/{held}/messages").json() == []
    any_letta.finish()
    unknown = ask(any_letta, "GET", f"/v1/runs/run-{UNKNOWN}/messages")
    assert unknown.status_code == 404
    assert "Run not found" in unknown.text
    assert ask(any_letta, "GET", "/v1/runs/nobody/messages").status_code == 400
    lost = ask(any_letta, "GET", f"{path}?before=message-{UNKNOWN}")
    assert lost.status_code == 404
    assert "No message found" in lost.text


def test_a_deleted_conversation_leaves_its_runs(any_letta: Letta) -> None:
    """Without their messages."""
    agent_id = any_letta.agent()
    talk = any_letta.conversation(agent_id)
    stream(any_letta, talk)
    (run,) = ask(any_letta, "GET", f"/v1/runs/?agent_id={agent_id}").json()
    path = f"/v1/runs/{run['id']}"
    assert len(ask(any_letta, "GET", f"{path}/messages").json()) == 2
    assert ask(any_letta, "DELETE", f"/v1/conversations/{talk}").json() is None
    assert ask(any_letta, "GET", f"/v1/conversations/{talk}").status_code == 404
    assert ask(any_letta, "GET", path).status_code == 200
    assert ask(any_letta, "GET", f"{path}/messages").json() == []


def test_a_turn_that_stops_for_an_approval(any_letta: Letta) -> None:
    """The run is over, and others fail, until somebody says yes or no to that call. That begins a
    run of its own. The messages have the same form."""
    agent_id = any_letta.agent()
    any_letta.asks(agent_id)
    first = turn(any_letta, agent_id, [{"role": "user", "content": "Wave.", "otid": "o-1"}])
    assert (first["status"], first["stop_reason"]) == ("completed", "requires_approval")
    path = f"/v1/agents/{agent_id}/messages?order=asc&after="
    _, _, request = ask(any_letta, "GET", f"/v1/agents/{agent_id}/messages?order=asc").json()
    assert request["message_type"] == "approval_request_message"
    assert (request["run_id"], request["tool_calls"]) == (first["id"], [request["tool_call"]])
    assert ask(any_letta, "GET", path + request["id"]).json() == []
    call_id = request["tool_call"]["tool_call_id"]
    assert (
        ask(any_letta, "GET", f"/v1/agents/{agent_id}").json()["message_ids"][-1] == request["id"]
    )

    def say(called: str) -> dict[str, Any]:
        said = {"type": "approval", "tool_call_id": called, "approve": False, "reason": "No."}
        return turn(any_letta, agent_id, [{"type": "approval", "approvals": [said]}])

    refused = turn(any_letta, agent_id, [{"role": "user", "content": "Hi", "otid": "o-2"}])
    assert "waiting for approval" in refused["metadata"]["error"]
    assert "Invalid tool call IDs" in say("another")["metadata"]["error"]
    second = say(call_id)
    assert (second["status"], second["stop_reason"]) == ("completed", "end_turn")
    assert "No tool call is currently awaiting" in say("another")["metadata"]["error"]
    response, returned, answer = ask(any_letta, "GET", path + request["id"]).json()
    assert {row["run_id"] for row in (response, returned, answer)} == {second["id"]}
    assert response["message_type"] == "approval_response_message"
    assert (response["otid"], response["step_id"], response["approve"]) == (None, None, False)
    (approval,) = response["approvals"]
    assert approval == {"type": "approval", "tool_call_id": call_id} | {
        name: response[name] for name in ("approve", "reason")
    }
    assert (returned["message_type"], returned["status"]) == ("tool_return_message", "error")
    assert "denied. User reason: No." in returned["tool_return"]
    assert answer["message_type"] == "assistant_message"
    for row, more in ((request, "tool_call tool_calls"), (response, "approvals approve reason")):
        assert set(MESSAGE) - {"content"} | set(more.split()) <= set(row)
