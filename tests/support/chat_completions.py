"""What the language models of the two real Lettas have in common: they can do more than the model
of the package, which echoes. They call tools, fail, and stand still."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from promptyoself.sandbox import chat_completions
from promptyoself.sandbox.chat_completions import Listener, Message, parts_of

__all__ = ["Call", "Fail", "Handler", "Listener", "Message", "last_said", "text_of"]


class Fail(NamedTuple):
    """Answer with this status."""

    status: int = 500
    code: str = "server_error"


class Call(NamedTuple):
    """Answer with a call of a tool, whereupon the agent's program asks again."""

    tool: str
    arguments: dict[str, Any] = {}  # noqa: RUF012


def last_said(messages: list[Message]) -> str:
    """What the user said last."""
    return "".join(chat_completions.last_said(messages))


def text_of(message: Message) -> str:
    """The text of a message."""
    return "".join(parts_of(message))


class Handler(chat_completions.Handler):
    """Takes a request to pieces, and has an answer for each kind of order."""

    def send_failure(self, failure: Fail, headers: dict[str, str] | None = None) -> None:
        """Answer that it failed."""
        error = {"message": "a failure on demand", "code": failure.code, "type": failure.code}
        self.send_json(failure.status, {"error": error}, headers)

    def send_completion(self, body: dict[str, Any], answer: str | Call, drip: float = 0.0) -> None:
        """Answer a request that came well: at once or as a stream, as it asks.

        ``drip`` is how many seconds a stream stands still after its first piece.
        """
        message, reason = _message(answer)
        self.send_message(body, message, _pieces(message, drip), reason)


def _message(answer: str | Call) -> tuple[Message, str]:
    """The model's message, and why it ends there."""
    if isinstance(answer, str):
        return {"role": "assistant", "content": answer}, "stop"
    function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
    call = {"id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _pieces(message: Message, drip: float) -> Iterator[Message]:
    """A message in pieces: a text in two, so that a stream can stop between them."""
    if calls := message.get("tool_calls"):
        yield {**message, "tool_calls": [{"index": n, **call} for n, call in enumerate(calls)]}
        return
    text = message["content"]
    yield {**message, "content": text[:2]}
    time.sleep(drip)
    yield {"content": text[2:]}
