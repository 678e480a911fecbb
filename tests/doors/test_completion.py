"""Completion: what a shell offers at a Tab, and what it offers where anything is wrong."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from calling import AGENT, add, call
from click.shell_completion import ZshComplete
from installed import home  # noqa: F401

from promptyoself.cli import cli
from promptyoself.core.setting_values import SETTINGS
from promptyoself.doors.agent_names import remember_names
from promptyoself.doors.completion import script
from promptyoself.events.versions import VERSIONS
from promptyoself.service.setup.shells import SHELLS

SCRIPT = Path(sys.executable).with_name("promptyoself")


def offered(*words: str) -> dict[str, str | None]:
    """What the last of the words could become, with what is said of it."""
    completer = ZshComplete(cli, {}, "promptyoself", "_PROMPTYOSELF_COMPLETE")
    found = completer.get_completions(list(words[:-1]), words[-1])
    return {item.value: item.help for item in found}


def test_ids_are_offered_with_their_names(var: Path) -> None:
    """An id alone tells nobody which schedule it is. A name that needs no quoting is offered."""
    named = add("--name", "plan", "--every", "1h")
    other = add("--name", "two words", "--every", "2h")
    unnamed = add("--every", "3h", prompt="Stretch,\nthen rest.")
    for words in (("show", "--id"), ("cancel", "--id"), ("history", "--id"), ("show",)):
        ids = offered(*words, "sch_")
        assert ids == {
            named: "plan (active)",
            other: "two words (active)",
            unnamed: "Stretch, then rest. (active)",
        }
    assert set(offered("show", "--id", "")) == {named, other, unnamed, "plan"}
    assert offered("show", "--id", named[:6]).keys() >= {named}
    call("desire", "--agent-id", AGENT, "--text", "Learn Danish.").success()
    (desire,) = offered("reinforce", "--id", "").items()
    assert desire[0].startswith("des_")
    assert desire[1] == "Learn Danish."


def test_agents_are_offered_with_their_names(var: Path) -> None:
    """Those that have schedules, and those that Letta has told of."""
    add(agent="agent-1")
    remember_names(var, {"agent-1": "echo", "agent-2": "other"})
    assert offered("list", "--agent-id", "") == {"agent-1": "echo", "agent-2": "other"}
    assert offered("register", "--on-failure", "agent-2") == {"agent-2": "other"}


def test_tags_are_offered(var: Path) -> None:
    """Those of schedules, or with desires those of desires."""
    add("--every", "1h", "--tag", "work", "--tag", "daily")
    call("desire", "--agent-id", AGENT, "--text", "Rest.", "--tag", "rest").success()
    assert offered("register", "--tag", "").keys() == {"work", "daily"}
    assert offered("desires", "--tag", "").keys() == {"rest"}


def test_zones_types_and_settings_are_offered(home: Path) -> None:
    assert offered("register", "--tz", "Europe/Lo").keys() == {"Europe/London"}
    assert offered("history", "--type", "") == dict.fromkeys(VERSIONS)
    assert offered("config", "set", "") == {one.name: one.help for one in SETTINGS}
    assert offered("config", "unset", "PROMPTYOSELF_T").keys() == {"PROMPTYOSELF_TZ"}
    assert offered("config", "set", "tz", "Europe/Lo").keys() == {"Europe/London"}
    assert offered("config", "set", "log_format", "").keys() == {"text", "json"}
    assert offered("config", "set", "interval", "") == {}
    assert offered("config", "").keys() == {"list", "set", "unset", "path"}
    call("notify", "add", "ops", "https://hooks.example.org/k3yk3y").success()
    for words in (("test",), ("remove",), ("digest",)):
        assert offered("notify", *words, "") == {"ops": "https://hooks.example.org"}
    assert offered("register", "--reply-to", "o") == {"ops": "https://hooks.example.org"}
    assert offered("register", "--on-failure", "o").keys() == {"ops"}
    assert "--tag" not in offered("service", "install", "--")
    assert "--system" in offered("service", "install", "--")


@pytest.mark.parametrize("wrong", ["damage", "setting", "repeated", "unknown"])
def test_a_shell_sees_nothing_of_what_is_wrong(
    var: Path, environ: dict[str, str], wrong: str
) -> None:
    """Whatever is printed would be offered, or be drawn into the line that is typed."""
    id_ = add("--every", "1h")
    words = f"promptyoself show --id {id_[:6]}"
    if wrong == "damage":
        for path in (var / "schedules").iterdir():
            if path.is_file():
                path.write_bytes(b"garbage")
    elif wrong == "setting":
        environ["PROMPTYOSELF_INTERVAL"] = "soon"
    elif wrong == "repeated":
        words = f"promptyoself show --id {id_} --id {id_[:6]}"
    else:
        words = "promptyoself nothing --id x"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [SCRIPT],
        env={**environ, **asked, "_PROMPTYOSELF_COMPLETE": "bash_complete"},
        capture_output=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_what_a_tab_loads(var: Path, environ: dict[str, str]) -> None:
    """A Tab is answered at once: neither the network nor tables are loaded for it."""
    add("--every", "1h")
    code = "import sys\nfrom promptyoself.cli import _run\n_run(None)\nprint(*sys.modules)"
    asked = {"COMP_WORDS": "promptyoself show --id s", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, **asked, "_PROMPTYOSELF_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stdout.split())
    assert "promptyoself.doors.completion" in modules
    assert not modules & {"rich", "jinja2", "letta_client", "httpx", "dateutil", "socket"}


@pytest.mark.parametrize(
    ("shell", "file", "startup"),
    [
        ("bash", ".local/share/bash-completion/completions/promptyoself", ".bashrc"),
        ("zsh", ".local/share/zsh/site-functions/_promptyoself", ".zshrc"),
        ("fish", ".config/fish/completions/promptyoself.fish", None),
    ],
)
def test_it_is_installed_once(home: Path, shell: str, file: str, startup: str | None) -> None:
    """Into the usual place; the line is added to what is there, and never again."""
    if startup is not None:
        (home / startup).write_text("alias ll='ls -l'")
    answer = call("completion", "install", shell).success()
    assert answer["file"] == str(home / file)
    assert (home / file).read_text() == script(cli, shell)
    if startup is not None:
        lines = (home / startup).read_text().splitlines()
        assert lines == ["alias ll='ls -l'", answer["line"]]
        assert answer["startup"] == str(home / startup)
    again = call("completion", "install", shell).success()
    assert (answer["changed"], again["changed"]) == (True, False)
    if startup is not None:
        assert (home / startup).read_text().splitlines() == lines


def test_the_shell_is_the_one_of_the_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert call("completion").out.startswith(b"#compdef promptyoself")
    assert call("completion", "install").success()["shell"] == "zsh"
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "bash, zsh, fish" in call("completion", "show").error("unknown_shell", 2)["hint"]
    call("completion", "install", "powershell").error("unknown_shell", 2)


TYPED = {
    "bash": '. ~/.bashrc\nCOMP_WORDS=(promptyoself show --id "")\nCOMP_CWORD=3\n'
    '_promptyoself_completion promptyoself\necho "${COMPREPLY[@]}"',
    "zsh": '. ~/.zshrc\nwords=(promptyoself show --id "")\nCURRENT=4\n'
    # What it offers would stand on a terminal; here it is printed.
    "_describe() { print -l -- ${(P)3} }\ncompadd() { print -l -- $@ }\n"
    "_promptyoself_completion",
    "fish": 'complete -C "promptyoself show --id "',
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(home: Path, var: Path, shell: str) -> None:
    """Where the shell is installed, it reads what was installed, and offers the id."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    call("completion", "install", shell).success()
    id_ = add("--every", "1h")
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    environ = {"HOME": str(home), "PATH": path, "PROMPTYOSELF_VAR": str(var)}
    words = [shell, "-c", TYPED[shell]]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert id_ in done.stdout, done.stderr


def test_every_argument_of_a_file_offers_files() -> None:
    """Click offers a file's name where its item says so."""
    group = cli.get_command(click.Context(cli), "import")
    assert group is not None
    completer = ZshComplete(cli, {}, "promptyoself", "_PROMPTYOSELF_COMPLETE")
    assert [item.type for item in completer.get_completions(["import"], "")] == ["file"]
