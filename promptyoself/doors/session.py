"""One call of a command: who calls, with which settings, on which store, and at what time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from promptyoself.core.diagnostics import Log
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.long_work import heard_by
from promptyoself.core.settings import (
    Settings,
    Unknown,
    describe_unknown,
    load_settings,
    read_sources,
)
from promptyoself.doors.output import Document, emit, is_for_people

if TYPE_CHECKING:
    from promptyoself.doors.display import ProgressBar
    from promptyoself.service.delivery.loop import StopFlag
    from promptyoself.store.store import Store

_MOMENT = 0.3
"""Seconds of work of which nobody needs to be told."""

_reported: set[Unknown] = set()
"""Unknown settings of which a program, which calls many commands, was warned already."""


class Caller(NamedTuple):
    """Who calls a command, and through which door. Every event that the call writes bears it."""

    via: str = "cli"
    """The door: ``cli``, ``sanctum`` or ``mcp``."""
    stop: StopFlag | None = None
    """Given by a program that calls the command in its own process. The answer is returned to it
    instead of being printed, and a command that takes long ends soon after that flag is set."""
    agent: str | None = None
    """The agent that calls, where the door knows it. The caller is pinned to that agent."""
    client: str | None = None
    """The name that an MCP client gives itself."""
    address: str | None = None
    """The address that a call over the network came from. Nothing is known of that process, nor of
    its login."""


class Session:
    """One call of a command: its settings, its store, its clock, and its warnings."""

    def __init__(
        self,
        var: str | None,
        caller: Caller,
        *,
        format_: str | None = None,
        command: str = "",
        paged: bool = True,
        mends_settings: bool = False,
    ) -> None:
        """``mends_settings``: a wrong setting is kept as ``problem`` instead of being raised, and
        the settings are then the defaults.

        Raises:
            PromptyoselfError: ``invalid_setting``.
        """
        self.var = var
        self.caller = caller
        self.command = command
        self.paged = paged
        self._bar: ProgressBar | None = None
        self._begun: float | None = None
        self.beside: dict[str, Any] = {}
        """What people are shown beside the answer; JSON doesn't have it."""
        self.problem: PromptyoselfError | None = None
        try:
            self.settings = load_settings(var=var)
        except PromptyoselfError as error:
            if not mends_settings:
                raise
            self.problem = error
            self.settings = load_settings({}, var, with_file=False)
        if caller.via != "cli" and not self.settings.timezone:
            self.settings = self.settings._replace(timezone="UTC")  # of agents; people have clocks
        self.for_people = (
            caller.via == "cli"
            and caller.stop is None
            and is_for_people(format_ or self.settings.format)
        )
        """Whether answers are in the form for people. Programs get JSON, always."""
        if caller.agent is not None:
            self.settings = _pinned(self.settings, caller.agent)
        self.log = Log(
            self.settings.log_file,
            form=self.settings.log_format,
            level=self.settings.log_level,
            secrets=self.settings.secrets,
        )
        self.warnings: list[str] = []
        if self.settings.unknown:
            self._warn_of_unknown_settings()

    def _warn_of_unknown_settings(self) -> None:
        """Warn of each name in the environment that looks like a setting and isn't one."""
        from promptyoself.core.visible import visible

        for unknown in self.settings.unknown:
            if self.caller.stop is not None and unknown in _reported:
                continue
            _reported.add(unknown)
            message = " ".join(describe_unknown(unknown))
            self.log.warn(message)
            if self.settings.log_file is not None:  # the person who set it doesn't read that file
                print(f"promptyoself: {visible(message, one_line=True)}", file=sys.stderr)

    def store(self, *, as_process: bool = False) -> Store:
        """The store as the caller may see it. Its events bear the caller.

        ``as_process`` is for a loop, which delivers for all agents. It sees everything, and its
        events bear the login of its process, also where callers are pinned.
        """
        from promptyoself.store.store import Store

        agent = None if as_process else self.settings.only_agent
        actor = _actor(self.caller, agent)
        store = Store(self.settings, actor, warn=self.log.warn, log=self.log)
        return store.as_seen_by(agent)

    def reading(self, *, agent_id: str | None = None, needs_var: bool = True) -> Store:
        """The store, for a command that only reads, perhaps of one agent.

        An empty answer may come of a data directory or an agent whose name was mistyped. The answer
        has a warning where such a directory has no log, or no log knows the agent.

        Raises:
            PromptyoselfError: ``var_missing``: there is no such folder as ``--var`` names, unless
                the command does without (``needs_var``).
            OSError: no folder can have that path.
        """
        store = self.store()
        var = self.settings.var
        if not any(os.path.lexists(var / name) for name in ("schedules", "desires")):
            self._warn_of_missing_log(needs_var)
        if agent_id is not None:
            from promptyoself.service.schedules.views import unknown_agent

            self.add_warning(unknown_agent(store, agent_id), on_stderr=True)
        return store

    def _warn_of_missing_log(self, needs_var: bool) -> None:
        var = self.settings.var
        there = os.path.lexists(var)
        if self.var is not None and needs_var and not there and self.caller.stop is None:
            with suppress(FileNotFoundError):
                os.lstat(var)  # a path that no folder can have isn't missing, but unusable
            raise PromptyoselfError(
                "var_missing",
                f"There is no data directory {str(var)!r}.",
                "Check --var; the first command that writes there makes it.",
            )
        # A name that wasn't typed isn't mistyped.
        if self._origin("PROMPTYOSELF_VAR") == "default":
            return
        what = "no log yet in" if there else "no folder"
        message = f"There is {what} {str(var)!r}, which PROMPTYOSELF_VAR or --var names."
        self.add_warning(message, on_stderr=True)

    def schedule_id(self, word: str, store: Store | None = None) -> str:
        """The id of the schedule that a word names: an id, its beginning, or a name.

        Raises:
            PromptyoselfError: ``unknown_id``, ``ambiguous_schedule``.
        """
        from promptyoself.store.names import id_of, is_id

        return word if is_id(word) else id_of((store or self.store()).read().state, word)

    def add_warning(self, message: str | None, *, on_stderr: bool = False) -> None:
        """Put a sentence into the answer's ``warning``, and ``on_stderr`` too. A program that calls
        gets it in the answer only. The same sentence again adds nothing."""
        if message is None or message in self.warnings:
            return
        self.warnings.append(message)
        if on_stderr and self.caller.stop is None and not self._shows_answer_beside_stderr():
            self.log.warn(message)

    def _shows_answer_beside_stderr(self) -> bool:
        """Whether a person would read on the same terminal what is said on stderr and again in the
        answer."""
        return self.for_people and sys.stdout.isatty() and sys.stderr.isatty()

    def print(self, document: Document, *, paged: bool = True) -> None:
        """Print an answer, or an error, in the form that the caller reads. Where more may follow,
        it isn't to be ``paged``."""
        if not self.for_people:
            emit(document)
            return
        from promptyoself.doors.display import Reader, display

        named = [str(id_) for id_ in _ids_in(document) if str(id_).startswith("sch_")]
        if "names" not in self.beside and named:
            self.add_names(self.store(), named)
        reader = Reader(self._zone(), self.now(), self._agent_names(), self.paged and paged)
        display(self.command, document, reader, self.beside)

    def print_more(self, store: Store, key: str, items: Sequence[Document]) -> None:
        """Print what a command that follows the log has under that key, for a person, below what
        was printed already."""
        from promptyoself.doors.display import Reader, display

        self.add_names(store, (item["id"] for item in items))
        reader = Reader(self._zone(), self.now(), self._agent_names(), paged=False)
        document = {"status": "success", key: items}
        display(f"{self.command} --follow", document, reader, self.beside)

    def add_names(self, store: Store, ids: Iterable[str | None]) -> None:
        """Put the names of schedules beside the answer, by their ids, where a person reads it."""
        if not self.for_people:
            return
        with suppress(PromptyoselfError, OSError):  # then they go by their ids
            schedules = store.read().state.schedules
            named = ((id_, schedules.get(id_)) for id_ in {id_ for id_ in ids if id_})
            self.beside["names"] = {
                id_: schedule.name for id_, schedule in named if schedule and schedule.name
            }

    def add_schedule(self, id_: str) -> None:
        """Put what a schedule says beside the answer, where a person reads it."""
        if not self.for_people:
            return
        with suppress(PromptyoselfError, OSError):  # then the answer names its id alone
            schedule = self.store().read().state.schedules.get(id_)
            if schedule is not None:
                said = {"prompt": schedule.prompt, "template": schedule.template}
                self.beside["schedule"] = said

    def add_destination(self, store: Store, id_: str) -> None:
        """Put where a schedule's prompts go beside the answer, where a person reads it."""
        if not self.for_people:
            return
        from promptyoself.service.schedules.views import shown_destination

        with suppress(PromptyoselfError, OSError):  # then `show` tells it
            schedule = store.read().state.schedules.get(id_)
            if schedule is not None:
                self.beside["destination"] = shown_destination(schedule)

    def add_fires(self, store: Store, id_: str, count: int) -> None:
        """Put a schedule's next fires beside the answer, where a person reads it."""
        if not self.for_people:
            return
        from promptyoself.service.schedules.times.fires import next_fires

        with suppress(PromptyoselfError):  # its times can't be computed, which the answer says
            self.beside["fires"] = next_fires(store, id_, count)

    def add_outcomes(self, store: Store, id_: str, count: int) -> None:
        """Put what became of a schedule's latest slots beside the answer, where a person reads it
        who sees everything."""
        if not self.for_people or self.settings.only_agent is not None:
            return
        from promptyoself.service.schedules.history import latest_outcomes

        with suppress(PromptyoselfError):  # the log is damaged, which other commands tell
            outcomes = latest_outcomes(store, id_, count)
            self.beside["outcomes"] = [event._asdict() for event in outcomes]

    def _origin(self, name: str) -> str:
        """Where the value of a setting came from."""
        return next(
            source.origin for source in read_sources(var=self.var) if source.setting.name == name
        )

    def moment(self, instant: str) -> str:
        """An instant by the reader's clocks, and how far away it is."""
        from promptyoself.doors.terminal.moments import distance, moment

        now = self.now()
        return f"{moment(instant, self._zone(), now)} ({distance(instant, now)})"

    def _zone(self) -> str:
        """The zone in which the reader's clocks run: the one that is set, or else the machine's."""
        from promptyoself.core.settings import default_zone

        try:
            return default_zone(self.settings)
        except PromptyoselfError:  # of which a command that needs it complains
            return "UTC"

    def agent_named(self, text: str | None, *, warns: bool = True) -> str | None:
        """The id of the agent that Letta has told has that name, if one agent has it; else the text
        as it is. With ``warns``, a person is warned of a text that Letta has told nothing of and
        that doesn't look like an id, each time: that a schedule has it doesn't make it an
        agent's."""
        from promptyoself.core.ids import is_agent_id
        from promptyoself.events.target_names import implied_target

        if not text or self.caller.via != "cli" or is_agent_id(text):
            return text
        if implied_target(text) != "letta":  # an id has that form
            return text
        names = self._agent_names()
        ids = [id_ for id_, name in names.items() if name == text]
        if len(ids) == 1 and not text.startswith("agent-"):
            return ids[0]
        if warns and self.for_people and text not in names:
            from promptyoself.core.times import shown

            known = f"{len(ids)} agents have" if len(ids) > 1 else "no agent is known by"
            self.add_warning(
                f"{shown(text)} doesn't look like an agent's id (agent- and a UUID), and {known} "
                "that name. `promptyoself agents` lists the ids."
            )
        return text

    def _agent_names(self) -> dict[str, str]:
        """The names of agents, as Letta last told them. A caller who is pinned gets none."""
        if self.settings.only_agent is not None:
            return {}
        from promptyoself.doors.agent_names import known_names

        return known_names(self.settings.var)

    def scheduled(self, schedule: Callable[[Store], Document]) -> Document:
        """What ``schedule`` answers, with a warning if that has deliveries which no loop would
        make."""
        store = self.store()
        answer = schedule(store)
        if answer.get("next_run") and answer.get("id") and not answer.get("dry_run"):
            self.add_fires(store, answer["id"], 3)
            self.add_destination(store, answer["id"])
        if answer.get("next_run") or answer.get("count") or "slot" in answer:
            self.warn_if_nothing_delivers(store)
        return answer

    def warn_of_zone(self) -> None:
        """Warn where times are read by the machine's clocks, and the machine's zone has no name."""
        if not self.settings.timezone:
            from promptyoself.core.zones import machine_zone

            self.add_warning(machine_zone().problem or None)

    def warn_if_nothing_delivers(self, store: Store) -> None:
        """Warn where no loop runs that would deliver what was just scheduled."""
        with suppress(OSError):  # it is scheduled, which no want of files for a warning may deny
            from promptyoself.service.upkeep.running_loop import no_loop_warning

            self.add_warning(no_loop_warning(store, self.now()))

    def watched(self) -> AbstractContextManager[None]:
        """A context that shows how far the work in it comes: a bar, if a person sees stderr."""
        if not self.interactive:
            return nullcontext()
        return heard_by(self._show_progress)

    def _show_progress(self, what: str, done: int | None) -> None:
        """The first that is told; soon the bar is. Most commands are done before there is one."""
        now = time.monotonic()
        if done is None:
            if self._bar is not None:
                self._bar.close()
            self._bar, self._begun = None, None
            return
        self._begun = self._begun or now
        if now - self._begun < _MOMENT:
            return
        if self._bar is None:
            from promptyoself.doors.display import ProgressBar

            self._bar = ProgressBar(what, self._total() if what == "events" else None)
        self._bar.show(done)

    def _total(self) -> int | None:
        """How many events the index knows, as it lies there: reading the log would mend it, and so
        take away what bears witness where the end was cut off."""
        last_seq, _ = self.store().witness() or (0, "")
        return last_seq or None

    def now(self) -> datetime:
        """The current time in UTC. Below the doors, time is an argument."""
        return datetime.now(UTC)

    @property
    def at_terminal(self) -> bool:
        """Whether a person can be asked something."""
        return self.interactive and sys.stdin is not None and sys.stdin.isatty()

    @property
    def interactive(self) -> bool:
        """Whether a person sees stderr, and so how far a long command has come."""
        return self.caller.stop is None and sys.stderr.isatty()


