"""Checks of an installation, which change nothing."""

import os
import platform
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself import __version__
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import destination_of
from promptyoself.core.settings import default_zone, describe_unknown, desire_half_life
from promptyoself.core.times import format_duration
from promptyoself.events.kinds import FINISHED
from promptyoself.events.target_names import TargetName
from promptyoself.rules.health import (
    brocas_in_use,
    destinations_in_use,
    failed,
    failing,
    overdue,
    refusing,
    retrying,
    targets_in_use,
)
from promptyoself.rules.slots import is_ahead, schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.notices.services import is_installed, not_installed
from promptyoself.service.proof.verify import verify
from promptyoself.service.schedules.views import problem_of
from promptyoself.service.upkeep.clock_trust import held_loops
from promptyoself.service.upkeep.running_loop import last_pass, no_broca_loop_warning
from promptyoself.state.schedules import State
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains
from promptyoself.targets.api import Target, Targets
from promptyoself.targets.letta import UNFIT_CLIENTS

_START = "Run `promptyoself execute --loop`, or `promptyoself execute` from cron."

_CLOCK_BEHIND = timedelta(minutes=5)
"""A clock that is behind the log's last event by more is wrong."""

_SILENCE = 30.0
"""Seconds that a loop may give no sign of life, plus the time limit of the log's lock. A loop that
works gives one every 10 seconds."""


