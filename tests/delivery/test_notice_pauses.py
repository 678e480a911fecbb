"""A destination that takes nothing is let alone, by passes too, which each know only what others
have left."""

import time
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from dispatch import Place
from test_notifier import define, execute, hook, place, told  # noqa: F401 (fixtures too)
from webhooks import Answer, Fault, Received, Webhook, webhook

from promptyoself.core.setting_values import Destination

FIVE_MINUTES = timedelta(minutes=5)


def passes(place: Place, number: int, step: timedelta = timedelta(minutes=1)) -> float:
    """Make this number of passes, as cron does, each with a prompt of its own whose answer is to
    be told. Returns the seconds that they took."""
    began = time.monotonic()
    for _ in range(number):
        place.register(1, prompt_of=f"at {place.now()}", time="in 1s", reply_to="ops")
        execute(place)
        place.ahead += step
    return time.monotonic() - began


def test_a_destination_that_never_answers_costs_few_passes_its_time_limit(
    place: Place, hook: Webhook
) -> None:
    """The pauses grow from pass to pass, though each has another notice for it."""
    hook.always = "silent"
    place.store.settings = place.settings._replace(call_timeout=0.3)
    passes(place, 20)
    hook.ending.set()
    assert 1 <= len(hook.received) <= 10
    assert place.types()["delivery.replied"] == 20


def test_once_it_takes_notices_again_they_all_come(place: Place, hook: Webhook) -> None:
    hook.plan(*[Answer(503)] * 4)
    passes(place, 6)
    passes(place, 6, FIVE_MINUTES)
    place.ahead += timedelta(hours=1)
    for _ in range(3):
        execute(place)
        place.ahead += FIVE_MINUTES
    assert not place.store.read().state.notices
    assert len(set(hook.ids)) == 12
    assert not (place.var / "notices.json").exists(), "nothing is left to be known"


def test_other_destinations_do_not_wait(place: Place, hook: Webhook) -> None:
    with webhook() as other:
        define(place, ops=Destination("ops", hook.url), me=Destination("me", other.url))
        hook.always = Answer(500)
        passes(place, 3)
        place.register(1, prompt_of="other", time="in 1s", reply_to="me")
        execute(place)
        assert len(other.received) == 1


def test_a_digest_that_nobody_takes_is_not_sent_each_minute(place: Place, hook: Webhook) -> None:
    at = f"{place.now():%H:%M} UTC"
    define(place, ops=Destination("ops", hook.url, digest=at))
    hook.always = Answer(500)
    for _ in range(30):
        execute(place)
        place.ahead += timedelta(minutes=1)
    assert 4 <= len(hook.received) <= 12
    assert [event["data"]["tries"] for event in told(place)] == list(range(1, len(hook.ids) + 1))


class Picky(Webhook):
    """Takes everything but digests."""

    def answer_to(self, request: Received) -> Answer | Fault:
        super().answer_to(request)
        return Answer(413) if request.json["type"] == "notice.digest" else Answer()


def test_a_digest_that_alone_is_refused_is_not_sent_each_minute(place: Place) -> None:
    """Nor does it hold up the others, which the destination takes. Once it is taken, there is no
    file any more."""
    with webhook(kind=Picky) as picky:
        at = f"{place.now():%H:%M} UTC"
        define(place, ops=Destination("ops", picky.url, digest=at))
        passes(place, 16)
        tries = tries_of_digests(place)
    assert tries == list(range(1, len(tries) + 1))
    assert 4 <= len(tries) <= 10
    assert place.types()["notice.sent"] >= 12, "the latest may be left"
    with webhook() as other:
        define(place, ops=Destination("ops", other.url, digest=at))
        place.ahead += timedelta(minutes=20)
        for _ in range(3):
            execute(place)
        assert "notice.digest" in [request.json["type"] for request in other.received]
    assert tries_of_digests(place) == [*tries, len(tries) + 1]
    assert not (place.var / "notices.json").exists()


def tries_of_digests(place: Place) -> list[int]:
    datas = [event["data"] for event in told(place)]
    return [data["tries"] for data in datas if data["kind"] == "digest"]


def test_tries_of_a_digest_count_on_though_the_settings_were_changed(
    place: Place, hook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is tried at once then. A file of a former version, which has no tries, counts too, and one
    with tries that there can't have been counts as none."""
    define(place, ops=Destination("ops", hook.url, digest=f"{place.now():%H:%M} UTC"))
    hook.always = Answer(503, {"Retry-After": "7200"})
    execute(place)
    settings = tmp_path / ".env"
    settings.write_text("")
    monkeypatch.setattr("promptyoself.service.notices.pauses.settings_path", lambda: settings)
    execute(place)
    assert [event["data"]["tries"] for event in told(place)] == [1, 2]
    file = place.var / "notices.json"
    content = orjson.loads(file.read_bytes())
    tried = content.pop("digests")
    file.write_bytes(orjson.dumps(content))
    execute(place)
    assert len(hook.received) == 2
    tried["ops"]["tries"] = 1e30
    file.write_bytes(orjson.dumps({**content, "digests": tried}))
    execute(place)
    assert [event["data"]["tries"] for event in told(place)] == [1, 2, 1]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format":1}', b'{"format":2,"pauses":{}}', b"\xff" * 9, None],
)
def test_a_file_that_says_nothing_is_as_none(
    place: Place, hook: Webhook, content: bytes | None
) -> None:
    """Also one that says too much, a folder, or one that is of other destinations by now."""
    hook.plan(Answer(503, {"Retry-After": "7200"}))
    passes(place, 1, timedelta(0))
    file = place.var / "notices.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert hook.url.encode() not in file.read_bytes()
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content)
    passes(place, 1)
    assert len(hook.received) == 2
    assert len([event for event in told(place) if event["type"] == "notice.sent"]) == 1


def test_a_destination_that_was_changed_is_tried_at_once(
    place: Place, hook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be what was wrong with it that has changed."""
    hook.plan(Answer(503, {"Retry-After": "7200"}))
    passes(place, 1, timedelta(0))
    passes(place, 1, timedelta(0))
    assert len(hook.received) == 1
    settings = tmp_path / ".env"
    settings.write_text("")
    monkeypatch.setattr("promptyoself.service.notices.pauses.settings_path", lambda: settings)
    passes(place, 1, timedelta(0))
    assert len(hook.received) >= 2


def test_a_pause_of_a_clock_that_was_ahead_is_over(place: Place, hook: Webhook) -> None:
    place.ahead = timedelta(days=30)
    hook.plan(Answer(503))
    passes(place, 1)
    content = orjson.loads((place.var / "notices.json").read_bytes())
    assert content["pauses"]["ops"]["failures"] == 1
    place.ahead = timedelta(0)
    passes(place, 1)
    assert len(hook.received) >= 2


def test_the_first_digest_is_sent_again_though_it_is_late_by_then(
    place: Place, hook: Webhook
) -> None:
    """Only one that nobody has tried comes at most an hour late."""
    define(place, ops=Destination("ops", hook.url, digest=f"{place.now():%H:%M} UTC"))
    hook.plan(Answer(503))
    execute(place)
    place.ahead += timedelta(hours=3)
    execute(place)
    assert tries_of_digests(place) == [1, 2]
    assert len(set(hook.ids)) == 1
    assert told(place)[-1]["type"] == "notice.sent"
