"""What is asked of the data directories, command by command. `{name}` stands for the id of the
schedule of that name, and `@` before a time turns the clock."""

from collections.abc import Mapping, Sequence

Asked = Mapping[str, Sequence[str]]


def _alone(*commands: str) -> Asked:
    """Commands without options, each in a file of its own."""
    return {command: [command] for command in commands}


_READING: Asked = {
    "list": ["list", "list --status all --full", "list --status active --limit 3", "list --at 20"],
    "history": ["history --limit 5", "history --type schedule --limit 3"],
    "verify": ["verify", "verify --chain schedules"],
    **_alone("head", "stats", "budgets", "audit", "metrics", "export", "rebuild", "desires"),
    "doctor": ["doctor --skip-letta"],
}

_MAIN: Asked = {
    "list": [
        "list",
        "list --status all --full",
        *(f"list --status {s} --limit 2" for s in ("active", "paused", "completed", "cancelled")),
        "list --status failed",
        "list --agent-id agent-c06fc069-612b-472e-8cdf-619a05e397f5",
        "list --agent-id agent-of-nobody",
        "list --at 2026-10-03T00:00 --full --limit 4",
        "list --at 100 --status all",
    ],
    "show": [
        *(f"show --id {{{name}}}" for name in (
            "hourly", "london", "newyork", "once", "twice", "bounded", "never", "idle", "aimless",
            "before", "elsewhere", "outside", "thrifty", "doomed", "lost", "overtaken", "late",
            "moved", "ahead", "undone", "dead",
        )),
        "show --id {hourly} --at 2026-10-03T00:00",
        "show --id {doomed} --at 200",
    ],
    "next": [
        "next --id {london}",
        "next --id {newyork} --count 2",
        "next --id {once}",
        "next --cron '30 1 * * *' --tz Europe/London --start-at 2027-03-26T00:00 --count 4",
        "next --cron '0 9 29 2 *' --count 2",
        "next --every 90s --count 3 --until 2026-12-01T12:01",
        "next --time 09:00 --tz America/New_York",
    ],
    "history": [
        "history --limit 3",
        "history --id {outside}",
        "history --id {doomed} --type delivery.failed",
        "history --id {london} --type schedule",
        "history --id {newyork} --since 2026-10-30T00:00 --until 2026-11-03T00:00",
        "history --id {never} --slot 2026-09-29T09:38:00Z",
        "history --type approval --ndjson",
        "history --type worker --limit 2 --ndjson",
        "history --type segment",
        "history --type tail",
        "history --by mary --limit 1",
        "history --agent-id agent-00000000-0000-4000-8000-00000000beef",
        "history --chain desires",
    ],
    "verify": [
        "verify",
        "verify --chain schedules",
        "verify --chain desires",
        "verify --note FOLDER/note --key FOLDER/var/keys/head.pub",
    ],
    "head": [
        "head",
        "head --chain desires",
        "head --note --key FOLDER/var/keys/head.key",
        "head --note --key FOLDER/var/keys/head.key --chain desires",
    ],
    "budgets": [
        "budgets", "budgets --agent-id agent-c06fc069-612b-472e-8cdf-619a05e397f5",
    ],
    "audit": [
        "audit",
        "audit --since 2026-10-24 --until 2026-10-27",
        "audit --agent-id agent-5ba50c1e-114f-4ad8-8e88-0f4f11cf0326",
    ],
    "diff": [
        "diff --since 2026-10-05T00:00 --to 2026-10-06T12:00",
        "diff --since 400 --to 420",
        "diff --since '1d ago'",
    ],
    "simulate": [
        "simulate --until 'in 7d'",
        "simulate --until 'in 2d' --agent-id agent-c06fc069-612b-472e-8cdf-619a05e397f5",
        "simulate --until 'in 1d' --latency 90",
    ],
    "desires": [
        "desires",
        "desires --min-strength 0.3",
        "desires --tag tag-1",
        "desires --query choir",
        "desires --at 2026-10-05T00:00 --limit 2",
    ],
    **_alone("stats", "approvals", "export", "metrics"),
    "doctor": ["doctor --skip-letta", "doctor --skip-letta --quick --allow-no-loop"],
    "previews": [
        "register --agent-id agent-1 --prompt Hi --every 1h --dry-run",
        "register --agent-id agent-1 --prompt Hi --cron '0 9 * * *' --tier 2 --dry-run",
        "idle --agent-id agent-1 --every 1d --dry-run",
        "prune --below 1 --dry-run",
        "recover --dry-run",
    ],
    "pack": [
        "pack --out FOLDER/all.zip --key FOLDER/var/keys/head.key",
        "pack --out FOLDER/some.zip --since 2026-10-01 --until 2026-11-01",
        "pack --out FOLDER/all.zip",
    ],
    "rebuild": ["rebuild", "list --limit 2"],
}  # fmt: skip

