"""How Letta Code behaves: what promptyoself relies on when it delivers to an App Server, said to a
real one with nothing of ours in between. `make test-letta-code` runs this with two versions."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from letta_code.model import HANDLE
from letta_code.server import LettaCode
from letta_code.wire import Frame, Wire
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

Servers = Callable[..., LettaCode]

REFUSED = "Input was rejected by the queue or durable ledger"


@pytest.fixture
def wire(letta_code: LettaCode) -> Iterator[Wire]:
    """A connection to the server."""
    with letta_code.connect() as connection:
        yield connection


@pytest.fixture
def runtime(letta_code: LettaCode, wire: Wire) -> Frame:
    """A conversation with an agent of its own, to which that connection is subscribed."""
    return wire.conversation(wire.agent())


def fresh() -> str:
    """An otid that was never used."""
    return str(uuid.uuid4())


def loops(frames: list[Frame]) -> list[Frame]:
    """What is said of the loop, in order."""
    return [frame["loop_status"] for frame in frames if frame["type"] == "update_loop_status"]


def texts(message: Frame) -> list[str]:
    """The parts of a message."""
    return [part["text"] for part in message["content"]]


def working(wire: Wire, runtime: Frame) -> Frame:
    """Wait until the model has begun to answer in this conversation; returns that frame."""

    def fits(frame: Frame) -> bool:
        return frame["type"] == "stream_delta" and frame["runtime"] == runtime

    return wire.until(fits)


# One turn.


def test_a_turn(letta_code: LettaCode, wire: Wire, runtime: Frame) -> None:
    """Input with nothing but an otid is accepted when nobody else speaks. Its run is told while it
    works, by which alone the end of the turn can be known to be its own: no frame has the otid. The
    message is in the history once, with that otid, behind what Letta Code adds of its own."""
    sent, before = fresh(), len(wire.frames)
    answer = wire.say(runtime, "Stretch.", sent)
    assert (answer["type"], answer["accepted"], answer["disposition"]) == (
        *("input_accepted", True, "started"),
    )
    end = wire.turn_end(runtime)
    frames = wire.frames[before:]
    assert (end["stop_reason"], "error" in end) == ("end_turn", False)
    runs = {run for loop in loops(frames) for run in loop["active_run_ids"]}
    assert runs == {end["run_id"]}
    assert [loop["status"] for loop in loops(frames)][-1] == "WAITING_ON_INPUT"
    assert not any("client_message_ids_by_run_id" in loop for loop in loops(frames))
    assert sent not in str(frames)
    user, assistant = wire.history(runtime)
    assert (user["message_type"], user["otid"]) == ("user_message", sent)
    assert texts(user)[-1] == "Stretch."
    assert all(part.startswith("<system-reminder>") for part in texts(user)[:-1])
    assert (assistant["message_type"], texts(assistant)) == ("assistant_message", ["ok, done"])
    assert letta_code.copies(sent) == 1


def test_a_turn_of_several_steps(wire: Wire, runtime: Frame) -> None:
    """Each step is a run; the end of the turn names the last one. The agent's tools know who and
    where it is."""
    before = len(wire.frames)
    command = '{"command":"echo $AGENT_ID $CONVERSATION_ID","description":"who"}'
    end = wire.turn(runtime, f"Say it. [[tool:Bash {command}]]", fresh())
    runs = [run for loop in loops(wire.frames[before:]) for run in loop["active_run_ids"]]
    first, last = dict.fromkeys(runs)
    assert end["run_id"] == last != first
    said = texts(wire.history(runtime)[-1])[0]
    assert f"{runtime['agent_id']} {runtime['conversation_id']}" in said


def test_several_conversations_at_once(wire: Wire) -> None:
    """An agent has turns in two conversations at the same time."""
    agent = wire.agent()
    both = [wire.conversation(agent) for _ in range(2)]
    for runtime in both:
        assert wire.say(runtime, "Take your time. [[drip:0.5]]", fresh())["accepted"]
        working(wire, runtime)
    assert not [frame for frame in wire.frames if frame["type"] == "turn_finished"]
    for runtime in both:
        assert wire.turn_end(runtime, after=0)["stop_reason"] == "end_turn"


# Input that isn't taken, or comes to nothing.


def test_input_while_it_is_busy(letta_code: LettaCode, wire: Wire, runtime: Frame) -> None:
    """With nothing but an otid, input isn't queued behind another turn: it is refused at once, and
    isn't in the history, then or later."""
    first, second = fresh(), fresh()
    wire.say(runtime, "Take your time. [[drip:0.4]]", first)
    answer = wire.say(runtime, "And this.", second)
    assert (answer["accepted"], answer["error"]) == (False, REFUSED)
    wire.turn_end(runtime)
    wire.turn(runtime, "The next.", fresh())
    assert second not in wire.otids(runtime)
    assert (letta_code.copies(first), letta_code.copies(second)) == (1, 0)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_the_model_fails(letta_code: LettaCode, wire: Wire, runtime: Frame, status: int) -> None:
    """The turn ends with an error, and the message is in the history all the same."""
    sent = fresh()
    end = wire.turn(runtime, f"Fail. [[err:{status}]]", sent)
    assert (end["stop_reason"], "a failure on demand" in end["error"]) == ("error", True)
    assert end["run_id"]
    assert wire.otids(runtime) == [sent]
    assert letta_code.copies(sent) == 1


