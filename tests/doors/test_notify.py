"""`notify`: adding, listing, trying and removing destinations, and what nobody is shown of them."""

from pathlib import Path
from typing import Any

import pytest
from calling import add, call
from installed import converse, environ_of, home, place  # noqa: F401
from standardwebhooks.webhooks import Webhook as Verifier
from webhooks import Answer, webhook

from promptyoself.core.setting_values import Destination
from promptyoself.core.settings import read_file
from promptyoself.doors.agent_names import remember_names
from promptyoself.rules.health import destinations_in_use, refusing
from promptyoself.service.notices import destinations, services
from promptyoself.state.schedules import EMPTY, OwedNotice

HOOK = "https://hooks.example.org/k3yk3y-12345/x?token=s3cr3t99"
FORMS = ("json", "table")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def file_of(home: Path) -> Path:
    return home / ".config" / "promptyoself" / ".env"


def values(home: Path) -> dict[str, str]:
    return {name: entry.value for name, entry in read_file(file_of(home)).items()}


def listed() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in call("notify").success()["destinations"]}


def test_a_webhook_is_added_with_a_secret_that_is_shown_once(home: Path, var: Path) -> None:
    answer = call("notify", "add", "ops", HOOK)
    assert b"k3yk3y" not in answer.out
    document = answer.success()
    secret = document["secret"]
    assert secret.startswith("whsec_")
    assert (document["kind"], document["address"]) == ("webhook", "https://hooks.example.org")
    assert (document["changed"], document["replaced"]) == (True, False)
    assert values(home) == {
        "PROMPTYOSELF_DESTINATION_OPS": HOOK,
        "PROMPTYOSELF_WEBHOOK_SECRET_OPS": secret,
    }
    assert file_of(home).stat().st_mode & 0o777 == 0o600
    for words in (["notify"], ["notify", "list"], ["config"], ["doctor", "--skip-letta"]):
        for form in ("json", "table"):
            told = call(*words, "--format", form)
            for hidden in (HOOK, "k3yk3y", "s3cr3t99", secret):
                assert hidden not in told.out.decode() + told.err
    entry = listed()["ops"]
    assert entry == {
        "name": "ops", "kind": "webhook", "address": "https://hooks.example.org", "signed": True,
        "schedules": 0, "owed": 0,
    }  # fmt: skip


def test_other_kinds_have_no_secret(home: Path, var: Path) -> None:
    answer = call("notify", "add", "boss", "agent:agent-7").success()
    assert (answer["kind"], answer["address"]) == ("agent", "agent:agent-7")
    assert "secret" not in answer
    answer = call("notify", "add", "phone", "json://user:p4ssword@example.org/t0p1c").success()
    assert (answer["kind"], answer["address"]) == ("apprise", "json://")
    assert "secret" not in answer
    error = call("notify", "add", "x", "agent:agent-7", "--secret", SECRET)
    assert error.error("invalid_destination")["hint"].startswith("Leave it out")
    assert list(listed()) == ["boss", "phone"]


def test_an_own_secret_is_taken_and_not_shown(home: Path) -> None:
    answer = call("notify", "add", "ops", HOOK, "--secret", SECRET)
    assert "secret" not in answer.success()
    assert values(home)["PROMPTYOSELF_WEBHOOK_SECRET_OPS"] == SECRET


def test_an_address_comes_over_stdin(home: Path) -> None:
    answer = call("notify", "add", "ops", "-", stdin=HOOK.encode() + b"\n")
    answer.success()
    assert values(home)["PROMPTYOSELF_DESTINATION_OPS"] == HOOK


