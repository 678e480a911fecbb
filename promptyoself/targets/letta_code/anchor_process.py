"""The sender's side of :mod:`~promptyoself.targets.letta_code.anchor`: starting that process, and
asking it to keep conversations going."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeout
from typing import Any

from promptyoself.targets.letta_code.failures import Address

_PATIENCE = 10.0  # seconds


class AnchorProcess:
    """The process that outlives this one. It is started for the first conversation, and again for
    the next one whenever it has ended."""

    def __init__(self, address: Address, token: str | None, timeout: float) -> None:
        """``timeout`` is in seconds, for each of its own requests."""
        self._hello = {
            "url": address.url,
            "shown": address.shown,
            "token": token,
            "timeout": min(timeout, _PATIENCE),
        }
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def start(self) -> None:
        """Have it started, and wait for nothing: it takes as long as many a question."""
        with contextlib.suppress(OSError):
            self._started()

    def keep(self, agent_id: str, conversation_id: str) -> bool:
        """Have a turn that begins there soon kept going; whether that is certain."""
        for _ in range(2):  # it may have ended just now, since it had nothing to keep
            try:
                answer = self._started().ask(agent_id, conversation_id)
            except OSError:
                continue
            try:
                return answer.result(_PATIENCE)
            except AnswerTimeout:
                return False
            except EOFError:
                continue
        return False

    def _started(self) -> _Running:
        with self._lock:
            if self._running is None or self._running.has_ended:
                self._running = _Running(self._hello)
            return self._running

    def close(self) -> None:
        """Let it go. It ends by itself, once nothing is left to keep."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.let_go()


class _Running:
    """One such process."""

    def __init__(self, hello: dict[str, Any]) -> None:
        # It gets no descriptor but the two pipes: else a pipe to this program would stay open.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "promptyoself.targets.letta_code.anchor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._lock = threading.Lock()  # of all that follows
        self._waiting: dict[int, Future[bool]] = {}
        self._number = 0
        self.has_ended = False
        self._write(hello)
        threading.Thread(target=self._listen, name="letta-code-anchor", daemon=True).start()

    def ask(self, agent_id: str, conversation_id: str) -> Future[bool]:
        """Its answer, when that comes; ``EOFError`` if it ends before.

        Raises:
            OSError: it has ended.
        """
        answer: Future[bool] = Future()
        with self._lock:
            if self.has_ended:
                raise BrokenPipeError
            self._number += 1
            self._waiting[self._number] = answer
            request = {"id": self._number, "agent_id": agent_id, "conversation_id": conversation_id}
            try:
                self._write(request)
            except OSError:  # its end is noticed here before it is read
                self.has_ended = True
                raise
        return answer

    def let_go(self) -> None:
        """Close its stdin, which tells it that nobody will ask it any more."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                said = json.loads(line)
                with self._lock:
                    answer = self._waiting.pop(said["id"], None)
                if answer is not None:
                    answer.set_result(said["kept"])
        with self._lock:
            self.has_ended = True
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(EOFError())
        self.let_go()
        self._process.stdout.close()
        self._process.wait()
