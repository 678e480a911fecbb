"""The limits that an agent's schedules are held against, one schedule at a time."""

from collections.abc import Mapping
from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import Settings
from promptyoself.core.times import shown
from promptyoself.events.kinds import FINISHED
from promptyoself.events.target_names import DEFAULT, TargetName, is_route
from promptyoself.state.schedules import Schedule, State, comes_back_at, prompt_size, unfinished

MAX_WAITING_RUNS = 100
"""The most deliveries of one agent that `trigger` asked for and that wait."""


def require_room(state: State, agent_id: str, settings: Settings) -> None:
    """Refuse one more active schedule than an agent may have. A paused one that runs again by
    itself keeps its place.

    Raises:
        PromptyoselfError: ``too_many_schedules``.
    """
    most, agent = settings.caps.max_active_per_agent, state.agent(agent_id)
    active = agent.active
    if active < most <= len(agent.unfinished):
        active += sum(
            1 for schedule in unfinished(state, agent_id) if comes_back_at(schedule) is not None
        )
    if active >= most:
        raise PromptyoselfError(
            "too_many_schedules",
            f"{shown(agent_id)} has {most} active schedules, the most allowed.",
            "Cancel one first; PROMPTYOSELF_MAX_ACTIVE_PER_AGENT sets the limit.",
        )


def require_space(
    state: State, agent_id: str, prompt: str, settings: Settings, instead: Schedule | None = None
) -> None:
    """Refuse a prompt for which an agent has no bytes left. A prompt that replaces that of the
    schedule ``instead`` is not refused if it is no longer.

    Raises:
        PromptyoselfError: ``prompts_too_large``.
    """
    most, size = settings.caps.max_prompt_bytes_per_agent, len(prompt.encode())
    before = 0 if instead is None else prompt_size(instead)
    together = state.agent(agent_id).prompt_bytes - before + size
    if together > most and size > before:
        raise PromptyoselfError(
            "prompts_too_large",
            f"The prompts of {shown(agent_id)} would have {together} bytes together; {most} is the "
            "most allowed.",
            "Shorten them, or cancel one first; PROMPTYOSELF_MAX_PROMPT_BYTES_PER_AGENT sets the "
            "limit.",
            bytes=together,
            limit=most,
        )


def require_free_name(state: State, agent_id: str, name: str | None, id_: str) -> None:
    """Refuse a name that another schedule of the agent has and that isn't over. ``id_`` is the
    schedule that is to have the name.

    Raises:
        PromptyoselfError: ``name_taken``.
    """
    if name is None:
        return
    for schedule in unfinished(state, agent_id):
        if schedule.name == name and schedule.id != id_:
            raise PromptyoselfError(
                "name_taken",
                f"{shown(agent_id)} has a schedule named {shown(name)} already: {schedule.id}.",
                f"Choose another name; or change that one: `promptyoself modify --id "
                f"{schedule.id}`, with new values.",
                taken_by=schedule.id,
            )


def require_place(
    state: State, schedule: Schedule, new: Schedule, changes: Mapping[str, Any], settings: Settings
) -> None:
    """Refuse what the agent of the modified schedule has no room for, or a name that it uses.

    Raises:
        PromptyoselfError: ``too_many_schedules``, ``prompts_too_large``, ``name_taken``.
    """
    keeps_place = schedule.status == "active" or comes_back_at(schedule) is not None
    if "agent_id" in changes and keeps_place:
        require_room(state, new.agent_id, settings)
    if schedule.status in FINISHED:
        return
    if not _SPACE.isdisjoint(changes):
        own = schedule if new.agent_id == schedule.agent_id else None
        require_space(state, new.agent_id, new.prompt, settings, own)
    if not _NAMED_IN.isdisjoint(changes):
        require_free_name(state, new.agent_id, new.name, schedule.id)


# The fields whose change asks for a check: of the bytes of its agent's prompts; of whether the
# agent has another schedule of that name.
_SPACE = frozenset({"agent_id", "prompt", "template"})
_NAMED_IN = frozenset({"agent_id", "name"})


def require_route(target: TargetName, conversation: str | None) -> None:
    """Refuse what can't be a conversation at its target. Only a Broca's have a form of their own:
    a user of a platform.

    Raises:
        PromptyoselfError: ``invalid_conversation_id``.
    """
    if target == "broca" and not is_route(conversation or "a:b") and conversation != DEFAULT:
        raise PromptyoselfError(
            "invalid_conversation_id",
            f"--conversation-id {shown(conversation or '')} names no user of Broca's.",
            "Give PLATFORM:USER, for instance telegram:123456789; or leave it out, for the user "
            "whom the settings of Broca's plugin name.",
        )


def require_target(settings: Settings, name: TargetName) -> None:
    """Refuse a target that the settings turn off.

    Raises:
        PromptyoselfError: ``target_not_configured``, with ``target``.
    """
    if name == "letta-code" and settings.letta_code_url is None:
        message = "There is no App Server of Letta Code: PROMPTYOSELF_LETTA_CODE_URL is off."
        hint = "Set it to the App Server's address, such as ws://127.0.0.1:4500."
    elif name == "letta-cloud" and not settings.letta_cloud:
        message = "The target letta-cloud is off, since nobody has tried it with a real account."
        hint = "Set PROMPTYOSELF_LETTA_CLOUD=untested to use it all the same."
    else:
        return
    raise PromptyoselfError("target_not_configured", message, hint, target=name)


def require_few_waiting(state: State, agent_id: str) -> None:
    """Refuse one more delivery that `trigger` asks for than may wait for an agent.

    Raises:
        PromptyoselfError: ``too_many_triggers``.
    """
    waiting = sum(
        1
        for slot in state.open.values()
        if slot.agent_id == agent_id and slot.kind == "trigger" and slot.worker is None
    )
    if waiting >= MAX_WAITING_RUNS:
        raise PromptyoselfError(
            "too_many_triggers",
            f"{shown(agent_id)} has {waiting} triggered deliveries that wait, the most allowed.",
            "See with `promptyoself doctor` that a loop is running; each that it delivers makes "
            "room for another.",
        )
