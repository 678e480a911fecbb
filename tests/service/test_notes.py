"""P3: signed heads: keys, notes, and what `verify --note` makes of them."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from errno import EIO, EPERM
from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, call, log_of, run
from chains import NOW, StepDisk
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from damage import store_in
from gaps import drop
from packs import REGISTER, note_of, register
from tally import chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.core.settings import load_settings
from promptyoself.service.proof.signed_heads import durable_head, load_key, make_key, sign_position
from promptyoself.store.store import Store

FORMAT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "format.md"
FIELDS = ("form", "chain", "head", "ts", "key_id", "signature")


class Signed:
    """A log of three events, a key pair, and a file with its note."""

    def __init__(self, folder: Path, var: Path) -> None:
        self.var = var
        register("1h", "2h")
        made = call("keygen").success()
        self.key, self.public, self.text = made["key"], made["public_key_file"], made["public_key"]
        self.note = note_of()
        self.file = folder / "note"
        self.file.write_bytes(self.note)

    def store(self, disk: Disk | None = None) -> Store:
        """The log's store."""
        return store_in(self.var / "schedules", disk)

    def verify(self, content: bytes | None = None, key: str | None = None) -> Any:
        if content is not None:
            self.file.write_bytes(content)
        return call("verify", "--note", str(self.file), "--key", key or self.text)


@pytest.fixture
def signed(tmp_path: Path, var: Path, clock: object) -> Signed:
    return Signed(tmp_path, var)


# --- keys -----------------------------------------------------------------------------------------


def test_keygen_makes_a_private_pair(var: Path, tmp_path: Path) -> None:
    """`keygen` makes a key only its owner can read and the public one beside it; the private key
    shows neither on stdout nor on stderr."""
    answer = call("keygen")
    made = answer.success()
    key, public = Path(made["key"]), Path(made["public_key_file"])
    assert (key, public) == (var / "keys" / "head.key", var / "keys" / "head.pub")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert public.read_text() == made["public_key"] + "\n"
    secret = key.read_text()
    assert secret.startswith("-----BEGIN PRIVATE KEY-----\n")
    shown = answer.out.decode() + answer.err
    assert secret.splitlines()[1] not in shown
    assert sorted(os.listdir(key.parent)) == [key.name, public.name]
    assert str(load_key(key.read_bytes()).public) == made["public_key"]
    other = call("keygen", "--out", str(tmp_path / "mine")).success()
    assert other["public_key_file"] == str(tmp_path / "mine.pub")
    assert other["public_key"] != made["public_key"]


@pytest.mark.parametrize("kind", ["file", "symlink", "dangling", "folder"])
@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        ("keygen", "out", "key_exists"),
        ("keygen", "out.pub", "key_exists"),
        ("pack", "out", "file_exists"),
    ],
)
def test_nothing_is_overwritten(
    signed: Signed, tmp_path: Path, command: str, name: str, code: str, kind: str
) -> None:
    """P7: whatever lies where either key or a pack should go stays as it is."""
    place, target = tmp_path / "folder" / name, tmp_path / "target"
    place.parent.mkdir()
    if kind == "folder":
        place.mkdir()
    elif kind != "file":
        place.symlink_to(target)
    if kind in ("file", "symlink"):
        place.write_text("precious")
    error = call(command, "--out", str(place.with_name("out"))).error(code)
    assert str(place) in error["message"]
    assert os.listdir(place.parent) == [name]
    assert target.exists() == (kind == "symlink")
    if kind in ("file", "symlink"):
        assert place.read_text() == "precious"


def test_of_many_keygens_one_wins(var: Path, environ: dict[str, str]) -> None:
    """P5: of several at once one makes the pair, the others say `key_exists`, and the public key
    is that of the private one."""
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: run("keygen", environ=environ), range(6)))
    won = [answer for answer in answers if answer.code == 0]
    assert len(won) == 1
    for answer in answers:
        if answer.code:
            answer.error("key_exists")
    made = won[0].success()
    assert str(load_key(Path(made["key"]).read_bytes()).public) == made["public_key"]
    assert sorted(os.listdir(var / "keys")) == ["head.key", "head.pub"]


