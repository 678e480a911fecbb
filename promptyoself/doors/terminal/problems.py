"""Errors and checks: what is wrong, and what to do."""

from __future__ import annotations

from rich.text import Text

from promptyoself.doors.terminal.screen import Document, Screen, rows, state


def show_error(document: Document, screen: Screen) -> None:
    """Two lines: what went wrong, with its code, and what to do."""
    screen.print(
        Text.assemble(
            Text("error: ", style="bold red"),
            screen.sentence(document["message"]),
            Text(f"  {document['code']}", style="dim"),
        )
    )
    if document.get("hint"):
        screen.print(screen.sentence(document["hint"]))
    if document.get("checks"):
        screen.print("")
        show_checks(document, screen)


def show_checks(document: Document, screen: Screen) -> None:
    """A line for each check of the doctor, those that failed first."""
    table = rows("", "CHECK", "FOUND")
    for check in sorted(document["checks"], key=lambda check: check["ok"]):
        table.add_row(
            state("ok" if check["ok"] else "failed"),
            check["name"].replace("_", " "),
            screen.sentence(check["detail"]),
        )
    screen.print(table)
    if document["status"] == "success":
        screen.print("", screen.sentence(document["message"]))
