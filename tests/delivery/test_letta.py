"""What the Letta deliverer makes of faults, through the real SDK over real HTTP: the sandbox has
them on demand. How a Letta behaves that is well is in ``test_letta_behaviour.py``."""

import logging
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from lettas import PROMPT, about, failure, fresh, since
from target_contract import ended

from promptyoself.core.diagnostics import excerpt, register_secrets
from promptyoself.core.errors import PromptyoselfError
from promptyoself.sandbox import FAULTS, Sandbox
from promptyoself.targets import letta
from promptyoself.targets.api import Message
from promptyoself.targets.letta import LettaClient, failures
from promptyoself.targets.letta.failures import UNFIT_CLIENTS, retry_after

TOKEN = "tok-0123456789"
OUT_OF_CREDITS = "letta_out_of_credits"

Connect = Callable[..., LettaClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, and closes them in the end."""
    with ExitStack() as clients:

        def open_client(url: str, token: str | None = None, **options: float) -> LettaClient:
            return clients.enter_context(closing(LettaClient(url, token, **options)))

        yield open_client


@pytest.fixture
def deliverer(sandbox: Sandbox, connect: Connect) -> LettaClient:
    return connect(sandbox.url)


# --- faults ---------------------------------------------------------------------------------------

# kind of fault, parameters -> kind, code, how often the message is in the history afterwards
SEND_FAULTS = [
    ("refuse", {}, "doubt", "letta_connection_lost", 0),
    ("lost_reply", {}, "doubt", "letta_connection_lost", 1),
    ("rate_limit", {}, "retry", "letta_rate_limited", 0),
    ("server_error", {}, "doubt", "letta_server_error", 0),
    ("server_error", {"stored": True, "status": 503}, "doubt", "letta_server_error", 1),
    ("hang", {}, "doubt", "letta_timeout", 0),
    ("hang", {"stored": True}, "doubt", "letta_timeout", 1),
    ("garbage", {}, "doubt", "letta_unreadable", 0),
    ("garbage", {"stored": True}, "doubt", "letta_unreadable", 1),
    ("wrong_shape", {}, "doubt", "letta_unreadable", 0),
    ("wrong_shape", {"stored": True}, "doubt", "letta_unreadable", 1),
    ("drip", {"where": "body"}, "doubt", "letta_timeout", 1),
    ("drip", {"where": "headers"}, "doubt", "letta_timeout", 1),
    ("pending_approval", {}, "busy", "letta_busy", 0),
    ("busy", {}, "busy", "letta_busy", 0),
    ("conflict", {}, "retry", "letta_conflict", 0),
    ("unauthorized", {}, "unauthorized", "letta_unauthorized", 0),
    ("status", {"status": 403}, "unauthorized", "letta_unauthorized", 0),
    ("status", {"status": 400}, "permanent", "letta_rejected", 0),
    ("status", {"status": 302}, "retry", "letta_unreachable", 0),
    ("status", {"status": 405}, "retry", "letta_unreachable", 0),
    ("status", {"status": 423}, "retry", "letta_conflict", 0),
    ("status", {"status": 402}, "retry", "letta_out_of_credits", 0),
    ("out_of_credits", {}, "retry", "letta_out_of_credits", 0),
    ("status", {"status": 403, "detail": "Not enough credits."}, "retry", OUT_OF_CREDITS, 0),
    ("status", {"status": 429, "detail": "insufficient_quota"}, "retry", OUT_OF_CREDITS, 0),
    ("status", {"status": 400, "detail": "credit balance is too low"}, "retry", OUT_OF_CREDITS, 0),
    ("status", {"status": 400, "detail": "not enough credits"}, "permanent", "letta_rejected", 0),
    ("status", {"status": 503, "retry_after": 30}, "doubt", "letta_server_error", 0),
    ("status", {"status": 408}, "retry", "letta_timeout", 0),
    ("status", {"status": 499}, "doubt", "letta_server_error", 0),
    ("not_found", {}, "permanent", "agent_not_found", 0),
    ("unprocessable", {}, "permanent", "letta_rejected", 0),
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("fault", "params", "kind", "code", "stored"), SEND_FAULTS)
def test_a_fault_says_whether_it_may_have_arrived(
    sandbox: Sandbox,
    connect: Connect,
    fault: str,
    params: dict[str, object],
    kind: str,
    code: str,
    stored: int,
    streamed: bool,
) -> None:
    """Each fault of a send, into a conversation or not, has one kind and code, promises nothing
    false, and tells no secret."""
    slow = fault in ("hang", "drip")  # the others must not become slow on a busy machine
    deliverer = connect(sandbox.url, TOKEN, call_timeout=1.0 if slow else 30.0)
    deliverer.health()  # the SDK's import is not the call's
    agent_id = sandbox.agents[0]
    message = fresh(agent_id, sandbox.create_conversation(agent_id) if streamed else "default")
    if streamed and fault == "not_found":
        code = "conversation_not_found"
    sandbox.fault(fault, **params)
    began = time.monotonic()
    error = failure(kind, code, deliverer.send, message)
    assert time.monotonic() - began < 20
    sandbox.clear_faults()
    sandbox.finish_runs()
    assert sandbox.deliveries[message.agent_id, message.otid] == stored
    if stored:
        assert error.kind == "doubt"
    shown = f"{error!r} {error.hint} {error.details} {''.join(traceback.format_exception(error))}"
    assert TOKEN not in shown
    assert PROMPT not in shown
    assert sandbox.url in error.message
    assert error.status is None or str(error.status) in error.message


def test_every_fault_is_covered() -> None:
    """No fault of the sandbox goes without a test of what the deliverer makes of it."""
    assert set(FAULTS) - {f for f, *_ in SEND_FAULTS} == {
        "slow",
        "run_fails_before",
        "run_fails_after",
        "run_pending_approval",
        "run_stuck",
        "answers",
        "asks_approval",
        "answer_late",
        "answer_gone",
        "model_401",
        "model_402",
    }


@pytest.mark.parametrize(
    ("fault", "permanent", "busy", "stored"),
    [
        ("run_fails_before", False, False, 0),
        ("run_fails_after", False, False, 1),
        ("run_pending_approval", False, True, 0),
        ("model_401", True, False, 0),
        ("model_402", False, False, 0),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_failed_run_is_classified_by_its_error(
    sandbox: Sandbox,
    deliverer: LettaClient,
    streamed: bool,
    fault: str,
    permanent: bool,
    busy: bool,
    stored: int,
) -> None:
    """The run tells why it failed, alike for both ways to send, and the history what it left."""
    agent_id = sandbox.agents[0]
    conversation_id = sandbox.create_conversation(agent_id) if streamed else "default"
    message = fresh(agent_id, conversation_id)
    sandbox.fault(fault)
    run = ended(deliverer, deliverer.send(message).run_id)
    # In a conversation Letta calls that completed.
    assert run.status == ("completed" if streamed and stored else "failed")
    assert failures.run_failure_is_permanent(run.error) is permanent
    assert failures.run_failure_is_busy(run.error) is busy
    assert failures.run_failure_lacks_credits(run.error) is (fault == "model_402")
    in_history = deliverer.find(about(agent_id, message.otid), since())
    assert (in_history is not None) is bool(stored)


@pytest.mark.parametrize(
    ("error", "permanent", "credits"),
    [
        (None, False, False),
        ("", False, False),
        ("UNAUTHENTICATED: Authentication failed with Anthropic: no key", True, False),
        ("PAYMENT_REQUIRED: Insufficient credits: Error code: 402 - {'error': {}}", False, True),
        ("PAYMENT_REQUIRED: of whatever", False, True),
        ("BAD: Something with OpenAI: Error code: 402 - {}", False, True),
        ("BAD: Something with OpenAI: Error code: 401 - {}", True, False),
        ("BAD: OpenAI: Error code: 401 - {'code': 'insufficient_quota'}", True, False),
        ("RATE_LIMIT_EXCEEDED: Rate limited by OpenAI: Error code: 429 - {}", False, False),
        (
            "RATE_LIMIT_EXCEEDED: Rate limited by OpenAI: Error code: 429 - {'error': {'message': "
            "'You exceeded your current quota', 'code': 'insufficient_quota'}}",
            False,
            True,
        ),
        (
            "INVALID_ARGUMENT: Bad request to Anthropic: Error code: 400 - {'error': {'message': "
            "'Your credit balance is too low to access the Anthropic API.'}}",
            False,
            True,
        ),
        ("INTERNAL_SERVER_ERROR: OpenAI API error: Error code: 500 - {}", False, False),
        ("INTERNAL_SERVER_ERROR: x: Error code: 500 - {'m': 'Error code: 401'}", False, False),
    ],
)
def test_run_errors_of_the_model(error: str | None, permanent: bool, credits: bool) -> None:
    """Only the model's own refusal of the key is permanent; a want of credits passes by paying."""
    assert failures.run_failure_is_permanent(error) is permanent
    assert failures.run_failure_lacks_credits(error) is credits


@pytest.mark.parametrize("http_date", [False, True])
def test_retry_after_is_read_in_both_forms(
    sandbox: Sandbox, deliverer: LettaClient, http_date: bool
) -> None:
    """Seconds and an HTTP date both come out as seconds."""
    sandbox.fault("rate_limit", retry_after=90, http_date=http_date)
    error = failure("retry", "letta_rate_limited", deliverer.send, fresh(sandbox.agents[0]))
    assert error.retry_after is not None
    assert 88 <= error.retry_after <= 91


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "Tue, 99 Foo 2026"])
def test_a_senseless_retry_after_is_no_answer(value: str) -> None:
    """What is neither seconds nor a date is ignored."""
    assert retry_after({"retry-after": value}) is None


