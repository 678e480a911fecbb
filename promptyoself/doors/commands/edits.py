"""Schedules in the hands of people: editing one, and taking back a change."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.command import command
from promptyoself.doors.options import dry_run_option, reason_option, schedule_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from promptyoself.service.files.edited import Original


@command("edit")
@schedule_option()
@click.option("--yes", is_flag=True, help="Don't ask before it is changed.")
def edit_command(session: Session, id_: str, yes: bool) -> Document:
    """Change a schedule in your editor.

    Its prompt and its settings are a text in TOML. VISUAL or EDITOR names the editor. What you save
    is checked, the difference is shown, and you are asked. If you give up, your text is kept in a
    file. At the end it is the same as `modify`.
    """
    from promptyoself.doors.terminal import editor
    from promptyoself.service.files.edited import original_of

    store = session.store()
    id_ = session.schedule_id(id_, store)
    original = original_of(store, id_)
    opens = editor.editor_command()
    if not opens or not (session.at_terminal or (yes and editor.named_editor())):
        raise PromptyoselfError(
            "no_editor",
            "There is no terminal for an editor." if opens else "There is no editor.",
            f"`promptyoself modify --id {id_}`, with new values, changes it without one.",
        )
    path = editor.new_draft(original.text)
    try:
        answer = _edited(session, original, path, opens, yes=yes)
    except PromptyoselfError as error:
        if path.read_text(encoding="utf-8", errors="replace") == original.text:
            path.unlink()
        else:
            error.details["file"] = str(path)
            error.hint = f"{error.hint} Your text is kept in {path}.".strip()
        raise
    if "file" not in answer:
        path.unlink()
    if answer.get("modified"):
        session.add_names(store, [id_])
        session.add_fires(store, id_, 3)
        session.warn_if_nothing_delivers(store)
    return answer


def _edited(
    session: Session, original: Original, path: Path, opens: list[str], *, yes: bool
) -> Document:
    """Let a person edit until the text is in order or given up, and change the schedule."""
    from promptyoself.doors.terminal import editor
    from promptyoself.service.files.edited import (
        apply_edit,
        asked_by,
        with_complaint,
        without_complaint,
    )
    from promptyoself.service.schedules.request import Request

    while True:
        after = without_complaint(editor.edit(opens, path))
        try:
            request = asked_by(original.text, after)
            if request == Request():
                message = "Nothing differs; nothing was changed."
                return {"id": original.id, "modified": [], "message": message}
            change = partial(apply_edit, session.store(), original, request)
            change(session.now(), dry_run=True)
        except PromptyoselfError as error:
            if error.code == "changed_meanwhile" or not session.at_terminal:
                raise
            click.echo(f"{error.message} {error.hint}", err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise
            path.write_text(with_complaint(after, error), encoding="utf-8")
            continue
        if session.at_terminal:
            coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
            click.echo(editor.differences(original.text, after, coloured=coloured), err=True)
        if not yes and not click.confirm("Change it?", default=True, err=True):
            message = f"Nothing was changed. Your text is kept in {path}."
            return {"id": original.id, "modified": [], "file": str(path), "message": message}
        return change(session.now())


@command("undo")
@schedule_option("Its last change (else your own latest one).", required=False)
@reason_option
@dry_run_option
def undo_command(session: Session, id_: str | None, reason: str | None, dry_run: bool) -> Document:
    """Take back the last change of a schedule.

    A schedule that was modified is as it was before, a paused one runs again, a new one is
    cancelled, a cancelled one is back, and a delivery that `trigger` asked for and that nobody has
    begun is dropped. The log keeps both changes. Undoing an undo does the change again. What was
    sent stays sent.
    """
    from promptyoself.service.schedules.undo import undo

    id_, now = None if id_ is None else session.schedule_id(id_), session.now()
    answer = session.scheduled(partial(undo, id_=id_, reason=reason, now=now, dry_run=dry_run))
    session.add_schedule(str(answer["id"]))
    return answer
