"""The skill with which an agent of Letta Code schedules prompts to itself: its place, its file."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import is_opaque_id
from promptyoself.core.times import shown

NAME = "promptyoself"

_FILE = "SKILL.md"
_TEXT = Path(__file__).resolve().parents[2] / "data" / _FILE
_MARK = "<!-- `promptyoself install-skill` wrote this: {digest} -->\n"
_OF_PROJECT = (Path(".agents", "skills"), Path(".skills"))
"""Where Letta Code looks for a project's skills. The first wins."""


class Place(NamedTuple):
    """Where a skill goes."""

    folder: Path
    """The skill's own folder."""
    kind: str
    """``named``, ``agent``, ``project`` or ``global``."""
    reason: str
    """Why it goes there: the end of a sentence."""


def named_place(folder: Path) -> Place:
    """A folder of skills, or the skill's own folder in it, that somebody has named."""
    own = folder if folder.name == NAME else folder / NAME
    return Place(own.absolute(), "named", "as --dir says")


def agent_place(home: Path, agent_id: str) -> Place:
    """The folder of skills of one agent.

    Raises:
        PromptyoselfError: ``invalid_agent_id``.
    """
    if not is_opaque_id(agent_id) or "/" in agent_id or not agent_id.startswith("agent-"):
        raise PromptyoselfError(
            "invalid_agent_id",
            f"The agent's id {shown(agent_id)} isn't one of Letta Code's.",
            "They look like agent-local-… or agent-….",
        )
    folder = home / ".letta" / "agents" / agent_id / "memory" / "skills" / NAME
    return Place(folder, "agent", "where that agent alone finds it")


def found_place(here: Path, home: Path) -> Place:
    """The project's folder of skills if ``here`` has one, else that of all agents of this user."""
    for part in _OF_PROJECT:
        if (here / part).is_dir():
            return Place(here / part / NAME, "project", f"since this folder has {part}")
    return global_place(home, "since this folder has neither .agents/skills nor .skills")


def global_place(home: Path, reason: str = "as --global says") -> Place:
    """The folder of skills of all agents of a user."""
    return Place(home / ".letta" / "skills" / NAME, "global", reason)


def write_skill(place: Place, *, force: bool) -> tuple[Path, bool]:
    """Write the skill there. Returns its file, and whether that is different now.

    Raises:
        PromptyoselfError: ``skill_exists``: a file is there that this didn't write, or that was
            changed since, and it isn't to be written over by ``force``.
        OSError: the folder can't be written.
    """
    path = place.folder / _FILE
    if path.exists() and not path.is_file():  # a pipe, say, which nobody may ever write to
        raise PromptyoselfError(
            "skill_exists",
            f"{path} is no file.",
            "Remove it, or name another folder with --dir.",
            path=str(path),
        )
    before = path.read_bytes() if path.exists() else None
    text = _TEXT.read_bytes()
    content = text + _MARK.format(digest=_digest(text)).encode()
    if before == content:
        return path, False
    is_ours = before is None or _is_as_written(before)
    if (not is_ours or path.is_symlink()) and not force:
        raise PromptyoselfError(
            "skill_exists",
            f"{path} is there already, and install-skill didn't write it as it is now.",
            "With --force it is written over. Or name another folder with --dir.",
            path=str(path),
        )
    place.folder.mkdir(parents=True, exist_ok=True)
    Disk().replace(path, content)
    path.chmod(0o644)  # there is nothing secret in it, and a project's files are shared
    return path, True


def _is_as_written(content: bytes) -> bool:
    """Whether this, or another version of it, wrote the file, and nobody has changed it since."""
    text, _, rest = content.rpartition(b"<!-- ")
    match = re.search(rb"([0-9a-f]{16}) -->\n$", rest)
    return match is not None and match[1].decode() == _digest(text)


def _digest(text: bytes) -> str:
    return sha256(text).hexdigest()[:16]
