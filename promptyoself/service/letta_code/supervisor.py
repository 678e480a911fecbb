"""Starting an App Server of Letta Code, and keeping it running."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself.core.addresses import web_socket
from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.times import shown
from promptyoself.service.letta_code.listeners import listener_on
from promptyoself.service.letta_code.probe import address_of, ask, is_ready
from promptyoself.service.letta_code.program import Program
from promptyoself.service.letta_code.store_lock import Holder, StoreLock, locked

QUIET = {
    "LETTA_CODE_TELEM": "0",
    "DO_NOT_TRACK": "1",
    "DISABLE_AUTOUPDATER": "1",
    "LETTA_SKIP_KEYCHAIN_CHECK": "1",
}
"""What keeps Letta Code from talking to anybody but its model, where nothing else is set."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before it is started again, after the first quick death, the second, and so on. After one
more it is given up."""

QUICK_SECONDS = 60.0
"""A life shorter than this is a quick death."""

READY_SECONDS = 60.0
"""What an App Server may take to be ready."""

LOOK_SECONDS = 10.0
"""The time between two looks at whether it still answers."""

ANSWER_SECONDS = 5.0
"""What it may take to answer such a look."""

_END_SECONDS = 10.0

Event = dict[str, Any]


class Plan(NamedTuple):
    """The App Server that is to run."""

    program: Program
    url: str
    """Where it listens."""
    token: str | None
    """What its clients have to show."""
    store: Path
    environ: Mapping[str, str]


def require_address(url: str, token: str | None) -> None:
    """Refuse an address on which no App Server can listen, or that would let anybody in.

    Raises:
        PromptyoselfError: ``invalid_value`` or ``missing_token``.
    """
    address = web_socket(url)
    if address is None or address.is_secure or address.port in (None, 80):
        raise PromptyoselfError(
            "invalid_value",
            f"No App Server can listen on {shown(url)}: that takes ws://, a host, and a port.",
            "`promptyoself letta-code up --listen ws://127.0.0.1:4500` names one.",
        )
    if token is None and not _is_loopback(address.host):
        raise PromptyoselfError(
            "missing_token",
            f"Other machines can reach {shown(url)}, and there is no token to keep them out.",
            "Set PROMPTYOSELF_LETTA_CODE_TOKEN to a long random text, or listen on 127.0.0.1.",
        )


def environ_of(
    environ: Mapping[str, str], var: Path, secrets: Sequence[str], programs: str | None
) -> dict[str, str]:
    """The environment of the App Server, which its agents' tools get too. It is quiet, has none of
    the settings that are ``secrets``, and leads to our data directory and to our program, which is
    in the folder ``programs``."""
    kept = {name: value for name, value in environ.items() if name not in secrets}
    path = kept.get("PATH", os.defpath)
    if programs is not None and shutil.which("promptyoself", path=path) is None:
        path = f"{path}{os.pathsep}{programs}"
    return {**QUIET, **kept, "PATH": path, "PROMPTYOSELF_VAR": str(var)}


def supervise(
    plan: Plan,
    emit: Callable[[Event], None],
    wait: Callable[[], bool],
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Keep the App Server running until ``wait``, which takes a moment each time, says no.

    ``emit`` is told each event: ``started``, ``ready``, ``silent``, ``ended``, ``stopped``.

    Raises:
        PromptyoselfError: ``letta_code_running`` or ``port_in_use``: the store or the port is
            taken; ``letta_code_died``: it ended soon after its start, too often.
    """
    _require_free(plan)
    with locked(plan.store) as lock:
        deaths = 0
        while True:
            _require_free(plan)
            end = _run(plan, lock, emit, wait)
            if end is None:
                emit({"event": "stopped", "message": "The App Server has ended, as asked."})
                return
            deaths = deaths + 1 if end["seconds"] < QUICK_SECONDS else 1
            if deaths > len(pauses):
                emit(end)
                raise PromptyoselfError(
                    "letta_code_died",
                    f"The App Server ended {deaths} times soon after its start; the last time "
                    f"{end['why']}.",
                    "What it said stands in the output of this command, on stderr.",
                )
            pause = pauses[deaths - 1]
            emit({**end, "retry_in": pause})
            if not _waited(wait, pause):
                emit({"event": "stopped", "message": "No App Server runs any more."})
                return


