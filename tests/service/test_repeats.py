"""P7: an option that is given twice is refused where it has a meaning once, at every door."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from calling import AGENT, add, call, clean_environ, log_of

import promptyoself
from promptyoself.cli import cli
from promptyoself.doors.registry import COMMANDS

PROMPT = ("register", "--agent-id", AGENT, "--prompt", "Hello", "--every", "1h")


def options() -> Iterator[tuple[str, click.Option]]:
    """Every option of every command."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                yield name, option


ONCE = [
    (name, option)
    for name, option in options()
    if not option.multiple and option.name != "help"  # asked twice, it is shown once
]
AGAIN = [(name, option) for name, option in options() if option.multiple]


def spelled(name: str, option: click.Option) -> list[str]:
    """One use of an option, with a value that looks like an option where it takes one."""
    return [name] if option.is_flag else [name, "--id"]


@pytest.mark.parametrize(
    ("command", "option"), ONCE, ids=[f"{name} {option.opts[0]}" for name, option in ONCE]
)
def test_no_option_is_given_twice(command: str, option: click.Option, var: Path) -> None:
    """Whichever it is, in either spelling, it is refused before anything is done; the two names of
    a flag are one option."""
    for first in (*option.opts, *option.secondary_opts):
        for second in (*option.opts, *option.secondary_opts):
            twice = call(command, *spelled(first, option), *spelled(second, option), verbatim=True)
            error = twice.error("repeated_option", 2)
            assert first in error["message"]
            assert second in error["message"]
            if not option.is_flag:
                written = call(command, f"{first}=a", f"{second}=a", verbatim=True)
                assert written.error("repeated_option", 2)["message"] == error["message"]
    assert not var.exists()


def test_those_that_may_be_repeated(var: Path) -> None:
    """A tag, a host, an origin: as many as there are."""
    assert {(name, option.opts[0]) for name, option in AGAIN} >= {
        ("desire", "--tag"), ("desires", "--tag"), ("mcp", "--allow-host"),
        ("mcp", "--allow-origin"),
    }  # fmt: skip
    made = call("desire", "--agent-id", AGENT, "--text", "x", "--tag", "a", "--tag", "b").success()
    (found,) = call("desires", "--tag", "b", "--tag", "a").success()["desires"]
    assert (found["id"], found["tags"]) == (made["id"], ["a", "b"])


def test_two_ids_end_neither(var: Path) -> None:
    """`cancel` with two ids cancels none, and says how to cancel both."""
    ids = [add(prompt=text) for text in "ab"]
    before = log_of(var)
    error = call("cancel", "--id", ids[0], "--id", ids[1], verbatim=True).error(
        "repeated_option", 2
    )
    assert "`cancel` again" in error["hint"]
    assert log_of(var) == before


def test_a_value_that_looks_like_an_option(var: Path) -> None:
    """A value is a value: a prompt may read like an option, once or twice, and what follows `--` is
    no option."""
    prompt = ("register", "--agent-id", AGENT, "--every", "1h")
    call(*prompt, "--prompt", "--every").success()
    call(*prompt, "--prompt", "--prompt").success()
    call(*prompt, "--prompt=--prompt=x", "--name", "--name").success()
    assert call("list", "--", "--full", "--full").error("wrong_usage", 2)
    assert call("cancel", "--id", "a", "--id", "b", "--help", verbatim=True).code == 0


def test_through_a_sanctum_host(tmp_path: Path) -> None:
    """A host that writes a flag with its value, and one that repeats it: the same refusal."""
    environ = clean_environ(tmp_path / "var")
    entry = Path(promptyoself.__file__).with_name("cli.py")

    def host(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, str(entry), *words],
            env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    for twice in (
        ("--envelope", "--no-envelope"),
        ("--envelope", "true", "--no-envelope", "true"),
        ("--envelope", "true", "--envelope", "true"),
        ("--prompt", "Other"),
    ):
        assert host(*PROMPT, *twice)["code"] == "repeated_option", twice
    assert not (tmp_path / "var").exists()
    assert host(*PROMPT, "--envelope", "true", "--no-envelope", "false")["created"]
    tags = host("desire", "--agent-id", AGENT, "--text", "x", "--tag", "a", "--tag", "b")
    assert tags["created"]