def test_a_keygen_that_fails_leaves_no_half_key(tmp_path: Path) -> None:
    """P7: at whichever syscall the disk fails, a key's file is whole or isn't there."""
    for at in range(1, 40):
        var = tmp_path / str(at)
        var.mkdir()
        settings = load_settings({"PROMPTYOSELF_VAR": str(var)})

        def fail() -> None:
            raise OSError(EIO, "failing")

        disk = StepDisk(at, act=fail)
        try:
            make_key(settings, None, disk)
        except OSError:
            pass
        else:
            assert disk.count < at
            return
        left = list((var / "keys").iterdir()) if (var / "keys").exists() else []
        assert not [path for path in left if path.name.endswith(".tmp")]
        for path in left:
            if path.name == "head.key":
                load_key(path.read_bytes())
            else:
                assert re.fullmatch(rb"ed25519:\S+\n", path.read_bytes())
    pytest.fail("it never came through")


def test_a_place_without_hard_links_will_do(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has no hard links a key is made all the same, and none overwritten."""

    def refuse(*_: object) -> None:
        raise OSError(EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    made = call("keygen").success()
    assert load_key(Path(made["key"]).read_bytes())
    call("keygen").error("key_exists")


@pytest.mark.parametrize("command", ["keygen", "pack"])
def test_a_wrong_place_is_refused(var: Path, tmp_path: Path, command: str, clock: object) -> None:
    """P7: a folder that isn't there, a file for a folder, no path, the log's own folder: each is
    said, and nothing is made."""
    register("1h")
    (tmp_path / "file").write_text("precious")
    before = log_of(var)
    for place in ("none/x", "file/x", "x" * 250):
        error = call(command, "--out", str(tmp_path / place)).error("unwritable_file")
        assert place in error["message"]
    logs = [str(var / chain / "2026-12.ndjson.gz") for chain in ("schedules", "desires")]
    for place in ("", "-", "a\0b", "\ud800", *logs):
        call(command, "--out", place).error("invalid_value", 2)
    assert log_of(var) == before
    assert sorted(os.listdir(tmp_path)) == ["file", "var"]
    assert not (var / "schedules" / "2026-12.ndjson.gz").exists()


def test_without_the_extra_it_is_said(
    var: Path, signed: Signed, environ: dict[str, str], tmp_path: Path
) -> None:
    """P7: where cryptography isn't installed, what needs it says what to install, and all
    else works."""
    package = tmp_path / "without" / "cryptography"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError")
    without = {**environ, "PYTHONPATH": str(package.parent)}
    for arguments in (
        ("keygen", "--out", str(tmp_path / "other")),
        ("head", "--note"),
        ("pack", "--out", str(tmp_path / "pack.zip"), "--key", signed.key),
        ("verify", "--note", str(signed.file), "--key", signed.text),
    ):
        hint = run(*arguments, environ=without).error("missing_package")["hint"]
        assert "cryptography>=42" in hint
    for arguments in (("head",), ("verify",), ("pack", "--out", str(tmp_path / "pack.zip"))):
        run(*arguments, environ=without).success()


def test_a_pinned_caller_may_not_sign(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: who is pinned to an agent can't sign for the log, nor pack every agent's prompts; to see
    the head and to check notes is no more than to see the head."""
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    for arguments in (("keygen",), ("head", "--note"), ("pack", "--out", str(tmp_path / "pack"))):
        call(*arguments).error("forbidden_agent")
    assert not (tmp_path / "pack").exists()
    call("head").success()
    signed.verify().success()


# --- notes ----------------------------------------------------------------------------------------


def test_a_note_is_one_line_that_others_can_check(signed: Signed) -> None:
    """P3: a note's signature is one of RFC 8032 over the bytes before the last space, and its key
    id the start of the public key's SHA-256."""
    line = signed.note.removesuffix(b"\n")
    message, _, signature = line.rpartition(b" ")
    public = b64decode(signed.text.removeprefix("ed25519:"))
    ed25519.Ed25519PublicKey.from_public_bytes(public).verify(b64decode(signature), message)
    form, chain, head, ts, key_id = message.decode().split(" ")
    answer = call("head").success()
    assert (form, chain) == ("promptyoself-head-v1", "schedules")
    assert (head, ts) == (answer["head"], answer["ts"])
    assert key_id == hashlib.sha256(public).hexdigest()[:16]
    assert note_of() == signed.note
    assert note_of("--key", signed.key, "--format", "table") == signed.note


def test_openssl_finds_so_too(signed: Signed, tmp_path: Path) -> None:
    """P3: the commands that docs/reference/format.md gives for OpenSSL accept a note, and no
    altered one."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    script = next(
        block
        for block in re.findall(r"```text\n(.*?)```", FORMAT.read_text(), re.DOTALL)
        if "openssl" in block
    )

    def accepted(note: bytes) -> bool:
        signed.file.write_bytes(note)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PUBLIC": signed.text},
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    assert accepted(signed.note)
    assert not accepted(signed.note.replace(b" 3:", b" 4:"))


def test_a_note_is_proved(signed: Signed) -> None:
    """P3: `verify --note` says what `verify` says, which head it proved and who signed it; the key
    may be given as a file or as text, the note on stdin, its lines ended in either way."""
    plain = call("verify").success()
    answer = signed.verify().success()
    head, ts, key_id = signed.note.decode().split(" ")[2:5]
    extra = {"contains": head, "note": {"head": head, "ts": ts, "key_id": key_id}, "notes": 1}
    assert answer == {**plain, **extra}
    assert signed.verify(key=signed.public).success() == answer
    assert signed.verify(signed.note.replace(b"\n", b"\r\n\r\n")).success() == answer
    piped = call("verify", "--note", "-", "--key", signed.text, stdin=signed.note)
    assert piped.success() == answer
    call("verify", "--note", "-", "--key", signed.text, stdin=None).error("invalid_note")
    register("3h")
    assert signed.verify(signed.note).success()["contains"] == head


def test_a_file_of_notes_is_proved_line_by_line(signed: Signed) -> None:
    """P3: every note in a file that was kept over time is checked; the answer counts them and
    shows the newest, in whatever order they are."""
    notes = [signed.note]
    for hours in range(3, 9):
        register(f"{hours}h")
        notes.append(note_of())
    answer = signed.verify(b"".join([*notes[1:], notes[0], b"\n", notes[0]])).success()
    assert answer["notes"] == len(notes) + 1
    assert answer["note"]["head"] == answer["head"]
    text = b"".join(notes)
    forged = text.replace(notes[2].split(b" ")[2], notes[3].split(b" ")[2], 1)
    error = signed.verify(forged).error("bad_signature")
    assert (error["line"], "line 3" in error["message"]) == (3, True)
    assert "Line 2" in signed.verify(notes[0] + b"x\n").error("invalid_note")["message"]


def test_head_without_a_note_is_as_ever(signed: Signed) -> None:
    """`head` prints its JSON; `--key` is refused without `--note`."""
    assert set(call("head").success()) == {"status", "head", "seq", "hash", "ts"}
    call("head", "--key", signed.key).error("missing_option", 2)


def test_wrong_usage_of_notes(signed: Signed) -> None:
    """P7: --note and --key of `verify` go together, and not with --head."""
    file, head = str(signed.file), "0:" + "0" * 64
    call("verify", "--note", file).error("missing_option", 2)
    call("verify", "--key", signed.text).error("missing_option", 2)
    both = ("verify", "--note", file, "--head", head)
    call(*both).error("conflicting_options", 2)
    call(*both, "--key", signed.text).error("conflicting_options", 2)


def test_there_is_nothing_to_sign_before_the_first_event(var: Path, tmp_path: Path) -> None:
    """P7: an empty log has no head to sign and nothing to pack. It isn't made, nor is a pack."""
    key = call("keygen", "--out", str(tmp_path / "key")).success()["key"]
    call("head", "--note", "--key", key).error("nothing_to_sign")
    call("pack", "--out", str(tmp_path / "pack.zip")).error("nothing_to_pack")
    assert sorted(os.listdir(tmp_path)) == ["key", "key.pub"]


def test_a_key_that_others_can_read_draws_a_warning(signed: Signed) -> None:
    """A lax mode is said on stderr; the note is the same."""
    os.chmod(signed.key, 0o640)
    answer = call("head", "--note")
    assert answer.out == signed.note
    assert "chmod 600" in answer.err
    os.chmod(signed.key, 0o600)
    assert call("head", "--note").err == ""


def other_keys() -> dict[str, bytes]:
    """Files that hold no private Ed25519 key of ours."""
    mine, curve = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    pkcs8, secret = PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    public = mine.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "empty": b"",
        "noise": chance("keys").randbytes(5000),
        "large": b"x" * 5_000_000,
        "half": mine.private_bytes(Encoding.PEM, pkcs8, NoEncryption())[:60],
        "encrypted": mine.private_bytes(Encoding.PEM, pkcs8, secret),
        "another curve": curve.private_bytes(Encoding.PEM, pkcs8, NoEncryption()),
        "DER": mine.private_bytes(Encoding.DER, pkcs8, NoEncryption()),
        "public": public,
    }


