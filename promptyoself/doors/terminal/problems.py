"""Errors and checks: what is wrong, and what to do."""

from __future__ import annotations

from rich.text import Text

from promptyoself.doors.terminal.screen import BAD, WARN, Document, Screen, plain
from promptyoself.doors.terminal.tables import Column, show_table


def show_error(document: Document, screen: Screen) -> None:
    """What went wrong, with its code; and what to do. What is too long for a line goes on below."""
    _show_sentence(
        screen,
        Text("error: ", style=f"bold {BAD}"),
        Text.assemble(screen.sentence(document["message"]), (f"  {document['code']}", "dim")),
    )
    if document.get("hint"):
        _show_sentence(screen, Text("  try: ", style="dim"), screen.sentence(document["hint"]))


def show_warning(document: Document, screen: Screen) -> None:
    """What an answer warns of."""
    if document.get("warning"):
        told = screen.sentence(document["warning"])
        _show_sentence(screen, Text("warning: ", style=WARN), told)


def _show_sentence(screen: Screen, lead: Text, told: Text) -> None:
    for line in told.wrap(screen.console, max(screen.width - lead.cell_len, 12)):
        screen.print(Text.assemble(lead, line))
        lead = Text(" " * lead.cell_len)


def show_checks(document: Document, screen: Screen) -> None:
    """A line for each check of the doctor, those that failed first, each of them with what to do;
    then a sentence."""
    checks = sorted(document["checks"], key=lambda check: check["ok"])
    records = []
    for check in checks:
        name = plain(check["name"].replace("_", " "))
        if not check["ok"]:
            name.stylize("bold")
        detail = screen.sentence(check["detail"])
        records.append((screen.mark("ok" if check["ok"] else "failed"), name, detail))
        if not check["ok"] and check["hint"]:
            hint = Text.assemble((screen.mark("to").plain + " ", "dim"), check["hint"])
            records.append((Text(""), Text(""), hint))
    show_table(screen, (Column(""), Column("CHECK"), Column("FOUND", 16)), records, wrapped=True)
    failed = sum(1 for check in checks if not check["ok"])
    screen.print("")
    if failed:
        total = f"{failed} of {len(checks)} checks failed."
        screen.print(Text.assemble((total, f"bold {BAD}"), ("  unhealthy", "dim")))
    else:
        screen.print(Text.assemble(screen.mark("ok"), " ", screen.sentence(document["message"])))
