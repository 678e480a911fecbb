"""Signed heads: one line that says how far the log had come, and that a key's owner says so.

A head proves that nothing was cut off or rewritten since, if it was kept where nobody can change it
who can change the log. A signed head may be kept anywhere. Users know a signed head as a *note*:
options, messages and ``docs/reference/format.md``, which states its form, call it that.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError, PromptyoselfError, missing_package
from promptyoself.core.new_file import FileTaken, new_file
from promptyoself.core.settings import Settings
from promptyoself.ledger import START, Position
from promptyoself.service.proof.verify import head_of, verify
from promptyoself.state.fold import Loss
from promptyoself.store.access import forbidden
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from promptyoself.service.proof.answers import KeyPair, LogVerified

MAX_SIGNED_HEADS_BYTES = 1 << 20
"""The most bytes that a file of signed heads may have: some 4400 heads."""

CHAIN = "schedules"
"""The log whose heads are signed."""

_LINE = re.compile(
    r"(?P<signed>promptyoself-head-v1 (?P<chain>[a-z]{1,40}) (?P<seq>[1-9][0-9]{0,17}):"
    r"(?P<hash>[0-9a-f]{64}) (?P<ts>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<key>[0-9a-f]{16}))"
    r" (?P<signature>[A-Za-z0-9+/]{86}==)",
    re.ASCII,
)
_PUBLIC = re.compile(r"ed25519:([A-Za-z0-9+/]{43}=)", re.ASCII)


class PublicKey(NamedTuple):
    """A key that checks signatures: an Ed25519 public key (RFC 8032)."""

    raw: bytes  # its 32 bytes

    @property
    def id(self) -> str:
        """Its name in a signed head: the first 16 hex digits of its SHA-256."""
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


class SignedHead(NamedTuple):
    """A head whose signature was checked."""

    seq: int  # the number of its event
    hash: str  # of that event's line
    ts: str  # the time of that event
    key_id: str  # the id of the key that signed it
    line: int  # the number of its line in its file, from 1

    @property
    def head(self) -> str:
        """``SEQ:HASH``, as `verify --head` takes it."""
        return f"{self.seq}:{self.hash}"


class SigningKey:
    """A private Ed25519 key, which signs and never shows itself."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes. It is always the same for the same message."""
        return self._private.sign(message)


def default_key(settings: Settings) -> Path:
    """Where the private key lies unless another place is named."""
    return settings.var / "keys" / "head.key"


def make_key(settings: Settings, path: Path | None, disk: Disk) -> KeyPair:
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
        # Of two that make a key at once, the one that makes the private file wins. So no public
        # file can belong to another private one.
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
        "message": "Give the public key to the people who are to check your notes; keep the other "
        "secret.",
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


def durable_head(store: Store, now: datetime) -> Position:
    """The log's end, once no loss of power can undo it.

    A head that is only read may be that of an append that its writer never acknowledged. A crash
    can take that append back, and then a kept head would say that the log was cut off.

    Raises:
        PromptyoselfError: ``lock_timeout``.
        ChainError: the log is damaged; ``events_missing`` where the index has seen more of it.
        OSError: the data directory can't be written to.
    """
    position = store.snapshot().position
    if position == START:
        return position  # and no folder is made where there was none
    return store.durable_end(now)


def sign_head(store: Store, key: SigningKey, now: datetime) -> str:
    """The signed head of the log as it is: one line, without its newline.

    Raises:
        PromptyoselfError: ``nothing_to_sign``; ``forbidden_agent`` to a caller who is pinned to
            an agent; and as :func:`durable_head`.
    """
    _refuse_pinned(store.settings)
    position = durable_head(store, now)
    if position == START:
        raise PromptyoselfError(
            "nothing_to_sign",
            "The log has no event yet, so it has no head.",
            "`promptyoself register` writes the first ones.",
        )
    return sign_position(position, key)


def sign_position(position: Position, key: SigningKey) -> str:
    """A signed head of the log at a position: one line, without its newline."""
    signed = f"promptyoself-head-v1 {CHAIN} {head_of(position)} {position.ts} {key.public.id}"
    return f"{signed} {b64encode(key.sign(signed.encode())).decode()}"


