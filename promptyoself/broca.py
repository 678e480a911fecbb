"""The loop inside a Broca: what the plugin stands on that ``install-plugin --broca`` writes.

It is a loop like any other, in a thread of Broca's process. It alone also serves the target
``broca``, for the agent that this Broca talks to. Whatever is wrong here, Broca goes on: nothing is
raised to it, and what is wrong is one line in its log.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself.core.errors import ChainError, PromptyoselfError, sentence
from promptyoself.core.settings import Settings
from promptyoself.doors.session import Caller, Session
from promptyoself.events.target_names import TargetName, is_route, worker_in_broca
from promptyoself.service.broca.checkout import SETTINGS_FILE, read_settings
from promptyoself.service.delivery.configured_targets import ConfiguredTargets
from promptyoself.service.delivery.dispatcher import new_worker_name
from promptyoself.service.delivery.loop import StopFlag, run_loop
from promptyoself.service.delivery.report import Report
from promptyoself.store.store import Store
from promptyoself.targets.api import DeliveryError, Target
from promptyoself.targets.broca import BrocaQueue, Misfit, misfits

_log = logging.getLogger("promptyoself")

_SEATS = 4
"""Deliveries at once. Broca takes one prompt at a time, and people's messages wait behind those
that are in its queue already."""

_STOP_PATIENCE = 8.0
"""Seconds for the thread to end. A loop gives its deliveries 5."""

_KNOWN = frozenset({"var", "default_route", "interval", "enabled"})


class PluginSettings(NamedTuple):
    """What ``settings.json`` says under ``plugins.promptyoself``."""

    var: str | None = None  # the data directory
    default_route: str | None = None  # PLATFORM:USER of prompts that name no user
    interval: float | None = None  # the longest sleep, in seconds
    enabled: bool = True


def plugin_settings(given: Mapping[str, Any]) -> PluginSettings:
    """The checked settings of the plugin.

    Raises:
        PromptyoselfError: ``invalid_setting``.
    """
    for name in given:
        if name not in _KNOWN:
            raise _wrong(name, "is no setting", f"There are: {', '.join(sorted(_KNOWN))}.")
    var, route = given.get("var"), given.get("default_route")
    interval, enabled = given.get("interval"), given.get("enabled", True)
    if var is not None and (not isinstance(var, str) or not var):
        raise _wrong("var", "is no path", "Give the data directory's path, or leave it out.")
    if route is not None and not (isinstance(route, str) and is_route(route)):
        raise _wrong("default_route", "is no PLATFORM:USER", "Give for instance telegram:123456.")
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if interval is not None and not (is_number and 0.1 <= interval <= 86400):
        raise _wrong("interval", "is no number of seconds from 0.1 to 86400", "Leave it out: 60.")
    return PluginSettings(var, route, interval, enabled is not False)


class LoopInBroca:
    """The loop of one plugin. Its methods never raise."""

    def __init__(self) -> None:
        self._given: Mapping[str, Any] = {}
        self._stop = StopFlag()
        self._thread: threading.Thread | None = None

    def apply_settings(self, given: Mapping[str, Any] | None) -> None:
        """Take in what Broca's ``settings.json`` has for the plugin."""
        self._given = given or {}

    def start(self, database: str) -> None:
        """Begin to deliver, unless something would have Broca echo prompts or repeat them.

        ``database`` is the path of Broca's database. Its environment says which agent it talks to.
        """
        try:
            self._start(database)
        except (PromptyoselfError, OSError) as error:
            self._refuse(error)

    def stop(self) -> None:
        """End within 8 seconds. What then has no outcome is found out by the next loop."""
        self._stop.set("broca_stopped")
        if self._thread is not None:
            self._thread.join(_STOP_PATIENCE)
            if self._thread.is_alive():
                _log.warning("promptyoself's loop didn't end within %g s.", _STOP_PATIENCE)

    def answered(self, message_id: int) -> None:
        """Note an answer that is for nobody: one to a user of the platform ``promptyoself``."""
        _log.info("The agent has answered message %s, which is for no user.", message_id)

    def _start(self, database: str) -> None:
        settings = plugin_settings(self._given)
        if not settings.enabled:
            _log.info("promptyoself's plugin is off: plugins.promptyoself.enabled is false.")
            return
        agent_id = os.environ.get("AGENT_ID", "")
        if not agent_id:
            raise PromptyoselfError("broca_unfit", "AGENT_ID isn't set.", "Set it in Broca's .env.")
        caller = Caller(via="broca", stop=self._stop)
        session = Session(settings.var, caller)
        session.log.tell_time()
        queue = BrocaQueue(
            agent_id,
            database,
            settings.default_route,
            misfits=_misfits_here,
            call_timeout=session.settings.call_timeout,
        )
        try:
            queue.check()
        except DeliveryError as error:
            if error.code != "broca_locked":  # which ends, unlike what else there is
                raise
        self._thread = threading.Thread(
            target=self._run,
            args=(session, queue, agent_id, settings.interval),
            name="promptyoself",
            daemon=True,
        )
        self._thread.start()

    def _run(
        self, session: Session, queue: BrocaQueue, agent_id: str, interval: float | None
    ) -> None:
        store = session.store(as_process=True).unpinned
        targets = _TargetsInBroca(session.settings, queue)
        try:
            queue.remember(_latest_item(store, agent_id))
            run_loop(
                store,
                targets,
                session.now,
                concurrency=_SEATS,
                interval=session.settings.interval if interval is None else interval,
                stop=self._stop,
                emit=_tell,
                worker=worker_in_broca(new_worker_name(), agent_id),
            )
        except (PromptyoselfError, OSError) as error:
            self._refuse(error)
        except Exception:
            _log.exception("promptyoself's loop has ended by a bug. Nothing is delivered.")
        finally:
            targets.close()

    def _refuse(self, error: PromptyoselfError | OSError) -> None:
        hint = getattr(error, "hint", "")
        code = getattr(error, "code", "os_error")
        text = " ".join(f"{sentence(error)} {hint}".split())
        _log.error("promptyoself delivers nothing from inside this Broca (%s): %s", code, text)


