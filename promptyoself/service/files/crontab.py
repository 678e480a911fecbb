"""A crontab whose lines prompt agents: these lines become schedules, and every other line is
reported with the reason."""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.texts import NotUTF8, text_of
from promptyoself.service.files.registrations import Entry, Tell, register_entries
from promptyoself.service.schedules.request import Request
from promptyoself.store.store import Store

MAX_BYTES = 1024 * 1024
"""The largest crontab."""


class Line(NamedTuple):
    """A line of a crontab that runs a command."""

    number: int  # from 1
    cron: str  # five fields, or a word such as @daily
    zone: str | None  # that the crontab sets for it
    command: str
    stdin: str | None  # what follows a percent sign


class _Prompt(NamedTuple):
    """What a command tells an agent."""

    agent_id: str
    text: str
    name: str | None = None
    conversation_id: str | None = None


class _NoPrompt(Exception):
    """The command tells no agent anything, or not in a way that can be read. The text says why."""


def import_crontab(
    store: Store,
    content: bytes,
    zone: str | None,
    now: datetime,
    *,
    system: bool = False,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Register what the lines of a crontab tell agents, in one append.

    ``zone`` is that of lines for which the crontab sets none. ``system`` says that each line names
    a user after its times, as in /etc/crontab. The answer has the lines that were ``taken``, and
    those that were ``left``, each with its reason. ``tell`` is called as :data:`Tell` says.

    Raises:
        PromptyoselfError: ``bad_entries`` if a line that is a prompt can't be registered;
            ``invalid_file``, ``file_too_large``. Nothing was registered.
    """
    if len(content) > MAX_BYTES:
        message = f"The crontab has more than {MAX_BYTES // 1024} KiB."
        raise PromptyoselfError("file_too_large", message, "Nothing was registered. Split it.")
    try:
        text = text_of(content)
    except NotUTF8 as error:
        raise PromptyoselfError("invalid_file", f"The crontab {error}.", error.hint) from None
    entries: list[Entry] = []
    left: list[dict[str, Any]] = []
    for line in lines_of(text, system=system):
        try:
            prompt = _prompt_of(line)
        except _NoPrompt as reason:
            left.append({"line": line.number, "why": f"{reason}", "command": line.command[:200]})
            continue
        asked = {**prompt._asdict(), "cron": line.cron, "timezone": line.zone or zone}
        asked["prompt"] = asked.pop("text")
        entries.append(Entry(line.number, asked, {}, Request(**asked)))
    registered = register_entries(store, entries, now, dry_run=dry_run, tell=tell)
    taken = [
        {**told, "agent_id": entry.request.agent_id, "cron": entry.request.cron}
        for told, entry in zip(registered.pop("schedules"), entries, strict=True)
    ]
    answer = {**registered, "taken": taken, "left": left}
    no_prompts = "1 line is no prompt" if len(left) == 1 else f"{len(left)} lines are no prompts"
    answer["message"] = f"{registered['message']} {no_prompts}."
    if taken and not dry_run:
        answer["hint"] = (
            "Take the lines that were taken out of the crontab; as long as they are there too, "
            "each prompt comes twice."
        )
    return answer


_ASSIGNMENT = re.compile(r"""([A-Za-z_]\w*)\s*=\s*(.*?)\s*""", re.ASCII)
_FIELDS = r"(@\w+|\S+\s+\S+\s+\S+\s+\S+\s+\S+)\s+"
_USERS_LINE = re.compile(_FIELDS + r"(.+)", re.DOTALL)
_SYSTEM_LINE = re.compile(_FIELDS + r"\S+\s+(.+)", re.DOTALL)


def lines_of(text: str, *, system: bool) -> Iterator[Line]:
    """The lines of a crontab that run a command. What isn't a line of a crontab has no times."""
    zones: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if assignment := _ASSIGNMENT.fullmatch(line):
            zones[assignment[1]] = assignment[2].strip("\"'")
            continue
        match = (_SYSTEM_LINE if system else _USERS_LINE).fullmatch(line)
        if match is None:
            yield Line(number, "", None, line, None)
            continue
        command, *stdin = re.split(r"(?<!\\)%", match[2])
        zone = zones.get("CRON_TZ") or zones.get("TZ") or None
        yield Line(
            number,
            " ".join(match[1].split()),
            zone,
            command.replace("\\%", "%").strip(),
            "\n".join(stdin).replace("\\%", "%") if stdin else None,
        )


def _prompt_of(line: Line) -> _Prompt:
    """What a line tells an agent. Raises :class:`_NoPrompt`."""
    if not line.cron:
        raise _NoPrompt("It isn't five fields and a command.")
    if line.cron.lower() == "@reboot":
        raise _NoPrompt("It runs when the machine starts, which is no time of a clock.")
    try:
        commands = list(_commands(line.command))
    except ValueError as error:
        raise _NoPrompt(f"Its command can't be read: {error}.") from None
    reason = _NoPrompt("It isn't a prompt: no agent and no text are given.")
    for words in commands:
        try:
            prompt = _prompt_in(words, line.stdin)
        except _NoPrompt as why:
            reason = why
            continue
        if prompt is None:
            continue
        for part in (prompt.text, prompt.agent_id):
            is_verbatim = f"'{part}'" in line.command or part == line.stdin
            if re.search(r"[$`]", part) and not is_verbatim:
                raise _NoPrompt("The shell makes its text or its agent when it runs.")
        return prompt
    raise reason


def _commands(command: str) -> Iterator[list[str]]:
    """The words of each command that a shell would run, without redirections and variables."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_target = False
    for word in lexer:
        if word and set(word) <= set(";&|"):
            yield words
            words = []
        elif word and set(word) <= set("<>&"):
            is_target = True
            if words and words[-1].isdigit():
                words.pop()
        elif is_target:
            is_target = False
        elif words or not re.match(r"[A-Za-z_]\w*=", word):
            words.append(word)
    yield words


_AGENT = ("--agent-id", "--agent_id", "--agent")
_TEXT = ("--prompt", "--message", "-p", "-m")
_NAME = ("--name",)
_CONVERSATION = ("--conversation-id", "--conversation_id", "--conversation")
_LETTA_ID = re.compile(r"agent-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROUTE = re.compile(r"/v1/agents/([^/?#]+)/messages(?:/stream|/async)?/?(?:[?#].*)?$")


def _prompt_in(words: Sequence[str], stdin: str | None) -> _Prompt | None:
    """What one command tells an agent; ``None`` if it tells none."""
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if program == "curl":
        return _prompt_of_curl(words, stdin)
    options, rest = _options_of(words[1:])
    if "promptyoself" in (program, *rest[:2]) and "trigger" in rest[:3]:
        raise _NoPrompt("It triggers a schedule: give that schedule these times with `modify`.")
    agent = next((options[name] for name in _AGENT if name in options), None)
    text = next((options[name] for name in _TEXT if name in options), None)
    if agent is None and program.startswith("letta"):
        agent = next((word for word in rest if _LETTA_ID.fullmatch(word)), None)
    if agent is None:
        return None
    if text is None and rest and " " in rest[-1]:
        text = rest[-1]
    text = stdin if text in (None, "-") else text
    if not text:
        raise _NoPrompt("It names an agent, and no text for it.")
    name = next((options[name] for name in _NAME if name in options), None)
    conversation = next((options[name] for name in _CONVERSATION if name in options), None)
    return _Prompt(agent, text, name, conversation)


def _options_of(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options that have a value, and the words that are neither."""
    options: dict[str, str] = {}
    rest: list[str] = []
    known = {*_AGENT, *_TEXT, *_NAME, *_CONVERSATION}
    remaining = iter(words)
    for word in remaining:
        name, sign, value = word.partition("=")
        if name in known:
            options[name] = value if sign else next(remaining, "")
        elif not word.startswith("-"):
            rest.append(word)
    return options, rest


_DATA = ("-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json")


def _prompt_of_curl(words: Sequence[str], stdin: str | None) -> _Prompt | None:
    route = next((match for word in words if (match := _ROUTE.search(word))), None)
    if route is None:
        return None
    body = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, sign, value = word.partition("=")
        if word in _DATA:
            body = following
        elif sign and name in _DATA:
            body = value
        elif re.match(r"-d.", word):
            body = word[2:]
    if body == "@-":
        body = stdin
    if not body or body.startswith("@"):
        raise _NoPrompt("It sends a message to an agent, whose text isn't in the line.")
    try:
        text = _text_in(orjson.loads(body))
    except (AttributeError, KeyError, TypeError, ValueError):
        text = None
    if not text:
        raise _NoPrompt("It sends a message to an agent, whose text can't be read out of it.")
    return _Prompt(route[1], text)


def _text_in(body: Any) -> str | None:
    """The text of the one message in a request to a Letta server."""
    if isinstance(body.get("input"), str):
        return str(body["input"])
    (message,) = [part for part in body["messages"] if part.get("role", "user") == "user"] or [{}]
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    return content if isinstance(content, str) else None
