"""`install-skill`: where the skill goes, what is left alone, and that its commands are ours."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from calling import add, call

from promptyoself.cli import cli
from promptyoself.doors.registry import SETS
from promptyoself.service.letta_code import skill

TEXT = (Path(skill.__file__).parents[2] / "data" / "SKILL.md").read_text()
AGENT = "agent-local-00000000-0000-4000-8000-000000000001"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, var: Path) -> Path:
    """A folder to work in, and a home beside it."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return work


def test_without_a_project_it_is_for_all_agents(work: Path) -> None:
    """The answer says where it is, and why; the same again changes nothing."""
    answer = call("install-skill").success()
    path = Path(answer["path"])
    assert path == work.parent / "home" / ".letta" / "skills" / "promptyoself" / "SKILL.md"
    assert (answer["place"], answer["changed"]) == ("global", True)
    assert "neither" in answer["message"]
    assert path.read_text().startswith(TEXT)
    assert path.stat().st_mode & 0o777 == 0o644
    again = call("install-skill", "--global").success()
    assert (again["path"], again["changed"]) == (str(path), False)


@pytest.mark.parametrize("folder", [".agents/skills", ".skills"])
def test_a_project_has_its_own(work: Path, folder: str) -> None:
    """Where both are there, Letta Code goes by .agents/skills."""
    (work / folder).mkdir(parents=True)
    (work / ".skills").mkdir(exist_ok=True)
    answer = call("install-skill").success()
    assert answer["path"] == str(work / folder / "promptyoself" / "SKILL.md")
    assert answer["place"] == "project"
    assert folder in answer["message"]
    assert not (work.parent / "home" / ".letta").exists()


def test_it_goes_where_it_is_told(work: Path) -> None:
    """Into a folder of skills, which is made; the skill's own folder may be named as well."""
    for named in ("a/b", "a/b/promptyoself"):
        answer = call("install-skill", "--dir", named).success()
        assert answer["path"] == str(work / "a" / "b" / "promptyoself" / "SKILL.md")
        assert answer["place"] == "named"
    answer = call("install-skill", "--agent-id", AGENT).success()
    folder = work.parent / "home" / ".letta" / "agents" / AGENT / "memory" / "skills"
    assert answer["path"] == str(folder / "promptyoself" / "SKILL.md")
    assert answer["place"] == "agent"


def test_what_it_did_not_write_stays(work: Path) -> None:
    """Another's file, and ours once somebody has changed it, are written over only by force; what
    an older version wrote is brought up to date."""
    path = work / "s" / "promptyoself" / "SKILL.md"
    path.parent.mkdir(parents=True)
    words = ("install-skill", "--dir", "s")
    ours = b"other words\n"
    ours += f"<!-- `promptyoself install-skill` wrote this: {skill._digest(ours)} -->\n".encode()
    for content in (
        b"",
        b"mine\n",
        b"<!-- 0123456789abcdef -->\n",
        ours.replace(b"words", b"ways"),
    ):
        path.write_bytes(content)
        error = call(*words).error("skill_exists")
        assert str(path) in error["message"]
        assert error["path"] == str(path)
        assert path.read_bytes() == content
    path.write_bytes(ours)
    assert call(*words).success()["changed"] is True
    path.write_bytes(b"mine\n")
    assert call(*words, "--force").success()["changed"] is True
    target = path.rename(work / "elsewhere")
    path.symlink_to(target)
    assert call(*words).success()["changed"] is False
    target.write_bytes(ours)
    call(*words).error("skill_exists")
    assert target.read_bytes() == ours


def test_wrong_places_are_refused(work: Path) -> None:
    (work / "file").touch()
    for folder in ("file", ""):
        call("install-skill", "--dir", folder).error("invalid_value", 2)
    call("install-skill", "--dir", "a", "--global").error("conflicting_options", 2)
    for agent in ("../../x", "a b", ".", "..", "nobody", "agent-/x"):
        call("install-skill", "--agent-id", agent).error("invalid_agent_id")
    (work / ".skills").mkdir(mode=0o500)
    (work / ".skills" / "promptyoself").touch()
    assert call("install-skill").document["status"] == "error"
    assert [path.name for path in work.iterdir()] == ["file", ".skills"]


def test_a_path_that_does_not_lead_to_us_is_warned_of(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work))
    assert "letta-code up" in call("install-skill").success()["warning"]


# The text.


def commands() -> Iterator[list[str]]:
    """What the skill tells an agent to run, as words."""
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            yield shlex.split(line)


def test_its_head_is_as_letta_code_reads_it() -> None:
    """A name and a description, each on a line, which is all that an agent sees at first."""
    head = re.match(r"---\nname: promptyoself\ndescription: (.+)\n---\n", TEXT)
    assert head
    assert len(head[1]) < 300
    assert len(TEXT) < 4000


def test_its_commands_and_options_are_ours() -> None:
    """Each command is accepted by the real command line, and is one that agents have. So is each
    option that the text names."""
    names = set()
    options: set[str] = set()
    for program, name, *arguments in commands():
        assert program == "promptyoself"
        context = click.Context(cli, info_name=program)
        command = cli.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments, parent=context)
        options |= {option for param in command.params for option in param.opts}
        names.add(name)
    assert names == {"register", "list", "history", "modify", "pause", "cancel"}
    assert names < set(SETS["agent"])
    assert set(re.findall(r"--[a-z][a-z-]*", TEXT)) <= options


def test_its_commands_do_what_it_says(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they stand there, with the ids that Letta Code gives an agent."""
    monkeypatch.setenv("AGENT_ID", AGENT)
    monkeypatch.setenv("CONVERSATION_ID", "local-conv-1")
    add("--every", "1h")  # another agent's
    ids: list[str] = []
    for _, name, *shown in commands():
        words = [os.path.expandvars(word) for word in shown]
        own = dict(zip(("sch_12345678", "sch_87654321"), ids, strict=False))
        answer = call(name, *(own.get(word, word) for word in words)).success()
        if name == "register":
            ids.append(answer["id"])
            assert {"next_run_local", "warning"} <= set(answer)
        if name == "list":
            assert {line["id"] for line in answer["schedules"]} == set(ids)
    here, elsewhere = (call("show", "--id", id_).success()["schedule"] for id_ in ids)
    assert (here["conversation_id"], here["status"]) == ("local-conv-1", "cancelled")
    assert elsewhere.get("conversation_id") is None
    assert "`hint` says what to do" in TEXT
    assert call("cancel", "--id", "sch_00000000").error("unknown_id")["hint"]
