"""What a caller may see who is pinned to one agent: that agent's schedules, desires and events."""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from promptyoself.core.errors import PromptyoselfError
from promptyoself.index.schema import StateSchema
from promptyoself.ledger import Envelope
from promptyoself.state.overlay import Overlay, PartFilter, Summary
from promptyoself.state.schedules import AgentState, OpenSlot, Schedule, State

S = TypeVar("S")
V = TypeVar("V")


class View(Generic[S]):
    """The state of a chain as an agent sees it that its caller is pinned to.

    Its tables hold that agent's rows alone. How many schedules, desires and events there are of
    each status and type is told of the whole chain: numbers name nobody.
    """

    def __init__(self, agent_id: str, schema: StateSchema[S]) -> None:
        """``schema`` says which tables the state has."""
        self.agent_id = agent_id
        self._schema = schema

    def of(self, state: S) -> S:
        """That agent's part of a state. Rows are read when they are asked for."""
        tables = tuple(
            Overlay(table.summarize, OwnRows(table, self.agent_id, state))
            for table in self._schema.tables(state)
        )
        own = self._schema.with_tables(state, tables)
        if isinstance(own, State):
            replies = own.replies.items()
            notices = own.notices.items()
            return own._replace(
                open=dict(self._open(own)),
                replies={key: value for key, value in replies if value.agent_id == self.agent_id},
                notices={key: value for key, value in notices if value.agent_id == self.agent_id},
                digests={},  # each tells of every agent
                told_agents={},
            )
        return own

    def everything(self, state: S) -> S:
        """The state that :meth:`of` was asked about, as it was then."""
        rows = self._schema.tables(state)[0].base
        everything: S = rows.state if isinstance(rows, OwnRows) else state
        return everything

    def _open(self, own: State) -> Iterator[tuple[str, OpenSlot]]:
        """The slots of that agent's schedules that have begun."""
        unfinished = set(own.agent(self.agent_id).unfinished)
        for key, slot in own.open.items():
            # Others' schedules aren't read for it: many of their slots may be open.
            if slot.id in unfinished or (
                slot.agent_id == self.agent_id and slot.id in own.schedules
            ):
                yield key, slot


class OwnRows(Generic[V]):
    """The rows of a table that are one agent's: what an :class:`Overlay` is laid over."""

    def __init__(self, table: Overlay[V], agent_id: str, state: Any) -> None:
        """``state`` is the whole state that ``table`` belongs to."""
        self.agent_id = agent_id
        self.state = state
        self._table = table

    def withholds(self, key: str) -> bool:
        """Whether the table has that row, and it is another agent's."""
        value = self._table.get(key)
        return value is not None and not self._is_own(key, value)

    def get(self, key: str) -> V | None:
        """See :class:`~promptyoself.state.overlay.Base`, as for the other methods."""
        value = self._table.get(key)
        return value if value is not None and self._is_own(key, value) else None

    def walk(self, wanted: PartFilter, under: str = "") -> Iterator[tuple[str, V]]:
        """Every row that is wanted, by key, or of the parts ``under`` a path."""
        rows = self._table.items(wanted, under) if under else self._table.in_order(wanted)
        return (row for row in rows if self._is_own(*row))

    def soonest(self, wanted: PartFilter) -> Iterator[tuple[str, str, V]]:
        """The rows that have an instant ahead, by instant."""
        return (row for row in self._table.soonest(wanted) if self._is_own(*row[1:]))

    def ready_by(self, now: str) -> Iterator[tuple[str, str, V]]:
        """The rows that may begin by an instant."""
        return (row for row in self._table.ready_by(now) if self._is_own(*row[1:]))

    def next_ready(self, after: str) -> str | None:
        """The earliest instant later than ``after`` at which one may begin."""
        summaries = (self._table.summarize(value) for _, value in self.walk(_every))
        instants = (summary.ready for summary in summaries)
        return min((ready for ready in instants if ready and ready > after), default=None)

    def __len__(self) -> int:
        return sum(1 for _ in self.walk(_every))

    def _is_own(self, key: str, value: object) -> bool:
        """Agents are rows by their own ids, the owners of desires are texts, and every other row
        names its agent."""
        if isinstance(value, AgentState):
            return key == self.agent_id
        return getattr(value, "agent_id", value) == self.agent_id


def _every(_: Summary) -> bool:
    return True


class Events:
    """The events that a caller may see, oldest first, each with the agent whose schedule or desire
    it was then: ``None`` where it is about neither."""

    def __init__(self, envelopes: Iterable[Envelope], pinned_to: str | None) -> None:
        """``envelopes`` are all events, from the first on."""
        self.owners: dict[str, Any] = {}
        """Of everything that the events read so far are about, whose it is, other agents' too."""
        self._envelopes = envelopes
        self._pinned_to = pinned_to

    def __iter__(self) -> Iterator[tuple[Any, Envelope]]:
        for event in self._envelopes:
            owner = None
            if event.id is not None:
                changes = event.data.get("changes")
                owner = self.owners.get(event.id)
                for data in (event.data, changes if isinstance(changes, dict) else {}):
                    owner = data.get("agent_id", owner)
                self.owners[event.id] = owner
            if self._pinned_to is None or owner == self._pinned_to:
                yield owner, event

    def unseen(self, what: str, id_: str) -> PromptyoselfError:
        """The refusal of an id of which the caller has seen no event, once all were read."""
        if id_ in self.owners:
            return forbidden(f"{id_} belongs to another agent than", self._pinned_to or "")
        return unknown_id(what, id_)


def find_schedule(state: State, id_: str) -> Schedule:
    """The schedule of that id.

    Raises:
        PromptyoselfError: ``unknown_id``; ``forbidden_agent`` where it is another agent's than the
            one that the caller is pinned to.
    """
    schedule = state.schedules.get(id_)
    if schedule is None:
        raise withheld(state.schedules, id_) or unknown_id("schedule", id_)
    return schedule


def withheld(table: Overlay[Any], id_: str) -> PromptyoselfError | None:
    """The refusal of an id that a table hasn't got because it is another agent's; ``None`` where
    there is no such id at all."""
    rows = table.base
    if isinstance(rows, OwnRows) and rows.withholds(id_):
        return forbidden(f"{id_} belongs to another agent than", rows.agent_id)
    return None


_LISTED_BY = {"schedule": "list --status all", "desire": "desires"}


def unknown_id(what: str, id_: str) -> PromptyoselfError:
    """The refusal of an id that no ``schedule``, or no ``desire``, has."""
    shown = id_ if len(id_) <= 80 else id_[:80] + "…"
    return PromptyoselfError(
        "unknown_id",
        f"There is no {what} {shown!r}.",
        f"`promptyoself {_LISTED_BY[what]}` shows the ids there are.",
    )


def forbidden(what: str, agent_id: str) -> PromptyoselfError:
    """The refusal of ``what`` isn't the one agent that the caller is pinned to."""
    return PromptyoselfError(
        "forbidden_agent",
        f"{what} {agent_id!r}.",
        "PROMPTYOSELF_ONLY_AGENT, or a header of the call, pins this caller to that agent.",
    )
