"""The settings of destinations: which there can be, what is refused, and what nobody is shown."""

from pathlib import Path

import pytest

from promptyoself.core import settings as module
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.setting_values import (
    Destination,
    destination_of,
    destination_setting,
    digest_time,
)
from promptyoself.core.settings import (
    check_value,
    describe_unknown,
    find_setting,
    load_settings,
    read_sources,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = "https://hooks.example.org/k3yk3y-12345/x?token=s3cr3t"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .env of a checkout that settings believe to be in."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "promptyoself").mkdir()
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path / ".env"


def refused(environ: dict[str, str]) -> PromptyoselfError:
    with pytest.raises(PromptyoselfError) as caught:
        load_settings(environ)
    assert caught.value.code == "invalid_setting"
    everything = f"{caught.value.document()}"
    assert "s3cr3t" not in everything
    assert SECRET not in everything
    return caught.value


def test_a_destination_is_an_address_with_what_belongs_to_it(file: Path) -> None:
    file.write_text(
        f"PROMPTYOSELF_DESTINATION_OPS_2={HOOK}\nPROMPTYOSELF_WEBHOOK_SECRET_OPS_2={SECRET}\n"
        "PROMPTYOSELF_DIGEST_OPS_2='08:00 Europe/Paris'\n"
        "PROMPTYOSELF_DESTINATION_PHONE=tgram://123:A$b/9\n"
    )
    environ = {"PROMPTYOSELF_DESTINATION_AGENT_7": "agent:agent-7", "PROMPTYOSELF_DIGEST_OPS_2": ""}
    settings = load_settings(environ)
    assert settings.destinations == {
        "agent-7": Destination("agent-7", "agent:agent-7"),
        "ops-2": Destination("ops-2", HOOK, SECRET, "08:00 Europe/Paris"),
        "phone": Destination("phone", "tgram://123:A$b/9"),
    }
    assert not settings.unknown
    for secret in (HOOK, SECRET, "k3yk3y-12345", "tgram://123:A$b/9"):
        assert secret in settings.secrets
    assert "agent:agent-7" not in settings.secrets, "an agent's id is in every log"


def test_the_environment_comes_first(file: Path) -> None:
    file.write_text(f"PROMPTYOSELF_DESTINATION_OPS={HOOK}\n")
    settings = load_settings({"PROMPTYOSELF_DESTINATION_OPS": "agent:agent-7"})
    assert settings.destinations["ops"].address == "agent:agent-7"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DESTINATION_OPS", "hooks.example.org/s3cr3t"),
        ("DESTINATION_OPS", "https://"),
        ("DESTINATION_OPS", "https:///s3cr3t"),
        ("DESTINATION_OPS", "https://h:99999/s3cr3t"),
        ("DESTINATION_OPS", "https://h:x/s3cr3t"),
        ("DESTINATION_OPS", "https://[::1/s3cr3t"),
        ("DESTINATION_OPS", "https://user:s3cr3t/@h/"),
        ("DESTINATION_OPS", "https://user/s3cr3t@h/"),
        ("DESTINATION_OPS", "https://h/s3cr3t x"),
        ("DESTINATION_OPS", "https://h/\u202es3cr3t"),
        ("DESTINATION_OPS", "https://h/s3cr3t" + "x" * 2000),
        ("DESTINATION_OPS", "agent:"),
        ("DESTINATION_OPS", "agent:" + "x" * 201),
        ("DESTINATION_OPS", "tgram:s3cr3t"),
        ("DESTINATION_OPS", "://s3cr3t"),
        ("WEBHOOK_SECRET_OPS", "s3cr3t"),
        ("WEBHOOK_SECRET_OPS", "whsec_s3cr3t"),
        ("WEBHOOK_SECRET_OPS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"),
        ("WEBHOOK_SECRET_OPS", "whsec_" + "A" * 88),
        ("DIGEST_OPS", "8"),
        ("DIGEST_OPS", "24:00"),
        ("DIGEST_OPS", "08:00 Nowhere/City"),
        ("DIGEST_OPS", "08:00 "  "UTC UTC"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_name_and_place(
    file: Path, name: str, value: str
) -> None:
    setting = f"PROMPTYOSELF_{name}"
    environ = {"PROMPTYOSELF_DESTINATION_OPS": HOOK, setting: value}
    error = refused(environ)
    assert error.details["setting"] == setting
    assert setting in error.message
    assert error.hint == "Change or unset it; it came from the environment."
    file.write_text(f"\nPROMPTYOSELF_DESTINATION_OPS={HOOK}\n" * (name != "DESTINATION_OPS"))
    with file.open("a") as lines:
        lines.write(f"{setting}='{value}'\n")
    assert "line " in refused({}).hint
    with pytest.raises(PromptyoselfError, match=setting):
        check_value(setting, value)


def test_only_a_webhook_is_signed(file: Path) -> None:
    environ = {
        "PROMPTYOSELF_DESTINATION_OPS": "agent:agent-7",
        "PROMPTYOSELF_WEBHOOK_SECRET_OPS": SECRET,
    }
    assert "no webhook" in refused(environ).message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PROMPTYOSELF_WEBHOOK_SECRET_OPS", "PROMPTYOSELF_DESTINATION_OPS isn't"),
        ("PROMPTYOSELF_DIGEST_OPS", "PROMPTYOSELF_DESTINATION_OPS isn't"),
        ("PROMPTYOSELF_DESTINATION_", "no destination can have that name"),
        ("PROMPTYOSELF_DESTINATION_9", "no destination can have that name"),
        ("PROMPTYOSELF_DESTINATION_ops", "no destination can have that name"),
        ("PROMPTYOSELF_DESTINATION_A-B", "no destination can have that name"),
        ("PROMPTYOSELF_DESTINATION_" + "A" * 41, "no destination can have that name"),
        ("PROMPTYOSELF_DIGEST_Ä", "no destination can have that name"),
    ],
)
def test_a_setting_of_no_destination_is_told(file: Path, name: str, said: str) -> None:
    for environ, text in (({name: "x s3cr3t"}, ""), ({}, f"\n{name}='x s3cr3t'\n")):
        file.write_text(text)
        if text and name.endswith(("-B", "Ä")):  # no name at all, for a file
            continue
        settings = load_settings(environ)
        assert not settings.destinations
        (unknown,) = settings.unknown
        message, hint = describe_unknown(unknown)
        assert said in message
        assert hint
        assert "s3cr3t" not in message + hint


