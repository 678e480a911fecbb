"""What a file of text holds, whichever editor and system it was written with.

Everything that is read as text from a file or from stdin comes through here: prompts, exports,
notes, keys, settings.
"""

BOM = "\ufeff"
"""The byte order mark, which some editors write before the first character."""

_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),  # before UTF-16, whose mark it begins with
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


class NotUTF8(ValueError):
    """The bytes are no text in UTF-8. As a string: a sentence's end that says what they are."""

    def __init__(self, what: str, hint: str, line: int) -> None:
        super().__init__(what)
        self.hint = hint
        self.line = line
        """The line, from 1, in which the first bad byte is."""


def text_of(content: bytes) -> str:
    """Decode UTF-8. A byte order mark at the beginning is dropped.

    Raises:
        NotUTF8: it is something else.
    """
    encoding = foreign_encoding(content)
    if encoding is not None:
        hint = f"Convert it to UTF-8, for instance with `iconv -f {encoding} -t UTF-8`."
        raise NotUTF8(f"is {encoding}, not UTF-8", hint, 1)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 at byte {error.start}"
        raise NotUTF8(what, "Convert it to UTF-8.", line) from None
    return text.lstrip(BOM)


def message_of(content: bytes) -> str:
    """What the author of a file meant to say with it: the end of its last line doesn't count, and
    where every line ends as on Windows, in ``\\r\\n``, each ends in ``\\n`` instead.

    Raises:
        NotUTF8: it is something else than text in UTF-8.
    """
    text = text_of(content)
    whole = text.removesuffix("\n").removesuffix("\r")
    windows = text.count("\n") == text.count("\r\n")
    return whole.replace("\r\n", "\n") if windows else whole


def json_safe(text: str) -> str:
    """The text of another program without lone surrogates, which would stop the log."""
    return text.encode("utf-8", "backslashreplace").decode()


def foreign_encoding(content: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning tells of, if that isn't UTF-8."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), None)


def trimmed(text: str) -> str:
    """A value without what the file that it came from put around it: white space, line ends, a
    byte order mark."""
    return text.strip().lstrip(BOM).strip()


def first_line(text: str) -> str:
    """The first line of a text that has anything in it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
