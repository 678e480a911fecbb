"""A language model that echoes, for agents of a real Letta Code. It needs no account.

Letta Code takes it for one that is compatible with OpenAI's: ``letta connect openai-compatible
--base-url URL --api-key none``.
"""

from __future__ import annotations

from typing import Any

from promptyoself.sandbox.chat_completions import Handler, Listener, last_said

NAME = "echo"

HANDLE = f"openai-compatible/{NAME}"
"""What Letta Code calls it."""

_MOST_TOKENS = 128_000
_MOST_ECHOED = 200  # characters


class EchoModel:
    """The model, listening from its making until :meth:`close`. Use it as a context manager."""

    def __init__(self) -> None:
        self._listener = Listener(_Echo)

    def __enter__(self) -> EchoModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return self._listener.url

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


class _Echo(Handler):
    model = NAME

    def listed(self) -> dict[str, Any]:
        return {**super().listed(), "context_window": _MOST_TOKENS}

    def complete(self, path: list[str], body: dict[str, Any]) -> None:
        del path
        # The other parts, before this one, are what Letta Code adds of its own.
        text = (last_said(body["messages"]) or [""])[-1]
        message = {"role": "assistant", "content": f"You said: {text[:_MOST_ECHOED]}"}
        self.send_message(body, message, [message], "stop")
