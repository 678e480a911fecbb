"""Schedules as people see them: the list, the card of one, and when one fires."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import zone_named
from promptyoself.core.visible import visible
from promptyoself.doors.terminal.answers import show_rest
from promptyoself.doors.terminal.history import event_line
from promptyoself.doors.terminal.moments import distance, length_of_seconds
from promptyoself.doors.terminal.quotes import show_quoted
from promptyoself.doors.terminal.recurrences import recurrence
from promptyoself.doors.terminal.replies import show_last_reply
from promptyoself.doors.terminal.screen import BAD, GOOD, Document, Screen, plain, state
from promptyoself.doors.terminal.tables import Column, show_pairs, show_table
from promptyoself.events.target_names import (
    DEFAULT,
    NEW,
    TARGET_TITLES,
    default_conversation,
    recorded_target,
)


def show_list(document: Document, screen: Screen) -> None:
    """A line for each schedule: how it is called, when it fires, and what it says. With ``--full``
    a card for each."""
    schedules = document["schedules"]
    if screen.beside.get("full"):
        for number, schedule in enumerate(schedules):
            screen.print(*[""] * (number > 0))
            _show_card(schedule, screen, [], None)
    elif schedules:
        _show_lines(schedules, screen)
    else:
        screen.print(Text("No schedules."))
    hidden = document.get("total", len(schedules)) - len(schedules)
    if hidden:
        screen.print(Text(f"{hidden:,} more; --limit says how many are listed.", style="dim"))
    if over := screen.beside.get("over"):
        are, them = ("is", "it") if over == 1 else ("are", "them")
        said = f"{over:,} more {are} completed, cancelled or failed; --all lists {them} too."
        screen.print(Text(said, style="dim"))
    if document.get("message"):
        message = f"{document['message']} {document.get('hint', '')}".strip()
        screen.print(Text.assemble(screen.sentence(message), style="dim"))
    elif not schedules:
        screen.print(Text("`promptyoself register --help` says how to make one.", style="dim"))


def _show_lines(schedules: list[Document], screen: Screen) -> None:
    agents = screen.agents(schedule["agent_id"] for schedule in schedules)
    called = [schedule["name"] for schedule in schedules]
    records = []
    for schedule in schedules:
        name = _title(schedule)
        if schedule["name"] and called.count(schedule["name"]) > 1:
            name = Text.assemble(name, (f" {schedule['id']}", "dim"))
        mark, outcome = last_outcome(schedule, screen)
        records.append(
            (
                mark,
                name,
                agents[schedule["agent_id"]],
                recurrence_of(schedule, screen, brief=True),
                _next(schedule, screen),
                outcome,
                _prompt(schedule),
            )
        )
    several = len(agents) > 2 or len(schedules) == 1  # `None` is one of them
    columns = (
        Column(""),
        Column("NAME", 12, most=32),
        Column("AGENT", 8, rank=3 if several else 5, most=24),
        Column("WHEN", 14, rank=2, most=36),
        Column("NEXT", 25),
        Column("LAST", rank=4),
        Column("PROMPT", 12, rank=1, wish=15),
    )
    show_table(screen, columns, records)


def last_outcome(schedule: Document, screen: Screen) -> tuple[Text, Text]:
    """The sign of what became of a schedule's latest slot, and the words for it."""
    waiting = [slot for slot in schedule.get("open", ()) if slot.get("attempt")]
    if schedule.get("problem"):
        return screen.mark("failed"), state("failed")
    if waiting:
        word = "in_doubt" if any(slot["in_doubt"] for slot in waiting) else "waiting"
        return screen.mark("waiting"), state(word)
    if _is_skipped(schedule):
        return screen.mark("skipped"), state("skipped")
    if schedule.get("failures") or schedule["status"] == "failed":
        return screen.mark("failed"), state("failed")
    if schedule["last_run"]:
        told = Text("delivered", style=GOOD)
        if screen.now is not None:
            ago = distance(schedule["last_run"], screen.now, rounded=True)
            told = Text.assemble(told, (f" {ago}", "dim"))
        return screen.mark("delivered"), told
    return screen.mark("none"), Text("")


def _title(schedule: Document) -> Text:
    return plain(schedule["name"]) if schedule.get("name") else Text(schedule["id"])


