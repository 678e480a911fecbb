"""One connection to an App Server, frame by frame, with nothing of promptyoself in between."""

import itertools
import json
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from letta_code.model import HANDLE
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

Frame = dict[str, Any]
PATIENCE = 30.0  # seconds


class Wire:
    """A connection, open from its making until :meth:`close`.

    ``frames`` are those that have come, in order. They are read when something is asked or waited
    for. For one thread.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Histories, and agents with all their instructions, are long.
        size = 64 << 20
        self._open = ExitStack()
        self._socket = self._open.enter_context(
            connect(url, additional_headers=headers, max_size=size, proxy=None)
        )
        self._numbers = itertools.count(1)
        self.frames: list[Frame] = []

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._open.close()

    def send(self, frame: Frame) -> None:
        """Send a frame, and wait for nothing."""
        self._socket.send(json.dumps(frame))

    def ask(self, kind: str, **fields: Any) -> Frame:
        """Send a frame of this type; returns the answer to it.

        Raises ``TimeoutError`` where none comes, and ``websockets.ConnectionClosed``.
        """
        request_id = f"request-{next(self._numbers)}"
        self.send({"type": kind, "request_id": request_id, **fields})
        return self.until(lambda frame: frame.get("request_id") == request_id)

    def until(
        self, fits: Callable[[Frame], bool], *, after: int = -1, seconds: float = PATIENCE
    ) -> Frame:
        """The first frame that fits, from number ``after`` of ``frames`` on; if there is none yet,
        the next that comes.

        Raises ``TimeoutError`` where none comes within these seconds.
        """
        for frame in self.frames[after:] if after >= 0 else ():
            if fits(frame):
                return frame
        end = time.monotonic() + seconds
        while True:
            frame = json.loads(self._socket.recv(timeout=max(0.0, end - time.monotonic())))
            self.frames.append(frame)
            if fits(frame):
                return frame

    def read(self, seconds: float) -> list[Frame]:
        """What comes within these seconds, or until the server closes the connection."""
        before = len(self.frames)
        try:
            self.until(lambda _: False, seconds=seconds)
        except (TimeoutError, ConnectionClosed):
            return self.frames[before:]
        raise AssertionError("no frame fits")

    # What most tests ask.

    def agent(self) -> str:
        """Make an agent; returns its id."""
        body = {"name": f"test-{uuid.uuid4()}", "model": HANDLE}
        return str(self.ask("agent_create", body=body)["agent"]["id"])

    def conversation(self, agent_id: str, *, summary: str = "a test", **fields: Any) -> Frame:
        """Begin a conversation; returns its runtime, as other frames name it. It is subscribed."""
        answer = self.ask(
            "runtime_start",
            agent_id=agent_id,
            create_conversation={"body": {"summary": summary}},
            recover_approvals=False,
            preserve_skill_sources=True,
            **fields,
        )
        assert answer["success"], answer
        return dict(answer["runtime"])

    def sync(self, runtime: Frame) -> list[Frame]:
        """Subscribe to a conversation; returns the frames that say how it is."""
        before = len(self.frames)
        assert self.ask("sync", runtime=runtime, recover_approvals=False)["success"]
        return self.frames[before:-1]

    def say(self, runtime: Frame, text: str, otid: str, **ids: str) -> Frame:
        """Send a message of the user; returns the answer, which doesn't wait for the turn."""
        message = {"role": "user", "content": text, "otid": otid, **ids}
        payload = {"kind": "create_message", "exclude_interactive_tools": True}
        return self.ask("input", runtime=runtime, payload={**payload, "messages": [message]})

    def turn(self, runtime: Frame, text: str, otid: str) -> Frame:
        """Send a message, and wait for the end of its turn; returns that frame."""
        before = len(self.frames)
        answer = self.say(runtime, text, otid)
        assert answer["accepted"], answer
        return self.turn_end(runtime, after=before)

    def turn_end(self, runtime: Frame, *, after: int = -1, seconds: float = PATIENCE) -> Frame:
        """The frame in which a turn of this conversation ended."""

        def fits(frame: Frame) -> bool:
            return frame["type"] == "turn_finished" and frame["runtime"] == runtime

        return self.until(fits, after=after, seconds=seconds)

    def history(self, runtime: Frame, **query: Any) -> list[Frame]:
        """The messages of a conversation, oldest first."""
        asked = {"agent_id": runtime["agent_id"], "order": "asc", "limit": 500, **query}
        answer = self.ask(
            "conversation_messages_list", conversation_id=runtime["conversation_id"], query=asked
        )
        assert answer["success"], answer
        return list(answer["messages"])

    def otids(self, runtime: Frame) -> list[str]:
        """The otids of what the user has said in a conversation, oldest first."""
        rows = self.history(runtime)
        return [row["otid"] for row in rows if row["message_type"] == "user_message"]
