"""The pages of a running loop for a Prometheus and a supervisor: ``/metrics`` and ``/healthz``.

It has a thread and a store of its own, and takes no lock that the loop waits for: a scrape in the
middle of a storm costs the loop no more than the processor's time. One request is answered after
another, each within seconds, however slowly the client sends it.
"""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from errno import EADDRINUSE
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import orjson

from promptyoself.core.connections import BoundedServer, is_own_name, most_connections
from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.events.target_names import TargetName
from promptyoself.rules.health import failed, failing, targets_in_use
from promptyoself.service.delivery.loop import Heartbeat
from promptyoself.service.metrics.collect import Measurements, Measurer
from promptyoself.service.metrics.prometheus import CONTENT_TYPE, render, require_library
from promptyoself.state.schedules import State
from promptyoself.store.store import Store
from promptyoself.targets.api import TROUBLE, Target, Targets

_PATIENCE = 30.0
"""Seconds by which a pass may be late, beside the time limit of the log's lock."""

MOST_CONNECTIONS = 64
_REQUEST_SECONDS = 5.0
_LEAVE_SECONDS = 1.0
_CHECK_EVERY = 15.0
_CHECK_WAIT = 2.0


class Health(NamedTuple):
    """One check: whether it is well, and if it isn't, why."""

    name: str
    ok: bool
    code: str = ""
    detail: str = ""


