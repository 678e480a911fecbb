"""Signed heads: one line that says how far the log had come, and that a key's owner says so.

A head proves that nothing was cut off or rewritten since, if it was kept where whoever may write
the log can't write. A signed one may be kept anywhere. ``docs/reference/format.md`` states its
form.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.core.new_file import FileTaken, new_file
from promptyoself.core.settings import Settings
from promptyoself.ledger import START, Position
from promptyoself.service.proof.verify import verify
from promptyoself.state.fold import Loss
from promptyoself.store.access import forbidden
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "CHAIN",
    "MAX_NOTES_BYTES",
    "Note",
    "PublicKey",
    "SigningKey",
    "default_key",
    "load_key",
    "make_key",
    "parse_notes",
    "settled_head",
    "sign_head",
    "sign_position",
    "verify_notes",
]

MAX_NOTES_BYTES = 1 << 20
"""The most that a file of notes may have: some 4400 of them."""

CHAIN = "schedules"
"""The log that notes are about."""

_NOTE = re.compile(
    r"(?P<signed>promptyoself-head-v1 (?P<chain>[a-z]{1,40}) (?P<seq>[1-9][0-9]{0,17}):"
    r"(?P<hash>[0-9a-f]{64}) (?P<ts>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<key>[0-9a-f]{16}))"
    r" (?P<signature>[A-Za-z0-9+/]{86}==)",
    re.ASCII,
)
_PUBLIC = re.compile(r"ed25519:([A-Za-z0-9+/]{43}=)", re.ASCII)


class PublicKey(NamedTuple):
    """What checks signatures: the 32 bytes of an Ed25519 public key (RFC 8032)."""

    raw: bytes

    @property
    def id(self) -> str:
        """What a note calls it: the first 16 hex digits of its SHA-256."""
        return sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        return f"ed25519:{b64encode(self.raw).decode()}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read ``ed25519:<base64>``, as :meth:`__str__` writes it.

        Raises:
            PromptyoselfError: ``invalid_key``.
        """
        match = _PUBLIC.fullmatch(text.strip())
        key = cls(b64decode(match[1])) if match else None
        if key is None or str(key) != text.strip():
            private = "PRIVATE KEY" in text
            raise PromptyoselfError(
                "invalid_key",
                "That is a private key." if private else "That is no public key.",
                "Give what `promptyoself keygen` printed as public_key, or the file it is in.",
            )
        return key

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key has signed that. Raises ``missing_package``."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise _missing_package() from None
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Note(NamedTuple):
    """A signed head: ``ts`` is its event's time, ``line`` where it stands in its file, from 1."""

    chain: str
    seq: int
    hash: str
    ts: str
    key_id: str
    line: int

    @property
    def head(self) -> str:
        """``SEQ:HASH``, as `verify --head` takes it."""
        return f"{self.seq}:{self.hash}"


class SigningKey:
    """What signs: a private Ed25519 key, which never shows itself."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature: always the same for the same message."""
        return self._private.sign(message)


def default_key(settings: Settings) -> Path:
    """Where the private key lies unless another place is named."""
    return settings.var / "keys" / "head.key"


def make_key(settings: Settings, path: Path | None, disk: Disk) -> dict[str, Any]:
    """Make a key pair: the private key at ``path`` or the default place, the public one beside it.

    The private key is PEM (PKCS #8, not encrypted), 0600. Of two that make the same, one wins.

    Raises:
        PromptyoselfError: ``key_exists``, ``unwritable_file``, ``missing_package``;
            ``forbidden_agent`` to a caller who is pinned to an agent.
        OSError: the disk refused.
    """
    _refuse_pinned(settings)
    try:
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise _missing_package() from None
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = PublicKey(key.public_key().public_bytes_raw())
    if path is None:
        path = default_key(settings)
        disk.make_directory(path.parent)
    beside = path.with_suffix(".pub") if path.suffix == ".key" else Path(f"{path}.pub")
    try:
        # The one who makes the private key has won; nobody gets as far as a public key to which
        # there is another private one.
        with new_file(disk, beside) as (public_file, _), new_file(disk, path) as (private_file, _):
            private_file.write(private)
            public_file.write(f"{public}\n".encode())
    except FileTaken as error:
        raise PromptyoselfError(
            "key_exists",
            f"There is something at {str(error.path)!r} already.",
            "A key is never overwritten. Name another place with --out, or move that file away.",
        ) from None
    return {
        "key": str(path),
        "public_key": str(public),
        "public_key_file": str(beside),
        "message": "Give the public key to whoever is to check your notes; keep the other secret.",
    }


