"""What a schedule says of its answers, wherever schedules are written, moved, edited or undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, add, call
from damage import store_in

from promptyoself.core.settings import load_settings
from promptyoself.service.files.edited import apply_edit, asked_by, original_of

if TYPE_CHECKING:
    from conftest import Clock

SAID = ("keep_reply", "reply_to", "failure_to", "on_failure")


@pytest.fixture(autouse=True)
def _destinations(monkeypatch: pytest.MonkeyPatch, var: Path) -> None:
    """Two destinations, and answers that are kept."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "full")
    for name in ("ME", "OPS"):
        monkeypatch.setenv(f"PROMPTYOSELF_DESTINATION_{name}", "https://example.org/hook")


def said(id_: str) -> dict[str, Any]:
    """What a schedule says of answers and failures, where it says something."""
    shown = call("show", "--id", id_).success()["schedule"]
    return {name: shown[name] for name in SAID if shown.get(name) is not None}


def told(*more: str) -> str:
    return add("--every", "1h", "--keep-reply", "excerpt", "--reply-to", "me", *more)


def test_failures_go_to_an_agent_or_to_a_destination() -> None:
    """`--on-failure` names either, and `modify` exchanges and unsets it; the same registration with
    another one says that it differs."""
    id_ = told("--on-failure", "ops")
    assert said(id_) == {"keep_reply": "excerpt", "reply_to": "me", "failure_to": "ops"}
    again = call(
        *("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--on-failure", "me")
    ).success()
    assert (again["created"], again["differs"]) == (False, ["on_failure"])
    changed = call("modify", "--id", id_, "--on-failure", "agent-9").success()
    assert changed["modified"] == ["failure_to", "on_failure"]
    assert said(id_)["on_failure"] == "agent-9"
    assert "failure_to" not in said(id_)
    call("modify", "--id", id_, "--on-failure", "", "--reply-to", "").success()
    assert said(id_) == {"keep_reply": "excerpt"}
    call("modify", "--id", id_, "--keep-reply", "").success()
    assert said(id_) == {"keep_reply": "full"}
    call("modify", "--id", id_, "--reply-to", "nobody").error("unknown_destination")


def test_undo_brings_it_back(clock: Clock) -> None:
    """A change of any of it is taken back as a whole, also once the destination is gone."""
    id_ = told("--on-failure", "ops")
    before = said(id_)
    call("modify", "--id", id_, "--on-failure", "agent-9", "--reply-to", "ops").success()
    call("undo", "--id", id_).success()
    assert said(id_) == before
    call("modify", "--id", id_, "--keep-reply", "full").success()
    call("undo", "--id", id_).success()
    assert said(id_) == before


def test_it_moves_house(
    var: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't defined where it is imported stays as it is, with a warning."""
    id_ = told("--on-failure", "ops")
    exported = call("export").out
    line = orjson.loads(exported)["schedule"]
    assert {name: line[name] for name in SAID if name in line} == said(id_)
    before = said(id_)
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "elsewhere"))
    assert "not defined" not in call("import", "-", "--dry-run", stdin=exported).out.decode()
    for name in ("ME", "OPS"):
        monkeypatch.delenv(f"PROMPTYOSELF_DESTINATION_{name}")
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "none")
    answer = call("import", "-", stdin=exported).success()
    assert "not defined here: me, ops." in answer["warning"]
    assert "No text is kept here of the answers that 1 schedule would send on" in answer["warning"]
    assert said(id_) == before | {"keep_reply": "none"}
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "third"))
    wrong = exported.replace(b'"reply_to":"me"', b'"reply_to":"Me!"')
    error = call("import", "-", stdin=wrong).error("bad_lines")
    assert "can't be the name of a destination" in error["message"]


def test_files_and_editors_have_it(var: Path, clock: Clock, tmp_path: Path) -> None:
    """In TOML `on_failure` takes an agent and a destination; so it does in the text of `edit`."""
    file = tmp_path / "week.toml"
    file.write_text(
        f'[[schedule]]\nagent_id = "{AGENT}"\nprompt = "p"\nevery = "1h"\n'
        'keep_reply = "hash"\non_failure = "ops"\n'
        f'[[schedule]]\nagent_id = "{AGENT}"\nprompt = "q"\nevery = "1h"\nreply_to = "me"\n'
        'on_failure = "agent-9"\n'
    )
    first, second = call("register", "--from", str(file)).success()["schedules"]
    assert said(first["id"]) == {"keep_reply": "hash", "failure_to": "ops"}
    assert said(second["id"]) == {"keep_reply": "full", "reply_to": "me", "on_failure": "agent-9"}
    store = store_in(var / "schedules")
    store.settings = load_settings()
    original = original_of(store, first["id"])
    assert '\non_failure = "ops"\n' in original.text
    assert '\nkeep_reply = "hash"\n' in original.text
    assert "# What to keep of its answers" in original.text
    assert "One of none, hash, excerpt, full." in " ".join(original.text.split("\n# "))
    edited = original.text.replace('keep_reply = "hash"', 'reply_to = "me"')
    edited = edited.replace('on_failure = "ops"', 'on_failure = "agent-8"')
    request = asked_by(original.text, edited)
    assert (request.keep_reply, request.reply_to, request.on_failure) == ("", "me", "agent-8")
    apply_edit(store, original, request, clock.now)
    assert said(first["id"]) == {"keep_reply": "full", "reply_to": "me", "on_failure": "agent-8"}


def test_a_pinned_caller_names_no_destination(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by an import, nor by taking back what the operator did."""
    id_ = told("--on-failure", "ops")
    exported = call("export").out
    call("modify", "--id", id_, "--reply-to", "").success()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    call("undo", "--id", id_).error("forbidden_destination")
    assert "reply_to" not in said(id_)
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "elsewhere"))
    error = call("import", "-", stdin=exported).error("bad_lines")
    assert error["bad"][0]["code"] == "forbidden_destination"


@pytest.mark.parametrize("whom", [AGENT, ""], ids=["itself", "nobody"])
def test_a_pinned_caller_keeps_no_failure_from_the_operator(
    whom: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names itself where no destination is named, and puts itself in the place of none."""
    told_to_ops = told("--on-failure", "ops")
    told_to_nobody = add("--every", "2h")
    before = said(told_to_ops)
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    error = call("modify", "--id", told_to_ops, "--on-failure", whom).error("forbidden_destination")
    assert "ops" in error["message"]
    assert "--failure-to" not in error["message"]
    assert said(told_to_ops) == before
    call("modify", "--id", told_to_ops, "--every", "3h").success()
    call("modify", "--id", told_to_nobody, "--on-failure", whom).success()
    assert said(told_to_nobody).get("on_failure") == (whom or None)


def test_a_pinned_caller_takes_no_destination_back(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`undo` of what the operator did last would take his destination away."""
    id_ = add("--every", "1h")
    call("modify", "--id", id_, "--on-failure", "ops", "--reply-to", "me").success()
    before = said(id_)
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    call("undo", "--id", id_).error("forbidden_destination")
    call("modify", "--id", id_, "--keep-reply", "none").error("reply_not_kept")
    assert said(id_) == before
