"""One look at the runs of all agents, for all who wonder what has become of theirs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from promptyoself.targets.api import DeliveryError, LettaApi, Run

__all__ = ["RunSnapshot", "SnapshotQueue", "take_run_snapshot"]

_TO_SPARE = 8
"""Ended runs asked for beyond those missed: others may have ended at the same time."""

_REST = 0.5
"""How long nobody looks again after a look, in times of what it took; who would send isn't kept."""

_LONGEST_REST = 1.0

_PATIENCE = 2.0
"""Seconds after which those that wait for a look ask by themselves."""

_AGAIN = 10.0
"""Seconds until the next look after one that failed."""


class RunSnapshot(NamedTuple):
    """How the runs stood at one instant between ``asked`` and ``answered`` (seconds of a monotonic
    clock).

    ``active`` has every run that hadn't ended, by agent. ``runs`` has them by id, and those asked
    after that had ended, as far as they were found.
    """

    asked: float
    answered: float
    active: dict[str, list[Run]]
    runs: dict[str, Run]


def take_run_snapshot(
    letta: LettaApi, followed: Collection[str], monotonic: Callable[[], float]
) -> RunSnapshot | None:
    """Ask for the active runs, and what became of those of ``followed`` that aren't among them.

    ``None``: there are too many runs for a look.

    Raises:
        DeliveryError: the active runs could not be read.
    """
    asked = monotonic()
    listed = letta.all_active_runs()
    answered = monotonic()
    if listed is None:
        return None
    active: dict[str, list[Run]] = {}
    runs = {run.run_id: run for run in listed}
    for run in listed:
        active.setdefault(run.agent_id, []).append(run)
    missed = [run_id for run_id in followed if run_id not in runs]
    try:
        if len(missed) == 1:
            ended = [letta.run(missed[0])]
        elif missed:
            ended = letta.ended_runs(2 * len(missed) + _TO_SPARE)
        else:
            ended = []
    except DeliveryError:  # then they are asked for one by one
        ended = []
    runs.update((run.run_id, run) for run in ended if not run.active)
    return RunSnapshot(asked, answered, active, runs)


class SnapshotQueue:
    """When to look, and for whom. Who comes while a look is under way waits for the next one, since
    it wants to know how things stand from now on.

    Instants are seconds of a monotonic clock. Not for several threads at once.
    """

    def __init__(self) -> None:
        self.followed: dict[str, str] = {}
        """The runs that somebody follows, and who; every look tells of all of them."""
        self.under_way = False
        self._waiting: set[str] = set()
        self._served: set[str] = set()
        self._asking: set[str] = set()
        self._urgent = False
        self._began = 0.0
        self._not_before = float("-inf")

    def usable(self, now: float) -> bool:
        """Whether it is worth waiting for the next look."""
        late = self.under_way and now >= self._began + _PATIENCE
        return not late and now >= self._not_before - _LONGEST_REST

    def join(self, name: str, *, urgent: bool) -> None:
        """Wait for the next look; ``urgent`` where somebody would send upon it."""
        self._waiting.add(name)
        self._urgent = self._urgent or urgent

    def begin(self, now: float) -> frozenset[str] | None:
        """Begin a look, if somebody waits for one and none is under way; the runs to ask after."""
        if self.under_way or not self._waiting or now < self._next():
            return None
        self.under_way, self._urgent, self._began = True, False, now
        self._served, self._waiting = self._waiting, set()
        self._asking = set(self.followed)
        return frozenset(self._asking)

    def end(self, now: float, look: RunSnapshot | None) -> tuple[set[str], set[str]]:
        """Who waited for the look that has ended, and which others' runs it shows to be over; where
        it has failed (``None``), nobody is to look for a while."""
        waited, self._served, self.under_way = self._served, set(), False
        if look is None:
            self._not_before = now + _AGAIN
            waited, self._waiting = waited | self._waiting, set()
            return waited, set()
        self._not_before = now + min(_REST * (now - self._began), _LONGEST_REST)
        over = {
            self.followed[run_id]
            for run_id in self._asking
            if run_id in self.followed and not _active(look, run_id)
        }
        return waited, over - waited

    def overdue(self, now: float) -> set[str]:
        """Who has waited too long for a look that is under way, and is to ask by itself."""
        if not self.under_way or now < self._began + _PATIENCE:
            return set()
        late = self._served | self._waiting
        self._served, self._waiting = set(), set()
        return late

    def wake(self) -> float:
        """When :meth:`begin` or :meth:`overdue` will have something to say."""
        if self.under_way:
            return self._began + _PATIENCE if self._served or self._waiting else float("inf")
        return self._next() if self._waiting else float("inf")

    def _next(self) -> float:
        return float("-inf") if self._urgent else self._not_before


def _active(look: RunSnapshot, run_id: str) -> bool:
    run = look.runs.get(run_id)
    return run is not None and run.active
