"""The floor under ``list``: a bare click and orjson program that reads an index of as many
schedules and prints as much."""

import os
import sys

import click
import orjson


@click.command()
@click.option("--var", required=True)
@click.option("--format", "format_", type=click.Choice(["json", "table"]), default="json")
@click.option("--agent-id")
@click.option("--status", type=click.Choice(["active", "paused", "all"]))
@click.option("--limit", type=click.IntRange(min=1))
@click.option("--full", is_flag=True)
@click.option("--at")
def main(var: str, limit: int | None, **_: object) -> None:
    """Print the entries."""
    with open(os.path.join(var, "index.json"), "rb") as file:
        entries = orjson.loads(file.read())["schedules"][:limit]
    document = {"status": "success", "schedules": entries, "count": len(entries)}
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")


if __name__ == "__main__":
    main()
