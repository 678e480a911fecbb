"""A digest: what happened to all schedules in some time, what isn't told yet, and what is ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from promptyoself.core.ids import notice_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import in_zone
from promptyoself.ledger import Envelope
from promptyoself.service.notices.notice import Notice
from promptyoself.service.notices.quotes import quoted
from promptyoself.service.notices.words import harmless, harmless_id
from promptyoself.state.schedules import Schedule, State

MOST_SCHEDULES = 50
"""Of more than this number of schedules, a digest tells the sum."""

MOST_BYTES = 16 * 1024
"""The size of a digest's words. What there is no room for is counted."""

_MOST_QUOTED = 200
"""Characters of an answer."""

_AHEAD = timedelta(days=1)


class _Happened:
    """What has happened to one schedule."""

    def __init__(self) -> None:
        self.delivered = 0
        self.failed: Counter[str] = Counter()  # by code
        self.skipped: Counter[str] = Counter()  # slots, by reason
        self.answers = 0
        self.unanswered: Counter[str] = Counter()  # by code
        self.last_answer: dict[str, Any] | None = None

    def add(self, event: Envelope) -> None:
        data = event.data
        if event.type == "delivery.delivered":
            self.delivered += 1
        elif event.type == "delivery.failed":
            self.failed[data["code"]] += 1
        elif event.type == "delivery.skipped":
            self.skipped[data["why"]] += data["slots"]
        elif event.type == "delivery.unanswered":
            self.unanswered[data["code"]] += 1
        else:
            self.answers += 1
            text = data.get("text")
            self.last_answer = {
                "slot": data["slot"],
                "text": None if text is None else text[:_MOST_QUOTED],
                "bytes": data["bytes"],
                "truncated": data["kept"] != "full" or len(text or "") > _MOST_QUOTED,
            }


_TOLD = frozenset(
    {"delivery.delivered", "delivery.failed", "delivery.skipped"}
    | {"delivery.replied", "delivery.unanswered"}
)


def digest_of(
    to: str,
    state: State,
    events: Iterable[Envelope],
    since: datetime,
    until: datetime,
    zone: str,
    now: datetime,
) -> Notice:
    """The digest for a destination.

    ``events`` are those of the log, oldest first; from before ``since`` or after ``until`` they
    count for nothing. One that a clock which was ahead has dated, or the log after it, goes by its
    slot. ``state`` says what is owed and what is ahead ``now``. The times are shown in ``zone``.
    """
    first, last, present = format_utc(since), format_utc(until), format_utc(now)
    happened: dict[str, _Happened] = {}  # by the schedule's id
    for event in events:
        if event.type not in _TOLD or event.id is None:
            continue
        at = event.ts if event.ts <= present else event.data["slot"]
        if first < at <= last:
            happened.setdefault(event.id, _Happened()).add(event)
    document: dict[str, Any] = {
        "id": notice_id(to, "digest", "", last),
        "kind": "digest",
        "at": last,
        "digest": {
            "since": first,
            "until": last,
            "timezone": zone,
            "totals": _totals(happened.values()),
            "schedules": list(islice(_lines(state, happened), MOST_SCHEDULES)),
            "more_schedules": max(len(happened) - MOST_SCHEDULES, 0),
            "owed": _owed(state),
            "ahead": _ahead(state, until),
        },
    }
    text = _in_words(document["digest"], zone)
    title = f"Digest until {in_zone(until, zone)}"
    return Notice(document["id"], "digest", last, title, text, document)


def _totals(all_happened: Iterable[_Happened]) -> dict[str, int]:
    totals = dict.fromkeys(("delivered", "failed", "skipped", "answers", "unanswered"), 0)
    for happened in all_happened:
        totals["delivered"] += happened.delivered
        totals["failed"] += happened.failed.total()
        totals["skipped"] += happened.skipped.total()
        totals["answers"] += happened.answers
        totals["unanswered"] += happened.unanswered.total()
    return totals


def _lines(state: State, happened: dict[str, _Happened]) -> Iterator[dict[str, Any]]:
    """A line for each schedule: those with failures first, then by agent and id."""
    schedules = {id_: state.schedules.get(id_) for id_ in happened}

    def place(id_: str) -> tuple[bool, str, str]:
        one, schedule = happened[id_], schedules[id_]
        return not one.failed, schedule.agent_id if schedule else "", id_

    for id_ in sorted(happened, key=place):
        schedule, one = schedules[id_], happened[id_]
        line = {**_names(id_, schedule), "delivered": one.delivered}
        for key in ("failed", "skipped", "unanswered"):
            if counts := getattr(one, key):
                line[key] = dict(sorted(counts.items()))
        if one.answers:
            line |= {"answers": one.answers, "last_answer": one.last_answer}
        yield line