class Monitor:
    """Watches one loop."""

    def __init__(
        self,
        make_store: Callable[[], Store],
        heartbeat: Heartbeat,
        targets: Targets,
        clock: Callable[[], datetime],
    ) -> None:
        """``make_store`` makes stores of the loop's data directory, one for each thread.
        ``targets`` are the monitor's own, with a short time limit.

        Raises:
            PromptyoselfError: ``missing_package``.
        """
        require_library()
        self._make_store = make_store
        self._store = make_store()
        self._heartbeat = heartbeat
        self._targets = targets
        self._clock = clock
        self._measurer: Measurer | None = None
        self._warming: threading.Thread | None = None
        self._checks: dict[TargetName, _TargetCheck] = {}  # of targets that were asked
        self._used: tuple[State | None, frozenset[TargetName]] = (None, frozenset())

    @contextmanager
    def serving(self, port: int) -> Iterator[str]:
        """Serve on 127.0.0.1, as long as the context lasts. Yields the URL. Port 0 is any free one.

        Raises:
            PromptyoselfError: ``port_in_use``, ``cannot_listen``.
        """
        try:
            server = _Server(("127.0.0.1", port), self._answer_to)
        except OSError as error:
            taken = error.errno == EADDRINUSE
            raise PromptyoselfError(
                "port_in_use" if taken else "cannot_listen",
                f"Cannot serve metrics on 127.0.0.1:{port}: {error.strerror}.",
                "Choose another --metrics-port; 0 takes any that is free.",
            ) from None
        # The log may be long, and nothing counted yet: whether all is well can be told meanwhile.
        self._warming = threading.Thread(target=self._warm, name="metrics", daemon=True)
        self._warming.start()
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="http", daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            # An answer under way may take seconds, for which the loop's end needn't wait.
            threading.Thread(target=server.shutdown, name="shutdown", daemon=True).start()
            thread.join(_LEAVE_SECONDS)
            server.server_close()

    def health(self) -> list[Health]:
        """The result of every check."""
        reachable = [self._reachable(name) for name in sorted(self._targets_in_use())]
        return [self._loop(), self._clock_check(), *reachable, *self._log()]

    def metrics(self) -> bytes:
        """The page for a Prometheus. Raises ``not_ready`` while the log is counted for the first
        time, and what :meth:`~promptyoself.service.metrics.collect.Measurer.measure` raises."""
        if self._warming is not None and self._warming.is_alive():
            raise PromptyoselfError(
                "not_ready", "The log is being counted for the first time.", "Ask again later."
            )
        if self._measurer is None:
            self._measurer = Measurer(self._make_store())
        metrics: Measurements = self._measurer.measure(self._clock())
        metrics["promptyoself_health"] = [((check.name,), int(check.ok)) for check in self.health()]
        metrics["promptyoself_loop_passes_total"] = [((), self._heartbeat.passes)]
        if self._heartbeat.last is not None:
            last_pass = self._heartbeat.last.timestamp()
            metrics["promptyoself_loop_last_pass_timestamp_seconds"] = [((), last_pass)]
        return render(metrics)

    def _warm(self) -> None:
        measurer = Measurer(self._make_store())
        with suppress(PromptyoselfError, OSError):  # which the first scrape will meet again
            measurer.measure(self._clock())
        self._measurer = measurer

    def _loop(self) -> Health:
        late = time.monotonic() - self._heartbeat.next_by
        if late <= _PATIENCE + self._store.settings.lock_timeout:
            return Health("loop", True)
        why = self._heartbeat.error or "The loop hasn't come back from its last pass."
        return Health("loop", False, "no_pass", f"No pass for {late:.0f} s. {why}")

    def _clock_check(self) -> Health:
        why = self._heartbeat.clock
        return Health("clock", not why, "clock_distrusted" if why else "", why)

    def _targets_in_use(self) -> frozenset[TargetName]:
        """The targets that schedules go to, or that the loop has met trouble at. Without any other,
        it is Letta. A Broca's queue can't be asked from here, and its own loop serves it."""
        with suppress(PromptyoselfError, OSError):  # of which the check of the log tells
            state = self._store.unpinned.snapshot().state
            if state is not self._used[0]:
                self._used = state, targets_in_use(state)
        used = self._used[1] | self._heartbeat.troubles.keys() or frozenset[TargetName]({"letta"})
        return used - {"broca"}

    def _reachable(self, name: TargetName) -> Health:
        """A target's health, as deliveries have met it; without any trouble, a call finds out."""
        trouble = self._heartbeat.troubles.get(name)
        if trouble is not None and time.monotonic() < trouble.until:
            return Health(name, False, trouble.code, "Deliveries are held back.")
        check = self._checks.get(name)
        if check is None:
            check = self._checks[name] = _TargetCheck(self._targets[name])
        return check.result()

    def _log(self) -> list[Health]:
        """The checks of the log, and of the schedules in it."""
        try:
            self._store.require_whole()
            state = self._store.unpinned.snapshot().state
            return [_chain(state), _schedules(state)]  # which may read parts of the index
        except PromptyoselfError as error:
            return [Health("chain", False, error.code, error.message)]
        except OSError as error:
            return [Health("chain", False, "os_error", error.strerror or str(error))]

    def _answer_to(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and content of the answer."""
        path = path.partition("?")[0]
        try:
            if path == "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, self.metrics()
            if path == "/healthz":
                return self._answer_health()
        except PromptyoselfError as error:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return _refusal(status, error.code, error.message, error.hint)
        except Exception as error:  # a bug, or a disk: the next scrape may fare better
            message = f"{type(error).__name__}: {error}"
            warning = f"A request for {path[:100]} failed: {sentence(message)}"
            self._store.seldom.warn(f"{path} {type(error).__name__}", warning)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message)
        text, hint = f"There is no {path[:200]!r}.", "Ask for /metrics or /healthz."
        return _refusal(HTTPStatus.NOT_FOUND, "not_found", text, hint)

    def _answer_health(self) -> tuple[HTTPStatus, str, bytes]:
        checks = self.health()
        listed = [check._asdict() for check in checks]
        failed = [check for check in checks if not check.ok]
        if not failed:
            return _document(HTTPStatus.OK, {"status": "success", "checks": listed})
        what = "; ".join(f"{check.name} ({check.code}: {check.detail})" for check in failed)
        text = f"{len(failed)} of {len(checks)} checks failed: {what}."
        return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unhealthy", text, checks=listed)


class _TargetCheck:
    """Asks one target from time to time, and remembers what came of it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._thread: threading.Thread | None = None
        self._asked_at = float("-inf")
        self._health = Health(target.traits.name, True)

    def result(self) -> Health:
        """How it is. If it was long ago that it was asked, it is asked again, and given a moment to
        answer."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and time.monotonic() - self._asked_at >= _CHECK_EVERY:
            self._asked_at = time.monotonic()
            name = self._target.traits.name
            self._thread = threading.Thread(target=self._ask, name=name, daemon=True)
            self._thread.start()
        if self._thread is not None:
            self._thread.join(_CHECK_WAIT)
        return self._health

    def _ask(self) -> None:
        name = self._target.traits.name
        try:
            self._target.check()
        except PromptyoselfError as error:
            well = error.code not in TROUBLE
            self._health = Health(name, well, "" if well else error.code, error.message)
        else:
            self._health = Health(name, True)


def _chain(state: State) -> Health:
    if state.newer:
        return Health("chain", False, "newer_events", f"{state.newer} is not understood here.")
    return Health("chain", True)


def _schedules(state: State) -> Health:
    ended, ending = failed(state), failing(state)
    if not ended and not ending:
        return Health("schedules", True)
    detail = "; ".join(text for text in (ended, ending) if text)
    return Health("schedules", False, "failed" if ended else "failing", f"{detail}.")


def _document(status: HTTPStatus, document: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", orjson.dumps(document, default=repr) + b"\n"


def _refusal(
    status: HTTPStatus, code: str, message: str, hint: str = "", **more: Any
) -> tuple[HTTPStatus, str, bytes]:
    error = {"status": "error", "code": code, "message": message, "hint": hint, "error": message}
    return _document(status, {**error, **more})


class _Server(BoundedServer):
    """A connection for each request. They are read at once, and answered one after another."""

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], answer: Callable[[str], tuple[HTTPStatus, str, bytes]]
    ) -> None:
        self._answer, self._turn = answer, threading.Lock()
        self.most = most_connections(MOST_CONNECTIONS)
        super().__init__(address, _Handler)

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        with self._turn:
            return self._answer(path)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client has gone, or was too slow, so nobody is there to be told."""


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0, so that each connection ends with its answer."""

    server: _Server
    server_version = "promptyoself"
    sys_version = ""
    timeout = _REQUEST_SECONDS

    def setup(self) -> None:
        super().setup()
        # With one time limit for all that is read, not for each piece of it.
        self.rfile = io.BufferedReader(_Until(self.connection, _REQUEST_SECONDS))

    def do_GET(self) -> None:
        self.server.is_asked(self.connection)
        if not is_own_name(self.headers.get("Host")):
            text = "This name isn't this machine's; ask for localhost, or an address."
            self._respond(*_refusal(HTTPStatus.MISDIRECTED_REQUEST, "forbidden_host", text))
            return
        self._respond(*self.server.answer(self.path))

    do_HEAD = do_GET  # noqa: N815

    def _respond(self, status: HTTPStatus, content_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.connection.settimeout(_REQUEST_SECONDS)
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself: another method, a request that is none."""
        del explain
        status = HTTPStatus(code)
        if not hasattr(self, "command"):
            self.command = ""
        self.request_version = "HTTP/1.0"
        text = f"{message or status.phrase}."
        self._respond(*_refusal(status, "bad_request", text, "GET /metrics or /healthz."))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: stderr has the loop's log."""


class _Until(io.RawIOBase):
    """Reads from a socket until a time is over, however many bytes come in between."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds_left = self._end - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds_left)
        return self._connection.recv_into(buffer)