class Check(NamedTuple):
    """The result of one check. ``hint`` says what to do about it."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(
    store: Store,
    now: datetime,
    targets: Targets | None,
    *,
    require_loop: bool = False,
    allow_no_loop: bool = False,
    allow_failed: bool = False,
    quick: bool = False,
) -> list[Check]:
    """Every check. With ``targets`` of ``None`` no target is asked; else those are that schedules
    go to, or Letta where there is none. If something is to be delivered, a loop must live, unless
    ``allow_no_loop``. With ``require_loop`` one must live in any case. With ``allow_failed`` the
    check passes though schedules have failed. ``quick`` reads no more of the log than any command
    does."""
    checks = [
        _software(),
        _settings(store),
        _files(),
        _guarded("data_directory", lambda: _directory(store)),
        _guarded("timezone", lambda: Check("timezone", True, default_zone(store.settings))),
        _patience(store),
    ]
    log = _guarded("log", lambda: _log(store, quick=quick))
    checks.append(log)
    for chain in chains(store)[1:]:
        checks.append(_guarded(chain.name, partial(_log, chain, quick=quick, name=chain.name)))
    checks.append(_guarded("half_life", lambda: _half_life(store)))
    if log.ok:
        checks += _schedules(store, now, require_loop, allow_no_loop, allow_failed, quick)
    # Only the schedules themselves tell, so a quick look doesn't ask.
    if not quick and log.ok and (agents := brocas_in_use(store.snapshot().state)):
        checks.append(_brocas(store, agents))
    if targets is not None:
        used = log.ok and targets_in_use(store.snapshot().state, thorough=not quick)
        for name in sorted((used or frozenset[TargetName]({"letta"})) - {"broca"}):
            checks.append(_guarded(name, partial(_target, store, targets[name])))
    if os.environ.get("PROMPTYOSELF_DB_PATH"):
        detail = "PROMPTYOSELF_DB_PATH belongs to the SQLite versions and isn't used any more."
        checks.append(Check("old_database", True, detail, "Unset it."))
    return checks


def _software() -> Check:
    names = ("letta-client", "orjson", "click", "filelock")
    try:
        libs = ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        hint = "Install promptyoself again, with pip."
        return Check("software", False, f"{error.name} is not installed", hint)
    if version("letta-client") in UNFIT_CLIENTS:
        detail = f"letta-client {version('letta-client')} puts no prompt into a conversation"
        hint = "Install another one: pip install -U letta-client."
        return Check("software", False, detail, hint)
    return Check(
        "software", True, f"promptyoself {__version__}, Python {platform.python_version()}, {libs}"
    )


def _settings(store: Store) -> Check:
    complaints = [
        describe_unknown(unknown)
        for unknown in store.settings.unknown
        if not (_hides_destinations(store) and destination_of(unknown.name))
    ]
    if not complaints:
        return Check("settings", True, "none is unknown")
    detail = " ".join(message for message, _ in complaints).removesuffix(".")
    return Check("settings", False, detail, " ".join(dict.fromkeys(hint for _, hint in complaints)))


def _files() -> Check:
    folder = Path(__file__).resolve().parents[2] / "data"
    names = ("promptyoself.service", ".env.example", "alerts.yml")
    if missing := [name for name in names if not (folder / name).is_file()]:
        detail = f"{', '.join(missing)} missing in {folder}"
        return Check("files", False, detail, "Install promptyoself again, with pip.")
    return Check("files", True, f"{', '.join(names)} in {folder}")


def _directory(store: Store) -> Check:
    var = store.settings.var
    place = next(folder for folder in (var, *var.parents) if folder.exists())
    if not place.is_dir():
        return Check("data_directory", False, f"{place} is not a folder", "Choose another --var.")
    for folder in (place, var / "schedules", var / "desires"):
        if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            hint = "Check its owner and mode, and how it is mounted."
            return Check("data_directory", False, f"{folder} can't be written", hint)
    detail = str(var) if place == var else f"{var} will be made by the first command that writes"
    return Check("data_directory", True, detail)


def _patience(store: Store) -> Check:
    settings = store.settings
    detail = (
        f"no trace for {settings.reconcile_grace:g} s means not sent; a call takes at most "
        f"{settings.call_timeout:g} s"
    )
    enough = settings.reconcile_grace > settings.call_timeout
    hint = "" if enough else "Raise PROMPTYOSELF_RECONCILE_GRACE, or prompts may be sent twice."
    return Check("patience", enough, detail, hint)


def _half_life(store: Store) -> Check:
    text = format_duration(desire_half_life(store.settings))
    return Check("half_life", True, f"desires fade to half in {text}")


def _log(store: Chain[Any], *, quick: bool, name: str = "log") -> Check:
    if quick:
        store.require_whole()
        return Check(name, True, f"{store.read().position.seq} events, the last one checked")
    answer = verify(store)
    events = answer["events"]
    if "torn_tail" in answer:
        return Check(name, True, f"{events} events, intact; {answer['message']}")
    return Check(name, True, f"{events} events, intact" if events else "empty")


def _schedules(
    store: Store,
    now: datetime,
    require_loop: bool,
    allow_no_loop: bool,
    allow_failed: bool,
    quick: bool,
) -> Iterator[Check]:
    state, position = store.read()
    if state.newer:
        detail = f"{state.newer} was written by a newer version"
        yield Check("version", False, detail, "Upgrade promptyoself.")
    if position.ts and parse_utc(position.ts) > now + _CLOCK_BEHIND:
        detail = f"the last event is of {position.ts}, but it is {format_utc(now)}"
        hint = "Set the clock. Until it has caught up, new events bear the time of that one."
        yield Check("clock", False, detail, hint)
    elif distrust := held_loops(store, store.workers.living()):
        hint = "Set the clock right; or, if it is right, start the loop again."
        yield Check("clock", False, distrust, hint)
    else:
        yield Check("clock", True, format_utc(now))
    # Nothing can be ahead of the clock that isn't behind the log.
    if not quick or (position.ts and parse_utc(position.ts) - now > _CLOCK_BEHIND):
        yield _times(state, now)
    living = store.workers.living()
    if hung := _hung(store, now, living):
        yield Check("loop", False, hung, "Restart it; if it doesn't end by itself, kill it.")
    else:
        yield _loop(store, state, living, require_loop, allow_no_loop)
    late = overdue(state, now)
    hint = ("" if living else _START) or "The loop or the agents are held up: see `history`."
    yield Check("schedules", not late, late or "none overdue", hint if late else "")
    yield _failures(state, allow_failed)
    yield _deliveries(state, now, living)
    if (notices := _notices(store, state, quick)) is not None:
        yield notices


def _loop(store: Store, state: State, living: list[str], require: bool, allow_none: bool) -> Check:
    if living:
        return Check("loop", True, f"running: {', '.join(living)}")
    active, begun = state.statuses.get("active", 0), len(state.open)
    detail = "none is running"
    if active:
        detail += f", and {active} {'schedule is' if active == 1 else 'schedules are'} active"
    elif begun:
        detail += f", and {begun} {'slot waits' if begun == 1 else 'slots wait'}"
    seen = last_pass(store)
    if seen is not None:
        detail += f"; `execute` last made a pass at {format_utc(seen)}"
    ok = not require and (allow_none or not (active or begun))
    hint = f"{_START} With `execute` from cron, check with --allow-no-loop."
    return Check("loop", ok, detail, _START if require else hint)


def _failures(state: State, allow: bool) -> Check:
    """Schedules that have failed, and those whose latest delivery has."""
    ended, ending = failed(state), failing(state)
    if not ended and not ending:
        return Check("failures", True, "none has failed")
    hints = []
    if ended:
        hints.append(
            "`promptyoself resume --id ID` lets a parked schedule run again; "
            "`promptyoself cancel --id ID` puts away one that failed."
        )
    if ending:
        hints.append(
            "`promptyoself show --id ID` has the error, and `promptyoself trigger --id ID` tries "
            "again at once."
        )
    detail = "; ".join(part for part in (ended, ending) if part)
    return Check("failures", allow, detail, " ".join(hints))


def _deliveries(state: State, now: datetime, living: list[str]) -> Check:
    doubt = sum(1 for slot in state.open.values() if slot.worker and slot.worker not in living)
    vain = retrying(state, now)
    details, hint = [f"{doubt} in doubt, of workers that died" if doubt else "none in doubt"], ""
    if unsure := {slot.code for slot in state.open.values() if slot.in_doubt and slot.code}:
        details.append(f"some looked for, after {', '.join(sorted(unsure))}")
    if vain:
        details.append(vain)
        hint = (
            "`promptyoself show --id ID` says why. `promptyoself test` tells whether Letta "
            "answers; for Letta Code, add `--target letta-code`."
        )
    else:
        if codes := {slot.code for slot in state.open.values() if not slot.worker and slot.code}:
            details.append(f"some to be tried again, after {', '.join(sorted(codes))}")
        if doubt:
            hint = "The loop is finding out what became of them." if living else _START
    return Check("deliveries", not vain and (living != [] or not doubt), "; ".join(details), hint)


def _notices(store: Store, state: State, quick: bool) -> Check | None:
    """Whether notices reach their destinations, where there are any."""
    destinations = store.settings.destinations
    used = destinations_in_use(state, thorough=not quick)
    problems, hints = [], []
    if missing := [name for name in used if name not in destinations]:
        names = "no destination has the name" if len(missing) == 1 else "no destinations have names"
        problems.append(f"{names} {', '.join(missing)}, which {used[missing[0]]} has")
        hints.append(f"`promptyoself notify add {missing[0]}` adds it.")
    services = [name for name, to in destinations.items() if to.kind == "apprise"]
    if services and not is_installed():
        problems.append(f"{', '.join(services)} can't be reached without Apprise")
        hints.append(not_installed().hint)
    if refusals := refusing(state):
        problems.append(refusals)
        hints.append("`promptyoself notify test NAME` says what is wrong.")
    if problems and _hides_destinations(store):
        hint = "The operator's `promptyoself doctor` says which, and why."
        return Check("notices", False, "some don't reach their destinations", hint)
    if problems:
        return Check("notices", False, "; ".join(problems), " ".join(hints))
    if not destinations:
        return None
    unsigned = [
        name for name, to in destinations.items() if to.kind == "webhook" and to.secret is None
    ]
    detail = f"{len(state.notices)} to be sent to {len(destinations)} "
    detail += "destination" if len(destinations) == 1 else "destinations"
    if unsigned and not _hides_destinations(store):
        hint = f"`promptyoself notify add {unsigned[0]} --replace` makes a secret for it."
        return Check("notices", True, f"{detail}; {', '.join(unsigned)} without a signature", hint)
    return Check("notices", True, detail)


def _hides_destinations(store: Store) -> bool:
    """Whether the caller is pinned to an agent, and so isn't told the names of destinations."""
    return store.settings.only_agent is not None


