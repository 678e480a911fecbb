"""What setting up has done."""

from __future__ import annotations

from rich.text import Text

from promptyoself.doors.terminal.screen import Document, Screen


def show_set_up(document: Document, screen: Screen) -> None:
    """What `init` wrote, and what became of the service: the answers themselves are on the screen
    already."""
    screen.print(Text.assemble(screen.mark("ok"), " ", screen.sentence(document["message"])))
    if document["service"]:
        screen.print(screen.sentence(document["service"]["message"]))
