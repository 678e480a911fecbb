"""Agents that try to make others late. Each attack is a process of its own, which knows its agent's
id and the server's port, and goes on until its input ends; then it prints how many answers it got,
by their codes.

    python attackers.py executes|swamped|hoards|asks PORT AGENT
"""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = "X-Agent-Id"
MEBIBYTE = 1 << 20
_VERSION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Client:
    """An agent that calls tools over HTTP, as its Letta does: its id is in a header. Not for
    several threads at once."""

    def __init__(self, port: int, agent: str) -> None:
        self._port, self._agent = port, agent
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """What a tool answers. Raises OSError and http.client.HTTPException."""
        body, headers = self._request(name, arguments)
        try:
            self._connection.request("POST", "/mcp", body, headers)
            content = self._connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call opens another one
            raise
        line = next(line for line in content.splitlines() if line.startswith((b"{", b"data: {")))
        message = orjson.loads(line.removeprefix(b"data: "))
        document: dict[str, Any] = message["result"]["structuredContent"]
        return document

    def leave(self, seconds: float, name: str, /, **arguments: Any) -> None:
        """Call a tool, and go before it has answered. Raises OSError."""
        body, headers = self._request(name, arguments)
        lines = [f"{key}: {value}\r\n" for key, value in headers.items()]
        head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\n" + "".join(lines)
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(seconds)

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def _request(self, name: str, arguments: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        params = {"name": name, "arguments": arguments, "_meta": _META}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": name,
            HEADER: self._agent,
        }
        return orjson.dumps(message), headers


class Attack:
    """One of them, as its parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def begin(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        self._process.stdin.flush()

    def end(self) -> Counter[str]:
        """End it: the answers that it got, by their kinds and codes."""
        out, _ = self._process.communicate(timeout=60)
        return Counter(orjson.loads(out))


@contextmanager
def attacking(kind: str, port: int, agent: str, environ: dict[str, str]) -> Iterator[Attack]:
    """An attack that is prepared, and goes on from when it is told to, to the context's end at
    most."""
    command = [sys.executable, __file__, kind, str(port), agent]
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"prepared\n"
        yield Attack(process)
    finally:
        process.kill()
        process.communicate()


class _Attack:
    """One process of it."""

    def __init__(self, kind: str, port: int, agent: str) -> None:
        self.kind, self.port, self.agent = kind, port, agent
        self.begun, self.over = threading.Event(), threading.Event()
        self.answers: Counter[str] = Counter()

    def several(self, number: int, attack: Callable[[Client, random.Random], None]) -> None:
        """Have that number of threads make an attack again and again, until it is over."""

        def again(seed: int) -> None:
            chance = random.Random(seed)
            self.begun.wait()
            with closing(Client(self.port, self.agent)) as client:
                while not self.over.is_set():
                    try:
                        attack(client, chance)
                    except (OSError, http.client.HTTPException) as error:
                        self.answers[type(error).__name__] += 1
                        time.sleep(0.05)

        for seed in range(number):
            threading.Thread(target=again, args=(seed,), daemon=True).start()

    def took(self, document: dict[str, Any], kind: str = "success") -> dict[str, Any]:
        """Count an answer."""
        self.answers[document.get("code", kind)] += 1
        return document


def _executes(attack: _Attack) -> None:
    """`execute` without a pause, over MCP and at a shell, while its own prompts are due. One whose
    prompts Letta answers at length does it over MCP alone."""
    with closing(Client(attack.port, attack.agent)) as client:
        asked = [{"prompt": f"Mine {number}.", "every": "1h"} for number in range(8)]
        ids = [client.call("register", **each)["id"] for each in asked]

    def trigger(client: Client, chance: random.Random) -> None:
        attack.took(client.call("trigger", id=chance.choice(ids)), "triggered")
        time.sleep(0.1)

    def execute(client: Client, chance: random.Random) -> None:
        deadline = chance.choice([0.1, 1.0, 300.0])
        attack.took(client.call("execute", deadline=deadline), "executed")

    def at_a_shell(_client: Client, _chance: random.Random) -> None:
        command = [sys.executable, "-m", "promptyoself", "execute", "--deadline", "1"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        attack.took(orjson.loads(done.stdout), "executed at a shell")

    attack.several(1, trigger)
    attack.several(10, execute)
    if attack.kind == "executes":
        attack.several(1, at_a_shell)


def _hoards(attack: _Attack) -> None:
    """Prompts of 1 MiB: as many as there may be, then more all the same, or another instead."""

    def register(client: Client, chance: random.Random) -> None:
        text = chance.randbytes(MEBIBYTE // 2).hex()
        document = attack.took(client.call("register", prompt=text, time="in 1d"), "registered")
        if "id" in document and chance.random() < 0.5:
            attack.took(client.call("cancel", id=document["id"]), "cancelled")

    attack.several(10, register)


def _asks(attack: _Attack) -> None:
    """What reads most and counts longest, many at a time; half of the callers don't wait for it."""
    with closing(Client(attack.port, attack.agent)) as client:
        for cron in ("* * * * *", "*/2 * * * *", "*/3 * * * *"):
            client.call("register", prompt="Often.", cron=cron)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("simulate", {"until": "in 3650d"}), ("history", {}), ("history", {"limit": 1000000}),
        ("audit", {}), ("diff", {"since": "1"}), ("verify", {}), ("list", {"at": "in 1m"}),
    ]  # fmt: skip

    def ask(client: Client, chance: random.Random) -> None:
        name, arguments = chance.choice(asked)
        if chance.random() < 0.5:
            client.leave(chance.uniform(0.0, 1.0), name, **arguments)
            attack.answers["left"] += 1
        else:
            attack.took(client.call(name, **arguments), name)

    attack.several(12, ask)


def main() -> None:
    """See the module."""
    kind, port, agent = sys.argv[1:]
    attack = _Attack(kind, int(port), agent)
    {"executes": _executes, "swamped": _executes, "hoards": _hoards, "asks": _asks}[kind](attack)
    sys.stdout.buffer.write(b"prepared\n")
    sys.stdout.buffer.flush()
    sys.stdin.buffer.readline()
    attack.begun.set()
    sys.stdin.buffer.read()  # to its end
    attack.over.set()
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(orjson.dumps(dict(attack.answers)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