QUESTIONS: Mapping[str, Asked] = {
    "main": _MAIN,
    "recovered": {
        **_READING,
        "diff": ["diff --since 4 --to 9", "diff --since 10"],
        "simulate": ["simulate --until 'in 7d'"],
    },
    "damaged": {
        **_READING,
        "recover": ["recover --dry-run", "recover --dry-run --chain schedules", "recover"],
        "changes": [
            "register --agent-id agent-1 --prompt Hi --every 1h",
            "execute",
            "pack --out FOLDER/all.zip",
        ],
    },
    "parts": {
        "list": ["list --limit 3", "list --agent-id agent-more"],
        **_alone("stats", "verify"),
        "budgets": ["budgets --agent-id agent-more"],
        "simulate": ["simulate --until 'in 1d'"],
        "rebuild": ["rebuild", "list --limit 1"],
    },
}
"""Of each data directory: the files of documents, and what is asked in each."""

_NO_ID = "--id sch_00000000"
WRONG: Asked = {
    "register": [
        "register",
        "register --agent-id agent-1 --prompt Hi",
        "register --agent-id agent-1 --every 1h",
        "register --agent-id 'agent 1' --prompt Hi --every 1h",
        "register --agent-id agent-1 --prompt Hi --every 1h --time 09:00",
        "register --agent-id agent-1 --prompt Hi --every 1x",
        "register --agent-id agent-1 --prompt Hi --every 1s",
        "register --agent-id agent-1 --prompt Hi --cron '61 * * * *'",
        "register --agent-id agent-1 --prompt Hi --cron '* * * *'",
        "register --agent-id agent-1 --prompt Hi --cron '0 0 31 2 *'",
        "register --agent-id agent-1 --prompt Hi --cron '0 9 * * *' --tz Mars/Olympus",
        "register --agent-id agent-1 --prompt Hi --cron '0 9 * * *' --tz CET2",
        "register --agent-id agent-1 --prompt Hi --time 2026-01-01T00:00",
        "register --agent-id agent-1 --prompt Hi --time tomorrow-ish",
        "register --agent-id agent-1 --prompt Hi --every 1h --until 2026-01-01",
        "register --agent-id agent-1 --prompt Hi --every 1h --jitter 2h",
        "register --agent-id agent-1 --prompt Hi --every 1h --grace forever",
        "register --agent-id agent-1 --prompt Hi --every 1h --max-repetitions 0",
        "register --agent-id agent-1 --prompt Hi --every 1h --tier 3",
        "register --agent-id agent-1 --prompt Hi --every 1h --misfire never",
        "register --agent-id agent-1 --prompt Hi --every 1h --every 2h",
        "register --agent-id agent-1 --prompt Hi --every 1h --nonsense",
        "register --agent-id agent-1 --prompt Hi --template idle --every 1h",
        "register --agent-id agent-1 --prompt-file FOLDER/none --every 1h",
    ],
    "changes": [
        *(f"{what} {_NO_ID}" for what in ("cancel", "pause", "resume", "trigger")),
        f"modify {_NO_ID} --every 1h",
        "modify --id {hourly}",
        "modify --id {hourly} --every 1s",
        "modify --id {hourly} --tz Nowhere/Atall",
        "modify --id {once} --every 1h",
        "cancel --id {late} --reason 1 --var ''",
        "cancel --id {overtaken}",
        "cancel --id {once}",
        "pause --id {late}",
        "pause --id {once}",
        "resume --id {hourly}",
        "resume --id {once}",
        "resume --failed-with no_such_code",
        "resume",
        "trigger --id {overtaken}",
        "cancel --id nowhere",
    ],
    "reading": [
        f"show {_NO_ID}",
        "show",
        "show --id {hourly} --at yesterday-ish",
        "show --id {dead} --at 5",
        "list --status asleep",
        "list --limit 0",
        "list --at 2031-01-01T00:00",
        "next",
        f"next {_NO_ID}",
        "next --every 1h --count 0",
        "next --cron 'x * * * *'",
        "history --type moon.risen",
        f"history {_NO_ID}",
        "history --slot 2026-10-01T00:00:00Z",
        "history --since 2026-12-01 --until 2026-11-01",
        "simulate --until 2026-11-01",
        "simulate",
        "audit --since never",
        "audit --since 2026-12-01 --until 2026-11-01",
        "diff --since 2000",
        "diff --since 20 --to 10",
        "list extra",
        "list --var FOLDER/nowhere",
    ],
    "approvals": [
        f"approve {_NO_ID}",
        "approve --id {hourly}",
        "approve --id {outside} --uses 0",
        "approve --id {outside} --ttl -1h",
        "approve --id {outside} --content 00",
        f"revoke {_NO_ID}",
        "revoke --id {hourly}",
    ],
    "desires": [
        "desire --text Sing",
        "desire --agent-id agent-1 --text ''",
        "desire --agent-id agent-1 --text Sing --strength 2",
        "reinforce --id des_00000000",
        "reinforce --id {desire0} --by 0",
        "prune",
        "prune --below -1",
        "desires --min-strength high",
        "idle --agent-id agent-1",
    ],
    "proof": [
        "verify --head 5:00",
        "verify --head 5:" + "0" * 64,
        "verify --head 9999:" + "0" * 64,
        "verify --note FOLDER/none --key FOLDER/var/keys/head.pub",
        "verify --note FOLDER/note --key ed25519:AAAA",
        "head --note --key FOLDER/none",
        "keygen",
        "pack --out FOLDER/none/all.zip",
        "pack --out FOLDER/other.zip --since 2020-01-01 --until 2020-02-01",
        "seal --month 2026-12",
        "seal --month 2026-13",
        "import FOLDER/none",
        "import-sqlite FOLDER/note",
    ],
    "delivery": ["execute --interval 5", "execute --concurrency 0", "execute --deadline -1"],
    "pinned": [
        "list --agent-id agent-1",
        "show --id {london}",
        "cancel --id {london}",
        "pack --out FOLDER/other.zip",
        "list --limit 2",
        "budgets",
    ],
}
"""What is refused, group by group; of `pinned`, to a caller who is pinned to the first agent."""


