"""One WebSocket to an App Server, which any number of threads use at once.

``websockets`` is imported on first use. Relied upon, as measured with Letta Code 0.32.13 and
0.34.12:

- Every answer bears the ``request_id`` of its request. A frame of a kind that the server doesn't
  know has no answer at all.
- A connection is told of every conversation that one of its frames has named, for as long as it
  lives. There is no frame that ends that. So a connection is given up after some hundreds of
  conversations, and another one is opened.
- A server that was just started fails the first turns with ``Unknown model``, if several begin at
  once, unless its models were listed before.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeout
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from promptyoself.targets.api import DeliveryError, Kind
from promptyoself.targets.letta_code.failures import OLDEST, Address, Failures
from promptyoself.targets.letta_code.watch import Watch

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

T = TypeVar("T")

_MOST_BYTES = 64 * 2**20  # of one frame
_TOO_LONG = 1009  # the code with which a connection is closed over a longer one
_MOST_FRAMES = 1024  # that were received, and wait to be taken in
_MOST_CONVERSATIONS = 500
_UNUSED = 60.0  # seconds after which a connection that has nothing to do is closed
_GLANCE = 1.0  # seconds between two looks at whether it has
_PATIENCE = 10.0  # seconds for what a server answers at once, or never


class Connection:
    """An open connection, and what was told over it.

    Args:
        address: of the App Server.
        token: sent as a bearer token; None: none is sent.
        timeout: seconds that opening may take.

    Raises:
        DeliveryError: ``retry`` or ``unauthorized``.
    """

    def __init__(
        self, address: Address, token: str | None, failures: Failures, timeout: float
    ) -> None:
        self._failures = failures
        self._lock = threading.Lock()  # of all that follows
        self._waiting: dict[str, Future[dict[str, Any]]] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._open = True
        self._garbage = self._too_long = False
        self._used = time.monotonic()
        self._models = threading.Lock()
        self._models_listed = False
        self._requests = f"promptyoself-{uuid4().hex[:12]}-"
        self._number = 0
        self._socket = _opened(address, token, failures, timeout)
        threading.Thread(target=self._read, name="letta-code", daemon=True).start()
        try:
            self.version = self._version(timeout)
        except BaseException:
            self.close()
            raise

    def claim(self) -> bool:
        """Whether it may still be used for another call. If so, it isn't closed for a while."""
        with self._lock:
            if not self._open or len(self._watches) >= _MOST_CONVERSATIONS:
                return False
            self._used = time.monotonic()
            return True

    @property
    def alive(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._open

    def ask(
        self,
        kind: str,
        doing: str,
        timeout: float,
        failing: Kind = "doubt",
        *,
        request_id: str | None = None,
        answer_kind: str | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Send a frame, and wait for its answer, for ``timeout`` seconds at most.

        ``doing`` is what the error says was being done. ``failing`` is the kind of error where no
        answer came.

        Raises:
            DeliveryError: of the kind ``failing``; ``retry`` if the frame certainly wasn't written.
        """
        request_id = request_id or self.next_id()
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if not self._open:
                raise self._broken(doing, "retry")
            self._waiting[request_id] = answer
            self._used = time.monotonic()
        try:
            try:
                self._socket.send(json.dumps({"type": kind, "request_id": request_id, **fields}))
            except Exception:  # it is closed, or broke off
                raise self._broken(doing, failing) from None
            try:
                frame = answer.result(timeout)
            except AnswerTimeout:
                raise self._failures.timeout(doing, timeout, failing) from None
            except EOFError:
                raise self._broken(doing, failing) from None
        finally:
            with self._lock:
                self._waiting.pop(request_id, None)
        if frame.get("type") != (answer_kind or f"{kind}_response"):
            raise self._failures.unreadable(doing, failing, frame)
        return frame

    def asked(
        self, kind: str, doing: str, timeout: float, failing: Kind = "doubt", **fields: Any
    ) -> dict[str, Any]:
        """The same, where an answer says whether it is a success.

        Raises:
            DeliveryError: also ``permanent``, where the agent or the conversation isn't known.
        """
        frame = self.ask(kind, doing, timeout, failing, **fields)
        if frame.get("success") is not True:
            raise self._failures.unknown(str(frame.get("error") or ""), doing, failing)
        return frame

    def next_id(self) -> str:
        """An id for a request, which no other connection gives."""
        with self._lock:
            self._number += 1
            return f"{self._requests}{self._number}"

    def looking(self, agent_id: str, conversation_id: str, look: Callable[[Watch], T]) -> T:
        """What ``look`` says of that conversation, while nothing else is taken in."""
        with self._lock:
            watch = self._watches.get((agent_id, conversation_id))
            if watch is None:
                watch = Watch(agent_id, conversation_id)
                self._watches[agent_id, conversation_id] = watch
            return look(watch)

    def list_models(self, timeout: float) -> None:
        """Have the server list its models, the first time. If it can't, that is no failure."""
        with self._models:
            if self._models_listed:
                return
            try:
                patience = min(timeout, _PATIENCE)
                self.ask("list_models", "listing its models", patience, "retry")
            except DeliveryError as error:
                if error.code != "letta_code_timeout":
                    raise
            self._models_listed = True

    def close(self) -> None:
        """Close it. What waits for an answer fails."""
        with self._lock:
            self._open = False
        self._socket.close()

    def _version(self, timeout: float) -> str:
        patience = min(timeout, _PATIENCE)
        info = self.asked("app_server_info", "asking for its version", patience, "retry")
        version = info.get("letta_code_version")
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version) if isinstance(version, str) else None
        if not isinstance(version, str) or numbers is None:
            raise self._failures.unreadable("asking for its version", "retry", info)
        if tuple(map(int, numbers.groups())) < OLDEST:
            raise self._failures.too_old(version)
        return version

    def _broken(self, doing: str, kind: Kind) -> DeliveryError:
        if self._garbage:
            return self._failures.unreadable(doing, kind)
        if self._too_long:
            return self._failures.too_long(doing, kind)
        return self._failures.lost(doing, kind)

    def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                try:
                    text = self._socket.recv(timeout=_GLANCE)
                except TimeoutError:
                    if self._is_needless(time.monotonic()):
                        return
                    continue
                self._take_in(json.loads(text))
        except ConnectionClosed as error:
            self._too_long = error.sent is not None and error.sent.code == _TOO_LONG
        except Exception:  # what no App Server sends
            self._garbage = True
        finally:
            with self._lock:
                self._open = False
                waiting = list(self._waiting.values())
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(EOFError())
            self._socket.close()

    def _take_in(self, frame: object) -> None:
        if not isinstance(frame, dict):
            raise ValueError("a frame is an object")
        runtime = frame.get("runtime")
        with self._lock:
            if isinstance(runtime, dict):
                key = (runtime.get("agent_id"), runtime.get("conversation_id"))
                watch = self._watches.get(key)  # type: ignore[arg-type]
                if watch is not None:
                    watch.see(frame, time.monotonic())
            answer = self._waiting.pop(str(frame.get("request_id")), None)
        if answer is not None:
            answer.set_result(frame)

    def _is_needless(self, now: float) -> bool:
        """Whether it may be closed; if so, nobody else uses it from now on."""
        with self._lock:
            spent = len(self._watches) >= _MOST_CONVERSATIONS or now - self._used > _UNUSED
            at_work = self._waiting or any(
                not (turn.is_over(now) or turn.is_forgotten(now))
                for watch in self._watches.values()
                for turn in watch.turns
            )
            if not spent or at_work:
                return False
            self._open = False
            return True


def _opened(
    address: Address, token: str | None, failures: Failures, timeout: float
) -> ClientConnection:
    try:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect
    except ImportError as error:
        raise failures.not_installed(error) from None
    # At DEBUG it logs whole frames, prompts included.
    log = logging.getLogger("websockets.client")
    log.setLevel(max(log.level, logging.INFO))
    try:
        # It is never left: `close` closes it.
        return connect(
            address.url,
            additional_headers={"Authorization": f"Bearer {token}"} if token else {},
            open_timeout=timeout,
            close_timeout=1.0,
            max_size=_MOST_BYTES,
            max_queue=_MOST_FRAMES,
            compression=None,
            proxy=None,
            logger=log,
        ).__enter__()
    # The cause is named, not chained: it may hold headers.
    except InvalidStatus as error:
        raise failures.refused(error.response.status_code) from None
    except (InvalidHandshake, ConnectionClosed):
        raise failures.unreadable("the opening of a connection", "retry") from None
    except Exception as error:
        raise failures.unreachable(error) from None
