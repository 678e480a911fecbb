"""A language model for the real Letta Code, which does as the last message of the user says.

The message may have orders in it, anywhere in its text:

``[[slow:2.5]]``           think for 2.5 seconds before the first piece of the answer
``[[drip:2.5]]``           stand still for 2.5 seconds after the first piece
``[[tool:NAME {json}]]``   call a tool; what it returned is answered with ``done: …``
``[[err:500]]``            fail with this HTTP status, in words that nobody tries again for
``[[late:500]]``           fail so after a tool has returned something
``[[flaky:503:WORD]]``     fail so the first time that this word comes; ``empty`` instead of a
                           status is an answer without text, and ``drop`` a connection that is lost
``[[hang]]``               don't answer

Without orders it answers ``ok, done``.
"""

import contextlib
import json
import re
import threading
import time
from typing import Any, NamedTuple

from chat_completions import Call, Fail, Handler, Listener, Message, last_said, text_of

NAME = "fake-1"
HANDLE = f"openai-compatible/{NAME}"
"""What Letta Code calls it."""


class Orders(NamedTuple):
    """What a message tells the model to do."""

    slow: float = 0.0
    drip: float = 0.0
    call: Call | None = None
    fail: Fail | None = None
    late: Fail | None = None
    flaky: tuple[str, str] | None = None  # how it fails, and the word
    hang: bool = False


def orders(text: str) -> Orders:
    """The orders in a text."""

    def order(pattern: str) -> tuple[str, ...]:
        match = re.search(rf"\[\[{pattern}\]\]", text, re.DOTALL)
        return match.groups() if match else ()

    call, fail = order(r"tool:(\w+) (\{.*?\})"), order(r"err:(\d+)")
    late = order(r"late:(\d+)")
    flaky = order(r"flaky:(\w+):(\w+)")
    return Orders(
        slow=sum(map(float, order(r"slow:([\d.]+)"))),
        drip=sum(map(float, order(r"drip:([\d.]+)"))),
        call=Call(call[0], json.loads(call[1])) if call else None,
        fail=Fail(int(fail[0]), "as_told") if fail else None,
        late=Fail(int(late[0]), "as_told") if late else None,
        flaky=(flaky[0], flaky[1]) if flaky else None,
        hang="[[hang]]" in text,
    )


class Model:
    """The model, listening from its making until :meth:`close`. Any method from any thread.

    ``latency`` is how long it thinks about everything, in seconds; :meth:`hold` lets it think until
    :meth:`finish`, which ends what hangs too.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self._asked: list[list[Message]] = []
        self._words: set[str] = set()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._finished = threading.Condition(self._lock)
        self._listener = Listener(_Answers, self)

    @property
    def url(self) -> str:
        """Its base URL."""
        return self._listener.url

    def asked(self) -> list[list[Message]]:
        """The messages of each request, in the order of arrival."""
        with self._lock:
            return list(self._asked)

    def hold(self) -> None:
        """Answer nobody until :meth:`finish`."""
        self._open.clear()

    def finish(self) -> None:
        """Answer those that wait or hang, and all that come."""
        self._open.set()
        with self._lock:
            self._finished.notify_all()

    def close(self) -> None:
        """Stop listening."""
        self.finish()
        self._listener.close()

    def take(self, messages: list[Message]) -> Orders:
        """Note a request, think, and say what to do with it."""
        wanted = orders(last_said(messages))
        with self._lock:
            self._asked.append(messages)
            if wanted.hang:
                self._finished.wait(600)
        self._open.wait(600)
        time.sleep(self.latency + wanted.slow)
        return wanted

    def comes_first(self, word: str) -> bool:
        """Whether this word wasn't asked about before."""
        with self._lock:
            first = word not in self._words
            self._words.add(word)
            return first


class _Answers(Handler):
    model = NAME

    def listed(self) -> dict[str, Any]:
        return {**super().listed(), "context_window": 128000, "max_model_len": 128000}

    def complete(self, _path: list[str], body: dict[str, Any]) -> None:
        owner: Model = self.server.owner
        messages = body["messages"]
        wanted = owner.take(messages)
        with contextlib.suppress(OSError):  # who asked may have gone meanwhile
            is_late = messages[-1]["role"] == "tool"
            if wanted.fail or (is_late and wanted.late):
                self.send_failure(wanted.fail or wanted.late)
            elif wanted.flaky and owner.comes_first(wanted.flaky[1]):
                self._send_flaw(wanted.flaky[0], body)
            elif is_late:
                self.send_completion(body, f"done: {text_of(messages[-1])[:600]}", wanted.drip)
            else:
                self.send_completion(body, wanted.call or "ok, done", wanted.drip)

    def _send_flaw(self, kind: str, body: dict[str, Any]) -> None:
        if kind == "drop":
            self.close_connection = True
            self.connection.close()
        elif kind == "empty":
            self.send_completion(body, "")
        else:
            self.send_failure(Fail(int(kind)))