def _hung(store: Store, now: datetime, living: list[str]) -> str:
    """The living loops that make no passes any more, with their silence; ``""`` if none does."""
    longest = _SILENCE + store.settings.lock_timeout
    silences = []
    for worker in living:
        silence = store.workers.silence(worker, now.timestamp())
        if silence is not None and silence > longest:
            silences.append(f"{worker} has made no pass for {silence:.0f} s")
    return ", ".join(silences)


def _times(state: State, now: datetime) -> Check:
    """Whether the next times of schedules can be computed here, and aren't ahead of this clock.
    Schedules that are over don't count."""
    broken, ahead = {}, []
    for schedule in state.schedules.values():
        if schedule.status in FINISHED:
            continue
        if (problem := problem_of(schedule)) is not None:
            broken[schedule.id] = problem
        elif schedule.status == "active" and is_ahead(schedule, now) and schedule.next_run:
            following = next_fire_time(schedule_trigger(schedule), now)
            if following is not None and format_utc(following) < schedule.next_run:
                ahead.append(schedule.id)
    if broken:
        first, problem = next(iter(broken.items()))
        detail = f"{_some(list(broken))} can't be computed in full. {first}: {problem}"
        hint = f"`promptyoself modify --id {first} --tz ZONE` (or new times) mends it."
        return Check("times", False, detail, hint)
    if ahead:
        what = "waits" if len(ahead) == 1 else "wait"
        detail = f"{_some(ahead)} {what} for times that a clock which was ahead had come to"
        hint = f"`promptyoself resume --id {ahead[0]}` lets it count from now; so for each."
        return Check("times", False, detail, hint)
    return Check("times", True, "as this clock has them")


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _brocas(store: Store, agents: list[str]) -> Check:
    """Whether a loop lives inside each Broca that prompts go through."""
    warning = no_broca_loop_warning(store, agents)
    if warning is None:
        return Check("broca", True, f"a loop is running inside the Broca of {_some(agents)}")
    hint = "Start Broca. If its log says that promptyoself delivers nothing, do as it says there."
    return Check("broca", False, warning.removesuffix("."), hint)


def _target(store: Store, target: Target) -> Check:
    traits = target.traits
    release = target.health()
    target.agents()  # health needs no password; this does
    where = store.settings.shown_url if traits.name == "letta" else traits.title
    return Check(traits.name, True, f"{where} answers, version {release}")


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except PromptyoselfError as error:
        return Check(name, False, error.message, error.hint)
    except OSError as error:
        return Check(name, False, f"{error.strerror} ({error.filename})", "Check the disk.")
