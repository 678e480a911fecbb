"""The containers, really built and run, with the sandbox in Letta's place: `make test-docker`."""

import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytestmark = pytest.mark.timeout(600)

AGENT = "agent-26ed798b-b9b4-406c-8bb4-12676e9eec8b"  # the sandbox's first
TOKEN = "0123456789abcdef" * 2
SMOKE = "promptyoself-smoke"
FILES = ("docker-compose.yml", "tests/containers.yml")
CONTEXT = "Dockerfile .dockerignore docker-compose.yml docker pyproject.toml README.md LICENSE"


class Engine:
    """A Docker engine, reached by words before `docker`; it sees the repository as its folder."""

    def __init__(self, words: str) -> None:
        self._words = shlex.split(words)

    def run(
        self, *command: str, content: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A command beside it."""
        done = subprocess.run(
            [*self._words, *command],
            input=content, stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True, text=True, check=False,
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def docker(self, *arguments: str) -> str:
        """What `docker` prints."""
        return self.run("docker", *arguments).stdout.strip()

    def images(self) -> set[str]:
        """Every image with its name, also where it has none."""
        shown = self.docker("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
        return set(shown.splitlines())


class Stack:
    """One project of compose, with a name of its own."""

    def __init__(self, engine: Engine, **settings: str) -> None:
        self.engine = engine
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self._environ = [
            f"{k}={v}" for k, v in {"PROMPTYOSELF_MCP_TOKEN": TOKEN, **settings}.items()
        ]

    def compose(
        self, *arguments: str, content: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose` with these arguments."""
        files = [word for file in FILES for word in ("--file", file)]
        command = ["docker", "compose", "--env-file", "/dev/null", "--project-name", self.name]
        return self.engine.run(
            "env", *self._environ, *command, *files, *arguments, content=content, check=check
        )

    def ids(self, service: str) -> list[str]:
        """The containers of a service."""
        return self.compose("ps", "--all", "--quiet", service).stdout.split()

    def look(self, service: str, shown: str) -> str:
        """What `docker inspect` shows of a service's one container."""
        (container,) = self.ids(service)
        return self.engine.docker("inspect", "--format", shown, container)

    def health(self, service: str) -> str:
        """starting, healthy or unhealthy."""
        return self.look(service, "{{.State.Health.Status}}")

    def promptyoself(self, *words: str, check: bool = True) -> dict[str, Any]:
        """The answer of a command in the loop's container."""
        done = self.compose("exec", "-T", "loop", "promptyoself", *words, check=check)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def events(self, type_: str) -> list[dict[str, Any]]:
        """What the log has of that type."""
        words = ("exec", "-T", "mcp", "promptyoself", "history", "--type", type_)
        events: list[dict[str, Any]] = json.loads(self.compose(*words).stdout)["events"]
        return events

    def letta(self, path: str = "state", method: str = "GET") -> dict[str, Any]:
        """The sandbox's answer, asked from another container."""
        code = (
            "import urllib.request as u\n"
            f"asked = u.Request('http://letta:8283/_sandbox/{path}', method='{method}')\n"
            "print(u.urlopen(asked).read().decode())"
        )
        answer = json.loads(self.compose("exec", "-T", "mcp", "python", "-", content=code).stdout)
        assert isinstance(answer, dict)
        return answer

    def register(self, number: int = 1) -> None:
        """Prompts that are due in a second."""
        for count in range(number):
            words = ("--agent-id", AGENT, "--prompt", f"p{count}", "--time", "in 1s")
            self.promptyoself("register", *words)

    def copies(self) -> list[int]:
        """How often each prompt has arrived."""
        return [n for agent in self.letta()["agents"] for n in agent["otids"].values()]

    def check(self) -> None:
        """The log is whole, and every slot has one outcome."""
        assert self.promptyoself("verify")["valid"] is True
        self.promptyoself("audit")  # fails where one has none


def within(seconds: float, holds: Callable[[], object], what: str) -> float:
    """Wait for something; how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine that `make test-docker` starts; without one, there is nothing to test on.

    The image is built once, also where several processes share the work: compose would replace the
    containers whose image was built again.
    """
    words = pytestconfig.getoption("engine")
    if not words:
        pytest.skip("no engine: `make test-docker` brings one")
    engine = Engine(words)
    folder = tmp_path_factory.getbasetemp()
    built = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "image-built"
    with FileLock(built.with_suffix(".lock")):
        if not built.exists():
            Stack(engine).compose("build")
            built.touch()
    return engine


@pytest.fixture
def stacks(engine: Engine) -> Iterator[Callable[..., Stack]]:
    """Starts stacks, and leaves nothing of them."""
    started: list[Stack] = []

    def start(*more: str, **settings: str) -> Stack:
        stack = Stack(engine, **settings)
        started.append(stack)
        stack.compose("up", "--detach", *more)
        within(30, lambda: "Letta answers" in str(stack.promptyoself("test", check=False)), "Letta")
        return stack

    yield start
    for stack in started:
        print(stack.compose("ps", "--all").stdout)
        print(stack.compose("logs", "--no-color", "--tail", "30").stdout)
        stack.compose("down", "--volumes", "--timeout", "20")


@contextmanager
def a_folder(engine: Engine) -> Iterator[str]:
    """A folder beside the engine."""
    folder = engine.run("mktemp", "--directory").stdout.strip()
    try:
        yield folder
    finally:
        engine.run("rm", "-r", folder)


def test_the_image(engine: Engine) -> None:
    """It runs as nobody in particular, who can write to /data alone; it has no .env, no tests; and
    it works with nothing allowed and a file system that can't be written."""
    run = ("run", "--rm", "--network", "none")
    image, harden = "promptyoself-test", ("--read-only", "--cap-drop", "ALL")
    shell = (*run, "--entrypoint", "sh", image, "-c")
    assert engine.docker(*shell, "id -u; stat -c '%u %a' /data").split() == [
        "10001",
        "10001",
        "700",
    ]
    engine.docker(*shell, "! touch /x /opt/venv/x 2>/dev/null && touch /data/x")
    names = "-name .env -o -name test_containers.py -o -name .git"
    assert engine.docker(*shell, f"find / -xdev \\( {names} \\) 2>/dev/null; true") == ""
    asked = (*run, *harden, "--security-opt", "no-new-privileges", image, "register", "--agent-id")
    answer = json.loads(engine.docker(*asked, AGENT, "--prompt", "p", "--every", "1h"))
    assert answer["created"] is True


def test_what_each_container_gets(engine: Engine) -> None:
    """Of .env: Letta the keys of models, and no token of ours; the loop no key and no token. The
    environment overrides .env, and what is in single quotes stays as it is."""
    dotenv = (
        f"OPENAI_API_KEY=sk-model\nANTHROPIC_API_KEY=sk-other\nPROMPTYOSELF_MCP_TOKEN={TOKEN}\n"
        "LETTA_SERVER_PASSWORD='pa$word'\nLETTA_API_KEY=sk-letta\nPROMPTYOSELF_INTERVAL=50\n"
        "PROMPTYOSELF_VAR=/elsewhere\nLETTA_BASE_URL=http://elsewhere\nSECURE=true\n"
    )
    with a_folder(engine) as folder:
        engine.run("cp", "docker-compose.yml", folder)
        engine.run("tee", f"{folder}/.env", content=dotenv)
        words = ("docker", "compose", "--file", f"{folder}/docker-compose.yml", "config")
        shown = engine.run("env", "PROMPTYOSELF_INTERVAL=7", *words, "--format", "json").stdout
        engine.run("sed", "-i", "/MCP_TOKEN/d", f"{folder}/.env")
        refused = engine.run(*words, check=False)
    services = json.loads(shown)["services"]
    got = {
        service: {name: value for name, value in each["environment"].items() if value is not None}
        for service, each in services.items()
    }
    assert got["letta"]["OPENAI_API_KEY"] == "sk-model"
    assert got["letta"]["ANTHROPIC_API_KEY"] == "sk-other"
    assert got["letta"]["SECURE"] == "true"
    assert not got["letta"]["PROMPTYOSELF_MCP_TOKEN"]
    assert not got["letta"]["LETTA_API_KEY"]
    for service in ("loop", "mcp"):
        assert "sk-model" not in got[service].values()
        assert "sk-other" not in got[service].values()
        assert got[service]["LETTA_API_KEY"] == "sk-letta"
        assert got[service]["PROMPTYOSELF_INTERVAL"] == "7"
        assert got[service]["PROMPTYOSELF_VAR"] == "/data"
        assert got[service]["LETTA_BASE_URL"] == "http://letta:8283"
    assert "PROMPTYOSELF_MCP_TOKEN" not in got["loop"]
    assert got["mcp"]["PROMPTYOSELF_MCP_TOKEN"] == TOKEN
    for service in got:  # compose's own output doubles it
        assert got[service]["LETTA_SERVER_PASSWORD"].replace("$$", "$") == "pa$word"
    assert refused.returncode != 0
    assert "PROMPTYOSELF_MCP_TOKEN" in refused.stderr


def test_health_turns_both_ways(stacks: Callable[..., Stack]) -> None:
    """A loop and an MCP server that are stopped, though their processes live, are unhealthy within
    two minutes at the image's own intervals, and healthy again when they go on; so it is with a log
    that can't be read, and with a prompt that failed for good, until that is put away."""
    stack = stacks()
    for service in ("loop", "mcp"):
        within(
            30, lambda service=service: stack.health(service) == "healthy", f"{service} at first"
        )
    asked = ("--agent-id", "agent-none", "--prompt", "p", "--time", "in 1s")
    id_ = stack.promptyoself("register", *asked)["id"]
    within(60, lambda: stack.health("loop") == "unhealthy", "a prompt that failed")
    stack.promptyoself("cancel", "--id", id_)
    within(30, lambda: stack.health("loop") == "healthy", "nothing that failed")
    stack.compose("kill", "--signal", "STOP", "loop", "mcp")
    within(40, lambda: stack.health("mcp") == "unhealthy", "a hung server")
    within(70, lambda: stack.health("loop") == "unhealthy", "a hung loop")
    (probe,) = {
        json.loads(probe["Output"])["message"]
        for probe in json.loads(stack.look("loop", "{{json .State.Health.Log}}"))[-1:]
    }
    assert "has made no pass for" in probe
    stack.compose("kill", "--signal", "CONT", "loop", "mcp")
    for service in ("loop", "mcp"):
        within(30, lambda service=service: stack.health(service) == "healthy", f"{service} again")
    stack.compose("exec", "-T", "mcp", "chmod", "0", "/data/schedules")
    within(30, lambda: stack.health("loop") == "unhealthy", "a log that can't be read")
    stack.compose("exec", "-T", "mcp", "chmod", "0700", "/data/schedules")
    within(60, lambda: stack.health("loop") == "healthy", "a log that can be read")


def test_stop_with_a_delivery_in_flight(stacks: Callable[..., Stack]) -> None:
    """P2: a stop in the middle of a delivery is in order, within the default patience of Docker;
    down and up again keep the log, and the delivery is found, not sent again."""
    stack = stacks(LATENCY="3600")
    stack.register()
    within(30, lambda: stack.letta()["agents"][0]["active_runs"], "a run")
    began = time.monotonic()
    stack.compose("stop", "loop")
    assert time.monotonic() - began < 12
    assert stack.look("loop", "{{.State.ExitCode}}") == "0"
    (stopped,) = stack.events("worker.stopped")
    assert (stopped["data"]["why"], len(stopped["data"]["in_flight"])) == ("SIGTERM", 1)
    head = json.loads(stack.compose("exec", "-T", "mcp", "promptyoself", "head").stdout)
    stack.compose("rm", "--force", "--stop", "loop")
    stack.letta("finish", "POST")
    stack.compose("up", "--detach", "loop")
    within(60, lambda: stack.events("delivery.delivered"), "a delivery")
    assert stack.copies() == [1]
    assert stack.promptyoself("verify", "--head", head["head"])["contains"] == head["head"]
    stack.check()
    for service in ("mcp", "letta"):
        stack.compose("stop", service)
        assert stack.look(service, "{{.State.ExitCode}}") == "0"
    stack.compose("down")
    stack.compose("up", "--detach")
    assert stack.promptyoself("verify", "--head", head["head"])["contains"] == head["head"]
    within(30, lambda: stack.letta()["agents"], "Letta, which heeds no stop before")


def test_killed_in_flight(stacks: Callable[..., Stack]) -> None:
    """P1, P2: a loop that is killed in the middle of a delivery is started again by Docker, and
    finds that the prompt has arrived."""
    stack = stacks(LATENCY="3600")
    stack.register()
    within(30, lambda: stack.letta()["agents"][0]["active_runs"], "a run")
    stack.engine.run("sh", "-c", f"kill -9 {stack.look('loop', '{{.State.Pid}}')}")
    within(30, lambda: stack.look("loop", "{{.RestartCount}}") == "1", "a restart")
    within(30, lambda: len(stack.events("worker.started")) == 2, "another loop")
    stack.letta("finish", "POST")
    within(60, lambda: stack.events("delivery.delivered"), "a delivery")
    assert stack.copies() == [1]
    stack.check()


def test_two_loops_in_two_containers(stacks: Callable[..., Stack]) -> None:
    """P5: two loops on one volume, each the first process of its container, tell each other apart;
    one is killed with all it had in flight, and the other one settles that, each prompt once."""
    stack = stacks("--scale", "loop=2", LATENCY="3600")
    within(30, lambda: len(stack.events("worker.started")) == 2, "two loops")
    checks = stack.promptyoself("doctor", "--quick", "--skip-letta")["checks"]
    (loop,) = [check for check in checks if check["name"] == "loop"]
    assert loop["detail"].count("wrk_") == 2
    stack.register(3)
    within(30, lambda: stack.letta()["agents"][0]["active_runs"], "a run")
    (claimed,) = stack.events("delivery.attempted")[-1:]
    hosts = {
        event["data"]["worker"]: event["data"]["host"] for event in stack.events("worker.started")
    }
    stack.engine.docker("kill", "--signal", "KILL", hosts[claimed["data"]["worker"]])
    finished: Callable[[], object] = lambda: (  # noqa: E731
        stack.letta("finish", "POST"),
        len(stack.events("delivery.delivered")) == 3,
    )[1]
    within(90, finished, "three deliveries")
    assert sorted(stack.copies()) == [1, 1, 1]
    left = next(
        id_ for id_ in stack.ids("loop") if not id_.startswith(hosts[claimed["data"]["worker"]])
    )
    for words in (["verify"], ["audit"]):
        stack.engine.docker("exec", left, "promptyoself", *words)


LISTENER = """
import http.server

class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/data/arrived", "ab") as file:
            file.write(body + b"\\n")
        self.send_response(200)
        self.end_headers()

server = http.server.HTTPServer(("0.0.0.0", 8099), Listener)
open("/data/arrived", "xb").close()
server.serve_forever()
"""
"""Keeps what another container posts to it, a line each."""


def test_a_service_of_apprise_takes_notices(stacks: Callable[..., Stack]) -> None:
    """The image has Apprise: a destination that is added in the loop's container takes the notice
    of `notify test`, and then the loop's own about an answer."""
    stack = stacks()

    def arrived() -> list[dict[str, Any]]:
        done = stack.compose("exec", "-T", "loop", "cat", "/data/arrived")
        return [json.loads(line) for line in done.stdout.splitlines()]

    stack.compose("exec", "-T", "--detach", "mcp", "python", "-c", LISTENER)
    exists = ("exec", "-T", "loop", "test", "-e", "/data/arrived")
    within(30, lambda: stack.compose(*exists, check=False).returncode == 0, "a listener")
    added = stack.promptyoself("notify", "add", "ops", "json://mcp:8099/hook")
    assert (added["kind"], added.get("warnings")) == ("apprise", None)
    tried = stack.promptyoself("notify", "test", "ops")
    assert tried["sent"] is True
    (test,) = arrived()
    assert test["message"].endswith(tried["notice"])
    prompt = ("--prompt", "Hello.", "--time", "in 1s", "--reply-to", "ops")
    stack.promptyoself("register", "--agent-id", AGENT, *prompt)
    within(30, lambda: stack.events("notice.sent"), "a notice that was taken")
    (sent,) = stack.events("notice.sent")
    (reply,) = arrived()[1:]
    assert reply["message"].endswith(sent["data"]["notice"])
    assert "You said: Hello." in reply["message"]


def things(engine: Engine, user: tuple[str, ...]) -> tuple[set[str], ...]:
    """The images, what is left of smoke.sh, and the user's own containers as they run."""
    left = [
        engine.docker(
            kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project=" + SMOKE
        )
        for kind in ("volume", "network", "container")
    ]
    assert left == ["", "", ""]
    own = engine.run(*user, "ps", "--format", "{{.ID}} {{.Image}} {{.Health}}").stdout
    return engine.images(), set(own.splitlines())


def test_smoke_beside_a_running_stack(engine: Engine) -> None:
    """smoke.sh passes while the user's own containers run from the same folder, on their ports, and
    .env pins an agent; afterwards images, volumes and containers are those of before."""
    with a_folder(engine) as folder:
        engine.run("sh", "-c", f"cp -r {CONTEXT} promptyoself {folder}")
        dotenv = f"PROMPTYOSELF_MCP_TOKEN={TOKEN}\nPROMPTYOSELF_ONLY_AGENT={AGENT}\n"
        engine.run("tee", f"{folder}/.env", content=dotenv)
        user = ("docker", "compose", "--project-directory", folder)
        engine.run(*user, "up", "--detach", "--wait")
        try:
            before = things(engine, user)
            done = engine.run(
                "env", "PROMPTYOSELF_DAILY_PER_AGENT=0", "COMPOSE_FILE=none.yml",
                "bash", f"{folder}/docker/smoke.sh", check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            assert "== passed" in done.stdout
            assert things(engine, user) == before
            engine.run(*user, "exec", "-T", "loop", "promptyoself", "list")
        finally:
            engine.run(*user, "down", "--volumes", "--timeout", "20")
