"""A checkout of Broca, as it lies there: its settings, its database, and our plugin in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.service.setup.plugin_file import write_plugin
from promptyoself.targets.api import DeliveryError
from promptyoself.targets.broca import BrocaQueue, Misfit, misfits

_PLUGIN = Path("plugins", "promptyoself", "plugin.py")
_PARTS = ("main.py", "plugins/__init__.py", "runtime/core/plugin.py", "runtime/core/queue.py")
"""What every checkout of Broca has, as far as we need it."""

SETTINGS_FILE = "settings.json"


class Finding(NamedTuple):
    """What was found out about a checkout. ``hint`` says what to do about it."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def install(folder: Path, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Write the plugin into a checkout of Broca; returns where it lies, and whether it was written
    just now.

    ``environ`` is what Broca gets besides its ``.env`` file.

    Raises:
        PromptyoselfError: ``not_broca``; ``broca_unfit``, with all that is in the way as
            ``misfits``; ``broca_unsupported`` or another trouble with its database;
            ``plugin_exists``.
        OSError: the folder can't be written.
    """
    require_checkout(folder)
    environ = environ_of(folder, environ)
    found = misfits(environ, read_settings(folder / SETTINGS_FILE))
    if found:
        message = " ".join(misfit.message for misfit in found)
        hint = " ".join(misfit.hint for misfit in found)
        listed = [misfit._asdict() for misfit in found]
        raise PromptyoselfError("broca_unfit", message, hint, misfits=listed)
    database = database_of(folder, environ)
    if database.exists():
        _queue(environ, database).check()
    path = folder / _PLUGIN
    return path, write_plugin(path, _PLUGIN_TEXT, "install-plugin --broca")


def examine(folder: Path, environ: Mapping[str, str]) -> list[Finding]:
    """What is to be said of a checkout of Broca: its settings, its database, and our plugin.

    Raises:
        PromptyoselfError: ``not_broca``.
    """
    require_checkout(folder)
    environ = environ_of(folder, environ)
    return [
        _settings(folder, environ),
        _database(database_of(folder, environ), environ),
        _plugin(folder),
    ]


def require_checkout(folder: Path) -> None:
    """Refuse a folder that isn't a checkout of Broca.

    Raises:
        PromptyoselfError: ``not_broca``.
    """
    missing = [part for part in _PARTS if not (folder / part).is_file()]
    if missing:
        raise WrongUsage(
            "not_broca",
            f"{str(folder)[:200]!r} isn't a Broca that promptyoself knows: it has no {missing[0]}.",
            "Name the folder that Broca's main.py lies in.",
        )


def read_settings(path: Path) -> dict[str, Any]:
    """What a Broca's ``settings.json`` says; nothing where there is none, since Broca makes one.

    Raises:
        PromptyoselfError: ``broca_unfit``: it can't be read.
    """
    try:
        settings = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(path, f"{error}") from None
    if not isinstance(settings, dict):
        raise _unreadable(path, "it is no object")
    return settings


def environ_of(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that Broca sees: its ``.env`` file, under what is set already."""
    from promptyoself.core.envfile import values_of

    return {**values_of(folder / ".env"), **environ}


def database_of(folder: Path, environ: Mapping[str, str]) -> Path:
    """Where Broca's database is."""
    named = environ.get("TEST_DB_PATH", environ.get("DB_PATH", "sanctum.db"))
    return folder / named


def _settings(folder: Path, environ: Mapping[str, str]) -> Finding:
    name = "broca_settings"
    try:
        found = misfits(environ, read_settings(folder / SETTINGS_FILE))
    except PromptyoselfError as error:
        return Finding(name, False, error.message, error.hint)
    if not environ.get("AGENT_ID"):
        missing = Misfit("Broca's AGENT_ID isn't set.", "Set AGENT_ID=agent-… in its .env.")
        found = [*found, missing]
    if not found:
        return Finding(name, True, "neither echoes prompts nor repeats them")
    detail = " ".join(misfit.message for misfit in found)
    return Finding(name, False, detail, " ".join(misfit.hint for misfit in found))


def _database(path: Path, environ: Mapping[str, str]) -> Finding:
    try:
        _queue(environ, path).health()
    except DeliveryError as error:
        return Finding("broca_database", False, error.message, error.hint)
    return Finding("broca_database", True, f"{path} has the tables that are needed")


def _plugin(folder: Path) -> Finding:
    path = folder / _PLUGIN
    install_it = f"Run `promptyoself install-plugin --broca {folder}`."
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Finding("broca_plugin", False, f"{path} isn't there", install_it)
    if text != _PLUGIN_TEXT:
        return Finding("broca_plugin", False, f"{path} is of another version", install_it)
    return Finding("broca_plugin", True, f"{path}")


def _queue(environ: Mapping[str, str], database: Path) -> BrocaQueue:
    return BrocaQueue(
        environ.get("AGENT_ID", ""), os.fspath(database), None, misfits=list, call_timeout=5
    )


def _unreadable(path: Path, why: str) -> PromptyoselfError:
    return PromptyoselfError(
        "broca_unfit", f"Broca's {path.name} can't be read: {why}.", "Mend it, as JSON."
    )


_PLUGIN_TEXT = '''\
# Written by `promptyoself install-plugin --broca`; it is overwritten when that is run again.
"""Prompts that are due go into this Broca's queue, and what its agent answers goes to the user."""

import asyncio

from plugins import Plugin

from promptyoself.broca import LoopInBroca


class PromptyoselfPlugin(Plugin):
    """Broca takes the class that is defined in this file, and makes it without arguments."""

    def __init__(self):
        self._loop = LoopInBroca()

    def get_name(self):
        return "promptyoself"

    def get_platform(self):
        return "promptyoself"

    def get_message_handler(self):
        return self._handle

    async def _handle(self, response, profile, message_id):
        self._loop.answered(message_id)

    def apply_settings(self, settings):
        self._loop.apply_settings(settings)

    async def start(self):
        from database.operations.shared import get_db_path

        await asyncio.to_thread(self._loop.start, get_db_path())

    async def stop(self):
        await asyncio.to_thread(self._loop.stop)

    def register_event_handler(self, event_type, handler):
        pass  # Broca emits no events

    def emit_event(self, event):
        pass
'''
