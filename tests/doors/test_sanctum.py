"""The door for Sanctum hosts: what they are told, how they find us, and how they call."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import pytest
from calling import FORBIDDEN, call, run
from checker import check_chain

from promptyoself import cli
from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors import sanctum, session
from promptyoself.doors.agent_parameters import parameters
from promptyoself.doors.arguments import from_host, normalise_flags
from promptyoself.doors.registry import AGENT_FACING, COMMANDS, TOOLS
from promptyoself.sandbox import Sandbox

PACKAGE = Path(cli.__file__).parent


class Host:
    """What a Sanctum host does, by the contract: list, describe, call."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        self.environ = environ
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        # Where the host happens to run, and beside the plugin, lie files with names of ours.
        for place in (self.elsewhere, self.plugins):
            for name in ("click", "orjson", "promptyoself", "log", "events", "typing"):
                (place / f"{name}.py").write_text("raise SystemExit('the wrong module')")
        (self.plugins / "croniter").mkdir()
        (self.plugins / "croniter" / "__init__.py").write_text("raise SystemExit('another')")

    @property
    def path(self) -> Path:
        (path,) = self.plugins.glob("*/cli.py")
        return path

    def run(
        self,
        *arguments: str,
        path: Path | None = None,
        flags: Sequence[str] = (),
        prepare: Callable[[], object] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *flags, str(path or self.path), *arguments],
            cwd=self.elsewhere, env={**self.environ, **more}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=60, check=False, preexec_fn=prepare,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        done = self.run("--describe")
        assert done.returncode == 0, done.stderr
        payload: dict[str, Any] = json.loads(done.stdout)
        return payload

    @cached_property
    def described(self) -> dict[str, Any]:
        """What the host was told first."""
        return self.describe()

    def call(self, command: str, arguments: dict[str, Any], **more: str) -> dict[str, Any]:
        """A tool call, as the host makes an argument list of it."""
        known = {
            parameter["name"]: parameter
            for described in self.described["commands"]
            if described["name"] == command
            for parameter in described["parameters"]
        }
        words = [command]
        for name, value in arguments.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                if known.get(name, {}).get("action") == "store_true":
                    words += [flag] * value
                else:
                    words += [flag, str(value).lower()]
            elif isinstance(value, list):
                words += [word for item in value for word in (flag, str(item))]
            elif isinstance(value, dict):
                words += [flag, json.dumps(value)]
            else:
                words += [flag, str(value)]
        done = self.run(*words, **more)
        # On failure a host parses all of stdout for a string `error`.
        answer: dict[str, Any] = json.loads(done.stdout)
        assert done.stdout.count(b"\n") == 1
        assert (answer["status"] == "error") == (done.returncode != 0)
        if done.returncode:
            assert isinstance(answer["error"], str)
        return answer


@pytest.fixture
def host(tmp_path: Path, environ: dict[str, str]) -> Host:
    host = Host(tmp_path, environ)
    (host.plugins / "promptyoself").symlink_to(PACKAGE)
    return host


def test_the_description_keeps_the_contract(host: Host) -> None:
    """Contract 1.0: every command that agents may call, and no other; each parameter with its
    name, type, description, whether it is required, and its default."""
    payload = host.describe()
    assert payload["contract_version"] == "1.0"
    assert payload["plugin"]["name"] == "promptyoself"
    assert all(isinstance(text, str) and text for text in payload["plugin"].values())
    names = [command["name"] for command in payload["commands"]]
    assert names == list(AGENT_FACING)
    assert set(names) | FORBIDDEN >= set(COMMANDS)
    assert not FORBIDDEN & set(names)
    for command in payload["commands"]:
        assert set(command) == {"name", "description", "parameters"}
        # What it is for, when to use it, and what comes back.
        assert len(command["description"]) > 100
        assert "nswer" in command["description"], command["name"]
        parameters = command["parameters"]
        assert len({parameter["name"] for parameter in parameters}) == len(parameters)
        for parameter in parameters:
            assert set(parameter) - {"action"} == {
                "name", "type", "description", "required", "default",
            }  # fmt: skip
            assert re.fullmatch("[a-z][a-z_]*", parameter["name"])
            assert parameter["type"] in ("string", "number", "integer", "boolean", "array")
            assert parameter["description"]
            assert isinstance(parameter["required"], bool)
            if parameter["name"] == "envelope":  # it can be turned off: a host gives its value
                assert (parameter["type"], parameter["default"]) == ("boolean", None)
                assert "action" not in parameter
            else:
                assert ("action" in parameter) == (parameter["type"] == "boolean")
            assert not parameter["name"].startswith("no_")
            kinds = {"integer": int, "number": float, "boolean": bool, "string": str, "array": list}
            assert isinstance(parameter["default"], kinds[parameter["type"]] | None)