def test_what_is_no_key_signs_nothing(signed: Signed, tmp_path: Path) -> None:
    """P7: other keys, and what is no key at all, are refused without a word of what is in them."""
    for name, content in other_keys().items():
        file = tmp_path / "other"
        file.write_bytes(content)
        for arguments in (
            ("head", "--note", "--key", str(file)),
            ("pack", "--out", str(tmp_path / "p"), "--key", str(file)),
            ("verify", "--note", str(signed.file), "--key", str(file)),
        ):
            error = call(*arguments).error("invalid_key")
            assert "xxx" not in str(error), name
    error = signed.verify(key=signed.key).error("invalid_key")
    assert "private" in error["message"]
    assert Path(signed.key).read_text().splitlines()[1] not in str(error)
    for place in (tmp_path, tmp_path / "none"):
        call("head", "--note", "--key", str(place)).error("unreadable_file")
        signed.verify(key=str(place)).error("unreadable_file")
    call("head", "--note", "--key", "").error("invalid_value", 2)
    Path(signed.key).unlink()
    assert "keygen" in call("head", "--note").error("unreadable_file")["hint"]


def test_a_public_key_has_one_spelling(signed: Signed) -> None:
    """P7: a public key that is cut, longer, or spelled with spare bits is none."""
    body = signed.text.removeprefix("ed25519:")
    spare = body[:-2] + chr(ord(body[-2]) + 1) + "="
    broken = ["", body[:-1], body + "=", body[4:], spare, f"{body}\n{body}"]
    for text in (*broken, "A" * 44, "é" * 44):
        signed.verify(key=f"ed25519:{text}").error("invalid_key")
    assert signed.verify(key=f"ed25519:{body}\n").success()


