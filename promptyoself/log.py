"""What people should know while it runs: warnings on stderr, or JSON lines in a rotated file.

It is no part of the history: the ledger has that. A prompt appears here only where the settings
allow it, and a secret never.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from promptyoself.instants import format_utc

if TYPE_CHECKING:
    import logging

__all__ = ["Log"]

_ROTATE_BYTES = 5 * 1024 * 1024
_ROTATED_FILES = 5


class Log:
    """Where a process tells what it does. Files are opened on first use, with mode 0600."""

    def __init__(self, path: Path | None) -> None:
        """``path`` of ``None`` means stderr, which gets warnings only."""
        self._path = path
        self._logger: logging.Logger | None = None

    def warn(self, message: str) -> None:
        """Something is not as it should be."""
        if self._path is None:
            print(f"promptyoself: {message}", file=sys.stderr)
        else:
            self._write("warning", message, {})

    def note(self, message: str, **fields: Any) -> None:
        """Something was done; only for the file."""
        if self._path is not None:
            self._write("info", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        record = {"level": level, "message": message, "pid": os.getpid(), **fields}
        try:
            self._open().info(message, extra={"fields": record})
        except OSError as error:
            print(f"promptyoself: {message} (no log file: {error})", file=sys.stderr)

    def _open(self) -> logging.Logger:
        if self._logger is not None:
            return self._logger
        import logging
        from logging.handlers import RotatingFileHandler

        class Handler(RotatingFileHandler):
            def _open(self) -> Any:
                return open(self.baseFilename, "a", encoding="utf-8", opener=_private)

        class Lines(logging.Formatter):
            def format(self, record: logging.LogRecord) -> str:
                at = format_utc(datetime.fromtimestamp(record.created, UTC))
                return orjson.dumps({"ts": at, **record.fields}).decode()  # type: ignore[attr-defined]

        assert self._path is not None
        handler = Handler(self._path, maxBytes=_ROTATE_BYTES, backupCount=_ROTATED_FILES)
        handler.setFormatter(Lines())
        logger = logging.Logger("promptyoself", logging.INFO)
        logger.addHandler(handler)
        self._logger = logger
        return logger


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
