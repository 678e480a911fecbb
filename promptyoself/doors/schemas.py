"""What the commands for agents answer, as JSON Schema.

A command's name, description and parameters come from Click's own tree; what it answers can't be
read there. ``docs/reference/json.md`` tells the same to people. A test holds each schema against
what the command really answers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from promptyoself.events.kinds import SCHEDULE_TYPES, STATUSES

__all__ = ["ANSWERS", "Answer", "output_schema"]

Schema = dict[str, Any]


class Answer(NamedTuple):
    """A schema for each key of a successful answer, and those keys that may be missing.

    A key that Python can't have for a name, such as ``from``, isn't in it, since some clients make
    a class of the schema; another key says the same."""

    keys: dict[str, Schema]
    sometimes: frozenset[str] = frozenset()


def output_schema(command: str) -> Schema | None:
    """The schema of all that a command may answer, or ``None`` where nothing is known of that.

    All errors have one form. The schema has it, since some clients check errors too."""
    answer = ANSWERS.get(command)
    if answer is None:
        return None
    return {
        "type": "object",
        "properties": {
            **_ERROR,
            "warning": _STRING,
            **answer.keys,
            "status": {"enum": ["success", "error"]},
        },
        "required": ["status"],
        "if": {"properties": {"status": {"const": "success"}}},
        "then": {"required": [key for key in answer.keys if key not in answer.sometimes]},
        "else": {"required": list(_ERROR)},
    }


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _list(items: Schema, description: str) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _object(**properties: Schema) -> Schema:
    """An object that has all of these, and perhaps more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


_ERROR: dict[str, Schema] = {
    "code": _text("Of an error: its stable code."),
    "message": _text("What happened; of an error: what was wrong with which value."),
    "hint": _text("What to do next; may be empty."),
    "error": _text("Of an error: the message again."),
}

_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
_INSTANT = _text("An instant in UTC: 2027-01-31T09:00:00.000000Z.")
_ID = _text("The schedule's id: sch_ and 8 hex digits.")
_MESSAGE = _text("What was done, in a sentence.")
_NEXT_RUN = {
    "next_run": _maybe(_text("When it fires next, in UTC; null where it won't.")),
    "next_run_local": _maybe(_text("The same in the schedule's own time zone.")),
    "timezone": _text("The schedule's time zone."),
}
_SCHEDULE = _object(
    id=_ID,
    agent_id=_text("The agent that is prompted."),
    name=_maybe(_STRING),
    prompt=_text("What the agent is told."),
    schedule_type={"enum": list(SCHEDULE_TYPES)},
    schedule_value=_text("The instant, the cron expression or the interval."),
    timezone=_STRING,
    next_run=_maybe(_INSTANT),
    last_run=_maybe(_INSTANT),
    created_at=_INSTANT,
    status={"enum": list(STATUSES)},
    active=_FLAG,
    repetition_count=_text("How often it has fired.") | {"type": "integer"},
    max_repetitions=_maybe(_NUMBER),
)
_SCHEDULED: dict[str, Schema] = {
    "id": _ID,
    "created": _text("False where it was scheduled already.") | {"type": "boolean"},
    **_NEXT_RUN,
    "message": _MESSAGE,
    "differs": _list(_STRING, "Options that were another way; the old ones stay."),
    "life": _text("How often it has come to life, where it had ended.") | {"type": "integer"},
    "warning": _STRING,
    "dry_run": _FLAG,
}
_DESIRE_ID = _text("The desire's id: des_ and 8 hex digits.")
_STRENGTH = _text("From 0 to 1.") | {"type": "number"}
_DESIRE = _object(
    id=_DESIRE_ID,
    agent_id=_text("The agent that would like it."),
    text=_text("What it would like."),
    tags=_list(_STRING, "Its tags."),
    strength=_text("How strong it is at as_of: it fades with time.") | {"type": "number"},
    created_at=_INSTANT,
    reinforced=_text("How often it was reinforced.") | {"type": "integer"},
    last_strength=_text("How strong it was at last_at.") | {"type": "number"},
    last_at=_text("When it was recorded, or last reinforced."),
)
_SPENT = {
    "spent": _text("Deliveries charged today.") | {"type": "integer"},
    "limit": _maybe(_text("The most that a day may have; null: no limit.") | {"type": "integer"}),
    "left": _maybe(_NUMBER),
    "resets_at": _text("Midnight, UTC, when today ends."),
}
_OUTCOMES = _object(
    slots=_NUMBER,
    delivered=_NUMBER,
    failed=_NUMBER,
    skipped=_NUMBER,
    in_flight=_NUMBER,
    in_doubt=_NUMBER,
    pending=_NUMBER,
    unaccounted=_NUMBER,
    doubled=_NUMBER,
    unexpected=_NUMBER,
    skipped_why=_COUNTS,
)
_EVENT = _object(
    v=_NUMBER,
    seq=_text("Its number in the log.") | {"type": "integer"},
    ts=_INSTANT,
    type=_text("What happened: schedule.registered, delivery.delivered, …"),
    id=_maybe(_ID),
    actor={
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Who called (who, kind), through which door (via), and for_agent.",
    },
    data={"type": "object"},
    prev=_text("The SHA-256 of the event before."),
)
_POINT = _object(seq=_NUMBER, ts=_maybe(_INSTANT))
_HEAD: dict[str, Schema] = {
    "head": _text("The last event as SEQ:HASH."),
    "seq": _NUMBER,
    "hash": _STRING,
    "ts": _maybe(_INSTANT),
}

