"""Changes of schedules: end, hold, let go on or deliver one or several; edit one; undo a change."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.visible import visible
from promptyoself.doors.command import command
from promptyoself.doors.options import (
    Choice,
    dry_run_option,
    reason_option,
    schedule_option,
    several_option,
)
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from promptyoself.service.files.edited import Original


@command("cancel")
@several_option()
@reason_option
def cancel_command(session: Session, choice: Choice, reason: str | None) -> Document:
    """End a schedule; `pause` stops it for a while only.

    Registering the same content again brings it back. Answers with cancelled_id.
    """
    from promptyoself.service.schedules.change import cancel

    id_ = _only_one(session, choice)
    if id_ is None:
        return _change_several(session, choice, "cancel", reason)
    return cancel(session.store(), id_, reason, session.now())


@command("pause")
@several_option()
@click.option(
    "--until", metavar="T", help="Let it run again by itself from then on: 2027-01-31; 'in 7d'."
)
@reason_option
def pause_command(
    session: Session, choice: Choice, until: str | None, reason: str | None
) -> Document:
    """Hold a schedule until it is resumed.

    Slots meanwhile are skipped. To be done with it, use `cancel`. Answers with the id.
    """
    from promptyoself.service.schedules.change import pause

    id_ = _only_one(session, choice)
    if id_ is None:
        answer = _change_several(session, choice, "pause", reason, until)
    else:
        answer = pause(session.store(), id_, reason, session.now(), until=until)
    if until is not None:
        session.warn_if_nothing_delivers(session.store())
    return answer


@command("resume")
@several_option("Its id (sch_…) or name; or give --failed-with.", required=False)
@click.option(
    "--failed-with",
    metavar="CODE",
    help="All that have failed, with this code: letta_out_of_credits, say.",
)
@reason_option
def resume_command(
    session: Session, choice: Choice, failed_with: str | None, reason: str | None
) -> Document:
    """Let a paused or failed schedule run again.

    Or let all run again that have failed with one code. Answers with next_run; with --failed-with,
    with those resumed, and those left as they are.
    """
    from promptyoself.service.schedules.change import resume

    if failed_with is not None:
        from promptyoself.service.schedules.several import resume_failed

        if choice.id_ is not None:
            raise WrongUsage(
                "conflicting_options",
                "Both --id and --failed-with were given.",
                "Give one of them.",
            )
        if choice._replace(yes=False) != _NONE:
            raise _conflict("--failed-with goes with nothing else that names schedules.")
        return session.scheduled(
            partial(resume_failed, code=failed_with, reason=reason, now=session.now())
        )
    if choice._replace(yes=False) == _NONE:
        raise WrongUsage(
            "missing_option",
            "Neither --id nor --failed-with was given.",
            "Name a schedule, or the code that schedules have failed with.",
        )
    id_ = _only_one(session, choice)
    if id_ is None:
        return _change_several(session, choice, "resume", reason)
    return session.scheduled(partial(resume, id_=id_, reason=reason, now=session.now()))


@command("trigger")
@several_option()
@reason_option
def trigger_command(session: Session, choice: Choice, reason: str | None) -> Document:
    """Deliver a schedule's prompt once now.

    Its scheduled fires stay as they are. The loop delivers it as soon as the agent is free. Answers
    with the slot, which `history` has later.
    """
    from promptyoself.service.schedules.change import run_now

    id_ = _only_one(session, choice)
    if id_ is None:
        return _change_several(session, choice, "trigger", reason)
    answer = session.scheduled(partial(run_now, id_=id_, reason=reason, now=session.now()))
    if session.for_people and session.warnings:  # no loop runs, which the warning tells
        return {**answer, "message": "It waits for a loop."}
    return answer


_NONE = Choice(None, (), None, (), all_=False, yes=False)


def _only_one(session: Session, choice: Choice) -> str | None:
    """The id of the only schedule that is named; ``None`` if there are several, or some are to be
    chosen.

    Raises:
        PromptyoselfError: ``unknown_id``, ``ambiguous_schedule``; ``conflicting_options``.
    """
    named = choice.id_ is not None or bool(choice.schedules)
    filters = choice.agent_id is not None or bool(choice.tags)
    if choice.id_ is not None and choice.schedules:
        raise _conflict("Schedules were named both by --id and without it.")
    if named and (filters or choice.all_):
        raise _conflict("Schedules were both named and chosen.")
    if filters and choice.all_:
        raise _conflict("--all was given, and something that chooses some.")
    if choice.id_ is not None:
        return session.schedule_id(choice.id_)
    return session.schedule_id(choice.schedules[0]) if len(choice.schedules) == 1 else None


def _conflict(message: str) -> WrongUsage:
    return WrongUsage("conflicting_options", message, "Give one of them.")


def _change_several(
    session: Session, choice: Choice, command: str, reason: str | None, until: str | None = None
) -> Document:
    """Change the schedules that are named; or those that are chosen, once a person agrees."""
    from promptyoself.service.schedules.several import change_several, choose

    store = session.store()
    if choice.schedules:
        ids = [session.schedule_id(word, store) for word in choice.schedules]
    else:
        ids = choose(store, command, choice.agent_id, choice.tags)
        if not choice.yes:
            _ask(session, command, len(ids))
    answer = change_several(store, command, ids, reason, session.now(), until=until)
    if command in ("resume", "trigger") and answer["count"]:
        session.warn_if_nothing_delivers(store)
    return answer


def _ask(session: Session, command: str, count: int) -> None:
    """Ask whether the command is meant. Raises ``confirmation_needed`` or ``not_confirmed``."""
    schedules = "1 schedule" if count == 1 else f"{count} schedules"
    if not session.at_terminal:
        raise PromptyoselfError(
            "confirmation_needed",
            f"That would {command} {schedules}; nothing was done.",
            "Give --yes if that is meant.",
            count=count,
        )
    if not click.confirm(f"{command.capitalize()} {schedules}?", err=True):
        raise PromptyoselfError("not_confirmed", "Nothing was done.", "")


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
    from promptyoself.doors.commands.schedules import ids_for_names
    from promptyoself.doors.terminal import editor
    from promptyoself.service.files.edited import (
        apply_edit,
        asked_by,
        with_complaint,
        with_place,
        without_complaint,
    )
    from promptyoself.service.schedules.request import Request

    warned = len(session.warnings)
    while True:
        saved = editor.edit(opens, path)
        del session.warnings[warned:]  # of what was saved before
        try:
            request = ids_for_names(session)(asked_by(original.text, saved))
            if request == Request():
                message = "Nothing differs; nothing was changed."
                return {"id": original.id, "modified": [], "message": message}
            change = partial(apply_edit, session.store(), original, request)
            change(session.now(), dry_run=True)
        except PromptyoselfError as refused:
            error = with_place(refused, saved)
            if error.code == "changed_meanwhile" or not session.at_terminal:
                raise error from None
            click.echo(f"{error.message} {error.hint}", err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise error from None
            path.write_text(with_complaint(saved, error), encoding="utf-8")
            continue
        if session.at_terminal:
            coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
            after = without_complaint(saved)
            click.echo(editor.differences(original.text, after, coloured=coloured), err=True)
            for warning in session.warnings[warned:]:
                click.echo(f"warning: {visible(warning, one_line=True)}", err=True)
            del session.warnings[warned:]
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
