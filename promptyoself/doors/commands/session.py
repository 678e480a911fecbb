"""What all commands share: their common options, the documents they print, errors among them."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import orjson

from promptyoself.core.diagnostics import Log, hide, masked, without
from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.doors.registry import READERS

if TYPE_CHECKING:
    from promptyoself.core.settings import Settings, Unknown
    from promptyoself.service.delivery.loop import StopFlag
    from promptyoself.store.store import Store

__all__ = [
    "Caller",
    "Seconds",
    "Session",
    "Whole",
    "answers",
    "ask",
    "emit",
    "error_document",
    "in_words_of",
    "refuse_repeats",
    "rendered",
    "translated",
]

Document = dict[str, Any]

DOORS = frozenset({"mcp", "sanctum"})
"""Through which programs call, most of them for an agent."""

MOST_SECONDS = 10.0
"""How long one of them may take through one of the doors."""

MOST_ANSWER = 4 * 1024 * 1024
"""The most bytes of its answer."""

_told: set[Unknown] = set()


class Caller(NamedTuple):
    """Through which door a command is called, and by whom: recorded with every event.

    With a ``stop`` it is called from within a program: the answer is returned, not printed, and a
    command that takes long ends soon after it was asked to. With an ``agent`` the door knows who
    calls, and the caller is pinned to that one. ``client`` is the name that an MCP client gives
    itself. ``address`` is where a call over the network came from; the process of that caller,
    and so its login, isn't known here.
    """

    via: str = "cli"
    stop: StopFlag | None = None
    agent: str | None = None
    client: str | None = None
    address: str | None = None


class Session:
    """One call of a command: its settings, its store, its clock."""

    def __init__(self, var: str | None, format_: str, caller: Caller) -> None:
        from promptyoself.core.settings import load_settings

        self.var = var
        self.format = format_
        self.caller = caller
        self.settings: Settings = load_settings(var=var)
        if caller.agent is not None:
            self.settings = _pinned(self.settings, caller.agent)
        self.log = Log(
            self.settings.log_file,
            form=self.settings.log_format,
            level=self.settings.log_level,
            secrets=self.settings.secrets,
        )
        self.warnings: list[str] = []
        if self.settings.unknown:
            self._tell_unknown()

    def _tell_unknown(self) -> None:
        """Say of each name that looks like a setting and is none that it is none; a program that
        calls many commands is told once."""
        from promptyoself.core.settings import told
        from promptyoself.core.visible import visible

        for unknown in self.settings.unknown:
            if self.caller.stop is not None and unknown in _told:
                continue
            _told.add(unknown)
            message = " ".join(told(unknown))
            self.log.warn(message)
            if self.settings.log_file is not None:  # who set it isn't reading that
                print(f"promptyoself: {visible(message, one_line=True)}", file=sys.stderr)

    def store(self, *, as_process: bool = False) -> Store:
        """The store as the caller may see it, whose events bear who calls. ``as_process`` is for a
        loop, which delivers for everybody: it sees everything, and its events bear the login of its
        process, also where callers are pinned."""
        from promptyoself.store.store import Store

        agent = None if as_process else self.settings.only_agent
        actor = _actor(self.caller, agent)
        store = Store(self.settings, actor, warn=self.log.warn, log=self.log)
        return store.as_seen_by(agent)

    def reading(self, *, agent_id: str | None = None, needs_var: bool = True) -> Store:
        """The store, for a command that only looks, perhaps for an agent. Where somebody has named
        a data directory that has no log, or an agent that no log knows, an empty answer isn't all
        there is to say.

        Raises:
            PromptyoselfError: ``var_missing``: there is no such folder as ``--var`` names, unless
                the command does without (``needs_var``).
            OSError: no folder can have that path.
        """
        store = self.store()
        var = self.settings.var
        if not any(os.path.lexists(var / name) for name in ("schedules", "desires")):
            self._tell_missing(needs_var)
        if agent_id is not None:
            from promptyoself.service.schedules.views import unknown_agent

            self.tell(unknown_agent(store, agent_id), aloud=True)
        return store

    def _tell_missing(self, needs_var: bool) -> None:
        from promptyoself.core.settings import read_sources

        var = self.settings.var
        there = os.path.lexists(var)
        if self.var is not None and needs_var and not there and self.caller.stop is None:
            with suppress(FileNotFoundError):
                os.lstat(var)  # a path that no folder can have isn't missing, but unusable
            raise PromptyoselfError(
                "var_missing",
                f"There is no data directory {str(var)!r}.",
                "Check --var; the first command that writes there makes it.",
            )
        origin = next(
            source.origin
            for source in read_sources(var=self.var)
            if source.setting.name == "PROMPTYOSELF_VAR"
        )
        if origin == "default":  # nobody has named it, so nobody has mistyped it
            return
        what = "no log yet in" if there else "no folder"
        message = f"There is {what} {str(var)!r}, which PROMPTYOSELF_VAR or --var names."
        self.tell(message, aloud=True)

    def tell(self, message: str | None, *, aloud: bool = False) -> None:
        """Put a sentence into the answer's ``warning``; ``aloud`` on stderr too, unless a program
        calls, which reads only the answer."""
        if message is None:
            return
        self.warnings.append(message)
        if aloud and self.caller.stop is None:
            self.log.warn(message)

    def tell_absence(self, store: Store) -> None:
        """Say so where nothing delivers what was just asked for."""
        from promptyoself.service.upkeep.attendance import absence

        self.tell(absence(store, self.now()))

    def now(self) -> datetime:
        """The time at the door; below it, time is an argument."""
        return datetime.now(UTC)

    @property
    def at_terminal(self) -> bool:
        """Whether a person sits there who can be asked something."""
        return self.caller.stop is None and sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def watched(self) -> bool:
        """Whether somebody sits there who would like to see how far a command has come."""
        return self.caller.stop is None and sys.stderr.isatty()


class Seconds(click.FloatRange):
    """A number of seconds, or a duration such as ``10s`` or ``1m30s``. ``nan`` is none, though no
    comparison with a bound would tell."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See :meth:`click.ParamType.convert`."""
        if isinstance(value, str):
            from promptyoself.core.times import number_of_seconds

            found = number_of_seconds(value)
            value = value if found is None else found
        seconds: float = super().convert(value, param, ctx)
        if isnan(seconds) or (isinstance(value, str) and not value.isascii()):
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return seconds


