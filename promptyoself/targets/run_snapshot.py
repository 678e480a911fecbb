"""One question about the runs of all agents, for all deliveries that wait for a run to end."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from promptyoself.targets.api import DeliveryError, Run, Target

_TO_SPARE = 8
"""Ended runs asked for beyond those missed: others may have ended at the same time."""

_REST = 0.5
"""The rest after a snapshot, in times of what it took. A delivery that would send isn't kept."""

_LONGEST_REST = 1.0  # seconds

_PATIENCE = 2.0
"""Seconds after which deliveries that wait for a snapshot ask by themselves."""

_REST_AFTER_FAILURE = 10.0  # seconds


class RunSnapshot(NamedTuple):
    """How the runs stood at one instant. Times are seconds of a monotonic clock."""

    asked: float  # the instant isn't before this
    answered: float  # nor after this
    active: dict[str, list[Run]]  # every run that hadn't ended, by agent
    runs: dict[str, Run]  # the same by id, and those asked after that had ended, if found


def take_run_snapshot(
    target: Target, followed: Collection[str], monotonic: Callable[[], float]
) -> RunSnapshot | None:
    """Ask for the active runs, and for those of ``followed`` that aren't among them.

    ``None``: there are too many runs for a snapshot.

    Raises:
        DeliveryError: the active runs could not be read.
    """
    asked = monotonic()
    listed = target.all_active_runs()
    answered = monotonic()
    if listed is None:
        return None
    active: dict[str, list[Run]] = {}
    runs = {run.run_id: run for run in listed}
    for run in listed:
        active.setdefault(run.agent_id, []).append(run)
    missed = [run_id for run_id in followed if run_id not in runs]
    ended: list[Run] = []
    with suppress(DeliveryError):  # then they are asked for one by one
        if len(missed) == 1:
            ended = [target.run(missed[0])]
        elif missed:
            ended = target.ended_runs(2 * len(missed) + _TO_SPARE)
    runs.update((run.run_id, run) for run in ended if not run.active)
    return RunSnapshot(asked, answered, active, runs)


class SnapshotQueue:
    """When to take a snapshot, and for which deliveries.

    A delivery that comes while a snapshot is under way waits for the next one, since it wants to
    know how things stand from now on. Deliveries are known by their keys. Instants are seconds of a
    monotonic clock. Not for several threads at once.
    """

    def __init__(self) -> None:
        self.followed: dict[str, str] = {}  # the delivery that follows a run, by the run's id
        self.under_way = False
        self._waiting: set[str] = set()  # deliveries for the next snapshot
        self._served: set[str] = set()  # deliveries for the one under way
        self._asked_for: set[str] = set()  # runs of the one under way
        self._urgent = False
        self._began = 0.0
        self._not_before = float("-inf")

    def is_worth_waiting_for(self, now: float) -> bool:
        """Whether the next snapshot will come soon enough."""
        late = self.under_way and now >= self._began + _PATIENCE
        return not late and now >= self._not_before - _LONGEST_REST

    def join(self, key: str, *, urgent: bool) -> None:
        """Let a delivery wait for the next snapshot; ``urgent`` if it would send upon it."""
        self._waiting.add(key)
        self._urgent = self._urgent or urgent

    def begin(self, now: float) -> frozenset[str] | None:
        """The runs to ask after, if it is time for a snapshot."""
        if self.under_way or not self._waiting or now < self._next():
            return None
        self.under_way, self._urgent, self._began = True, False, now
        self._served, self._waiting = self._waiting, set()
        self._asked_for = set(self.followed)
        return frozenset(self._asked_for)

    def end(self, now: float, snapshot: RunSnapshot | None) -> tuple[set[str], set[str]]:
        """The deliveries that waited for the snapshot, and others whose runs it shows to be over.

        ``None`` says that it has failed. Then there is none for a while.
        """
        waited, self._served, self.under_way = self._served, set(), False
        if snapshot is None:
            self._not_before = now + _REST_AFTER_FAILURE
            waited, self._waiting = waited | self._waiting, set()
            return waited, set()
        self._not_before = now + min(_REST * (now - self._began), _LONGEST_REST)
        going_on = {run_id for run_id, run in snapshot.runs.items() if run.active}
        followed = self.followed.keys() & self._asked_for
        over = {self.followed[run_id] for run_id in followed - going_on}
        return waited, over - waited

    def overdue(self, now: float) -> set[str]:
        """The deliveries that have waited too long for a snapshot, and are to ask by themselves."""
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
