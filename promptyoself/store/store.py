"""One data directory: the chain of its schedules, the chain of its desires, and the workers that
deliver."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from promptyoself.events.draft import Draft
from promptyoself.index.schedule_schema import SCHEDULE_SCHEMA
from promptyoself.state.schedules import CHAIN, State
from promptyoself.store.chain import Chain, Result

if TYPE_CHECKING:
    from promptyoself.ledger.sole_role import SoleRole
    from promptyoself.ledger.worker_locks import WorkerLocks
    from promptyoself.state.desires import Desires


class Store(Chain[State]):
    """The chain of the schedules in one data directory. The chain of the agents' desires is in
    ``desires``; ``workers`` says which processes deliver."""

    name, schema = CHAIN, SCHEDULE_SCHEMA

    @cached_property
    def workers(self) -> WorkerLocks:
        """The locks of the workers that deliver."""
        from promptyoself.ledger.worker_locks import WorkerLocks

        return WorkerLocks(self.settings.var / "workers")

    def as_seen_by(self, agent_id: str | None) -> Self:
        """See :meth:`Chain.as_seen_by`; it goes for the desires too."""
        seen = super().as_seen_by(agent_id)
        if "desires" in self.__dict__:
            seen.__dict__["desires"] = self.desires.as_seen_by(agent_id)
        return seen

    @cached_property
    def desires(self) -> Chain[Desires]:
        """The desires of the same data directory."""
        from promptyoself.store.desires import DesireChain

        chain = DesireChain(self.settings, self.actor, warn=self.warn, disk=self.disk, log=self.log)
        return chain.as_seen_by(self.pinned_to)

    def transact(
        self, now: datetime, decide: Callable[[State], tuple[Sequence[Draft], Result]]
    ) -> Result:
        """See :meth:`Chain.transact`."""
        # The schedules' fold is imported when it meets an event. After an append that would be too
        # late: an import fails where the process may open no more files.
        import promptyoself.state.apply  # noqa: F401

        return super().transact(now, decide)

    def role(self, name: str) -> SoleRole:
        """A role that one process has at a time in this data directory."""
        from promptyoself.ledger.sole_role import SoleRole

        return SoleRole(self.settings.var / f"{name}.lock")

    def prepare_workers(self) -> None:
        """Make the folder in which workers hold their locks."""
        self.disk.make_directory(self.settings.var / "workers")


def chains(store: Store, name: str | None = None) -> list[Chain[Any]]:
    """The chain of that name. Without a name: all chains of the data directory, which are that of
    the schedules, and that of the desires once a desire was recorded."""
    if name is not None:
        return [store.desires if name == "desires" else store]
    has_desires = os.path.lexists(store.settings.var / "desires")
    return [store, store.desires] if has_desires else [store]
