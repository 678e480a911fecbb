"""The table of a schedule's fields, and what must agree with it though it is written by hand."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import pytest

from promptyoself.doors.commands.schedules import idle_command, modify_command, register_command
from promptyoself.events import schedule_fields as table
from promptyoself.service.schedules.request import Request
from promptyoself.state.schedules import Schedule

if TYPE_CHECKING:
    import click

# What the event has besides: where the schedule stands, and why.
BESIDES = {
    "anchor", "next_run", "salt", "life", "repetition_count", "last_slot", "first_content",
    "reason", "counts_from", "without",
}  # fmt: skip


def types(annotation: Any) -> set[Any]:
    """The types that an annotation allows, but ``None``. A list of words allows texts, and so does
    an instant."""
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return set().union(*map(types, get_args(annotation))) - {type(None)}
    if get_origin(annotation) is list:
        return {list}
    return {str if get_origin(annotation) in (Literal, Annotated) else annotation}


def test_the_event_has_the_fields_of_the_table() -> None:
    """Each field of the table is the event's, with its type; and what the event has besides isn't
    the table's."""
    assert set(table.ScheduleRegistered._fields) == set(table.FIELDS) | BESIDES
    for name, field in table.FIELDS.items():
        assert types(table.ScheduleRegistered.__annotations__[name]) == {field.type}, name


@pytest.mark.parametrize("name", table.FIELDS)
def test_a_schedule_has_the_fields_of_the_table(name: str) -> None:
    assert types(Schedule.__annotations__[name]) == {table.FIELDS[name].type}
    left_out = name in table.ScheduleRegistered._field_defaults
    if name in table.FLAGS:
        assert Schedule._field_defaults[name] is False
    else:
        assert (name in Schedule._field_defaults) == left_out


def test_a_policy_is_recorded_or_may_be_left_out() -> None:
    """A registration that says nothing of a policy has the table's default, or nothing."""
    left_out = table.ScheduleRegistered._field_defaults
    for name in table.POLICY:
        assert (table.FIELDS[name].default is None) == (name in left_out), name


def test_the_kinds_are_pinned() -> None:
    """P6: policy is what may change without the schedule being another one."""
    assert set(table.TIMING) < set(table.CONTENT)
    assert {*table.CONTENT, *table.POLICY, "anchor"} == set(table.SPECIFIED)
    assert table.POLICY == (
        "misfire", "tier", "daily_budget", "grace", "jitter", "envelope", "on_failure", "tags",
        "keep_reply", "reply_to", "failure_to",
    )  # fmt: skip


@pytest.mark.parametrize("command", [register_command, modify_command, idle_command])
def test_the_options_are_those_of_the_table(command: click.Command) -> None:
    """Every field that is given by one option is one of the command's, with the table's help."""
    helps = {option.name: getattr(option, "help", None) for option in command.params}
    own = {"prompt", "template", "render"} if command is idle_command else set()
    for name, field in table.FIELDS.items():
        if field.help and name not in own:
            assert helps[name] == field.help, name
    asked = set(Request._fields) - own
    assert asked <= set(helps)
