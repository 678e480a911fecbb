"""A caller who is pinned to an agent learns nothing of another's schedules and desires, whatever
command it calls: neither from the answer, nor from what is told on stderr, nor from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import Answer, call

from promptyoself import cli
from promptyoself.doors.command import call_command
from promptyoself.doors.commands.mcp import _agenda_command
from promptyoself.doors.session import Caller
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.loop import StopFlag

if TYPE_CHECKING:
    from conftest import Clock

SECRET = "kestrel"
"""Is in every text of the other agent: its prompts, names, reasons, desires, tags, conversations,
and in its own id."""

OWN, OTHER = "agent-own", f"agent-{SECRET}"
HOURLY = ("--every", "1h", "--grace", "59m")

COMMANDS: dict[str, list[str]] = {
    "register": ["--prompt p --every 2h", "--agent-id OTHER --prompt p --every 2h"],
    "list": ["", "--status all --full", "--at 3", "--format table", "--agent-id OTHER"],
    "show": ["--id MINE", "--id THEIRS", "--id THEIRS --at 9"],
    "cancel": ["--id THEIRS"],
    "pause": ["--id THEIRS"],
    "resume": ["--id THEIRS", "--failed-with agent_not_found"],
    "modify": ["--id THEIRS --name mine", "--id MINE --agent-id OTHER"],
    "trigger": ["--id THEIRS"],
    "next": ["--id THEIRS", "--every 1h"],
    "simulate": ["--until in_2d"],
    "idle": ["--every 1d"],
    "desire": ["--text rest"],
    "desires": ["", "--query a", "--tag none", "--at 5", "--agent-id OTHER"],
    "reinforce": ["--id DESIRE --by 0.1"],
    "prune": ["--below 1 --dry-run", "--below 1", "--below 1 --agent-id OTHER"],
    "execute": ["", "--format table"],
    "agents": [""],
    "test": [""],
    "history": [
        "", "--ndjson", "--chain desires", "--id THEIRS", "--id DESIRE", "--by OTHER",
        "--type schedule", "--agent-id OTHER", "--id THEIRS --slot 2026-11-20T13:00",
    ],
    "replies": ["", "--ndjson", "--id THEIRS", "--agent-id OTHER", "--format table"],
    "verify": [""],
    "head": ["", "--chain desires"],
    "rebuild": [""],
    "seal": [""],
    "recover": ["", "--agree"],
    "stats": [""],
    "audit": ["", "--agent-id OTHER"],
    "diff": ["--from 1"],
    "budgets": ["", "--agent-id OTHER"],
    "agenda": ["", "--agent-id OTHER", "--format table"],
    "report": ["", "--agent-id OTHER", "--format table"],
    "undo": ["--id THEIRS", "", "--id MINE --dry-run"],
    "edit": ["--id THEIRS"],
    "config": [""],
    "notify": ["", "add ops agent:OTHER", "test ops", "remove ops --yes", "digest ops --off"],
    "completion": ["show bash"],
    "approve": ["--id THEIRS", "--id MINE"],
    "approvals": [""],
    "revoke": ["--id THEIRS"],
    "export": ["", "--agent-id OTHER"],
    "import": ["EXPORT"],
    "import-sqlite": ["EXPORT"],
    "import-crontab": ["-"],
    "import-letta-cron": ["-", "- --agent-id OTHER"],
    "keygen": ["--out FILE"],
    "pack": ["--out FILE"],
    "metrics": [""],
    "doctor": ["--allow-failed --allow-no-loop"],
    "install-plugin": ["--plugins-dir FOLDER"],
    "install-skill": ["--dir FOLDER"],
}  # fmt: skip
"""Every command, each with some arguments. In them, THEIRS and MINE stand for ids of schedules,
DESIRE for the id of the other's desire, and EXPORT for a file with the other's schedules."""

OWN_DATA = {"sandbox", "demo", "mcp", "init", "service", "letta-code"}
"""Commands without data of their own: two make a data directory, the server calls the others
(tests/doors/test_mcp_server.py has its callers), and three are about the machine."""


TELLING = {
    *("agents", "audit", "budgets", "desires", "diff", "export", "history", "list", "metrics"),
    *("prune", "resume", "show", "simulate", "agenda", "report"),
}
"""The commands that tell a caller of the other agent who is pinned to nobody."""


class House:
    """A data directory in which two agents live, and whose caller is pinned to one of them."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        desire = ("desire", "--strength", "0.9", "--text")
        self.mine = self._register(OWN, "breathe", *HOURLY)
        theirs = (*HOURLY, "--name", f"the {SECRET}", "--conversation-id", f"conv-{SECRET}")
        self.theirs = self._register(OTHER, f"ask {SECRET}", *theirs, "--reason", f"as {SECRET}")
        self._register(OTHER, f"approve {SECRET}", *HOURLY, "--tier", "2")
        paused = self._register(OTHER, f"wait {SECRET}", *HOURLY)
        call("pause", "--id", paused, "--reason", f"no {SECRET}").success()
        over = self._register(OTHER, f"over {SECRET}", "--every", "3h", "--on-failure", OWN)
        call("cancel", "--id", over, "--reason", f"no {SECRET}").success()
        self.broken = self._register(OTHER, f"once {SECRET}", "--time", "in 30m")
        self.desire = call(
            *desire, f"see a {SECRET}", "--agent-id", OTHER, "--tag", SECRET, "--reason", SECRET
        ).success()["id"]
        call(*desire, "sleep", "--agent-id", OWN).success()
        (folder / "export").write_bytes(call("export").out)
        clock.advance(hours=1)
        call("execute").success()
        call("trigger", "--id", self.theirs, "--reason", f"see {SECRET}").success()

    def _register(self, agent_id: str, prompt: str, *options: str) -> str:
        words = ("register", "--agent-id", agent_id, "--prompt", prompt, *options)
        return str(call(*words).success()["id"])

    def call(self, command: str, arguments: str) -> Answer:
        """The answer to a command with arguments as :data:`COMMANDS` spells them."""
        texts = {
            "THEIRS": self.theirs,
            "MINE": self.mine,
            "OTHER": OTHER,
            "DESIRE": self.desire,
            "EXPORT": str(self.folder / "export"),
            "FILE": str(self.folder / "made"),
            "FOLDER": str(self.folder),
            "in_2d": "in 2d",
        }
        return call(command, *(texts.get(word, word) for word in arguments.split()))


