"""SHA-256. A command hashes a handful of short texts, a replay millions of lines.

hashlib loads OpenSSL, which takes 3 ms, a twentieth of a command, and then hashes a line in a third
of the time. So the first ones are left to Python's own implementation, as the standard library's
``random`` does with SHA-512, and OpenSSL is loaded for those who go on.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

__all__ = ["sha256"]

_FEW = 500


class Digest(Protocol):
    """What a hash in the making can do."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


def _own() -> Callable[[bytes], Digest]:
    for name in (
        "_sha256",
        "_sha2",
        "hashlib",
    ):  # up to Python 3.11; from 3.12 on; where neither is
        try:
            found: Callable[[bytes], Digest] = import_module(name).sha256
        except ImportError:
            continue
        return found
    raise ImportError("hashlib")


class _Sha256:
    def __init__(self) -> None:
        self._left = _FEW
        self._make = _own()

    def __call__(self, data: bytes = b"") -> Digest:
        """A SHA-256 of some bytes, to which more may be added."""
        return self.for_many(1)(data)

    def for_many(self, count: int) -> Callable[[bytes], Digest]:
        """What makes each of so many, without the cost of a call of ours."""
        if self._left > 0:
            self._left -= count
            if self._left <= 0:
                self._make = import_module("hashlib").sha256
        return self._make


sha256 = _Sha256()
"""Takes some bytes, and gives their :class:`Digest`."""
