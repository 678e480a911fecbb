"""Desires: record, reinforce, list and prune them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.ids import desire_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import desire_half_life
from promptyoself.core.text_limits import MAX_REASON, check_agent_id, check_tags, check_text
from promptyoself.core.times import shown
from promptyoself.events.draft import Draft
from promptyoself.events.records import DesirePruned, DesireRecorded, DesireReinforced
from promptyoself.service.desires import answers
from promptyoself.state.desires import (
    Desire,
    Desires,
    Ranked,
    after_reinforcing,
    living,
    strength_at,
    strongest,
)
from promptyoself.store.access import unknown_id, withheld
from promptyoself.store.point import cutoff
from promptyoself.store.store import Store

MAX_TEXT = 4000

_AT_ONCE = 1000  # the most events of one append


def record(
    store: Store,
    agent_id: str | None,
    text: str,
    strength: float,
    tags: Sequence[str],
    now: datetime,
    *,
    reason: str | None = None,
) -> answers.Recorded:
    """Record a desire, unless the same text was recorded at the same instant.

    Raises:
        PromptyoselfError: ``missing_option``, ``invalid_agent_id``, ``forbidden_agent``,
            ``empty_text``, ``invalid_text``, ``invalid_strength``, ``invalid_tag``,
            ``invalid_reason``.
        ChainError: the desires' log is damaged.
    """
    agent_id = _whose(store, agent_id)
    if agent_id is None:
        raise WrongUsage(
            "missing_option",
            "No agent was named.",
            "Give --agent-id, or set PROMPTYOSELF_DEFAULT_AGENT_ID.",
        )
    if not text.strip():
        raise PromptyoselfError(
            "empty_text", "The text is empty or blank.", "Say what the agent would like."
        )
    check_text("text", text, MAX_TEXT)
    check_text("reason", reason, MAX_REASON)
    strength = _strength("--strength", strength)
    checked = check_tags(tags)
    new = DesireRecorded(agent_id, text, strength, format_utc(now), checked or None, reason=reason)
    chain = store.desires

    def decide(state: Desires) -> tuple[list[Draft], answers.Recorded]:
        id_, salt, existing = _id_for_content(chain.unpinned_state(state), new)
        if existing is not None:
            message = "This was recorded at the same instant already; nothing was changed."
            return [], {"id": id_, "created": False, "message": message}
        draft = chain.draft(new._replace(salt=salt or None), id_, new.agent_id)
        message = "Desire recorded."
        return [draft], {"id": id_, "created": True, "strength": strength, "message": message}

    return chain.transact(now, decide)


def reinforce(
    store: Store, id_: str, by: float, now: datetime, *, reason: str | None = None
) -> answers.Reinforced:
    """Add to what a desire's strength has decayed to; it never exceeds 1.

    Raises:
        PromptyoselfError: ``invalid_strength``, ``invalid_reason``, ``unknown_id``,
            ``forbidden_agent``, ``pruned``, ``invalid_setting``.
        ChainError: the desires' log is damaged.
    """
    by = _strength("--by", by, above=True)
    check_text("reason", reason, MAX_REASON)
    half_life = desire_half_life(store.settings)
    chain = store.desires
    # An unknown id is refused before the lock, which would make folders where there are none.
    _alive(chain.read().state, id_)

    def decide(state: Desires) -> tuple[list[Draft], answers.Reinforced]:
        desire = _alive(state, id_)
        strength = after_reinforcing(desire, by, now, half_life)
        answer: answers.Reinforced = {
            "id": id_,
            "strength": _rounded(strength),
            "before": _rounded(strength_at(desire, now, half_life)),
            "message": "Desire reinforced.",
        }
        return [chain.draft(DesireReinforced(by, strength, reason), id_, desire.agent_id)], answer

    return chain.transact(now, decide)


def list_desires(
    store: Store,
    *,
    agent_id: str | None = None,
    min_strength: float | None = None,
    tags: Sequence[str] = (),
    query: str | None = None,
    limit: int | None = None,
    at: str | None = None,
    now: datetime,
) -> answers.DesireList:
    """The desires that match everything given, the strongest first.

    Their strengths are those at ``now``, or ``at`` an earlier point: a time, or the number of an
    event of their log. A desire has all ``tags``, and in its text or tags every word of ``query``,
    in upper or lower case.

    Raises:
        PromptyoselfError: ``invalid_agent_id``, ``forbidden_agent``, ``invalid_strength``,
            ``invalid_tag``, ``unknown_tag`` where none of these desires has it,
            ``invalid_query``, ``invalid_time``, ``invalid_setting``.
        ChainError: the desires' log is damaged.
    """
    if agent_id is not None:
        check_agent_id(agent_id)
    agent = store.require_agent(agent_id)
    least = 0.0 if min_strength is None else _strength("--min-strength", min_strength)
    wanted_tags, words = check_tags(tags), _words(query)
    half_life = desire_half_life(store.settings)
    if at is None:
        state = store.desires.read().state
    else:
        state, now = _state_at(store, at, now)
    used: set[str] = set()

    def chosen() -> Iterator[Desire]:
        for desire in living(state, agent):
            used.update(desire.tags)
            if set(wanted_tags) <= set(desire.tags) and _speaks_of(desire, words):
                yield desire

    ranked = strongest(chosen(), now, half_life, at_least=least)
    unknown = [tag for tag in wanted_tags if tag not in used]
    if unknown:
        raise PromptyoselfError(
            "unknown_tag",
            f"No desire there has the tag {shown(unknown[0])}.",
            f"Tags there are: {', '.join(sorted(used)[:20])}." if used else "None has any tag.",
            tags=sorted(used)[:100],
        )
    listed = ranked[:limit]
    answer: answers.DesireList = {
        "desires": [_described(entry) for entry in listed],
        "count": len(listed),
        "as_of": format_utc(now),
    }
    if len(listed) < len(ranked):
        answer["total"] = len(ranked)
    return answer


def prune(
    store: Store,
    below: float,
    now: datetime,
    *,
    agent_id: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
) -> answers.Pruned:
    """Let go of the desires whose strength has decayed to less than ``below``: of one agent, or of
    all. They are listed no more, and stay in the log.

    Raises:
        PromptyoselfError: ``invalid_agent_id``, ``forbidden_agent``, ``invalid_strength``,
            ``invalid_reason``, ``invalid_setting``.
        ChainError: the desires' log is damaged.
    """
    below = _strength("--below", below)
    check_text("reason", reason, MAX_REASON)
    agent = _whose(store, agent_id)
    half_life = desire_half_life(store.settings)
    chain = store.desires

    def faded(state: Desires) -> list[Ranked]:
        ranked = strongest(living(state, agent), now, half_life)
        return [entry for entry in ranked if entry.strength < below]

    def decide(state: Desires) -> tuple[list[Draft], list[Ranked]]:
        chosen = faded(state)[:_AT_ONCE]
        drafts = [
            chain.draft(DesirePruned(strength, below, reason), desire.id, desire.agent_id)
            for strength, desire in chosen
        ]
        return drafts, chosen

    pruned = faded(chain.read().state)  # so that nothing is made where there is nothing to prune
    if pruned and not dry_run:
        pruned = []
        while done := chain.transact(now, decide):
            pruned += done
    answer: answers.Pruned = {
        "pruned": [_described(entry) for entry in pruned],
        "count": len(pruned),
        "message": f"{len(pruned)} {'desire' if len(pruned) == 1 else 'desires'} pruned.",
    }
    if dry_run:
        answer["dry_run"] = True
        answer["message"] = "Nothing was pruned: this was a dry run."
    return answer


def _whose(store: Store, agent_id: str | None) -> str | None:
    if agent_id is not None:
        check_agent_id(agent_id)
    return store.require_agent(agent_id) or store.settings.default_agent


def _id_for_content(state: Desires, new: DesireRecorded) -> tuple[str, int, Desire | None]:
    """The id for a new desire, the salt it needs, and the same desire, if there is one."""
    content = {name: getattr(new, name) for name in ("agent_id", "text", "recorded_at")}
    for salt in count():
        id_ = desire_id(content, salt)
        existing = state.find(id_)
        if existing is None or all(
            getattr(existing, name) == value for name, value in content.items()
        ):
            break
    return id_, salt, existing


def _alive(state: Desires, id_: str) -> Desire:
    desire = state.find(id_)
    if desire is None:
        raise withheld(state.owners, id_) or unknown_id("desire", id_)
    if desire.pruned_at is not None:
        raise PromptyoselfError(
            "pruned",
            f"{id_} was pruned at {desire.pruned_at}.",
            "Record it again with `promptyoself desire`.",
        )
    return desire


def _strength(option: str, value: float, *, above: bool = False) -> float:
    """The value as a float, even where 0 or 1 was given. Refuse what isn't from 0 to 1, and NaN."""
    if not (0 <= value <= 1) or (above and value == 0):
        wanted = "more than 0, and at most 1" if above else "from 0 to 1"
        raise PromptyoselfError(
            "invalid_strength", f"{option} is {value:g}; it must be {wanted}.", "Change it."
        )
    return float(value) + 0.0  # for a zero has no sign


def _words(query: str | None) -> list[str]:
    if query is None:
        return []
    check_text("query", query, MAX_TEXT)
    if not query.strip():
        raise PromptyoselfError(
            "invalid_query", "The query is empty or blank.", "Say what to look for, or leave it."
        )
    return query.casefold().split()


def _speaks_of(desire: Desire, words: Sequence[str]) -> bool:
    text = " ".join((desire.text, *desire.tags)).casefold()
    return all(word in text for word in words)


def _state_at(store: Store, at: str, now: datetime) -> tuple[Desires, datetime]:
    """The desires at an earlier point, and the instant of that point."""
    end = cutoff(store, at, now)
    state, last = store.desires.state_at(end.covers)
    instant = end.ts or last
    return state, parse_utc(instant) if instant else now


def _described(ranked: Ranked) -> answers.DesireView:
    strength, desire = ranked
    return {
        "id": desire.id,
        "agent_id": desire.agent_id,
        "text": desire.text,
        "tags": list(desire.tags),
        "strength": _rounded(strength),
        "created_at": desire.created_at,
        "reinforced": desire.reinforced,
        "last_strength": desire.strength,
        "last_at": desire.at,
    }


def _rounded(strength: float) -> float:
    return round(strength, 6)
