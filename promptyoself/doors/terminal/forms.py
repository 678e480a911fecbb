"""Which form an answer is shown in."""

from __future__ import annotations

from collections.abc import Callable

from promptyoself.doors.terminal.agenda import show_agenda
from promptyoself.doors.terminal.answers import show_answer, show_warning
from promptyoself.doors.terminal.history import show_history
from promptyoself.doors.terminal.problems import show_checks, show_error
from promptyoself.doors.terminal.reports import (
    show_audit,
    show_budgets,
    show_diff,
    show_forecast,
)
from promptyoself.doors.terminal.schedules import show_card, show_list
from promptyoself.doors.terminal.screen import Document, Screen

_FORMS: dict[str, Callable[[Document, Screen], None]] = {
    "agenda": show_agenda,
    "audit": show_audit,
    "budgets": show_budgets,
    "diff": show_diff,
    "doctor": show_checks,
    "history": show_history,
    "list": show_list,
    "show": show_card,
    "simulate": show_forecast,
}
"""The form of a command's answer, where it has one of its own."""


def show(command: str, document: Document, screen: Screen) -> None:
    """Print the answer of a command, or an error, for a person."""
    if document.get("status") == "error":
        show_error(document, screen)
    elif form := _FORMS.get(command):
        form(document, screen)
        show_warning(document, screen)
    else:
        show_answer(document, screen)
