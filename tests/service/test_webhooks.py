"""Notices over HTTP: what a webhook gets, and every way in which it may fail to take one."""

import re
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from app_servers import free_port
from standardwebhooks.webhooks import Webhook as Verifier

from promptyoself.core.setting_values import Destination
from promptyoself.service.notices.senders import Notice, NoticeError, send
from promptyoself.service.notices.webhook import signature
from tests.support.webhooks import Answer, Fault, Webhook, webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOTICE = Notice(
    "ntc_0123456789abcdef",
    "reply",
    "2026-11-29T08:00:00.000000Z",
    "The agent answered “breakfast”",
    "> I had [@]everyone over.",
    {"schedule": "sch_1", "excerpt": "a\tb\nc\x00\x1b[31m\ud800", "deep": [{"text": "\x07!"}]},
)


def sent(hook: Webhook, *, timeout: float = 5.0, secret: str | None = SECRET) -> int | None:
    destination = Destination("ops", f"{hook.url}/k3yk3y?token=s3cr3t", secret)
    return send(destination, NOTICE, timeout=timeout, now=datetime.now(UTC))


def refused(hook: Webhook, *, timeout: float = 5.0) -> NoticeError:
    with pytest.raises(NoticeError) as caught:
        sent(hook, timeout=timeout)
    everything = f"{caught.value.document()}"
    assert not [secret for secret in ("k3yk3y", "s3cr3t", SECRET) if secret in everything]
    assert caught.value.details["destination"] == "ops"
    return caught.value