def test_a_list_is_given_by_repeating(host: Host) -> None:
    """A parameter of type array takes what a host makes of a list, a flag for each item; and a
    desire goes from recorded to pruned through tools alone."""
    described = {command["name"]: command for command in host.describe()["commands"]}
    for name in ("desire", "desires"):
        types = {option["name"]: option["type"] for option in described[name]["parameters"]}
        assert types["tag"] == "array"
    asked = {"agent_id": "agent-7", "text": "Learn Danish", "strength": 0.8, "tag": ["a", "b"]}
    id_ = host.call("desire", asked)["id"]
    (desire,) = host.call("desires", {"tag": ["b", "a"], "limit": 5.0})["desires"]
    assert (desire["id"], desire["tags"]) == (id_, ["a", "b"])
    assert host.call("desires", {"tag": []})["count"] == 1
    # A host passes on a list that a model wrote as JSON as it is.
    for tags in ('["a", "b"]', '["a", ""]', "a", ""):
        assert host.call("desires", {"tag": tags})["count"] == 1, tags
    assert "'c'" in host.call("desires", {"tag": '["a", "c"]'})["error"]
    host.call("reinforce", {"id": id_, "by": 0.1})
    assert host.call("prune", {"below": 1, "dry_run": True})["count"] == 1
    assert host.call("prune", {"below": 1})["pruned"][0]["id"] == id_
    assert host.call("desires", {})["count"] == 0
    assert host.call("idle", {"agent_id": "agent-7", "every": "1h", "dry_run": False})["created"]


def test_what_is_described_is_what_the_commands_have(host: Host) -> None:
    """The description can't drift: it names each option of each command, but for those that are
    for people at a terminal."""
    for described in host.describe()["commands"]:
        with click.Context(cli.cli) as context:
            command = cli.cli.get_command(context, described["name"])
        assert command is not None
        options = {
            name.removeprefix("--")
            for option in command.params
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        } - {"conversation"}  # another spelling of a name that is described
        for_people = TOOLS[described["name"]].people_only
        names = {parameter["name"].replace("_", "-") for parameter in described["parameters"]}
        assert options - names - for_people <= {
            "var", "format", "prompt-file", "ndjson", "note", "key", "loop", "interval",
            "metrics-port", "accept-clock", "no-envelope", "from", "no-pager", "help", "-h",
            "follow", "-f", "text", "render", "no-render", "tag",
            "schedule",
        }  # fmt: skip


def test_an_older_host_reads_the_help(host: Host) -> None:
    """Hosts without --describe scrape the help: a section of names, ended by an empty line."""
    lines = host.run("--help").stdout.decode().split("\n")
    section = lines[lines.index("Available commands:") + 1 :]
    names = []
    for line in section:
        if not line.strip():
            break
        assert re.match("  [a-z]", line), "a line that isn't a command would be taken for one"
        names.append(line.split()[0])
    assert names == list(AGENT_FACING)


@pytest.mark.parametrize("way", ["link", "copy", "installed"])
def test_the_plugin_is_found_and_works(way: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """The package's own folder, linked or copied, is a plugin, from any working directory, whatever
    lies there; and so is what install-plugin writes."""
    host = Host(tmp_path, environ)
    if way == "link":
        (host.plugins / "promptyoself").symlink_to(PACKAGE)
    elif way == "copy":
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, host.plugins / "promptyoself", ignore=ignored)
    else:
        sanctum.install(host.plugins, sys.executable)
    id_ = host.call("register", {"agent_id": "agent-1", "prompt": "Hello", "every": "2h"})["id"]
    assert host.call("list", {})["count"] == 1
    assert host.call("show", {"id": id_})["schedule"]["agent_id"] == "agent-1"
    assert host.call("cancel", {"id": id_, "reason": "done"})["cancelled_id"] == id_
    events = host.call("history", {"id": id_})["events"]
    assert [event["type"] for event in events] == ["schedule.registered", "schedule.cancelled"]


