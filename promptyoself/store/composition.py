"""Several changes in one append: each is decided on the state that those before it have made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from promptyoself.core.instants import format_utc
from promptyoself.index.index import Snapshot
from promptyoself.ledger import START
from promptyoself.ledger.linking import provisional_event
from promptyoself.state.apply import apply
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.events.draft import Draft


class Composition:
    """Stands for a store in what changes schedules. Nothing is appended: ``drafts`` has what is to
    be appended once all is decided. What lies in the log is that of the store itself."""

    def __init__(self, store: Store, state: State) -> None:
        """Begin with a state of ``store``, as its caller may see it."""
        self.drafts: list[Draft] = []
        self._store = store
        self._everything = store.unpinned_state(state).copy()

    @property
    def store(self) -> Store:
        """The same, as those take it who take a store."""
        return cast("Store", self)

    def __getattr__(self, name: str) -> Any:
        """Whatever isn't here is the store's own."""
        return getattr(self._store, name)

    def read(self) -> Snapshot[State]:
        """The state after all that was decided so far, as the caller may see it."""
        return Snapshot(self._store.seen(self._everything), START)

    def unpinned_state(self, _: State) -> State:
        """That state with everything in it."""
        return self._everything

    def transact(
        self, now: datetime, decide: Callable[[State], tuple[Sequence[Draft], Any]]
    ) -> Any:
        """Decide on that state, and keep what was decided.

        Raises:
            PromptyoselfError: what ``decide`` raised. What was decided before stays.
        """
        drafts, result = decide(self.read().state)
        ts = format_utc(now)
        for draft in drafts:
            event = provisional_event(draft.record, draft.id, ts)
            apply(self._everything, event)
        self.drafts.extend(drafts)
        return result