def test_the_published_example_is_signed_as_published() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, in its libraries' tests."""
    body = b'{"test": 2432232314}'
    assert (
        signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_webhook_gets_json_that_its_receiver_can_verify() -> None:
    with webhook() as hook:
        assert sent(hook) == 204
    (request,) = hook.received
    assert Verifier(SECRET).verify(request.body, request.headers) == request.json
    assert request.path == "/hook/k3yk3y?token=s3cr3t"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("promptyoself/")
    assert request.id == NOTICE.id
    assert request.json == {
        "id": NOTICE.id,
        "type": "notice.reply",
        "timestamp": NOTICE.at,
        "title": NOTICE.title,
        "data": {"schedule": "sch_1", "excerpt": "a\tb\nc[31m\ufffd", "deep": [{"text": "!"}]},
    }


def test_the_documented_check_of_a_signature_holds() -> None:
    """docs/howto/notices.md has a function for receivers, which people copy."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "notices.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    is_ours = names["is_ours"]
    with webhook() as hook:
        sent(hook)
    (request,) = hook.received
    headers = request.headers
    assert is_ours(SECRET, headers, request.body)
    assert not is_ours(SECRET, headers, request.body + b" ")
    assert not is_ours("whsec_" + "A" * 32, headers, request.body)
    assert not is_ours(SECRET, headers | {"webhook-id": "ntc_another"}, request.body)
    late = signature(SECRET, NOTICE.id, 1, request.body)
    old = {"webhook-timestamp": "1", "webhook-signature": late}
    assert not is_ours(SECRET, headers | old, request.body)


def test_the_documented_receiver_takes_a_notice() -> None:
    """docs/howto/notices.md has one for who has none at hand."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "notices.md").read_text()
    (script,) = re.findall(r"^```sh\n(python3 -c .*?)^```", page, re.MULTILINE | re.DOTALL)
    port = free_port()
    command = ["sh", "-c", "PYTHONUNBUFFERED=1 exec " + script.replace("8099", str(port))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as receiver:
        assert receiver.stdout is not None
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with suppress(NoticeError):
                    destination = Destination("here", f"http://127.0.0.1:{port}")
                    assert send(destination, NOTICE, timeout=60, now=datetime.now(UTC)) == 204
                    break
                time.sleep(0.05)
        finally:
            receiver.terminate()
        assert NOTICE.id.encode() in receiver.stdout.read()


def test_another_secret_or_body_does_not_verify() -> None:
    with webhook() as hook:
        sent(hook)
    (request,) = hook.received
    for secret, body in (("whsec_AAAA", request.body), (SECRET, request.body + b" ")):
        with pytest.raises(Exception, match="signature"):
            Verifier(secret).verify(body, request.headers)


def test_without_a_secret_nothing_is_signed() -> None:
    with webhook() as hook:
        sent(hook, secret=None)
    assert "webhook-signature" not in hook.received[0].headers


@pytest.mark.parametrize(
    ("answer", "code", "kind", "retry_after"),
    [
        (Answer(400), "destination_refused", "retry", None),
        (Answer(401, body=b"no key"), "destination_refused", "retry", None),
        (Answer(404), "destination_refused", "retry", None),
        (Answer(410), "destination_refused", "permanent", None),
        (Answer(429, {"Retry-After": "7"}), "destination_refused", "retry", 7.0),
        (Answer(500), "destination_failed", "retry", None),
        (Answer(503, {"Retry-After": "120"}), "destination_failed", "retry", 120.0),
        (Answer(301, {"Location": "/k3yk3y/s3cr3t"}), "destination_redirects", "retry", None),
        (Answer(308, {"Location": "//u:s3cr3t@x.example"}), "destination_redirects", "retry", None),
        (Answer(302, {"Location": "http://[k3yk3y"}), "destination_redirects", "retry", None),
        (Answer(302, {"Location": "//k3yk3y.example"}), "destination_redirects", "retry", None),
        (
            Answer(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 -9999999999999"}),
            *("destination_refused", "retry", None),
        ),
        (Answer(304), "destination_refused", "retry", None),
        (Answer(404, {"Content-Encoding": "gzip"}, b"junk"), "destination_refused", "retry", None),
    ],
)
def test_each_refusal_has_its_code(
    answer: Answer, code: str, kind: str, retry_after: float | None
) -> None:
    with webhook() as hook:
        hook.plan(answer)
        error = refused(hook)
    assert (error.code, error.kind, error.status) == (code, kind, answer.status)
    assert error.retry_after == retry_after
    assert error.details["http_status"] == answer.status
    assert len(hook.received) == 1, "no redirect is followed, and nothing is tried again here"


def test_what_a_refusal_says_is_kept_without_secrets_and_bounded() -> None:
    with webhook() as hook:
        said = b"no: token=s3cr3t \x1b[2J " + SECRET.encode() + b" " + b"x" * 9000
        hook.plan(Answer(403, body=said))
        error = refused(hook)
    assert error.details["said"].startswith("no: ***=*** [2J *** xxx")
    assert len(error.details["said"]) <= 200
    assert error.details["said"].isprintable()


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_one_deadline_bounds_the_whole_of_it(fault: Fault) -> None:
    with webhook() as hook:
        hook.plan(fault)
        begun = time.monotonic()
        error = refused(hook, timeout=0.3)
    assert time.monotonic() - begun < 20
    assert (error.code, error.kind) == ("destination_timeout", "retry")


@pytest.mark.parametrize("fault", ["lost", "dropped"])
def test_a_lost_answer_is_told_from_one_that_was_never_there(fault: Fault) -> None:
    with webhook() as hook:
        hook.plan(fault)
        assert refused(hook).code == "destination_connection_lost"


def test_what_is_not_there_is_unreachable() -> None:
    with webhook() as hook:
        pass
    error = refused(hook)
    assert (error.code, error.kind) == ("destination_unreachable", "retry")
    assert "connection refused" in error.message
    with pytest.raises(NoticeError, match="its name is not known"):
        send(
            Destination("ops", "http://nowhere.invalid/x"),
            NOTICE,
            timeout=5,
            now=datetime.now(UTC),
        )


def test_a_taken_notice_is_taken_whatever_comes_behind_the_status() -> None:
    with webhook() as hook:
        hook.plan(Answer(200, {"Content-Encoding": "br"}, b"\0" * 100_000))
        assert sent(hook) == 200


def test_a_certificate_that_nobody_signed_is_told_as_such(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with webhook(context) as hook:
        error = refused(hook)
    assert error.code == "destination_unreachable"
    assert "certificate" in error.message
    assert not hook.received


def test_http_behind_https_is_told_as_such() -> None:
    with webhook() as hook:
        hook.url = hook.url.replace("http://", "https://")
        error = refused(hook)
    assert error.code == "destination_unreachable"
    assert "TLS" in error.message


def test_notices_are_sent_by_several_threads_at_once() -> None:
    with webhook() as hook:
        hook.always = Answer(delay=0.1)
        threads = [threading.Thread(target=sent, args=(hook,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(hook.received) == 8