_ECHO = "agent-c06fc069-612b-472e-8cdf-619a05e397f5"
_EVERYTHING = (
    "--conversation-id conv-00000000-0000-4000-8000-000000000001 --name everything --start-at "
    "2026-12-02T00:00 --until 2027-06-01 --max-repetitions 9 --daily-budget 3 --jitter 5m "
    "--envelope --on-failure agent-1 --reason 'all of it' --misfire skip --grace 3h --tier 1 --tz "
    "Europe/London --cron '0 9 * * *' --prompt Everything."
)
_NEVER = "--name never --prompt 'This is never.' --time 2030-01-01T00:00"
CONTINUED: Mapping[str, Sequence[str]] = {
    "main": [
        "@ 2026-12-01T11:20",
        f"register --agent-id {_ECHO} {_NEVER}",
        f"register --agent-id {_ECHO} {_NEVER} --tier 1 --grace 2h",
        f"register --agent-id {_ECHO} --prompt 'A new one.' --cron '0 9 * * *' --tz Asia/Tokyo",
        "register --agent-id agent-1 --prompt 'In a file.' --every 3h --jitter 5m --envelope",
        "register --agent-id agent-1 --prompt 'Of tier 2.' --every 3h --tier 2 --reason why",
        f"register --agent-id {_ECHO} {_EVERYTHING}",
        "modify --id {london} --cron '15 9 * * *' --reason later",
        "modify --id {hourly} --prompt 'This is hourly, changed.' --daily-budget 3",
        "@ 2026-12-01T12:40",
        "pause --id {newyork} --reason 'a rest'",
        "resume --id {late}",
        "resume --failed-with agent_not_found",
        "cancel --id {thrifty} --reason enough",
        "trigger --id {never} --reason now",
        "approve --id {outside} --uses 2 --ttl 2d --reason again",
        "revoke --id {outside}",
        "desire --agent-id agent-1 --text 'Write a book' --strength 0.4 --tag work",
        "reinforce --id {desire0}",
        "prune --below 0.05",
        "idle --agent-id agent-1 --every 1d",
        "@ 2027-01-02T08:00",
        "seal",
        "register --agent-id agent-2 --prompt 'Next year.' --every 1d",
        "verify",
        "audit --since 2026-12-25",
        "stats",
        "list",
        "history --limit 2",
        "verify --note FOLDER/note --key FOLDER/var/keys/head.pub",
    ],
    "recovered": [
        "@ 2026-11-06T10:00",
        "register --agent-id agent-1 --prompt 'One more.' --every 2h",
        "cancel --id {third1}",
        "@ 2026-12-02T10:00",
        "seal",
        "verify",
        "audit",
    ],
    "damaged": [
        "recover --yes --from-index --reason 'a bad disk'",
        "recover --yes",
        "register --agent-id agent-1 --prompt 'One more.' --every 2h",
        "verify",
        "list --status all",
        "audit",
    ],
    "parts": [
        "register --agent-id agent-more --prompt 'Two more.' --every 2h",
        "@ 2026-12-01T10:00",
        "register --agent-id agent-more --prompt 'Three more.' --every 2h",
        "stats",
        "verify",
    ],
}
"""How each data directory goes on. Nothing is sent."""

DELIVERED: Sequence[str] = [
    "@ 2026-12-01T11:20",
    "execute --concurrency 1 --deadline 60",
    "@ 2026-12-01T11:30",
    "execute --concurrency 1 --deadline 60",
    "trigger --id {never}",
    "execute --concurrency 1 --deadline 60",
    "@ 2026-12-02T10:00",
    "execute --concurrency 1 --deadline 60",
    "audit --since 2026-12-01",
    "verify",
    "stats",
    "budgets",
]
"""How the main one goes on where what is due is delivered, to a sandbox."""

IMPORTED: Sequence[str] = [
    "import FOLDER/export.json --dry-run",
    "import FOLDER/export.json",
    "import FOLDER/export.json --partial",
    "import FOLDER/export.json --partial",
    "list --status all",
    "verify",
]
"""How an export is taken over. One line of it is of a zone that no machine knows."""
