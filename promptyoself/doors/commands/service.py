"""A service that runs the loop, and starts it with the machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.settings import read_sources, settings_path
from promptyoself.doors.command import command
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.service.setup.systemd import Manager

service_command = CommandGroup(
    "service",
    "status",
    """Have the loop run as a service.

    It starts with the machine. On Linux it is a unit of systemd. Where there is no systemd, it is a
    line in your crontab.
    """,
)

_SETTINGS_OF_SYSTEM = "/etc/promptyoself.env"
_LOOP_PATIENCE = 10.0
_APP_SERVER_PATIENCE = 60.0

_system_option = click.option(
    "--system", is_flag=True, help="A service of the whole system instead of your own; for root."
)
_cron_option = click.option(
    "--cron", is_flag=True, help="A line in your crontab, which delivers once a minute."
)


@command("install")
@_system_option
@_cron_option
@click.option(
    "--run-as",
    metavar="USER",
    default="promptyoself",
    help="With --system: the user that the loop runs as.",
)
@click.option(
    "--with-letta-code",
    is_flag=True,
    help="Keep an App Server of Letta Code running too, with your own service.",
)
@click.option(
    "--print", "only_print", is_flag=True, help="Print what would be installed; change nothing."
)
def install_command(
    session: Session,
    system: bool,
    cron: bool,
    run_as: str,
    with_letta_code: bool,
    only_print: bool,
) -> Document | None:
    """Start the loop now, after every crash, and with the machine.

    By default it is a service of your own, on the data directory and the file of settings that this
    command uses. Running it again changes what is different now. On macOS it prints a launchd
    agent, and says what to do with it.
    """
    if system and cron:
        message = "Both --system and --cron were given."
        raise WrongUsage("conflicting_options", message, "Give one of them.")
    if with_letta_code and (system or cron):
        raise WrongUsage(
            "conflicting_options",
            "--with-letta-code is for a service of your own.",
            f"Leave out {'--system' if system else '--cron'}: the agents are those of your home.",
        )
    app_server = _app_server_unit(session) if with_letta_code else ""
    text = _text(session, system=system, cron=cron, run_as=run_as)
    if only_print or (sys.platform == "darwin" and not cron):
        if app_server and not only_print:
            require_systemd()
        sys.stdout.write(f"{text}\n{app_server}" if app_server else text)
        if not only_print:
            print(_LAUNCHD, file=sys.stderr)
        return None
    answer = install(session, text, system=system, cron=cron, run_as=run_as)
    if app_server:
        answer = {**answer, "letta_code": _install_app_server(session, app_server)}
    return answer


def install(session: Session, text: str, *, system: bool, cron: bool, run_as: str) -> Document:
    """Install the unit, or the line of the crontab, that ``text`` is."""
    if not system:
        _warn_of_lost_settings(session)
    if cron:
        from promptyoself.service.setup.crontab import set_line

        session.settings.var.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = set_line(text.rstrip("\n"))
        message = "Your crontab delivers what is due, once a minute, while cron runs."
        return {"kind": "cron", "line": text.rstrip("\n"), "changed": changed, "message": message}
    return _install_unit(session, text, system=system, run_as=run_as)


def own_service(session: Session, *, cron: bool) -> Document:
    """Install a service of the user's own, or the line of the crontab."""
    text = _text(session, system=False, cron=cron, run_as="")
    return install(session, text, system=False, cron=cron, run_as="")


def _text(session: Session, *, system: bool, cron: bool, run_as: str) -> str:
    from promptyoself.service.setup import units
    from promptyoself.service.setup.machine import own_program

    program = own_program()
    if system:
        return units.system_unit(program, _system_var(session), run_as)
    environ = _environ_of_service(session)
    if cron:
        return units.cron_line(program, environ, session.settings.var) + "\n"
    if sys.platform == "darwin":
        return units.launchd_agent(program, environ)
    return units.user_unit(program, environ)


def _environ_of_service(session: Session) -> dict[str, str]:
    """What a service of one's own needs to find the same data and settings as this command."""
    environ = {}
    if _var_origin(session) in ("environment", "--var"):  # else the service finds it as we did
        environ["PROMPTYOSELF_VAR"] = str(session.settings.var)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):  # they say where we look for files
        if os.path.isabs(os.environ.get(name, "")):
            environ[name] = os.environ[name]
    return environ


