"""A user and a password in the address of Letta: used, and shown nowhere."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, call, run

from promptyoself.core import diagnostics
from promptyoself.core.addresses import credentials, presentable
from promptyoself.core.diagnostics import redact_secrets
from promptyoself.core.settings import load_settings
from promptyoself.sandbox import Sandbox
from promptyoself.targets.letta import LettaClient

if TYPE_CHECKING:
    from conftest import Clock

REGISTER = ("register", "--agent-id", AGENT, "--prompt", "Hello")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8283", "http://localhost:8283"),
        ("http://localhost:8283/", "http://localhost:8283/"),
        ("http://", "http://"),
        ("https://me:s3same@letta.example/api", "https://letta.example/api"),
        ("http://s3same@[::1]:8283", "http://[::1]:8283"),
        ("https://me:s3@s3same@letta.example", "https://letta.example"),
        ("https://letta.example/api?key=s3same#s3same", "https://letta.example/api"),
        ("http://me:s3same/x@letta.example", "http://***@letta.example"),
        ("http://me:s3same?x@letta.example", "http://***@letta.example"),
        ("http://me:8283#s3same@letta.example", "http://***@letta.example"),
        ("me:s3same@letta.example:8283", "***@letta.example:8283"),
        ("ftp://me:s3same@letta.example", "ftp://letta.example"),
        ("http:me:s3same@letta.example", "***@letta.example"),
        ("localhost:8283", "localhost:8283"),
        ("", ""),
    ],
)
def test_what_may_be_shown(url: str, shown: str) -> None:
    """The part before the @ is left out, or hidden where it isn't in its place."""
    assert presentable(url) == shown
    assert "s3same" not in presentable(url)


def test_every_form_of_a_password_is_a_secret() -> None:
    """As it stands in the address, decoded, and as HTTP sends it; but no word of one character."""
    secrets = credentials("https://me:p%40ssword@letta.example")
    header = b64encode(b"me:p@ssword").decode()
    assert set(secrets) == {"me:p%40ssword", "me:p@ssword", "p%40ssword", "p@ssword", header}
    assert credentials("https://sk-0123456789abcdef:x@h")[:1] == ("sk-0123456789abcdef:x",)
    assert "sk-0123456789abcdef" in credentials("https://sk-0123456789abcdef:x@h")
    assert "x" not in credentials("https://sk-0123456789abcdef:x@h")
    assert "token" in credentials("https://token@h")
    assert credentials("https://h/x") == ()


@pytest.mark.parametrize(
    "url",
    [
        "me:s3same@letta.example",
        "ftp://me:s3same@letta.example",
        "http:/me:s3same@letta.example",
        "http://me:s3same/x@letta.example",
        "http://me:8283#s3same@letta.example",
        "https://me:s3same@",
        "http://me:s3same@letta.example:port",
    ],
)
@pytest.mark.parametrize("name", ["LETTA_BASE_URL", "LETTA_SERVER_URL"])
def test_a_refused_address_keeps_its_secret(
    var: Path, monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    """P7: every command that refuses it names the setting, not the password."""
    monkeypatch.delenv("LETTA_BASE_URL", raising=False)
    monkeypatch.setenv(name, url)
    for command in (["list"], ["test"], ["agents"], ["doctor"], ["execute"]):
        answer = call(*command)
        assert b"s3same" not in answer.out + answer.err.encode(), command
        if command == ["test"]:
            assert answer.document["code"] in ("invalid_setting", "invalid_base_url")
            assert "LETTA_BASE_URL" in answer.document["message"] + answer.document["hint"]


def test_an_answer_shows_where_and_not_who(
    var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    """Agents and people are told the server's address without the part before the @, while it is
    up and when it is down; the log and a traceback have none of it either."""
    with Sandbox(("echo-1",)) as sandbox:
        secret = sandbox.url.replace("//", "//me:s3same@")
        monkeypatch.setenv("LETTA_BASE_URL", secret)
        monkeypatch.setenv("PROMPTYOSELF_LOG_FILE", str(tmp_path / "log"))
        monkeypatch.setenv("PROMPTYOSELF_LOG_LEVEL", "debug")
        said = [call("test"), call("agents"), call("doctor")]
        assert [answer.success().get("url") for answer in said] == [sandbox.url, sandbox.url, None]
        settings = {each["name"]: each["value"] for each in said[2].document["settings"]}
        assert settings["LETTA_BASE_URL"] == sandbox.url
        said += [call(*REGISTER, "--every", "1h", "--check")]
        said[-1].error("agent_not_found")
        call(*REGISTER, "--time", "in 5s").success()
        clock.advance(seconds=10)
        said += [call("execute")]
        said += [call("history")]
    said += [call("test"), call("agents"), call("doctor"), call("execute")]
    assert said[-4].document["code"] == "letta_unreachable"
    everything = b"".join(answer.out + answer.err.encode() for answer in said)
    everything += (tmp_path / "log").read_bytes() if (tmp_path / "log").exists() else b""
    assert b"s3same" not in everything
    assert redact_secrets(f"GET {secret}") == f"GET {sandbox.url.replace('//', '//***@')}"


def test_a_demonstration_keeps_it_too(environ: dict[str, str]) -> None:
    """`demo` calls other processes with the address, and shows none of the secret."""
    with Sandbox(("echo-1",)) as sandbox:
        environ["LETTA_BASE_URL"] = sandbox.url.replace("//", "//me:s3same@")
        answer = run("demo", environ=environ)
    assert answer.success()["url"] == sandbox.url
    assert b"s3same" not in answer.out + answer.err.encode()


def test_settings_have_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address to connect to, the one to show, and what to hide of it in others' words."""
    monkeypatch.setattr(diagnostics, "_secrets", set())
    settings = load_settings({"LETTA_BASE_URL": "http://me:s3same@h/", "HOME": "/nonexistent"})
    assert (settings.base_url, settings.shown_url) == ("http://me:s3same@h", "http://h")
    assert {"me:s3same", "s3same"} <= set(settings.secrets)
    LettaClient(settings.base_url).close()
