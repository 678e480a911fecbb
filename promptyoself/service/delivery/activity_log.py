"""What the activity log says of deliveries: a line for each step, for people who watch a worker.

The history says the same, but here one sees it happen. Letta's words about a failure may quote the
prompt. So the prompt is taken out of them, unless the settings allow prompts in the log.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from promptyoself.core.diagnostics import Log, redact_prompt
from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import MISSED
from promptyoself.events.records import DeliveryFailed, DeliverySkipped, ScheduleCompleted
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, Outcome
from promptyoself.state.schedules import OpenSlot, State, slot_key

_LEVELS = {"failed": "error", "retrying": "warning", "in_doubt": "warning", "skipped": "warning"}

_NAMED = 5
"""The most schedules with missed slots that a pass names. Of the others, the number is told."""

_NOTHING_TO_SAY = ("no_text", "no_desires")
"""Reasons of slots for which there was nothing to send: nothing has failed there."""


class ActivityLog:
    """Tells of one worker.

    Each line has its name, and the schedule, the slot and the attempt that the line is about.
    """

    def __init__(self, log: Log, worker: str, *, prompts: bool) -> None:
        """``prompts`` says that lines may have prompts."""
        self._log = log
        self._prompts = prompts
        self._sent: set[str] = set()
        log.bind(worker=worker)

    def step(self, state: str, claimed: Claim, level: str = "info", **fields: Any) -> None:
        """A delivery was ``claimed`` or ``adopted``."""
        prompt = {"prompt": claimed.text} if self._prompts else {}
        self._log.record(
            "delivery",
            level=level,
            state=state,
            id=claimed.id,
            agent_id=claimed.agent_id,
            slot=claimed.slot,
            attempt=claimed.attempt,
            otid=claimed.otid,
            **fields,
            **prompt,
        )

    def sent(self, key: str, claimed: Claim, run_id: str | None) -> None:
        """A delivery is on its way to Letta, or perhaps there; one line for each ``key``."""
        if key not in self._sent:
            self._sent.add(key)
            self.step("sent", claimed, **({} if run_id is None else {"run_id": run_id}))

    def stalled(self, claimed: Claim, stalled: Stalled) -> None:
        """A delivery has met something that keeps it from its end, and goes on."""
        fields = {name: value for name, value in stalled._asdict().items() if value is not None}
        if stalled.retry_at is not None:
            fields["retry_at"] = format_utc(stalled.retry_at)
        self.step("stalled", claimed, level="warning", **fields)

    def over(self, key: str) -> None:
        """The delivery of that key has its outcome."""
        self._sent.discard(key)

    def outcomes(
        self, lines: Sequence[dict[str, Any]], recorded: Sequence[tuple[Claim, Outcome]]
    ) -> None:
        """What became of deliveries: the lines that `execute` prints, for these outcomes."""
        texts = {
            (claimed.id, claimed.slot, claimed.attempt): claimed.text for claimed, _ in recorded
        }
        for line in lines:
            text = texts.get((line["id"], line["slot"], line["attempt"]), "")
            fields = dict(line)
            if self._prompts:
                fields["prompt"] = text
            elif "error" in line:
                fields["error"] = redact_prompt(line["error"], text)
            self._log.record("delivery", level=_LEVELS.get(line["state"], "info"), **fields)

    def broken(self, text: str, claimed: Claim) -> str:
        """The text of a bug's traceback, without the prompt unless that may be told."""
        return text if self._prompts else redact_prompt(text, claimed.text)


def alarms(state: State, drafts: Iterable[Draft]) -> Iterator[str]:
    """Sentences about what somebody should hear of at once, among what was decided on a state.

    These are schedules that are parked, one-offs that have failed, and slots that were missed.
    """
    why: dict[str, str] = {}
    missed: dict[str, list[DeliverySkipped]] = {}
    for record, id_, _ in drafts:
        if id_ is None or id_ not in state.schedules:
            continue
        whose = f"{id_} of {state.schedules[id_].agent_id}"
        if isinstance(record, DeliveryFailed):
            why[id_] = record.code
            if record.parked:
                yield (
                    f"{whose} is parked: its deliveries keep failing, the last one with "
                    f"{record.code}. `promptyoself resume --id {id_}` lets it run again."
                )
        elif isinstance(record, DeliverySkipped):
            why[id_] = f"{record.why}, {record.detail}" if record.detail else record.why
            if record.why in MISSED:
                missed.setdefault(id_, []).append(record)
        elif isinstance(record, ScheduleCompleted) and record.status == "failed":
            missed.pop(id_, None)
            reason = why.get(id_, "not delivered")
            became = "was skipped" if reason in _NOTHING_TO_SAY else "has failed"
            yield f"{whose}, which was to be delivered once, {became}: {reason}."
    for id_, skips in list(missed.items())[:_NAMED]:
        slots = sum(skip.slots for skip in skips)
        first, last = min(skip.slot for skip in skips), max(skip.last for skip in skips)
        which = f"its slot of {first}" if slots == 1 else f"{slots} slots from {first} to {last}"
        reasons = " and ".join(sorted({skip.why for skip in skips}))
        yield f"{id_} of {state.schedules[id_].agent_id} missed {which} ({reasons})."
    if len(missed) > _NAMED:
        yield f"{len(missed) - _NAMED} more schedules missed slots."


def line_of(state: State, claimed: Claim, outcome: Outcome | None, became: str) -> dict[str, Any]:
    """The line about a delivery that ``execute`` prints.

    ``outcome`` is ``None`` if the delivery is left in doubt.
    """
    schedule = state.schedules[claimed.id]
    line: dict[str, Any] = {
        "id": claimed.id,
        "agent_id": claimed.agent_id,
        "delivered": became == "delivered",
        "next_run": schedule.next_run if schedule.status == "active" else None,
        "state": became,
        "slot": claimed.slot,
        "attempt": claimed.attempt,
    }
    if isinstance(outcome, Delivered | Failed) and outcome.run_id:
        line["run_id"] = outcome.run_id
    if isinstance(outcome, Failed | Abandoned):
        line["code"] = outcome.code
    if outcome is not None and outcome.error:
        line["error"] = outcome.error
    waiting = state.open.get(slot_key(claimed.id, claimed.slot))
    answer: Outcome | OpenSlot | None = waiting if outcome is None else outcome
    if isinstance(answer, OpenSlot) and answer.code:
        line.update(code=answer.code, error=answer.error or "")
    if answer is not None and answer.http_status is not None:
        line["http_status"] = answer.http_status
    if answer is not None and answer.detail is not None:
        line["detail"] = answer.detail
    if became == "retrying" and waiting is not None:
        line["retry_at"] = waiting.retry_at
    return line
