"""The command line itself: its commands, its help, its completion, its forms."""

import os
import subprocess
import sys
from pathlib import Path

import click
import orjson
import pytest
from calling import AGENT, call, run

from promptyoself import __version__
from promptyoself.cli import cli
from promptyoself.doors.registry import COMMANDS, GROUPS
from promptyoself.doors.synonyms import SYNONYMS

SCRIPT = Path(sys.executable).with_name("promptyoself")
COMMANDS_OF_THE_CONTRACT = {
    "register", "list", "show", "cancel", "pause", "resume", "modify", "trigger", "next",
    "execute", "history", "verify", "head", "rebuild", "stats", "agents", "test", "doctor",
    "sandbox", "demo",
}  # fmt: skip


def test_the_commands_are_there() -> None:
    """Every promised command exists under its name."""
    assert set(COMMANDS) >= COMMANDS_OF_THE_CONTRACT


def command_of(words: str) -> click.Command:
    """The command of these words."""
    command: click.Command | None = cli
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


WITHIN = [
    f"{name} {inner}"
    for name in COMMANDS
    if isinstance(group := command_of(name), click.Group)
    for inner in group.list_commands(click.Context(group))
]
"""The commands of commands."""


@pytest.mark.parametrize("name", [*COMMANDS, *WITHIN])
def test_every_command_explains_itself(name: str) -> None:
    """Each command has a sentence, each option too, in kebab case; and takes --var and --format."""
    command = command_of(name)
    assert command.name == name.rsplit(maxsplit=1)[-1]
    assert command.help
    assert command.get_short_help_str(200)
    options = {option for param in command.params for option in param.opts}
    assert {"--var", "--format"} <= options or isinstance(command, click.Group)
    for param in command.params:
        if isinstance(param, click.Argument):
            word = str(param.metavar).strip("[].")
            assert word in ("FILE", "NAME", "VALUE", "SHELL", "SCHEDULE", "ADDRESS")
            assert word in command.help or word == "SCHEDULE"
            continue
        assert isinstance(param, click.Option)
        assert param.help, param.name
        assert all(option == option.lower() and "_" not in option for option in param.opts)
    answer = call(*name.split(), "--help")
    assert answer.code == 0
    assert answer.out.startswith(b"Usage: promptyoself " + name.encode())


def test_help_and_version_are_for_people() -> None:
    """Without a command the help is shown; --version says which."""
    for arguments in ((), ("--help",)):
        answer = call(*arguments)
        assert answer.code == 0
        for name in COMMANDS:
            assert f"  {name} " in answer.out.decode()
    assert __version__ in call("--version").out.decode()