READ_FAULTS = {
    "garbage": "letta_unreadable",
    "wrong_shape": "letta_unreadable",
    "server_error": "letta_server_error",
    "refuse": "letta_connection_lost",
}


@pytest.mark.parametrize("route", ["runs", "run", "messages", "agents", "agent", "health"])
@pytest.mark.parametrize("fault", READ_FAULTS)
def test_reads_that_fail_have_no_answer(
    sandbox: Sandbox, connect: Connect, route: str, fault: str
) -> None:
    """No read turns a fault into an empty answer, nor lets anything but its own error out."""
    agent_id = sandbox.agents[0]
    deliverer = connect(sandbox.url, call_timeout=60)
    run_id = str(deliverer.send(fresh(agent_id)).run_id)
    sandbox.finish_runs()
    calls: dict[str, Callable[[], object]] = {
        "runs": lambda: deliverer.active_runs(about(agent_id)),
        "run": lambda: deliverer.run(run_id),
        "messages": lambda: deliverer.find(about(agent_id, "o"), since()),
        "agents": deliverer.agents,
        "agent": lambda: deliverer.agent(agent_id),
        "health": deliverer.health,
    }
    sandbox.fault(fault, route=route)
    failure("doubt", READ_FAULTS[fault], calls[route])


def test_nobody_listens(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """A refused connection is certain not to have delivered anything."""
    sandbox.stop()
    error = failure("retry", "letta_unreachable", deliverer.send, fresh(sandbox.agents[0]))
    assert "connection refused" in error.message


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing name resolution is certain not to have delivered anything."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    deliverer = LettaClient("http://letta.invalid:8283")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure("retry", "letta_unreachable", deliverer.health)
    assert "name is not known" in error.message


def test_what_cannot_be_written_is_permanent(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """A text that no JSON can carry leaves no byte on the wire, and no doubt."""
    for agent_id, text in ((sandbox.agents[0], "\ud800"), ("", "x")):
        message = Message(agent_id, "default", text, "o")
        failure("permanent", "letta_rejected", deliverer.send, message)


@pytest.mark.parametrize("conversation", [False, True])
def test_a_client_that_does_not_fit_is_no_fault_of_the_prompt(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch, conversation: bool
) -> None:
    """letta-client 1.7.4 to 1.7.6 name an argument differently: such a TypeError sends nothing, and
    must not be taken for a prompt that Letta refuses."""
    from letta_client.resources.agents.messages import MessagesResource as Plain
    from letta_client.resources.conversations.messages import (
        MessagesResource as Conversed,
    )

    def named_differently(self: object, id_: str, *, message: object = None) -> None:
        raise AssertionError("it isn't even called")

    monkeypatch.setattr(Plain, "create_async", named_differently)
    monkeypatch.setattr(Conversed, "create", named_differently)
    deliverer = connect(sandbox.url, TOKEN)
    agent_id = sandbox.agents[0]
    message = fresh(agent_id, sandbox.create_conversation(agent_id) if conversation else "default")
    error = failure("retry", "letta_client_unfit", deliverer.send, message)
    assert "TypeError" in error.message
    assert "unexpected keyword argument" in (error.detail or "")
    assert "!=1.7.4,!=1.7.5,!=1.7.6" in error.hint
    assert not sandbox.deliveries


def test_an_sdk_that_is_missing_is_no_fault_of_the_prompt(
    sandbox: Sandbox, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, and the same prompt can be sent once it is there."""
    monkeypatch.setitem(sys.modules, "letta_client", None)
    failure("retry", "letta_client_unfit", deliverer.send, fresh(sandbox.agents[0]))


def test_an_sdk_whose_answer_cannot_be_read_leaves_it_in_doubt(
    sandbox: Sandbox, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug after the request was written proves nothing about what has arrived."""
    deliverer.health()

    from letta_client._response import APIResponse

    def broken(*_: object, **__: object) -> object:
        raise AttributeError("no such thing")

    monkeypatch.setattr(APIResponse, "__init__", broken)
    failure("doubt", "letta_client_unfit", deliverer.send, fresh(sandbox.agents[0]))


def test_the_pin_leaves_out_clients_that_do_not_fit() -> None:
    """No release of the SDK that can't deliver satisfies our requirement."""
    root = Path(letta.__file__).parents[3]
    pin = re.search(r'"letta-client(.*)"', (root / "pyproject.toml").read_text())
    assert pin is not None
    assert pin[1] == ">=1.7,<2" + "".join(f",!={version}" for version in UNFIT_CLIENTS)
    assert UNFIT_CLIENTS == ("1.7.4", "1.7.5", "1.7.6")


def test_an_agents_name_is_told_from_an_id(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """Letta answers 422 to what can't be an id of its own; the error says what is probably wrong,
    in a conversation's place too."""
    error = failure("permanent", "agent_not_found", deliverer.send, fresh("echo"))
    assert error.status == 422
    assert "Letta has no agent with that id; is it a name?" in error.message
    assert "'echo'" in error.message
    assert "promptyoself agents" in error.hint
    message = fresh(sandbox.agents[0], "talk")
    error = failure("permanent", "conversation_not_found", deliverer.send, message)
    assert "no conversation with that id" in error.message


BODIES = [
    ({"detail": "psycopg2.OperationalError: too many clients"}, "psycopg2.OperationalError"),
    ({"detail": f"boom {TOKEN}\n\x1b[31mTraceback"}, "boom ***"),
    ({"detail": f"could not parse {PROMPT!r}"}, "could not parse"),
]


@pytest.mark.parametrize(("params", "begins"), BODIES)
def test_what_a_server_says_is_kept_in_an_excerpt(
    sandbox: Sandbox, connect: Connect, params: dict[str, str], begins: str
) -> None:
    """P9: of a 500's body a line is kept, without a secret or the prompt."""
    register_secrets(TOKEN)
    deliverer = connect(sandbox.url, TOKEN)
    sandbox.fault("server_error", **params)
    error = failure("doubt", "letta_server_error", deliverer.send, fresh(sandbox.agents[0]))
    shown = excerpt(error.detail or "", PROMPT)
    assert shown.startswith(begins)
    assert TOKEN not in shown
    assert PROMPT not in shown
    assert shown.isprintable()
    assert len(shown) <= 200
    assert len(excerpt("x" * 5000, PROMPT)) == 200


def test_what_is_not_lettas_is_kept_too(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """P9: an answer that can't be read tells its status and its beginning."""
    for fault, detail in (("garbage", "<html>It works!</html>"), ("wrong_shape", '["this", ')):
        sandbox.fault(fault)
        error = failure("doubt", "letta_unreadable", deliverer.send, fresh(sandbox.agents[0]))
        assert error.status == 200
        assert (error.detail or "").startswith(detail)


def test_a_restarted_server_is_found_again(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """Kept connections that died with the server do not spoil the next call."""
    first, second = fresh(sandbox.agents[0]), fresh(sandbox.agents[0])
    deliverer.send(first)
    sandbox.finish_runs()
    sandbox.stop()
    sandbox.start()
    deliverer.send(second)
    sandbox.finish_runs()
    assert set(sandbox.deliveries.values()) == {1}
    assert len(sandbox.deliveries) == 2


def test_a_closed_deliverer_opens_again(deliverer: LettaClient) -> None:
    """Closing lets go of connections only."""
    for _ in range(2):
        assert deliverer.health()
        deliverer.close()


def test_many_threads_at_once() -> None:
    """64 threads share one client: each message arrives once, and deadlines do not mix."""
    with Sandbox([f"a{n}" for n in range(64)], latency=0.01) as sandbox:
        deliverer = LettaClient(sandbox.url, call_timeout=60)
        with ThreadPoolExecutor(64) as pool:
            runs = list(pool.map(lambda a: deliverer.send(fresh(a)).run_id, sandbox.agents))
        sandbox.finish_runs()
        assert len(set(runs)) == 64
        assert list(sandbox.deliveries.values()) == [1] * 64
        assert sandbox.overlaps == 0
        deliverer.close()


def test_a_large_prompt_is_sent_whole(sandbox: Sandbox, deliverer: LettaClient) -> None:
    """A mebibyte of text arrives unabridged."""
    deliverer.send(Message(sandbox.agents[0], "default", "x" * 2**20, "o"))
    sandbox.finish_runs()
    assert len(sandbox.messages(sandbox.agents[0])[0].text) == 2**20


# --- whose server, whose token --------------------------------------------------------------------


def test_the_token_is_the_callers_only(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The given token opens the server; one of the environment is never sent unasked."""
    monkeypatch.setenv("LETTA_API_KEY", TOKEN)
    with Sandbox(token=TOKEN) as sandbox:
        assert len(connect(sandbox.url, TOKEN).agents()) == 1
        for deliverer in (connect(sandbox.url), connect(sandbox.url, "tok-wrong")):
            assert deliverer.health()  # Letta tells it to anybody
            error = failure("unauthorized", "letta_unauthorized", deliverer.agents)
            assert error.status == 401
            assert "tok-" not in f"{error!r}{error.hint}"


def test_proxies_of_the_environment_are_not_asked(
    deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent once goes straight to the server that was named."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert deliverer.health()


@pytest.mark.parametrize("url", ["", "localhost:8283", "ftp://x", "http://", "http://x:port", "/x"])
def test_a_base_url_must_be_one(url: str) -> None:
    """What is no HTTP URL is refused before anything is tried."""
    with pytest.raises(PromptyoselfError) as caught:
        LettaClient(url)
    assert caught.value.code == "invalid_base_url"


def test_a_token_must_fit_a_header() -> None:
    """A token with a line end inside is refused, without being repeated."""
    with pytest.raises(PromptyoselfError) as caught:
        LettaClient("http://localhost", "tok-\nX: y")
    assert caught.value.code == "invalid_token"
    assert "tok-" not in f"{caught.value.message}{caught.value.hint}"


def test_a_password_in_the_url_is_not_shown(sandbox: Sandbox) -> None:
    """User information of the base URL is used, and left out of messages."""
    sandbox.stop()
    deliverer = LettaClient(sandbox.url.replace("//", "//me:tok-secret@"))
    error = failure("retry", "letta_unreachable", deliverer.health)
    assert "tok-secret" not in f"{error!r}{error.hint}{error.details}"


def test_prompts_are_not_logged(
    sandbox: Sandbox, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where everything is logged, the SDK's own log lines hold no prompt and no token."""
    with caplog.at_level(logging.DEBUG):
        deliverer = connect(sandbox.url, TOKEN)
        deliverer.send(fresh(sandbox.agents[0]))
    assert PROMPT not in caplog.text
    assert TOKEN not in caplog.text


def test_importing_costs_nothing() -> None:
    """Importing the module loads neither the SDK nor its HTTP library."""
    code = (
        "import sys, promptyoself.targets.letta; "
        "print(sorted({'letta_client','httpx'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_tls_that_fails_is_not_a_delivery(sandbox: Sandbox, connect: Connect) -> None:
    """Where no TLS comes about, nothing can have been received."""
    port = sandbox.url.rpartition(":")[2]
    deliverer = connect(f"https://127.0.0.1:{port}", call_timeout=60)
    failure("retry", "letta_unreachable", deliverer.send, fresh(sandbox.agents[0]))


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_certificates_are_verified(
    tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without proof of its name gets nothing; SSL_CERT_FILE can vouch for one."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Sandbox() as sandbox:
        assert sandbox._server is not None
        # Shaken in the handler's thread, so that a failing handshake ends that connection only.
        sandbox._server.socket = context.wrap_socket(
            sandbox._server.socket, server_side=True, do_handshake_on_connect=False
        )
        url = sandbox.url.replace("http:", "https:")
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        failure("retry", "letta_unreachable", connect(url, call_timeout=60).health)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        deliverer = connect(url, call_timeout=60)
        run_id = deliverer.send(fresh(sandbox.agents[0])).run_id
        assert ended(deliverer, run_id).status == "completed"
