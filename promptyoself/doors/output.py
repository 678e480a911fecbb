"""The documents that commands print, errors among them."""

import errno
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
import orjson

from promptyoself.core.diagnostics import redact_secrets
from promptyoself.core.errors import PromptyoselfError, WrongUsage, sentence

Document = Mapping[str, Any]
"""What a command answers."""


def in_words_of_door(via: str, context: click.Context, document: Document) -> Document:
    """A document in the words of the callers of a door. The context is that of the command.

    The MCP server puts documents into its clients' words by itself.
    """
    texts = "".join(str(document.get(key, "")) for key in ("message", "hint", "warning"))
    names_something = "error" in document or "--" in texts or "`" in texts
    if via != "sanctum" or not names_something:
        return document
    from promptyoself.doors.sanctum import in_host_terms

    group = context.find_root().command
    assert isinstance(group, click.Group)
    return in_host_terms(group, document, context.info_name)


FORMATS = ("auto", "table", "json")
"""The forms of answers: ``table`` is for people, and ``auto`` is that at a terminal, and JSON
elsewhere."""


def is_for_people(format_: str) -> bool:
    """Whether answers of that format, one of :data:`FORMATS`, are for people here."""
    return format_ == "table" or (format_ == "auto" and sys.stdout.isatty())


def format_of(arguments: Sequence[str]) -> str:
    """The format that the words of a call ask for, or else the settings, where nothing has read
    either of them yet."""
    words = list(arguments)
    for place, word in enumerate(words[: words.index("--") if "--" in words else None]):
        name, _, value = word.partition("=")
        asked = value or "".join(words[place + 1 : place + 2])
        if name == "--format" and asked in FORMATS:
            return asked
    from promptyoself.core.settings import read_sources

    with suppress(PromptyoselfError, OSError):  # the settings may be what is wrong
        for source in read_sources():
            if source.setting.name == "PROMPTYOSELF_FORMAT" and source.value.lower() in FORMATS:
                return source.value.lower()
    return "auto"


def emit(document: Document) -> None:
    """Print one document as JSON."""
    sys.stdout.buffer.write(to_json(document) + b"\n")
    sys.stdout.buffer.flush()


def to_json(document: Document) -> bytes:
    """A document as JSON, on one line."""
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate, out of an argument or a path that isn't UTF-8
        return orjson.dumps(representable(document))


def error_document(error: BaseException) -> tuple[dict[str, Any], int]:
    """The document of an error, and the exit code. The traceback of a bug goes to stderr."""
    if isinstance(error, KeyboardInterrupt):
        error = PromptyoselfError("interrupted", "Interrupted before it was done.", "")
    elif isinstance(error, OSError):
        error = _from_os(error)
    elif not isinstance(error, PromptyoselfError):
        import traceback

        print(redact_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        error = PromptyoselfError(
            "internal_error",
            redact_secrets(f"This is a bug in promptyoself: {type(error).__name__}: {error}"),
            "Please report it, with the traceback on stderr.",
        )
    return error.document(), error.exit_code


def from_click_error(
    error: BaseException, arguments: Sequence[str], commands: Collection[str]
) -> BaseException:
    """An error of Click as one of ours. Any other error is returned as it is.

    ``arguments`` are those of the command line, and ``commands`` the commands that there are.
    """
    if isinstance(error, click.Abort):
        return KeyboardInterrupt()
    if isinstance(error, click.UsageError):
        called = arguments[:1]
        command = " ".join(["promptyoself", *(word for word in called if word in commands)])
        code, hint = _usage_code(error), f"See `{command} --help`."
        if code == "unknown_command" and called:
            from promptyoself.doors.synonyms import meant

            close = " or ".join(meant(called[0], commands))
            hint = f"Did you mean {close}? {hint}" if close else hint
        if isinstance(error, click.NoSuchOption):
            from promptyoself.doors.synonyms import OPTIONS

            if option := OPTIONS.get(error.option_name):
                error = click.NoSuchOption(error.option_name, ctx=error.ctx)
                hint = f"Did you mean {option}? {hint}"
        return WrongUsage(code, _on_one_line(error), hint)
    if isinstance(error, click.ClickException):
        return PromptyoselfError("invalid_value", _on_one_line(error))
    return error


def _usage_code(error: click.UsageError) -> str:
    if error.message.startswith("No such command"):
        return "unknown_command"
    codes: dict[type[Any], str] = {
        click.NoSuchOption: "unknown_option",
        click.MissingParameter: "missing_option",
        click.BadParameter: "invalid_value",
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), "wrong_usage")


def _on_one_line(error: click.ClickException) -> str:
    return sentence(" ".join(error.format_message().split()))


_OS_CODES = {
    errno.ENOSPC: ("disk_full", "Make room; what was acknowledged before is safe."),
    errno.EDQUOT: ("disk_full", "Make room; what was acknowledged before is safe."),
    errno.EFBIG: ("disk_full", "A limit on the size of files stands in the way."),
    errno.EROFS: ("var_not_writable", "Mount it for writing, or choose another --var."),
    errno.EACCES: ("var_not_accessible", "Check the owner and mode of the data directory."),
    errno.EPERM: ("var_not_accessible", "Check the owner and mode of the data directory."),
    errno.ENOTDIR: ("var_unusable", "Choose a folder with --var or PROMPTYOSELF_VAR."),
    errno.EEXIST: ("var_unusable", "A file lies where a folder should be; choose another --var."),
    errno.EISDIR: ("var_unusable", "A folder lies where a file should be; move it away."),
    errno.ENXIO: ("var_unusable", "No regular file lies there, but a pipe, say; move it away."),
    errno.ENAMETOOLONG: ("var_unusable", "Choose a shorter path with --var."),
    errno.ELOOP: (
        "var_unusable",
        "A symbolic link lies in the place of a file, or links go round in a circle. Nothing is "
        "opened through a link, for what it points to may be somebody else's. Remove it.",
    ),
    errno.EMFILE: ("too_many_files", "Raise the limit of open files (ulimit -n)."),
    errno.ENFILE: ("too_many_files", "The system has no more file handles."),
    errno.EIO: ("disk_error", "Check the disk; then run `promptyoself verify`."),
}


def _from_os(error: OSError) -> PromptyoselfError:
    code, hint = _OS_CODES.get(
        error.errno or 0, ("os_error", "`promptyoself doctor` may tell more.")
    )
    what = error.strerror or str(error)
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    return PromptyoselfError(code, f"The operating system refused: {what}{where}.", hint)


def representable(value: Any, encoding: str = "utf-8") -> Any:
    """The same document with each text as that encoding can have it, with escapes for the rest."""
    if isinstance(value, str):
        return value.encode(encoding, "backslashreplace").decode(encoding)
    if isinstance(value, Mapping):
        return {
            representable(key, encoding): representable(item, encoding)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [representable(item, encoding) for item in value]
    return value
