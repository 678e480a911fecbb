"""The end of a chain: its events from a month on, and those that are appended meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from promptyoself.events.draft import FOR
from promptyoself.ledger import Envelope, FileLedger


class Tail:
    """Reads the end of a chain, and then what is appended to it, again and again. Nothing is left
    out, and nothing comes twice."""

    def __init__(
        self,
        ledger: FileLedger,
        month: str,
        pinned_to: str | None,
        owner_now: Callable[[str], str | None],
    ) -> None:
        """Begin with the first event of ``month``. ``pinned_to`` leaves out all agents but that
        one. ``owner_now`` tells whose a schedule or desire is as things stand, by its id; older
        logs don't name the agent in each event.

        Raises:
            OSError: the disk refused.
        """
        self._ledger = ledger
        self._pinned_to = pinned_to
        self._owner_now = owner_now
        self._owners: dict[str, str] = {}  # as events have named them, by the id
        self._position = ledger.end_before(month)

    def read(self) -> Iterator[tuple[str | None, Envelope]]:
        """The events that weren't read yet, oldest first, each with the agent that it is for:
        ``None`` where it is for none. A caller that stops early gets the rest never.

        Raises:
            HeadMoved: what was read before isn't in the log any more.
            ChainError: the log is damaged; the events before the damage have been yielded.
        """
        for batch in self._ledger.replay(self._position):
            self._position = batch.position
            for event in batch.envelopes:
                owner = self._owner(event)
                if self._pinned_to is None or owner == self._pinned_to:
                    yield owner, event

    def _owner(self, event: Envelope) -> str | None:
        """The agent that an event names, else the one that an earlier event has named."""
        if event.id is None:
            return None
        changes = event.data.get("changes")
        for data in (changes if isinstance(changes, dict) else {}, event.data):
            if "agent_id" in data:
                owner = self._owners[event.id] = str(data["agent_id"])
                return owner
        named = event.actor.get(FOR) or self._owners.get(event.id)
        if named is not None or self._pinned_to is not None:
            return named
        return self._owner_now(event.id)
