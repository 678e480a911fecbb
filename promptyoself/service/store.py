"""One data directory: its ledger, its index, and the two ways to use them: read, and transact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from promptyoself.counting import REBUILDS, increment
from promptyoself.durable import Disk
from promptyoself.errors import ChainError, PromptyoselfError
from promptyoself.index import Index, Snapshot
from promptyoself.instants import parse_utc
from promptyoself.ledger import Draft, FileLedger, Ledger, Liveness
from promptyoself.log import Log
from promptyoself.schedules import Schedule, State, fold
from promptyoself.settings import Settings

if TYPE_CHECKING:
    from promptyoself.events import Record

__all__ = ["Store", "find_schedule", "forbidden"]

Result = TypeVar("Result")


class Store:
    """The schedules in one data directory, shared with any number of other processes."""

    def __init__(
        self,
        settings: Settings,
        actor: Mapping[str, str],
        *,
        warn: Callable[[str], None],
        disk: Disk | None = None,
        log: Log | None = None,
    ) -> None:
        """``actor`` is recorded with every event; ``warn`` gets what people should know, and
        ``log`` what was done."""
        folder = settings.var / "schedules"
        self.settings = settings
        self.actor = dict(actor)
        self.warn = warn
        self.log = log or Log(None)
        self.ledger: Ledger = FileLedger(
            folder, "schedules", lock_timeout=settings.lock_timeout, disk=disk
        )
        self.index = Index(folder / "index.json", self.ledger, self.warn, disk)
        self.index.rebuilt = partial(increment, settings.var, REBUILDS)
        self.workers = Liveness(settings.var / "workers")
        self._disk = disk or Disk()

    def read(self) -> Snapshot:
        """How things stand; takes no lock, and never waits for anyone.

        Raises:
            ChainError: the log is damaged.
        """
        snapshot = self.index.load()
        if self.index.is_stale:
            # Only if nobody else is writing, in which case the index is theirs to mend; and not at
            # all where the directory is read-only.
            with suppress(PromptyoselfError, OSError), self.ledger.exclusive(timeout=0):
                # An index must not know of more than is durable: after a loss of power it would
                # bear witness against a log from which nothing acknowledged is missing.
                self.ledger.append([], parse_utc(snapshot.position.ts), snapshot.position)
                self.index.save(snapshot)
        self.mention_newer(snapshot.state)
        return snapshot

    def mention_newer(self, state: State) -> None:
        """Say so where an answer from this state may be incomplete."""
        if state.newer:
            self.warn(
                f"The log was written by a newer promptyoself: {state.newer} is not understood "
                "here, so this answer may be incomplete."
            )

    def transact(
        self, now: datetime, decide: Callable[[State], tuple[Sequence[Draft], Result]]
    ) -> Result:
        """Decide on the state as it is, and append what was decided, before anyone else can.

        Raises:
            PromptyoselfError: what ``decide`` raised; ``lock_timeout``; ``newer_events``.
            ChainError: the log is damaged.
            OSError: the disk refused. In every case nothing was changed.
        """
        with self.ledger.exclusive():
            state, position = self.index.load()
            if state.newer:
                raise ChainError(
                    "newer_events",
                    f"The log was written by a newer promptyoself: {state.newer} is not "
                    "understood here.",
                    "Nothing was changed. Upgrade promptyoself; `promptyoself list` and "
                    "`promptyoself history` still work.",
                )
            drafts, result = decide(state)
            # Without drafts too: what we answer from must be durable, whoever wrote it and died.
            batch = self.ledger.append(drafts, now, position)
            if batch.envelopes:
                state = fold(state, batch.envelopes)
                self.index.save(Snapshot(state, batch.position))
            return result

    def draft(self, record: Record, id_: str | None) -> Draft:
        """An event of this store's actor."""
        return Draft(record, id_, self.actor)

    def prepare_workers(self) -> None:
        """Make the folder in which workers hold their locks."""
        self._disk.make_directory(self.settings.var / "workers")


def find_schedule(state: State, id_: str, only_agent: str | None) -> Schedule:
    """The schedule of that id.

    Raises:
        PromptyoselfError: ``unknown_id``; ``forbidden_agent`` where it is another agent's than the
            one that the caller is pinned to.
    """
    schedule = state.schedules.get(id_)
    if schedule is None:
        shown = id_ if len(id_) <= 80 else id_[:80] + "…"
        raise PromptyoselfError(
            "unknown_id",
            f"There is no schedule {shown!r}.",
            "`promptyoself list --status all` shows the ids there are.",
        )
    if only_agent is not None and schedule.agent_id != only_agent:
        raise forbidden(f"{id_} belongs to another agent than", only_agent)
    return schedule


def forbidden(what: str, only_agent: str) -> PromptyoselfError:
    """The refusal of ``what`` isn't the one agent that the caller is pinned to."""
    return PromptyoselfError(
        "forbidden_agent",
        f"{what} {only_agent!r}.",
        "PROMPTYOSELF_ONLY_AGENT pins this caller to that agent.",
    )
