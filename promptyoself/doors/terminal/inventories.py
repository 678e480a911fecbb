"""What there is, in lines: numbers, agents, approvals and desires; and the proof of the log."""

from __future__ import annotations

from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.answers import show_rest
from promptyoself.doors.terminal.reports import counts
from promptyoself.doors.terminal.screen import Document, Screen, plain, state
from promptyoself.doors.terminal.tables import Column, show_pairs, show_table


def show_stats(document: Document, screen: Screen) -> None:
    """How much there is of schedules, slots and events."""
    head = document["head"]
    kinds = sorted(document["events_by_type"].items(), key=lambda kind: (-kind[1], kind[0]))
    desires = document.get("desires")
    show_pairs(
        screen,
        [
            ("schedules", counts(document["schedules"].items()) or "none"),
            ("agents", f"{document['agents']:,}"),
            ("open slots", counts(document["open_slots"].items()) or "none"),
            ("awaited answers", _some(document, "awaited_replies")),
            ("owed notices", _some(document, "owed_notices")),
            ("events", f"{document['events']:,}"),
            ("log", _size(document["bytes"])),
            ("last event", screen.when(head["ts"])),
            ("head", plain(f"{head['seq']}:{head['hash']}") if head["seq"] else ""),
            ("desires", f"{desires['living']:,} living" if desires else ""),
        ],
        indent=0,
    )
    if kinds:
        screen.print("")
        show_table(
            screen,
            (Column("EVENTS", right=True), Column("TYPE")),
            ((f"{count:,}", plain(kind)) for kind, count in kinds),
        )


def _some(document: Document, key: str) -> str:
    return f"{document[key]:,}" if document.get(key) else ""


def _size(length: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if length >= size:
            return f"{length / size:.1f} {unit}"
    return f"{length} bytes"


def show_verified(document: Document, screen: Screen) -> None:
    """That the log is whole, and how far it goes."""
    events = f"{document['events']:,} {'event' if document['events'] == 1 else 'events'}"
    sentence = f"The log is intact: {events}, each in its place and unaltered."
    screen.print(Text.assemble(screen.mark("ok"), " ", sentence))
    if document.get("message"):
        screen.print(screen.sentence(document["message"]))
    show_rest(document, screen, without=("valid", "events"))


def show_head(document: Document, screen: Screen) -> None:
    """The last event as other commands take it."""
    screen.print(plain(document["head"]))
    show_rest(document, screen, without=("head", "seq", "hash"))


def show_approvals(document: Document, screen: Screen) -> None:
    """A line for each approval."""
    approvals = document["approvals"]
    if not approvals:
        screen.print(Text("No approvals."))
        return
    names = screen.beside.get("names", {})
    agents = screen.agents(approval["agent_id"] for approval in approvals)
    columns = (
        Column("SCHEDULE", 12, most=24),
        Column("AGENT", 8, rank=2, most=20),
        Column("STATE"),
        Column("USES LEFT", right=True),
        Column("EXPIRES"),
        Column("NEXT", 12, rank=1),
    )
    show_table(
        screen,
        columns,
        (
            (
                plain(names.get(approval["id"]) or approval["id"]),
                agents[approval["agent_id"]],
                state(approval["state"] or ""),
                str(approval["uses_left"]),
                screen.when(approval["expires"]),
                screen.when(approval["next_run"]),
            )
            for approval in approvals
        ),
    )


def show_agents(document: Document, screen: Screen) -> None:
    """A line for each agent of the server, with its whole id."""
    agents = document["agents"]
    if not agents:
        screen.print(Text.assemble("No agents at ", plain(document["url"]), "."))
        return
    columns = (
        Column("NAME", 12, most=32),
        Column("ID"),
        Column("LAST RUN", rank=1),
        Column("MODEL", 8, rank=2),
    )
    show_table(
        screen,
        columns,
        (
            (
                plain(agent["name"] or ""),
                plain(agent["id"]),
                screen.when(agent["last_run_at"]),
                plain(agent["model"] or ""),
            )
            for agent in agents
        ),
    )
    screen.print(
        Text.assemble((f"{len(agents)} at {visible(document['url'], one_line=True)}", "dim"))
    )


def show_desires(document: Document, screen: Screen) -> None:
    """A line for each desire, as strong as it is now."""
    desires = document["desires"]
    if not desires:
        screen.print(Text("No desires."))
        return
    agents = screen.agents(desire["agent_id"] for desire in desires)
    columns = (
        Column("STRENGTH", right=True),
        Column("ID"),
        Column("AGENT", 8, rank=1, most=20),
        Column("TAGS", 6, rank=2, most=24),
        Column("DESIRE", 12),
    )
    show_table(
        screen,
        columns,
        (
            (
                f"{desire['strength']:.2f}",
                plain(desire["id"]),
                agents[desire["agent_id"]],
                plain(", ".join(desire["tags"])),
                plain(" ".join(desire["text"].split())),
            )
            for desire in desires
        ),
    )
    hidden = document.get("total", len(desires)) - len(desires)
    if hidden:
        screen.print(Text(f"{hidden:,} more; --limit says how many are listed.", style="dim"))


def show_destinations(document: Document, screen: Screen) -> None:
    """A line for each destination, with what it has yet to take."""
    destinations = document["destinations"]
    if not destinations:
        screen.print(Text("No destinations. `promptyoself notify add NAME ADDRESS` adds one."))
        return
    columns = (
        Column("NAME", 12),
        Column("WHERE", 12, rank=1),
        Column("DIGEST", rank=2),
        Column("SCHEDULES", right=True, rank=2),
        Column("OWED", right=True),
        Column("FAILING", 8, rank=1),
    )
    prefix = "agent:"
    agents = screen.agents(
        str(destination["address"]).removeprefix(prefix)
        for destination in destinations
        if destination["kind"] == "agent"
    )
    show_table(
        screen,
        columns,
        (
            (
                plain(destination["name"]),
                Text.assemble("agent ", agents[destination["address"].removeprefix(prefix)])
                if destination["kind"] == "agent"
                else plain(destination["address"]),
                plain(destination.get("digest") or ""),
                f"{destination['schedules']:,}",
                f"{destination['owed']:,}",
                plain(destination.get("failing") or ""),
            )
            for destination in destinations
        ),
    )


def show_settings(document: Document, screen: Screen) -> None:
    """A line for each setting, with where its value came from, and its whole value; those that
    somebody has set come first. The path of the file stands below."""
    settings = document["settings"]
    chosen = [setting for setting in settings if setting["origin"] != "default"]
    columns = (Column("SETTING", 20), Column("FROM", 11), Column("VALUE", 12))
    for title, group in (("", chosen), ("By default", _without(settings, chosen))):
        if not group:
            continue
        if title:
            screen.print("", Text(title, style="bold"))
        show_table(
            screen,
            columns,
            (
                (
                    plain(setting["name"]),
                    "" if title else _origin(setting, document),
                    plain(setting["value"] or "-"),
                )
                for setting in group
            ),
            wrapped=True,
        )
    screen.print("")
    show_rest(document, screen, without=("settings",))


def _origin(setting: Document, document: Document) -> Text:
    origin = setting["origin"]
    return plain("file" if origin == document["file"] else origin)


def _without(settings: list[Document], others: list[Document]) -> list[Document]:
    return [setting for setting in settings if setting not in others]
