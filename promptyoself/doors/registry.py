"""The registry of commands: which there are, where each is defined, and what agents may do with it.

The command line and its help, the description for Sanctum hosts, the MCP server and the generated
pages of docs/ read it. A new command gets one entry in :data:`COMMANDS`. It is closed to agents
unless that entry has a :class:`Tool`.

Every command imports this module, so it imports nothing that takes time.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Effect(Enum):
    """What a call of a command does to the log."""

    READS = "reads"
    """It reads the index, or a little of the log."""
    READS_LOG = "reads the log"
    """It may read the whole log, so only few such calls run at once."""
    WRITES = "writes"
    """It adds something."""
    CHANGES = "changes or ends"
    """It changes or ends what is there."""
    DELIVERS = "delivers"
    """It sends prompts, and waits for the answers."""

    @property
    def read_only(self) -> bool:
        """Whether a call leaves everything as it is."""
        return self in (Effect.READS, Effect.READS_LOG)


class Tool(NamedTuple):
    """What agents, and the programs that call for them, are told of a command."""

    title: str
    """What the command does, in a few words."""
    effect: Effect
    """What a call does to the log."""
    answer: str = ""
    """The type of a successful answer: the subject below ``promptyoself.service`` whose module
    ``answers`` has it, a colon, and its name."""
    set_of_tools: str = "all"
    """The smallest set of MCP tools that has it: ``agent``, ``operator`` or ``all``."""
    asks_letta: bool = False
    """Whether a call needs the network, since it asks the Letta server."""
    idempotent: bool = False
    """Whether the same call again does nothing more. Of a command that only reads, that is so
    anyway."""
    acts_for_agent: bool = False
    """Whether a call belongs to one agent, which it has to name where nothing else says which."""
    people_only: frozenset[str] = frozenset()
    """The options, without their dashes, that agents don't have."""
    unset_by_empty: frozenset[str] = frozenset()
    """The options whose empty text unsets something. Elsewhere an empty text counts as none."""


class Command(NamedTuple):
    """A command of the command line."""

    module: str
    """The module under ``promptyoself.doors.commands`` that defines it."""
    tool: Tool | None = None
    """What agents are told of it. Without that, it is closed to them."""


_MODIFY_UNSETS = frozenset({"name", "conversation-id", "start-at", "until", "jitter", "on-failure"})
_FOR_LOOPS = frozenset({"loop", "interval", "metrics-port", "accept-clock"})
_PROMPT_FILE = frozenset({"prompt-file"})
_SIGNING = frozenset({"note", "key"})

