"""The stand-in Letta by itself: what it keeps, how it fails, and that nothing brings it down."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from letta_client import Letta

from promptyoself.core.errors import PromptyoselfError
from promptyoself.sandbox import FAULTS, Sandbox, serve_forever

SLOW = 60.0  # a latency that no test waits for: `finish_runs` ends the runs


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(("echo", "other"), latency=SLOW) as sandbox:
        yield sandbox


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, trust_env=False, timeout=60) as client:
        yield client


def post(http: httpx.Client, agent_id: str, text: str = "hi", otid: str = "o") -> httpx.Response:
    row = {"role": "user", "content": text, "otid": otid}
    return http.post(f"/v1/agents/{agent_id}/messages/async", json={"messages": [row]})


def address(sandbox: Sandbox) -> tuple[str, int]:
    host, port = sandbox.url.removeprefix("http://").split(":")
    return host, int(port)


# --- agents, messages, runs -----------------------------------------------------------------------


def test_ids_depend_on_names_and_seed_only() -> None:
    """The same names and seed give the same ids, of Letta's form; others give others."""
    ids = Sandbox(("a", "b", "a")).agents
    assert Sandbox(("a", "b", "a")).agents == ids
    assert len(set(ids)) == 3
    assert set(ids).isdisjoint(Sandbox(("a", "b"), seed=1).agents)
    form = r"agent-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(form, i) for i in ids)
    assert Sandbox((ids[0],)).agents == [ids[0]]


def test_runs_end_by_themselves() -> None:
    """A run is over after the latency, without anybody's help."""
    with Sandbox(latency=0.05) as sandbox, httpx.Client(base_url=sandbox.url) as http:
        post(http, sandbox.agents[0])
        assert sandbox.messages(sandbox.agents[0]) == []
        time.sleep(0.06)
        assert len(sandbox.messages(sandbox.agents[0])) == 1


def test_the_same_otid_twice_is_there_twice(sandbox: Sandbox, http: httpx.Client) -> None:
    """Nothing is deduplicated, so a double delivery shows."""
    for _ in range(2):
        post(http, sandbox.agents[0], otid="o")
        sandbox.finish_runs()
    assert sandbox.deliveries == {(sandbox.agents[0], "o"): 2}
    assert sandbox.overlaps == 0


def test_two_sends_at_once_overlap_and_lose_context(sandbox: Sandbox, http: httpx.Client) -> None:
    """A send to an agent at work is counted, and one of the two falls out of its context."""
    agent_id = sandbox.agents[0]
    post(http, agent_id, otid="o-1")
    post(http, sandbox.agents[1], otid="o-2")
    assert sandbox.overlaps == 0
    post(http, agent_id, otid="o-3")
    assert sandbox.overlaps == 1
    sandbox.finish_runs()
    assert [m.otid for m in sandbox.messages(agent_id)] == ["o-1", "o-3"]
    kept = [m["in_context"] for m in sandbox.state()["agents"][0]["messages"]]
    assert kept == [False, True]
    assert len(http.get(f"/v1/agents/{agent_id}").json()["message_ids"]) == 3


def test_dates_are_of_the_send_by_the_clock_that_was_given() -> None:
    """A test may set the time that messages and runs bear, which is that of the send."""
    now = sent_at = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
    with Sandbox(latency=SLOW, clock=lambda: now) as sandbox, httpx.Client() as http:
        http.base_url = httpx.URL(sandbox.url)
        agent_id = sandbox.agents[0]
        assert post(http, agent_id).json()["created_at"] == "2031-01-02T03:04:05.000000Z"
        now += timedelta(hours=1)
        sandbox.finish_runs()
        assert sandbox.messages(agent_id)[0].date == sent_at
        row = http.get(f"/v1/agents/{agent_id}/messages").json()[1]
        assert row["date"] == "2031-01-02T03:04:05+00:00"


def test_the_sdk_reads_what_it_says(sandbox: Sandbox) -> None:
    """The SDK's own models take the answers, agents and conversations made through it included."""
    client = Letta(base_url=sandbox.url, api_key="any", max_retries=0)
    agent = client.agents.create(name="made")
    assert agent.id in sandbox.agents
    assert client.health().status == "ok"
    conversation = client.conversations.create(agent_id=agent.id, summary="Talk")
    listed = client.conversations.list(agent_id=agent.id, summary_search="al")
    assert [(row.id, row.summary) for row in listed] == [(conversation.id, "Talk")]
    events = client.conversations.messages.create(
        conversation.id, messages=[{"role": "user", "content": "x"}]
    )
    first = next(iter(events))
    sandbox.finish_runs()
    assert client.runs.retrieve(str(first.run_id)).conversation_id == conversation.id
    assert [m.message_type for m in client.agents.messages.list(agent.id)][-1] == (
        "assistant_message"
    )
    client.close()