def test_values_come_as_hosts_write_them(host: Host) -> None:
    """Booleans by name or with true and false, whole numbers as 5.0, and a list only where
    there may be several."""
    arguments = {
        "agent_id": "agent-1", "prompt": "A prompt longer than it is shown " * 9,
        "cron": "0 9 * * *", "max_repetitions": 5.0, "envelope": True, "dry_run": False,
    }  # fmt: skip
    twice = host.call("register", {**arguments, "tz": ["UTC", "Asia/Tokyo"]})
    assert twice["code"] == "repeated_option"
    id_ = host.call("register", {**arguments, "tz": ["Asia/Tokyo"]})["id"]
    shown = host.call("show", {"id": id_})["schedule"]
    assert (shown["max_repetitions"], shown["envelope"]) == (5, True)
    assert shown["timezone"] == "Asia/Tokyo"
    for word, whole in (("true", True), ("false", False), ("True", True), ("False", False)):
        done = host.run("list", "--full", word, "--limit", "1.0")
        (listed,) = json.loads(done.stdout)["schedules"]
        assert (listed["prompt"] == shown["prompt"]) is whole
    assert host.call("list", {"limit": 1.5})["code"] == "invalid_value"
    assert host.call("list", {"limit": {"n": 1}})["code"] == "invalid_value"
    prompt = host.call("register", {"agent_id": "a", "prompt": "--full", "every": "1h"})
    assert prompt["created"], "a prompt may look like a flag"


@pytest.mark.parametrize("off", [False, "false", "False", "no", "0"])
def test_what_can_be_turned_off_is_turned_off(host: Host, off: bool | str) -> None:
    """An option that is on or off has both values: what a host gives as false changes what was
    true, and isn't ignored with success."""
    asked = {"agent_id": "a", "prompt": "Hello", "every": "1h"}
    id_ = host.call("register", {**asked, "envelope": True})["id"]
    assert host.call("show", {"id": id_})["schedule"]["envelope"] is True
    assert host.call("modify", {"id": id_, "envelope": off})["modified"] == ["envelope"]
    assert host.call("show", {"id": id_})["schedule"]["envelope"] is False
    assert host.call("modify", {"id": id_, "envelope": "true"})["modified"] == ["envelope"]
    assert host.call("show", {"id": id_})["schedule"]["envelope"] is True
    for wrong in ("maybe", "", "-1"):
        refused = host.call("modify", {"id": id_, "envelope": wrong})
        assert refused["code"] in ("invalid_value", "unknown_option"), refused


CLOSED = sorted(FORBIDDEN)
HIDDEN = [
    ("register", ["--prompt-file", "/etc/passwd"]), ("modify", ["--prompt-file=/etc/passwd"]),
    ("list", ["--var", "/tmp"]), ("list", ["--var=/tmp"]), ("list", ["--format", "table"]),
    ("history", ["--ndjson"]), ("head", ["--note"]), ("head", ["--key", "/etc/passwd"]),
    ("verify", ["--note", "/etc/passwd"]), ("execute", ["--loop"]), ("execute", ["--interval=1"]),
    ("execute", ["--metrics-port", "9"]), ("execute", ["--accept-clock"]),
    ("list", ["--help"]), ("list", ["--colour", "red"]),
    ("register", ["--prompt_file", "/etc/passwd"]), ("list", ["-v"]),
    # As a host passes on a text that stands for a flag: it would be an option of its own.
    ("list", ["--full", "--var=/tmp"]), ("show", ["--id", "sch_00000000", "--var", "/tmp"]),
]  # fmt: skip