def test_a_setting_twice_in_the_file_or_one_with_a_variable_is_refused(file: Path) -> None:
    file.write_text("PROMPTYOSELF_DIGEST_OPS=08:00\nPROMPTYOSELF_DIGEST_OPS=09:00\n")
    with pytest.raises(PromptyoselfError, match="is set in line 1 and again"):
        load_settings({})
    file.write_text("PROMPTYOSELF_DESTINATION_OPS=https://h/${KEY}\n")
    with pytest.raises(PromptyoselfError, match="refers to another variable"):
        load_settings({})


def test_sources_show_no_address(file: Path) -> None:
    file.write_text(
        f"PROMPTYOSELF_DESTINATION_OPS={HOOK}\nPROMPTYOSELF_WEBHOOK_SECRET_OPS={SECRET}\n"
        "PROMPTYOSELF_DIGEST_OPS=08:00\n"
    )
    shown = {source.setting.name: source.shown for source in read_sources({})}
    assert shown["PROMPTYOSELF_DESTINATION_OPS"] == "***"
    assert shown["PROMPTYOSELF_WEBHOOK_SECRET_OPS"] == "***"
    assert shown["PROMPTYOSELF_DIGEST_OPS"] == "08:00"


def test_config_leaves_destinations_to_notify() -> None:
    for word in ("PROMPTYOSELF_DESTINATION_OPS", "promptyoself-digest-ops"):
        with pytest.raises(PromptyoselfError) as caught:
            find_setting(word)
        assert caught.value.code == "unknown_setting"
        assert "`promptyoself notify`" in caught.value.hint


def test_names_and_settings_are_told_from_each_other_both_ways() -> None:
    for name in ("a", "ops", "on-call-2"):
        for prefix in ("PROMPTYOSELF_DESTINATION_", "PROMPTYOSELF_DIGEST_"):
            assert destination_of(destination_setting(prefix, name)) == name
    assert destination_of("PROMPTYOSELF_TZ") is None


@pytest.mark.parametrize(
    ("address", "kind", "shown"),
    [
        (HOOK, "webhook", "https://hooks.example.org"),
        ("HTTPS://u:p@h:8/x@y?z", "webhook", "HTTPS://***@y"),
        ("https://user:pass@h:8443/x", "webhook", "https://h:8443"),
        ("agent:agent-7", "agent", "agent:agent-7"),
        ("slack://TokenA/TokenB/TokenC", "apprise", "slack://"),
        ("mailto://user:pass@example.org", "apprise", "mailto://"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_key(address: str, kind: str, shown: str) -> None:
    destination = Destination("x", address)
    assert (destination.kind, destination.shown) == (kind, shown)


def test_a_common_word_in_an_address_is_no_secret() -> None:
    """What is a secret is masked in all that is written: a channel's name would be missed."""
    destination = Destination("x", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXr9/promptyoself")
    assert "promptyoself" not in destination.secrets
    assert "promptyoself" in destination.parts
    for host in ("127.0.0.1", "smtp2.example.org"):
        assert host not in Destination("x", f"mailto://user:pass99@{host}/SG.k3yk3y99").secrets
    assert "k3yk3y99" in Destination("x", "mailto://user:pass99@h/SG.k3yk3y99").secrets
    assert {"T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXr9"} <= set(destination.secrets)


def test_a_digest_has_a_time_and_perhaps_a_zone() -> None:
    for text, hour, zone in (("08:00", 8, None), ("23:59 Europe/Paris", 23, "Europe/Paris")):
        digest = digest_time(text)
        assert digest is not None
        assert (digest[0].hour, digest[1]) == (hour, zone)