def test_pages_are_as_odd_as_letta_s(sandbox: Sandbox, http: httpx.Client) -> None:
    """Messages: the newest, told oldest first, older ones by ``before``; runs: newest first."""
    agent_id = sandbox.agents[0]
    runs = []
    for n in range(4):
        runs.append(post(http, agent_id, str(n)).json()["id"])
        sandbox.finish_runs()
    path = f"/v1/agents/{agent_id}/messages"
    page = http.get(path, params={"limit": 3, "order": "desc"}).json()
    assert [r["content"] for r in page] == ["You said: 2", "3", "You said: 3"]
    older = http.get(path, params={"limit": 2, "order": "desc", "before": page[0]["id"]}).json()
    assert [r["content"] for r in older] == ["You said: 1", "2"]
    last = page[-1]["id"]
    assert http.get(path, params={"limit": 2, "order": "desc", "after": last}).json() == []
    first = http.get(path, params={"limit": 2, "order": "asc"}).json()
    assert [r["content"] for r in first] == ["You echo.", "0"]
    assert http.get(path, params={"before": "message-x"}).status_code == 404

    def listed(**params: object) -> list[str]:
        return [r["id"] for r in http.get("/v1/runs/", params=params).json()]

    assert listed(agent_id=agent_id) == runs[::-1]
    assert listed(limit=2) == [runs[3], runs[2]]
    assert listed(limit=2, before=runs[2]) == [runs[1], runs[0]]
    assert listed(limit=1, order="asc", after=runs[1]) == [runs[2]]
    assert listed(active=True) == []
    assert listed(agent_id=sandbox.agents[1]) == []
    assert http.get("/v1/runs/", params={"limit": 1001}).status_code == 422


def test_runs_are_listed_by_how_they_stand(sandbox: Sandbox, http: httpx.Client) -> None:
    """Those of all agents, newest first: the active ones, or those of some statuses, which prevail;
    as each is by itself."""
    ended = [post(http, agent_id).json()["id"] for agent_id in sandbox.agents]
    sandbox.fault("run_fails_before")
    failed = post(http, sandbox.agents[0]).json()["id"]
    sandbox.finish_runs()
    conversation_id = sandbox.create_conversation(sandbox.agents[1])
    row = {"role": "user", "content": "x", "otid": "o"}
    path = f"/v1/conversations/{conversation_id}/messages"
    with http.stream("POST", path, json={"messages": [row], "streaming": True}) as answer:
        next(answer.iter_lines())
        active = [post(http, agent_id).json()["id"] for agent_id in sandbox.agents]
        listed = http.get("/v1/runs/", params={"active": True}).json()
        assert [r["id"] for r in listed][:2] == active[::-1]
        assert [r["conversation_id"] for r in listed] == [None, None, conversation_id]
        assert [r["status"] for r in listed] == ["created", "created", "running"]
        assert [http.get(f"/v1/runs/{r['id']}").json() for r in listed] == listed
        statuses = {"statuses": ["completed", "failed", "cancelled"]}
        over = http.get("/v1/runs/", params={**statuses, "active": True}).json()
        assert [r["id"] for r in over] == [failed, *ended[::-1]]
        assert [http.get(f"/v1/runs/{r['id']}").json() for r in over] == over
        assert len(http.get("/v1/runs/", params={**statuses, "limit": 2}).json()) == 2
        older = {"active": True, "before": active[0]}
        assert [r["status"] for r in http.get("/v1/runs/", params=older).json()] == ["running"]
        assert http.get("/v1/runs/", params={"statuses": "sleeping"}).status_code == 400
        sandbox.finish_runs()


