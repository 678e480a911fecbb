"""What a text calls commands and options, at doors that know them by other names.

Errors and descriptions are written in the words of a shell: ``--agent-id``, ``promptyoself list
--status all``. A caller at another door has tools and arguments, some of the commands alone, and no
shell. Here is the one place where such a text becomes that caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["Wording"]

_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[^\sa-z])")
_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?!\w)")
_COMMAND = re.compile(r"`(promptyoself )?([a-z][a-z-]*)((?: [^`]*)?)`")
_OPTION = re.compile(r"(?<![\w-])--([a-z](?:[a-z-]*[a-z])?)")
_GIVEN = re.compile(r"--([a-z][a-z-]*)(?:[ =]([^\s-]\S*))?")
_NAMES_ONE = re.compile(r"(?:for|option:?) $")
_SHELL = "At a shell"
_ELSEWHERE = "Whoever runs promptyoself has to see to that."
_TEXTS = ("message", "hint", "warning")


class Wording:
    """The words of one door."""

    def __init__(
        self,
        tools: Mapping[str, str],
        options: Mapping[str, Mapping[str, str]],
        commands: Collection[str],
    ) -> None:
        """``tools`` names the tool for each command that the door has; ``options`` names, for each
        of those, the argument for each option, without its dashes, that it has there. ``commands``
        are all that a shell has."""
        self._tools, self._options, self._commands = tools, options, commands
        self._names = {name: each for known in options.values() for name, each in known.items()}

    def document(self, document: Mapping[str, Any], command: str | None) -> dict[str, Any]:
        """An answer of that command, its texts for people as this door words them. ``error`` stays
        the message again."""
        found = dict(document)
        for key in _TEXTS:
            if isinstance(text := found.get(key), str):
                found[key] = self.advice(text, command)
        if "error" in found:
            found["error"] = found["message"]
        return found

    def advice(self, text: str, command: str | None) -> str:
        """What is told to a caller of that command. A sentence about what only a shell has makes
        room for one that says who can do it; what begins with "At a shell" is left out."""
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
        """What a caller reads of that command before calling it: nothing of what isn't here."""
        kept = [each for each in _SENTENCE.split(text) if not self._lacks(each, command)]
        return self.text(" ".join(kept))

    def text(self, text: str) -> str:
        """Every command and option by its name here; values in quotes stay as they are."""
        text = _COMMAND.sub(self._tool, text)
        return _outside_quotes(text, lambda part: _OPTION.sub(self._argument, part))

    def _lacks(self, sentence: str, command: str | None) -> bool:
        """Whether it is about a command, or an option of its own command, that isn't here."""
        known = self._names if command is None else self._options.get(command, {})
        for ours, name, rest in _COMMAND.findall(sentence):
            if not ours and name not in self._commands:
                continue
            if name not in self._tools or any(
                option not in self._options[name] for option in _OPTION.findall(rest)
            ):
                return True
        bare = _QUOTED.sub("", _COMMAND.sub("", sentence))
        return any(option not in known for option in _OPTION.findall(bare))

    def _tool(self, found: re.Match[str]) -> str:
        name, rest = found[2], found[3]
        if name not in self._tools:
            return found[0]
        names = self._options[name]
        given = [
            f"{names.get(option, option)}: {value or 'true'}"
            for option, value in _GIVEN.findall(rest)
        ]
        return f"`{self._tools[name]}`" + (f" ({', '.join(given)})" if given else "")

    def _argument(self, found: re.Match[str]) -> str:
        return self._names.get(found[1], found[1])


def _outside_quotes(text: str, change: Callable[[str], str]) -> str:
    """Change all but what is quoted, save for an option that stands in quotes as one."""
    parts, at = [], 0
    for quoted in _QUOTED.finditer(text):
        before = text[at : quoted.start()]
        parts.append(change(before))
        is_option = _OPTION.fullmatch(quoted[0][1:-1]) and _NAMES_ONE.search(before)
        parts.append(change(quoted[0]) if is_option else quoted[0])
        at = quoted.end()
    return "".join([*parts, change(text[at:])])
