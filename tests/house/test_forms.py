"""Every command answers a person in a form, whatever is in the log: everything that is asked of the
data directories of a former version is asked again, at a terminal."""

import shlex
from pathlib import Path

import pytest
from former_version.asking import opened
from former_version.questions import CONTINUED, QUESTIONS, WRONG
from rich.cells import cell_len

SHOWN_AS_THEY_ARE = ("--ndjson", "--note", "metrics", "export")
"""What is for programs, no matter who asks."""


def _check(text: str, words: list[str], columns: int) -> None:
    unseen = [c for c in text if not (c.isprintable() or c == "\n")]
    assert not unseen, (words, unseen)
    assert "internal_error" not in text, (words, text)
    assert not text.startswith("{"), (words, text)
    for line in text.splitlines():
        # A head or a hash is longer than a narrow terminal, and would be of no use in pieces.
        assert cell_len(line) <= columns or " " not in line.strip(), (words, line)


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("name", ["main", "damaged", "recovered"])
def test_every_answer_has_a_form(
    name: str, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No form fails, none has a character that can't be seen, and none is wider than the screen."""
    asked = [line for lines in QUESTIONS[name].values() for line in lines]
    if name == "main" and columns == 40:
        asked += [line for lines in WRONG.values() for line in lines]
        asked += CONTINUED[name]
    with opened(name, tmp_path / "here") as (here, ids):
        monkeypatch.setenv("COLUMNS", str(columns))
        for line in asked:
            if line.startswith("@ "):
                here.set(line[2:])
                continue
            words = shlex.split(line.format(**ids).replace("FOLDER", str(here.var.parent)))
            if any(word in SHOWN_AS_THEY_ARE for word in words) or "--format" in words:
                continue
            answer = here.ask(*words, "--format", "table")
            assert "Traceback" not in answer.err, (words, answer.err)
            _check(answer.out.decode(), words, columns)