def test_a_forged_field_is_a_bad_signature(signed: Signed, tmp_path: Path) -> None:
    """P3: each field that is put in another's place is found: the signature covers all of them."""
    register("3h")
    later = note_of().decode().split(" ")
    other = call("keygen", "--out", str(tmp_path / "other")).success()
    foreign = note_of("--key", other["key"]).decode().split(" ")
    fields = signed.note.decode().split(" ")
    changes = {
        "chain": ["desires"],
        "head": [later[2], fields[2].replace("3:", "2:"), "3:" + "0" * 64],
        "ts": ["2026-11-20T12:00:00.000001Z", "2025-11-20T12:00:00.000000Z"],
        "key_id": [foreign[4], "0" * 16],
        "signature": [later[5], foreign[5], "A" * 86 + "==\n"],
    }
    for name, values in changes.items():
        for value in values:
            forged = list(fields)
            forged[FIELDS.index(name)] = value
            assert forged != fields
            signed.verify(" ".join(forged).encode()).error("bad_signature")
            count("notes forged")
    signed.verify(signed.note.replace(b"-v1", b"-v2")).error("invalid_note")
    signed.verify(signed.note, key=other["public_key"]).error("bad_signature")
    signed.verify(" ".join([*foreign[:4], fields[4], foreign[5]]).encode()).error("bad_signature")
    count("notes forged", 3)


