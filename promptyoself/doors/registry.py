"""The registry of commands: which there are, where each is defined, and what agents may do with it.

The command line and its help, the description for Sanctum hosts, the MCP server and the generated
pages of docs/ read it. A new command gets one entry in :data:`TOOLS`, or in :data:`CLOSED` where it
is closed to agents, and its place in :data:`GROUPS`.

Every command imports this module, so it imports nothing that takes time.
"""

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
    """A command that agents may call, and what they, and programs that call for them, are told."""

    module: str
    """The module under ``promptyoself.doors.commands`` that defines it."""
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


_MODIFY_UNSETS = frozenset(
    {"name", "conversation-id", "start-at", "until", "jitter", "on-failure"}
    | {"keep-reply", "reply-to"}
)
_FOR_LOOPS = frozenset({"loop", "interval", "metrics-port", "accept-clock"})
_WHEN = frozenset({"rrule", "when"})  # agents give words as `time` and `every`
_FOR_PEOPLE = _WHEN | {"prompt-file", "render", "tag", "target", "keep-reply", "reply-to"}
_SEVERAL = frozenset({"agent-id", "tag", "all", "yes"})
_SIGNING = frozenset({"note", "key"})
_READERS_ZONE = frozenset({"tz"})

TOOLS: dict[str, Tool] = {
    "register": Tool(
        "schedules",
        "Schedule a prompt",
        Effect.WRITES,  # and not idempotent: "in 45m" is another time a minute later
        "schedules:Scheduled",
        "agent",
        asks_letta=True,
        acts_for_agent=True,
        people_only=_FOR_PEOPLE | {"from"},
    ),
    "list": Tool(
        "listing",
        "List schedules",
        Effect.READS,
        "schedules:ScheduleList",
        "agent",
        people_only=_READERS_ZONE | {"name", "query", "tag", "sort", "all"},
    ),
    "show": Tool(
        "listing",
        "Show a schedule",
        Effect.READS,
        "schedules:ScheduleShown",
        "agent",
        people_only=_READERS_ZONE,
    ),
    "modify": Tool(
        "schedules",
        "Change a schedule",
        Effect.CHANGES,
        "schedules:Modified",
        "agent",
        people_only=_FOR_PEOPLE,
        unset_by_empty=_MODIFY_UNSETS,
    ),
    "cancel": Tool(
        "changes",
        "Cancel a schedule",
        Effect.CHANGES,
        "schedules:Cancelled",
        "agent",
        idempotent=True,
        people_only=_SEVERAL,
    ),
    "pause": Tool(
        "changes",
        "Pause a schedule",
        Effect.CHANGES,
        "schedules:Paused",
        "agent",
        idempotent=True,
        people_only=_SEVERAL | {"until"},
    ),
    "resume": Tool(
        "changes",
        "Resume a schedule",
        Effect.WRITES,
        "schedules:Resumed",
        "agent",
        idempotent=True,
        people_only=_SEVERAL,
    ),
    "trigger": Tool(
        "changes",
        "Prompt now",
        Effect.WRITES,
        "schedules:Triggered",
        "agent",
        asks_letta=True,
        people_only=_SEVERAL,
    ),
    "next": Tool(
        "schedules",
        "Show the next fires",
        Effect.READS,
        "schedules:NextFires",
        "agent",
        people_only=_WHEN,
    ),
    "simulate": Tool(
        "forecast",
        "Look ahead",
        Effect.READS_LOG,
        "forecast:Simulation",
        "operator",
        people_only=_READERS_ZONE,
    ),
    "idle": Tool(
        "schedules",
        "Schedule a list of desires",
        Effect.WRITES,
        "schedules:Scheduled",
        asks_letta=True,
        acts_for_agent=True,
        people_only=_FOR_PEOPLE,
    ),
    "desire": Tool(
        "desires", "Record a desire", Effect.WRITES, "desires:Recorded", acts_for_agent=True
    ),
    "desires": Tool(
        "desires", "List desires", Effect.READS, "desires:DesireList", people_only=_READERS_ZONE
    ),
    "reinforce": Tool("desires", "Strengthen a desire", Effect.WRITES, "desires:Reinforced"),
    "prune": Tool(
        "desires",
        "Let go of faint desires",
        Effect.CHANGES,
        "desires:Pruned",
        idempotent=True,
        acts_for_agent=True,
    ),
    "budgets": Tool(
        "forecast",
        "Show what is left to spend",
        Effect.READS,
        "schedules:Budgets",
        "operator",
        people_only=_READERS_ZONE,
    ),
    "history": Tool(
        "log",
        "Show what happened",
        Effect.READS_LOG,
        "schedules:History",
        "agent",
        people_only=_READERS_ZONE | {"ndjson", "follow", "text"},
    ),
    "replies": Tool(
        "log",
        "Show what agents answered",
        Effect.READS_LOG,
        "schedules.replies:ReplyList",
        "operator",
        people_only=_READERS_ZONE | {"ndjson", "follow"},
    ),
    "audit": Tool(
        "audit",
        "Account for every slot",
        Effect.READS_LOG,
        "audit:Audit",
        "operator",
        people_only=_READERS_ZONE,
    ),
    "diff": Tool(
        "audit",
        "Compare two times",
        Effect.READS_LOG,
        "audit:Difference",
        "operator",
        people_only=_READERS_ZONE,
    ),
    "stats": Tool(
        "log",
        "Count what there is",
        Effect.READS_LOG,
        "schedules:Stats",
        "operator",
        people_only=_READERS_ZONE,
    ),
    "head": Tool(
        "log",
        "Name the last event",
        Effect.READS,
        "proof:Head",
        "operator",
        people_only=_READERS_ZONE | _SIGNING,
    ),
    "verify": Tool(
        "log",
        "Check the log",
        Effect.READS_LOG,
        "proof:Verified",
        "operator",
        people_only=_READERS_ZONE | _SIGNING,
    ),
    "agents": Tool(
        "delivery", "List agents", Effect.READS, "delivery:AgentList", "operator", asks_letta=True
    ),
    "test": Tool(
        "delivery",
        "Ask whether Letta answers",
        Effect.READS,
        "delivery:LettaTest",
        "operator",
        asks_letta=True,
    ),
    "execute": Tool(
        "delivery",
        "Deliver what is due",
        Effect.DELIVERS,
        "delivery:Executed",
        "operator",
        asks_letta=True,
        people_only=_FOR_LOOPS,
    ),
}
"""Each command for agents by its name, in the order in which tools are listed."""