def test_agents_page_by_after(sandbox: Sandbox, http: httpx.Client) -> None:
    """Newest first by default; ``after`` goes on in the order that was asked for."""
    first, second = sandbox.agents

    def listed(**params: object) -> list[str]:
        return [a["id"] for a in http.get("/v1/agents/", params=params).json()]

    assert listed() == [second, first]
    assert listed(order="asc", limit=1) == [first]
    assert listed(order="asc", after=first) == [second]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/conversations/nothing/messages", 422),
        ("GET", "/_sandbox/nothing", 404),
    ],
)
def test_what_it_does_not_have(http: httpx.Client, method: str, path: str, status: int) -> None:
    """What is unknown or malformed is refused (for more of it see ``test_letta_wire.py``)."""
    assert http.request(method, path).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{nope",
        b"[]",
        b"null",
        b"{}",
        b'{"messages": [{"role": "king", "content": "x"}]}',
        b'{"messages": [{"role": "user"}]}',
        b'{"messages": [{"role": "user", "content": ["odd"]}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_wrong_body_changes_nothing(sandbox: Sandbox, http: httpx.Client, body: bytes) -> None:
    """A body that is no send is 422, and nothing arrives."""
    answer = http.post(f"/v1/agents/{sandbox.agents[0]}/messages/async", content=body)
    assert answer.status_code == 422
    sandbox.finish_runs()
    assert sandbox.messages(sandbox.agents[0]) == []


# --- faults ---------------------------------------------------------------------------------------


def test_a_fault_applies_as_often_as_told(sandbox: Sandbox, http: httpx.Client) -> None:
    """Faults are used up in order, only by requests of their agent and route."""
    first, second = sandbox.agents
    sandbox.fault("status", agent_id=first, times=2, status=503)
    sandbox.fault("busy", route="runs")
    assert post(http, second).status_code == 200
    assert [post(http, first).status_code for _ in range(3)] == [503, 503, 200]
    assert [http.get("/v1/runs/").status_code for _ in range(2)] == [409, 200]


def test_a_probable_fault_lasts_until_cleared(sandbox: Sandbox, http: httpx.Client) -> None:
    """With a probability some requests fail, the same ones for the same seed, until cleared."""
    sandbox.fault("busy", route="health", probability=0.5)
    codes = [http.get("/v1/health/").status_code for _ in range(40)]
    assert set(codes) == {200, 409}
    sandbox.clear_faults()
    assert {http.get("/v1/health/").status_code for _ in range(10)} == {200}
    with Sandbox(("echo", "other")) as again, httpx.Client(base_url=again.url) as client:
        again.fault("busy", route="health", probability=0.5)
        assert [client.get("/v1/health/").status_code for _ in range(40)] == codes


def test_faults_over_http(sandbox: Sandbox, http: httpx.Client) -> None:
    """Another process may queue faults, clear them, and see what arrived."""
    agent_id = sandbox.agents[0]
    answer = http.post("/_sandbox/faults", json={"kind": "lost_reply", "agent_id": agent_id})
    assert answer.json()["faults"] == [
        {"kind": "lost_reply", "agent_id": agent_id, "route": "send", "times": 1}
    ]
    with pytest.raises(httpx.TransportError):
        post(http, agent_id, "lost", "o-1")
    http.post("/_sandbox/faults", json={"kind": "busy"})
    assert http.delete("/_sandbox/faults").json() == {"faults": []}
    assert post(http, agent_id, "two", "o-2").status_code == 200
    http.post("/_sandbox/finish")
    state = http.get("/_sandbox/state").json()
    assert state["agents"][0]["otids"] == {"o-1": 1, "o-2": 1}
    assert [m["text"] for m in state["agents"][0]["messages"]] == ["lost", "two"]
    assert (state["overlaps"], state["faults"]) == (1, [])


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "gremlins"},
        {},
        [],
        {"kind": 5},
        {"kind": "busy", "times": 0},
        {"kind": "busy", "times": True},
        {"kind": "busy", "times": "2"},
        {"kind": "busy", "probability": 1.5},
        {"kind": "busy", "route": "door"},
        {"kind": "busy", "seconds": 1},
        {"kind": "slow", "seconds": "long"},
        {"kind": "slow", "seconds": -1},
        {"kind": "hang", "stored": 1},
        {"kind": "busy", "agent_id": 7},
        {"kind": "status", "status": 7},
        {"kind": "drip", "where": "nowhere"},
    ],
)
def test_a_wrong_fault_is_refused_with_help(
    sandbox: Sandbox, http: httpx.Client, body: object
) -> None:
    """An unknown fault or parameter is 400, says what there is, and queues nothing."""
    answer = http.post("/_sandbox/faults", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("unknown_fault", "invalid_fault")
    assert len(answer.json()["detail"]) > 40
    assert sandbox.state()["faults"] == []


def test_every_fault_is_described() -> None:
    """Each fault has a sentence for users."""
    assert all(len(text) > 10 for text in FAULTS.values())
    sandbox = Sandbox()
    for kind in FAULTS:
        sandbox.fault(kind)
    assert len(sandbox.state()["faults"]) == len(FAULTS)


# --- life -----------------------------------------------------------------------------------------


def test_a_restart_keeps_port_and_state(sandbox: Sandbox, http: httpx.Client) -> None:
    """Stopped, it refuses connections; started again, it knows everything, runs in flight too."""
    url, run = sandbox.url, post(http, sandbox.agents[0]).json()["id"]
    sandbox.stop()
    with pytest.raises(httpx.TransportError):
        http.get("/v1/health/")
    with pytest.raises(httpx.ConnectError):
        http.get("/v1/health/")
    sandbox.start()
    assert sandbox.url == url
    sandbox.finish_runs()
    assert http.get(f"/v1/runs/{run}").json()["status"] == "completed"


@pytest.mark.parametrize("release", [Sandbox.clear_faults, Sandbox.stop])
def test_what_hangs_is_released(
    sandbox: Sandbox, http: httpx.Client, release: Callable[[Sandbox], None]
) -> None:
    """Clearing the faults ends a hanging request without an answer, and a stop waits for none."""
    sandbox.fault("hang", stored=True)
    threading.Timer(0.1, release, (sandbox,)).start()
    began = time.monotonic()
    with pytest.raises(httpx.TransportError):
        post(http, sandbox.agents[0])
    assert time.monotonic() - began < 20
    sandbox.finish_runs()
    assert len(sandbox.messages(sandbox.agents[0])) == 1


def test_a_taken_port_is_told(sandbox: Sandbox) -> None:
    """A port that is in use has its own error code, and leaves nothing behind."""
    port = address(sandbox)[1]
    other = Sandbox(port=port)
    with pytest.raises(PromptyoselfError) as caught:
        other.start()
    assert caught.value.code == "port_in_use"
    other.stop()
    with pytest.raises(PromptyoselfError) as caught:
        Sandbox(port=70_000).start()
    assert caught.value.code == "cannot_listen"


def test_a_token_is_wanted_where_given() -> None:
    """With a token every route but health is closed without it, the controls too."""
    with Sandbox(token="tok") as sandbox, httpx.Client(base_url=sandbox.url) as http:
        assert http.get("/v1/health/").status_code == 200
        for path in ("/v1/agents/", "/_sandbox/state"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"Authorization": "Bearer no"}).status_code == 401
            assert http.get(path, headers={"Authorization": "Bearer tok"}).status_code == 200
            assert http.get(path, headers={"X-BARE-PASSWORD": "password tok"}).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/agents/x/messages/async HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        b"POST /_sandbox/faults HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /_sandbox/faults HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /_sandbox/faults HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/agents/?limit=-1 HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: \xff\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"",
    ],
)
def test_a_rude_peer_does_no_harm(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    """Garbage, half a request, or a body too large to be read end that connection only."""
    with socket.create_connection(address(sandbox), timeout=60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        answer = peer.makefile("rb").read()
    assert answer == b"" or re.search(rb"^HTTP/1.1 4|Error code: [45]", answer)
    assert httpx.get(sandbox.url + "/v1/health/").status_code == 200
    time.sleep(0.01)
    assert capfd.readouterr() == ("", "")


def test_a_peer_that_leaves_does_no_harm(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client that goes away in the middle of an answer is not heard of again."""
    conversation_id = sandbox.create_conversation(sandbox.agents[0])
    body = b'{"messages": [{"role": "user", "content": "x", "otid": "o"}]}'
    with socket.create_connection(address(sandbox), timeout=60) as peer:
        peer.sendall(
            f"POST /v1/conversations/{conversation_id}/messages HTTP/1.1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        seen = b""
        while b"ping" not in seen and (data := peer.recv(2000)):
            seen += data
        assert b"ping" in seen
    sandbox.finish_runs()
    time.sleep(0.05)
    assert sandbox.deliveries == {(sandbox.agents[0], "o"): 1}
    assert capfd.readouterr() == ("", "")


def test_serve_forever_ends_when_told() -> None:
    """It calls back once it listens, and stops listening when its event is set."""
    stop, seen = threading.Event(), []

    def ready(sandbox: Sandbox) -> None:
        seen.append(httpx.get(sandbox.url + "/v1/health/").status_code)
        stop.set()

    serve_forever(("a",), port=0, ready=ready, stop=stop)
    assert seen == [200]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_forever_ends_by_a_signal(number: signal.Signals) -> None:
    """A process that serves ends cleanly on SIGTERM and SIGINT."""
    code = (
        "from promptyoself.sandbox import serve_forever\n"
        "serve_forever(('a',), port=0, ready=lambda s: print(s.url, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert httpx.get(url + "/v1/health/").status_code == 200
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
