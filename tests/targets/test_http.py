"""Connections that many threads take from one pool."""

from __future__ import annotations

from collections import deque
from typing import Any

from promptyoself.targets.http import _Pool


class Shared(deque[Any]):
    """Connections that rest; another thread takes each at the moment at which it is there."""

    def append(self, item: Any) -> None:
        super().append(item)
        self.pop()


def test_a_connection_that_another_thread_takes_at_once_breaks_no_call() -> None:
    """P2: a call that was answered doesn't fail over what becomes of its connection: the delivery
    would be in doubt."""
    pool = _Pool(lambda _: None, takes_packed=False)
    pool._idle = Shared()
    pool._release(object())
    assert not pool._idle