def test_help_has_every_command_in_one_group() -> None:
    """Each command is under one heading. Its summary is a whole sentence, on one line of an
    80-column terminal."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)
    lines = call("--help").out.decode().splitlines()
    assert max(map(len, lines)) <= 80
    for title, names in GROUPS.items():
        first = lines.index(f"{title}:") + 1
        shown = lines[first : first + len(names)]
        assert [line.split()[0] for line in shown] == list(names)
        cut = [line for line in shown if line.endswith("...") or not line.endswith(".")]
        assert not cut, "shorten the first sentence of its docstring"


def test_help_may_be_a_word(var: Path) -> None:
    """`help` and `help list` are `--help` and `list --help`. An agent has no such command."""
    assert call("help").out == call("--help").out
    assert call("help", "list").out == call("list", "--help").out
    assert "Did you mean list?" in call("help", "lsit").error("unknown_command", 2)["hint"]


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("ls", "list"), ("rm", "cancel"), ("add", "register"), ("log", "history"),
        ("delete", "cancel"), ("new", "register"), ("create", "register"), ("run", "trigger"),
        ("stop", "pause"), ("start", "execute"), ("logs", "history"), ("ps", "list"),
        ("STATUS", "doctor"), ("lsit", "list"), ("shwo", "show"), ("hlep", "help"),
        ("rename", "modify --name"), ("search", "list --query"), ("snooze", "pause --until"),
    ],
)  # fmt: skip
def test_another_word_for_a_command_is_understood(word: str, command: str) -> None:
    """The hint names the command that people mean by a word of another program, or by a typo."""
    hint = call(word).error("unknown_command", 2)["hint"]
    assert hint.startswith(f"Did you mean {command}")


def test_synonyms_lead_to_commands() -> None:
    """No synonym is a command itself, and each leads to commands that there are."""
    assert not set(SYNONYMS) & set(COMMANDS)
    assert {name.partition(" --")[0] for names in SYNONYMS.values() for name in names} <= {
        *COMMANDS,
        "--version",
        "help",
    }


@pytest.mark.parametrize("command", ["list", "history", "show"])
def test_json_is_a_format(command: str) -> None:
    """Click would suggest an option that is spelled much like it, such as --sort."""
    refusal = call(command, "--json").error("unknown_option", 2)
    assert refusal["message"] == "No such option '--json'."
    assert refusal["hint"].startswith("Did you mean --format json?")


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "promptyoself"], [str(SCRIPT)]], ids=["module", "script"]
)
def test_it_runs_however_it_is_called(command: list[str], environ: dict[str, str]) -> None:
    """`promptyoself` and `python -m promptyoself` are the same, from any working directory."""
    if not Path(command[0]).exists():
        pytest.skip("the console script isn't installed beside this interpreter")
    done = subprocess.run(
        [*command, "list"], env=environ, cwd="/", stdout=subprocess.PIPE, check=True
    )
    answer = orjson.loads(done.stdout)
    assert (answer["status"], answer["schedules"], answer["count"]) == ("success", [], 0)
    done = subprocess.run([*command, "lsit"], env=environ, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert orjson.loads(done.stdout)["code"] == "unknown_command"


def test_the_hint_names_the_command() -> None:
    """Wrong usage hints at the help of the very command."""
    assert "`promptyoself list --help`" in call("list", "--what").error("unknown_option", 2)["hint"]
    hint = call("register", "--every").error("wrong_usage", 2)["hint"]
    assert "`promptyoself register --help`" in hint


def test_an_option_may_be_given_before_or_after(var: Path, tmp_path: Path) -> None:
    """`--var` of the command line comes before PROMPTYOSELF_VAR."""
    other = tmp_path / "other"
    arguments = ("--agent-id", AGENT, "--prompt", "Hello", "--every", "5m")
    call("register", "--var", str(other), *arguments).success()
    assert call("list", f"--var={other}").success()["count"] == 1
    assert call("list").success()["count"] == 0
    assert not var.exists()


def test_files_are_private(var: Path) -> None:
    """Files are made 0600 and folders 0700, whatever the umask."""
    before = os.umask(0)
    try:
        call("register", "--agent-id", AGENT, "--prompt", "Hello", "--every", "5m").success()
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (var, *var.rglob("*"))}
    assert len(modes) > 3
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_the_shell_completes(environ: dict[str, str]) -> None:
    """Click's completion works: of a command's name, of an option, of a choice's value."""
    script = run(environ={**environ, "_PROMPTYOSELF_COMPLETE": "bash_source"})
    assert script.code == 0
    assert b"complete -o nosort -F _promptyoself_completion promptyoself" in script.out

    def complete(*words: str) -> set[str]:
        completing = {
            **environ,
            "_PROMPTYOSELF_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = run(environ=completing)
        assert done.code == 0
        return {line.partition(",")[2] for line in done.out.decode().splitlines()}

    commands = {
        "register",
        "resume",
        "reinforce",
        "replies",
        "report",
        "revoke",
        "rebuild",
        "recover",
    }
    assert complete("promptyoself", "re") == commands
    assert complete("promptyoself", "register", "--max") == {"--max-repetitions"}
    assert complete("promptyoself", "register", "--misfire", "s") == {"skip"}


def test_stdin_may_be_closed(var: Path, environ: dict[str, str]) -> None:
    """P7: without a standard input nobody can be asked, and an MCP client has gone: `approve` takes
    what it was told, and `mcp` ends at once."""
    asked = ("--agent-id", AGENT, "--prompt", "Hello", "--every", "5m", "--tier", "2")
    id_ = call("register", *asked).success()["id"]
    assert call("approve", "--id", id_, stdin=None).success()["id"] == id_
    ended = run("mcp", environ=environ, prepare=lambda: os.close(0))
    assert ended == (0, b"", "")


def test_a_bug_is_answered_too(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: even a bug of ours is one JSON document, internal_error; its traceback goes to stderr."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr("promptyoself.service.schedules.views.list_schedules", broken)
    answer = call("list")
    assert answer.code == 1
    assert answer.document["code"] == "internal_error"
    assert "ZeroDivisionError: by mistake" in answer.document["message"]
    assert "Traceback" in answer.err
