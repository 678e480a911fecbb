"""The floor under ``register``: a bare click, filelock and orjson program with the same I/O.

It takes as many options, locks, reads an index of 100 entries, appends one gzip member of one line,
fsyncs it, and prints one JSON document. It checks nothing, links nothing, keeps no index up to
date, has no schedules and no errors: what it costs is the interpreter, the three libraries and the
disk, so the ratio to it is what all the rest of promptyoself costs.
"""

import os
import sys
import zlib
from datetime import UTC, datetime
from hashlib import sha256

import click
import orjson
from filelock import FileLock


@click.command()
@click.option("--var", required=True)
@click.option("--format", "format_", type=click.Choice(["json", "table"]), default="json")
@click.option("--agent-id")
@click.option("--prompt")
@click.option("--prompt-file")
@click.option("--time")
@click.option("--cron")
@click.option("--every")
@click.option("--start-at")
@click.option("--until")
@click.option("--max-repetitions", type=int)
@click.option("--tz")
@click.option("--misfire", type=click.Choice(["coalesce", "skip", "all"]))
@click.option("--grace")
@click.option("--name")
@click.option("--conversation-id")
@click.option("--envelope/--no-envelope", default=None)
@click.option("--tier", type=int)
@click.option("--daily-budget", type=int)
@click.option("--jitter")
@click.option("--reason")
@click.option("--check", is_flag=True)
@click.option("--dry-run", is_flag=True)
def main(var: str, **options: object) -> None:
    """Append the options."""
    now = datetime.now(UTC).isoformat()
    with FileLock(os.path.join(var, "lock"), timeout=10):
        with open(os.path.join(var, "index.json"), "rb") as file:
            entries = orjson.loads(file.read())["schedules"]
        content = {name: value for name, value in options.items() if value is not None}
        id_ = sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
        event = {"seq": len(entries), "ts": now, "id": id_, "data": content}
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
        member = compressor.compress(orjson.dumps(event) + b"\n") + compressor.flush()
        path = os.path.join(var, "log.ndjson.gz")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, member)
        os.fsync(descriptor)
        os.close(descriptor)
    sys.stdout.buffer.write(orjson.dumps({"status": "success", "id": id_, "next_run": now}) + b"\n")


if __name__ == "__main__":
    main()
