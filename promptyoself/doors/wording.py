"""The names of commands and options in texts, for doors that have other names for them.

Errors and descriptions are written in the words of a shell: ``--agent-id``, ``promptyoself list
--status all``. A caller at another door has tools and arguments, some of the commands alone, and no
shell. This is the one place where such a text is put into that caller's words.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from promptyoself.doors.agent_parameters import argument_name, commands_of, parameters

_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[^\sa-z])")
_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?!\w)")
_COMMAND = re.compile(r"`(promptyoself )?([a-z][a-z-]*)((?: [^`]*)?)`")
_OPTION = re.compile(r"(?<![\w-])--([a-z](?:[a-z-]*[a-z])?)")
_GIVEN = re.compile(r"--([a-z][a-z-]*)(?:[ =]([^\s-]\S*))?")
_NAMES_ONE = re.compile(r"(?:for|option:?) $")
_SHELL = "At a shell"
_ELSEWHERE = "The operator of promptyoself has to see to that."
_TEXTS = ("message", "hint", "warning")


class Wording:
    """The words of one door for agents."""

    def __init__(
        self, group: click.Group, tool_name: Callable[[str], str], offered: Sequence[str]
    ) -> None:
        """``offered`` are the commands of the group that this door offers. ``tool_name`` turns a
        command's name into its tool's."""
        self._options = {
            name: {
                alias: argument_name(parameter.name)
                for parameter in parameters(command)
                for alias in (parameter.name, *parameter.aliases)
            }
            for name, command in commands_of(group, offered).items()
        }
        self._tools = {name: tool_name(name) for name in self._options}
        self._commands = group.list_commands(click.Context(group))
        self._names = {
            option: argument
            for names in self._options.values()
            for option, argument in names.items()
        }

    def document(self, document: Mapping[str, Any], command: str | None) -> dict[str, Any]:
        """A command's answer, its texts in this door's words. ``error`` repeats the message."""
        worded = dict(document)
        for key in _TEXTS:
            if isinstance(text := worded.get(key), str):
                worded[key] = self.advice(text, command)
        if "error" in worded:
            worded["error"] = worded["message"]
        return worded

    def advice(self, text: str, command: str | None) -> str:
        """A message or hint for a caller of that command. A sentence about commands or options that
        only a shell has is replaced by one that says who can do it. A sentence that begins with
        "At a shell" is left out."""
        kept: list[str] = []
        for sentence in _SENTENCE.split(text):
            if sentence.startswith(_SHELL):
                continue
            if "--help" in sentence:
                if command is not None and command in self._tools:
                    kept.append(f"The description of `{self._tools[command]}` says what it takes.")
            elif not self._lacks(sentence, command):
                kept.append(self.text(sentence))
            elif _ELSEWHERE not in kept:
                kept.append(_ELSEWHERE)
        return " ".join(kept)

    def description(self, text: str, command: str | None) -> str:
        """The description of a command, without the sentences about what this door doesn't have."""
        kept = [
            sentence for sentence in _SENTENCE.split(text) if not self._lacks(sentence, command)
        ]
        return self.text(" ".join(kept))

    def text(self, text: str) -> str:
        """Every command and option by its name here; values in quotes stay as they are."""
        text = _COMMAND.sub(self._tool, text)
        return _outside_quotes(text, lambda part: _OPTION.sub(self._argument, part))

    def _lacks(self, sentence: str, command: str | None) -> bool:
        """Whether a sentence is about a command, or an option of its own command, that this door
        doesn't have."""
        options = self._names if command is None else self._options.get(command, {})
        for prefix, name, arguments in _COMMAND.findall(sentence):
            if not prefix and name not in self._commands:
                continue
            if name not in self._tools or any(
                option not in self._options[name] for option in _OPTION.findall(arguments)
            ):
                return True
        bare = _QUOTED.sub("", _COMMAND.sub("", sentence))
        return any(option not in options for option in _OPTION.findall(bare))

    def _tool(self, match: re.Match[str]) -> str:
        name, arguments = match[2], match[3]
        if name not in self._tools:
            return match[0]
        names = self._options[name]
        given = [
            f"{names.get(option, option)}: {value or 'true'}"
            for option, value in _GIVEN.findall(arguments)
        ]
        return f"`{self._tools[name]}`" + (f" ({', '.join(given)})" if given else "")

    def _argument(self, match: re.Match[str]) -> str:
        return self._names.get(match[1], match[1])


def _outside_quotes(text: str, change: Callable[[str], str]) -> str:
    """Change the text outside of quotes, and an option whose name alone is quoted."""
    parts, end = [], 0
    for quoted in _QUOTED.finditer(text):
        before = text[end : quoted.start()]
        parts.append(change(before))
        is_option = _OPTION.fullmatch(quoted[0][1:-1]) and _NAMES_ONE.search(before)
        parts.append(change(quoted[0]) if is_option else quoted[0])
        end = quoted.end()
    return "".join([*parts, change(text[end:])])


def tool_description(command: click.Command) -> str:
    """A command's help, for a model: what it does, when to use it, what comes back."""
    help_text = f"{command.help or ''} {command.epilog or ''}"
    return " ".join(help_text.replace("\\b", "").split())
