"""What happened, a line for each event: when, to which schedule, what, and why."""

from __future__ import annotations

from rich.text import Text

from promptyoself.doors.terminal.screen import Document, Screen, plain, rows, state

_WORDS = {
    "delivery.attempted": ("waiting", "claimed"),
    "delivery.delivered": ("delivered", "delivered"),
    "delivery.failed": ("failed", "failed"),
    "delivery.skipped": ("skipped", "skipped"),
    "delivery.abandoned": ("waiting", "given back"),
    "delivery.stalled": ("waiting", "no answer yet"),
}


def show_history(document: Document, screen: Screen) -> None:
    """A line for each event."""
    events = document["events"]
    if not events:
        screen.print("Nothing happened.")
        return
    table = rows("TIME", "SCHEDULE", "WHAT", "DETAILS")
    for event in events:
        style, words = _WORDS.get(event["type"], ("", event["type"].replace(".", " ")))
        table.add_row(
            screen.clock(event["ts"]),
            event["id"] or "",
            Text(words, style=state(style).style),
            plain(_details(event, screen)),
        )
    screen.print(table)


def _details(event: Document, screen: Screen) -> str:
    """What an event says beside its type, the most telling first."""
    data, told = event["data"], []
    for key in ("error", "why", "reason", "message"):
        if data.get(key):
            told.append(str(data[key]))
    if data.get("slot"):
        told.append(f"slot {screen.clock(data['slot'])}")
    if data.get("attempt", 1) > 1:
        told.append(f"attempt {data['attempt']}")
    if data.get("latency_ms") is not None:
        told.append(f"after {data['latency_ms'] / 1000:.1f} s")
    if data.get("prompt"):
        told.append(str(data["prompt"]))
    return ", ".join(told) or f"by {event['actor'].get('who', '')}"
