"""The container files, as far as that goes without an engine."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from promptyoself.cli import cli
from promptyoself.core.setting_values import (
    DESTINATION,
    DIGEST,
    SETTINGS,
    WEBHOOK_SECRET,
    destination_setting,
)
from promptyoself.core.settings import load_settings, settings_path

ROOT = Path(__file__).resolve().parents[2]


def instructions(name: str, file: str = "Dockerfile") -> list[str]:
    """The arguments of every such instruction in a Dockerfile, in order."""
    text = re.sub(r"\\\n\s*", "", (ROOT / file).read_text())
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path at the root out: the last pattern that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            keep = pattern.startswith("!")
            if Path(path).match(pattern.removeprefix("!")):
                verdict = not keep
    return verdict


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def accepts(arguments: list[str]) -> bool:
    """Whether the real command line takes these arguments; nothing is run."""
    context = click.Context(cli, info_name="promptyoself")
    command = cli.get_command(context, arguments[0])
    if command is None:
        return False
    command.make_context(arguments[0], arguments[1:], parent=context)
    return True


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    """Every source of a COPY exists in the repository and reaches the build."""
    sources = [
        source
        for arguments in instructions("COPY")
        if not arguments.startswith("--from=")
        for source in shlex.split(arguments)[:-1]
    ]
    assert {"pyproject.toml", "README.md", "LICENSE", "promptyoself"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize("path", [".env", "var", ".git", ".venv", "tests", "docs"])
def test_secrets_and_data_never_reach_the_build(path: str) -> None:
    """Neither .env nor var/ nor anything else that isn't needed is sent to the engine."""
    assert ignored(path)


def test_the_build_asks_a_registry_for_the_base_image_alone() -> None:
    """No line names a front end, which would be fetched before anything is built."""
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"(?mi)^#\s*(syntax|check)\s*=", text)
    assert set(re.findall(r"(?m)^FROM (\S+)", text)) == {"python:3.13-slim"}


def test_the_image_runs_the_loop() -> None:
    """Its entry point and command, in the form that lets signals arrive, are accepted by ours."""
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["promptyoself"]
    assert json.loads(command) == ["execute", "--loop"]
    assert accepts(json.loads(command))
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_health_check_is_one_of_our_commands() -> None:
    """The health check is accepted by the real command line, and asks for a running loop. It comes
    soon and often, and what has failed is a matter of it."""
    (check,) = instructions("HEALTHCHECK")
    asked = dict(word.split("=") for word in check.partition("CMD ")[0].split())
    seconds = {name: int(text.removesuffix("s")) for name, text in asked.items()}
    assert seconds["--interval"] <= 30
    assert seconds["--interval"] * seconds["--retries"] <= 60
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "promptyoself"
    assert accepts(arguments)
    assert {"--require-loop", "--quick"} <= set(arguments)
    assert "--allow-failed" not in arguments


def test_the_image_has_its_own_user_and_keeps_the_log_in_a_volume() -> None:
    """It doesn't run as root; its user owns /data, which is the volume and the data directory."""
    (user,), (volume,) = instructions("USER"), instructions("VOLUME")
    runs = " ".join(instructions("RUN"))
    assert user != "root"
    assert f"useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin {user}" in runs
    assert volume == "/data"
    assert f"--owner {user} --group {user} /data" in runs
    assert any("PROMPTYOSELF_VAR=/data" in line for line in instructions("ENV"))