def load_key(content: bytes) -> SigningKey:
    """Read a private key as :func:`make_key` writes it.

    Raises:
        PromptyoselfError: ``invalid_key``, ``missing_package``.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise _missing_package() from None
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PromptyoselfError(
            "invalid_key",
            "That is no private Ed25519 key in PEM, or it is encrypted.",
            "`promptyoself keygen` makes one.",
        )
    return SigningKey(key)


def settled_head(store: Store, now: datetime) -> Position:
    """The log's end, after it has been made sure that no loss of power can undo it.

    A head that is only read may be that of an append that its writer never acknowledged, and that
    a crash then takes back: whoever had kept it would call the log cut off.

    Raises:
        PromptyoselfError: ``lock_timeout``.
        ChainError: the log is damaged; ``events_missing`` where the index has seen more of it.
        OSError: the data directory can't be written to.
    """
    position = store.index.load().position
    if position == START:
        return position  # and no folder is made where there was none
    with store.ledger.exclusive():
        position = store.index.load().position
        if store.index.missing is not None:
            raise store.index.missing
        store.ledger.append([], now, position)
    return position


def sign_head(store: Store, key: SigningKey, now: datetime) -> str:
    """The note of the log as it is: one line, without its newline.

    Raises:
        PromptyoselfError: ``nothing_to_sign``; ``forbidden_agent`` to a caller who is pinned to
            an agent; and as :func:`settled_head`.
    """
    _refuse_pinned(store.settings)
    position = settled_head(store, now)
    if position == START:
        raise PromptyoselfError(
            "nothing_to_sign",
            "The log has no event yet, so it has no head.",
            "`promptyoself register` writes the first ones.",
        )
    return sign_position(position, key)


def sign_position(position: Position, key: SigningKey) -> str:
    """The note that the log has had this head."""
    head = f"{position.seq}:{position.hash}"
    signed = f"promptyoself-head-v1 {CHAIN} {head} {position.ts} {key.public.id}"
    return f"{signed} {b64encode(key.sign(signed.encode())).decode()}"


def parse_notes(content: bytes, key: PublicKey) -> list[Note]:
    """Read notes, a line each, and check their signatures. Blank lines don't count.

    What is in the file is never repeated in an error: it may be the wrong file.

    Raises:
        PromptyoselfError: ``invalid_note``, ``bad_signature``, ``missing_package``.
    """
    if len(content) > MAX_NOTES_BYTES:
        raise _invalid_note(f"The notes have more than {MAX_NOTES_BYTES} bytes.")
    notes = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            notes.append(_parse_note(line.rstrip(b"\r"), number, key))
    if not notes:
        raise _invalid_note("There is no note in it: it is empty.")
    return notes


def _parse_note(line: bytes, number: int, key: PublicKey) -> Note:
    match = _NOTE.fullmatch(line.decode("ascii", "replace"))
    if match is None:
        raise _invalid_note(f"Line {number} is no note.")
    if match["key"] != key.id:
        raise _bad_signature(number, f"names the key {match['key']}, and that given is {key.id}")
    try:
        signature = b64decode(match["signature"], validate=True)
    except NotBase64:
        signature = b""
    spelled = b64encode(signature).decode() == match["signature"]
    if not spelled or not key.verify(signature, match["signed"].encode()):
        raise _bad_signature(number, "was not signed with that key, or was changed since")
    if match["chain"] != CHAIN:
        raise _invalid_note(f"Line {number} is about another log, {match['chain']!r}.")
    return Note(match["chain"], int(match["seq"]), match["hash"], match["ts"], key.id, number)


def verify_notes(
    store: Store, notes: Sequence[Note], progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """:func:`~promptyoself.service.proof.verify.verify`, and that each note's head is on the chain.

    Raises:
        ChainError: ``head_not_on_chain``, naming the note's line, and the event that states it
            where what the note is about is lost; and as ``verify``.
    """
    newest = max(notes, key=lambda note: note.seq)
    answer = verify(store, newest.head, progress)
    losses = [Loss(**loss) for loss in answer.get("recovered", ())]
    wanted: dict[int, list[Note]] = {}
    for note in notes:
        wanted.setdefault(note.seq, []).append(note)
    for batch in store.ledger.replay():
        if batch.gap is not None:
            for note in notes:
                if batch.gap.after < note.seq < batch.gap.first:
                    raise _not_on_chain(note, None, losses)
        after = [*(event.prev for event in batch.envelopes[1:]), batch.position.hash]
        for event, hash_ in zip(batch.envelopes, after, strict=True):
            for note in wanted.get(event.seq, []):
                if (note.hash, note.ts) != (hash_, event.ts):
                    raise _not_on_chain(note, f"{hash_} {event.ts}", losses)
        if batch.position.seq >= newest.seq:
            break
    shown = {"head": newest.head, "ts": newest.ts, "key_id": newest.key_id}
    return {**answer, "note": shown, "notes": len(notes)}


def _not_on_chain(note: Note, found: str | None, losses: Sequence[Loss]) -> ChainError:
    """Why a note isn't proved: what is ``found`` at its event's number is another event."""
    loss = next((loss for loss in losses if loss.covers(note.seq)), None)
    if loss is not None:
        message = (
            f"The note in line {note.line} is about event {note.seq}, which was lost, as event "
            f"{loss.event} says."
        )
    else:
        message = (
            f"The note in line {note.line} is about another event {note.seq} than the log has."
        )
    return ChainError(
        "head_not_on_chain",
        message,
        "The log was cut off or rewritten after that note was signed; compare with a backup, which "
        "`promptyoself verify --var BACKUP` proves.",
        seq=note.seq,
        expected=f"{note.hash} {note.ts}",
        found=found,
    )


def _refuse_pinned(settings: Settings) -> None:
    # Also to sign is more than an agent's business: with a data directory of its own making, it
    # could have any head signed.
    if settings.only_agent is not None:
        raise forbidden("A key speaks for the whole log, and so for more than", settings.only_agent)


def _invalid_note(message: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_note", message, "Give the lines that `promptyoself head --note` printed."
    )


def _bad_signature(number: int, what: str) -> PromptyoselfError:
    return PromptyoselfError(
        "bad_signature",
        f"The note in line {number} {what}.",
        "Don't trust it. Is it the public key of whoever signed it?",
        line=number,
    )


def _missing_package() -> PromptyoselfError:
    from promptyoself.core.extras import missing_package

    return missing_package("Signing, and checking signatures, needs", "notes")