def parse_signed_heads(content: bytes, key: PublicKey) -> list[SignedHead]:
    """Read signed heads, a line each, and check their signatures. Blank lines don't count.

    No error repeats the content, for it may be that of a wrong file.

    Raises:
        PromptyoselfError: ``invalid_note``, ``bad_signature``, ``missing_package``.
    """
    if len(content) > MAX_SIGNED_HEADS_BYTES:
        raise _invalid_note(f"The notes have more than {MAX_SIGNED_HEADS_BYTES} bytes.")
    heads = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            heads.append(_parse_signed_head(line.rstrip(b"\r"), number, key))
    if not heads:
        raise _invalid_note("There is no note in it: it is empty.")
    return heads


def _parse_signed_head(line: bytes, number: int, key: PublicKey) -> SignedHead:
    match = _LINE.fullmatch(line.decode("ascii", "replace"))
    if match is None:
        raise _invalid_note(f"Line {number} is no note.")
    if match["key"] != key.id:
        raise _bad_signature(number, f"names the key {match['key']}, and that given is {key.id}")
    try:
        signature = b64decode(match["signature"], validate=True)
    except NotBase64:
        signature = b""
    is_canonical = b64encode(signature).decode() == match["signature"]
    if not is_canonical or not key.verify(signature, match["signed"].encode()):
        raise _bad_signature(number, "was not signed with that key, or was changed since")
    if match["chain"] != CHAIN:
        raise _invalid_note(f"Line {number} is about another log, {match['chain']!r}.")
    return SignedHead(int(match["seq"]), match["hash"], match["ts"], key.id, number)


def verify_signed_heads(store: Store, heads: Sequence[SignedHead]) -> LogVerified:
    """Verify the log, and that each signed head is on its chain.

    Raises:
        ChainError: ``head_not_on_chain``, naming the head's line, and the event that states the
            loss where its event is lost; and as
            :func:`~promptyoself.service.proof.verify.verify`.
    """
    newest = max(heads, key=lambda head: head.seq)
    answer = verify(store, newest.head)
    losses = [Loss(**loss) for loss in answer.get("recovered", ())]
    heads_by_seq: dict[int, list[SignedHead]] = {}
    for head in heads:
        heads_by_seq.setdefault(head.seq, []).append(head)
    for batch in store.replay():
        if batch.gap is not None:
            for head in heads:
                if batch.gap.after < head.seq < batch.gap.first:
                    raise _not_on_chain(head, None, losses)
        hashes = [*(event.prev for event in batch.envelopes[1:]), batch.position.hash]
        for event, hash_ in zip(batch.envelopes, hashes, strict=True):
            for head in heads_by_seq.get(event.seq, []):
                if (head.hash, head.ts) != (hash_, event.ts):
                    raise _not_on_chain(head, f"{hash_} {event.ts}", losses)
        if batch.position.seq >= newest.seq:
            break
    answer["note"] = {"head": newest.head, "ts": newest.ts, "key_id": newest.key_id}
    answer["notes"] = len(heads)
    return answer


def _not_on_chain(head: SignedHead, found: str | None, losses: Sequence[Loss]) -> ChainError:
    """The error for a head that isn't proved. ``found`` is what the log has at its number."""
    loss = next((loss for loss in losses if loss.covers(head.seq)), None)
    about = f"another event {head.seq} than the log has"
    if loss is not None:
        about = f"event {head.seq}, which was lost, as event {loss.event} says"
    return ChainError(
        "head_not_on_chain",
        f"The note in line {head.line} is about {about}.",
        "The log was cut off or rewritten after that note was signed; compare with a backup, which "
        "`promptyoself verify --var BACKUP` proves.",
        seq=head.seq,
        expected=f"{head.hash} {head.ts}",
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
        "Don't trust it. Is it the public key of its signer?",
        line=number,
    )


def _missing_package() -> PromptyoselfError:
    return missing_package("Signing, and checking signatures, needs", "notes")