def _install_unit(session: Session, text: str, *, system: bool, run_as: str) -> Document:
    from promptyoself.core.disk import Disk
    from promptyoself.service.setup import systemd
    from promptyoself.service.setup.machine import own_program

    manager = _manager(system=system)
    at_boot = True
    if system:
        _require_user(run_as)
        _require_reachable(own_program(), run_as)
    else:
        at_boot = systemd.let_linger()
        if not at_boot:
            session.add_warning(
                "The loop runs only while you are logged in. An administrator can change that: "
                f"`sudo loginctl enable-linger {systemd.login()}`."
            )
    changed = manager.install(text, Disk())
    _require_started(session, manager)
    where = _SETTINGS_OF_SYSTEM if system else str(settings_path())
    return {
        "kind": "systemd",
        "scope": "system" if system else "user",
        "file": str(manager.unit),
        "changed": changed,
        "settings_file": where,
        "starts_at_boot": at_boot,
        "message": f"The loop runs, and starts {'with the machine' if at_boot else 'at login'}.",
    }


@command("status")
@_system_option
def status_command(session: Session, system: bool) -> Document:
    """Say whether a service is installed, whether it runs, and whether it starts at boot."""
    from promptyoself.service.setup import systemd
    from promptyoself.service.setup.crontab import own_line

    line = own_line()
    if system:
        session = Session(str(_system_var(session)), session.caller)
    answer: dict[str, object] = {"installed": False, "loop": session.store().workers.anyone()}
    manager = systemd.Manager(system=system) if systemd.is_here() else None
    if manager is not None and manager.unit.exists():
        status = manager.status()
        answer |= {
            "installed": True,
            "kind": "systemd",
            "scope": "system" if system else "user",
            "file": str(manager.unit),
            "state": status.state,
            "restarts": status.restarts,
            "starts_at_boot": status.enabled and (system or systemd.lingers()),
        }
        journal = "journalctl" if system else "journalctl --user"
        answer["message"] = (
            f"The service is {status.state}. `promptyoself doctor` says whether all is well, and "
            f"`{journal} -u promptyoself` what the loop said."
        )
    elif line is not None:
        answer |= {"installed": True, "kind": "cron", "line": line}
        answer["message"] = "Your crontab delivers what is due, once a minute."
    else:
        answer["message"] = "No service is installed. `promptyoself service install` installs one."
    app_server = None if system or manager is None else _app_server_manager()
    if app_server is not None and app_server.unit.exists():
        status = app_server.status()
        answer["letta_code"] = {
            "file": str(app_server.unit),
            "state": status.state,
            "restarts": status.restarts,
            "starts_at_boot": status.enabled and systemd.lingers(),
        }
    return answer


@command("uninstall")
@_system_option
def uninstall_command(session: Session, system: bool) -> Document:
    """Stop the service and take it away, and the line in your crontab. All data stays."""
    del session
    from promptyoself.service.setup import crontab, systemd

    removed = []
    if not system and crontab.own_line() is not None and crontab.set_line(None):
        removed.append("the line of the crontab")
    if systemd.is_here():
        manager = _manager(system=system)
        managers = [manager] if system else [manager, _app_server_manager()]
        removed += [str(manager.unit) for manager in managers if manager.uninstall()]
    message = f"Removed: {' and '.join(removed)}." if removed else "No service is installed."
    return {"removed": removed, "changed": removed != [], "message": message}


for _command in (install_command, status_command, uninstall_command):
    service_command.add_command(_command)


def _app_server_unit(session: Session) -> str:
    """The unit that keeps an App Server running, in an environment as this one.

    Raises:
        PromptyoselfError: ``letta_code_not_installed``, ``letta_code_too_old``, or what keeps an
            App Server from listening where the settings say.
    """
    from promptyoself.doors.commands.letta_code import url_of
    from promptyoself.service.letta_code.program import find_program
    from promptyoself.service.letta_code.supervisor import require_address
    from promptyoself.service.setup import units
    from promptyoself.service.setup.machine import own_program

    require_address(url_of(session.settings), session.settings.letta_code_token)
    environ = _environ_of_service(session)
    for name in ("PATH", "LETTA_LOCAL_BACKEND_DIR"):  # of the agents' tools; of the agents
        if name in os.environ:
            environ[name] = os.environ[name]
    return units.app_server_unit(own_program(), find_program().path, environ)


def _app_server_manager() -> Manager:
    from promptyoself.service.setup import systemd, units

    return systemd.Manager(system=False, name=units.LETTA_CODE_NAME)