def _names(id_: str, schedule: Schedule | None) -> dict[str, Any]:
    if schedule is None:  # its registration is lost
        return {"id": id_, "name": None, "agent_id": None}
    return {"id": id_, "name": schedule.name, "agent_id": schedule.agent_id}


def _owed(state: State) -> list[dict[str, Any]]:
    """For each destination: how many notices it hasn't taken yet, and why if it refused any."""
    by_destination: dict[str, dict[str, Any]] = {}
    for owed in state.notices.values():
        line = by_destination.setdefault(owed.to, {"to": owed.to, "notices": 0, "since": owed.at})
        line["notices"] += 1
        if owed.code is not None:
            line["code"] = owed.code
    return list(by_destination.values())


def _ahead(state: State, until: datetime) -> dict[str, Any]:
    """The schedules that fire in the day to come, each with its next slot."""
    end = format_utc(until + _AHEAD)
    number = 0
    lines: list[dict[str, Any]] = []
    for at, id_, schedule in state.schedules.soonest(lambda _: True):
        if at > end:
            break
        if schedule.status != "active":
            continue
        number += 1
        if len(lines) < MOST_SCHEDULES:
            lines.append({**_names(id_, schedule), "at": at})
    return {"schedules": number, "next": lines}


def _in_words(digest: dict[str, Any], zone: str) -> str:
    """The digest as text, of :data:`MOST_BYTES` at most."""
    span = " to ".join(in_zone(parse_utc(digest[name]), zone) for name in ("since", "until"))
    totals = ", ".join(
        _counted(count, "answer") if what == "answers" else f"{count} {what}"
        for what, count in digest["totals"].items()
        if count
    )
    paragraphs = [f"{span}: {totals or 'nothing happened'}."]
    paragraphs += [_line_in_words(line) for line in digest["schedules"]]
    if digest["more_schedules"]:
        paragraphs.append(f"And {_counted(digest['more_schedules'], 'more schedule')}.")
    for owed in digest["owed"]:
        code = f" ({owed['code']})" if "code" in owed else ""
        notices = _counted(owed["notices"], "notice")
        paragraphs.append(f"{owed['to']} hasn't taken {notices} yet{code}.")
    ahead = digest["ahead"]
    if ahead["schedules"]:
        lines = [f"To fire in the day to come: {_counted(ahead['schedules'], 'schedule')}. Next:"]
        for line in ahead["next"][:10]:
            lines.append(f"{in_zone(parse_utc(line['at']), zone)} {_who(line)}")
        paragraphs.append("\n".join(lines))
    return _within(paragraphs)


def _line_in_words(line: dict[str, Any]) -> str:
    counts = [f"{line['delivered']} delivered"] if line["delivered"] else []
    for key in ("failed", "skipped", "unanswered"):
        if key in line:
            reasons = ", ".join(line[key])
            counts.append(f"{sum(line[key].values())} {key} ({reasons})")
    if "answers" in line:
        counts.append(_counted(line["answers"], "answer"))
    text = f"{_who(line)}: {', '.join(counts)}."
    answer = line.get("last_answer")
    if answer is not None and answer["text"] is not None:
        text += f"\n{quoted(answer['text'], _MOST_QUOTED)}"
    return text


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _who(line: dict[str, Any]) -> str:
    name = "" if line["name"] is None else f"{harmless(line['name'])}, "
    agent = harmless_id(line["agent_id"]) if line["agent_id"] else "an unknown agent"
    return f"{agent}, {name}{line['id']}"


def _within(paragraphs: list[str]) -> str:
    """As many of the paragraphs as there is room for, and how many there isn't."""
    room = MOST_BYTES - 100
    kept: list[str] = []
    for paragraph in paragraphs:
        room -= len(paragraph.encode()) + 2
        if room < 0:
            kept.append(f"There is more: {len(paragraphs) - len(kept)} paragraphs had no room.")
            break
        kept.append(paragraph)
    return "\n\n".join(kept)
