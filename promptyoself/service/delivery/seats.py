"""How many deliveries may be under way at once."""

from __future__ import annotations


class Seats:
    """The seats of one worker, and the deliveries that hold one.

    A delivery that waits for something else than its agent's answer leaves its seat, so that stuck
    agents can't keep the others from their prompts, however many they are.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._held_by: set[str] = set()

    def update(self, key: str, *, holds_seat: bool) -> bool:
        """Note whether a delivery holds a seat; whether that has set one free."""
        if holds_seat:
            self._held_by.add(key)
            return False
        if key in self._held_by:
            self._held_by.remove(key)
            return True
        return False

    def free(self, *, only_one: bool) -> int:
        """How many more deliveries may begin; with ``only_one``, at most one may hold a seat."""
        return max((1 if only_one else self._concurrency) - len(self._held_by), 0)