@pytest.mark.parametrize("way", ["link", "installed"])
@pytest.mark.parametrize("pinned", [False, True])
def test_the_door_has_what_is_described_and_nothing_else(
    pinned: bool, way: str, host: Host, tmp_path: Path
) -> None:
    """Hosts call what an agent names, described or not: through this door there are the commands
    and options of the description alone, pinned or not, and nothing is done by the others."""
    path = host.path
    if way == "installed":
        (tmp_path / "more").mkdir()
        path, _ = sanctum.install(tmp_path / "more", sys.executable)
    var = Path(host.environ["PROMPTYOSELF_VAR"])
    asked = ["--agent-id", "a", "--prompt", "Hello", "--every", "1h", "--tier", "2"]
    id_ = json.loads(host.run("register", *asked).stdout)["id"]
    before = {path: path.read_bytes() for path in var.rglob("*") if path.is_file()}
    more = {"PROMPTYOSELF_ONLY_AGENT": "a"} if pinned else {}
    extra = {"approve": ["--id", id_], "import": ["x.json"], "demo": []}
    for name, words in [*((name, extra.get(name, [])) for name in CLOSED), *HIDDEN]:
        done = host.run(name, *words, path=path, **more)
        answer = json.loads(done.stdout)
        closed = name in FORBIDDEN
        assert answer["code"] == ("unknown_command" if closed else "unknown_option"), (name, words)
        assert done.returncode == 2
        assert ("register, list" if closed else "There are: ") in answer["error"]
        after = {path: path.read_bytes() for path in var.rglob("*") if path.is_file()}
        assert after == before, (name, words)


def test_both_spellings_are_taken(var: Path) -> None:
    """On the command line, at every door, an option's name may have _ for -; a value is left alone,
    whatever it looks like; and the two spellings are one option."""
    words = ["register", "--agent_id", "agent-1", "--prompt=--dry_run", "--every", "1h"]
    id_ = call(*words, "--max_repetitions=5", "--conversation_id", "--agent_id").success()["id"]
    shown = call("show", "--id", id_).success()["schedule"]
    assert (shown["agent_id"], shown["prompt"]) == ("agent-1", "--dry_run")
    assert (shown["max_repetitions"], shown["conversation_id"]) == (5, "--agent_id")
    assert call(*words, "--dry_run").success()["dry_run"]
    twice = call("list", "--agent-id", "a", "--agent_id", "b", verbatim=True)
    assert twice.error("repeated_option", 2)["message"].startswith("--agent-id was given more")
    assert call("import", "-", "--dry_run").success()["count"] == 0
    assert call("list", "--no_such", "b").error("unknown_option", 2)
    assert call("import_sqlite", "--x").error("unknown_command", 2)


def test_an_empty_text_is_no_agent(host: Host) -> None:
    """Models write what they leave out as an empty text: that is so for every parameter of every
    tool, but for those of modify that it unsets."""
    asked = {"prompt": "Hello", "every": "1h", "name": "", "until": "", "tz": ""}
    more = {"PROMPTYOSELF_DEFAULT_AGENT_ID": "agent-7"}
    id_ = host.call("register", {**asked, "agent_id": "", "misfire": "", "tier": ""}, **more)["id"]
    assert host.call("register", {**asked, "agent_id": ""})["code"] == "missing_option"
    for tool in ("list", "history", "audit", "budgets", "desires"):
        whole = host.call(tool, {})
        answer = host.call(tool, {"agent_id": ""})
        for shown in (answer, whole):
            shown.pop("until", None)
            shown.pop("as_of", None)
        assert answer == whole
    assert host.call("list", {"limit": "", "status": ""})["count"] == 1
    assert host.call("show", {"id": ""})["code"] == "missing_option"
    changes = {"id": id_, "name": "n", "jitter": "5m", "until": "2099-01-01"}
    assert len(host.call("modify", changes)["modified"]) == 3
    changes = {"id": id_, "agent_id": "", "prompt": "", "tz": "", "name": "", "jitter": ""}
    assert sorted(host.call("modify", changes)["modified"]) == ["jitter", "name"]
    shown = host.call("show", {"id": id_})["schedule"]
    assert (shown["agent_id"], shown["prompt"], shown["name"]) == ("agent-7", "Hello", None)