class Whole(click.IntRange):
    """A whole number, also as hosts write it that know of no other kind: ``5.0``."""

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See :meth:`click.ParamType.convert`."""
        if isinstance(value, str):
            digits, _, zeros = value.partition(".")
            if zeros and not zeros.strip("0"):
                value = digits
        whole: int = super().convert(value, param, ctx)
        if isinstance(value, str) and not value.isascii():  # int() takes any script's digits
            self.fail(f"{value!r} is not a valid integer range.", param, ctx)
        return whole


def answers(function: Callable[..., Document | None]) -> Callable[..., Document | None]:
    """Make a command of a function: it gets a :class:`Session` and the command's own options, and
    what it returns is printed, or handed on to the program that called. One that prints for itself
    returns ``None``."""

    @click.option("--var", metavar="DIR", help="The data directory (else PROMPTYOSELF_VAR).")
    @click.option(
        "--format",
        "format_",
        type=click.Choice(["json", "table"]),
        default="json",
        show_default=True,
        help="json for programs, table for people.",
    )
    @functools.wraps(function)
    def run(*, var: str | None, format_: str, **options: Any) -> Document | None:
        if var == "":
            raise WrongUsage("invalid_value", "--var is empty.", "Name a folder, or leave it out.")
        context = click.get_current_context()
        caller = context.find_object(Caller) or Caller()
        session = Session(var, format_, caller)
        with _bugs_told(session, options.get("prompt")):
            try:
                with _within_limits(caller, context.info_name or ""):
                    answer = function(session, **options)
            except PromptyoselfError as error:
                if session.warnings:
                    error.details.setdefault("warning", " ".join(session.warnings))
                raise
        if answer is None:
            return None
        document = {"status": "success", **answer}
        if session.warnings:
            said = [document["warning"]] if "warning" in document else []
            document["warning"] = " ".join([*said, *session.warnings])
        if context.info_name in READERS and caller.via in DOORS:
            _require_short(document)
        if caller.stop is not None:
            return document
        emit(in_words_of(caller.via, context, document), format_)
        return None

    return run


def refuse_repeats(command: click.Command, arguments: Sequence[str]) -> None:
    """Refuse an option that is given twice, where it has a meaning once: Click would take the last
    and drop the others without a word. The two names of a flag are the same option.

    Raises:
        WrongUsage: ``repeated_option``.
    """
    known = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    given: dict[click.Option, str] = {}
    again: tuple[str, str] | None = None
    rest = iter(arguments)
    for word in rest:
        if word == "--help":
            return
        if word == "--":
            break
        name, has_value, _ = word.partition("=")
        option = known.get(name)
        if option is None:
            continue
        if not (has_value or option.is_flag or option.count):
            next(rest, None)  # its value, whatever that looks like
        if not option.multiple:
            again = again or ((given[option], name) if option in given else None)
            given[option] = name
    if again is None:
        return
    first, second = again
    what = f"{first} was" if first == second else f"{first} and {second} were both"
    hint = "Give it once" if first == second else "Give one of them"
    if first == "--id":
        hint += f", and call `{command.name}` again for each other id"
    raise WrongUsage(
        "repeated_option",
        f"{what} given{' more than once' if first == second else ''}; nothing was done.",
        f"{hint}.",
    )


@contextmanager
def _within_limits(caller: Caller, command: str) -> Iterator[None]:
    """Of a command that only reads, called by a program, for an agent say."""
    if caller.via not in DOORS or command not in READERS:
        yield
        return
    from promptyoself.core.cancellation import limited

    stop = caller.stop
    with limited(MOST_SECONDS, lambda: stop is not None and stop.why is not None):
        yield


def _require_short(document: Document) -> None:
    size = len(rendered(document))
    if size > MOST_ANSWER:
        raise PromptyoselfError(
            "answer_too_large",
            f"The answer has {size} bytes; {MOST_ANSWER} is the most that is sent.",
            "Ask for less: with limit, for a shorter time, or for a single schedule.",
        )


@contextmanager
def _bugs_told(session: Session, prompt: object) -> Iterator[None]:
    """A traceback goes where the log goes, and not only to stderr; without the prompt."""
    try:
        yield
    except (PromptyoselfError, OSError, click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        import traceback

        text = "".join(traceback.format_exception(error))
        if isinstance(prompt, str) and not session.settings.log_prompts:
            hide(prompt)
            text = without(text, prompt)
        session.log.note("internal_error", level="error", traceback=text)
        raise


def ask(command: click.Command, arguments: Sequence[str], caller: Caller) -> bytes:
    """Call a command, or one of a group, from within a program, which may do so in several threads
    at once: the answer is what the command line would have printed, be it an error or not."""
    try:
        answer = command.main(list(arguments), "promptyoself", standalone_mode=False, obj=caller)
        if not isinstance(answer, dict):
            raise TypeError(f"{arguments} gave no document")
    except (Exception, KeyboardInterrupt) as error:
        answer, _ = error_document(translated(error, arguments, ()))
    return rendered(answer)


def in_words_of(via: str, context: click.Context, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document as the callers of that door are to read it, of the command that the context is of.
    The MCP server words what it hands on itself."""
    if via != "sanctum":
        return document
    texts = "".join(str(document.get(key, "")) for key in ("message", "hint", "warning"))
    group = context.find_root().command
    if not isinstance(group, click.Group) or not (
        "error" in document or "--" in texts or "`" in texts
    ):
        return document
    from promptyoself.doors.sanctum import in_host_terms

    return in_host_terms(group, document, context.info_name)


