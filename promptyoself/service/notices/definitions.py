"""The destinations as the operator defines them, while a loop runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.setting_values import Destination
from promptyoself.core.settings import load_settings, settings_path
from promptyoself.store.store import Store


class Definitions:
    """The destinations that the settings define. They are read again when their file has changed,
    so that a loop needn't be started again for a new one."""

    def __init__(self, store: Store) -> None:
        """The definitions are at first those of the store's settings."""
        self._store = store
        self._path = settings_path()
        self._stamp = stamp_of(self._path)
        self._known = store.settings.destinations

    def current(self) -> Mapping[str, Destination]:
        """The definitions by name. It takes one look at the file. Where the file can't be read, or
        says what no file of settings may say, those from before go on."""
        stamp = stamp_of(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._known = load_settings().destinations
            except (PromptyoselfError, OSError) as error:
                self._store.warn(f"The destinations stay as they were: {sentence(error)}")
        return self._known


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """Something that differs when the file of settings has changed, or who may use it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
