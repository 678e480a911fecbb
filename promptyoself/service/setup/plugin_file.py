"""The file of a plugin that this program writes for another one."""

from pathlib import Path

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError


def write_plugin(path: Path, text: str, mark: str, *, mode: int = 0o644) -> bool:
    """Write a plugin's file into a folder of its own, which is made; whether it was written just
    now. Nothing is overwritten but an earlier plugin of ours, which has the ``mark`` in it.

    The other program may run as another user; there is nothing secret in a plugin.

    Raises:
        PromptyoselfError: ``plugin_exists``: something else has the folder's name.
        OSError: the folder can't be written.
    """
    folder = path.parent
    if folder.is_symlink() or (folder.exists() and not _has_mark(path, mark)):
        raise PromptyoselfError(
            "plugin_exists",
            f"{folder} is there already, and install-plugin didn't write it.",
            "Move it away first. A link to promptyoself's own folder is a plugin as it is.",
        )
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        return False
    disk = Disk()
    disk.make_directory(folder)
    disk.replace(path, content)
    folder.chmod(0o755)
    path.chmod(mode)
    return True


def _has_mark(path: Path, mark: str) -> bool:
    try:
        return mark in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