def _install_app_server(session: Session, text: str) -> Document:
    """Install that unit, and wait until its App Server answers.

    Raises:
        PromptyoselfError: ``service_failed``.
    """
    from promptyoself.core.disk import Disk
    from promptyoself.doors.commands.letta_code import url_of
    from promptyoself.service.letta_code.probe import is_ready

    manager, url = _app_server_manager(), url_of(session.settings)
    if manager.status().state != "active" and is_ready(url, 1.0):
        session.add_warning(
            f"An App Server runs at {url} already. The service starts its own once that has ended."
        )
    changed = manager.install(text, Disk())
    end = time.monotonic() + _APP_SERVER_PATIENCE
    while not is_ready(url, 1.0):
        status = manager.status()
        if status.state == "failed" or status.restarts or time.monotonic() > end:
            raise PromptyoselfError(
                "service_failed",
                f"The service is installed, but no App Server answers at {url}: the service is "
                f"{status.state}.",
                "`journalctl --user -u promptyoself-letta-code -n 20` says why.",
            )
        time.sleep(0.2)
    return {"file": str(manager.unit), "changed": changed, "url": url}


def _system_var(session: Session) -> Path:
    """The data directory of the service of the system: its own, unless somebody names another."""
    from promptyoself.service.setup.units import SYSTEM_VAR

    return SYSTEM_VAR if _var_origin(session) == "default" else session.settings.var


def _var_origin(session: Session) -> str:
    """Where the name of the data directory came from."""
    return next(
        source.origin
        for source in read_sources(var=session.var)
        if source.setting.name == "PROMPTYOSELF_VAR"
    )


def require_systemd() -> None:
    """Refuse where systemd doesn't run the machine. Raises ``no_systemd``."""
    from promptyoself.service.setup import systemd

    if not systemd.is_here():
        raise PromptyoselfError(
            "no_systemd",
            "This machine isn't run by systemd, so no service was installed.",
            "`promptyoself service install --cron` adds a line to your crontab instead. Or have "
            "another supervisor run `promptyoself execute --loop`.",
        )


def _manager(*, system: bool) -> Manager:
    from promptyoself.service.setup import systemd

    require_systemd()
    if system and os.geteuid() != 0:
        raise PromptyoselfError(
            "needs_root",
            "Only root can install a service of the system.",
            "Put sudo before the command; or leave out --system, for a service of your own.",
        )
    return systemd.Manager(system=system)


def _require_user(name: str) -> None:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        raise PromptyoselfError(
            "unknown_user",
            f"There is no user {name[:80]!r} on this machine, as whom the loop could run.",
            f"Make one: `useradd --system --home-dir /var/lib/promptyoself --shell "
            f"/usr/sbin/nologin {name[:80]}`. Or name another with --run-as.",
        ) from None


def _require_reachable(program: list[str], user: str) -> None:
    """Refuse a program in a folder that the user may not enter, such as another's home."""
    path = Path(program[0]).resolve()
    closed = next((folder for folder in path.parents if not folder.stat().st_mode & 0o001), None)
    if closed is not None and user != closed.owner():
        raise PromptyoselfError(
            "program_not_reachable",
            f"The user {user} can't run {str(path)!r}: nobody else may enter {str(closed)!r}.",
            "Install promptyoself into /opt/promptyoself, and call that one.",
        )


def _require_started(session: Session, manager: Manager) -> None:
    """Wait until the loop shows that it lives, or the service shows that it doesn't.

    Raises:
        PromptyoselfError: ``service_failed``.
    """
    end = time.monotonic() + _LOOP_PATIENCE
    while True:
        status = manager.status()
        if manager.system:
            if status.state == "active":
                return
        elif session.store().workers.anyone():
            return
        if status.state == "failed" or status.restarts or time.monotonic() > end:
            break
        time.sleep(0.1)
    journal = "journalctl" if manager.system else "journalctl --user"
    raise PromptyoselfError(
        "service_failed",
        f"The service is installed, but its loop doesn't run: it is {status.state}.",
        f"`{journal} -u promptyoself -n 20` says why.",
    )


def _warn_of_lost_settings(session: Session) -> None:
    """Warn of settings that only this shell has: a service doesn't get them."""
    names = [
        source.setting.name
        for source in read_sources(var=session.var)
        if source.origin == "environment" and source.setting.name != "PROMPTYOSELF_VAR"
    ]
    if names:
        session.add_warning(
            f"The service doesn't get what is set in this shell's environment: {', '.join(names)}. "
            "`promptyoself config set NAME VALUE` writes it into the file, which the service reads."
        )


_LAUNCHD = (
    "promptyoself: Write this to ~/Library/LaunchAgents/promptyoself.plist, and then run\n"
    "`launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/promptyoself.plist`."
)
