"""The .env file: every line is understood or refused, and no name that looks like a setting is
passed over."""

import grp
import os
import pwd
from pathlib import Path

import orjson
import pytest
from calling import AGENT, call, log_of, run
from typed_texts import refusal

from promptyoself import cli
from promptyoself.core import settings as module
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import Unknown, describe_unknown, load_settings, read_sources
from promptyoself.doors import session
from promptyoself.doors.command import call_command
from promptyoself.doors.session import Caller
from promptyoself.service.delivery.loop import StopFlag

REGISTER = ("register", "--agent-id", AGENT, "--prompt", "Hello", "--cron", "0 9 * * *")
HOME: dict[str, str] = {"HOME": "/nonexistent"}


@pytest.fixture
def envfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings look for a .env file: that of a source checkout, which isn't there yet."""
    root = tmp_path / "checkout"
    (root / "promptyoself").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(module, "_ROOT", root)
    return root / ".env"


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process hasn't told of any name yet."""
    monkeypatch.setattr(session, "_reported", set())


def refused(envfile: Path, content: bytes | str) -> PromptyoselfError:
    """The error that this content is answered with."""
    envfile.write_bytes(content.encode() if isinstance(content, str) else content)
    error = refusal("invalid_setting", load_settings, {})
    assert str(envfile) in error.message
    assert error.hint
    return error


