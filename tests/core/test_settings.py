"""The environment and the .env file, as one checked Settings."""

from pathlib import Path

import pytest

from promptyoself.core import settings as module
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.setting_values import SETTINGS
from promptyoself.core.settings import check_value, default_zone, load_settings, read_sources


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings believe to be in a source checkout there."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "promptyoself").mkdir()
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings believe to be installed somewhere; the environment of a user at home there."""
    monkeypatch.setattr(module, "_ROOT", tmp_path / "site-packages")
    return {"HOME": str(tmp_path / "home")}


def test_the_defaults_are_good_settings(checkout: Path) -> None:
    """An empty environment is enough, and gives what is documented."""
    settings = load_settings({})
    assert settings.var == checkout / "var"
    assert settings.base_url == "http://localhost:8283"
    assert (settings.token, settings.timezone) == (None, "")
    assert (settings.interval, settings.lock_timeout, settings.reconcile_grace) == (60, 10, 120)
    assert settings.caps == (10, 100, 500, 4 * 1024 * 1024)
    assert (settings.default_agent, settings.only_agent, settings.log_file) == (None, None, None)
    assert settings.log_prompts is False
    assert (settings.letta_code_url, settings.letta_code_token) == ("ws://127.0.0.1:4500", None)
    assert settings.letta_cloud is False


def test_the_data_directory_is_never_the_callers(
    installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside a checkout it is the user's data directory; the working directory plays no part."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir("/")
    assert load_settings(installed).var == tmp_path / "data" / "promptyoself"


def test_a_relative_directory_is_made_absolute(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is understood once, where the command was called."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({"PROMPTYOSELF_VAR": "elsewhere"}).var == tmp_path / "elsewhere"
    assert load_settings({"PROMPTYOSELF_VAR": "elsewhere"}, var="here").var == tmp_path / "here"


def test_the_environment_comes_before_the_file(checkout: Path) -> None:
    """A .env never overrides the environment. Each value knows where it came from."""
    (checkout / ".env").write_text(
        "PROMPTYOSELF_TZ=Europe/Paris\nPROMPTYOSELF_INTERVAL=5\nLETTA_API_KEY='a $b # c'\n"
    )
    environ = {"PROMPTYOSELF_INTERVAL": "7", "PROMPTYOSELF_LOCK_TIMEOUT": "  "}
    settings = load_settings(environ)
    assert (settings.timezone, settings.interval, settings.token) == ("Europe/Paris", 7, "a $b # c")
    origins = {source.setting.name: source.origin for source in read_sources(environ)}
    assert origins["PROMPTYOSELF_TZ"] == str(checkout / ".env")
    assert origins["PROMPTYOSELF_INTERVAL"] == "environment"
    assert origins["PROMPTYOSELF_LOCK_TIMEOUT"] == "default"
    assert {source.setting.name: source.origin for source in read_sources(environ, "x")}[
        "PROMPTYOSELF_VAR"
    ] == "--var"


def test_an_installed_one_reads_the_users_file(installed: dict[str, str], tmp_path: Path) -> None:
    """Outside a checkout the .env is in the user's configuration folder."""
    folder = tmp_path / "home" / ".config" / "promptyoself"
    folder.mkdir(parents=True)
    (folder / ".env").write_text("PROMPTYOSELF_TZ=Europe/Paris\nPROMPTYOSELF_VAR=/data\n")
    assert load_settings(installed).timezone == "Europe/Paris"
    assert load_settings(installed).var == Path("/data")
    other = {**installed, "XDG_CONFIG_HOME": str(tmp_path / "none"), "PROMPTYOSELF_VAR": "/x"}
    assert load_settings(other).timezone == ""


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_flags_have_many_spellings(checkout: Path, value: str) -> None:
    """A flag is on for 1, true, yes and on."""
    assert load_settings({"PROMPTYOSELF_LOG_PROMPTS": value}).log_prompts is True


def test_the_key_comes_before_the_password(checkout: Path) -> None:
    """LETTA_API_KEY is used where both are set, else the password."""
    environ = {"LETTA_API_KEY": "key", "LETTA_SERVER_PASSWORD": "password"}
    assert load_settings(environ).token == "key"
    del environ["LETTA_API_KEY"]
    assert load_settings(environ).token == "password"