def test_what_an_empty_text_unsets(var: Path) -> None:
    """What the doors take for something to be unset is what modify unsets, and nothing else."""
    command = cli.cli.get_command(click.Context(cli.cli), "modify")
    assert command is not None
    assert {parameter.name for parameter in parameters(command) if parameter.unsets} == {
        "name", "conversation-id", "start-at", "until", "jitter", "on-failure",
    }  # fmt: skip
    words = ["--agent-id", "a", "--prompt", "x", "--every", "1h", "--name", "n", "--jitter", "1m"]
    more = ["--conversation-id", "conv-1", "--start-at", "2099-01-01", "--until", "2100-01-01",
            "--on-failure", "b"]  # fmt: skip
    id_ = call("register", *words, *more).success()["id"]
    for parameter in parameters(command):
        if parameter.name != "id" and not parameter.flag:
            answer = call("modify", "--id", id_, f"--{parameter.name}=").document
            done = answer.get("modified") == [parameter.name.replace("-", "_")]
            assert done is parameter.unsets, (parameter.name, answer)


def test_an_array_repeats_its_flag() -> None:
    """A parameter that may be given several times is an array, and hosts repeat its flag; a flag
    with an opposite is one parameter, with both values."""

    @click.command("wish")
    @click.option("--text", required=True, help="The wish.")
    @click.option("-t", "--tag", multiple=True, help="A tag.")
    @click.option("--level", multiple=True, type=int)
    @click.option("--loud/--quiet", help="How.")
    @click.option("--secret", hidden=True)
    def wish(**options: Any) -> None:
        """Wish."""
        given.append(options)

    given: list[dict[str, Any]] = []
    described = {parameter.name: parameter for parameter in parameters(wish)}
    assert {name: (parameter.type, parameter.items) for name, parameter in described.items()} == {
        "text": ("string", None), "tag": ("array", "string"), "level": ("array", "integer"),
        "loud": ("boolean", None),
    }  # fmt: skip
    assert described["loud"].opposite == "quiet"
    assert described["tag"].default is None
    assert described["tag"].description == "A tag."
    words = ["--text", "true", "--tag", "a", "--tag", "true", "--level", "1", "--level", "2"]
    for value, loud in (("true", True), ("false", False), ("maybe", None)):
        asked = [*words, "--loud", value]
        if loud is None:
            assert normalise_flags(wish, asked) == asked
            continue
        for read in (normalise_flags, from_host):
            wish.main(read(wish, asked), standalone_mode=False)
            expected = {"text": "true", "tag": ("a", "true"), "level": (1, 2), "loud": loud}
            assert given.pop() == {**expected, "secret": None}
    with pytest.raises(PromptyoselfError) as refused:
        from_host(wish, [*words, "--secret", "x"])
    assert refused.value.hint.startswith("There are: text, tag, level, loud. See ")


def test_json_for_a_text_arrives_verbatim(host: Host) -> None:
    """An object is one argument, in JSON; where a text is wanted, that is the text, as it came."""
    for value in ({"do": "this", "then": ["that", {"ü": 1.5, "x": None}]}, '{ "a" :1}', "[1,2]"):
        arguments = {"agent_id": "a", "prompt": value, "every": "1h", "reason": {"why": 1}}
        id_ = host.call("register", arguments)["id"]
        shown = host.call("show", {"id": id_})["schedule"]
        text = value if isinstance(value, str) else json.dumps(value)
        assert (shown["prompt"], shown["reason"]) == (text, '{"why": 1}')


def test_the_door_is_recorded(host: Host, tmp_path: Path) -> None:
    """A call through a plugin, the package's own folder or one that was written, is recorded as
    having come that way, by the login that the host runs as; a shell is another door."""
    sanctum.install(tmp_path, sys.executable)
    asked = ("register", "--prompt", "x", "--every", "1h", "--agent-id")
    for number, path in enumerate((host.path, tmp_path / "promptyoself" / "cli.py")):
        done = host.run(*asked, f"agent-{number}", path=path)
        assert json.loads(done.stdout)["created"]
    run(*asked, "agent-2", environ=host.environ).success()
    actors = [event["actor"] for event in host.call("history", {})["events"]]
    me = {"who": session._login(), "kind": "login", "host": os.uname().nodename}
    assert actors == [
        {"via": "ledger", "who": "promptyoself"},
        {"via": "sanctum", **me, "for_agent": "agent-0"},
        {"via": "sanctum", **me, "for_agent": "agent-1"},
        {"via": "cli", **me, "for_agent": "agent-2"},
    ]