@pytest.mark.parametrize("flaw", ["503", "drop", "empty"])
def test_the_model_fails_at_first(
    letta_code: LettaCode, wire: Wire, runtime: Frame, flaw: str
) -> None:
    """Letta Code asks the model again by itself, where it does, without a second copy."""
    sent = fresh()
    end = wire.turn(runtime, f"Try. [[flaky:{flaw}:{sent[:8]}]]", sent)
    assert (end["stop_reason"], end.get("error")) == ("end_turn", None)
    assert letta_code.copies(sent) == 1


def test_nobody_is_there(wire: Wire, runtime: Frame) -> None:
    """Input to a conversation or an agent that doesn't exist is accepted. Its turn ends at once,
    without a run. `sync` says that nothing is wrong; what reads says what is."""
    agent = runtime["agent_id"]
    for nobody, what in (
        ({"agent_id": agent, "conversation_id": "local-conv-9999"}, "Conversation local-conv-9999"),
        ({"agent_id": "agent-local-none", "conversation_id": "default"}, "Agent agent-local-none"),
    ):
        end = wire.turn(nobody, "Hello?", fresh())
        assert (end["stop_reason"], end["error"]) == ("error", f"{what} not found")
        assert "run_id" not in end
        assert loops(wire.sync(nobody))[-1]["status"] == "WAITING_ON_INPUT"
    gone = wire.ask("conversation_retrieve", conversation_id="local-conv-9999")
    assert (gone["success"], gone["error"]) == (False, "Conversation local-conv-9999 not found")
    gone = wire.ask("agent_retrieve", agent_id="agent-local-none")
    assert (gone["success"], gone["error"]) == (False, "Agent agent-local-none not found")
    query = {"agent_id": agent}
    gone = wire.ask("conversation_messages_list", conversation_id="local-conv-9999", query=query)
    assert (gone["success"], gone["error"]) == (False, "Conversation local-conv-9999 not found")


# Ends of the server, and of connections.


def test_the_server_is_killed_in_a_turn(new_letta_code: Servers) -> None:
    """The message stays in the history once. Nothing is queued or replayed, whoever comes next; the
    turn is lost, and the next input is taken. Runs are counted from the beginning again."""
    server, sent, refused, later = new_letta_code(), fresh(), fresh(), fresh()
    with server.connect() as wire:
        runtime = wire.conversation(wire.agent())
        end = wire.turn(runtime, "Begin.", fresh())
        wire.say(runtime, "Take your time. [[drip:30]]", sent)
        working(wire, runtime)
        assert not wire.say(runtime, "And this.", refused)["accepted"]
        server.kill()
    server.start()
    with server.connect() as wire:
        conversation = {**runtime, "recover_approvals": False, "preserve_skill_sources": True}
        assert wire.ask("runtime_start", **conversation)["success"]
        wire.sync(runtime)
        frames = wire.read(0.5)
        assert all(loop["status"] == "WAITING_ON_INPUT" for loop in loops(frames))
        again = wire.turn(runtime, "Now.", later)
        assert (again["stop_reason"], again["run_id"]) == ("end_turn", end["run_id"])
        assert wire.otids(runtime)[-2:] == [sent, later]
    assert [server.copies(otid) for otid in (sent, refused, later)] == [1, 0, 1]