def _ids_in(document: Document) -> Iterator[object]:
    """The ids of what an answer tells, and of what it lists."""
    yield from (document.get("id"), document.get("cancelled_id"))
    for value in document.values():
        if isinstance(value, list):
            yield from (item.get("id") for item in value if isinstance(item, dict))


def _pinned(settings: Settings, agent: str) -> Settings:
    from promptyoself.store.access import forbidden

    if settings.only_agent not in (None, agent):
        raise forbidden(f"The caller is {agent!r}, which is not", settings.only_agent or "")
    return settings._replace(only_agent=agent)


def _actor(caller: Caller, agent: str | None) -> dict[str, str]:
    """Who calls, as ``docs/reference/format.md`` describes it.

    That is an agent that is pinned, else the client as it calls itself, else the login. What else
    is known of the caller stands beside it.
    """
    login = _login() if caller.address is None else None
    client = None if caller.client is None else _printable(caller.client)
    names = (("agent", agent), ("client", client), ("login", login))
    kind, who = next(((kind, name) for kind, name in names if name), ("client", "unnamed"))
    actor = {"via": caller.via, "who": who, "kind": kind}
    for name, value in (("client", client), ("login", login)):
        if value and name != kind:
            actor[name] = value
    actor["host"] = _printable(os.uname().nodename) if caller.address is None else caller.address
    return actor


def _printable(name: str) -> str:
    """A name that others chose, as the log may have it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:200]).strip()


def _login() -> str:
    import pwd

    try:
        return _printable(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return f"uid {os.getuid()}"
