"""Answers of commands, compared with what the documentation says of them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calling import Answer


@lru_cache(maxsize=1)
def documented() -> frozenset[str]:
    """The codes that docs/reference/json.md has."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "json.md").read_text(
        encoding="utf-8"
    )
    return frozenset(re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.MULTILINE))


FOLLOWING = {"--follow", "-f"}


def is_raw(arguments: tuple[str, ...]) -> bool:
    """Whether success prints something else than one JSON document."""
    words = set(arguments)
    ways = {"--ndjson", "table", "--format=table", "--note", "--help", "-h", "--version"}
    ways |= FOLLOWING
    ways |= {"export", "metrics", "help", "completion"}
    return bool(words & ways) or any(word.startswith("--note=") for word in words)


def check_answer(answer: Answer, arguments: tuple[str, ...]) -> dict[str, Any] | None:
    """What holds for every answer there is; returns the document, unless another form was asked
    for."""
    assert "Traceback" not in answer.err, (arguments, answer.err)
    assert b"Traceback" not in answer.out, arguments
    assert answer.code in (0, 1, 2), arguments
    if not answer.code and is_raw(arguments):
        return None
    if {"table", "--format=table"} & {*arguments} and not answer.out.startswith(b"{"):
        return None  # an error in the form for people
    if {"--ndjson", *FOLLOWING} & {
        *arguments
    }:  # the events before the damage are printed before the error
        answer = answer._replace(out=answer.out.splitlines(keepends=True)[-1])
    document = answer.document
    if answer.code:
        code = document["code"]
        assert code != "internal_error", (arguments, document)
        assert code in documented(), (arguments, code)
        answer.error(code, answer.code)
    else:
        answer.success()
    return document
