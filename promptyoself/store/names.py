"""The words by which a caller names a schedule: its id, the beginning of the id, or its name."""

import re
from collections.abc import Iterable

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import shown
from promptyoself.events.kinds import FINISHED
from promptyoself.state.schedules import Schedule, State
from promptyoself.store.access import unknown_id

_ID = re.compile(r"sch_[0-9a-f]{8}", re.ASCII).fullmatch
_BEGINNING = re.compile(r"(sch_)?([0-9a-f]{4,8})", re.ASCII).fullmatch
_TOO_SHORT = re.compile(r"sch_[0-9a-f]{1,3}", re.ASCII).fullmatch
_MOST_LISTED = 10
_EXCERPT_CHARACTERS = 60
_MOST_SIMILAR, _MOST_COMPARED, _LONGEST_COMPARED = 3, 1000, 80
_LIKENESS = 0.8  # of two words, as difflib measures it


def is_id(word: str) -> bool:
    """Whether a word has the form of a whole id, for which nothing needs to be read."""
    return _ID(word) is not None


def id_of(state: State, word: str) -> str:
    """The id of the one schedule that a word names.

    The word is an id, the first 4 digits of an id or more, with or without ``sch_``, or a name.
    Schedules that aren't over come before those that are, and the exact name comes before one in
    other capitals. A word in the form of an id is returned as it is, whether there is such a
    schedule or not. A caller who is pinned to an agent can name that agent's schedules alone.

    Raises:
        PromptyoselfError: ``unknown_id``; ``ambiguous_schedule`` if it names several.
    """
    if is_id(word):
        return word
    named = _named(state, word)
    if not named:
        error = unknown_id("schedule", word)
        if _TOO_SHORT(word.lower()):
            error.hint = f"The beginning of an id needs four of its digits at least. {error.hint}"
        elif word and (similar := _similar_names(state, word)):
            error.hint = f"Did you mean {' or '.join(map(shown, similar))}? {error.hint}"
        raise error
    if len(named) > 1:
        raise _ambiguous(word, sorted(named.values(), key=lambda schedule: schedule.id))
    return next(iter(named))


def _named(state: State, word: str) -> dict[str, Schedule]:
    """The schedules that a word names, by id."""
    by_id: dict[str, Schedule] = {}
    if beginning := _BEGINNING(word.lower()):
        by_id = {
            id_: schedule
            for id_, schedule in state.schedules.items(None, beginning[2])
            if id_.startswith(f"sch_{beginning[2]}")
        }
        if beginning[1]:
            return by_id
    exact, in_other_capitals = _with_name(state, word)
    if exact or by_id:
        return by_id | exact
    return in_other_capitals


def _with_name(state: State, name: str) -> tuple[dict[str, Schedule], dict[str, Schedule]]:
    """The schedules of that name, and those of that name in other capitals. Those that are over
    are only among them if no others are."""
    folded = name.casefold()
    similar = [
        schedule
        for schedule in state.schedules.values()
        if schedule.name is not None and schedule.name.casefold() == folded
    ]
    exact = _living_first(schedule for schedule in similar if schedule.name == name)
    return exact, _living_first(similar)


def _similar_names(state: State, word: str) -> list[str]:
    """A few names that begin with a word that isn't one, or else are spelled much like it. Where
    there are very many names, only the first of them are compared by their spelling."""
    living = (item for item in state.schedules.values() if item.status not in FINISHED)
    names = sorted({schedule.name for schedule in living if schedule.name is not None})
    beginning = word.casefold()
    longer = [name for name in names if name.casefold().startswith(beginning)]
    if longer:
        return longer[:_MOST_SIMILAR]
    from difflib import get_close_matches

    compared = names[:_MOST_COMPARED]
    return get_close_matches(word[:_LONGEST_COMPARED], compared, _MOST_SIMILAR, _LIKENESS)


def _living_first(schedules: Iterable[Schedule]) -> dict[str, Schedule]:
    by_id = {schedule.id: schedule for schedule in schedules}
    living = {id_: schedule for id_, schedule in by_id.items() if schedule.status not in FINISHED}
    return living or by_id


def _ambiguous(word: str, candidates: list[Schedule]) -> PromptyoselfError:
    listed = candidates[:_MOST_LISTED]
    lines = []
    for schedule in listed:
        facts = [f"of {schedule.agent_id}", shown(_beginning_of(schedule.prompt))]
        if schedule.name is not None:
            facts.insert(0, shown(schedule.name))
        lines.append(f"{schedule.id} ({', '.join(facts)})")
    further = len(candidates) - len(listed)
    more = f"; and {further} more" if further else ""
    return PromptyoselfError(
        "ambiguous_schedule",
        f"{shown(word)} names {len(candidates)} schedules: {'; '.join(lines)}{more}.",
        "Name one of them by its id, or by more digits of it.",
        candidates=[
            {
                "id": schedule.id,
                "name": schedule.name,
                "agent_id": schedule.agent_id,
                "prompt": _beginning_of(schedule.prompt),
                "status": schedule.status,
            }
            for schedule in listed
        ],
        total=len(candidates),
    )


def _beginning_of(prompt: str) -> str:
    if len(prompt) <= _EXCERPT_CHARACTERS:
        return prompt
    return prompt[: _EXCERPT_CHARACTERS - 1] + "…"