def _run(
    plan: Plan, lock: StoreLock, emit: Callable[[Event], None], wait: Callable[[], bool]
) -> Event | None:
    """Start an App Server, and watch it until it ends. None: it was told to."""
    began = time.monotonic()
    process = _start(plan, lock)
    lock.name(Holder(process.pid, plan.url, os.getpid()))
    facts = {"pid": process.pid, "url": plan.url}
    emit(
        {
            "event": "started",
            **facts,
            "version": plan.program.version,
            "program": str(plan.program.path),
            "store": str(plan.store),
            "message": f"The App Server of Letta Code {plan.program.version} starts.",
        }
    )
    try:
        why = _watched(process, plan.url, facts, emit, wait)
    finally:
        _end(process)
    if why is None:
        return None
    code = process.returncode
    how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
    why = why or f"by {how['signal']}" if code < 0 else why or f"with exit code {code}"
    seconds = round(time.monotonic() - began, 1)
    message = f"The App Server ended after {seconds:g} seconds, {why}."
    return {"event": "ended", **facts, **how, "seconds": seconds, "why": why, "message": message}


def _start(plan: Plan, lock: StoreLock) -> subprocess.Popen[bytes]:
    words = ["--backend", "local", "server", "--listen", plan.url]
    if plan.token is not None:
        digest = hashlib.sha256(plan.token.encode()).hexdigest()
        words += ["--ws-auth", "capability-token", "--ws-token-sha256", digest]
    return subprocess.Popen(
        [plan.program.path, *words],
        env=dict(plan.environ),
        stdin=subprocess.DEVNULL,
        stdout=2,  # on stdout are our events, and nothing else
        pass_fds=[lock.descriptor],
        start_new_session=True,  # so that Ctrl-C reaches it through us, once
    )


def _watched(
    process: subprocess.Popen[bytes],
    url: str,
    facts: Event,
    emit: Callable[[Event], None],
    wait: Callable[[], bool],
) -> str | None:
    """Watch it until it has ended, is to end, or isn't ready in time. None: it is to end. Else why
    it ended, if that isn't how."""
    began = time.monotonic()
    ready = {"event": "ready", **facts, "message": f"The App Server answers at {url}."}
    while process.poll() is None:
        if is_ready(url, ANSWER_SECONDS):
            break
        if time.monotonic() - began > READY_SECONDS:
            return f"since it wasn't ready after {READY_SECONDS:g} seconds"
        if not wait():
            return None
    else:
        return ""
    emit({**ready, "seconds": round(time.monotonic() - began, 1)})
    looked, answers = time.monotonic(), True
    while process.poll() is None:
        if time.monotonic() - looked > LOOK_SECONDS:
            before, answers = answers, is_ready(url, ANSWER_SECONDS)
            looked = time.monotonic()
            if answers and not before:
                emit(ready)
            elif before and not answers and process.poll() is None:
                message = f"The App Server lives, but doesn't answer at {url}."
                emit({"event": "silent", **facts, "message": message})
        if not wait():
            return None
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tell it to end, and kill it and its tools if it doesn't."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def _waited(wait: Callable[[], bool], seconds: float) -> bool:
    """Wait for so long, unless ``wait`` says no."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not wait():
            return False
    return True


def _require_free(plan: Plan) -> None:
    """Refuse a port on which something listens.

    Raises:
        PromptyoselfError: ``letta_code_running`` or ``port_in_use``.
    """
    address = address_of(plan.url)
    try:
        socket.create_connection((address.host, address.port), ANSWER_SECONDS).close()
    except OSError:
        return
    try:
        version = f", of Letta Code {ask(plan.url, plan.token, ANSWER_SECONDS).version},"
    except PromptyoselfError as error:
        if error.code != "letta_code_unauthorized":
            who = listener_on(address.port or 0) or "another program"
            raise PromptyoselfError(
                "port_in_use",
                f"Port {address.port} is taken, by {who}. {sentence(error)}",
                "Stop that, or choose another port in PROMPTYOSELF_LETTA_CODE_URL.",
            ) from None
        version = ""
    raise PromptyoselfError(
        "letta_code_running",
        f"An App Server{version} runs at {plan.url} already.",
        "There is nothing to start: prompts can be sent to it. `promptyoself letta-code status` "
        "tells more.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
