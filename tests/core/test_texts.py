"""Files of text as editors and shells of all kinds save them: byte order marks, line ends,
encodings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, call, lines_of, log_of

from promptyoself.core.text_limits import MAX_PROMPT_BYTES
from promptyoself.core.texts import NotUTF8, message_of, text_of, trimmed

if TYPE_CHECKING:
    from conftest import Clock

BOM = b"\xef\xbb\xbf"
REGISTER = ("register", "--agent-id", AGENT, "--every", "1h")


def placed(folder: Path, source: str, content: bytes) -> str:
    """What ``--prompt-file`` is given for a content, which a file has got there or stdin will."""
    if source == "stdin":
        return "-"
    (folder / "prompt.txt").write_bytes(content)
    return str(folder / "prompt.txt")


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        (b"Hi", "Hi"),
        (b"Hi\n", "Hi"),
        (b"Hi\r\n", "Hi"),
        (b"Hi\r", "Hi"),
        (b"Hi\n\n", "Hi\n"),
        (b"Hi\r\n\r\n", "Hi\n"),
        (b"one\r\ntwo\r\n", "one\ntwo"),
        (b"one\r\ntwo", "one\ntwo"),
        (b"one\ntwo\n", "one\ntwo"),
        (b"one\r\ntwo\nthree\n", "one\r\ntwo\nthree"),  # not Windows': it is meant as it stands
        (b"50 %\r100 %\n", "50 %\r100 %"),
        (BOM + b"Hi\r\n", "Hi"),
        (BOM + "é\n".encode(), "é"),
        ("a\ufeffb\n".encode(), "a\ufeffb"),
    ],
)
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_prompt_is_what_its_author_meant(
    var: Path, tmp_path: Path, content: bytes, meant: str, source: str
) -> None:
    """A byte order mark and the end of the last line are the editor's, and so are the line ends of
    Windows; everything else is the author's."""
    assert message_of(content) == meant
    place = placed(tmp_path, source, content)
    id_ = call(*REGISTER, "--prompt-file", place, stdin=content).success()["id"]
    assert call("show", "--id", id_).success()["schedule"]["prompt"] == meant
    changed = call("modify", "--id", id_, "--prompt-file", place, stdin=content).success()
    assert changed["id"] == id_
    assert call("show", "--id", id_).success()["schedule"]["prompt"] == meant


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_another_encoding_is_named(var: Path, tmp_path: Path, encoding: str, source: str) -> None:
    """P7: what Windows calls Unicode is refused, and the hint says how to convert it."""
    content = "Hi\r\n".encode(encoding)
    if encoding == "utf-16-be":
        content = b"\xfe\xff" + content
    place = placed(tmp_path, source, content)
    answer = call(*REGISTER, "--prompt-file", place, stdin=content).error("invalid_prompt")
    name = encoding[:6].upper()
    assert name in answer["message"]
    assert f"iconv -f {name} -t UTF-8" in answer["hint"]
    assert not log_of(var)


def test_nothing_but_the_mark_is_an_empty_prompt(var: Path) -> None:
    """P7: a file that an editor saved empty says nothing."""
    for content in (BOM, BOM + b"\r\n", b"\r\n"):
        call(*REGISTER, "--prompt-file", "-", stdin=content).error("empty_prompt")


def test_the_longest_prompt_may_come_from_windows(var: Path) -> None:
    """P7: what doesn't count in the prompt doesn't count against its limit either."""
    half = MAX_PROMPT_BYTES // 2
    content = BOM + b"x\r\n" * half + b"\r\n"
    id_ = call(*REGISTER, "--prompt-file", "-", stdin=content).success()["id"]
    assert call("show", "--id", id_).success()["schedule"]["prompt"] == "x\n" * half
    call(*REGISTER, "--prompt-file", "-", stdin=BOM + b"x" + content[3:]).error("prompt_too_long")


def test_an_export_may_have_been_edited_on_windows(var: Path, tmp_path: Path, clock: Clock) -> None:
    """A mark and line ends that an editor added don't keep an export from being taken in; text
    inside of it is not touched."""
    call(*REGISTER, "--prompt", "one\r\ntwo\n").success()
    call(*REGISTER, "--prompt", "three").success()
    lines = call("export").out
    content = BOM + lines.replace(b"\n", b"\r\n")
    there = tmp_path / "there"
    assert call("import", "-", "--var", str(there), stdin=content).success()["count"] == 2
    assert call("export", "--var", str(there)).out == lines
    error = call("import", "-", stdin=lines.decode().encode("utf-16")).error("not_an_export")
    assert "UTF-16" in error["message"]
    assert "iconv" in error["hint"]
    assert lines_of(there)


def test_notes_and_keys_may_have_been_edited_on_windows(
    var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed head, a public key and a private one serve as before; a head and a key given as
    arguments may bear the end of the line that they were read from."""
    call(*REGISTER, "--prompt", "Hello").success()
    made = call("keygen").success()
    private, public = Path(made["key"]), Path(made["public_key_file"])
    note = tmp_path / "note"
    note.write_bytes(BOM + call("head", "--note").out.replace(b"\n", b"\r\n"))
    for path in (private, public):
        path.write_bytes(BOM + path.read_bytes().replace(b"\n", b"\r\n"))
    verify = ("verify", "--note", str(note), "--key")
    assert call(*verify, str(public)).success()["notes"] == 1
    assert call(*verify, made["public_key"] + "\r").success()["notes"] == 1
    stdin = call("head", "--note").out + b"\r\n"
    assert call("verify", "--note", "-", "--key", str(public), stdin=stdin).success()["valid"]
    assert call("verify", "--head", call("head").success()["head"] + "\r\n").success()["valid"]
    note.write_bytes(note.read_bytes().decode("utf-8-sig").encode("utf-16"))
    assert "UTF-16" in call(*verify, str(public)).error("invalid_note")["message"]
    public.write_bytes("x".encode("utf-16"))
    assert "UTF-16" in call(*verify, str(public)).error("invalid_key")["message"]


def test_what_is_not_utf8_tells_its_line() -> None:
    """P7: the first bad byte and its line are named, and an encoding where a mark tells of it."""
    with pytest.raises(NotUTF8, match="byte 5") as caught:
        text_of(b"a\nb\nc\xe9")
    assert caught.value.line == 3
    with pytest.raises(NotUTF8, match="UTF-32"):
        text_of("x".encode("utf-32"))


def test_a_value_is_taken_out_of_its_file() -> None:
    """A token that a script read from a file has neither its line's end nor its mark."""
    assert trimmed("\ufeffsecret\r\n") == trimmed(" secret\r") == trimmed("secret") == "secret"
