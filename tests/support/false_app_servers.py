"""A stand-in for an App Server of Letta Code, for what no real one can be made to do: garbage, an
old version, silence, a connection that is lost at a certain frame."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from promptyoself.targets.letta_code.watch import IDLE

Frame = dict[str, Any]

ANSWERS: dict[str, Frame] = {
    "app_server_info": {"letta_code_version": "0.34.12"},
    "list_models": {"entries": []},
    "agent_retrieve": {"agent": {"id": "agent-local-1", "name": "one"}},
    "agent_list": {"agents": [{"id": "agent-local-1", "name": "one"}]},
    "conversation_list": {"conversations": []},
    "conversation_create": {"conversation": {"id": "local-conv-1"}},
    "conversation_retrieve": {"conversation": {"id": "local-conv-1", "agent_id": "agent-local-1"}},
    "conversation_messages_list": {"messages": [], "has_more": False},
    "sync": {},
    "remove_queue_item": {},
    "resume_queue": {},
    "input": {"accepted": True, "disposition": "started"},
}
"""What it answers to each kind of frame, besides what all answers have."""


class AppServer:
    """It answers as :data:`ANSWERS` says, and is told otherwise through its attributes."""

    def __init__(self) -> None:
        self.answers: dict[str, Frame | Callable[[Frame], Frame]] = {**ANSWERS}
        self.silent: set[str] = set()  # kinds of frames that it doesn't answer
        self.drops: set[str] = set()  # kinds of frames at which it closes the connection
        self.garbage: str | None = None  # what it answers to everything
        self.echoes = False  # whether it sends back what it is sent
        self.status = HTTPStatus.SWITCHING_PROTOCOLS  # of HTTP, when a connection is opened
        self.seen: list[Frame] = []
        self.headers: list[dict[str, str]] = []  # of each opening
        self.connections: list[ServerConnection] = []
        self._server = serve(self._talk, "127.0.0.1", 0, process_request=self._opens)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def kinds(self) -> Counter[str]:
        """How many frames of each kind it has seen."""
        return Counter(frame["type"] for frame in self.seen)

    def tell(self, frame: Frame, *, agent_id: str, conversation_id: str) -> None:
        """Push a frame to every open connection."""
        runtime = {"agent_id": agent_id, "conversation_id": conversation_id}
        for connection in self.connections:
            with suppress(ConnectionClosed):
                connection.send(json.dumps({**frame, "runtime": runtime}))

    def drop(self) -> None:
        """Close every open connection."""
        for connection in self.connections:
            connection.close()

    def close(self) -> None:
        """End it."""
        self.drop()
        self._server.shutdown()

    def _opens(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers.append(dict(request.headers.raw_items()))
        if self.status is HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        return connection.respond(self.status, "as told\n")

    def _talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        with suppress(ConnectionClosed):
            for text in connection:
                if self.garbage is not None or self.echoes:
                    connection.send(text if self.garbage is None else self.garbage)
                    continue
                frame = json.loads(text)
                self.seen.append(frame)
                if frame["type"] in self.drops:
                    connection.close()
                elif frame["type"] not in self.silent:
                    for answer in self._answers(frame):
                        connection.send(json.dumps(answer))

    def _answers(self, frame: Frame) -> Iterator[Frame]:
        kind = frame["type"]
        runtime = {"runtime": frame["runtime"]} if "runtime" in frame else {}
        if kind == "sync":
            yield {"type": "update_loop_status", "loop_status": {"status": IDLE}} | runtime
        name = "input_accepted" if kind == "input" else f"{kind}_response"
        answer = {"type": name, "request_id": frame["request_id"], "success": True} | runtime
        told = self.answers[kind]
        yield answer | (told(frame) if callable(told) else told)


@contextmanager
def app_server() -> Iterator[AppServer]:
    """One that ends with the block."""
    server = AppServer()
    try:
        yield server
    finally:
        server.close()
