"""Reading the values of settings, which are text, as numbers, paths, words and so on."""

import os
from collections.abc import Sequence
from pathlib import Path

from promptyoself.core.addresses import is_ambiguous, presentable
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import is_opaque_id
from promptyoself.core.times import number_of_seconds


class SettingValues(dict[str, str]):
    """The texts of all settings, by name. Each method raises ``invalid_setting`` if the value isn't
    of its kind; the error's details have the setting's name."""

    def path(self, name: str) -> Path:
        """The setting as a path, which need not exist."""
        text = self[name]
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            text = "\0"
        if "\0" in text:
            raise _invalid(name, self[name], "a path")
        if text.startswith("~"):
            raise _invalid(name, text, "a path as it stands: ~ isn't expanded here; write it out")
        return Path(text)

    def agent(self, name: str) -> str | None:
        """The setting as an agent's id, if it is set."""
        text = self[name]
        if text and not is_opaque_id(text):
            raise _invalid(name, text, "an id of at most 200 characters, without white space")
        return text or None

    def secret(self, name: str) -> str | None:
        """The setting as a secret that a header can carry, if it is set."""
        text = self[name]
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise _invalid(name, "***", "printable ASCII without spaces, as a header can carry it")
        return text or None

    def base_url(self) -> str:
        """The address of the Letta server, without a slash at its end."""
        url = self["LETTA_BASE_URL"]
        if not url.startswith(("http://", "https://")) or len(url.partition("//")[2]) == 0:
            raise _invalid(
                "LETTA_BASE_URL", presentable(url), "an address such as http://localhost:8283"
            )
        if is_ambiguous(url):
            wanted = (
                "an address: write /, ?, # and @ before its host's name as %2F, %3F, %23 and %40"
            )
            raise _invalid("LETTA_BASE_URL", presentable(url), wanted)
        return url.rstrip("/")

    def seconds(self, name: str, least: float) -> float:
        """The setting in seconds, of a number or a duration."""
        number = number_of_seconds(self[name])
        if number is None or not least <= number < 1e9:
            wanted = f"a number of seconds, or a duration such as 1m30s, at least {least:g} s"
            raise _invalid(name, self[name], wanted)
        return number

    def whole(self, name: str) -> int:
        """The setting as a whole number."""
        text = self[name]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise _invalid(name, text, "a whole number, at least 0")
        return int(text)

    def whole_seconds(self, name: str) -> int:
        """The setting in whole seconds, of a number or a duration."""
        number = number_of_seconds(self[name])
        if number is None or not 1 <= number < 1e9 or number != int(number):
            wanted = "a whole number of seconds, or a duration such as 1m30s, at least 1 s"
            raise _invalid(name, self[name], wanted)
        return int(number)

    def flag(self, name: str) -> bool:
        """Whether the setting is on."""
        text = self[name].lower()
        if text not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
            raise _invalid(name, self[name], "1 or 0")
        return text in {"1", "true", "yes", "on"}

    def word(self, name: str, words: Sequence[str]) -> str:
        """The setting as one of the known words, in lower case."""
        text = self[name].lower()
        if text not in words:
            raise _invalid(name, self[name], f"one of {', '.join(words)}")
        return text


def _invalid(name: str, value: str, wanted: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_setting", f"{name} is {value[:200]!r}, which is not {wanted}.", setting=name
    )