def test_an_address_loses_its_last_slash(checkout: Path) -> None:
    """So that paths can be appended to it."""
    assert load_settings({"LETTA_BASE_URL": "https://letta/ "}).base_url == "https://letta"


def test_the_zone_is_checked_where_it_is_needed(checkout: Path) -> None:
    """P7: a zone that doesn't exist is refused under the name of its setting."""
    with pytest.raises(PromptyoselfError, match=r"PROMPTYOSELF_TZ.*Mars"):
        default_zone(load_settings({"PROMPTYOSELF_TZ": "Mars/Olympus"}))
    assert default_zone(load_settings({"PROMPTYOSELF_TZ": "Asia/Kathmandu"})) == "Asia/Kathmandu"


def test_every_setting_is_described_once() -> None:
    """Each has a sentence, and secrets are marked."""
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    assert all(setting.help.endswith(".") for setting in SETTINGS)
    secret = {setting.name for setting in SETTINGS if setting.secret}
    assert secret == {
        *("LETTA_API_KEY", "LETTA_SERVER_PASSWORD"),
        *("PROMPTYOSELF_MCP_TOKEN", "PROMPTYOSELF_LETTA_CODE_TOKEN"),
    }


@pytest.mark.parametrize(
    ("value", "seconds"), [("90", 90), ("90s", 90), ("1m30s", 90), ("0.5s", 0.5)]
)
def test_seconds_may_have_a_unit(checkout: Path, value: str, seconds: float) -> None:
    """What is in seconds may be written with a unit too, as every duration may be without."""
    assert load_settings({"PROMPTYOSELF_CALL_TIMEOUT": value}).call_timeout == seconds
    assert load_settings({"PROMPTYOSELF_INTERVAL": value}).interval == seconds
    if seconds >= 1:
        least = load_settings({"PROMPTYOSELF_MIN_INTERVAL": value}).caps.min_interval
        assert (least, type(least)) == (90, int)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("off", None),
        ("OFF", None),
        ("ws://localhost:4500/", "ws://localhost:4500"),
        ("wss://letta.example", "wss://letta.example"),
        ("ws://[::1]:4500", "ws://[::1]:4500"),
        ("ws://10.0.0.7:4500/ws", "ws://10.0.0.7:4500/ws"),
    ],
)
def test_an_app_server_has_an_address_or_there_is_none(
    checkout: Path, value: str, address: str | None
) -> None:
    """The word off stands for: there is no Letta Code."""
    settings = load_settings({"PROMPTYOSELF_LETTA_CODE_URL": value})
    assert settings.letta_code_url == address
    check_value("PROMPTYOSELF_LETTA_CODE_URL", value)


@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1:4500",
        "http://127.0.0.1:4500",
        "ws://",
        "ws://:4500",
        "ws://host:port",
        "ws://host:99999",
        "ws://host:0",
        "ws://[::1:4500",
        "ws://me:hush-hush@host:4500",
        "ws://host:4500/?token=hush-hush",
        "ws://host:4500#hush-hush",
        "ws://two words:4500",
        "no",
    ],
)
def test_a_wrong_address_of_an_app_server_is_refused(checkout: Path, value: str) -> None:
    """P7: what isn't an address is refused by the setting's name, and a password isn't shown."""
    name = "PROMPTYOSELF_LETTA_CODE_URL"
    for refusal in (
        lambda: load_settings({name: value}),
        lambda: check_value(name, value),
    ):
        with pytest.raises(PromptyoselfError, match=name) as refused:
            refusal()
        assert (refused.value.code, refused.value.details["setting"]) == ("invalid_setting", name)
        assert "ws://127.0.0.1:4500" in refused.value.message
        assert "hush" not in refused.value.message + refused.value.hint


def test_the_token_of_an_app_server_is_a_secret(checkout: Path) -> None:
    """It is masked in everything that is written."""
    settings = load_settings({"PROMPTYOSELF_LETTA_CODE_TOKEN": "hush"})
    assert settings.letta_code_token == "hush"
    assert "hush" in settings.secrets


def test_letta_cloud_is_off_until_it_is_called_untested(checkout: Path) -> None:
    """A yes isn't enough: the value says what is known of it."""
    assert load_settings({"PROMPTYOSELF_LETTA_CLOUD": "untested"}).letta_cloud is True
    with pytest.raises(PromptyoselfError, match="off, untested"):
        load_settings({"PROMPTYOSELF_LETTA_CLOUD": "yes"})
