"""How long the texts of callers may be, and what they may not have in them: ids of agents, prompts,
names, reasons and tags."""

from collections.abc import Sequence

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import is_opaque_id, may_name_schedule
from promptyoself.core.times import shown

MAX_PROMPT_BYTES = 1024 * 1024

MAX_NAME = 200
"""Characters."""

MAX_REASON = 2000
"""Characters."""

MAX_TAG = 64
"""Characters."""

MAX_TAGS = 20

MAX_REPLY_BYTES = 1024 * 1024
"""How much of an agent's answer is kept at most."""

REPLY_EXCERPT_BYTES = 4096
"""How much of it an excerpt has."""


_AGENTS = "`promptyoself agents` lists the agents that Letta has."


def check_agent_id(text: str, option: str = "--agent-id", hint: str = _AGENTS) -> str:
    """Refuse a text that can't be the id of an agent or a conversation. Whether Letta knows it is
    not checked. ``hint`` says what to give instead.

    Raises:
        PromptyoselfError: ``invalid_agent_id``, ``invalid_conversation_id`` or
            ``invalid_on_failure``.
    """
    if not is_opaque_id(text):
        raise PromptyoselfError(
            "invalid_" + option.removeprefix("--").replace("-", "_"),
            f"{option} {shown(text)} is not an id: 1 to 200 characters, without white space.",
            hint,
        )
    return text


def prompt_too_long(size: str) -> PromptyoselfError:
    """The refusal of a prompt whose bytes are ``size``, a number or "more than" one."""
    return PromptyoselfError(
        "prompt_too_long",
        f"The prompt has {size} bytes; {MAX_PROMPT_BYTES} (1 MiB) is the most.",
        "Put the text where the agent can read it, and prompt it to do so.",
    )


def check_prompt(text: str) -> str:
    """Refuse a prompt that Letta could not store, or would store in another form.

    Raises:
        PromptyoselfError: ``empty_prompt``, ``invalid_prompt`` or ``prompt_too_long``.
    """
    if not text.strip():
        raise PromptyoselfError(
            "empty_prompt", "The prompt is empty or blank.", "Say what the agent is to be told."
        )
    if "\0" in text:
        raise PromptyoselfError(
            "invalid_prompt",
            f"The prompt has a NUL character, at position {text.index(chr(0))}.",
            "Remove it: Letta's database cannot store it.",
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise PromptyoselfError(
            "invalid_prompt",
            f"The prompt is not valid Unicode: a lone surrogate at position {error.start}.",
            "Give it in UTF-8.",
        ) from None
    if size > MAX_PROMPT_BYTES:
        raise prompt_too_long(str(size))
    return text


def check_text(name: str, text: str | None, most: int) -> None:
    """Refuse a name or a reason that isn't valid Unicode, or has more than ``most`` characters.

    Raises:
        PromptyoselfError: ``invalid_`` and the ``name`` of the text.
    """
    if text is None:
        return
    problem = ""
    if len(text) > most:
        problem = f"has {len(text)} characters; {most} is the most"
    elif "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        problem = "has a NUL or a lone surrogate"
    if problem:
        raise PromptyoselfError(f"invalid_{name}", f"The {name} {problem}.", "Shorten or mend it.")


def check_name(name: str | None) -> None:
    """Refuse a schedule's name that can't be kept, or that could be taken for another one's id.

    Raises:
        PromptyoselfError: ``invalid_name``.
    """
    check_text("name", name, MAX_NAME)
    if name is not None and may_name_schedule(name):
        raise PromptyoselfError(
            "invalid_name",
            f"The name {shown(name)} has the form of a schedule's id.",
            "Choose a name that doesn't begin with sch_.",
        )


def check_tags(given: Sequence[str]) -> list[str]:
    """Tags as they are kept: in lower case, each once, in the order given.

    Raises:
        PromptyoselfError: ``invalid_tag``.
    """
    tags = list(dict.fromkeys(tag.strip().lower() for tag in given))
    for tag in tags:
        printable = tag.isprintable() and not any(c.isspace() or c == "," for c in tag)
        if not (1 <= len(tag) <= MAX_TAG and printable):
            raise PromptyoselfError(
                "invalid_tag",
                f"--tag {shown(tag)} is no tag: 1 to {MAX_TAG} characters, without white space "
                "or commas.",
                "Give several by repeating --tag.",
            )
    if len(tags) > MAX_TAGS:
        raise PromptyoselfError(
            "invalid_tag", f"There are {len(tags)} tags; {MAX_TAGS} are the most.", "Give fewer."
        )
    return tags
