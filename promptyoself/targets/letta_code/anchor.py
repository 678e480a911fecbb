"""A process that keeps turns going whose sender dies: ``python -m`` this module.

An App Server breaks off a turn when the last connection closes that is told of its conversation.
From then on a shared conversation takes no message until the server is started again. So each
sender has a process of this kind, in a session of its own, whose connection is told of the same
conversations. It outlives its sender until they are idle.

It is told on stdin where the App Server is, and then of a conversation a line. It answers a line
for each, once its connection is told of that conversation. All lines are JSON. It ends when nothing
is left to keep: then the sender starts another one for its next prompt.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, NamedTuple

from promptyoself.targets.api import DeliveryError
from promptyoself.targets.letta_code.connection import Connection
from promptyoself.targets.letta_code.failures import Address, Failures
from promptyoself.targets.letta_code.watch import Watch

_LONGEST = 900.0  # seconds that one conversation is kept
_BEGINS = 60.0  # seconds within which the turn must have begun, for which it is kept
_UNUSED = 60.0  # seconds without anything to keep, after which it ends
_GLANCE = 1.0  # seconds between two looks
_AT_ONCE = 64  # conversations that it is told of at the same time: a sender waits for each


class Kept(NamedTuple):
    """A conversation that is kept going, and since when, by a monotonic clock."""

    agent_id: str
    conversation_id: str
    since: float


def is_over(kept: Kept, watch: Watch, now: float) -> bool:
    """Whether a conversation needn't be kept going any longer."""
    age = now - kept.since
    never_begins = not watch.was_busy and age > _BEGINS
    return age > _LONGEST or never_begins or (watch.was_busy and watch.idle)


class _Anchor:
    """The connection, and the conversations that it is told of."""

    def __init__(self, address: Address, token: str | None, timeout: float) -> None:
        self._address = address
        self._token = token
        self._timeout = timeout
        self._failures = Failures(address.shown, bool(token))
        self._lock = threading.Lock()  # of the next two
        self._connection: Connection | None = None
        self._kept: dict[tuple[str, str], tuple[Connection, Kept]] = {}

    def keep(self, agent_id: str, conversation_id: str) -> None:
        """Keep a turn going that begins there soon.

        Raises:
            DeliveryError: the App Server can't be told.
        """

        def begins(watch: Watch) -> None:
            watch.was_busy = False

        kept = Kept(agent_id, conversation_id, time.monotonic())
        with self._lock:
            if self._connection is None or not self._connection.claim():
                self._connection = Connection(
                    self._address, self._token, self._failures, self._timeout
                )
            connection = self._connection
            connection.looking(agent_id, conversation_id, begins)
            self._kept[agent_id, conversation_id] = connection, kept
        # Whatever names a conversation has the server tell of it. This changes nothing, since there
        # is no such item, and takes a twentieth of the time of a `sync`.
        connection.ask(
            "remove_queue_item",
            "being told of a conversation",
            self._timeout,
            runtime={"agent_id": agent_id, "conversation_id": conversation_id},
            item_id="none",
        )

    def is_needed(self) -> bool:
        """Whether anything is left to keep."""
        now = time.monotonic()
        with self._lock:
            for key, (connection, kept) in list(self._kept.items()):
                is_done = connection.looking(*key, partial(is_over, kept, now=now))
                if is_done or not connection.alive:
                    del self._kept[key]
            for connection, _ in self._kept.values():
                connection.claim()  # so that it isn't closed meanwhile
            return bool(self._kept)


def serve(lines: int, answers: IO[bytes]) -> None:
    """Keep what is asked for in the lines of a descriptor, and write the answers."""
    stopped = threading.Event()
    # In a service that is stopped, every process gets this. What has begun is to end by itself.
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    anchor: _Anchor | None = None
    buffer = b""
    asked = time.monotonic()
    answering = threading.Lock()

    def keep(anchor: _Anchor, request: dict[str, Any]) -> None:
        answer = {"id": request["id"], "kept": True}
        try:
            anchor.keep(request["agent_id"], request["conversation_id"])
        except DeliveryError as error:
            answer |= {"kept": False, "code": error.code}
        with answering:
            try:
                answers.write(json.dumps(answer).encode() + b"\n")
                answers.flush()
            except OSError:  # the sender has died
                stopped.set()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            if not stopped.is_set() and select.select([lines], [], [], _GLANCE)[0]:
                chunk = os.read(lines, 65536)
                if not chunk:
                    stopped.set()
                *whole, buffer = (buffer + chunk).split(b"\n")
                for line in whole:
                    request = json.loads(line)
                    asked = time.monotonic()
                    if anchor is None:
                        anchor = _Anchor(
                            Address(request["url"], request["shown"]),
                            request["token"],
                            request["timeout"],
                        )
                    else:
                        pool.submit(keep, anchor, request)
                continue
            if stopped.is_set():
                time.sleep(_GLANCE)
            needed = anchor is not None and anchor.is_needed()
            if not needed and (stopped.is_set() or time.monotonic() - asked > _UNUSED):
                return


if __name__ == "__main__":
    serve(sys.stdin.fileno(), sys.stdout.buffer)