def test_the_last_one_leaves(new_letta_code: Servers) -> None:
    """When nobody is subscribed any more, the turn is cut off. A local conversation is then wedged:
    what is sent there is accepted, and its turn ends with an error; it is stored nowhere. Other
    conversations of the agent go on. A restart of the server mends it."""
    server, sent, lost, later = new_letta_code(), fresh(), fresh(), fresh()
    with server.connect() as wire:
        runtime = wire.conversation(wire.agent())
        wire.say(runtime, "Take your time. [[drip:0.5]]", sent)
        working(wire, runtime)
    with server.connect() as wire:
        assert loops(wire.sync(runtime))[-1]["status"] == "WAITING_ON_INPUT"
        # The end of the turn that was cut off comes late: to others, with its own run.
        late = wire.turn_end(runtime)
        assert (late["stop_reason"], bool(late["run_id"])) == ("cancelled", True)
        end = wire.turn(runtime, "And now?", lost)
        assert end["stop_reason"] == "error"
        assert end["error"].endswith(f"already has an active run ({late['run_id']})")
        assert "run_id" not in end
        assert wire.otids(runtime) == [sent]
        another = wire.conversation(runtime["agent_id"])
        assert wire.turn(another, "Hello.", fresh())["stop_reason"] == "end_turn"
    server.terminate()
    server.start()
    with server.connect() as wire:
        assert wire.turn(runtime, "And now?", later)["stop_reason"] == "end_turn"
    assert [server.copies(otid) for otid in (sent, lost, later)] == [1, 0, 1]


def test_somebody_stays(letta_code: LettaCode, wire: Wire) -> None:
    """A connection that has asked how the conversation is (`sync`) keeps the turn going when the
    connection that began it is closed."""
    sent = fresh()
    with letta_code.connect() as sender:
        runtime = sender.conversation(sender.agent())
        wire.sync(runtime)
        sender.say(runtime, "Take your time. [[drip:0.4]]", sent)
        working(sender, runtime)
    end = wire.turn_end(runtime, after=0)
    assert end["stop_reason"] == "end_turn"
    assert wire.turn(runtime, "And now?", fresh())["stop_reason"] == "end_turn"
    assert letta_code.copies(sent) == 1