def _next(schedule: Document, screen: Screen) -> Text:
    if schedule["status"] == "active" and schedule["next_run"]:
        return screen.when(schedule["next_run"], rounded=True)
    if schedule.get("resume_at"):
        return Text.assemble(state("paused"), " until ", screen.clock(schedule["resume_at"]))
    retries = [slot["retry_at"] for slot in schedule.get("open", ()) if slot.get("retry_at")]
    if schedule["status"] == "active" and retries:
        return Text.assemble("again ", screen.clock(min(retries)))
    return state("skipped" if _is_skipped(schedule) else schedule["status"])


def _is_skipped(schedule: Document) -> bool:
    """Whether a prompt with values was to be sent once, and was never tried: its slot was skipped,
    mostly as nothing was left to say."""
    if schedule["status"] != "failed" or not schedule.get("render"):
        return False
    return not schedule.get("failures") and not schedule.get("last_error")


def _prompt(schedule: Document) -> Text:
    if schedule.get("template"):
        return Text(f"[{visible(schedule['template'], one_line=True)}]", style="dim")
    return plain(" ".join(schedule["prompt"].split()))


def recurrence_of(schedule: Document, screen: Screen, *, brief: bool) -> Text:
    """How a schedule recurs; ``brief`` leaves the region of its zone out."""
    words = recurrence(
        schedule["schedule_type"],
        schedule["schedule_value"],
        schedule["timezone"].rpartition("/")[2] if brief else schedule["timezone"],
        screen.zone.rpartition("/")[2] if brief else screen.zone,
    )
    return plain(words)


def show_card(document: Document, screen: Screen) -> None:
    """One schedule in sections: what it is, when it fires, its limits, and what became of it."""
    fires = [fire["utc"] for fire in screen.beside.get("fires", ())]
    _show_card(document["schedule"], screen, fires, screen.beside.get("outcomes"))


def _show_card(
    schedule: Document, screen: Screen, fires: list[str], outcomes: list[Document] | None
) -> None:
    id_ = [] if _title(schedule).plain == schedule["id"] else [(f"  {schedule['id']}", "dim")]
    screen.print(
        Text.assemble(
            Text(_title(schedule).plain, style="bold"), *id_, "  ", state(schedule["status"])
        )
    )
    if schedule.get("problem"):
        screen.print(
            Text.assemble(screen.mark("failed"), " ", screen.sentence(schedule["problem"]))
        )
    _show_prompt(schedule, screen)
    if not fires and schedule["next_run"] and schedule["status"] == "active":
        fires = [schedule["next_run"]]
    show_pairs(
        screen,
        [
            ("agent", screen.agent(schedule["agent_id"])),
            ("values", "are put into the prompt when it fires" if schedule.get("render") else ""),
            ("goes to", _destination(schedule)),
            ("tags", plain(", ".join(schedule.get("tags") or ()))),
            ("when", _when(schedule, screen)),
            ("from", screen.clock(schedule["start_at"])),
            ("until", screen.clock(schedule["until"])),
            ("next", Text("\n").join(screen.when(fire) for fire in fires)),
            ("resumes", screen.when(schedule.get("resume_at"))),
            ("fired" if schedule["last_run"] else "tried", _count(schedule)),
            ("if missed", _misfire(schedule)),
            ("header", "an envelope goes before the prompt" if schedule["envelope"] else ""),
            ("tier", _tier(schedule)),
            ("a day", f"at most {schedule['daily_budget']}" if schedule["daily_budget"] else ""),
            ("on failure", _told_of_failures(schedule, screen)),
            ("answers", _answers(schedule, screen)),
            ("reason", plain(schedule["reason"] or "")),
            ("created", screen.when(schedule["created_at"])),
            ("last sent", screen.when(schedule["last_run"])),
            ("failing" if schedule["failures"] else "last error", _failures(schedule)),
            ("open", _open_slots(schedule, screen)),
            ("invisible", _invisible(schedule)),
        ],
    )
    if outcomes:
        screen.print("", Text("Last outcomes", style="bold"))
        show_table(
            screen,
            (Column(""), Column(""), Column(""), Column("", 10)),
            (("", *event_line(event, screen)) for event in outcomes),
            wrapped=True,
        )
    if schedule.get("last_reply"):
        show_last_reply(schedule["last_reply"], screen)


