"""What others wrote, as it may stand in a message to people: quoted, bounded, without effect.

An agent can say anything, also what it was told to say by somebody else. In a chat its words could
call everybody, draw a picture from a foreign server, or pass for ours.
"""

import re
from collections.abc import Mapping
from typing import Any

from promptyoself.core.text_limits import MAX_REPLY_BYTES
from promptyoself.core.visible import visible

_CUT = "…"
_TAB = "    "

_DATA_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_AT = re.compile(r"(?<!\[)@|@(?!\])")  # unless it is in brackets already
_SCHEMES_WITHOUT_SLASHES = re.compile(r"(?i)\b(mailto|tel|sms|data|javascript|xmpp|matrix|sip):")
_DOT_OF_A_NAME = re.compile(r"(?<=\w)\.(?=[^\W\d_]{2})")


def quoted(text: str, most: int) -> str:
    """The text as a quotation of at most ``most`` characters: ``> `` before each line.

    What would have an effect in a chat hasn't any more, and is still to be read: ``[@]everyone``,
    ``https[:]//example[.]org``, ``‹!channel›``. What can't be seen is shown as its escape,
    ``\\u202e``. Where something was left out, the quotation ends in ``…``.
    """
    plain = text[:most].replace("\r\n", "\n").replace("\r", "\n").replace("\t", _TAB)
    lines = [f"> {line}".rstrip() for line in _harmless(visible(plain)).strip("\n").split("\n")]
    quotation = "\n".join(lines)
    if len(quotation) <= most and len(text) <= most:
        return quotation
    return quotation[: max(most - len(_CUT), 0)].rstrip("\n") + _CUT[:most]


def on_a_line(text: str, most: int) -> str:
    """As :func:`quoted`, on one line, and without the mark of a quotation."""
    line = _harmless(" ".join(visible(text[:most], one_line=True).split()))
    if len(line) <= most and len(text) <= most:
        return line
    return line[: max(most - len(_CUT), 0)] + _CUT[:most]


def _harmless(text: str) -> str:
    text = _AT.sub("[@]", text).replace("<", "‹").replace(">", "›")
    text = text.replace("://", "[:]//").replace("](", "] (")
    text = _SCHEMES_WITHOUT_SLASHES.sub(r"\1[:]", text)
    return _DOT_OF_A_NAME.sub("[.]", text)


def as_data(value: Any) -> Any:
    """Data as a program gets it: texts without control characters other than tabs and ends of
    lines, and of at most :data:`MAX_REPLY_BYTES` characters each, so that an answer is whole."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", _DATA_CONTROLS.sub("", value[:MAX_REPLY_BYTES]))
    if isinstance(value, Mapping):
        return {as_data(key): as_data(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(inner) for inner in value]
    return value
