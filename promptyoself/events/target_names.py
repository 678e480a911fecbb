"""The targets by name, and what follows from a name and an id alone: where a schedule's prompts go,
into which conversation, and what they have to wait for there."""

import re
from hashlib import sha256
from typing import Literal, get_args

TargetName = Literal["letta", "letta-code", "letta-cloud", "broca"]

TARGETS: tuple[TargetName, ...] = get_args(TargetName)
"""``letta`` is a Letta server, ``letta-code`` a Letta Code App Server with agents of its own, and
``letta-cloud`` the queue of Letta's cloud for agents of Letta Code. That one is untested. ``broca``
is the queue of a Broca, which tells its agent's answers to people on their platforms."""

ASKABLE: tuple[TargetName, ...] = ("letta", "letta-code", "letta-cloud")
"""The targets that can be asked from anywhere. Only a loop inside a Broca reaches its queue."""

TARGET_TITLES: dict[TargetName, str] = {
    "letta": "Letta",
    "letta-code": "Letta Code",
    "letta-cloud": "Letta Cloud (untested)",
    "broca": "Broca",
}
"""The targets as sentences call them."""

NEW, DEFAULT = "new", "default"
"""What a conversation may be instead of an id: one that is made for each fire, or the agent's own.
"""


_ROUTE = re.compile(r"[^\s:]+:\S+").fullmatch
_UUID_ID = re.compile(r"conv-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.I).fullmatch
_OTHER_ID = re.compile(r"local-conv-[0-9]+|conv-\S+", re.ASCII).fullmatch


def is_likely_conversation(text: str, target: TargetName | None) -> bool:
    """Whether it is one of the words for a conversation, or has the form of a conversation's id at
    that target. ``None``: at any target."""
    if target == "broca":
        return text.casefold() == DEFAULT or is_route(text)
    if text.casefold() in (NEW, DEFAULT) or _UUID_ID(text):
        return True
    return target != "letta" and _OTHER_ID(text) is not None


def is_route(text: str) -> bool:
    """Whether it has the form in which a user of a Broca is named: ``PLATFORM:USER``."""
    return _ROUTE(text) is not None


def implied_target(agent_id: str) -> TargetName:
    """The target that an agent belongs to by its id. Letta Code gives the agents of its own store
    ids that begin with ``agent-local-``."""
    return "letta-code" if agent_id.startswith("agent-local-") else "letta"


def target_of(agent_id: str, target: str | None) -> TargetName:
    """Where the prompts of a schedule go. ``target`` is the schedule's own, if it has one."""
    for name in TARGETS:
        if name == target:
            return name
    return implied_target(agent_id)


def recorded_target(target: str | None) -> TargetName:
    """The target that a claim in the log, or an answer, names. It names none that is a Letta
    server, as those were the only ones at first."""
    return target_of("", target)


def default_conversation(target: TargetName) -> str:
    """The conversation of a schedule that names none: :data:`NEW` or :data:`DEFAULT`.

    In a conversation of its own nobody disturbs a prompt, and a prompt disturbs nobody. A Letta
    server's agents have had prompts in their own conversation from the beginning. In a Broca the
    default stands for the user whom its plugin's settings name.
    """
    return DEFAULT if target in ("letta", "broca") else NEW


def stored_target(agent_id: str, target: str | None) -> TargetName | None:
    """The target as a schedule has it: ``None`` where it follows from its agent's id."""
    name = target_of(agent_id, target)
    return None if name == implied_target(agent_id) else name


def stored_conversation(target: TargetName, conversation_id: str | None) -> str | None:
    """The conversation as a schedule has it: ``None`` where a schedule of that target goes there
    that names none."""
    return None if conversation_id == default_conversation(target) else conversation_id


def lane_of(agent_id: str, target: TargetName, conversation_id: str | None) -> str | None:
    """What a prompt has for itself from its claim to its outcome; no other is claimed for it.

    On a Letta server that is the agent: of two messages at once, one would be lost from the agent's
    context. Elsewhere it is the conversation. ``None``: nothing else can be in its way, since the
    conversation is made for it.
    """
    if target == "letta":
        return agent_id
    conversation = conversation_id or default_conversation(target)
    return None if conversation == NEW else f"{agent_id} {conversation}"


def worker_in_broca(worker: str, agent_id: str) -> str:
    """The name of a loop inside a Broca, made from a name that no other worker has. It says whose
    Broca that is, so that everybody can tell which slots are that loop's to claim."""
    return f"{worker}{_mark(agent_id)}"


EVERY_LOOP = "wrk_9d3f6c1a5b7e2048"
"""Stands for all loops at once, in what looks ahead and claims nothing."""


def serves(worker: str, target: TargetName, agent_id: str) -> bool:
    """Whether a worker of that name sends an agent's prompts to a target. The queue of a Broca is
    served by the loop inside that Broca alone, and every other target by every loop."""
    return target != "broca" or worker == EVERY_LOOP or worker.endswith(_mark(agent_id))


def _mark(agent_id: str) -> str:
    return f"_broca_{sha256(agent_id.encode()).hexdigest()[:12]}"