CLOSED = {
    "edit": "changes",
    "undo": "changes",
    "agenda": "forecast",
    "report": "audit",
    "rebuild": "log",
    "seal": "log",
    "recover": "log",
    "export": "transfer",
    "import": "transfer",
    "import-sqlite": "transfer",
    "import-crontab": "transfer",
    "import-letta-cron": "transfer",
    "approve": "approvals",
    "approvals": "approvals",
    "revoke": "approvals",
    "metrics": "log",
    "keygen": "proof",
    "pack": "proof",
    "init": "init",
    "config": "configuration",
    "service": "service",
    "notify": "notify",
    "completion": "setup",
    "letta-code": "letta_code",
    "install-skill": "letta_code",
    "doctor": "setup",
    "install-plugin": "setup",
    "mcp": "mcp",
    "sandbox": "setup",
    "demo": "demo",
}
"""The module of each command that is closed to agents: set-up, servers, keys, what rewrites files
or moves schedules, and what is made for people's eyes."""

COMMANDS = {name: tool.module for name, tool in TOOLS.items()} | CLOSED
"""The module of every command."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Set up": ("init", "config", "notify", "service", "completion"),
    "Schedule prompts": (
        *("register", "modify", "edit", "pause", "resume", "cancel", "trigger", "undo"),
    ),
    "Look at them": (
        *("list", "show", "next", "agenda", "simulate", "report", "history", "replies"),
        *("diff", "stats"),
    ),
    "Keep desires": ("desire", "desires", "reinforce", "prune", "idle"),
    "Wake and deliver": ("execute", "agents", "test", "mcp", "letta-code"),
    "Keep within limits": ("budgets", "approve", "approvals", "revoke"),
    "Prove what happened": ("audit", "verify", "head", "keygen", "pack"),
    "Operate": (
        *(
            "doctor",
            "metrics",
            "seal",
            "rebuild",
            "recover",
            "export",
            "import",
            "import-sqlite",
            "import-crontab",
            "import-letta-cron",
        ),
        *("install-plugin", "install-skill", "sandbox", "demo"),
    ),
}
"""Every command, once, under the heading that help has it under."""

AGENT_FACING = tuple(TOOLS)
"""The commands that agents may call."""

READERS = frozenset(
    name for name, tool in TOOLS.items() if tool.effect.read_only and not tool.asks_letta
) | {"agenda"}
"""The commands for agents that only read our own files, so that a call can be ended at any time.
Agents have ``agenda`` as a resource of the MCP server."""


def _set_of_tools(*included: str) -> tuple[str, ...]:
    return tuple(name for name, tool in TOOLS.items() if tool.set_of_tools in included)


SETS: dict[str, tuple[str, ...]] = {
    "agent": _set_of_tools("agent"),
    "operator": _set_of_tools("agent", "operator"),
    "all": AGENT_FACING,
}
"""The commands in each set of MCP tools. ``agent`` has what an agent needs for its own prompts,
``operator`` has that and what looks after a clock, and ``all`` has all that agents may call. A
model reads the description of every tool that it is offered, each time, so the smallest set is the
default."""
