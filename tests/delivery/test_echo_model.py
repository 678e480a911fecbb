"""The model of the demonstration, in the words of OpenAI's interface."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from promptyoself.sandbox.echo_model import HANDLE, EchoModel


@pytest.fixture
def model() -> Iterator[EchoModel]:
    with EchoModel() as model:
        yield model


def fetched(url: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as answer:
        content: bytes = answer.read()
    return content


def asked(model: EchoModel, *messages: dict[str, Any], stream: bool = False) -> bytes:
    body = {"model": "echo", "messages": messages, "stream": stream}
    return fetched(f"{model.url}/chat/completions", body)


@pytest.mark.parametrize(
    "content", ["Stretch.", [{"type": "text", "text": "A hint."}, {"text": "Stretch."}]]
)
def test_it_says_what_it_was_told_last(model: EchoModel, content: object) -> None:
    """The last part of what the user has said last, at once or as a stream."""
    messages = [
        {"role": "system", "content": "You echo."},
        {"role": "user", "content": "Breathe."},
        {"role": "assistant", "content": "You said: Breathe."},
        {"role": "user", "content": content},
    ]
    (choice,) = json.loads(asked(model, *messages))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "You said: Stretch."}
    assert choice["finish_reason"] == "stop"
    *events, end = asked(model, *messages, stream=True).decode().strip().split("\n\n")
    assert end == "data: [DONE]"
    choices = [json.loads(event.removeprefix("data: "))["choices"] for event in events]
    deltas = [choice["delta"].get("content", "") for (choice,) in choices[:-1]]
    assert "".join(deltas) == "You said: Stretch."
    assert choices[-2][0]["finish_reason"] == "stop"


def test_nothing_said_is_echoed_too(model: EchoModel) -> None:
    """A request without a word of the user's has an answer."""
    (choice,) = json.loads(asked(model, {"role": "user", "content": None}))["choices"]
    assert choice["message"]["content"] == "You said: "


def test_it_is_listed(model: EchoModel) -> None:
    """Letta Code asks which models there are, and how much they can read."""
    (listed,) = json.loads(fetched(f"{model.url}/models"))["data"]
    assert f"openai-compatible/{listed['id']}" == HANDLE
    assert listed["context_window"] >= 100_000


@pytest.mark.parametrize("body", [None, {}])
def test_it_has_nothing_else(model: EchoModel, body: dict[str, Any] | None) -> None:
    """Other paths are no part of it."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(f"{model.url}/embeddings", body)
