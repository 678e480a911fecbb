"""Proof for others: keys, signed heads, audit packs."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.texts import NotUTF8, foreign_encoding, text_of
from promptyoself.doors.command import command
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.service.proof.signed_heads import SignedHead, SigningKey

_MOST_KEY_BYTES = 1 << 16


@command("keygen")
@click.option("--out", metavar="FILE", help="Where to make the private key (else keys/head.key).")
def keygen_command(session: Session, out: str | None) -> Document:
    """Make a key pair to sign heads with.

    It needs the package cryptography. The private key goes into a file of its own (0600), the
    public one beside it. Neither overwrites anything.
    """
    from promptyoself.service.proof.signed_heads import make_key

    return make_key(session.settings, None if out is None else _out(session, out), Disk())


@command("pack")
@click.option("--since", metavar="T", help="From the month of this time on.")
@click.option("--until", metavar="T", help="Up to the month of this time.")
@click.option("--out", metavar="FILE", required=True, help="The new file to make.")
@click.option("--key", metavar="FILE", help="Sign the last head with this private key.")
def pack_command(
    session: Session, since: str | None, until: str | None, out: str, key: str | None
) -> Document:
    """Write months of the log into one file for an auditor.

    Anyone can check it with Python alone. It is a zip with the months as they are, their heads, a
    script and an explanation. The whole log is checked first. Prompts are in it.
    """
    from promptyoself.service.proof.pack import pack

    path = _out(session, out)
    signer = None if key is None else _signer(session, key)
    store = session.store().unpinned
    return pack(store, path, since=since, until=until, key=signer, now=session.now(), disk=Disk())


def print_signed_head(session: Session, key: str | None) -> None:
    """`head --note`: print the log's head, signed, on one line."""
    from promptyoself.service.proof.signed_heads import sign_head

    signer = _signer(session, key)
    note = sign_head(session.store().unpinned, signer, session.now())
    sys.stdout.buffer.write(note.encode() + b"\n")
    sys.stdout.buffer.flush()


def read_signed_heads(file: str, key: str) -> list[SignedHead]:
    """`verify --note FILE --key PUB`: the notes in the file, their signatures checked."""
    from promptyoself.service.proof.signed_heads import (
        MAX_SIGNED_HEADS_BYTES,
        PublicKey,
        parse_signed_heads,
    )

    if not key.startswith("ed25519:"):
        key = _text("--key", key, _MOST_KEY_BYTES)
    public = PublicKey.parse(key)
    notes = _text("--note", file, MAX_SIGNED_HEADS_BYTES + 1).encode()
    return parse_signed_heads(notes, public)


def _signer(session: Session, key: str | None) -> SigningKey:
    from promptyoself.service.proof.signed_heads import default_key, load_key

    path = default_key(session.settings) if key is None else _path("--key", key)
    try:
        content = _text("--key", os.fspath(path), _MOST_KEY_BYTES).encode()
    except PromptyoselfError as error:
        error.hint = "Name the private key's file with --key; `promptyoself keygen` makes one."
        raise
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        session.log.warn(f"Others may read the private key {str(path)!r}: chmod 600 it.")
    return load_key(content)


def _out(session: Session, text: str) -> Path:
    path, var = _path("--out", text), session.settings.var
    # Path.resolve would stumble over links that go round in a circle.
    folder = Path(os.path.realpath(path.parent))
    logs = {Path(os.path.realpath(var / chain)) for chain in ("schedules", "desires")}
    if not logs.isdisjoint((folder / path.name).parents):
        # Under a month's name, it would be taken for one.
        message = f"--out {text[:200]!r} lies in the log's own folder."
        raise WrongUsage("invalid_value", message, "Name a file in another folder.")
    if text == "-":
        raise WrongUsage("invalid_value", "--out can't be stdout.", "Name a file.")
    return path


def _path(option: str, text: str) -> Path:
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        name = b"\0"
    if not name or b"\0" in name:
        raise WrongUsage("invalid_value", f"{option} {text[:200]!r} is no path.", "Name a file.")
    return Path(text)


def _text(option: str, source: str, max_bytes: int) -> str:
    """The text of a file, which some editor or shell may have saved in another encoding."""
    content = _read(option, source, max_bytes)
    try:
        return text_of(content)
    except NotUTF8 as error:
        if foreign_encoding(content) is None:  # nothing of ours: the reader says what it wants
            return content.decode("ascii", "replace")
        raise PromptyoselfError(
            "invalid_note" if option == "--note" else "invalid_key",
            f"{option} {source[:200]!r} {error}.",
            error.hint,
        ) from None


def _read(option: str, source: str, max_bytes: int) -> bytes:
    try:
        if source == "-" and option == "--note":
            return sys.stdin.buffer.read(max_bytes) if sys.stdin is not None else b""
        with open(_path(option, source), "rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise PromptyoselfError(
            "unreadable_file",
            f"{option} {source[:200]!r} can't be read: {error.strerror}.",
            "Check the path and the file's mode; - means stdin.",
        ) from None