BROKEN: dict[str, tuple[bytes | str, int]] = {
    "a quote that isn't closed": ("PROMPTYOSELF_TZ='Europe/Paris\n", 1),
    "a double quote": ('# zone\n\nPROMPTYOSELF_TZ="Europe/Paris\nLETTA_API_KEY=k\n', 3),
    "a quote that is closed in the next setting": (
        'PROMPTYOSELF_TZ="Europe/Paris\nPROMPTYOSELF_VAR="\n', 1,
    ),
    "a setting lost in another's quote": ('A=1\nKEY="x\nPROMPTYOSELF_TZ=Asia/Tokyo\nB="\n', 2),
    "an exported one lost": ("KEY='x\n  export LETTA_API_KEY = 'y'\n", 1),
    "something after a quote": ("\n\nPROMPTYOSELF_TZ='UTC' Europe\n", 3),
    "a name without =": ("PROMPTYOSELF_INTERVAL=5\nPROMPTYOSELF_TZ\n", 2),
    "a name, a space and a value": ("PROMPTYOSELF_TZ Europe/Paris\n", 1),
    "a colon": ("PROMPTYOSELF_TZ: Europe/Paris\n", 1),
    "the second half of a value": ("LETTA_API_KEY=abc\ndef\n", 2),
    "no name": ("=UTC\n", 1),
    "a comment of another kind": ("PROMPTYOSELF_INTERVAL=5\n; PROMPTYOSELF_TZ=UTC\n", 2),
    "another shell's": ("\nset PROMPTYOSELF_TZ=UTC\n", 2),
    "a mark in the middle": ("PROMPTYOSELF_INTERVAL=5\n\ufeffPROMPTYOSELF_TZ=UTC\n", 2),
    "a quoted name": ('"PROMPTYOSELF_TZ"=Europe/Paris\n', 1),
    "twice": ("PROMPTYOSELF_TZ=UTC\n\nPROMPTYOSELF_TZ=Europe/Paris\n", 3),
    "twice, once empty": ("PROMPTYOSELF_TZ=\nexport PROMPTYOSELF_TZ=Europe/Paris\n", 2),
    "a reference": ("PROMPTYOSELF_VAR=${HOME}/var\n", 1),
    "a reference in double quotes": ('\nPROMPTYOSELF_VAR="$HOME/var"\n', 2),
    "a reference in a secret": ("LETTA_API_KEY=${KEY}\n", 1),
    "NUL": (b"PROMPTYOSELF_INTERVAL=5\nPROMPTYOSELF_TZ=U\0TC\n", 2),
    "Latin-1": (b"# Z\xfcrich\nPROMPTYOSELF_TZ=UTC\n", 1),
    "Latin-1, further down": (b"A=1\r\nB=2\r\n# Z\xfcrich\r\n", 3),
    "Windows' line ends": ("A=1\r\nB=2\r\nPROMPTYOSELF_TZ\r\nC=3\r\n", 3),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_line_that_says_nothing_is_refused(envfile: Path, case: str) -> None:
    """P7: no line is passed over, whose setting would take its default; the error names the file
    and the line, and shows nothing of what may be a secret."""
    content, line = BROKEN[case]
    error = refused(envfile, content)
    assert f"line {line}:" in error.message
    assert (error.details["line"], error.details["file"]) == (line, str(envfile))
    assert "Paris" not in error.message + error.hint
    assert "abc" not in error.message + error.hint


def test_every_command_refuses_it(var: Path, envfile: Path) -> None:
    """P7: a registration doesn't fall into UTC because of a quote; nothing is written."""
    envfile.write_text("PROMPTYOSELF_TZ='Europe/Paris\n")
    for arguments in (REGISTER, ("list",), ("doctor", "--skip-letta")):
        document = call(*arguments).error("invalid_setting")
        assert (document["line"], document["file"]) == (1, str(envfile))
    assert not log_of(var)


def test_another_encoding_is_named(envfile: Path) -> None:
    """P7: what Windows' editors call Unicode is named, with the way to convert it."""
    error = refused(envfile, "PROMPTYOSELF_TZ=UTC\n".encode("utf-16"))
    assert "UTF-16" in error.message
    assert "iconv" in error.hint


def test_what_is_no_file_is_refused(envfile: Path, tmp_path: Path) -> None:
    """P7: a folder, a pipe and a link to nowhere aren't the same as no file at all; the null
    device is, with which containers hide one."""
    envfile.mkdir()
    assert "no file" in refusal("invalid_setting", load_settings, {}).message
    envfile.rmdir()
    os.mkfifo(envfile)
    assert "no file" in refusal("invalid_setting", load_settings, {}).message
    envfile.unlink()
    envfile.symlink_to(tmp_path / "secrets")
    assert "link to nowhere" in refusal("invalid_setting", load_settings, {}).message
    envfile.unlink()
    envfile.symlink_to(os.devnull)
    assert load_settings({}).timezone == ""
    envfile.unlink()
    with envfile.open("wb") as file:
        file.truncate(2 << 20)
    assert "1 MiB" in refusal("invalid_setting", load_settings, {}).message


def test_a_file_that_may_not_be_read_is_named(
    envfile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: where the file or its folder is closed to us, the error says so, and no default is taken.

    Root may read everything, so the refusal is the kernel's of a name that is too long."""
    monkeypatch.setattr(module, "_is_checkout", lambda: False)
    error = refusal("invalid_setting", load_settings, {"HOME": "/" + "x" * 300})
    assert "can't be read" in error.message


ZONE = "PROMPTYOSELF_TZ"
GOOD: dict[str, tuple[bytes | str, str, str]] = {
    "a byte order mark": (b"\xef\xbb\xbfPROMPTYOSELF_TZ=Asia/Tokyo\n", ZONE, "Asia/Tokyo"),
    "Windows' line ends": ("A=1\r\nPROMPTYOSELF_TZ=Asia/Tokyo\r\n", ZONE, "Asia/Tokyo"),
    "no last line end": ("PROMPTYOSELF_TZ=Asia/Tokyo", ZONE, "Asia/Tokyo"),
    "export": ("export PROMPTYOSELF_TZ=Asia/Tokyo\n", ZONE, "Asia/Tokyo"),
    "spaces": ("  PROMPTYOSELF_TZ = Asia/Tokyo  \n", ZONE, "Asia/Tokyo"),
    "a comment": ("PROMPTYOSELF_TZ=Asia/Tokyo # home\n", ZONE, "Asia/Tokyo"),
    "a comment alone": ("PROMPTYOSELF_TZ= # home\n", ZONE, ""),
    "a # in a value": ("LETTA_API_KEY=#1\n", "LETTA_API_KEY", "#1"),
    "empty": ("PROMPTYOSELF_TZ=\n", ZONE, ""),
    "blank": ("PROMPTYOSELF_TZ='  '\n", ZONE, ""),
    "a dollar sign in a secret": ("LETTA_API_KEY=pa$word\n", "LETTA_API_KEY", "pa$word"),
    "a reference that is none": ("LETTA_API_KEY='${KEY}'\n", "LETTA_API_KEY", "${KEY}"),
    "others' names": (
        "OPENAI_API_KEY=${K}\nOPENAI_API_KEY=x\nPROMPTYOSELF_TZ=Asia/Tokyo", ZONE, "Asia/Tokyo",
    ),
    "others' long values": ("PEM='a\nb=\nc'\nPROMPTYOSELF_TZ=Asia/Tokyo", ZONE, "Asia/Tokyo"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_what_editors_and_shells_write_is_read(envfile: Path, case: str) -> None:
    """Files from Windows, exported names, comments, and others' settings in the same file."""
    content, name, value = GOOD[case]
    envfile.write_bytes(content.encode() if isinstance(content, str) else content)
    sources = {source.setting.name: source for source in read_sources(HOME)}
    assert sources[name].value == value
    assert load_settings(HOME).unknown == ()


def test_a_value_out_of_a_file_has_no_line_end(envfile: Path) -> None:
    """A key that a script read from a file saved on Windows is the key, and nothing more."""
    environ = {"LETTA_API_KEY": "\ufeffkey-1\r\n", "PROMPTYOSELF_MCP_TOKEN": "token\r"}
    settings = load_settings(environ)
    assert (settings.token, settings.mcp_token) == ("key-1", "token")
    assert set(settings.secrets) == {"key-1", "token"}


def test_a_bad_value_names_its_line(envfile: Path) -> None:
    """P7: the sentence names the variable and its value. The hint leads to the line that has to be
    changed, or to the environment."""
    envfile.write_text("A=1\n\nPROMPTYOSELF_INTERVAL=often\n")
    error = refusal("invalid_setting", load_settings, {})
    assert "PROMPTYOSELF_INTERVAL is 'often'" in error.message
    assert f"line 3 of {envfile}" in error.hint
    error = refusal("invalid_setting", load_settings, {"PROMPTYOSELF_INTERVAL": "rarely"})
    assert "the environment" in error.hint


def test_a_zone_names_its_line_too(
    var: Path, envfile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: likewise where a value is only looked at when it is needed."""
    monkeypatch.delenv("PROMPTYOSELF_TZ")
    envfile.write_text("\nPROMPTYOSELF_TZ=Mars/Olympus\n")
    assert f"line 2 of {envfile}" in call(*REGISTER).error("invalid_setting")["hint"]
    monkeypatch.setenv("PROMPTYOSELF_DESIRE_HALF_LIFE", "soon")
    document = call("desires", "--agent-id", AGENT).error("invalid_setting")
    assert "the environment" in document["hint"]


def test_a_tilde_is_nobodys_home(envfile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: no folder named ~ is made, where somebody meant the home folder."""
    for name in ("PROMPTYOSELF_VAR", "PROMPTYOSELF_LOG_FILE"):
        with pytest.raises(PromptyoselfError, match=f"{name}.*~"):
            load_settings({name: "~/promptyoself"})


def test_the_callers_folder_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, envfile: Path
) -> None:
    """A relative XDG_CONFIG_HOME counts for nothing, as its specification has it."""
    monkeypatch.setattr(module, "_is_checkout", lambda: False)
    (tmp_path / "promptyoself").mkdir()
    (tmp_path / "promptyoself" / ".env").write_text("PROMPTYOSELF_TZ=Asia/Tokyo\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings({**HOME, "XDG_CONFIG_HOME": "."}).timezone == ""
    assert load_settings({**HOME, "XDG_CONFIG_HOME": str(tmp_path)}).timezone == "Asia/Tokyo"


# --- names that are no settings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PROMPTYOSELF_TIMEZONE", "PROMPTYOSELF_TZ"),
        ("PROMPTYOSELF_TZZ", "PROMPTYOSELF_TZ"),
        ("promptyoself_tz", "PROMPTYOSELF_TZ"),
        ("PROMPTYOSELF-TZ", "PROMPTYOSELF_TZ"),
        ("PROMTYOSELF_TZ", "PROMPTYOSELF_TZ"),
        ("PROMPTYOURSELF_TZ", "PROMPTYOSELF_TZ"),
        ("PROMPTYOSELF_DEFAULT_AGENT", "PROMPTYOSELF_DEFAULT_AGENT_ID"),
        ("PROMPTYOSELF_LOGFILE", "PROMPTYOSELF_LOG_FILE"),
        ("PROMPTYOSELF_MIN_INTERVALL", "PROMPTYOSELF_MIN_INTERVAL"),
        ("PROMPTYOSELF_DATA_DIR", "PROMPTYOSELF_VAR"),
        ("PROMPTYOSELF_LETTA_BASE_URL", "LETTA_BASE_URL"),
        ("PROMPTYOSELF_API_KEY", "LETTA_API_KEY"),
        ("PROMPTYOSELF_XYZZY_QUUX", None),
    ],
)
def test_a_name_that_is_no_setting_is_told(
    var: Path, envfile: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    """P7, P9: every command says on stderr that it does nothing, and which name may be meant;
    doctor fails. Its value, which may be a secret, is shown nowhere."""
    monkeypatch.setenv(name, "sesame-1")
    answer = call("list")
    answer.success()
    assert f"{name} is set in the environment, but it is no setting" in answer.err
    hint = f"Did you mean {meant}?" if meant else "`promptyoself doctor` lists the settings"
    assert hint in answer.err
    assert answer.err.count("is no setting") == 1
    examined = call("doctor", "--skip-letta")
    (check,) = (
        each for each in examined.error("unhealthy")["checks"] if each["name"] == "settings"
    )
    assert (check["ok"], name in check["detail"], hint in check["hint"]) == (False, True, True)
    assert b"sesame" not in answer.out + answer.err.encode() + examined.out


def test_a_name_in_the_file_is_told_with_its_line(
    var: Path, envfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: so is one in the .env file, and a name of Letta's in the wrong case; also where warnings
    go to a log file, since a caller isn't reading that."""
    envfile.write_text("LETTA_PG_URI=x\n\nPROMPTYOSELF_ZONE=UTC\nletta_api_key=y\n")
    monkeypatch.setenv("PROMPTYOSELF_LOG_FILE", str(tmp_path / "log"))
    said = call(*REGISTER).err
    assert f"PROMPTYOSELF_ZONE is set in line 3 of {envfile}" in said
    assert f"letta_api_key is set in line 4 of {envfile}" in said
    assert "Did you mean LETTA_API_KEY?" in said
    assert "LETTA_PG_URI" not in said
    logged = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [line["level"] for line in logged] == ["warning", "warning"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_PROMPTYOSELF_COMPLETE", ""),
        ("PROMPTYOSELF", "/usr/bin/promptyoself"),
        ("PROMETHEUS_MULTIPROC_DIR", "/tmp"),
        ("PROMPT_COMMAND", "true"),
        ("PROMPTYOSELF_SERVICE_HOST", "10.0.0.7"),
        ("PROMPTYOSELF_MCP_SERVICE_PORT_HTTP", "8765"),
        ("PROMPTYOSELF_PORT", "tcp://10.0.0.7:8765"),
        ("PROMPTYOSELF_PORT_8765_TCP_ADDR", "10.0.0.7"),
    ],
)
def test_what_others_set_is_left_alone(
    var: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Shells, Prometheus, and a Kubernetes with a service of our name mean no settings of ours."""
    (var / "schedules").mkdir(parents=True)  # else doctor tells that it isn't there
    monkeypatch.setenv(name, value)
    answer = call("doctor", "--skip-letta")
    answer.success()
    assert answer.err == ""


def test_a_process_of_its_own_tells_too(environ: dict[str, str]) -> None:
    """P7: stdout has the one document; the warning is on stderr."""
    answer = run(*REGISTER, environ={**environ, "PROMPTYOSELF_TIMEZONE": "Asia/Tokyo"})
    assert answer.success()["timezone"] == "UTC"
    assert "Did you mean PROMPTYOSELF_TZ?" in answer.err


def test_a_program_is_told_once(
    var: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An MCP server, which calls a command for each call of its clients, isn't told each time."""
    monkeypatch.setenv("PROMPTYOSELF_TIMEZONE", "Asia/Tokyo")
    for _ in range(3):
        answer = orjson.loads(call_command(cli.cli, ["list"], Caller("mcp", StopFlag())))
        assert answer["status"] == "success"
    assert capsys.readouterr().err.count("PROMPTYOSELF_TIMEZONE") == 1


def test_every_suggestion_is_a_setting() -> None:
    """What is suggested exists."""
    names = {setting.name for setting in module.SETTINGS}
    assert set(module._GUESSES.values()) <= names
    for name in names:
        hint = describe_unknown(Unknown(name + "S", "environment"))[1]
        assert any(each in hint for each in names), name


# --- the address of Letta -------------------------------------------------------------------------


def test_the_hosts_name_for_letta_is_second(envfile: Path) -> None:
    """LETTA_SERVER_URL, which Sanctum sets, counts where LETTA_BASE_URL isn't set anywhere."""
    host = {"LETTA_SERVER_URL": "http://host:1/"}
    assert load_settings({}).base_url == "http://localhost:8283"
    assert load_settings(host).base_url == "http://host:1"
    assert load_settings({**host, "LETTA_BASE_URL": " "}).base_url == "http://host:1"
    assert load_settings({**host, "LETTA_BASE_URL": "http://own:2"}).base_url == "http://own:2"
    sources = {source.setting.name: source for source in read_sources(host)}
    assert sources["LETTA_BASE_URL"][1:3] == ("http://host:1/", "LETTA_SERVER_URL")
    error = refusal("invalid_setting", load_settings, {"LETTA_SERVER_URL": "host:1"})
    assert "LETTA_SERVER_URL" in error.hint
    envfile.write_text("LETTA_BASE_URL=http://file:3\n")
    assert load_settings(host).base_url == "http://file:3"


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o660])
def test_a_file_that_others_may_write_to_is_refused(envfile: Path, mode: int) -> None:
    """It says where prompts are sent, and with which key. One message says what to do."""
    envfile.write_text("PROMPTYOSELF_TZ=Europe/Paris\n")
    if mode == 0o660:
        if os.getuid():
            pytest.skip("only root gives a file to a group of others")
        os.chown(envfile, -1, 1)
    envfile.chmod(mode)
    error = refusal("invalid_setting", load_settings, HOME)
    assert error.details["file"] == str(envfile)
    assert "other users may write to it" in error.message
    assert f"`chmod 600 {envfile}`" in error.hint
    call("list").error("invalid_setting")
    envfile.chmod(0o640)
    assert load_settings(HOME).timezone == "Europe/Paris"


def test_a_group_of_the_owner_alone_may_write(envfile: Path) -> None:
    """Debian and others give each user a group of the same name, and a umask of 002."""
    envfile.write_text("PROMPTYOSELF_TZ=Europe/Paris\n")
    try:
        own = grp.getgrnam(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pytest.skip("there is no such group here")
    os.chown(envfile, -1, own.gr_gid)
    envfile.chmod(0o664)
    assert load_settings(HOME).timezone == "Europe/Paris"
