"""P10: who asked, and for whom, are two facts of every event, whichever door it came through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx2
import orjson
import pytest
from calling import AGENT, add, append_foreign, call, lines_of
from checker import check_chain
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_servers import COMMAND, serving
from mcp_types import Implementation

import promptyoself
from promptyoself.doors.session import Caller, Session, _actor, _login

if TYPE_CHECKING:
    from conftest import Clock

    from promptyoself.sandbox import Sandbox

LOGIN = _login()
HOST = os.uname().nodename
ME = {"via": "cli", "who": LOGIN, "kind": "login", "host": HOST}
OTHER = "agent-00000000-0000-4000-8000-000000000002"
HELLO = {"agent_id": AGENT, "prompt": "Hello", "every": "1h"}


def actors(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """The type and the actor of each event, but for the log's own."""
    return [
        (event["type"], event["actor"])
        for event in check_chain(folder)
        if event["actor"]["via"] != "ledger"
    ]


@pytest.mark.parametrize("default", ["", "agent-default"])
def test_a_person_at_a_shell(
    default: str, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a person does is recorded under the login name, and for the agent that it is about,
    also where a default agent is set."""
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", default)
    id_ = add("--every", "1h", "--tier", "2")
    for words in (
        ("pause",), ("resume",), ("trigger",), ("approve",), ("revoke",),
        ("modify", "--name", "x"), ("modify", "--agent-id", OTHER), ("cancel",),
    ):  # fmt: skip
        clock.advance(seconds=1)
        call(*words, "--id", id_).success()
    desire = call("desire", "--agent-id", AGENT, "--text", "Rest.").success()["id"]
    call("reinforce", "--id", desire).success()
    call("prune", "--below", "1", "--agent-id", AGENT).success()
    found = actors(var / "schedules")
    types = [type_ for type_, _ in found]
    assert {"approval.granted", "approval.revoked", "schedule.triggered"} < set(types)
    moved = types.index("schedule.modified", types.index("schedule.modified") + 1)
    for at, (type_, actor) in enumerate(found):
        whose = OTHER if at >= moved else AGENT
        assert actor == {**ME, "for_agent": whose}, type_
    assert [actor for _, actor in actors(var / "desires")] == [{**ME, "for_agent": AGENT}] * 3


def test_deliveries_are_for_the_agent_that_got_them(
    var: Path, clock: Clock, sandbox: Sandbox
) -> None:
    """A pass is recorded under the login of its process, each slot for its agent; what is no
    agent's, such as a worker's start, for nobody."""
    for agent in sandbox.agents:
        words = ("--agent-id", agent, "--prompt", "Hello", "--time", "in 1m")
        call("register", *words).success()
    clock.advance(minutes=2)
    assert len(call("execute").success()["executed"]) == 2
    events = check_chain(var / "schedules")
    for event in events[1:]:
        actor = event["actor"]
        assert {**actor, "for_agent": ""} == {**ME, "for_agent": ""}
        assert (event["id"] is None) == ("for_agent" not in actor)
    kinds = {event["type"] for event in events if event["id"]}
    assert {"delivery.attempted", "delivery.delivered", "schedule.completed"} < kinds
    delivered = [event["actor"] for event in events if event["type"] == "delivery.delivered"]
    assert {actor["for_agent"] for actor in delivered} == set(sandbox.agents)


def test_an_import_is_its_callers(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is imported is recorded under the caller who imports it, for the schedules' agents."""
    call("pause", "--id", add(prompt="one")).success()
    add(prompt="two", agent=OTHER)
    lines = call("export").out
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "there"))
    call("import", "-", stdin=lines).success()
    found = actors(tmp_path / "there" / "schedules")
    assert [type_ for type_, _ in found].count("schedule.paused") == 1
    assert sorted(actor["for_agent"] for _, actor in found) == [AGENT, AGENT, OTHER]
    assert all({**actor, **ME} == actor for _, actor in found)


