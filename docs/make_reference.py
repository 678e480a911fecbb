"""Make docs/reference.md and .env.example from the commands and the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from promptyoself.cli import cli
from promptyoself.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
COMMON = {"--var", "--format", "--help"}


def reference() -> str:
    """The text of docs/reference.md."""
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
        lines += ["", f"## {name}", "", *_paragraphs(command.help or "")]
        if options := list(_options(command, common=False)):
            lines += ["", *options]
    lines += [
        "",
        "## Settings",
        "",
        "From the environment, then from a `.env` file that never overrides it: the one at the",
        "root of a source checkout, else `~/.config/promptyoself/.env` (below `$XDG_CONFIG_HOME`,",
        "if set); never that of the working directory. `promptyoself doctor` shows each, and where",
        "it came from.",
        "",
        "| setting | default | |",
        "|---|---|---|",
    ]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| `{setting.name}` | {default} | {_cell(setting.help)} |")
    return "\n".join(lines) + "\n"


def dotenv() -> str:
    """The text of .env.example."""
    lines = [
        "# Copy to .env and uncomment what you change; the environment overrides it.",
        "# Made by `make docs` from the settings themselves.",
    ]
    for setting in SETTINGS:
        lines += ["", f"# {setting.help}", f"#{setting.name}={setting.default}"]
    lines += [
        "",
        "# Of the Letta server in docker-compose.yml, which reads this file too: a model's key;",
        "# whether it asks for LETTA_SERVER_PASSWORD.",
        "#OPENAI_API_KEY=",
        "#SECURE=true",
    ]
    return "\n".join(lines) + "\n"


FILES = {ROOT / "docs" / "reference.md": reference, ROOT / ".env.example": dotenv}


def _options(command: click.Command, *, common: bool) -> Iterator[str]:
    context = click.Context(command)
    options = [
        option
        for option in command.get_params(context)
        if isinstance(option, click.Option) and (option.opts[0] in COMMON) == common
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
