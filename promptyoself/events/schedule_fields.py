"""The fields that the registration of a schedule sets: one table, and the event that has them all.

From the table follow the options of ``register``, ``modify`` and ``idle``; how a policy is read
from what a caller gives; what the id is made of; what an approval covers; and what ``show`` and an
export have. A new policy is a row here, a field of :class:`ScheduleRegistered`, a field of
:class:`~promptyoself.state.schedules.Schedule`, and what it does.
"""

from typing import Annotated, Any, Literal, NamedTuple

from promptyoself.events.kinds import (
    KEEP_REPLY,
    MISFIRE_POLICIES,
    KeepReply,
    MisfirePolicy,
    ScheduleType,
)
from promptyoself.events.target_names import TARGETS

TEMPLATES = ("idle",)
"""What a prompt can be rendered from when it fires. The name is content, in the prompt's place."""

RENDERERS = ("jinja2",)
"""The languages that a prompt with values can be written in."""

DEFAULT_GRACE = 24 * 3600
"""Seconds."""


class Field(NamedTuple):
    """One field, as the log has it and as a caller gives it."""

    name: str
    # "content" and "timing" make the schedule the one it is: the id is made of them. "timing" says
    # when it fires. "policy" is everything else.
    kind: Literal["content", "timing", "policy"]
    type: type = str  # the type of its value in the log
    default: Any = None  # what a registration records where the caller says nothing; None: nothing
    # How a caller writes it, where that is more than a text or a number.
    form: Literal["", "duration", "agent", "tags", "renderer", "destination"] = ""
    # The values that are allowed, or the range of numbers. Empty where any value is.
    values: tuple[Any, ...] | range = ()
    can_be_unset: bool = False  # whether an empty text, or 0 of a duration, unsets it
    unset: Any = None  # what `show` has where the field isn't set
    # The option's own name where it isn't the field's, and how its help calls the value.
    option: str = ""
    aliases: tuple[str, ...] = ()  # other spellings of the option
    metavar: str = ""
    # The sentence of the option's help. Empty: several options together give this field.
    help: str = ""


FIELDS = {
    field.name: field
    for field in (
        Field("agent_id", "content", metavar="AGENT", help="The agent to prompt."),
        Field(
            "conversation_id",
            "content",
            aliases=("--conversation",),
            metavar="CONV",
            help="Its conversation: an id, new or default.",
        ),
        Field("prompt", "content", metavar="TEXT", help="What the agent is told."),
        Field("name", "content", metavar="TEXT", help="Its name."),
        Field("schedule_type", "timing"),
        Field("schedule_value", "timing"),
        Field(
            "timezone",
            "timing",
            option="--tz",
            metavar="ZONE",
            help="Zone of times: Europe/London.",
        ),
        Field(
            "start_at",
            "timing",
            metavar="T",
            help="Not before: 2027-01-31. Intervals count from it.",
        ),
        Field("until", "timing", metavar="T", help="Not after: 2027-12-31."),
        Field(
            "max_repetitions",
            "timing",
            int,
            values=range(1, 1_000_000_001),
            metavar="N",
            help="How often at most.",
        ),
        Field(
            "template",
            "content",
            values=TEMPLATES,
            help="Instead of a prompt; idle lists the agent's strongest desires.",
        ),
        Field(
            "misfire",
            "policy",
            default="coalesce",
            values=MISFIRE_POLICIES,
            help="What to deliver of missed slots; coalesce: the last (default).",
        ),
        Field(
            "tier",
            "policy",
            int,
            default=0,
            values=(0, 1, 2),
            metavar="N",
            help="0 reads, 1 writes, 2 acts outside and needs an approval (0).",
        ),
        Field(
            "daily_budget",
            "policy",
            int,
            values=range(1_000_001),
            metavar="N",
            help="Deliveries a day (UTC) at most.",
        ),
        Field(
            "grace",
            "policy",
            int,
            DEFAULT_GRACE,
            form="duration",
            metavar="DURATION",
            help="How late at most, 24h by default: 2h.",
        ),
        Field(
            "jitter",
            "policy",
            int,
            form="duration",
            can_be_unset=True,
            unset=0,
            metavar="DURATION",
            help="Random delay up to this: 5m.",
        ),
        Field(
            "envelope", "policy", bool, unset=False, help="Say first what woke it, and when (off)."
        ),
        Field(
            "on_failure",
            "policy",
            form="agent",
            can_be_unset=True,
            metavar="WHOM",
            help="Whom to tell of failed and missed slots.",
        ),
        Field(
            "tags",
            "policy",
            list,
            form="tags",
            can_be_unset=True,
            option="--tag",
            metavar="TAG",
            help="A tag, to find it by; may be repeated.",
        ),
        Field(
            "render",
            "content",
            form="renderer",
            help="Fill in {{ values }} of the prompt when it fires (off).",
        ),
        Field(
            "target",
            "content",
            values=TARGETS,
            can_be_unset=True,
            help="Where its agent is, if the id doesn't say that; letta-cloud is untested.",
        ),
        Field(
            "keep_reply",
            "policy",
            values=KEEP_REPLY,
            can_be_unset=True,
            help="What to keep of its answers; PROMPTYOSELF_KEEP_REPLY is the most.",
        ),
        Field(
            "reply_to",
            "policy",
            form="destination",
            can_be_unset=True,
            metavar="NAME",
            help="Where its answers go: see `promptyoself notify`.",
        ),
        Field("failure_to", "policy", form="destination", can_be_unset=True),
    )
}
"""The table. Its order is permanent: exports and the changes in the log have it."""

