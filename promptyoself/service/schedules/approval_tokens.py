"""The files of approvals: a secret key, and a token for each schedule that has an approval.

A token alone allows nothing. It counts where the log has granted it and has uses left of it, and
the token bears the key's mark (an HMAC) over what was granted. So neither a forged file does, nor
one restored from a backup after it was spent, nor a log that was restored without its tokens.

A token is durable, under a name of its own, before the log grants it; so the append is what grants
it, and giving the token its proper name can be left to whoever reads it next.

Reading trusts nothing that lies there, follows no link, and waits for nobody.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from secrets import token_bytes
from typing import Any, Literal, NamedTuple

import orjson

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash
from promptyoself.core.instants import is_instant
from promptyoself.events.kinds import ApprovalProblem
from promptyoself.events.schedule_fields import content_of
from promptyoself.rules.policy import ApprovalVerdict, approval_in_log
from promptyoself.state.schedules import Schedule, State, spec_hash

__all__ = ["MAX_USES", "Token", "Tokens"]

MAX_USES = 1000

_MOST_BYTES = 4096
_KEY_BYTES = 32
_DOMAIN = b"promptyoself-approval-v1\n"
_ID = re.compile(r"sch_[0-9a-f]{8}", re.ASCII).fullmatch


class Token(NamedTuple):
    """What a token says: the approval ``grant`` of the schedule ``id`` with that content allows
    ``uses`` deliveries up to ``expires``."""

    id: str
    grant: str
    content_sha256: str
    expires: str
    uses: int


class Tokens:
    """The folder of approvals in a data directory. Its methods that change files are called with
    the log's lock held."""

    def __init__(self, var: Path, disk: Disk) -> None:
        self._folder = var / "approvals"
        self._pending, self._consumed = self._folder / "pending", self._folder / "consumed"
        self._disk = disk

    def judge(self, schedule: Schedule, now: str) -> ApprovalVerdict:
        """Whether a delivery of this schedule is approved at ``now`` (see
        :func:`~promptyoself.rules.policy.approval_in_log`), and by the token too. Never raises.

        What is wrong otherwise is ``missing``, ``expired``, ``used_up``, ``modified`` or
        ``revoked``; ``unreadable`` (no regular file that is ours alone, or too large); ``forged``;
        ``copied`` from another schedule; ``unrecorded``: the log knows of another approval, or of
        none.
        """
        verdict = approval_in_log(schedule, now)
        if verdict.grant is None and verdict.detail != "missing":
            return verdict
        token = self._of(schedule)
        if isinstance(token, str):
            return ApprovalVerdict(detail=token)
        if token.grant != schedule.approval:
            return ApprovalVerdict(detail="unrecorded")
        # Those of earlier versions are for the content alone.
        if token.content_sha256 not in (spec_hash(schedule), content_hash(content_of(schedule))):
            return ApprovalVerdict(detail="modified")
        if now > token.expires:
            return ApprovalVerdict(detail="expired")
        uses = min(token.uses, verdict.uses)
        return ApprovalVerdict(token.grant, uses) if uses > 0 else ApprovalVerdict(detail="used_up")

    def read(self, id_: str) -> Token | ApprovalProblem:
        """A schedule's token, its mark checked; or what is wrong with it."""
        return self._read(id_, self._path(id_)) if _ID(id_) else "missing"

    def _of(self, schedule: Schedule) -> Token | ApprovalProblem:
        """The token of the approval that the log has; else what lies in its place."""
        token = self.read(schedule.id)
        if _is_of(schedule, token) or not _ID(schedule.id):
            return token
        prepared = self._read(schedule.id, self._disk.beside(self._path(schedule.id)))
        return prepared if _is_of(schedule, prepared) else token

    def _read(self, id_: str, path: Path) -> Token | ApprovalProblem:
        content = _read_private(path)
        if isinstance(content, str):
            return content
        key = _read_private(self._folder / "key")
        if isinstance(key, str) or len(key) != _KEY_BYTES:
            return "forged"  # as far as anyone can tell
        try:
            token, mark = _parsed(content)
        except (TypeError, ValueError, KeyError):
            return "forged"
        from hmac import compare_digest

        if not compare_digest(mark.encode(), _mark(key, token).encode()):
            return "forged"
        return token if token.id == id_ else "copied"

    def ids(self) -> list[str]:
        """Whose names lie in the folder of tokens, sorted."""
        try:
            found = os.listdir(self._pending)
        except OSError:
            return []
        names = (name.removesuffix(".token") for name in found if name.endswith(".token"))
        return sorted(name for name in names if _ID(name))

    def prepare(self, token: Token) -> None:
        """Write a token down for good, to count once the log has granted it; makes the folders and
        the key. What was prepared before must have been :meth:`follow`-ed.

        Raises:
            PromptyoselfError: ``approval_key_unusable``.
            OSError: the disk refused. No token has changed.
        """
        for folder in (self._pending, self._consumed):
            self._disk.make_directory(folder)
        path = self._path(token.id)
        self._disk.write_beside(path, [_spelled(self._key(), token)])
        self._disk.fsync_directory(self._pending)  # where it is read from, if its rename is lost

    def follow(self, state: State, ids: Iterable[str]) -> None:
        """Bring these schedules' tokens in line with the log: in their place, with as many uses as
        it has; away where none is left or where it is revoked. Done again, it changes nothing.

        Raises:
            OSError: the disk refused. The log is what counts, so nothing is lost by that.
        """
        for id_ in ids:
            schedule = state.schedules.get(id_)
            token = "missing" if schedule is None else self._of(schedule)
            if schedule is None or isinstance(token, str) or token.grant != schedule.approval:
                continue
            left = 0 if schedule.approval_void == "revoked" else schedule.approval_uses
            path = self._path(id_)
            if self.read(id_) != token:
                self._disk.put_in_place(path)
            if left < 1:
                self._disk.rename(path, self._consumed / path.name)
                self._disk.fsync_directory(self._consumed)
                self._disk.fsync_directory(self._pending)
            elif left < token.uses:
                self._disk.replace(path, _spelled(self._key(), token._replace(uses=left)))

    def _path(self, id_: str) -> Path:
        return self._pending / f"{id_}.token"

    def _key(self) -> bytes:
        path = self._folder / "key"
        key = _read_private(path)
        if key == "missing":
            key = token_bytes(_KEY_BYTES)
            self._disk.replace(path, key)
        if isinstance(key, str) or len(key) != _KEY_BYTES:
            raise PromptyoselfError(
                "approval_key_unusable",
                f"The key of approvals, {str(path)!r}, is not a file of {_KEY_BYTES} bytes that "
                "is this user's alone (mode 600).",
                "Mend its owner and mode; or remove it, which voids every approval, and approve "
                "anew.",
            )
        return key


