"""`config`: what is set, where it came from, and changing it; and a file that others may write."""

from pathlib import Path

import pytest
from calling import call
from installed import converse, environ_of, home, place  # noqa: F401
from terminals import picture

from promptyoself.core.setting_values import SETTINGS


def file_of(home: Path) -> Path:
    """Where the settings of an installation are."""
    return home / ".config" / "promptyoself" / ".env"


def test_every_setting_is_listed_with_its_value_and_origin(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets aren't shown, nor is the password in an address."""
    call("config", "set", "LETTA_API_KEY", "sk-hush").success()
    call("config", "set", "PROMPTYOSELF_TZ", "Europe/London").success()
    monkeypatch.setenv("LETTA_BASE_URL", "http://me:hush@letta.example")
    for arguments in (["config"], ["config", "list"], ["config", "--format", "json"]):
        answer = call(*arguments)
        assert b"sk-hush" not in answer.out
        assert b"hush" not in answer.out
        document = answer.success()
        assert document["file"] == str(file_of(home))
        assert [one["name"] for one in document["settings"]] == [one.name for one in SETTINGS]
        listed = {one["name"]: (one["value"], one["origin"]) for one in document["settings"]}
        assert listed["LETTA_API_KEY"] == ("***", str(file_of(home)))
        assert listed["PROMPTYOSELF_TZ"] == ("Europe/London", str(file_of(home)))
        assert listed["LETTA_BASE_URL"] == ("http://letta.example", "environment")
        assert listed["PROMPTYOSELF_INTERVAL"] == ("60", "default")
    assert call("config", "path").success()["exists"] is True


def test_a_person_sees_whole_values_and_where_they_came_from(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns too; the path of the file is below."""
    agent = "agent-26ed798b-b9b4-406c-8bb4-12676e9eec8b"
    call("config", "set", "PROMPTYOSELF_DEFAULT_AGENT_ID", agent).success()
    monkeypatch.setenv("LETTA_BASE_URL", "http://letta.example")
    shown = picture("config")
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["LETTA_BASE_URL"] == ["environment", "http://letta.example"]
    assert rows["PROMPTYOSELF_DEFAULT_AGENT_ID"][0] == "file"
    assert agent in "".join(shown.split())
    assert str(file_of(home)) in "".join(shown.split())


@pytest.mark.parametrize("word", ["PROMPTYOSELF_TZ", "tz", "TZ", "timezone", "time-zone", "zone"])
def test_a_setting_is_known_by_a_short_name(home: Path, word: str) -> None:
    """`config set tz` means the one that everybody means."""
    answer = call("config", "set", word, "Europe/London").success()
    assert (answer["name"], answer["value"], answer["changed"]) == (
        "PROMPTYOSELF_TZ", "Europe/London", True,
    )  # fmt: skip
    assert call("config", "set", word, "Europe/London").success()["changed"] is False
    assert call("config", "unset", word).success()["changed"] is True
    assert call("config", "unset", word).success()["changed"] is False


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("url", "LETTA_BASE_URL"),
        ("api_key", "LETTA_API_KEY"),
        ("password", "LETTA_SERVER_PASSWORD"),
        ("agent-id", "PROMPTYOSELF_DEFAULT_AGENT_ID"),
        ("log_level", "PROMPTYOSELF_LOG_LEVEL"),
    ],
)
def test_other_short_names(home: Path, word: str, name: str) -> None:
    values = {"LETTA_BASE_URL": "http://x:1", "PROMPTYOSELF_LOG_LEVEL": "debug"}
    assert call("config", "set", word, values.get(name, "abc")).success()["name"] == name


def test_what_is_wrong_is_refused_before_anything_is_written(home: Path) -> None:
    """A name that is no setting, a value that is none, and no value."""
    call("config", "set", "tzz", "UTC").error("unknown_setting")
    error = call("config", "set", "INTERVALL", "5").error("unknown_setting")
    assert "PROMPTYOSELF_INTERVAL" in error["hint"]
    call("config", "set", "interval", "often").error("invalid_setting")
    call("config", "set", "tz", "").error("invalid_setting")
    call("config", "set", "tz").error("missing_option", 2)
    error = call("config", "sett").error("unknown_command", 2)
    assert error["hint"] == "Did you mean `config set`?"
    assert not file_of(home).exists()


def test_a_secret_comes_over_stdin_and_is_never_shown(home: Path) -> None:
    """What is on a command line stays in the shell's history."""
    answer = call("config", "set", "LETTA_API_KEY", "-", stdin=b"sk-hush\n")
    assert b"hush" not in answer.out
    assert answer.success()["value"] == "***"
    assert "LETTA_API_KEY=sk-hush\n" in file_of(home).read_text()
    error = call("config", "set", "LETTA_API_KEY", "sk hush").error("invalid_setting")
    assert "hush" not in str(error)


def test_what_the_environment_overrides_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a person would wonder why nothing changed."""
    monkeypatch.setenv("PROMPTYOSELF_TZ", "UTC")
    assert (
        "environment comes first" in call("config", "set", "tz", "Asia/Tokyo").success()["warning"]
    )
    assert "still set" in call("config", "unset", "tz").success()["warning"]


def test_a_wrong_setting_can_be_mended(home: Path) -> None:
    """Every other command refuses, but the one that mends it must not."""
    call("config", "set", "interval", "5").success()
    text = file_of(home).read_text()
    file_of(home).write_text(text.replace("INTERVAL=5", "INTERVAL=soon"))
    call("list").error("invalid_setting")
    shown = call("config").success()
    assert "PROMPTYOSELF_INTERVAL is 'soon'" in shown["warning"]
    call("config", "set", "interval", "5").success()
    call("list").success()


def test_a_file_that_others_may_write_is_refused(home: Path) -> None:
    """With one message, and `config` doesn't write into it either."""
    call("config", "set", "interval", "5").success()
    file_of(home).chmod(0o666)
    for arguments in (["list"], ["config"], ["config", "set", "tz", "UTC"]):
        error = call(*arguments).error("invalid_setting")
        assert "other users may write to it" in error["message"]
        assert f"`chmod 600 {file_of(home)}`" in error["hint"]
    assert call("config", "path").success()["file"] == str(file_of(home))


def test_a_person_types_a_secret_unseen(place: Path, tmp_path: Path) -> None:
    """Asked at a terminal; nothing of it is on the screen."""
    environ = environ_of(place, tmp_path)
    replies = [("LETTA_API_KEY (Letta's API key)", "sk-typed")]
    answer = converse("config", "set", "api_key", environ=environ, replies=replies)
    assert answer.success()["value"] == "***"
    assert "sk-typed" not in answer.err + answer.out.decode()
    assert "LETTA_API_KEY=sk-typed\n" in file_of(tmp_path).read_text()
