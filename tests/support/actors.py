"""Processes that have started already and run one command after another as they are told: for
races, where the half second in which Python starts would decide, and for clocks that differ."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from calling import Answer, call

from promptyoself.core.settings import load_settings
from promptyoself.doors.session import Session
from promptyoself.store.store import Store

PATIENCE = 120.0


class Dead(Exception):
    """The process was killed before it had answered."""


class Actor:
    """One of them, as its parent sees it."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        self._receive()

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, *arguments: str) -> None:
        """Tell it to run a command; its answer is for :meth:`end` to fetch."""
        self._send("call", *arguments)

    def end(self) -> Answer:
        """The answer to what was begun. Raises ``Dead``."""
        code, out, err = self._receive()
        return Answer(code, out.encode("utf-8", "surrogateescape"), err)

    def call(self, *arguments: str) -> Answer:
        """Both at once."""
        self.begin(*arguments)
        return self.end()

    def answers_within(self, seconds: float) -> bool:
        """Whether what was begun is over by then."""
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def set_ahead(self, ahead: timedelta) -> None:
        """Set its clock, as far as commands look at it."""
        self._send("ahead", ahead.total_seconds())
        self._receive()

    def hold(self) -> None:
        """Let it take the log's lock, and keep it."""
        self._send("hold")
        self._receive()

    def release(self) -> None:
        """Let it go of the lock, if it is not stopped."""
        self._send("release")
        self._receive()

    def signal(self, number: int) -> None:
        """Send it a signal; it has arrived when this returns."""
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(PATIENCE)
        elif number == signal.SIGSTOP:
            os.waitpid(self.pid, os.WUNTRACED)

    def _send(self, *words: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(words) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Dead from None

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        assert self.answers_within(PATIENCE), "a deadlock: it doesn't answer"
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise Dead
        return orjson.loads(line)


def main() -> None:
    """The life of such a process."""
    ahead = timedelta(0)
    Session.now = lambda _: datetime.now(UTC) + ahead  # type: ignore[method-assign]
    descriptor, held = os.dup(1), ExitStack()

    def answer(value: Any) -> None:
        os.write(descriptor, orjson.dumps(value) + b"\n")

    call("list")  # imports what commands need
    answer(None)
    for line in sys.stdin.buffer:
        word, *arguments = orjson.loads(line)
        if word == "call":
            code, out, err = call(*arguments)
            answer([code, out.decode("utf-8", "surrogateescape"), err])
            continue
        if word == "ahead":
            ahead = timedelta(seconds=arguments[0])
        elif word == "hold":
            store = Store(load_settings(), {"via": "test", "who": "holder"}, warn=print)
            held.enter_context(store.exclusive())
        elif word == "release":
            held.close()
        answer(None)


if __name__ == "__main__":
    main()
