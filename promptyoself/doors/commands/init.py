"""The first thing that a person calls: where Letta is, which zone, which agent, and a service."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from shutil import get_terminal_size
from typing import TYPE_CHECKING, NamedTuple

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.settings import (
    Source,
    check_value,
    load_settings,
    read_sources,
    settings_path,
)
from promptyoself.core.visible import visible
from promptyoself.doors.command import command
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.events.target_names import TargetName
    from promptyoself.targets.api import Agent

_URL, _ZONE, _AGENT = "LETTA_BASE_URL", "PROMPTYOSELF_TZ", "PROMPTYOSELF_DEFAULT_AGENT_ID"
_CODE_URL = "PROMPTYOSELF_LETTA_CODE_URL"
_TRIES = 3
_SHOWN = 20


class _Server(NamedTuple):
    """A Letta server, or an App Server of Letta Code, that has answered."""

    title: str  # what it is
    version: str
    agents: list[Agent]


@command("init", mends_settings=True)
@click.option(
    "--url", metavar="URL", help="The address of the Letta server; ws://… is Letta Code's."
)
@click.option("--agent-id", metavar="AGENT", help="The agent where --agent-id isn't given.")
@click.option("--tz", metavar="ZONE", help="The time zone of times that name none.")
@click.option("--service/--no-service", default=None, help="Start the loop with the machine.")
@click.option("--skip-letta", is_flag=True, help="Don't ask the Letta server; just write.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what is given, else the defaults.")
def init_command(
    session: Session,
    url: str | None,
    agent_id: str | None,
    tz: str | None,
    service: bool | None,
    skip_letta: bool,
    yes: bool,
) -> Document:
    """Set up: the server, time zone, agent and service.

    It asks where Letta is, tries that server, and writes the answers into the file of settings. An
    address that begins with ws:// is that of an App Server of Letta Code.
    Each question offers what is set now, so running it again changes only what you answer
    differently. With --yes it asks nothing, for scripts. A password or an API key is asked for when
    Letta wants one; in scripts, set it before, by `promptyoself config set LETTA_API_KEY -`.
    """
    if not yes and not session.at_terminal:
        raise WrongUsage(
            "no_terminal",
            "`init` asks questions, and there is no terminal here to ask them at.",
            "Give the answers instead: "
            "`promptyoself init --yes --url URL --tz ZONE --agent-id AGENT`.",
        )
    if service:
        _require_systemd()
    sources = {source.setting.name: source for source in read_sources(var=session.var)}
    return _Setup(session, sources, asks=not yes, skips_letta=skip_letta).run(
        url, tz, agent_id, service
    )


class _Setup:
    """One run of ``init``: the answers so far, and how to get the others."""

    def __init__(
        self, session: Session, sources: dict[str, Source], *, asks: bool, skips_letta: bool
    ) -> None:
        self.session = session
        self.sources = sources
        self.asks = asks
        self.skips_letta = skips_letta
        self.changes: dict[str, str | None] = {}

    def run(
        self, url: str | None, tz: str | None, agent_id: str | None, service: bool | None
    ) -> Document:
        """Find out everything, write it, and say what was written."""
        from promptyoself.doors.commands.delivery import remember_agents
        from promptyoself.service.setup.settings_file import change_settings

        self._say_what_is_here()
        server = self._find_server(url)
        zone = self._find_zone(tz)
        agent = self._find_agent(agent_id, server)
        path = settings_path()
        changed = change_settings(path, self.changes)
        if server:
            remember_agents(self.session.settings, server.agents)
        for name in changed:
            if name in os.environ and os.environ[name] != self.changes[name]:
                self.session.add_warning(
                    f"{name} is set in the environment too, and the environment comes first."
                )
        installed = self._install_service(service)
        return {
            "file": str(path),
            "changed": changed,
            "url": self._shown_address(),
            "version": server.version if server else None,
            "agents": len(server.agents) if server else None,
            "agent_id": agent,
            "timezone": zone,
            "service": installed,
            "message": self._message(changed, agent, installed),
        }

    def _shown_address(self) -> str:
        name = _CODE_URL if _CODE_URL in self.changes else _URL
        return Source(self.sources[name].setting, self.changes[name] or "", "").shown

    def _say(self, text: str) -> None:
        """Tell the person who is being asked something."""
        if self.asks:
            width = get_terminal_size().columns
            click.echo(click.wrap_text(visible(text, one_line=True), width), err=True)

    def _ask(self, question: str, default: str, check: Callable[[str], str]) -> str:
        """What a person answers, once it is an answer."""
        while True:
            answer: str = click.prompt(question, default=default, err=True, show_default=True)
            try:
                return check(answer.strip())
            except PromptyoselfError as error:
                self._say(f"{error.message} {error.hint}".strip())

    def _now(self, name: str, otherwise: str) -> str:
        """What a setting is now, or something else where it has only its default."""
        source = self.sources[name]
        return otherwise if source.origin == "default" else source.value

    def _say_what_is_here(self) -> None:
        from promptyoself.service.setup.machine import letta_code

        self._say(f"The answers go to {settings_path()}.")
        if (program := letta_code()) is not None:
            self._say(
                f"Letta Code is installed ({program}). For its agents on this machine, start "
                "`promptyoself letta-code up` in another terminal; the address is "
                f"{self.sources[_CODE_URL].setting.default}. If they are in Letta's cloud, the "
                "address is https://api.letta.com."
            )

    # -- the server

    def _find_server(self, url: str | None) -> _Server | None:
        """Ask for the server's address, and try it. ``None`` if it doesn't answer, and the settings
        are to be written all the same."""

        def checked(text: str) -> str:
            check_value(_setting_of(text), text)
            return text

        if url is not None:
            checked(url)
        server = None
        while True:
            is_code = self._now(_URL, "") == "" and self._now(_CODE_URL, "off") != "off"
            address = url or self.sources[_CODE_URL if is_code else _URL].value
            if url is None and self.asks:
                address = self._ask("Address of your Letta server", address, checked)
            for name in (_URL, _CODE_URL):  # of what was answered before
                self.changes.pop(name, None)
            self.changes[_setting_of(address)] = address.strip().rstrip("/")
            if self.skips_letta:
                return None
            try:
                server = self._try_server(address)
            except PromptyoselfError as error:
                if not self.asks:
                    error.hint += (
                        " Nothing was written; with --skip-letta, the settings are written without "
                        "asking the server."
                    )
                    raise
                self._say(f"{error.message} {error.hint}".strip())
                if click.confirm("Write this address all the same?", err=True):
                    return None
                if url is not None:
                    raise PromptyoselfError("not_confirmed", "Nothing was written.", "") from None
                continue
            count = len(server.agents)
            self._say(f"{server.title} {server.version} answers there, with {count} agents.")
            return server

    def _try_server(self, address: str) -> _Server:
        """What the server says, which may want a password first."""
        is_code = _setting_of(address) == _CODE_URL
        settings = self.session.settings
        known = token = settings.letta_code_token if is_code else settings.token
        is_cloud = address.partition("//")[2].partition("/")[0].endswith("letta.com")
        for tries_left in reversed(range(_TRIES)):
            try:
                server = _ask_letta(address, token)
                if token is not None and token != known:
                    name = "LETTA_API_KEY" if is_cloud else "LETTA_SERVER_PASSWORD"
                    self.changes["PROMPTYOSELF_LETTA_CODE_TOKEN" if is_code else name] = token
                return server
            except PromptyoselfError as error:
                is_refused = error.code in ("letta_unauthorized", "letta_code_unauthorized")
                if not is_refused or not self.asks or not tries_left:
                    raise
                self._say(error.message)
            token = click.prompt("Its password or API key (not shown)", hide_input=True, err=True)
        raise AssertionError("the last try raises")

    # -- zone, agent, service

    def _find_zone(self, tz: str | None) -> str:
        from promptyoself.core.times import parse_zone
        from promptyoself.core.zones import machine_zone

        zone = parse_zone(tz) if tz is not None else self._now(_ZONE, machine_zone().name)
        if tz is None and self.asks:
            zone = self._ask("Time zone of times that name none", zone, parse_zone)
        self.changes[_ZONE] = zone
        return zone

    def _find_agent(self, agent_id: str | None, server: _Server | None) -> str | None:
        """The agent for commands that name none; ``None`` if there is to be none."""
        agents = server.agents if server else []
        now = self._now(_AGENT, agents[0].id if len(agents) == 1 else "")
        if agent_id is not None:
            chosen = _chosen(agent_id, agents) if server else agent_id
        elif self.asks and agents:
            chosen = self._ask_for_agent(agents, now)
        else:
            chosen = now
        if chosen:
            self.changes[_AGENT] = chosen
        return chosen or None

    def _ask_for_agent(self, agents: list[Agent], now: str) -> str:
        for number, agent in enumerate(agents[:_SHOWN], 1):
            click.echo(visible(f"  {number}  {agent.name}  {agent.id}", one_line=True), err=True)
        if len(agents) > _SHOWN:
            self._say(f"  and {len(agents) - _SHOWN} more; `promptyoself agents` lists them all.")
        question = "Your agent (its number, name or id"
        named = next((agent.name for agent in agents if agent.id == now), now)
        question += ")" if now else ", or - for none)"
        return self._ask(question, named or "-", lambda text: _chosen(text, agents))

    def _install_service(self, wanted: bool | None) -> Document | None:
        from promptyoself.doors.commands.service import own_service
        from promptyoself.service.setup import crontab, systemd

        cron = False
        if wanted is None and self.asks:
            if systemd.is_here():
                wanted = click.confirm(
                    "Start the loop now, and with the machine?", default=True, err=True
                )
            elif crontab.is_here():
                self._say("This machine isn't run by systemd, but it has cron.")
                wanted = cron = click.confirm(
                    "Deliver once a minute, by a line in your crontab?", default=True, err=True
                )
        if not wanted:
            return None
        fresh = Session(self.session.var, self.session.caller)
        try:
            answer = own_service(fresh, cron=cron)
        except PromptyoselfError as error:
            error.hint = f"{error.hint} The settings were written.".lstrip()
            raise
        self.session.warnings += fresh.warnings
        return answer

    def _message(self, changed: list[str], agent: str | None, installed: Document | None) -> str:
        from promptyoself.service.setup import systemd

        count = f"{len(changed)} {'setting was' if len(changed) == 1 else 'settings were'}"
        written = f"{count} written to {settings_path()}."
        parts = [written if changed else "All is set like that already."]
        named = "" if agent else " --agent-id AGENT"
        parts.append(f"Try `promptyoself register{named} --prompt 'Stretch.' --time 'in 1m'`.")
        if installed is None:
            start = "service install" if systemd.is_here() else "execute --loop"
            parts.append(f"`promptyoself {start}` starts the loop, which delivers.")
        return " ".join(parts)


def _ask_letta(address: str, token: str | None) -> _Server:
    """Raises PromptyoselfError: why it can't be reached, or doesn't let us in."""
    from promptyoself.service.delivery.configured_targets import target_for

    settings = load_settings({_setting_of(address): address}, with_file=False)
    settings = settings._replace(token=token, letta_code_token=token, call_timeout=10.0)
    name: TargetName = "letta-code" if _setting_of(address) == _CODE_URL else "letta"
    with closing(target_for(settings, name)) as target:
        return _Server(target.traits.title, target.health(), target.agents())


def _setting_of(address: str) -> str:
    """The setting that an address is for: App Servers of Letta Code are reached by a WebSocket."""
    return _CODE_URL if address.strip().startswith(("ws://", "wss://")) else _URL


def _chosen(text: str, agents: list[Agent]) -> str:
    """The id of the agent that a number of the list, a name or an id means; empty for none.

    Raises:
        PromptyoselfError: ``agent_not_found``.
    """
    if text in ("", "-"):
        return ""
    if text.isdecimal() and 1 <= int(text) <= min(len(agents), _SHOWN):
        return agents[int(text) - 1].id
    named = [agent.id for agent in agents if text in (agent.id, agent.name)]
    if len(named) == 1:
        return named[0]
    if named:
        message = f"{len(named)} agents have the name {text[:200]!r}: {', '.join(named)}."
        raise PromptyoselfError("agent_not_found", message, "Give the id of one.", named=named)
    raise PromptyoselfError(
        "agent_not_found",
        f"The server has no agent {text[:200]!r}.",
        "`promptyoself agents` lists those it has.",
    )


def _require_systemd() -> None:
    """Refuse ``--service`` where none can be installed, before anything is written."""
    from promptyoself.doors.commands.service import require_systemd

    require_systemd()