def _show_prompt(schedule: Document, screen: Screen) -> None:
    if schedule.get("template"):
        text = f"[{visible(schedule['template'], one_line=True)}: made when it fires]"
    else:
        text = schedule["prompt"]
    screen.print("")
    show_quoted(text, screen)
    screen.print("")


def _when(schedule: Document, screen: Screen) -> Text:
    kind, value = schedule["schedule_type"], schedule["schedule_value"]
    if kind == "once":
        return Text.assemble("once, ", screen.clock(value))
    words = recurrence_of(schedule, screen, brief=False)
    if kind in ("cron", "rrule") and not words.plain.startswith(value):
        words.append(f"  {visible(value, one_line=True)}", style="dim")
    if schedule["jitter"]:
        words.append(f", up to {length_of_seconds(schedule['jitter'])} later")
    return words


def _destination(schedule: Document | None) -> Text:
    """Where a schedule's prompts go, if not into the own conversation of an agent of Letta's."""
    if schedule is None or not (schedule.get("target") or schedule.get("conversation_id")):
        return Text("")
    target = recorded_target(schedule.get("target"))
    conversation = schedule.get("conversation_id") or default_conversation(target)
    words = _CONVERSATIONS.get(conversation, f"conversation {conversation}")
    if target == "broca":  # there it is whom the answer goes to
        words = "the user of its plugin's settings" if conversation == DEFAULT else conversation
    return Text.assemble(TARGET_TITLES[target], ", ", plain(words))


_CONVERSATIONS = {NEW: "a new conversation each fire", DEFAULT: "the agent's own conversation"}


def _count(schedule: Document) -> str:
    times, most = schedule["repetition_count"], schedule["max_repetitions"]
    if most:
        return f"{times} of {most} times"
    return "once" if times == 1 else f"{times:,} times" if times else ""


def _tier(schedule: Document) -> str:
    if not schedule["tier"]:
        return ""
    return f"{schedule['tier']}" + (": needs an approval" if schedule["tier"] >= 2 else "")


def _told_of_failures(schedule: Document, screen: Screen) -> Text:
    if schedule.get("failure_to"):
        return Text.assemble("tells ", _told(schedule["failure_to"], screen))
    return screen.agent(schedule["on_failure"])


def _answers(schedule: Document, screen: Screen) -> Text:
    """How much of a schedule's answers is kept, and where they go."""
    keep = schedule.get("keep_reply")
    parts = [Text(_KEPT.get(keep, plain(keep).plain))] if keep else []
    if schedule.get("reply_to"):
        parts.append(Text.assemble("go to ", _told(schedule["reply_to"], screen)))
    return Text(", ").join(parts)


def _told(destination: str, screen: Screen) -> Text:
    """The name of a destination, and that it has gone if it has."""
    if destination in screen.beside.get("undefined", ()):
        return Text.assemble(plain(destination), (", which isn't defined any more", BAD))
    return plain(destination)


_KEPT = {
    "none": "aren't kept",
    "hash": "only their length and SHA-256 are kept",
    "excerpt": "their first 4 KiB are kept",
    "full": "are kept, up to 1 MiB",
}


def _failures(schedule: Document) -> Text:
    error, times = schedule["last_error"], schedule["failures"]
    if not error or (not times and any(slot.get("error") == error for slot in schedule["open"])):
        return Text("")
    if not times:
        return plain(error)
    count = f" {times} times in a row" if times > 1 else ""
    return Text.assemble(state("failed"), f"{count}: ", plain(error))


def _open_slots(schedule: Document, screen: Screen) -> Text:
    return Text("\n").join(
        Text.assemble(
            screen.clock(slot["slot"]),
            "  ",
            state("in_doubt" if slot["in_doubt"] else slot["state"]),
            Text.assemble(", again ", screen.clock(slot["retry_at"])) if slot["retry_at"] else "",
            Text.assemble(": ", plain(slot["error"])) if slot["error"] else "",
        )
        for slot in schedule["open"]
    )


def _misfire(schedule: Document) -> str:
    grace = length_of_seconds(schedule["grace"])
    return {
        "skip": f"skipped after {grace}" if grace else "skipped",
        "coalesce": f"the latest slot is delivered, up to {grace} late",
        "all": f"each slot is delivered, up to {grace} late",
    }.get(schedule["misfire"], visible(str(schedule["misfire"]), one_line=True))