def test_a_person_is_asked_for_the_address_and_does_not_see_it(home: Path, place: Path) -> None:
    answer = converse(
        "notify", "add", "ops",
        environ=environ_of(place, home), replies=[("address of ops", HOOK)],
    )  # fmt: skip
    assert "k3yk3y" not in answer.err
    assert answer.success()["kind"] == "webhook"


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["add", "ops"], "missing_option", 2),
        (["add", "Ops", HOOK], "invalid_destination", 1),
        (["add", "9", HOOK], "invalid_destination", 1),
        (["add", "a" * 41, HOOK], "invalid_destination", 1),
        (["add", "ops", "hooks.example.org/s3cr3t99"], "invalid_destination", 1),
        (["add", "ops", "https://user:s3cr3t99/@h/x"], "invalid_destination", 1),
        (["add", "ops", "nonsense://s3cr3t99"], "invalid_destination", 1),
        (["add", "ops", "slack://s3cr3t99"], "invalid_destination", 1),
        (["add", "ops", "agent:"], "invalid_destination", 1),
        (["add", "ops", ""], "invalid_destination", 1),
        (["add", "ops", HOOK, "--secret", "s3cr3t99"], "invalid_destination", 1),
        (["test", "ops"], "unknown_destination", 1),
        (["remove", "ops"], "unknown_destination", 1),
        (["digest", "ops", "--off"], "unknown_destination", 1),
        (["digest", "ops"], "missing_option", 2),
        (["digest", "ops", "--off", "--at", "08:00"], "conflicting_options", 2),
        (["addd"], "unknown_command", 2),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    home: Path, var: Path, words: list[str], code: str, exit_code: int
) -> None:
    answer = call("notify", *words)
    error = answer.error(code, exit_code)
    assert error["hint"]
    assert b"s3cr3t99" not in answer.out
    assert not file_of(home).exists()


def test_an_address_in_the_place_of_a_name_is_not_shown(home: Path, var: Path) -> None:
    """It is what people forget first, and errors are pasted elsewhere."""
    register = ("register", "--agent-id", "agent-7", "--prompt", "p", "--every", "1h")
    for words, code in (
        (("notify", "add", HOOK), "invalid_destination"),
        (("notify", "test", HOOK), "unknown_destination"),
        (("notify", "remove", HOOK), "unknown_destination"),
        ((*register, "--reply-to", HOOK), "unknown_destination"),
        ((*register, "--on-failure", HOOK), "unknown_destination"),
    ):
        answer = call(*words)
        assert answer.error(code)["hint"]
        assert b"k3yk3y" not in answer.out