def test_no_byte_of_a_note_may_be_another(signed: Signed) -> None:
    """P3: whichever byte of a note is changed, it isn't accepted."""
    line, random = signed.note.removesuffix(b"\n"), chance("notes")
    for at in range(len(line)):
        for _ in range(rounds(1)):
            other = random.choice([byte for byte in range(256) if byte != line[at]])
            forged = line[:at] + bytes([other]) + line[at + 1 :]
            code = signed.verify(forged + b"\n").document["code"]
            assert code in ("bad_signature", "invalid_note")
            count("notes forged")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n \n", b"\0" * 100, b"\xff\xfe", b"promptyoself-head-v1", b"{}\n",
        "promptyoself-head-v1 schedules ３:".encode(), b"x" * (1 << 20), b"\n" * ((1 << 20) + 1),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_note_is_said_to_be_none(signed: Signed, content: bytes) -> None:
    """P7: empty, binary, large or other files are no notes, and nothing of them is repeated."""
    assert "xxx" not in str(signed.verify(content).error("invalid_note"))


def test_notes_of_any_size_are_bounded(signed: Signed) -> None:
    """P7: a file without an end is given up after a MiB; one that can't be read is said."""
    for place, code in (("/dev/zero", "invalid_note"), ("/nowhere", "unreadable_file"),
                        ("/", "unreadable_file"), ("a\0b", "invalid_value")):  # fmt: skip
        answer = call("verify", "--note", place, "--key", signed.text)
        answer.error(code, 2 if code == "invalid_value" else 1)
    once = signed.note + b"\n" * 2
    signed.verify(once + b"\n" * ((1 << 20) - len(once))).success()
    joined = signed.note.removesuffix(b"\n")
    spaced = (joined + b" ", b" " + joined, joined.replace(b" ", b"  "))
    for forged in (joined + b" " + joined, *spaced):
        signed.verify(forged).error("invalid_note")


# --- notes and chains -----------------------------------------------------------------------------


def test_a_note_of_another_chain(signed: Signed, tmp_path: Path) -> None:
    """P3: a good note of another log isn't on this chain, whether that is longer or as long."""
    other = ("--var", str(tmp_path / "other"))
    for hours in (5, 6, 7):
        call(*REGISTER, f"{hours}h", *other).success()
    note = note_of("--key", signed.key, *other)
    assert signed.verify(note).error("head_not_on_chain")["seq"] == 4
    register("3h")
    signed.verify(note).error("head_not_on_chain")
    document = signed.verify(note_of() + signed.note + note).document
    assert document["code"] == "head_not_on_chain"
    register("4h")
    error = signed.verify(note_of() + note).error("head_not_on_chain")
    assert "line 2" in error["message"]


def test_a_note_finds_a_cut(signed: Signed) -> None:
    """P3: after the last event was cut off, and the index with it, the note tells."""
    drop(signed.var / "schedules", 3)
    assert signed.verify().error("head_not_on_chain")
    (signed.var / "schedules" / "index.json").unlink()
    assert call("verify").success()["events"] == 2
    error = signed.verify().error("head_not_on_chain")
    assert error["seq"] == 3


def test_a_signed_time_must_be_that_of_the_event(signed: Signed) -> None:
    """P3: a signer who puts another time to a head is found out, too."""
    key = load_key(Path(signed.key).read_bytes())
    position = signed.store().read().position
    lie = sign_position(position._replace(ts="2020-01-01T00:00:00.000000Z"), key)
    error = signed.verify(lie.encode()).error("head_not_on_chain")
    assert "2020" in error["expected"]