def emit(document: Mapping[str, Any], format_: str = "json") -> None:
    """Print one document."""
    if format_ == "table":
        from promptyoself.doors.commands.tables import print_table

        print_table(_plain(document))
        return
    sys.stdout.buffer.write(rendered(document) + b"\n")
    sys.stdout.buffer.flush()


def rendered(document: Mapping[str, Any]) -> bytes:
    """A document as JSON, on one line."""
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate, out of an argument or a path that isn't UTF-8
        return orjson.dumps(_plain(document))


def error_document(error: BaseException) -> tuple[Document, int]:
    """The one form of every error, and the exit code. What can't be foreseen goes to stderr."""
    if isinstance(error, KeyboardInterrupt):
        error = PromptyoselfError("interrupted", "Interrupted before it was done.", "")
    elif isinstance(error, OSError):
        error = _from_os(error)
    elif not isinstance(error, PromptyoselfError):
        import traceback

        print(masked("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        error = PromptyoselfError(
            "internal_error",
            masked(f"This is a bug in promptyoself: {type(error).__name__}: {error}"),
            "Please report it, with the traceback on stderr.",
        )
    return error.document(), error.exit_code


def translated(
    error: BaseException, arguments: Sequence[str], commands: Collection[str]
) -> BaseException:
    """Click's own complaints in our form; everything else as it is."""
    if isinstance(error, click.Abort):
        return KeyboardInterrupt()
    if isinstance(error, click.UsageError):
        called = arguments[:1]
        command = " ".join(["promptyoself", *(word for word in called if word in commands)])
        code, hint = _usage_code(error), f"See `{command} --help`."
        if code == "unknown_command" and called:
            from difflib import get_close_matches

            close = " or ".join(get_close_matches(called[0], commands))
            hint = f"Did you mean {close}? {hint}" if close else hint
        return WrongUsage(code, _sentence(error), hint)
    if isinstance(error, click.ClickException):
        return PromptyoselfError("invalid_value", _sentence(error))
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


def _sentence(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text if text.endswith((".", "?", "!")) else text + "."


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


def _pinned(settings: Settings, agent: str) -> Settings:
    from promptyoself.store.access import forbidden

    if settings.only_agent not in (None, agent):
        raise forbidden(f"The caller is {agent!r}, which is not", settings.only_agent or "")
    return settings._replace(only_agent=agent)


def _actor(caller: Caller, agent: str | None) -> dict[str, str]:
    """Who calls, as ``docs/reference/format.md`` describes it.

    That is an agent that is pinned, else the client as it calls itself, else the login. What else
    is known of the caller stands beside it.
    """
    login = _login() if caller.address is None else None
    client = None if caller.client is None else _printable(caller.client)
    known = (("agent", agent), ("client", client), ("login", login))
    kind, who = next(((kind, name) for kind, name in known if name), ("client", "unnamed"))
    actor = {"via": caller.via, "who": who, "kind": kind}
    for name, value in (("client", client), ("login", login)):
        if value and name != kind:
            actor[name] = value
    actor["host"] = _printable(os.uname().nodename) if caller.address is None else caller.address
    return actor


def _printable(name: str) -> str:
    """A name that others chose, as it may stand in the log."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:200]).strip()


def _login() -> str:
    import pwd

    try:
        return _printable(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return f"uid {os.getuid()}"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