class _TargetsInBroca(ConfiguredTargets):
    """The targets of the settings, and the queue of this Broca."""

    def __init__(self, settings: Settings, queue: BrocaQueue) -> None:
        super().__init__(settings)
        self._queue = queue

    def __getitem__(self, name: TargetName, /) -> Target:
        return self._queue if name == "broca" else super().__getitem__(name)


def _misfits_here() -> Sequence[Misfit]:
    """What is in the way of delivering through the Broca that this process is, as it is now."""
    try:
        return misfits(os.environ, read_settings(Path(SETTINGS_FILE)))
    except PromptyoselfError as error:
        return [Misfit(error.message, error.hint)]


def _latest_item(store: Store, agent_id: str) -> int:
    """The greatest number of an item of Broca's queue that the log tells of, where prompts for that
    agent are in doubt; else 0, since then nothing depends on it. Of a log that can't be read it is
    greater than any, so that what isn't in the queue is in doubt for good."""
    latest = 0
    try:
        state = store.snapshot().state
        if not any(
            s.worker and (s.target, s.agent_id) == ("broca", agent_id) for s in state.open.values()
        ):
            return 0
        for batch in store.replay():
            for event in batch.envelopes:
                for data, id_ in ((event.data, event.id), *_in_flight(event.data)):
                    schedule = state.schedules.get(id_ or "")
                    number = str(data.get("run_id") or "").removeprefix("broca-")
                    if schedule and schedule.agent_id == agent_id and number.isdecimal():
                        latest = max(latest, int(number))
    except ChainError:
        return sys.maxsize
    return latest


def _in_flight(data: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    return [(item, item["id"]) for item in data.get("in_flight") or ()]


def _tell(report: Report) -> None:
    for line in report.executed:
        _log.info("promptyoself: %s is %s.", line["id"], line["state"].replace("_", " "))


def _wrong(name: str, what: str, hint: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_setting", f"plugins.promptyoself.{name} in Broca's settings.json {what}.", hint
    )