_SOMETIMES_SCHEDULED = frozenset({"differs", "life", "warning", "dry_run"})

ANSWERS: dict[str, Answer] = {
    "register": Answer(
        _SCHEDULED,
        _SOMETIMES_SCHEDULED,
    ),
    "list": Answer(
        {
            "schedules": _list(_SCHEDULE, "The soonest first."),
            "count": _NUMBER,
            "total": _text("How many there are, where some were left out.") | {"type": "integer"},
            "not_shown": _text("How many have failed, and so aren't listed.") | _COUNTS,
            "message": _STRING,
            "hint": _STRING,
        },
        frozenset({"total", "not_shown", "message", "hint"}),
    ),
    "show": Answer(
        {"id": _ID, "schedule": _SCHEDULE},
    ),
    "modify": Answer(
        {
            "id": _ID,
            "modified": _list(_STRING, "The fields that have changed."),
            **_NEXT_RUN,
            "message": _MESSAGE,
        },
        frozenset({"next_run_local", "timezone"}),
    ),
    "cancel": Answer(
        {"cancelled_id": _ID, "message": _MESSAGE, "under_way": _NUMBER},
        frozenset({"under_way"}),
    ),
    "pause": Answer({"id": _ID, "message": _MESSAGE}),
    "resume": Answer(
        {
            "id": _ID,
            **_NEXT_RUN,
            "failed_with": _text("The code that was asked for."),
            "resumed": _list(_object(id=_ID), "Those that run on: id, agent_id and next_run."),
            "left": _list(_object(id=_ID), "Those left as they are, each with code and message."),
            "count": _NUMBER,
            "message": _MESSAGE,
        },
        frozenset({"id", *_NEXT_RUN, "failed_with", "resumed", "left", "count"}),
    ),
    "trigger": Answer({"id": _ID, "slot": _INSTANT, "message": _MESSAGE}),
    "next": Answer(
        {"fires": _list(_object(utc=_INSTANT, local=_STRING), "The soonest first.")},
    ),
    "simulate": Answer(
        {
            "since": _INSTANT,
            "until": _INSTANT,
            "truncated": _FLAG,
            "fired": _text("How many deliveries there would be.") | {"type": "integer"},
            "skipped": _COUNTS,
            "agents": _list(
                _object(
                    agent_id=_STRING,
                    fired=_NUMBER,
                    days=_list(_object(day=_STRING, fired=_NUMBER, skipped=_COUNTS), "By day."),
                ),
                "By agent.",
            ),
            "stopped": _list(
                _object(id=_ID, agent_id=_STRING, why=_STRING, slots=_NUMBER, first=_INSTANT),
                "Schedules that a limit would stop.",
            ),
            "log": {"type": "object"},
            "load": {"type": "object"},
            "broken": _list(_object(id=_ID, problem=_STRING), "What can't be told."),
            "message": _MESSAGE,
        },
    ),
    "idle": Answer(_SCHEDULED, _SOMETIMES_SCHEDULED),
    "desire": Answer(
        {
            "id": _DESIRE_ID,
            "created": _FLAG,
            "strength": _STRENGTH,
            "message": _MESSAGE,
        },
    ),
    "desires": Answer(
        {
            "desires": _list(_DESIRE, "The strongest first."),
            "count": _NUMBER,
            "as_of": _text("The instant that the strengths are of."),
            "total": _text("How many there are, where some were left out.") | {"type": "integer"},
        },
        frozenset({"total"}),
    ),
    "reinforce": Answer(
        {"id": _DESIRE_ID, "strength": _STRENGTH, "before": _STRENGTH, "message": _MESSAGE},
    ),
    "prune": Answer(
        {
            "pruned": _list(_DESIRE, "Those that were faint enough."),
            "count": _NUMBER,
            "message": _MESSAGE,
            "dry_run": _FLAG,
        },
        frozenset({"dry_run"}),
    ),
    "budgets": Answer(
        {
            "agents": _list(
                _object(agent_id=_STRING, **_SPENT, active=_NUMBER, max_active=_NUMBER),
                "By agent.",
            ),
            "schedules": _list(
                _object(id=_ID, agent_id=_STRING, name=_maybe(_STRING), status=_STRING, **_SPENT),
                "Those that aren't over.",
            ),
            "count": _NUMBER,
        },
    ),
    "history": Answer(
        {
            "events": _list(_EVENT, "The oldest first, as they are in the log."),
            "count": _NUMBER,
            "total": _text("How many there are, where some were left out.") | {"type": "integer"},
        },
        frozenset({"total"}),
    ),
    "audit": Answer(
        {
            "since": _maybe(_INSTANT),
            "until": _INSTANT,
            "totals": _OUTCOMES,
            "schedules": _list(_OUTCOMES, "By schedule."),
            "undelivered": _list(
                _object(
                    id=_ID,
                    agent_id=_STRING,
                    slot=_INSTANT,
                    last=_INSTANT,
                    slots=_NUMBER,
                    outcome=_STRING,
                    why=_maybe(_STRING),
                    by={"type": ["object", "null"], "description": "Who did what decided it."},
                ),
                "Ranges of slots that were not delivered.",
            ),
            "loops": _list({"type": "object"}, "The loops that ran."),
            "head": _HEAD["head"],
            "message": _MESSAGE,
        },
    ),
    "diff": Answer(
        {
            "since": _POINT,
            "to": _POINT,
            "changes": _list(
                _object(
                    id=_ID,
                    agent_id=_STRING,
                    change={"enum": ["registered", "changed"]},
                    fields={"type": "object"},
                    events=_list({"type": "object"}, "What made the difference."),
                ),
                "By schedule.",
            ),
            "count": _NUMBER,
        },
    ),
    "stats": Answer(
        {
            "schedules": _COUNTS,
            "agents": _NUMBER,
            "open_slots": _COUNTS,
            "events": _NUMBER,
            "events_by_type": _COUNTS,
            "head": _object(seq=_NUMBER, hash=_STRING, ts=_maybe(_INSTANT)),
            "bytes": _NUMBER,
            "desires": _text("The same of the desires' log, if there is one.") | {"type": "object"},
        },
        frozenset({"desires"}),
    ),
    "head": Answer(_HEAD),
    "verify": Answer(
        {
            "valid": _FLAG,
            "events": _NUMBER,
            "segments": _NUMBER,
            **_HEAD,
            "contains": _STRING,
            "sealed": _NUMBER,
            "newer": _STRING,
            "torn_tail": {"type": "object"},
            "message": _MESSAGE,
            "desires": _text("The same of the desires' log, if there is one.") | {"type": "object"},
        },
        frozenset({"contains", "sealed", "newer", "torn_tail", "message", "desires"}),
    ),
    "agents": Answer(
        {
            "agents": _list(
                _object(
                    id=_STRING,
                    name=_maybe(_STRING),
                    model=_maybe(_STRING),
                    created_at=_maybe(_INSTANT),
                    last_run_at=_maybe(_INSTANT),
                ),
                "Those that the Letta server has.",
            ),
            "count": _NUMBER,
            "url": _STRING,
        },
    ),
    "test": Answer(
        {
            "url": _STRING,
            "version": _maybe(_STRING),
            "agents": _NUMBER,
            "latency_ms": _NUMBER,
            "message": _MESSAGE,
        },
    ),
    "execute": Answer(
        {
            "executed": _list(
                _object(
                    id=_ID,
                    agent_id=_STRING,
                    delivered=_FLAG,
                    next_run=_maybe(_INSTANT),
                    state=_STRING,
                    slot=_INSTANT,
                ),
                "A line for each prompt that was tried.",
            ),
            "skipped": _list({"type": "object"}, "Slots for which nothing was tried."),
            "message": _MESSAGE,
        },
        frozenset({"skipped"}),
    ),
}
"""By the command's name; every one that agents may call has to be here."""
