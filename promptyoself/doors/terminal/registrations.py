"""Schedules out of a file: a line for each, then what there is to say of some of them, and what was
left out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from promptyoself.doors.terminal.schedules import recurrence_of
from promptyoself.doors.terminal.screen import Document, Screen, plain, state
from promptyoself.doors.terminal.tables import Column, show_pairs, show_table


def show_registered(document: Document, screen: Screen) -> None:
    """What `register --from`, `import-crontab` and `import-letta-cron` answer."""
    mark = "none" if document.get("dry_run") or not document["count"] else "ok"
    screen.print(Text.assemble(screen.mark(mark), " ", screen.sentence(document["message"])))
    taken = document["taken"] if "taken" in document else document["schedules"]
    _show_taken(taken, screen, is_dry="dry_run" in document)
    _show_pairs_below("Understood", _understood(taken), screen)
    _show_pairs_below("Notes", _notes(taken), screen)
    _show_pairs_below("Left out", (_left_out(line) for line in document.get("left", ())), screen)
    differences = (("-", screen.sentence(text)) for text in document.get("differences", ()))
    _show_pairs_below("What is different", differences, screen)
    if document.get("hint"):
        screen.print("", screen.sentence(document["hint"]))


def _show_taken(taken: list[Document], screen: Screen, *, is_dry: bool) -> None:
    """A line for each schedule. Where a file has more than schedules, its place there comes first,
    so that it can be taken out."""
    schedules = screen.beside["schedules"]
    agents = screen.agents(schedules[line["id"]]["agent_id"] for line in taken)
    columns = (
        Column(""),
        Column("LINE", right=True),
        Column("TASK"),
        Column("NAME", 12, most=28),
        Column("WHEN", 14, most=36),
        Column("NEXT", 25),
        Column("AGENT", 8),
    )
    has_others = any("agent_id" in line for line in taken)
    records = []
    for line in taken:
        schedule = schedules[line["id"]]
        is_active = schedule["status"] == "active" and line["next_run"]
        records.append(
            (
                screen.mark("ok" if line["created"] and not is_dry else "none"),
                str(line["line"]) if has_others and "line" in line else "",
                plain(line.get("task", "")),
                _called(line),
                recurrence_of(schedule, screen, brief=True),
                screen.when(line["next_run"], rounded=True)
                if is_active
                else state(schedule["status"]),
                agents[schedule["agent_id"]],
            )
        )
    if records:
        screen.print("")
    show_table(screen, columns, records)


def _called(line: Document) -> Text:
    return plain(line.get("name") or line["id"])


def _understood(taken: list[Document]) -> Iterable[tuple[str, Text]]:
    return (
        (_called(line).plain, plain(line["understood"])) for line in taken if line.get("understood")
    )


def _notes(taken: list[Document]) -> Iterable[tuple[str, Text]]:
    """What is to be said of single schedules, such as what differs from one that was there."""
    for line in taken:
        notes = [*line.get("notes", ())]
        if line.get("differs"):
            fields = ", ".join(field.replace("_", " ") for field in line["differs"])
            notes.insert(0, f"It is there already, with another {fields}; it stays as it is.")
        if line.get("warning"):
            notes.append(line["warning"])
        if notes:
            yield _called(line).plain, plain(" ".join(notes))


def _left_out(line: Document) -> tuple[str, Text]:
    """Where in the file something is that was left, the reason, and what stands there."""
    place = f"line {line['line']}" if "line" in line else f"task {line['task']}"
    what = line.get("command") or line.get("name") or ""
    return place, Text.assemble(
        plain(line["why"]), *([("\n" + plain(what).plain, "dim")] if what else [])
    )


def _show_pairs_below(heading: str, pairs: Iterable[tuple[str, Text]], screen: Screen) -> None:
    """Names and what is said of them below a heading; nothing where there are none."""
    told = list(pairs)
    if told:
        screen.print("", Text(heading, style="bold"))
        show_pairs(screen, told)