def test_a_pinned_caller_is_that_agent(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned, it is the agent itself that acts; whose process it was stays known."""
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    words = ("register", "--prompt", "Hello", "--every", "1h")
    call("cancel", "--id", call(*words).success()["id"]).success()
    pinned = {"via": "cli", "who": AGENT, "kind": "agent", "login": LOGIN, "host": HOST}
    assert [actor for _, actor in actors(var / "schedules")] == [{**pinned, "for_agent": AGENT}] * 2


def test_a_loop_is_its_process_though_callers_are_pinned(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin is for callers: a loop that finds the setting delivers as the login it runs as."""
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    session = Session(None, Caller())
    assert session.store(as_process=True).actor == ME
    assert session.store().actor["who"] == AGENT


def test_through_a_sanctum_host(var: Path, environ: dict[str, str]) -> None:
    """A host passes on no identity, so it is the login that the host runs as; the agent that is
    prompted is no caller."""
    entry = Path(promptyoself.__file__).with_name("cli.py")
    for pin in ("", AGENT):
        subprocess.run(
            [sys.executable, str(entry), "register", "--agent-id", AGENT, "--prompt", pin or "x",
             "--every", "1h"],
            env={**environ, "PROMPTYOSELF_ONLY_AGENT": pin}, stdin=subprocess.DEVNULL, check=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
    person, agent = (actor for _, actor in actors(var / "schedules"))
    assert person == {**ME, "via": "sanctum", "for_agent": AGENT}
    assert (agent["who"], agent["kind"], agent["login"]) == (AGENT, "agent", LOGIN)


def test_over_stdio(var: Path, environ: dict[str, str]) -> None:
    """A client that starts the server is known by the name that it gives itself, and by the login
    and the machine, which are the server's too."""

    async def talk(pin: str) -> None:
        started = StdioServerParameters(
            command=COMMAND[0], args=COMMAND[1:], env={**environ, "PROMPTYOSELF_ONLY_AGENT": pin}
        )
        info = Implementation(name="a desk\u202etop", version="1")
        async with Client(started, client_info=info) as client:
            answer = await client.call_tool("register", {**HELLO, "name": f"for {pin}"})
            assert not answer.is_error, answer

    for pin in ("", AGENT):
        anyio.run(talk, pin)
    client, agent = (actor for _, actor in actors(var / "schedules"))
    name, known = "a desk\ufffdtop", {"login": LOGIN, "host": HOST, "for_agent": AGENT}
    assert client == {"via": "mcp", "who": name, "kind": "client", **known}
    assert agent == {"via": "mcp", "who": AGENT, "kind": "agent", "client": name, **known}


def test_over_http(var: Path, environ: dict[str, str]) -> None:
    """Over the network the caller's login isn't known, and the server's is not put in its place;
    where it called from is. With a header, the agent of the header is who calls."""

    async def talk(url: str, headers: dict[str, str]) -> None:
        async with httpx2.AsyncClient(headers=headers) as web:
            transport = streamable_http_client(url, http_client=web)
            async with Client(transport, client_info=Implementation(name="web", version="1")) as to:
                answer = await to.call_tool("register", {**HELLO, "name": str(headers)})
                assert not answer.is_error, answer

    with serving(environ) as server:
        anyio.run(talk, server.url, {})
    with serving(environ, "--agent-header", "X-Agent-Id") as server:
        anyio.run(talk, server.url, {"X-Agent-Id": AGENT})
    client, agent = (actor for _, actor in actors(var / "schedules"))
    known = {"host": "127.0.0.1", "for_agent": AGENT}
    assert client == {"via": "mcp", "who": "web", "kind": "client", **known}
    assert agent == {"via": "mcp", "who": AGENT, "kind": "agent", "client": "web", **known}


def test_a_client_without_a_name() -> None:
    """Nothing is made up: over the network it is unnamed, on this machine its login is known."""
    there = Caller("mcp", client=" \x00"[:1], address="10.0.0.7")
    assert _actor(there, None) == {
        "via": "mcp", "who": "unnamed", "kind": "client", "host": "10.0.0.7",
    }  # fmt: skip
    assert _actor(Caller("mcp", client=""), None) == {**ME, "via": "mcp"}
    assert len(_actor(Caller("mcp", client="x" * 5000), None)["who"]) == 200


def test_events_of_before_keep_what_they_have(var: Path, clock: Clock) -> None:
    """An event of before says who as it did, and nothing is added to it by those who read."""
    id_ = add()
    old = {"via": "cli", "who": "agent-of-before"}
    append_foreign(var, type="schedule.paused", id=id_, actor=old, data={})
    clock.advance(hours=3)
    events = call("history", "--id", id_).success()["events"]
    assert events[-1]["actor"] == old
    (change,) = call("diff", "--from", "1").success()["changes"]
    assert [event["by"] for event in change["events"]] == [{**ME, "for_agent": AGENT}, old]
    assert call("history", "--by", "agent-of-before").success()["count"] == 1


def test_history_by_caller(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--by finds what somebody did, as a login, an agent or a client; not what was done for an
    agent; and says so where nobody has that name."""
    mine = add()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OTHER)
    theirs = add(agent=OTHER)
    assert call("history", "--by", AGENT).error("unknown_caller")
    assert call("history", "--by", "promptyoself").error("unknown_caller"), "no event of its own"
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    by = {name: call("history", "--by", name).success()["events"] for name in (LOGIN, OTHER)}
    assert [event["id"] for event in by[LOGIN]] == [mine, theirs], "by the login, pinned or not"
    assert [event["id"] for event in by[OTHER]] == [theirs]
    assert call("history", "--by", AGENT).error("unknown_caller")["hint"]
    assert call("history", "--by", "promptyoself").success()["count"] == 1
    late = call("history", "--by", LOGIN, "--until", "2020-01-01").success()
    assert late["events"] == [], "somebody known who did nothing then"


def test_audit_says_who(var: Path, clock: Clock) -> None:
    """Each range that wasn't delivered has the actor of the event that decided it."""
    id_ = add()
    clock.advance(hours=3)
    call("pause", "--id", id_).success()
    clock.advance(hours=3)
    ranges = call("audit").success()["undelivered"]
    actor_of = {event["seq"]: event["actor"] for event in map(orjson.loads, lines_of(var))}
    assert ranges
    for line in ranges:
        assert line["by"] == actor_of[line["seq"]]
    assert {line["by"]["for_agent"] for line in ranges} == {AGENT}


def test_no_place_forgets_for_whom(var: Path, clock: Clock, sandbox: Sandbox) -> None:
    """Every event of a schedule or a desire, of whatever type the log knows, has for whom: the
    whole of it is one story here, with a notice and a skip by the loop."""
    words = ("register", "--agent-id", sandbox.agents[0], "--prompt", "Hello", "--every", "1h")
    id_ = call(*words, "--on-failure", "agent-told", "--misfire", "skip").success()["id"]
    clock.advance(hours=30)
    call("execute").success()
    call("trigger", "--id", id_).success()
    call("execute").success()
    events = check_chain(var / "schedules")
    for event in events:
        assert (event["id"] is None) != ("for_agent" in event["actor"]), event
    notices = [event["actor"] for event in events if event["actor"]["via"] == "loop"]
    assert [actor["for_agent"] for actor in notices] == ["agent-told"]