@pytest.fixture
def house(
    tmp_path: Path, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    with Sandbox((OWN, OTHER)) as sandbox:
        sandbox.fault("not_found", agent_id=OTHER)
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        house = House(tmp_path, clock)
        monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OWN)
        yield house


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) | OWN_DATA == set(cli.COMMANDS)


def test_nothing_of_another_agent_is_told(house: House) -> None:
    """But for what the caller said itself, which an error repeats."""
    for command, calls in COMMANDS.items():
        for arguments in calls:
            answer = house.call(command, arguments)
            text = answer.out.decode() + answer.err
            if "OTHER" in arguments or "EXPORT" in arguments:
                text = text.replace(OTHER, "")
            assert SECRET not in text, (command, arguments, text)
            assert "Traceback" not in text, (command, arguments, text)


def test_an_agenda_is_the_callers_own(house: House) -> None:
    """That is a resource of the MCP server, and no command; here a header says who calls."""
    for words in ([], [f"--agent-id={OWN}"], [f"--agent-id={OTHER}"]):
        text = call_command(_agenda_command, words, Caller("mcp", StopFlag(), agent=OWN)).decode()
        assert SECRET not in text.replace(f"'{OTHER}'", ""), text
        assert ("forbidden_agent" in text) == (OTHER in "".join(words)), text
        assert house.mine in text or "forbidden_agent" in text, text


def test_who_is_pinned_to_nobody_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calls tell that much: what the test above looks for is there to be found."""
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    telling = {
        command
        for command, calls in COMMANDS.items()
        for arguments in calls
        if "OTHER" not in arguments and SECRET in house.call(command, arguments).out.decode()
    }
    assert telling == TELLING
