"""Make the pages that follow from the code or from other files, and .env.example.

Run it with `make docs`. At the end of this file, FILES names each file that it makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import click

from promptyoself.cli import cli
from promptyoself.core.setting_values import DESTINATION, DIGEST, SETTINGS, WEBHOOK_SECRET
from promptyoself.doors.agent_parameters import argument_name, parameters
from promptyoself.doors.registry import AGENT_FACING, TOOLS, Effect, Tool

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))  # where the tests, which run this file, don't look

from manual_page import manual_page  # noqa: E402

COMMON = {"--var", "--format", "--no-pager", "--help"}
_RECORD = re.compile(
    r"# (\d+)\. (.+)\n\n\*\*Date\.\*\* (\d{4}-\d\d-\d\d)\.\n"
    r"\*\*Status\.\*\* ((?:In force|Superseded by|Withdrawn: )(?:.|\n(?!\n))*)\.\n\n"
)


def reference() -> str:
    """The text of docs/reference/commands.md."""
    context = click.Context(cli)
    commands = {
        name: command
        for name in cli.list_commands(context)
        if (command := cli.get_command(context, name))
    }
    lines = [
        "# Commands and settings",
        "",
        "Made by `make docs` from the commands themselves; a test keeps it up to date.",
        "",
        "Every command prints one JSON document on stdout ([json.md](json.md)) and takes these:",
        "",
        *_options(commands["list"], common=True),
        "",
        "How times, durations and zones are written: [scheduling.md](scheduling.md).",
    ]
    for name, command in commands.items():
        lines += ["", f"## {name}", *_section(command)]
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                arguments = [one.make_metavar(context) for one in inner.params if _is_argument(one)]
                lines += ["", f"### {' '.join([name, word, *arguments])}", *_section(inner)]
    lines += [
        "",
        "## Settings",
        "",
        "A setting comes from the environment, else from a `.env` file. Else it has its default.",
        "The `.env` file is the one at the root of a source checkout, else",
        "`~/.config/promptyoself/.env` (below `$XDG_CONFIG_HOME`, if that is set). It is never",
        "that of the working directory. An empty or blank value counts as unset.",
        "",
        "`promptyoself doctor` shows each setting, and where it came from.",
        "[Operating](../howto/operating.md#settings) tells how the file is written, and what is",
        "said of names that are no settings.",
        "",
        "| setting | default | what it is |",
        "|---|---|---|",
    ]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| `{setting.name}` | {default} | {_cell(setting.help)} |")
    for prefix, purpose in (
        (DESTINATION, "The address of the destination that is called NAME, in capitals, with _ "
         "for -."),
        (WEBHOOK_SECRET, "What is signed with, where that destination is a webhook."),
        (DIGEST, "When its digest is sent: 08:00, or 08:00 Europe/Paris."),
    ):  # fmt: skip
        lines.append(f"| `{prefix}NAME` |  | {_cell(purpose)} |")
    lines += ["", "[Notices](../howto/notices.md) are what destinations get."]
    return "\n".join(lines) + "\n"


def doors() -> str:
    """The text of docs/reference/doors.md."""
    context = click.Context(cli)
    lines = [
        "# Each tool through each door",
        "",
        "Made by `make docs` from the commands themselves; a test keeps it up to date.",
        "",
        "Three doors lead to the same commands: a shell, a [Sanctum host](../howto/sanctum.md) and",
        "an [MCP client](../howto/mcp.md). They answer the same JSON ([json.md](json.md)), errors",
        "too, and write the same events. The actor of an event says which door it was: `cli`,",
        "`sanctum` or `mcp`.",
        "",
        "| at a shell | through a Sanctum host | through MCP | what calling it does |",
        "|---|---|---|---|",
    ]
    for name in AGENT_FACING:
        tool = argument_name(name)
        cells = f"`promptyoself {name}`", f"`promptyoself__{name}`", f"`{tool}`"
        lines.append(f"| {' | '.join(cells)} | {_does(TOOLS[name])} |")
    closed = [f"`{name}`" for name in cli.list_commands(context) if name not in AGENT_FACING]
    lines += [
        "",
        *wrap(
            "These commands are there only at a shell, since they set up, serve, keep keys, "
            f"rewrite files, move schedules or are for people's eyes: {', '.join(closed)}. A new "
            "command is closed to agents until it is put among theirs.",
            100,
            break_on_hyphens=False,
        ),
        "",
        "## What differs",
        "",
        "| | at a shell | through a Sanctum host | through MCP |",
        "|---|---|---|---|",
        "| arguments | `--max-repetitions 5`; `_` for `-` works too | `max_repetitions` "
        "| `max_repetitions` |",
        "| a flag | `--full`; `--no-envelope` | `full: true`; `envelope: false` "
        "| `full: true`; `envelope: false` |",
        "| several values | the option, once for each value | an array | an array |",
        "| a value of the wrong type | `invalid_value` | `invalid_value` "
        '| `invalid_value`, unless its meaning is plain: `"5"`, `"true"` |',
        "| commands | all | the commands of the table above "
        "| ten of these; `--tools` offers more |",
        "| an empty text | It is an empty text. | It counts as left out. With `modify` it unsets "
        "what can be unset. | as through a Sanctum host |",
        "| a command or option that isn't for agents | It is there. | It is refused: "
        "`unknown_command`, `unknown_option`. | It is refused, with the same codes. An "
        "unknown tool is an error of the protocol. |",
        "| an error | exit code 1 or 2 | exit code, and `error` in the JSON | `isError` |",
        "| the longest text | 128 KiB, on Linux | 128 KiB, on Linux | 1 MiB, as a prompt may "
        "have |",
        "| who calls | the login | the login that the host runs as "
        "| the client, by its own name, or with `--agent-header` the agent of the header |",
        "| for whom | the agent of `--agent-id`, or else of the settings | the agent of "
        "`agent_id`, or else of the settings | the agent of `agent_id`, or else of the header, or "
        "else of the settings |",
        "",
        "`PROMPTYOSELF_ONLY_AGENT` pins the caller to one agent through all three doors. That "
        "agent is then the caller ([format](format.md#who-did-it-and-for-whom)).",
        "",
        "## What is only for people",
        "",
        "| command | options that agents don't have |",
        "|---|---|",
    ]
    for name in AGENT_FACING:
        command = cli.get_command(context, name)
        assert command is not None
        offered = {f"--{parameter.name}" for parameter in parameters(command)}
        options = [option for option in command.params if isinstance(option, click.Option)]
        kept = [
            f"`{option.opts[0]}`"
            for option in options
            if option.opts[0] not in COMMON | offered and not option.hidden
        ]
        if kept:
            lines.append(f"| `{name}` | {', '.join(kept)} |")
    return "\n".join(lines) + "\n"


def decisions() -> str:
    """The text of docs/decisions/README.md.

    Raises:
        ValueError: a record doesn't begin with its title, its date and its status.
    """
    lines = [
        "# Decisions",
        "",
        "Made by `make docs` from the records themselves; a test keeps it up to date.",
        "",
        "A record says why something is as it is, for the person who might want to undo it. It has",
        "a context, a decision and a consequence, in 25 lines at most. Its number never changes.",
        "The numbers 25 to 29, 33, 34, 39, 54 and 69 were never used.",
        "",
        "To change a decision, write a new record, and name it in the status of the old one:",
        "`In force; amended by …`, or `Superseded by …`. A decision that is given up without a",
        "successor becomes `Withdrawn: ` with the reason.",
        "",
        "| number | decision | date | status |",
        "|---|---|---|---|",
    ]
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        match = _RECORD.match(path.read_text(encoding="utf-8"))
        if match is None:
            raise ValueError(f"{path.name} doesn't begin with title, date and status")
        number, title, date, status = match.groups()
        lines.append(f"| {number} | [{title}]({path.name}) | {date} | {' '.join(status.split())} |")
    return "\n".join(lines) + "\n"


def dotenv() -> str:
    """The text of .env.example."""
    lines = [
        "# Settings of promptyoself. Copy this file to .env and uncomment what you change.",
        "# Made by `make docs` from the settings themselves.",
        "#",
        "# Each line is NAME=value, blank or a comment, and a name is set once. An empty value",
        "# counts as unset. Write values out: promptyoself expands neither $NAME nor ~. Put a",
        "# value that has a $ in single quotes: NAME='pa$word'. Without them docker compose",
        "# expands it.",
        "#",
        "# promptyoself reads .env at the root of a source checkout, or else",
        "# ~/.config/promptyoself/.env. Its environment wins over the file. docker compose reads",
        "# the .env beside docker-compose.yml, which names the settings that each container gets.",
        "# There the shell's environment wins too, except over keys of Letta's that the compose",
        "# file doesn't name.",
    ]
    for setting in SETTINGS:
        lines += ["", f"# {setting.help}", f"#{setting.name}={setting.default}"]
    lines += [
        "",
        "# Destinations of notices are settings too. Here is one that is called OPS, with what",
        "# signs it and the time of its digest. `promptyoself notify` writes and checks them.",
        *(f"#{prefix}OPS=" for prefix in (DESTINATION, WEBHOOK_SECRET, DIGEST)),
        "",
        "# The Letta server in docker-compose.yml reads this file too: a model's key, and",
        "# whether the server asks for LETTA_SERVER_PASSWORD.",
        "#OPENAI_API_KEY=",
        "#SECURE=true",
    ]
    return "\n".join(lines) + "\n"


def alerts() -> str:
    """The text of docs/alerts.yml, for those who have the package alone."""
    return (ROOT / "docs" / "alerts.yml").read_text(encoding="utf-8")


DATA = ROOT / "promptyoself" / "data"
FILES = {
    ROOT / "docs" / "reference" / "commands.md": reference,
    ROOT / "docs" / "reference" / "doors.md": doors,
    ROOT / "docs" / "decisions" / "README.md": decisions,
    ROOT / ".env.example": dotenv,
    DATA / ".env.example": dotenv,
    DATA / "alerts.yml": alerts,
    DATA / "promptyoself.1": lambda: manual_page(cli, frozenset(COMMON)),
}


def _section(command: click.Command) -> Iterator[str]:
    yield ""
    yield from _paragraphs(command.help or "")
    if options := list(_options(command, common=False)):
        yield ""
        yield from options


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def _does(tool: Tool) -> str:
    words = {Effect.READS_LOG: "reads", Effect.DELIVERS: "writes"}
    parts = [words.get(tool.effect, tool.effect.value)]
    if tool.idempotent:
        parts.append("the same call again does nothing more")
    if tool.asks_letta:
        parts.append("asks Letta")
    return "; ".join(parts)


def _options(command: click.Command, *, common: bool) -> Iterator[str]:
    context = click.Context(command, show_default=True)
    options = [
        option
        for option in command.get_params(context)
        if isinstance(option, click.Option) and bool(COMMON & {*option.opts}) == common
    ]
    if not options:
        return
    yield "| option | |"
    yield "|---|---|"
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            text = _cell(record[1]).replace(" [required]", " Required.")
            yield f"| `{_cell(record[0])}` | {text} |"


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        yield " ".join(paragraph.split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for path, make in FILES.items():
        path.write_text(make(), encoding="utf-8")
        print(path.relative_to(ROOT))