def test_the_image_keeps_its_file_of_settings_in_the_volume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So `notify add` in a container is for all of them, and stays."""
    (variables,) = instructions("ENV")
    environ = dict(word.split("=") for word in variables.split())
    monkeypatch.setattr("promptyoself.core.settings._is_checkout", lambda: False)
    assert settings_path(environ) == Path("/data/config/promptyoself/.env")
    assert load_settings(environ, with_file=False).var == Path("/data")


def test_the_image_has_what_the_mcp_server_needs() -> None:
    """The wheel is installed with the extra that brings the SDK. The tests of containers, which
    build without a network, fetch the same extras first."""
    (install,) = [line for line in instructions("RUN") if "/dist/*.whl" in line]
    extras = "[letta-code,mcp,metrics,notify]"
    assert f'"${{wheel}}{extras}"' in install
    assert f"'/src{extras}'" in (ROOT / "docker" / "engine.sh").read_text()


def test_the_compose_file_has_a_letta_and_the_loop(compose: dict[str, Any]) -> None:
    """The loop finds Letta by its name, keeps the log in a named volume, and stops in peace."""
    letta, loop = compose["services"]["letta"], compose["services"]["loop"]
    assert letta["image"] == "letta/letta:0.16.8"
    assert loop["environment"]["LETTA_BASE_URL"] == "http://letta:8283"
    assert loop["environment"]["PROMPTYOSELF_VAR"] == "/data"
    for service in (letta, loop):
        assert service["restart"] == "unless-stopped"
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(
            compose["volumes"]
        )
    assert int(loop["stop_grace_period"].removesuffix("s")) > 10
    assert all(port.startswith("127.0.0.1:") for port in letta["ports"])


def test_each_container_gets_what_it_needs(compose: dict[str, Any]) -> None:
    """Ours get each setting by its name, from the environment or from .env, and nothing else of
    that file: no key of a model. Of our secrets each has those that it uses; Letta, where agents'
    tools run, has its own password alone."""
    letta, loop, mcp = (compose["services"][name] for name in ("letta", "loop", "mcp"))
    theirs = {"LETTA_BASE_URL", "PROMPTYOSELF_LETTA_CODE_URL", "PROMPTYOSELF_VAR"}  # their own
    elsewhere = {"PROMPTYOSELF_MCP_TOKEN", "LETTA_SERVER_URL", "PROMPTYOSELF_DB_PATH"}
    of_ops = {
        destination_setting(prefix, "ops") for prefix in (DESTINATION, WEBHOOK_SECRET, DIGEST)
    }
    names = {setting.name for setting in SETTINGS} - elsewhere | of_ops
    assert set(loop["environment"]) == names, "a new setting is named in docker-compose.yml too"
    assert {name for name, value in loop["environment"].items() if value} == theirs
    assert set(mcp["environment"]) == names | {"PROMPTYOSELF_MCP_TOKEN"}
    assert "env_file" not in loop
    assert "env_file" not in mcp
    assert letta["env_file"] == [{"path": ".env", "required": False}]
    for setting in SETTINGS:
        if setting.secret and setting.name != "LETTA_SERVER_PASSWORD":
            assert letta["environment"][setting.name] == ""
    assert {letta["environment"][name] for name in of_ops} == {""}
    example = (ROOT / ".env.example").read_text()
    assert all(f"\n#{name}=\n" in example for name in of_ops)


def test_an_app_server_is_there_for_those_who_ask(compose: dict[str, Any]) -> None:
    """It has an image of its own, and is neither built nor started by default. It has its own token
    alone, and not the log; the loop finds it by its name."""
    service = compose["services"]["letta-code"]
    file = service["build"]["dockerfile"]
    assert service["profiles"] == ["letta-code"]
    assert set(service["environment"]) == {"PROMPTYOSELF_LETTA_CODE_TOKEN"}
    assert service["volumes"] == ["letta-code:/home/letta"]
    assert "letta-code" not in compose["services"]["loop"]["depends_on"]
    (entry,), (command,) = instructions("ENTRYPOINT", file), instructions("CMD", file)
    assert json.loads(entry) == ["promptyoself"]
    assert accepts(json.loads(command))
    listen = json.loads(command)[-1]
    port = listen.rpartition(":")[2]
    assert listen == f"ws://0.0.0.0:{port}"
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    url = compose["services"]["loop"]["environment"]["PROMPTYOSELF_LETTA_CODE_URL"]
    assert url == f"ws://letta-code:{port}"
    (check,) = instructions("HEALTHCHECK", file)
    assert accepts(json.loads(check.partition("CMD ")[2])[1:])
    (user,) = instructions("USER", file)
    assert user == "letta"
    assert instructions("VOLUME", file) == ["/home/letta"]
    pinned = (ROOT / "tests" / "letta_code" / "requirements.txt").read_text().strip()
    assert f"ARG LETTA_CODE={pinned.removeprefix('letta==')}\n" in (ROOT / file).read_text()


def test_the_image_is_built_once(compose: dict[str, Any]) -> None:
    """One service builds it; the others use it, and no registry is asked for it."""
    services = compose["services"].values()
    ours = [service for service in services if service["image"] == "promptyoself"]
    assert len(ours) == 2
    (builds,) = [service for service in ours if "build" in service]
    assert builds["build"] == "."
    assert all(service["pull_policy"] == "never" for service in ours if "build" not in service)


def test_the_mcp_server_shares_the_loops_log(compose: dict[str, Any]) -> None:
    """It is the same image on the same volume, open to this machine and to the other containers, by
    the name that they know, and to nobody without a token."""
    mcp, loop = compose["services"]["mcp"], compose["services"]["loop"]
    assert (mcp["image"], mcp["volumes"]) == (loop["image"], loop["volumes"])
    assert {name: mcp["environment"][name] for name in loop["environment"]} == loop["environment"]
    assert mcp["environment"]["PROMPTYOSELF_MCP_TOKEN"].startswith("${PROMPTYOSELF_MCP_TOKEN:?")
    command = shlex.split(mcp["command"])
    asked = dict(itertools.pairwise(command))
    assert (asked["--transport"], asked["--allow-host"]) == ("http", "mcp")
    port = asked["--port"]
    assert mcp["ports"] == [f"127.0.0.1:{port}:{port}"]
    check = mcp["healthcheck"]["test"]
    assert check[:3] == ["CMD", "python", "-c"]
    assert f'("127.0.0.1", {port}, timeout=5)' in check[3]
    compile(check[3], "healthcheck", "exec")
    assert int(mcp["healthcheck"]["interval"].removesuffix("s")) <= 30
    assert f'"http://mcp:{port}/mcp"' in (ROOT / "docker" / "smoke_client.py").read_text()


def test_the_smoke_test_is_fit_to_be_run() -> None:
    """Bash and shellcheck find nothing wrong with it, and each of our commands in it is one."""
    script = ROOT / "docker" / "smoke.sh"
    assert script.stat().st_mode & 0o111
    scripts = [
        script,
        *(ROOT / "docker" / name for name in ("engine.sh", "boot.sh")),
        ROOT / ".ci/run",
    ]
    for path in scripts:
        subprocess.run(["bash", "-n", str(path)], check=True)
    checker = Path(sys.executable).with_name("shellcheck")
    subprocess.run([str(checker), *map(str, scripts)], check=True)
    text = script.read_text()
    commands = re.findall(r"(?m)(?:^|within \d+ |\{ )promptyoself ([a-z].*?)(?:$| \||;|>)", text)
    assert len(commands) >= 7
    for command in commands:
        assert accepts(shlex.split(command.replace('"$id"', "sch_12345678"))), command
    compile((ROOT / "docker" / "smoke_client.py").read_text(), "smoke_client.py", "exec")


def test_the_smoke_test_has_an_image_and_ports_of_its_own(compose: dict[str, Any]) -> None:
    """Nothing of it meets a user's containers: neither a port nor a name of an image, and .env is
    read by nobody."""
    text = (ROOT / "docker" / "smoke.yml").read_text()
    overriding = yaml.safe_load(text.replace("!reset", ""))["services"]
    for name, service in compose["services"].items():
        if "profiles" in service:  # nobody asks for it there
            continue
        if "ports" in service:
            assert re.search(rf"(?m)^  {name}:(\n    .*)*\n    ports: !reset \[\]$", text), name
        if "env_file" in service:
            assert overriding[name]["env_file"] == []
        if service["image"] == "promptyoself":
            assert overriding[name]["image"] == "promptyoself-smoke"
    assert "--env-file /dev/null" in (ROOT / "docker" / "smoke.sh").read_text()


def test_every_service_runs_commands_that_exist(compose: dict[str, Any]) -> None:
    """A command that a service of ours runs is accepted by the real command line."""
    for service in compose["services"].values():
        if "build" in service and "command" in service:
            assert accepts(shlex.split(service["command"]))


def test_compose_itself_accepts_the_file() -> None:
    """`docker compose config` finds nothing wrong, where there is a docker with compose."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if asked.returncode != 0:
        pytest.skip("docker has no compose here")
    command = ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    environ = {**os.environ, "PROMPTYOSELF_MCP_TOKEN": "0123456789abcdef"}
    subprocess.run(command, check=True, timeout=60, env=environ)