def test_a_user_interrupts(letta_code: LettaCode, wire: Wire, runtime: Frame) -> None:
    """A turn that is aborted ends as cancelled, with its run, when the model stops. From then on
    the conversation is idle, and yet it refuses input with nothing but an otid. Input with a
    ``client_message_id`` is taken, and after that turn the conversation is as before."""
    sent, refused, taken, last = fresh(), fresh(), fresh(), fresh()
    wire.say(runtime, "Take your time. [[drip:0.4]]", sent)
    run = working(wire, runtime)["delta"]["run_id"]
    wire.ask("abort_message", runtime=runtime)
    end = wire.turn_end(runtime)
    assert (end["stop_reason"], end["run_id"]) == ("cancelled", run)
    assert loops(wire.sync(runtime))[-1]["status"] == "WAITING_ON_INPUT"
    assert wire.say(runtime, "Go on.", refused)["error"] == REFUSED
    before = len(wire.frames)
    assert wire.say(runtime, "Go on.", taken, client_message_id=taken)["accepted"]
    assert wire.turn_end(runtime, after=before)["stop_reason"] == "end_turn"
    whose = [loop.get("client_message_ids_by_run_id") for loop in loops(wire.frames[before:])]
    assert [taken] in [ids for loop in whose if loop for ids in loop.values()]
    # Not in the very moment: the queue is still being looked through.
    until = time.monotonic() + 60
    while not wire.say(runtime, "And this.", last)["accepted"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    wire.turn_end(runtime)
    assert [letta_code.copies(otid) for otid in (sent, refused, taken, last)] == [1, 0, 1, 1]


def test_an_approval_waits(letta_code: LettaCode) -> None:
    """Where tools want approvals, the turn waits for one. All connections that are subscribed are
    told. When they have gone, so has the request. The message is in the history."""
    sent = fresh()
    with letta_code.connect() as wire:
        runtime = wire.conversation(wire.agent(), mode="standard")
        command = '{"command":"touch it","description":"touch"}'
        wire.say(runtime, f"Touch. [[tool:Bash {command}]]", sent)
        wire.until(lambda frame: frame["type"] == "control_request")
        with letta_code.connect() as other:
            frames = other.sync(runtime)
            assert loops(frames)[-1]["status"] == "WAITING_ON_APPROVAL"
            (device,) = [frame for frame in frames if frame["type"] == "update_device_status"]
            status = device["device_status"]
            assert status["current_permission_mode"] == "standard"
            (request,) = status["pending_control_requests"]
            assert request["request"]["tool_name"] == "Bash"
            assert other.otids(runtime) == [sent]
            assert not other.say(runtime, "And this.", fresh())["accepted"]
    with letta_code.connect() as wire:
        frames = wire.sync(runtime)
        assert loops(frames)[-1]["status"] == "WAITING_ON_INPUT"
        (device,) = [frame for frame in frames if frame["type"] == "update_device_status"]
        assert device["device_status"]["pending_control_requests"] == []


# Looking.


def test_looking_changes_nothing(letta_code: LettaCode, wire: Wire, runtime: Frame) -> None:
    """`sync` and what lists leave the stored conversation as it is, byte for byte."""
    wire.turn(runtime, "Begin.", fresh())

    def files() -> dict[Path, bytes]:
        stored = letta_code.store.glob("conversations/*/*")
        return {path: path.read_bytes() for path in stored if path.is_file()}

    before = files()
    with letta_code.connect() as other:
        for _ in range(3):
            frames = other.sync(runtime)
            assert loops(frames)[-1]["status"] == "WAITING_ON_INPUT"
            assert [frame["queue"] for frame in frames if frame["type"] == "update_queue"][-1] == []
            other.history(runtime)
            other.ask("list_models")
        assert not [frame for frame in other.read(0.2) if frame["type"] == "turn_finished"]
    assert files() == before


def test_a_conversation_is_found_by_its_summary(wire: Wire) -> None:
    """Part of a summary finds a conversation, as soon as it is made. `default` isn't listed."""
    agent, mark = wire.agent(), fresh()
    runtime = wire.conversation(agent, summary=f"Stretching [{mark}]")
    wire.conversation(agent, summary=f"Another [{fresh()}]")
    wire.turn({"agent_id": agent, "conversation_id": "default"}, "Hello.", fresh())

    def listed(**query: str) -> list[str]:
        asked = {"agent_id": agent, "limit": 50, **query}
        answer = wire.ask("conversation_list", query=asked)
        assert answer["success"], answer
        return [row["id"] for row in answer["conversations"]]

    assert listed(summary_search=mark) == [runtime["conversation_id"]]
    assert listed(summary_search=fresh()) == []
    assert len(listed()) == 2


def test_the_history_comes_in_pages(wire: Wire, runtime: Frame) -> None:
    """The newest come first, if one wants; before a message come those that are older."""
    sent = [fresh() for _ in range(3)]
    for new in sent:
        wire.turn(runtime, "Hello.", new)
    query = {"agent_id": runtime["agent_id"], "order": "desc", "limit": 2}
    conversation = runtime["conversation_id"]
    pages = []
    while True:
        answer = wire.ask("conversation_messages_list", conversation_id=conversation, query=query)
        pages.append([row["otid"] for row in answer["messages"] if "otid" in row])
        if not answer["has_more"]:
            break
        query["before"] = answer["next_before"]
    assert [otid for page in pages for otid in page] == sent[::-1]
    assert len(pages) > 1


def test_a_compaction(letta_code: LettaCode, wire: Wire, runtime: Frame) -> None:
    """What was compacted is no longer in the list of messages, which begins with a summary and its
    time. A search by the program of Letta Code still finds it, with its otid."""
    sent = [fresh() for _ in range(4)]
    for new in sent:
        wire.turn(runtime, f"The word is {new[:8]}.", new)
    body = {"agent_id": runtime["agent_id"]}
    conversation = runtime["conversation_id"]
    answer = wire.ask("conversation_compact", conversation_id=conversation, body=body)
    assert answer["success"], answer
    summary = wire.history(runtime)[0]
    assert summary["message_type"] == "summary_message"
    assert summary["date"] > wire.history(runtime)[-1]["date"]
    assert sent[0] not in wire.otids(runtime)
    where = ("--agent", runtime["agent_id"], "--conversation", conversation)
    shown = letta_code.command("messages", "search", "--query", sent[0][:8], *where)
    assert sent[0] in shown
    assert letta_code.copies(sent[0]) == 1


# What is told of models, agents and the server.


def test_models_and_agents(wire: Wire, runtime: Frame) -> None:
    """Models are listed with their handles, and agents with ids, names and models."""
    models = wire.ask("list_models")
    assert [entry["handle"] for entry in models["entries"]] == [HANDLE]
    agents = wire.ask("agent_list", query={"limit": 1000})["agents"]
    (agent,) = [row for row in agents if row["id"] == runtime["agent_id"]]
    assert agent["id"].startswith("agent-local-")
    assert (agent["model"], agent["name"][:5]) == (HANDLE, "test-")
    retrieved = wire.ask("agent_retrieve", agent_id=agent["id"])
    assert (retrieved["success"], retrieved["agent"]["name"]) == (True, agent["name"])


def test_what_another_process_makes(new_letta_code: Servers) -> None:
    """A conversation that another process on the same store begins with an agent is there at once.
    An agent that another process makes is unknown until the server is started again."""
    server = new_letta_code()
    making = ("--new-agent", "--model", HANDLE, "--personality", "blank", "--no-skills")
    making = (*making, "--prompt", "Hello.", "--output-format", "json")
    made = json.loads(server.command(*making))
    runtime = {key: made[key] for key in ("agent_id", "conversation_id")}
    unknown = f"Agent {runtime['agent_id']} not found"
    with server.connect() as wire:
        assert wire.ask("agent_list", query={"limit": 1000})["agents"] == []
        assert wire.ask("agent_retrieve", agent_id=runtime["agent_id"])["error"] == unknown
        assert wire.turn(runtime, "And now?", fresh())["error"] == unknown
    server.terminate()
    server.start()
    with server.connect() as wire:
        assert wire.turn(runtime, "And now?", fresh())["stop_reason"] == "end_turn"
        asking = ("--agent", runtime["agent_id"], "--new", "--no-skills", *making[-4:])
        begun = json.loads(server.command(*asking))["conversation_id"]
        assert begun != runtime["conversation_id"]
        assert wire.turn({**runtime, "conversation_id": begun}, "Go on.", fresh())["run_id"]


def test_what_the_server_is(letta_code: LettaCode, wire: Wire) -> None:
    """Its version and the protocol's are told, over HTTP and on the WebSocket."""
    info = letta_code.info()
    assert (info["backend"], info["protocol_version"]) == ("local", 1)
    asked = wire.ask("app_server_info")
    assert asked["letta_code_version"] == info["letta_code_version"] == letta_code.version


def test_tools_are_allowed(wire: Wire, runtime: Frame) -> None:
    """Unless somebody wants otherwise, tools run without an approval."""
    (*_, device) = [
        frame for frame in wire.sync(runtime) if frame["type"] == "update_device_status"
    ]
    assert device["device_status"]["current_permission_mode"] == "unrestricted"
    assert device["device_status"]["pending_control_requests"] == []


def test_who_is_let_in(new_letta_code: Servers, letta_code: LettaCode, tmp_path: Path) -> None:
    """A server with a token wants it, on loopback too; whether it is ready, it tells everybody. A
    request with an `Origin` is refused by any server, and there is no other path."""
    token = uuid.uuid4().hex + uuid.uuid4().hex
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    server = new_letta_code("--ws-auth", "capability-token", "--ws-token-file", str(file))
    assert server.ready
    for wrong in (None, "another"):
        with pytest.raises(InvalidStatus) as refused:
            server.connect(wrong)
        assert refused.value.response.status_code == 401
    with server.connect(token) as wire:
        assert wire.ask("list_models")["success"]
    for url, origin, status in (
        (letta_code.url, "http://127.0.0.1", 403),
        (f"{letta_code.address}/other", None, 404),
    ):
        with pytest.raises(InvalidStatus) as refused, connect(url, origin=origin, proxy=None):
            pass
        assert refused.value.response.status_code == status


def test_what_it_does_not_understand(wire: Wire, runtime: Frame) -> None:
    """Frames of an unknown type, and what is no frame, get no answer; the connection goes on."""
    wire.sync(runtime)
    wire.read(0.2)
    wire.send({"type": "nonsense", "request_id": "of no use"})
    wire.send({})
    assert wire.read(0.3) == []
    assert wire.ask("list_models")["success"]
