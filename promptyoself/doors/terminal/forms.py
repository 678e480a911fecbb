"""Which form an answer is shown in."""

from __future__ import annotations

from collections.abc import Callable

from promptyoself.doors.terminal.agenda import show_agenda
from promptyoself.doors.terminal.answers import show_answer, show_rest
from promptyoself.doors.terminal.deliveries import show_deliveries
from promptyoself.doors.terminal.history import show_followed, show_history
from promptyoself.doors.terminal.inventories import (
    show_agents,
    show_approvals,
    show_desires,
    show_destinations,
    show_head,
    show_settings,
    show_stats,
    show_verified,
)
from promptyoself.doors.terminal.problems import show_checks, show_error, show_warning
from promptyoself.doors.terminal.registrations import show_registered
from promptyoself.doors.terminal.replies import show_followed_replies, show_replies
from promptyoself.doors.terminal.report import show_report
from promptyoself.doors.terminal.reports import show_audit, show_budgets, show_diff, show_forecast
from promptyoself.doors.terminal.schedules import show_card, show_change, show_fires, show_list
from promptyoself.doors.terminal.screen import Document, Screen
from promptyoself.doors.terminal.setup import show_set_up

_CHANGES = ("cancel", "edit", "idle", "modify", "pause", "register", "resume", "trigger", "undo")

_FROM_FILES = ("register --from", "import-crontab", "import-letta-cron")

_FORMS: dict[str, Callable[[Document, Screen], None]] = {
    "agenda": show_agenda,
    "agents": show_agents,
    "approvals": show_approvals,
    "audit": show_audit,
    "budgets": show_budgets,
    "config list": show_settings,
    "desires": show_desires,
    "diff": show_diff,
    "doctor": show_checks,
    "execute": show_deliveries,
    "head": show_head,
    "history": show_history,
    "history --follow": show_followed,
    "init": show_set_up,
    "list": show_list,
    "next": show_fires,
    "notify list": show_destinations,
    "replies": show_replies,
    "replies --follow": show_followed_replies,
    "report": show_report,
    "show": show_card,
    "simulate": show_forecast,
    "stats": show_stats,
    "verify": show_verified,
    **dict.fromkeys(_CHANGES, show_change),
    **dict.fromkeys(_FROM_FILES, show_registered),
}
"""The form of a command's answer, where it has one of its own."""

_FORMS_OF_ERRORS = {"unhealthy": show_checks, "slots_unaccounted": show_audit}
"""The form of what some errors have beside their sentences, by their codes."""


def show(command: str, document: Document, screen: Screen) -> None:
    """Print the answer of a command, or an error, for a person."""
    if document["status"] == "error":
        _show_problem(document, screen)
    else:
        _FORMS.get(command, show_answer)(document, screen)
    show_warning(document, screen)


def _show_problem(document: Document, screen: Screen) -> None:
    code = document["code"]
    if code != "unhealthy":  # the checks say it all
        show_error(document, screen)
    if form := _FORMS_OF_ERRORS.get(code):
        form(document, screen)
    elif any(isinstance(value, list) for value in document.values()):
        show_rest(document, screen)