def test_a_call_ends_in_the_agents_own_history(host: Host, tmp_path: Path) -> None:
    """P2: what an agent registers through a host is in its own history, once, and nobody else's."""
    with Sandbox(("one", "two"), latency=0.02) as letta:
        one, two = letta.agents
        host.environ["LETTA_BASE_URL"] = letta.url
        id_ = host.call("register", {"agent_id": one, "prompt": "Stretch.", "time": "in 1s"})["id"]
        executed: list[dict[str, Any]] = []
        while not executed:
            executed = host.call("execute", {})["executed"]
        assert [(line["id"], line["state"]) for line in executed] == [(id_, "delivered")]
        assert [message.text for message in letta.messages(one)] == ["Stretch."]
        assert letta.messages(two) == []
        assert host.call("audit", {"agent_id": one})["totals"]["delivered"] == 1


def test_killed_in_the_middle_of_a_write(host: Host) -> None:
    """P1: a host that loses patience kills the plugin, at any instant: what was answered is there,
    what wasn't is there whole or not at all, and the next call works."""
    var = Path(host.environ["PROMPTYOSELF_VAR"])
    answered = set()
    for number in range(12):
        words = ["--agent-id", "a", "--prompt", f"Hello {number}", "--every", "1h"]
        process = subprocess.Popen(
            [sys.executable, str(host.path), "register", *words],
            env=host.environ, cwd=host.elsewhere, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(0.05 + 0.012 * number)
        process.kill()
        out, _ = process.communicate()
        assert not out or out.endswith(b"\n")
        answered |= {json.loads(line)["id"] for line in out.splitlines()}
    assert host.call("register", {"agent_id": "a", "prompt": "Last.", "every": "1h"})["created"]
    registered = {event["id"] for event in check_chain(var / "schedules")} - {None}
    assert answered < registered
    assert {schedule["id"] for schedule in host.call("list", {})["schedules"]} == registered


def test_a_large_argument(host: Host) -> None:
    """The largest argument that a system passes on, 128 KiB less one, arrives whole."""
    prompt = "ü" * 65_530
    id_ = host.call("register", {"agent_id": "agent-1", "prompt": prompt, "time": "in 1h"})["id"]
    assert host.call("show", {"id": id_})["schedule"]["prompt"] == prompt


def test_stdin_may_be_closed(host: Host) -> None:
    """Hosts close stdin: not even its descriptor is there, and what a call opens may get it."""
    words = ["register", "--agent-id", "a", "--prompt", "x", "--every", "1h"]
    for asked, code in ((words, 0), ([*words, "--prompt-file", "-"], 2), (["list"], 0)):
        done = host.run(*asked, prepare=lambda: os.close(0))
        assert done.returncode == code, done.stdout
        assert json.loads(done.stdout)["status"] == ("error" if code else "success")
    assert host.call("verify", {})["valid"]


def test_errors_are_one_document_with_a_string(host: Host) -> None:
    """P7: whatever is wrong, stdout is one document with a string under `error`, and nothing is
    written."""
    for words in (
        ["no-such-command"], ["register"], ["register", "--agent-id"], ["list", "--bogus", "1"],
        ["register", "--agent-id", "a", "--prompt", "x", "--cron", "nonsense"],
        ["show", "--id", "sch_00000000"], ["list", "extra"], ["--bogus"],
    ):  # fmt: skip
        done = host.run(*words, PYTHONWARNINGS="always", PYTHONDEVMODE="1")
        answer = json.loads(done.stdout)
        assert done.returncode in (1, 2), words
        assert answer["status"] == "error"
        assert isinstance(answer["error"], str)
    assert not (Path(host.environ["PROMPTYOSELF_VAR"]) / "schedules").exists()


def test_the_hosts_environment_counts(host: Host) -> None:
    """Every variable of the host is inherited: who is meant where no agent is named, and to whom a
    caller is pinned."""
    id_ = host.call("register", {"prompt": "x", "every": "1h"}, LETTA_AGENT_ID="agent-env")["id"]
    shown = host.call("show", {"id": id_})["schedule"]
    assert shown["agent_id"] == "agent-env"
    pinned = {"PROMPTYOSELF_ONLY_AGENT": "agent-other"}
    for command, arguments in (
        ("show", {"id": id_}), ("cancel", {"id": id_}), ("pause", {"id": id_}),
        ("modify", {"id": id_, "every": "2h"}), ("trigger", {"id": id_}),
        ("history", {"id": id_}), ("list", {"agent_id": "agent-env"}),
        ("register", {"agent_id": "agent-env", "prompt": "y", "every": "1h"}),
        ("next", {"id": id_}), ("simulate", {"until": "in 1d", "agent_id": "agent-env"}),
        ("audit", {"agent_id": "agent-env"}),
    ):  # fmt: skip
        answer = host.call(command, arguments, **pinned)
        assert answer.get("code") == "forbidden_agent", (command, answer)
    assert host.call("list", {}, **pinned)["count"] == 0
    assert host.call("register", {"prompt": "mine", "every": "1h"}, **pinned)["created"]


def test_installing_again_changes_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    """install-plugin writes once; again, it is a no-op; for another interpreter it is written
    again."""
    host = Host(tmp_path, environ)

    def install(*more: str) -> dict[str, Any]:
        words = ("install-plugin", "--plugins-dir", str(host.plugins), *more)
        return run(*words, environ=environ).success()

    first = install()
    assert first["changed"]
    before = host.path.read_bytes(), host.path.stat()
    assert install()["changed"] is False
    assert (host.path.read_bytes(), host.path.stat()) == before
    assert len(host.describe()["commands"]) == len(AGENT_FACING)
    gone = tmp_path / "python"
    shutil.copy(shutil.which("true") or "/bin/true", gone)
    assert install("--python", str(gone))["changed"]
    gone.unlink()
    done = host.run("list")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (1, "plugin_broken")
    assert isinstance(answer["error"], str)
    assert install()["changed"]


def test_nobody_elses_plugin_is_replaced(tmp_path: Path, environ: dict[str, str]) -> None:
    """P7: a folder of that name that isn't ours stays as it is; so does a link to the package."""
    host = Host(tmp_path, environ)
    theirs = host.plugins / "promptyoself"
    theirs.mkdir()
    (theirs / "cli.py").write_text("print('{}')")
    with pytest.raises(PromptyoselfError, match="is there already") as refused:
        sanctum.install(host.plugins, sys.executable)
    assert refused.value.code == "plugin_exists"
    assert (theirs / "cli.py").read_text() == "print('{}')"
    shutil.rmtree(theirs)
    theirs.symlink_to(PACKAGE)
    with pytest.raises(PromptyoselfError, match="is there already"):
        sanctum.install(host.plugins, sys.executable)
    assert (PACKAGE / "cli.py").stat().st_size > 1000
    for words, code in (
        (["--plugins-dir", str(tmp_path / "none")], "invalid_value"),
        (["--plugins-dir", str(host.plugins), "--python", "/no/such"], "invalid_value"),
        ([], "missing_option"),
    ):
        run("install-plugin", *words, environ=environ).error(code, 2)


def test_doctor_says_whether_a_host_finds_us(host: Host) -> None:
    """doctor --plugins-dir calls the plugin as a host does, and says what is wrong with it."""

    def doctor() -> tuple[int, dict[str, Any]]:
        answer = run(
            "doctor", "--skip-letta", "--plugins-dir", host.plugins.name,
            environ=host.environ, prepare=lambda: os.chdir(host.plugins.parent),
        )  # fmt: skip
        checks = answer.document["checks"]
        return answer.code, next(check for check in checks if check["name"] == "plugin")

    code, check = doctor()
    assert (code, check["ok"]) == (0, True)
    assert f"{len(AGENT_FACING)} commands" in check["detail"]
    (host.plugins / "promptyoself").unlink()
    code, check = doctor()
    assert (code, check["ok"]) == (1, False)
    assert "install-plugin" in check["hint"]
    (host.plugins / "promptyoself").mkdir()
    (host.plugins / "promptyoself" / "cli.py").write_text("print('hello')")
    code, check = doctor()
    assert (code, check["ok"]) == (1, False)
    assert "hello" in check["detail"]


def test_without_our_packages_it_says_so(host: Host) -> None:
    """P7: run by an interpreter that lacks click, say, the plugin answers with one document."""
    done = host.run("list", flags=("-S", "-E"))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (1, "missing_package")
    assert "install-plugin" in answer["hint"]
