"""What Letta answers is seen at once, and wherever one looks. What passes by itself, by paying, or
by mending the installation costs no slot."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import call

from promptyoself.sandbox import Sandbox

if TYPE_CHECKING:
    from conftest import Clock


def register(agent: str, *asked: str) -> str:
    words = ("--prompt", "Plan the day, then water the plants.", *(asked or ("--every", "1h")))
    return str(call("register", "--agent-id", agent, *words).success()["id"])


def history(id_: str, type_: str) -> list[dict[str, Any]]:
    events = call("history", "--id", id_, "--type", type_).success()["events"]
    return [event["data"] for event in events]


def shown(id_: str) -> dict[str, Any]:
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


# --- ids that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["self", "SELF", "its own"])
@pytest.mark.parametrize("command", ["register", "modify", "idle"])
def test_a_word_for_a_conversation_is_no_id(sandbox: Sandbox, command: str, word: str) -> None:
    """P7: what other tools call the agent's own conversation would be refused each time, as would
    words."""
    agent = sandbox.agents[0]
    asked = {
        "register": ("--agent-id", agent, "--prompt", "x", "--every", "1h"),
        "modify": ("--id", register(agent)),
        "idle": ("--agent-id", agent, "--every", "1h"),
    }[command]
    error = call(command, *asked, "--conversation-id", word).error("invalid_conversation_id")
    assert all(word in error["hint"] for word in ("conv-", "new", "default"))


def test_check_says_when_it_is_an_agents_name(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: `register --check` tells the id of the agent whose name was given for one."""
    asked = ("register", "--prompt", "x", "--every", "1h", "--check", "--agent-id")
    error = call(*asked, "echo").error("agent_not_found")
    assert sandbox.agents[0] in error["message"]
    assert "name" in error["message"]
    assert sandbox.agents[0] in error["hint"]
    assert error["named"] == [sandbox.agents[0]]
    assert call(*asked, "Other").error("agent_not_found")["named"] == [sandbox.agents[1]]
    twins = [sandbox.create_agent("twin"), sandbox.create_agent("twin")]
    assert call(*asked, "twin").error("agent_not_found")["named"] == twins
    error = call(*asked, "nobody").error("agent_not_found")
    assert "named" not in error
    assert "promptyoself agents" in error["hint"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", sandbox.agents[1])
    assert "named" not in call(*asked, "echo").error("agent_not_found"), "others' ids are theirs"


def test_a_name_that_was_registered_fails_with_a_plain_reason(
    sandbox: Sandbox, clock: Clock
) -> None:
    """P9: later it is said what is probably wrong, and what to do."""
    id_ = register("echo")
    clock.advance(hours=1)
    (line,) = call("execute").success()["executed"]
    assert (line["state"], line["code"]) == ("failed", "agent_not_found")
    assert "is it a name?" in line["error"]
    assert "`promptyoself agents`" in line["error"]
    assert "is it a name?" in shown(id_)["last_error"]


def test_a_client_that_does_not_fit_costs_no_slot(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: with letta-client 1.7.4 to 1.7.6 a one-off into a conversation waits, and isn't lost."""
    from letta_client.resources.conversations.messages import MessagesResource

    def named_differently(self: object, id_: str, *, message: object) -> None:
        raise AssertionError("it isn't even called")

    agent = sandbox.agents[0]
    conversation = sandbox.create_conversation(agent)
    id_ = register(agent, "--time", "in 1h", "--conversation-id", conversation)
    clock.advance(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(MessagesResource, "create", named_differently)
        (line,) = call("execute").success()["executed"]
    assert (line["state"], line["code"]) == ("retrying", "letta_client_unfit")
    assert shown(id_)["status"] == "active"
    clock.advance(minutes=1)
    assert call("execute").success()["executed"][0]["state"] == "delivered"


def test_doctor_names_a_client_that_does_not_fit(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: no all-clear over an installation that can't deliver into conversations."""
    from promptyoself.service.upkeep import doctor

    real = doctor.version  # type: ignore[attr-defined]
    monkeypatch.setattr(
        doctor, "version", lambda name: "1.7.5" if name == "letta-client" else real(name)
    )
    checks = call("doctor", "--skip-letta").error("unhealthy")["checks"]
    (check,) = [check for check in checks if check["name"] == "software"]
    assert not check["ok"]
    assert "1.7.5" in check["detail"]


# --- answers that leave it in doubt ---------------------------------------------------------------


def test_a_500_is_seen_at_once(sandbox: Sandbox, clock: Clock) -> None:
    """P9: while nobody knows yet whether it has arrived, `show`, `history`, the answer of `execute`
    and stderr say what Letta said; nothing is sent again meanwhile."""
    id_ = register(sandbox.agents[0])
    sandbox.fault("server_error", detail="psycopg2.OperationalError: 'Plan the day, then' failed")
    clock.advance(hours=1)
    answer = call("execute", "--deadline", "2")
    (line,) = answer.success()["executed"]
    assert (line["state"], line["code"]) == ("in_doubt", "letta_server_error")
    assert line["http_status"] == 500
    assert line["detail"] == "psycopg2.OperationalError: '…' failed"
    assert "HTTP 500" in line["error"]
    assert f"{id_} is in doubt" in answer.err
    assert "HTTP 500" in answer.err
    (event,) = history(id_, "delivery.stalled")
    same = {name: line[name] for name in ("code", "http_status", "detail")}
    assert event.items() >= same.items()
    assert event["in_doubt"]
    schedule = shown(id_)
    (slot,) = schedule["open"]
    assert (slot["state"], slot["in_doubt"], slot["attempt"]) == ("claimed", True, 1)
    assert slot.items() >= {**same, "error": line["error"]}.items()
    assert slot["retry_at"] == event["retry_at"] > event["slot"]
    assert "HTTP 500" in schedule["last_error"]
    assert "psycopg2.OperationalError" in schedule["last_error"]
    (listed,) = call("list", "--full").success()["schedules"]
    assert listed["open"] == schedule["open"]
    checks = call("doctor", "--skip-letta", "--quick").document["checks"]
    (check,) = [check for check in checks if check["name"] == "deliveries"]
    assert "letta_server_error" in check["detail"]
    assert call("verify").success()["valid"]
    assert sandbox.requests["send"] == 1


@pytest.mark.parametrize("stored", [False, True])
def test_the_outcome_tells_the_answer_too(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """P9: found out later, delivered or not, the outcome has the status and what Letta said."""
    monkeypatch.setenv("PROMPTYOSELF_RECONCILE_GRACE", "1")
    monkeypatch.setenv("PROMPTYOSELF_CALL_TIMEOUT", "0.5")
    id_ = register(sandbox.agents[0])
    sandbox.fault("server_error", stored=stored, detail="boom")
    clock.advance(hours=1)
    answer = call("execute", "--deadline", "60").success()
    assert answer["executed"][-1]["state"] == "delivered"
    ended = history(id_, "delivery.delivered" if stored else "delivery.abandoned")[0]
    assert (ended["http_status"], ended["detail"]) == (500, "boom")
    if not stored:
        assert "1 s after it was sent" in ended["error"]
        assert "HTTP 500" in ended["error"]
    assert list(sandbox.deliveries.values()) == [1]


def test_the_activity_log_has_it_as_soon_as_it_is_known(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """P9: a line of JSON says that it stalled, with the status and what Letta said."""
    file = tmp_path / "log.json"
    monkeypatch.setenv("PROMPTYOSELF_LOG_FILE", str(file))
    id_ = register(sandbox.agents[0])
    sandbox.fault("server_error", detail="boom")
    clock.advance(hours=1)
    call("execute", "--deadline", "2").success()
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    (stalled,) = [line for line in lines if line.get("state") == "stalled"]
    assert (stalled["id"], stalled["level"]) == (id_, "warning")
    assert (stalled["http_status"], stalled["detail"]) == (500, "boom")
    assert "prompt" not in stalled


@pytest.mark.parametrize(
    ("fault", "params", "code", "status"),
    [
        ("rate_limit", {}, "letta_rate_limited", 429),
        ("out_of_credits", {}, "letta_out_of_credits", 402),
        ("status", {"status": 302}, "letta_unreachable", 302),
        ("status", {"status": 400, "detail": "no such thing"}, "letta_rejected", 400),
        ("conflict", {}, "letta_conflict", 409),
        ("unauthorized", {}, "letta_unauthorized", 401),
    ],
)
def test_every_refusal_tells_its_status_and_words(
    sandbox: Sandbox, clock: Clock, fault: str, params: dict[str, Any], code: str, status: int
) -> None:
    """P9: an attempt that is refused ends in an event with the code, the status and the words."""
    id_ = register(sandbox.agents[0])
    sandbox.fault(fault, **params)
    clock.advance(hours=1)
    (line,) = call("execute", "--deadline", "60").success()["executed"]
    assert (line["code"], line["http_status"]) == (code, status)
    assert line["detail"]
    ended = history(id_, "delivery")[-1]
    assert (ended["code"], ended["http_status"], ended["detail"]) == (code, status, line["detail"])
    assert line["detail"] in shown(id_)["last_error"]


# --- credits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "params"),
    [
        ("out_of_credits", {"retry_after": 0}),
        ("status", {"status": 403, "detail": "Your organization has insufficient credits."}),
        ("model_402", {}),
    ],
)
def test_a_want_of_credits_is_waited_out(
    sandbox: Sandbox, clock: Clock, fault: str, params: dict[str, Any]
) -> None:
    """P9: a prompt that nobody has paid for waits, with a code of its own; ten refusals park
    nothing; once somebody has paid, it is delivered."""
    id_ = register(sandbox.agents[0], "--time", "in 1h")
    series = register(sandbox.agents[1])
    sandbox.fault(fault, times=100, **params)
    clock.advance(hours=1)
    for _ in range(10):
        for line in call("execute", "--deadline", "60").success()["executed"]:
            assert (line["state"], line["code"]) == ("retrying", "letta_out_of_credits")
            assert "credits" in line["error"]
        clock.advance(minutes=15)
    assert (shown(id_)["status"], shown(series)["status"]) == ("active", "active")
    (slot,) = shown(id_)["open"]
    assert (slot["state"], slot["code"]) == ("waiting", "letta_out_of_credits")
    checks = call("doctor", "--skip-letta", "--quick", "--allow-no-loop").error("unhealthy")
    assert any("letta_out_of_credits" in check["detail"] for check in checks["checks"])
    sandbox.clear_faults()
    clock.advance(minutes=15)
    assert all(line["delivered"] for line in call("execute").success()["executed"])
    assert set(sandbox.deliveries.values()) == {1}
    assert shown(id_)["status"] == "completed"


def test_retry_after_of_a_402_is_kept(sandbox: Sandbox, clock: Clock) -> None:
    """What the server says of when to come again counts as after a 429."""
    register(sandbox.agents[0])
    sandbox.fault("out_of_credits", retry_after=1800)
    clock.advance(hours=1)
    (line,) = call("execute", "--deadline", "60").success()["executed"]
    waits = datetime.fromisoformat(line["retry_at"]) - clock.now
    assert timedelta(seconds=1790) <= waits <= timedelta(seconds=1810)


def refused(sandbox: Sandbox, clock: Clock, times: int = 5) -> None:
    """Every hour all that is due is refused for good."""
    for _ in range(times):
        sandbox.fault("status", status=400, times=10)
        clock.advance(hours=1)
        call("execute", "--deadline", "60").success()
        sandbox.clear_faults()


def test_what_failed_for_one_reason_is_resumed_by_one_command(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: after topping up, all that was parked runs on, with whatever code it was; what failed for
    another reason, and what has no slot left, stays, and is told."""
    first, second = (register(agent) for agent in sandbox.agents)
    nowhere = register("nobody")
    once = register(sandbox.create_agent("third"), "--time", "in 1h")
    refused(sandbox, clock, 1)
    refused(sandbox, clock, 4)
    assert shown(first)["last_code"] == shown(once)["last_code"] == "letta_rejected"
    statuses = {shown(id_)["status"] for id_ in (first, second, once)}
    assert statuses == {"failed"}
    for _ in range(5):
        clock.advance(hours=1)
        call("execute", "--deadline", "60").success()
    assert (shown(nowhere)["status"], shown(nowhere)["last_code"]) == ("failed", "agent_not_found")
    error = call("resume", "--failed-with", "letta_out_of_credits").error("nothing_to_resume")
    assert "letta_rejected (3)" in error["hint"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", sandbox.agents[1])
    answer = call("resume", "--failed-with", "letta_rejected", "--reason", "paid").success()
    assert [schedule["id"] for schedule in answer["resumed"]] == [second]
    error = call("resume", "--failed-with", "letta_rejected").error("nothing_to_resume")
    assert error["hint"] == "None has failed at all.", "others' failures are theirs"
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    answer = call("resume", "--failed-with", "letta_rejected").success()
    (resumed,) = answer["resumed"]
    assert resumed == {
        "id": first,
        "agent_id": sandbox.agents[0],
        "next_run": shown(first)["next_run"],
    }
    (left,) = answer["left"]
    assert (left["id"], left["code"]) == (once, "nothing_left")
    assert answer["count"] == 1
    assert (shown(first)["status"], shown(nowhere)["status"]) == ("active", "failed")
    assert [event["reason"] for event in history(second, "schedule.resumed")] == ["paid"]
    clock.advance(hours=1)
    lines = call("execute").success()["executed"]
    assert {line["id"]: line["delivered"] for line in lines} == {first: True, second: True}
    call("audit").success()


def test_no_more_is_resumed_than_an_agent_may_have(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: the cap of active schedules holds for many at once; those beyond it are told."""
    ids = [register(sandbox.agents[0], "--every", f"{hours}h") for hours in (1, 2, 3)]
    refused(sandbox, clock, 16)
    assert {shown(id_)["status"] for id_ in ids} == {"failed"}
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "2")
    answer = call("resume", "--failed-with", "letta_rejected").success()
    assert answer["count"] == len(answer["resumed"]) == 2
    assert [schedule["code"] for schedule in answer["left"]] == ["too_many_schedules"]


def test_resume_wants_an_id_or_a_code(var: Path) -> None:
    """P7: neither, or both, is wrong usage."""
    call("resume").error("missing_option", 2)
    both = ("--id", "sch_00000000", "--failed-with", "run_failed")
    call("resume", *both).error("conflicting_options", 2)
    call("resume", "--failed-with", "run_failed").error("nothing_to_resume")
    assert not (var / "schedules").exists()


# --- which target is asked ------------------------------------------------------------------------


def test_check_asks_the_schedules_own_target(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: that the Letta server doesn't know an agent of another target says nothing."""
    asked = ("register", "--prompt", "x", "--every", "1h", "--check", "--agent-id", "agent-local-1")
    assert "Letta at" in call(*asked, "--target", "letta").error("agent_not_found")["message"]
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    assert call(*asked).error("target_not_configured")["target"] == "letta-code"
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "off")
    cloud = ("--agent-id", sandbox.agents[0], "--target", "letta-cloud")
    call(*asked, *cloud).error("target_not_configured")
    call(*asked, "--agent-id", sandbox.agents[0]).success()


@pytest.mark.parametrize("command", ["agents", "test"])
def test_a_target_is_asked_by_its_name(
    sandbox: Sandbox, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = call(command).success()
    assert call(command, "--target", "letta").success().keys() == answer.keys()
    assert "target" not in answer
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    error = call(command, "--target", "letta-code").error("target_not_configured")
    assert "PROMPTYOSELF_LETTA_CODE_URL" in error["message"]


@pytest.mark.parametrize("command", ["agents", "test"])
def test_where_no_letta_answers_the_other_target_is_named(
    var: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A machine may have Letta Code alone. Who names a target, or has no Letta Code, is told only
    of that."""
    advice = "For agents of Letta Code: `--target letta-code`."
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9")
    hint = call(command).error("letta_unreachable")["hint"]
    assert hint.startswith("Start the server")
    assert hint.endswith(advice)
    assert advice not in call(command, "--target", "letta").error("letta_unreachable")["hint"]
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    assert advice not in call(command).error("letta_unreachable")["hint"]
