"""Check a chain with zlib and SHA-256 alone: python walk_chain.py var/schedules"""

import hashlib
import json
import pathlib
import sys
import zlib

KEYS = ["v", "seq", "ts", "type", "id", "actor", "data", "prev"]


def lines(path):
    rest = path.read_bytes()
    while rest:  # one gzip member after another; each is one append
        member = zlib.decompressobj(31)
        content = member.decompress(rest)  # raises where a checksum is wrong
        if not member.eof or not content.endswith(b"\n"):
            raise ValueError("cut off in the middle")
        yield from content[:-1].split(b"\n")
        rest = member.unused_data


def must(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)


seq, head, ts = 0, "0" * 64, ""
for path in sorted(pathlib.Path(sys.argv[1]).glob("????-??.ndjson.gz")):
    try:
        for line in lines(path):
            event = json.loads(line)
            must(isinstance(event, dict) and list(event) == KEYS, "its keys are others")
            must(event["seq"] == seq + 1, f"its number is {event['seq']}")
            must(event["prev"] == head, "it doesn't follow from the line before")
            must(event["ts"] >= ts, "its time runs backwards")
            must(event["ts"][:7] == path.name[:7], "it lies in another month")
            seq, head, ts = seq + 1, hashlib.sha256(line).hexdigest(), event["ts"]
    except (zlib.error, ValueError, TypeError) as error:
        print(f"bad event {seq + 1} in {path.name}: {error}")
        sys.exit(1)
print("ok", seq, head)
