"""What people type instead of a command's name."""

from collections.abc import Collection

SYNONYMS: dict[str, tuple[str, ...]] = {
    "add": ("register",),
    "answer": ("replies",),
    "answers": ("replies",),
    "at": ("register",),
    "backup": ("export", "pack"),
    "calendar": ("agenda",),
    "check": ("doctor", "verify"),
    "clear": ("cancel",),
    "continue": ("resume",),
    "create": ("register",),
    "cron": ("register",),
    "crontab": ("register",),
    "daemon": ("execute",),
    "del": ("cancel",),
    "delete": ("cancel",),
    "describe": ("show",),
    "disable": ("pause",),
    "enable": ("resume",),
    "end": ("cancel",),
    "events": ("history",),
    "fire": ("trigger",),
    "forecast": ("agenda", "simulate"),
    "get": ("show",),
    "health": ("doctor",),
    "hlep": ("help",),
    "hold": ("pause",),
    "info": ("show", "stats"),
    "inspect": ("show",),
    "job": ("show",),
    "jobs": ("list",),
    "journal": ("history", "report"),
    "kill": ("cancel",),
    "last": ("report", "history"),
    "log": ("history",),
    "logs": ("history",),
    "ls": ("list",),
    "new": ("register",),
    "now": ("trigger",),
    "prompt": ("register",),
    "prompts": ("list",),
    "ps": ("list",),
    "queue": ("agenda", "list"),
    "quota": ("budgets",),
    "remind": ("register",),
    "rename": ("modify --name",),
    "remove": ("cancel",),
    "repair": ("recover", "rebuild"),
    "reschedule": ("modify",),
    "rm": ("cancel",),
    "run": ("trigger", "execute"),
    "reply": ("replies",),
    "response": ("replies",),
    "responses": ("replies",),
    "results": ("report", "replies"),
    "schedule": ("register",),
    "schedules": ("list",),
    "search": ("list --query",),
    "send": ("trigger", "register"),
    "serve": ("execute", "mcp"),
    "snooze": ("pause --until",),
    "start": ("execute", "resume"),
    "status": ("doctor", "list"),
    "stop": ("pause", "cancel"),
    "summary": ("report", "stats"),
    "suspend": ("pause",),
    "tail": ("history",),
    "today": ("agenda",),
    "undelete": ("resume",),
    "unpause": ("resume",),
    "upcoming": ("agenda",),
    "update": ("modify",),
    "version": ("--version",),
    "watch": ("history",),
    "worker": ("execute",),
}
"""Each word with the commands that people may mean by it, the likeliest first."""


OPTIONS = {"--json": "--format json"}
"""What people type instead of an option, as in other programs, with what they mean by it."""


def meant(word: str, commands: Collection[str]) -> list[str]:
    """What a word that is no command may mean: what it is another word for, else the commands that
    are spelled much like it."""
    if synonyms := SYNONYMS.get(word.lower()):
        return list(synonyms)
    from difflib import get_close_matches

    return get_close_matches(word.lower(), list(commands))
