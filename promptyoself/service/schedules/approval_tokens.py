"""The files of approvals: a secret key, and a token for each schedule that has an approval.

A token alone allows nothing. It counts if the log has granted it, if the log says that it has uses
left, and if it carries an HMAC by the key over what was granted. So a forged file doesn't count.
Nor does a token that was restored from a backup after it was spent, nor a log that was restored
without its tokens.

A token is durable, under a name of its own, before the log grants it. So it is the append that
grants it, and the next process that reads the token can give it its proper name.

Reading trusts nothing in the folder, follows no link, and waits for nobody.
"""

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

MAX_USES = 1000

_MOST_BYTES = 4096
_KEY_BYTES = 32
_DOMAIN = b"promptyoself-approval-v1\n"
_ID = re.compile(r"sch_[0-9a-f]{8}", re.ASCII).fullmatch


class Token(NamedTuple):
    """What a token says."""

    id: str  # of the schedule
    grant: str  # the approval's name
    content_sha256: str  # of the schedule as it was approved
    expires: str  # an instant
    uses: int  # deliveries that are left


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
        # The tokens of earlier versions are for the content alone.
        if token.content_sha256 not in (spec_hash(schedule), content_hash(content_of(schedule))):
            return ApprovalVerdict(detail="modified")
        if now > token.expires:
            return ApprovalVerdict(detail="expired")
        uses = min(token.uses, verdict.uses)
        return ApprovalVerdict(token.grant, uses) if uses > 0 else ApprovalVerdict(detail="used_up")

    def _of(self, schedule: Schedule) -> Token | ApprovalProblem:
        """The token of the approval that the log has. It may still have the name under which it was
        prepared. If there is none, the token that is there, or what is wrong with it."""
        if not _ID(schedule.id):
            return "missing"
        path = self._path(schedule.id)
        token = self._read(schedule.id, path)
        if _is_of(schedule, token):
            return token
        prepared = self._read(schedule.id, self._disk.beside(path))
        return prepared if _is_of(schedule, prepared) else token

    def _read(self, id_: str, path: Path) -> Token | ApprovalProblem:
        """The token in a file, if its HMAC is right; else what is wrong with it."""
        content = _read_private(path)
        if isinstance(content, str):
            return content
        key = _read_private(self._folder / "key")
        if isinstance(key, str) or len(key) != _KEY_BYTES:
            return "forged"  # as far as anyone can tell
        try:
            token, signature = _decode(content)
        except (TypeError, ValueError, KeyError):
            return "forged"
        from hmac import compare_digest

        if not compare_digest(signature.encode(), _sign(key, token).encode()):
            return "forged"
        return token if token.id == id_ else "copied"

    def ids(self) -> set[str]:
        """The ids of the schedules that have a token."""
        try:
            files = os.listdir(self._pending)
        except OSError:
            return set()
        names = (name.removesuffix(".token") for name in files if name.endswith(".token"))
        return {name for name in names if _ID(name)}

    def prepare(self, token: Token) -> None:
        """Write a token durably. It counts once the log has granted it. The folders and the key are
        created where they are missing. Tokens that were prepared before must have been brought in
        line by :meth:`follow`.

        Raises:
            PromptyoselfError: ``approval_key_unusable``.
            OSError: the disk refused. No token has changed.
        """
        for folder in (self._pending, self._consumed):
            self._disk.make_directory(folder)
        path = self._path(token.id)
        self._disk.write_beside(path, [_encode(self._key(), token)])
        self._disk.fsync_directory(self._pending)  # where it is read from, if its rename is lost

    def follow(self, state: State, ids: Iterable[str]) -> None:
        """Bring these schedules' tokens in line with the log. Doing it twice changes nothing more.

        A token gets its proper name, and as many uses as the log says. It is moved away where no
        use is left, or where the approval is revoked.

        Raises:
            OSError: the disk refused. Nothing is lost by that, since the log is what counts.
        """
        for id_ in ids:
            schedule = state.schedules.get(id_)
            token = "missing" if schedule is None else self._of(schedule)
            if schedule is None or isinstance(token, str) or token.grant != schedule.approval:
                continue
            left = 0 if schedule.approval_void == "revoked" else schedule.approval_uses
            path = self._path(id_)
            if self._read(id_, path) != token:
                self._disk.put_in_place(path)
            if left < 1:
                self._disk.rename(path, self._consumed / path.name)
                self._disk.fsync_directory(self._consumed)
                self._disk.fsync_directory(self._pending)
            elif left < token.uses:
                self._disk.replace(path, _encode(self._key(), token._replace(uses=left)))

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
                "again.",
            )
        return key


def _read_private(path: Path) -> bytes | Literal["missing", "unreadable"]:
    """The content of a file that only this user can read or write; else ``missing`` or
    ``unreadable``."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"
    try:
        status = os.fstat(descriptor)
        private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        if not (stat.S_ISREG(status.st_mode) and private and status.st_size <= _MOST_BYTES):
            return "unreadable"
        return os.read(descriptor, _MOST_BYTES)
    except OSError:
        return "unreadable"
    finally:
        os.close(descriptor)


def _is_of(schedule: Schedule, token: Token | str) -> bool:
    return isinstance(token, Token) and token.grant == schedule.approval


def _decode(content: bytes) -> tuple[Token, str]:
    """The token in a file, and its HMAC. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    fields: Any = orjson.loads(content)
    signature = fields.pop("hmac")
    token = Token(**fields)
    for value, kind in zip((*token, signature), (str, str, str, str, int, str), strict=True):
        if type(value) is not kind:
            raise TypeError(kind)
    if not is_instant(token.expires):
        raise ValueError(token.expires)
    return token, signature


def _encode(key: bytes, token: Token) -> bytes:
    return orjson.dumps({**token._asdict(), "hmac": _sign(key, token)}) + b"\n"


def _sign(key: bytes, token: Token) -> str:
    """The HMAC of everything that the token says."""
    import hmac

    return hmac.new(key, _DOMAIN + orjson.dumps(list(token)), "sha256").hexdigest()