def _read_private(path: Path) -> bytes | Literal["missing", "unreadable"]:
    """What is in a file of ours that is nobody else's; or ``missing`` or ``unreadable``."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"
    try:
        found = os.fstat(descriptor)
        private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not (stat.S_ISREG(found.st_mode) and private and found.st_size <= _MOST_BYTES):
            return "unreadable"
        return os.read(descriptor, _MOST_BYTES)
    except OSError:
        return "unreadable"
    finally:
        os.close(descriptor)


def _is_of(schedule: Schedule, token: Token | str) -> bool:
    return isinstance(token, Token) and token.grant == schedule.approval


def _parsed(content: bytes) -> tuple[Token, str]:
    fields: Any = orjson.loads(content)
    mark = fields.pop("hmac")
    token = Token(**fields)
    for value, kind in zip((*token, mark), (str, str, str, str, int, str), strict=True):
        if type(value) is not kind:
            raise TypeError(kind)
    if not is_instant(token.expires):
        raise ValueError(token.expires)
    return token, mark


def _spelled(key: bytes, token: Token) -> bytes:
    return orjson.dumps({**token._asdict(), "hmac": _mark(key, token)}) + b"\n"


def _mark(key: bytes, token: Token) -> str:
    """Of everything that the token says."""
    import hmac

    return hmac.new(key, _DOMAIN + orjson.dumps(list(token)), "sha256").hexdigest()
