"""Which process listens on a port of this machine, as far as Linux tells it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"


def listener_on(port: int) -> str | None:
    """The process that listens there, such as ``process 4711 (python3)``. None: it isn't known."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return None
    for name in os.listdir(_PROC):
        if name.isdigit() and wanted & set(_links(_PROC / name / "fd")):
            command = (_PROC / name / "comm").read_text(errors="replace").strip()
            return f"process {name} ({command})"
    return None


def _inodes(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _links(folder: Path) -> Iterator[str]:
    """Where the links in a folder lead. Those of another user's process can't be read."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(folder / name)
        except OSError:
            continue