def _invisible(schedule: Document) -> str:
    count = schedule.get("invisible")
    return f"{count} characters that can't be seen, shown as escapes" if count else ""


def show_fires(document: Document, screen: Screen) -> None:
    """A line for each fire: when, and the time in the schedule's own zone where that is another."""
    if not document["fires"]:
        screen.print(Text("It won't fire."))
    columns = (Column("NEXT"), Column("BY ITS OWN CLOCKS"))
    records = ((screen.when(fire["utc"]), _elsewhere(fire, screen)) for fire in document["fires"])
    show_table(screen, columns, records)


def _elsewhere(fire: Document, screen: Screen) -> str:
    """The time of a fire by the clocks of its schedule, if they aren't the reader's."""
    if fire["local"] is None:
        return ""
    there = datetime.fromisoformat(fire["local"])
    if there.utcoffset() == parse_utc(fire["utc"]).astimezone(zone_named(screen.zone)).utcoffset():
        return ""
    return f"{there:%a} {there.day} {there:%b} {there:%H:%M %z}"


def show_change(document: Document, screen: Screen) -> None:
    """What was done to a schedule, in a sentence, and what follows."""
    id_ = str(document.get("id") or document.get("cancelled_id") or "")
    name = plain(screen.beside.get("names", {}).get(id_, ""))
    parts = [screen.sentence(document["message"]), name, Text(visible(id_, one_line=True), "dim")]
    title = Text("  ").join(part for part in parts if part)
    mark = "none" if document.get("dry_run") or document.get("created") is False else "ok"
    screen.print(Text.assemble(screen.mark(mark), " ", title))
    upcoming = [fire["utc"] for fire in screen.beside.get("fires", ())]
    if not upcoming and document.get("next_run"):
        upcoming = [document["next_run"]]
    show_pairs(
        screen,
        [
            ("prompt", _beginning(screen.beside.get("schedule"))),
            ("goes to", _destination(screen.beside.get("destination"))),
            ("taken back", _undone(document, screen)),
            ("understood", plain(document.get("understood") or "")),
            ("next", Text("\n").join(screen.when(fire) for fire in upcoming)),
            ("in its zone", _in_own_zone(document, screen)),
            ("slot", screen.when(document.get("slot"))),
            ("until", screen.when(document.get("resume_at"))),
            ("changed", _names(document.get("modified"))),
            ("as it was", _names(document.get("differs"))),
            ("under way", str(document.get("under_way") or "")),
            ("life", f"number {document['life']}" if document.get("life", 1) > 1 else ""),
        ],
    )
    show_rest(document, screen, without=_TOLD_OF_CHANGES)
    if document.get("hint"):
        screen.print(screen.sentence(document["hint"]))


_TOLD_OF_CHANGES = (
    *("id", "cancelled_id", "created", "understood", "next_run", "next_run_local", "timezone"),
    *("fires", "slot", "resume_at", "modified", "differs", "under_way", "life"),
    *("undone", "seq", "at", "by"),
)


def _beginning(schedule: Document | None) -> Text:
    """What a schedule says, if not all of it."""
    if schedule is None:
        return Text("")
    prompt = _prompt(schedule)
    if len(prompt) > _MOST_OF_PROMPT:
        prompt.truncate(_MOST_OF_PROMPT, overflow="crop")
        prompt.append(" ...")
    return prompt


_MOST_OF_PROMPT = 60  # characters


def _undone(document: Document, screen: Screen) -> Text:
    """Which change was taken back, whose it was, and when."""
    if not document.get("undone"):
        return Text("")
    words = visible(document["undone"].replace(".", " "), one_line=True)
    at = screen.clock(document["at"])
    return Text.assemble(words, ", ", at, ", by ", plain(document["by"]))


def _in_own_zone(document: Document, screen: Screen) -> str:
    zone, local = document.get("timezone"), document.get("next_run_local")
    if not local or zone in (None, screen.zone):
        return ""
    return f"{local[:16].replace('T', ' ')} {visible(zone, one_line=True)}"


def _names(fields: list[str] | None) -> Text:
    return plain(", ".join(field.replace("_", " ") for field in fields or ()))