COMMANDS: dict[str, Command] = {
    "register": Command(
        "schedules",
        # Not idempotent: "in 45m" is another time a minute later.
        Tool(
            "Schedule a prompt",
            Effect.WRITES,
            "schedules:Scheduled",
            "agent",
            asks_letta=True,
            acts_for_agent=True,
            people_only=_PROMPT_FILE,
        ),
    ),
    "list": Command(
        "listing", Tool("List schedules", Effect.READS, "schedules:ScheduleList", "agent")
    ),
    "show": Command(
        "listing", Tool("Show a schedule", Effect.READS, "schedules:ScheduleShown", "agent")
    ),
    "modify": Command(
        "schedules",
        Tool(
            "Change a schedule",
            Effect.CHANGES,
            "schedules:Modified",
            "agent",
            people_only=_PROMPT_FILE,
            unset_by_empty=_MODIFY_UNSETS,
        ),
    ),
    "cancel": Command(
        "schedules",
        Tool("Cancel a schedule", Effect.CHANGES, "schedules:Cancelled", "agent", idempotent=True),
    ),
    "pause": Command(
        "schedules",
        Tool("Pause a schedule", Effect.CHANGES, "schedules:Paused", "agent", idempotent=True),
    ),
    "resume": Command(
        "schedules",
        Tool("Resume a schedule", Effect.WRITES, "schedules:Resumed", "agent", idempotent=True),
    ),
    "trigger": Command(
        "schedules",
        Tool("Prompt now", Effect.WRITES, "schedules:Triggered", "agent", asks_letta=True),
    ),
    "next": Command(
        "schedules", Tool("Show the next fires", Effect.READS, "schedules:NextFires", "agent")
    ),
    "simulate": Command(
        "forecast", Tool("Look ahead", Effect.READS_LOG, "forecast:Simulation", "operator")
    ),
    "idle": Command(
        "schedules",
        Tool(
            "Schedule a list of desires",
            Effect.WRITES,
            "schedules:Scheduled",
            asks_letta=True,
            acts_for_agent=True,
        ),
    ),
    "desire": Command(
        "desires", Tool("Record a desire", Effect.WRITES, "desires:Recorded", acts_for_agent=True)
    ),
    "desires": Command("desires", Tool("List desires", Effect.READS, "desires:DesireList")),
    "reinforce": Command(
        "desires", Tool("Strengthen a desire", Effect.WRITES, "desires:Reinforced")
    ),
    "prune": Command(
        "desires",
        Tool(
            "Let go of faint desires",
            Effect.CHANGES,
            "desires:Pruned",
            idempotent=True,
            acts_for_agent=True,
        ),
    ),
    "budgets": Command(
        "forecast",
        Tool("Show what is left to spend", Effect.READS, "schedules:Budgets", "operator"),
    ),
    "history": Command(
        "log",
        Tool(
            "Show what happened",
            Effect.READS_LOG,
            "schedules:History",
            "agent",
            people_only=frozenset({"ndjson"}),
        ),
    ),
    "audit": Command(
        "audit", Tool("Account for every slot", Effect.READS_LOG, "audit:Audit", "operator")
    ),
    "diff": Command(
        "audit", Tool("Compare two times", Effect.READS_LOG, "audit:Difference", "operator")
    ),
    "stats": Command(
        "log", Tool("Count what there is", Effect.READS_LOG, "schedules:Stats", "operator")
    ),
    "head": Command(
        "log",
        Tool("Name the last event", Effect.READS, "proof:Head", "operator", people_only=_SIGNING),
    ),
    "verify": Command(
        "log",
        Tool("Check the log", Effect.READS_LOG, "proof:Verified", "operator", people_only=_SIGNING),
    ),
    "agents": Command(
        "delivery",
        Tool("List agents", Effect.READS, "delivery:AgentList", "operator", asks_letta=True),
    ),
    "test": Command(
        "delivery",
        Tool(
            "Ask whether Letta answers",
            Effect.READS,
            "delivery:LettaTest",
            "operator",
            asks_letta=True,
        ),
    ),
    "execute": Command(
        "delivery",
        Tool(
            "Deliver what is due",
            Effect.DELIVERS,
            "delivery:Executed",
            "operator",
            asks_letta=True,
            people_only=_FOR_LOOPS,
        ),
    ),
    # Set-up, servers, keys, and what rewrites files or moves schedules is not for agents.
    "rebuild": Command("log"),
    "seal": Command("log"),
    "recover": Command("log"),
    "export": Command("transfer"),
    "import": Command("transfer"),
    "import-sqlite": Command("transfer"),
    "approve": Command("approvals"),
    "approvals": Command("approvals"),
    "revoke": Command("approvals"),
    "metrics": Command("metrics"),
    "keygen": Command("proof"),
    "pack": Command("proof"),
    "doctor": Command("setup"),
    "install-plugin": Command("setup"),
    "mcp": Command("mcp"),
    "sandbox": Command("setup"),
    "demo": Command("demo"),
}
"""Each command by its name; first those for agents, in the order in which help and tools list
them."""

AGENT_FACING = tuple(name for name, command in COMMANDS.items() if command.tool)
"""The commands that agents may call."""

READERS = frozenset(
    name
    for name, command in COMMANDS.items()
    if command.tool and command.tool.effect.read_only and not command.tool.asks_letta
) | {"agenda"}
"""The commands for agents that only read our own files, so that a call can be ended at any time.
``agenda`` is a resource of the MCP server, and no command of the command line."""


def _set_of_tools(*included: str) -> tuple[str, ...]:
    return tuple(
        name
        for name, command in COMMANDS.items()
        if command.tool and command.tool.set_of_tools in included
    )


SETS: dict[str, tuple[str, ...]] = {
    "agent": _set_of_tools("agent"),
    "operator": _set_of_tools("agent", "operator"),
    "all": AGENT_FACING,
}
"""The commands in each set of MCP tools. ``agent`` has what an agent needs for its own prompts,
``operator`` has that and what looks after a clock, and ``all`` has all that agents may call. A
model reads the description of every tool that it is offered, each time, so the smallest set is the
default."""
