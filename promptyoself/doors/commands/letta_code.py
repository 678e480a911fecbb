"""Letta Code: an App Server that is kept running, how it is, and a skill for its agents."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage, missing_package
from promptyoself.doors.command import command
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.core.settings import Settings
    from promptyoself.service.letta_code.store_lock import Holder

letta_code_command = CommandGroup(
    "letta-code",
    "status",
    """Run an App Server of Letta Code, to which prompts go.

    The agents of Letta Code live in a folder of this machine. Prompts reach them through an App
    Server, a program of Letta Code's. PROMPTYOSELF_LETTA_CODE_URL says where it listens.
    """,
)


@command("up")
@click.option("--program", metavar="PATH", help="The `letta` of Letta Code (else that of PATH).")
@click.option(
    "--listen", metavar="URL", help="Where it listens (else PROMPTYOSELF_LETTA_CODE_URL)."
)
def up_command(session: Session, program: str | None, listen: str | None) -> None:
    """Start an App Server, and keep it running until Ctrl-C or SIGTERM.

    It is started again when it ends, unless it ends soon after its start too often. Each event is
    told: started, ready, silent, ended, stopped. What the App Server itself says goes to stderr.
    The agents are those of the store that LETTA_LOCAL_BACKEND_DIR names, else those of your home;
    two App Servers on one store are refused. It works in the folder in which this is called. It
    sends no telemetry, and gets none of our keys and passwords.
    """
    from promptyoself.core.setting_values import SETTINGS
    from promptyoself.doors.waiting import until_stopped
    from promptyoself.service.letta_code import supervisor
    from promptyoself.service.letta_code.program import find_program
    from promptyoself.service.letta_code.store_lock import store_of
    from promptyoself.service.setup.machine import own_program

    settings = session.settings
    url, token = listen or url_of(settings), settings.letta_code_token
    supervisor.require_address(url, token)
    secrets = [setting.name for setting in SETTINGS if setting.secret]
    program_words = own_program()
    folder = os.path.dirname(program_words[0]) if len(program_words) == 1 else None
    environ = supervisor.environ_of(os.environ, settings.var, secrets, folder)
    plan = supervisor.Plan(find_program(program), url, token, store_of(environ), environ)

    def emit(event: dict[str, Any]) -> None:
        shown = {"message": event["message"]} if session.for_people else event
        session.print({"status": "success", **shown}, paged=False)

    if shutil.which("git", path=environ["PATH"]) is None:
        session.log.warn(
            "There is no program `git` in PATH. Letta Code keeps the memories of its agents in "
            "repositories of git, and makes no agent without it."
        )
    if missing := _missing_websockets():
        session.log.warn(missing)
    with until_stopped() as wait:
        supervisor.supervise(plan, emit, wait)


@command("status")
def status_command(session: Session) -> Document:
    """Say whether an App Server answers, and what to do otherwise.

    The pid is that of one that `letta-code up` has started.
    """
    from promptyoself.service.letta_code.probe import ask, is_ready
    from promptyoself.service.letta_code.program import require_version
    from promptyoself.service.letta_code.store_lock import is_alive

    settings = session.settings
    url, patience = url_of(settings), min(settings.call_timeout, 5.0)
    try:
        info = ask(url, settings.letta_code_token, patience)
    except PromptyoselfError as error:
        holder = _holder_at(url)
        up = None if holder is None else holder.up
        if error.code == "letta_code_unreachable" and up is not None and is_alive(up):
            starts = f"`promptyoself letta-code up` (pid {up}) is starting it."
            error.hint = f"{starts} Ask again in a moment."
        raise
    require_version(info.version, f"The App Server at {url}")
    answer: dict[str, object] = {
        "url": url,
        "version": info.version,
        "backend": info.backend,
        "protocol_version": info.protocol_version,
        "ready": is_ready(url, patience),
        "latency_ms": info.latency_ms,
    }
    holder = _holder_at(url)
    if holder is not None:
        answer["pid"] = holder.pid
    session.add_warning(_missing_websockets())
    if info.backend != "local":
        session.add_warning(
            "It serves agents of Letta's API and not local ones, to which alone prompts are sent."
        )
    return {**answer, "message": "The App Server answers."}


@command("install-skill")
@click.option("--dir", "folder", metavar="DIR", help="The folder of skills that it goes into.")
@click.option("--global", "everywhere", is_flag=True, help="For all agents of yours.")
@click.option("--agent-id", metavar="AGENT", help="For this agent of Letta Code alone.")
@click.option("--force", is_flag=True, help="Write over a skill that is there.")
def install_skill_command(
    session: Session, folder: str | None, everywhere: bool, agent_id: str | None, force: bool
) -> Document:
    """Write the skill with which agents schedule their prompts.

    It goes into the folder of skills of the project that this is called in, which is .agents/skills
    or .skills. If there is none, it goes into ~/.letta/skills, where all of your agents find it.
    The answer says which. A file that this command didn't write is left as it is.
    """
    from promptyoself.service.letta_code import skill

    if sum((folder is not None, everywhere, agent_id is not None)) > 1:
        raise WrongUsage(
            "conflicting_options",
            "Two of --dir, --global and --agent-id were given.",
            "Give one of them, or none.",
        )
    home = Path.home()
    if folder is not None:
        if not folder or (os.path.lexists(folder) and not os.path.isdir(folder)):
            raise WrongUsage(
                "invalid_value", f"--dir {folder[:200]!r} is no folder.", "Name a folder of skills."
            )
        place = skill.named_place(Path(folder))
    elif agent_id is not None:
        place = skill.agent_place(home, agent_id)
    else:
        place = skill.global_place(home) if everywhere else skill.found_place(Path.cwd(), home)
    path, changed = skill.write_skill(place, force=force)
    if shutil.which("promptyoself") is None:
        session.add_warning(
            "PATH doesn't lead to `promptyoself`, which agents call. An App Server that "
            "`promptyoself letta-code up` has started knows the way."
        )
    state = "was written" if changed else "is there already"
    return {
        "path": str(path),
        "place": place.kind,
        "changed": changed,
        "message": f"The skill {state}: {place.kind}, {place.reason}.",
    }


def _holder_at(url: str) -> Holder | None:
    """The App Server of our store that `letta-code up` keeps running at that address, if any."""
    from promptyoself.service.letta_code.store_lock import holder_of, store_of

    holder = holder_of(store_of(os.environ))
    return holder if holder is not None and holder.url == url else None


def _missing_websockets() -> str | None:
    """A warning if the package is missing without which no prompt reaches Letta Code."""
    from importlib.util import find_spec

    if find_spec("websockets") is not None:
        return None
    missing = missing_package("Prompts to Letta Code need", "letta-code")
    return f"{missing.message} {missing.hint}"


def url_of(settings: Settings) -> str:
    """Where the App Server is.

    Raises:
        PromptyoselfError: ``target_not_configured``.
    """
    if settings.letta_code_url is None:
        raise PromptyoselfError(
            "target_not_configured",
            "PROMPTYOSELF_LETTA_CODE_URL is off: there is no Letta Code for us.",
            "`promptyoself config unset letta_code_url` sets its default, ws://127.0.0.1:4500.",
        )
    return settings.letta_code_url


for _command in (up_command, status_command):
    letta_code_command.add_command(_command)