def test_a_note_of_another_kind_of_log(signed: Signed) -> None:
    """P7: a good signature about another log of ours proves nothing here."""
    key = load_key(Path(signed.key).read_bytes())
    message = signed.note.rpartition(b" ")[0].replace(b" schedules ", b" desires ")
    note = message + b" " + b64encode(key.sign(message))
    assert "desires" in signed.verify(note).error("invalid_note")["message"]


def test_a_damaged_log_is_not_signed(signed: Signed) -> None:
    """P3: of a log that is damaged, or that its index has seen longer, no head is signed."""
    (segment,) = (signed.var / "schedules").glob("*.ndjson.gz")
    content = segment.read_bytes()
    drop(segment.parent, 3)
    for _ in range(2):
        call("head", "--note").error("events_missing")
    segment.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    (signed.var / "schedules" / "index.json").unlink()  # else older events aren't read again
    call("head", "--note").error("corrupt_chain")
    segment.write_bytes(content)
    call("rebuild").success()
    segment.unlink()
    call("head", "--note").error("chain_missing")


def test_what_is_signed_is_durable(signed: Signed) -> None:
    """P1: before a head is signed, the log is synced: its writer may have died before."""
    disk = StepDisk()
    assert durable_head(signed.store(disk), NOW).seq == 3
    assert "fsync" in disk.log


# --- notes and losses -----------------------------------------------------------------------------


@pytest.fixture
def notes(var: Path, clock: Any) -> list[bytes]:
    """The note of each event of a log from its second on, of nine in three months."""
    call("keygen").success()
    found = []
    for month in (9, 10, 11):
        for day in (3, 4, 5) if month > 9 else (3, 4):
            clock.set(f"2026-{month:02}-{day:02}T12:00:00")
            register(f"{month * 10 + day}h")
            found.append(note_of())
    return found


def verify_notes(var: Path, *lines: bytes) -> Any:
    key = str(var / "keys" / "head.pub")
    return call("verify", "--note", "-", "--key", key, stdin=b"".join(lines))


def test_notes_over_a_gap(var: Path, notes: list[bytes]) -> None:
    """P3: a note of what is left is proved, before a gap and after it; one of a lost event is told
    to be lost, with the number of the event that says so, whatever stands beside it."""
    drop(var / "schedules", 5, 6)
    call("recover", "--yes").success()
    kept = [line for line in notes if line.split()[2].split(b":")[0] not in (b"5", b"6")]
    assert len(kept) == len(notes) - 2
    assert verify_notes(var, *kept).success()["notes"] == len(kept)
    for line in kept:
        verify_notes(var, line).success()
    for line in (line for line in notes if line not in kept):
        head = line.split()[2].decode()
        seq, told_as_lost = head.partition(":")[0], "was lost, as event 10 says"
        alone = verify_notes(var, line).error("head_not_on_chain")
        assert told_as_lost in alone["message"]
        assert alone["seq"] == int(seq)
        both = verify_notes(var, *kept, line).error("head_not_on_chain")
        about = f"line {len(kept) + 1} is about event {seq}, which"
        assert f"{about} {told_as_lost}" in both["message"]
        by_head = call("verify", "--head", head).error("head_not_on_chain")
        assert f"it {told_as_lost}" in by_head["message"]


def test_notes_of_a_lost_end(var: Path, notes: list[bytes], clock: Any) -> None:
    """P3: where the end was lost, its numbers are taken by other events. A note of the lost ones is
    told to be lost; one that was signed since is proved."""
    drop(var / "schedules", 8, 9)
    call("recover", "--yes").success()
    clock.set("2026-11-20T12:00:00")
    register("900h", "901h")
    since = note_of()
    *kept, one, other = notes
    assert verify_notes(var, *kept, since).success()["notes"] == len(kept) + 1
    for line in (one, other):
        both = verify_notes(var, *kept, since, line).error("head_not_on_chain")
        assert "which was lost, as event 8 says" in both["message"]
        assert "it was lost, as event 8 says" in verify_notes(var, line).document["message"]
