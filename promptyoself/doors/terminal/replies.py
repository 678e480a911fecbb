"""What agents have answered: when, whose prompt it was, and in what words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from promptyoself.doors.terminal.quotes import show_quoted, size
from promptyoself.doors.terminal.screen import Document, Screen, listed, plain
from promptyoself.doors.terminal.tables import Column, show_table

_MOST_OF_LAST = 10  # lines


def show_replies(document: Document, screen: Screen) -> None:
    """A block for each answer, and a line for each that is awaited."""
    replies, awaited = document["replies"], document.get("awaited", ())
    if not replies:
        screen.print(Text("No answers yet." if awaited else "No answers."))
    hidden = document.get("total", len(replies)) - len(replies)
    if hidden:
        earlier = f"{hidden:,} earlier answer{'s' * (hidden > 1)}"
        line = f"{earlier}; --limit and --since say how many are shown."
        screen.print(Text(line, style="dim"))
    for number, reply in enumerate(replies):
        screen.print(*[""] * (number > 0 or hidden > 0))
        _show_reply(reply, screen)
    if awaited:
        screen.print("", Text("Awaited", style="bold"))
        agents = screen.agents(line["agent_id"] for line in awaited)
        show_table(
            screen,
            (Column("DELIVERED"), Column("SCHEDULE", 12, most=32), Column("AGENT", 8)),
            (
                (screen.when(line["delivered_at"]), _called(line), agents[line["agent_id"]])
                for line in awaited
            ),
        )


def show_followed_replies(document: Document, screen: Screen) -> None:
    """A block for each answer, below those that were shown already."""
    for reply in document["replies"]:
        _show_reply(reply, screen)
        screen.print("")


def show_last_reply(reply: Document, screen: Screen) -> None:
    """The latest answer to a schedule's prompts, below its card; of a long one, the beginning."""
    screen.print("", Text.assemble(("Last answer", "bold"), "  ", _when(reply, screen)))
    if not _show_body(reply, screen, _MOST_OF_LAST):
        line = f"`promptyoself replies {reply['id']} --limit 1` shows the rest of it."
        screen.print(Text(f"  {line}", style="dim"))


def _show_reply(reply: Document, screen: Screen) -> None:
    agent = screen.agents([reply["agent_id"]])[reply["agent_id"]]
    called = _called(reply)
    called.stylize("bold")
    mark = screen.mark("ok" if reply["replied"] else "none")
    screen.print(Text("  ").join([Text.assemble(mark, " ", _when(reply, screen)), called, agent]))
    _show_body(reply, screen, None)


def _when(reply: Document, screen: Screen) -> Text:
    at, slot = reply.get("replied_at") or reply["at"], reply["slot"]
    if slot[:16] == at[:16]:
        return screen.clock(at)
    return Text.assemble(screen.clock(at), (", slot ", "dim"), screen.clock(slot))


def _show_body(reply: Document, screen: Screen, most: int | None) -> bool:
    """The words of an answer, or why there are none, and what else is known of it. Returns whether
    all of it is there to be read."""
    whole = True
    if reply.get("text"):
        whole = show_quoted(reply["text"], screen, most=most)
    remarks = listed(_remarks(reply))
    if remarks:
        remarks.stylize("dim")
        for line in remarks.wrap(screen.console, max(screen.width - 2, 8)):
            screen.print(Text.assemble("  ", line))
    return whole


def _remarks(reply: Document) -> Iterator[Text]:
    if not reply["replied"]:
        yield Text.assemble("no answer: ", plain(reply.get("error") or reply.get("code", "")))
    else:
        yield _kept(reply)
    if reply.get("to"):
        yield Text.assemble("goes to ", plain(reply["to"]))
    if reply.get("tools"):
        yield Text.assemble("called ", plain(", ".join(map(str, reply["tools"]))))


def _kept(reply: Document) -> Text:
    """How much of an answer is kept, unless all of it is there."""
    length = reply.get("bytes", 0)
    if reply.get("text") is None:
        digest = str(reply.get("sha256", ""))[:12]
        return Text(f"{size(length)}, of which only the SHA-256 is kept: {digest}…")
    if not reply["text"]:
        return Text("an empty answer")
    kept = len(reply["text"].encode("utf-8", "surrogatepass"))
    return Text("" if kept == length else f"the first {kept:,} of {size(length)} are kept")


def _called(line: Document) -> Text:
    return plain(line.get("name") or line["id"])
