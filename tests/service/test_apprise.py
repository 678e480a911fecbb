"""Notices through Apprise, the real one: what its services get, and how it fails."""

import logging
import time
from datetime import UTC, datetime

import pytest
from webhooks import Answer, Fault, Webhook, webhook

from promptyoself.core.setting_values import Destination
from promptyoself.service.notices import services
from promptyoself.service.notices.senders import Notice, NoticeError, send

NOTICE = Notice(
    "ntc_0123456789abcdef",
    "reply",
    "2026-11-29T08:00:00.000000Z",
    "The agent answered @everyone\nhttps://x.example",
    "It said:\n> breakfast *now* <b>",
    {"text": "for webhooks"},
)


def address(hook: Webhook) -> str:
    """Where Apprise's service for JSON takes the place of a chat."""
    return hook.url.replace("http://", "json://user:p4ssword@") + "/s3cr3t99"


def sent(hook: Webhook, timeout: float = 10) -> int | None:
    destination = Destination("chat", address(hook))
    return send(destination, NOTICE, timeout=timeout, now=datetime.now(UTC))


def refused(hook: Webhook, timeout: float = 10) -> NoticeError:
    with pytest.raises(NoticeError) as caught:
        sent(hook, timeout)
    everything = f"{caught.value.document()}"
    assert not [secret for secret in ("p4ssword", "s3cr3t99") if secret in everything]
    return caught.value


def test_a_service_gets_the_words_as_plain_text_and_the_id() -> None:
    with webhook() as hook:
        assert sent(hook) is None
    (request,) = hook.received
    assert request.json["message"] == f"{NOTICE.text}\n\n{NOTICE.id}"
    assert request.json["title"] == "The agent answered [@]everyone\\nhttps[:]//x[.]example"


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (Answer(404, body=b"s3cr3t99"), "destination_refused", 404),
        (Answer(503), "destination_failed", 503),
        (Answer(302, {"Location": "/elsewhere"}), "destination_failed", 302),
        ("lost", "destination_failed", None),
    ],
)
def test_each_refusal_has_its_code(answer: Answer | Fault, code: str, status: int | None) -> None:
    with webhook() as hook:
        hook.always = answer
        error = refused(hook)
        assert [request.path for request in hook.received] == ["/hook/s3cr3t99"]
    assert (error.code, error.kind, error.status) == (code, "retry", status)
    assert error.details["said"]
    assert "breakfast" not in f"{error.document()}"


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_nobody_waits_longer_than_the_time_limit(fault: Fault) -> None:
    with webhook() as hook:
        hook.plan(fault)
        begun = time.monotonic()
        assert refused(hook, 0.3).code == "destination_timeout"
        assert time.monotonic() - begun < 20


def test_what_is_not_there_is_told() -> None:
    with webhook() as hook:
        pass
    error = refused(hook)
    assert error.code == "destination_failed"
    assert "***" in error.details["said"], "Apprise says the host, which may be a key"
    assert "127.0.0.1" not in f"{error.document()}"


def test_an_address_of_no_service_is_told() -> None:
    destination = Destination("chat", "nonsense://s3cr3t99")
    with pytest.raises(NoticeError) as caught:
        send(destination, NOTICE, timeout=10, now=datetime.now(UTC))
    assert caught.value.code == "invalid_destination"
    assert "s3cr3t99" not in f"{caught.value.document()}"


def test_what_apprise_logs_stays_here(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It has addresses in it, and so has what its library for HTTP logs."""
    with webhook() as hook, caplog.at_level(logging.DEBUG):
        for answer in (Answer(500), Answer(204)):
            hook.plan(answer)
            if answer.status == 500:
                refused(hook)
            else:
                sent(hook)
    lines = [record.getMessage() for record in caplog.records]
    assert not [line for line in lines if "s3cr3t99" in line]
    assert not logging.getLogger("apprise").propagate
    assert capfd.readouterr().err == ""


def test_a_long_notice_is_cut_to_what_the_service_takes() -> None:
    """Telegram takes 4096 characters, and would refuse a longer notice for ever."""
    chat = services._apprise("tgram://123456789:AAG9abcdefghijklmnopqrstuvwxyzABCDE/-100123")
    assert chat is not None
    (service,) = chat
    assert [
        len(part["body"]) <= 4096 for part in service._apply_overflow(body="x" * 9000, title="t")
    ] == [True]


def test_without_the_package_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_spec", lambda _: None)
    with pytest.raises(NoticeError) as caught:
        send(Destination("chat", "json://h"), NOTICE, timeout=1, now=datetime.now(UTC))
    error = caught.value
    assert (error.code, error.kind) == ("apprise_not_installed", "retry")
    assert "pip install 'apprise" in error.hint
