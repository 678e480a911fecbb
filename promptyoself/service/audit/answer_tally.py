"""What became of answers and of notices, counted from the log alone.

Each answer that was to be read has one end: it was read, or none was to be had. Each notice that a
destination was to get has one end, too. What has none yet is awaited, or owed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from promptyoself.core.ids import NOTICE_PREFIX
from promptyoself.ledger import Envelope

_MOST_NAMED = 100


class _Awaited(NamedTuple):
    """An answer, or a notice, that has no end yet or has one."""

    agent_id: str | None
    id: str | None
    at: str  # the slot; of a digest the end of its time
    ended: str | None  # what became of it


class AnswerTally:
    """Takes in the events of a log, oldest first."""

    def __init__(self, first: str, last: str, agent_id: str | None, id_: str | None) -> None:
        """Only what is about slots from ``first`` to ``last``, which are instants, is told; and
        only what is about that agent and that schedule, if they are named."""
        self._first, self._last = first, last
        self._agent_id, self._id = agent_id, id_
        self._agents: dict[str, str] = {}  # of schedules
        self._answers: dict[tuple[str, str], _Awaited] = {}  # by schedule and slot
        self._notices: dict[str, _Awaited] = {}
        self._problems: list[dict[str, Any]] = []
        self._has_gap = False

    def begin_gap(self) -> None:
        """Events are lost here. So an end may lack its beginning from now on."""
        self._has_gap = True

    def add(self, event: Envelope) -> None:
        """Take in the next event.

        Raises:
            KeyError, TypeError: it lacks a field, or a time in it isn't a text.
        """
        data, id_ = event.data, event.id
        if id_ is not None:
            changes = data.get("changes", {})
            agent_id = data.get("agent_id") or changes.get("agent_id")
            if agent_id is not None:
                self._agents[id_] = agent_id
        match event.type:
            case "notice.sent" | "notice.failed":
                if not data.get("retry_at"):
                    self._end_notice(event)
                return
            case "delivery.delivered" if data.get("keep_reply") and id_ is not None:
                slot = _text(data["slot"])
                self._answers[id_, slot] = _Awaited(self._agents.get(id_), id_, slot, None)
            case "delivery.replied" | "delivery.unanswered" if id_ is not None:
                self._end_answer(event, (id_, _text(data["slot"])))
        if str(data.get("notice", "")).startswith(NOTICE_PREFIX):
            at = _text(data.get("slot") or event.ts)
            owed = _Awaited(self._agents.get(id_ or ""), id_, at, None)
            self._notices.setdefault(data["notice"], owed)

    def answer(self) -> dict[str, Any]:
        """What the audit says of them. Nothing where there are none."""
        found: dict[str, Any] = {}
        if answers := self._count(self._answers.values(), "awaited", ("replied", "unanswered")):
            found["answers"] = answers
        if notices := self._count(self._notices.values(), "owed", ("sent", "failed")):
            found["notices"] = notices
        if problems := self.problems:
            found["answer_problems"] = problems[:_MOST_NAMED]
        return found

    @property
    def problems(self) -> list[dict[str, Any]]:
        """Ends that are not the only one, or that nothing led to."""
        return [
            problem
            for problem in self._problems
            if self._is_wanted(
                _Awaited(self._agents.get(problem["id"] or ""), problem["id"], problem["at"], None)
            )
        ]

    def _end_answer(self, event: Envelope, key: tuple[str, str]) -> None:
        awaited = self._answers.get(key)
        if awaited is None and self._has_gap:
            awaited = _Awaited(self._agents.get(key[0]), *key, None)
        if awaited is None or awaited.ended is not None:
            self._complain(event, key[1], "unexpected" if awaited is None else "doubled")
            return
        self._answers[key] = awaited._replace(ended=event.type.partition(".")[2])

    def _end_notice(self, event: Envelope) -> None:
        data = event.data
        owed = self._notices.get(data["notice"])
        at = _text(data.get("slot") or data.get("until") or event.ts)
        if owed is None and (self._has_gap or data["kind"] == "digest"):
            owed = _Awaited(self._agents.get(event.id or ""), event.id, at, None)
        if owed is None or owed.ended is not None:
            self._complain(event, at, "unexpected" if owed is None else "doubled")
            return
        ended = event.type.partition(".")[2]
        self._notices[data["notice"]] = owed._replace(ended=ended)

    def _complain(self, event: Envelope, at: str, what: str) -> None:
        problem = {"id": event.id, "type": event.type, "at": at, "what": what, "seq": event.seq}
        self._problems.append(problem)

    def _is_wanted(self, awaited: _Awaited) -> bool:
        return (
            self._first <= awaited.at <= self._last
            and self._agent_id in (None, awaited.agent_id)
            and self._id in (None, awaited.id)
        )

    def _count(
        self, all_: Iterable[_Awaited], without_end: str, ends: tuple[str, ...]
    ) -> dict[str, int]:
        counts = Counter(
            awaited.ended or without_end for awaited in all_ if self._is_wanted(awaited)
        )
        return {name: counts[name] for name in (*ends, without_end)} if counts else {}


def _text(value: object) -> str:
    """What stands for an instant in an event, which is compared with others as text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no instant")
    return value
