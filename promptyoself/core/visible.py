"""What people can't see in a text, shown to them.

A prompt can hold characters that show nothing, that turn the order of others around, or that make a
terminal do things: a person who reads it would approve another text than the agent gets.
"""

import re

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_INVISIBLE = (
    # Soft hyphens, fillers and joiners.
    r"\u00ad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufeff\uffa0"
    # Of no width, ends of lines, and what turns the order around.
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufff0-\ufffb"
    # Variations, halves of characters, formats of single scripts, tags.
    r"\ufe00-\ufe0f\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_COUNTED = re.compile(f"[{_CONTROLS}{_INVISIBLE}]")
_ESCAPED = re.compile(rf"[\t{_CONTROLS}{_INVISIBLE}]")
_ON_A_LINE = re.compile(rf"[\t\n\u2500-\u257f{_CONTROLS}{_INVISIBLE}]")


def visible(text: str, *, one_line: bool = False) -> str:
    """The text with each character that can't be seen as its escape, ``\\u202e``. Ends of lines
    stay; but where it is to be ``one_line``, they are escaped too, and so is what tables are drawn
    with."""
    pattern = _ON_A_LINE if one_line else _ESCAPED
    return pattern.sub(lambda match: ascii(match[0])[1:-1], text)


def unseen(*texts: str | None) -> int:
    """How many characters of some texts can't be seen, ends of lines and tabs aside."""
    return sum(len(_COUNTED.findall(text)) for text in texts if text)