CONTENT = tuple(name for name, field in FIELDS.items() if field.kind != "policy")
"""What makes a schedule the one it is. Everything else about it is policy."""

TIMING = tuple(name for name, field in FIELDS.items() if field.kind == "timing")
"""The fields that say when a schedule fires."""

POLICY = tuple(name for name, field in FIELDS.items() if field.kind == "policy")
"""The fields that may change without the schedule being another one."""

DESTINATIONS = tuple(name for name, field in FIELDS.items() if field.form == "destination")
"""The fields that name a destination."""

FLAGS = tuple(name for name, field in FIELDS.items() if field.type is bool)
"""The fields that a registration leaves out where they are off, and a schedule has as ``False``. A
new one changes the hash that an approval is for, so that approvals given before are void."""

SPECIFIED = (*FIELDS, "anchor")
"""What a registration sets, and nothing but a modification changes."""

Instant = Annotated[str, "instant"]
"""The text of an instant. Reading an event refuses any other text in a field of this type."""


class ScheduleRegistered(NamedTuple):
    """A schedule came to life, or an ended one came back. The order of the fields is that of the
    event's ``data`` in the log."""

    agent_id: str
    prompt: str  # empty where there is a template
    schedule_type: ScheduleType
    schedule_value: str
    timezone: str
    next_run: Instant  # the first slot
    anchor: Instant  # the instant that an interval counts from
    tier: int
    misfire: MisfirePolicy
    grace: int
    conversation_id: str | None = None
    name: str | None = None
    start_at: Instant | None = None
    until: Instant | None = None
    max_repetitions: int | None = None
    # What was added to the content where its id was another schedule's already.
    salt: int | None = None
    life: int | None = None  # the number of this life, where the schedule had ended before
    daily_budget: int | None = None
    jitter: int | None = None
    envelope: bool | None = None
    on_failure: str | None = None
    # Of an imported one: how many of its slots were claimed where it came from, and which was the
    # latest that was claimed or skipped there.
    repetition_count: int | None = None
    last_slot: Instant | None = None
    # Of an imported one that had been modified: the content that its id was made of.
    first_content: dict[str, Any] | None = None
    reason: str | None = None
    template: str | None = None  # what the prompt is rendered from when it fires
    # As in ScheduleResumed.
    counts_from: Instant | None = None
    without: list[list[str]] | None = None
    tags: list[str] | None = None
    render: str | None = None  # the language of a prompt that is filled in when it fires
    target: str | None = None  # where its prompts go, if its agent's id says something else
    keep_reply: KeepReply | None = None  # how much of its agent's answers is kept
    reply_to: str | None = None  # the destination that is told of answers
    failure_to: str | None = None  # the destination that is told of failed and missed slots


def content_of(record: Any) -> dict[str, Any]:
    """The content fields of a registration or a schedule."""
    return {name: getattr(record, name) for name in CONTENT}
