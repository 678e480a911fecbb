"""One chain of a data directory, and the ways to use it.

``read`` and ``snapshot`` tell the state, ``events`` and ``replay`` what happened, and ``transact``
decides on the state and appends what was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from promptyoself.core.diagnostics import Log, Seldom
from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.events.draft import FOR, Draft
from promptyoself.index.index import Index, Snapshot
from promptyoself.index.schema import StateSchema
from promptyoself.index.witness import chain_is_gone, events_missing
from promptyoself.ledger import START, Batch, Envelope, FileLedger, Position, Torn
from promptyoself.state.fold import NO_LOSSES, Loss
from promptyoself.state.schedules import CHAIN
from promptyoself.store.access import Events, View, forbidden

if TYPE_CHECKING:
    from promptyoself.events.records import Record
    from promptyoself.ledger.lookup import Lines
    from promptyoself.store.tail import Tail


S = TypeVar("S")


class Chain(Generic[S]):
    """One chain in a data directory, with its index. Any number of other processes use it at the
    same time."""

    name: str  # also of its folder
    schema: StateSchema[S]  # of its state

    def __init__(
        self,
        settings: Settings,
        actor: Mapping[str, str],
        *,
        warn: Callable[[str], None],
        disk: Disk | None = None,
        log: Log | None = None,
    ) -> None:
        """``actor`` is recorded with every event. ``warn`` gets what people should know, and
        ``log`` gets what was done."""
        self.folder = settings.var / self.name
        self.settings = settings
        self.actor = dict(actor)
        self.warn = warn
        self.seldom = Seldom(warn)
        self.log = log or Log(None)
        self.disk = disk or Disk()
        self._ledger = FileLedger(
            self.folder, self.name, lock_timeout=settings.lock_timeout, disk=disk
        )
        self._index = Index(self.folder / "index.json", self.schema, self._ledger, warn, disk)
        self._behind = False
        self._view: View[S] | None = None

    @property
    def pinned_to(self) -> str | None:
        """The one agent that the caller is pinned to, if there is one."""
        return None if self._view is None else self._view.agent_id

    def as_seen_by(self, agent_id: str | None) -> Self:
        """The same chain for a caller who is pinned to that agent: every state and every event that
        it hands out has nothing of another agent's. ``None``: the caller may see everything."""
        seen = object.__new__(type(self))
        seen.__dict__.update(self.__dict__)
        seen._view = None if agent_id is None else View(agent_id, self.schema)
        return seen

    @property
    def unpinned(self) -> Self:
        """The same chain with everything in it, for those whose work isn't one agent's."""
        return self if self._view is None else self.as_seen_by(None)

    def unpinned_state(self, state: S) -> S:
        """The state with everything in it that a caller's ``state`` is a part of: for decisions
        that other agents' schedules have a part in, such as which id is free."""
        return state if self._view is None else self._view.everything(state)

    def require_agent(self, agent_id: str | None) -> str | None:
        """The agent that a caller asks about who names ``agent_id``, or names nobody.

        Raises:
            PromptyoselfError: ``forbidden_agent``: the caller is pinned to another.
        """
        if self.pinned_to is None:
            return agent_id
        if agent_id not in (None, self.pinned_to):
            raise forbidden(f"--agent-id {(agent_id or '')[:200]!r} is not", self.pinned_to)
        return self.pinned_to

    def seen(self, state: S) -> S:
        """What the caller may see of a state."""
        return state if self._view is None else self._view.of(state)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the chain in errors about it, unless it is the schedules': people think of that one
        first."""
        try:
            yield
        except ChainError as error:
            if self.name != CHAIN and "chain" not in error.details:
                error.details["chain"] = self.name
                error.message = f"In the log of {self.name}: {error.message}"
            raise

    def read(self) -> Snapshot[S]:
        """The state and the position of the last event. It takes no lock and waits for nobody. An
        index that is missing or damaged is written again, if nobody else is writing.

        Raises:
            ChainError: the log is damaged.
        """
        with self.naming():
            snapshot = self._index.load()
        if self._index.is_stale:
            # Only if nobody else is writing, in which case the index is theirs to mend; and not at
            # all where the directory is read-only.
            with suppress(PromptyoselfError, OSError), self._ledger.exclusive(timeout=0):
                self._save(snapshot)
        self.mention_newer(snapshot.state)
        return Snapshot(self.seen(snapshot.state), snapshot.position)

    def snapshot(self, stamp: object = None) -> Snapshot[S]:
        """The same as :meth:`read`, but nothing is ever written: an index that is missing or
        damaged stays as it is. ``stamp`` is what :meth:`stamp` has just told, where the caller has
        it.

        Raises:
            ChainError: the log is damaged.
        """
        snapshot = self._index.load(stamp)
        return Snapshot(self.seen(snapshot.state), snapshot.position)

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Hold the right to append, which one process has at a time."""
        return self._ledger.exclusive(timeout)

    def stamp(self) -> object:
        """Something that differs whenever events have been appended since."""
        return self._ledger.stamp()

    def months(self) -> list[str]:
        """The months that have events, oldest first."""
        return self._ledger.months()

    def torn(self, after: Position) -> Torn | None:
        """The half-written end after a position; see :meth:`FileLedger.torn`."""
        return self._ledger.torn(after)

    def head(self, after: Position) -> Position:
        """The position after the last event, reading on from a known one."""
        return self._ledger.head(after)

    def event(self, seq: int, month: str) -> Envelope | None:
        """The event of that number, with a time in that month; see :meth:`FileLedger.event`."""
        self._require_unpinned()
        return self._ledger.event(seq, month)

    def lines_around(self, seq: int, month: str) -> Lines | None:
        """The member that has that event; see :meth:`FileLedger.lines_around`."""
        self._require_unpinned()
        return self._ledger.lines_around(seq, month)

    def event_if_seen(self, seq: int, month: str) -> Envelope | None:
        """The same, of events that name the agent that they are for. One that isn't for the agent
        that the caller is pinned to is withheld."""
        event = self._ledger.event(seq, month)
        if event is None or self.pinned_to in (None, event.actor.get(FOR)):
            return event
        return None

    def newest_events(self) -> Iterator[Envelope]:
        """Some of the last events of the newest two months, the newest first. It takes as long
        whatever the log's length; see :meth:`FileLedger.newest_events`."""
        self._require_unpinned()
        for month in reversed(self.months()[-2:]):
            yield from reversed(self._ledger.newest_events(month))

    def witness(self) -> tuple[int, str] | None:
        """The number and the hash of the last event that the index has seen."""
        return self._index.witness()

    def ledger_and_index(self) -> tuple[FileLedger, Index[S]]:
        """The log and its index themselves, for sealing and recovery, which rewrite them."""
        self._require_unpinned()
        return self._ledger, self._index

    def _require_unpinned(self) -> None:
        if self._view is not None:
            raise PermissionError("the caller is pinned, and this has other agents' events in it")

    def state_at(self, covers: Callable[[Envelope], bool]) -> tuple[S, str]:
        """The state after the last event that ``covers`` is true of, and the time of that event;
        an empty text where there is none.

        Raises:
            ChainError: the log is damaged before that point.
        """
        last = ""

        def envelopes() -> Iterator[Envelope]:
            nonlocal last
            for batch in self._ledger.replay():
                for event in batch.folded():
                    if not covers(event):
                        return
                    last = event.ts
                    yield event

        with self.naming():
            state = self.schema.fold(self.schema.empty, envelopes())
        self.mention_newer(state)
        return self.seen(state), last

    def replay(self, after: Position = START) -> Iterator[Batch]:
        """Every batch of events after a position. Only a chain that is ``unpinned`` has it.

        Raises:
            ChainError: the log is damaged; the batches before the damage have been yielded.
        """
        self._require_unpinned()
        return self._ledger.replay(after)

    def events(self) -> Events:
        """The events that the caller may see, oldest first. Tells at the end where events are
        missing that the index has seen.

        Raises:
            ChainError: the log is damaged; the events before the damage have been yielded.
                ``chain_missing``: nothing is left of it.
        """
        return Events(self._all_events(), self.pinned_to)

    def tail(self, month: str) -> Tail:
        """The events from a month on, and those that are appended meanwhile, as the caller may see
        them.

        Raises:
            ChainError: the log is damaged at its end; ``events_missing``.
        """
        from promptyoself.store.tail import Tail

        with self.naming():
            table = self.schema.tables(self._load_whole().state)[0]
            return Tail(
                self._ledger,
                month,
                self.pinned_to,
                lambda id_: getattr(table.get(id_), "agent_id", None),
            )

    def _all_events(self) -> Iterator[Envelope]:
        witness, end, losses = self._index.witness(), 0, NO_LOSSES.copy()
        with self.naming():
            for batch in self._ledger.replay():
                for event in batch.envelopes:
                    if event.type == "ledger.recovered":
                        losses.record(event)
                end = batch.position.seq
                yield from batch.envelopes
            try:
                self.require_seen(witness, end, losses.recorded)
            except ChainError as error:
                if not end:
                    raise chain_is_gone(self._index.path, witness[0] if witness else 0) from None
                self.warn(error.message)

    def require_whole(self, stamp: object = None) -> None:
        """Refuse a log that is damaged at its end, or that has lost events which were seen. It
        costs nothing where nothing has changed. ``stamp`` is as for :meth:`snapshot`.

        Raises:
            ChainError: ``events_missing``, among others.
        """
        with self.naming():
            self._load_whole(stamp)

    def _load_whole(self, stamp: object = None) -> Snapshot[S]:
        """Everything at the log's end. Raises what :meth:`require_whole` raises."""
        snapshot = self._index.load(stamp)
        if self._index.missing is not None:
            raise self._index.missing
        return snapshot

    def require_seen(
        self, witness: tuple[int, str] | None, end: int, losses: Sequence[Loss]
    ) -> None:
        """Refuse a log that ends at event ``end``, where its index had seen a later event before
        the log was read, and no statement on the chain tells of the loss.

        Args:
            witness: the number and the hash of the event that the index had seen.
            losses: what the statements on the chain tell.

        Raises:
            ChainError: ``events_missing``.
        """
        if witness is None or end >= witness[0]:
            return
        if not any(loss.excuses(*witness) for loss in losses):
            raise events_missing(witness[0], end)

    def mention_newer(self, state: S) -> None:
        """Say so where an answer from this state may be incomplete."""
        if newer := self.schema.newer(state):
            self.seldom.warn(
                "newer",
                f"The log was written by a newer promptyoself: {newer} is not understood "
                "here, so this answer may be incomplete.",
            )

    def transact(
        self, now: datetime, decide: Callable[[S], tuple[Sequence[Draft], Result]]
    ) -> Result:
        """Decide on the state as it is, and append what was decided, before anyone else can.
        ``decide`` gets what the caller may see of it.

        Raises:
            PromptyoselfError: what ``decide`` raised; ``lock_timeout``; ``newer_events``.
            ChainError: the log is damaged; ``events_missing``.
            OSError: the disk refused. In every case nothing was changed.
        """
        with self.naming():
            self._index.prepare()
        with self.naming(), self._ledger.exclusive():
            state, position = self._load_whole()
            if newer := self.schema.newer(state):
                raise ChainError(
                    "newer_events",
                    f"The log was written by a newer promptyoself: {newer} is not understood here.",
                    "Nothing was changed. Upgrade promptyoself; `promptyoself list` and "
                    "`promptyoself history` still work.",
                )
            drafts, result = decide(self.seen(state))
            if drafts:
                self._compare_clocks(now, position.ts)
            # Without drafts too: what we answer from must be durable, whichever process wrote it.
            batch = self._ledger.append(drafts, now, position)
            # Nothing may fail from here on: it would deny what is durable.
            if batch.envelopes:
                state = self.schema.fold(state, batch.envelopes)
                self._index.save(Snapshot(state, batch.position), grown=len(batch.content))
            return result

    def _compare_clocks(self, now: datetime, ts: str) -> None:
        """Say once that this clock is far behind the log, whose time doesn't go on meanwhile."""
        if self._behind or ts <= format_utc(now):
            return
        from promptyoself.core.clocks import LEAP  # which is seldom needed

        if parse_utc(ts) - now > LEAP:
            self._behind = True
            self.warn(
                f"The log's last event is of {ts}, but by this clock it is {format_utc(now)}: this "
                "one is behind, or one that wrote was ahead. New events, and the ends of "
                "approvals, count from the log's time; see `promptyoself doctor`."
            )

    def not_before(self, now: datetime) -> datetime:
        """The time that an event would bear: ``now``, or the last event's time where that is
        later."""
        ts = self._index.load().position.ts
        return max(now, parse_utc(ts)) if ts else now

    def durable_end(self, now: datetime) -> Position:
        """The position after the last event, once no loss of power can undo that event.

        Raises:
            PromptyoselfError: ``lock_timeout``.
            ChainError: the log is damaged; ``events_missing``.
            OSError: the data directory can't be written to.
        """
        with self._ledger.exclusive():
            position = self._load_whole().position
            self._ledger.append([], now, position)
        return position

    def rebuild(self) -> Snapshot[S]:
        """Make the index from the log again, whatever the index says.

        Raises:
            PromptyoselfError: ``lock_timeout``.
            ChainError: the log is damaged; the index is left as it was.
        """
        with self.naming(), self._ledger.exclusive():
            snapshot = self._index.rebuild()
            if snapshot.position != START:  # an index of nothing would say that there was a log
                self._save(snapshot)
        return snapshot

    def _save(self, snapshot: Snapshot[S]) -> None:
        """Write the index of a state that was read, under the lock."""
        # An index must not know of more than is durable: after a loss of power it would bear
        # witness against a log from which nothing acknowledged is missing.
        self._ledger.append([], parse_utc(snapshot.position.ts), snapshot.position)
        self._index.save(snapshot)

    def distrust(self, why: str) -> None:
        """Rebuild the index, since it says something else than the log. ``why`` is told as a
        warning.

        Raises:
            PromptyoselfError: ``lock_timeout``.
            ChainError: the log is damaged.
        """
        self.warn(f"{why}; it was rebuilt from the log.")
        self.rebuild()

    def draft(self, record: Record, id_: str | None, agent_id: str | None = None) -> Draft:
        """An event by the caller, about the schedule or desire ``id_``, for that agent. ``None``:
        about none, for nobody."""
        actor = self.actor if agent_id is None else {**self.actor, FOR: agent_id}
        return Draft(record, id_, actor)


Result = TypeVar("Result")
