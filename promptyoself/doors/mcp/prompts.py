"""The prompts that MCP clients are offered, for people to pick."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mcp_types import Prompt, PromptArgument


class Template(NamedTuple):
    """A prompt, and how its text is made."""

    prompt: Prompt
    needs: tuple[str, ...]  # the commands without which it makes no sense
    text: Callable[[Mapping[str, str], Mapping[str, str]], str]
    """Makes the text of the given arguments, and of the tools' names by their commands."""


def _follow_up(given: Mapping[str, str], names: Mapping[str, str]) -> str:
    return (
        f"Arrange to be prompted later about this: {given['about']}\n\n"
        f"When: {given.get('when') or 'choose a sensible time, and say which'}.\n\n"
        f"Look with `{names['list']}` whether it is scheduled already. If not, call "
        f"`{names['register']}`: write the prompt for somebody who remembers nothing of this "
        "conversation, with what is to be done and why, and give it a short name. Then say when it "
        "will come, in local time."
    )


def _review(given: Mapping[str, str], names: Mapping[str, str]) -> str:
    agent = given.get("agent_id")
    which = f"with agent_id {agent!r}" if agent else "for all that you may see"
    looking = names.get("audit", names["history"])
    return (
        f"Go through the schedules, {which}: call `{names['list']}`, and `{looking}` with since "
        "'7d ago'.\n\n"
        "Say in a few lines what is coming, what was not delivered and why, and which schedules "
        "look forgotten, doubled or too frequent. Propose what to pause, change or cancel, but "
        "change nothing before it is agreed."
    )


PROMPTS: dict[str, Template] = {
    "follow_up": Template(
        Prompt(
            name="follow_up",
            title="Follow up later",
            description="Schedule a prompt to come back to something.",
            arguments=[
                PromptArgument(name="about", description="What to come back to.", required=True),
                PromptArgument(name="when", description="When: 'in 2h', 'every weekday at 9'."),
            ],
        ),
        ("list", "register"),
        _follow_up,
    ),
    "review_schedules": Template(
        Prompt(
            name="review_schedules",
            title="Review the schedules",
            description="Look at what is scheduled and what became of it, and propose changes.",
            arguments=[PromptArgument(name="agent_id", description="Only this agent's.")],
        ),
        ("list", "history"),
        _review,
    ),
}