def test_an_unknown_name_comes_with_those_that_there_are(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    error = call("notify", "test", "opps").error("unknown_destination")
    assert error["candidates"] == ["ops"]
    assert error["hint"] == "Did you mean ops?"


def test_a_name_is_taken_unless_it_is_to_be_replaced(home: Path, var: Path) -> None:
    """What belongs to a destination stays where its address is mended."""
    secret = call("notify", "add", "ops", HOOK).success()["secret"]
    call("notify", "digest", "ops", "--at", "08:00").success()
    call("notify", "add", "ops", HOOK + "2").error("destination_taken")
    assert values(home)["PROMPTYOSELF_DESTINATION_OPS"] == HOOK
    answer = call("notify", "add", "ops", HOOK + "2", "--replace").success()
    assert answer["replaced"]
    assert "secret" not in answer
    assert values(home) == {
        "PROMPTYOSELF_DESTINATION_OPS": HOOK + "2",
        "PROMPTYOSELF_WEBHOOK_SECRET_OPS": secret,
        "PROMPTYOSELF_DIGEST_OPS": "08:00",
    }
    call("notify", "add", "ops", "agent:agent-7", "--replace").success()
    assert "PROMPTYOSELF_WEBHOOK_SECRET_OPS" not in values(home)


def test_a_broken_setting_is_mended_by_the_command_that_writes_it(home: Path, var: Path) -> None:
    file_of(home).parent.mkdir(parents=True)
    file_of(home).write_text("PROMPTYOSELF_DESTINATION_OPS=nowhere\n")
    call("list").error("invalid_setting")
    call("notify").error("invalid_setting")
    call("notify", "add", "other", HOOK).error("invalid_setting")
    call("notify", "add", "ops", HOOK).success()
    assert list(listed()) == ["ops"]
    file_of(home).write_text("PROMPTYOSELF_DESTINATION_OPS=nowhere\n")
    call("notify", "remove", "ops").success()
    assert listed() == {}


def test_a_plain_http_address_is_warned_of_unless_it_is_this_machine(home: Path) -> None:
    answer = call("notify", "add", "ops", "http://example.org/x").success()
    assert "https://" in answer["warning"]
    for name, host in (("a", "127.0.0.1:80"), ("b", "localhost"), ("c", "[::1]:1")):
        assert "warning" not in call("notify", "add", name, f"http://{host}/x").success()


def test_an_address_of_a_chat_is_told_from_a_webhook(home: Path) -> None:
    answer = call("notify", "add", "ops", "https://hooks.slack.com/services/T1/B1/x").success()
    assert "slack://" in answer["warning"]


def test_what_the_environment_has_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_OPS", "agent:agent-7")
    assert listed()["ops"]["kind"] == "agent"
    answer = call("notify", "remove", "ops").success()
    assert answer["changed"] is False
    assert "environment" in answer["warning"]


def test_a_test_is_sent_and_says_what_came_back(home: Path, var: Path) -> None:
    with webhook() as hook:
        secret = call("notify", "add", "ops", hook.url).success()["secret"]
        answer = call("notify", "test", "ops").success()
        assert (answer["sent"], answer["http_status"]) == (True, 204)
        (request,) = hook.received
        assert request.id == answer["notice"]
        headers = dict(request.headers)
        assert request.json["type"] == "notice.test"
        assert request.headers["webhook-signature"] == Verifier(secret).sign(
            request.id, _instant(headers["webhook-timestamp"]), request.body.decode()
        )
        hook.plan(Answer(403, body=b"not you"))
        error = call("notify", "test", "ops").error("destination_refused")
        assert (error["http_status"], error["said"]) == (403, "not you")
    error = call("notify", "test", "ops").error("destination_unreachable")
    assert error["destination"] == "ops"
    assert not (var / "schedules").exists(), "a test is no event"


def _instant(seconds: str) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(int(seconds), UTC)


def test_an_agent_is_not_prompted_by_a_test(home: Path, var: Path) -> None:
    call("notify", "add", "boss", "agent:agent-7").success()
    answer = call("notify", "test", "boss").success()
    assert answer["sent"] is False
    assert "agent-7" in answer["message"]


@pytest.fixture
def kept(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are kept, so that destinations can be told of them."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "excerpt")


@pytest.mark.usefixtures("kept")
def test_one_that_is_used_is_kept_unless_that_is_meant(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    first = add("--every", "1h", "--reply-to", "ops")
    second = add("--every", "2h", "--on-failure", "ops", prompt="Another")
    over = add("--every", "3h", "--reply-to", "ops", prompt="Over")
    call("cancel", "--id", over).success()
    assert listed()["ops"]["schedules"] == 2
    error = call("notify", "remove", "ops").error("destination_in_use")
    assert sorted(error["ids"]) == sorted([first, second])
    assert first in error["message"]
    assert listed()["ops"]["schedules"] == 2
    assert call("notify", "remove", "ops", "--yes").success()["changed"]
    assert values(home) == {}


@pytest.mark.usefixtures("kept")
def test_who_removes_one_that_is_used_hears_what_becomes_of_it(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    call("notify", "add", "spare", HOOK).success()
    add("--every", "1h", "--reply-to", "ops")
    add("--every", "2h", "--on-failure", "ops", prompt="Another")
    assert "warning" not in call("notify").success()
    assert "warning" not in call("notify", "remove", "spare").success()
    warning = call("notify", "remove", "ops", "--yes").success()["warning"]
    assert "2 schedules are for ops, and no destination has that name." in warning
    assert "`promptyoself notify add ops`" in warning
    assert call("notify", "list").success()["warning"] == warning
    state = EMPTY._replace(
        notices={
            "ntc_1": OwedNotice("ntc_1", "ops", "digest", "", "", None, "", "2026-11-01T00:00:00Z")
        }
    )
    assert next(destinations.missing({}, state)).startswith("1 notice is for ops,")
    assert not list(destinations.missing({}, state, "other"))


def test_no_test_is_advised_that_sends_nothing(home: Path, var: Path) -> None:
    assert "notify test" not in call("notify", "add", "boss", "agent:agent-7").success()["message"]
    assert "notify test ops" in call("notify", "add", "ops", HOOK).success()["message"]


def test_all_names_are_told_where_none_is_close(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    hint = call("notify", "test", "mail").error("unknown_destination")["hint"]
    assert hint == "There is: ops."
    call("notify", "add", "chat", HOOK).success()
    hint = call("notify", "test", "mail").error("unknown_destination")["hint"]
    assert hint == "There are: chat, ops."
    words = ("register", "--agent-id", "agent-1", "--prompt", "x", "--every", "1h")
    hint = call(*words, "--reply-to", "OPS").error("unknown_destination")["hint"]
    assert hint == "Did you mean ops?"


def test_on_failure_warns_of_a_slip_in_a_destinations_name(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    words = ("register", "--agent-id", "agent-1", "--every", "1h", "--prompt")
    assert "Did you mean ops?" in call(*words, "a", "--on-failure", "Ops").success()["warning"]
    for whom in ("ops", "agent-7", "opponent-of-all"):
        answer = call(*words, whom, "--on-failure", whom).success()
        assert "Did you mean" not in answer.get("warning", "")


def test_on_failure_takes_an_agents_name(home: Path, var: Path) -> None:
    remember_names(var, {"agent-00000000-0000-4000-8000-000000000007": "Ada"})
    id_ = add("--every", "1h", "--on-failure", "Ada")
    shown = call("show", "--id", id_).success()["schedule"]
    assert shown["on_failure"] == "agent-00000000-0000-4000-8000-000000000007"
    call("notify", "add", "ada", "agent:Ada").success()
    assert listed()["ada"]["address"].endswith("0007")
    row = call("notify", "--format", "table").out.decode().splitlines()[1]
    assert row.split() == ["ada", "agent", "Ada", "0", "0"]


def test_a_digest_has_a_time_and_a_zone(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    answer = call("notify", "digest", "ops", "--at", "8:00").success()
    assert (answer["digest"], answer["timezone"]) == ("08:00", "UTC")
    answer = call("notify", "digest", "ops", "--at", "18:30", "--tz", "Europe/Paris").success()
    assert answer["digest"] == "18:30 Europe/Paris"
    assert listed()["ops"]["digest"] == "18:30 Europe/Paris"
    for words in (["--at", "25:00"], ["--at", "soon"], ["--at", "08:00 UTC"]):
        call("notify", "digest", "ops", *words).error("invalid_destination")
    call("notify", "digest", "ops", "--at", "08:00", "--tz", "Nowhere").error("unknown_zone")
    answer = call("notify", "digest", "ops", "--off").success()
    assert (answer["digest"], answer["changed"]) == (None, True)
    assert call("notify", "digest", "ops", "--off").success()["changed"] is False


def check(*options: str) -> dict[str, Any] | None:
    """What `doctor` says of notices."""
    document = call("doctor", "--skip-letta", "--allow-no-loop", *options).document
    return next((one for one in document["checks"] if one["name"] == "notices"), None)


def test_doctor_says_nothing_of_notices_where_there_are_none(home: Path, var: Path) -> None:
    assert check() is None


@pytest.mark.usefixtures("kept")
def test_doctor_misses_a_destination_that_a_schedule_names(home: Path, var: Path) -> None:
    call("notify", "add", "ops", HOOK).success()
    id_ = add("--every", "1h", "--reply-to", "ops")
    well = check()
    assert well is not None
    assert (well["ok"], well["detail"]) == (True, "0 to be sent to 1 destination")
    call("notify", "remove", "ops", "--yes").success()
    wrong = check()
    assert wrong is not None
    assert not wrong["ok"]
    assert f"no destination has the name ops, which {id_} has" in wrong["detail"]
    assert wrong["hint"] == "`promptyoself notify add ops` adds it."
    assert check("--quick") is None, "schedules aren't read"
    call("cancel", "--id", id_).success()
    assert check() is None


def test_doctor_misses_apprise_and_a_signature(
    home: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_OPS", HOOK)
    unsigned = check()
    assert unsigned is not None
    assert unsigned["ok"]
    assert "ops without a signature" in unsigned["detail"]
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_PHONE", "ntfy://topic")
    monkeypatch.setattr(services, "find_spec", lambda _: None)
    wrong = check()
    assert wrong is not None
    assert not wrong["ok"]
    assert "phone can't be reached without Apprise" in wrong["detail"]
    assert "pip install" in wrong["hint"]


def test_a_destination_that_refuses_is_told_of() -> None:
    """Once it has refused for about a minute: a first refusal is no illness."""

    def owed(number: int, to: str, tries: int, code: str | None) -> OwedNotice:
        at = f"2026-11-29T08:00:0{number}.000000Z"
        return OwedNotice(
            f"ntc_{number}", to, "reply", "sch_1", "agent-7", at, "2026-11:1", at, tries, None, code
        )

    state = EMPTY._replace(notices={})
    notices = [
        owed(1, "ops", 4, "destination_timeout"), owed(2, "ops", 0, None),
        owed(3, "phone", 2, "destination_failed"), owed(4, "boss", 0, None),
    ]  # fmt: skip
    state.notices.update({notice.notice: notice for notice in notices})
    assert refusing(state) == "2 notices wait for ops (destination_timeout)"
    assert destinations_in_use(state) == dict.fromkeys(("boss", "ops", "phone"), "sch_1")
    (ops,) = destinations.listed({"ops": Destination("ops", HOOK, SECRET)}, state)
    assert (ops["owed"], ops["failing"], ops["tries"]) == (2, "destination_timeout", 4)
    assert refusing(EMPTY) == ""


def test_who_is_pinned_has_no_destinations(
    home: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("notify", "add", "ops", HOOK).success()
    before = file_of(home).read_bytes()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-7")
    for words in (
        ["list"], ["add", "x", HOOK], ["test", "ops"], ["remove", "ops"], ["remove", "x"],
        ["digest", "ops", "--at", "08:00"],
    ):  # fmt: skip
        call("notify", *words).error("forbidden_agent")
    monkeypatch.setenv("PROMPTYOSELF_DIGEST_OPS", "never")
    call("notify", "remove", "ops", "--yes").error("invalid_setting")
    assert file_of(home).read_bytes() == before


DOCTOR = ("doctor", "--skip-letta", "--allow-no-loop")


def told_by_config_and_doctor() -> list[str]:
    """What they print on stdout and stderr, in JSON and in the form for people."""
    calls = [(*words, "--format", form) for words in (("config",), DOCTOR) for form in FORMS]
    answers = [call(*words) for words in calls]
    return [(answer.out.decode() + answer.err).lower() for answer in answers]


def test_who_is_pinned_is_told_of_no_destination(
    home: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config` and `doctor` don't tell the names of destinations to a caller who may name none of
    them, and have the same keys for such a caller."""
    call("notify", "add", "kestrel", "https://hooks.example.org").success()
    call("notify", "digest", "kestrel", "--at", "08:00").success()
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_UNSIGNED_KESTREL", "https://hooks.example.org")
    keys = [set(call(*words).success()) for words in (("config",), DOCTOR)]
    assert all("kestrel" in told for told in told_by_config_and_doctor()[:3])
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-7")
    assert not any("kestrel" in told for told in told_by_config_and_doctor())
    assert [set(call(*words).success()) for words in (("config",), DOCTOR)] == keys
    monkeypatch.setenv("PROMPTYOSELF_DIGEST_OSPREY", "08:00")  # there is no such destination
    assert b"osprey" not in call(*DOCTOR).out.lower()
    monkeypatch.setenv("PROMPTYOSELF_DIGEST_KESTREL", "never")  # the settings can't be read now
    names = [entry["name"] for entry in call("config").success()["settings"]]
    assert not [name for name in names if "KESTREL" in name]


def test_who_is_pinned_is_told_that_notices_do_not_arrive(
    home: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` says that something is wrong with destinations, without their names."""
    call("notify", "add", "kestrel", "https://hooks.example.org").success()
    add("--every", "1h", "--on-failure", "kestrel")
    call("notify", "remove", "kestrel", "--yes").success()
    assert "kestrel" in call(*DOCTOR).error("unhealthy")["error"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-7")
    assert "notices" in call(*DOCTOR).error("unhealthy")["error"]
    assert not any("kestrel" in told for told in told_by_config_and_doctor())
