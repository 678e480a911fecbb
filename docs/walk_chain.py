"""Check a chain with zlib and SHA-256 alone: python walk_chain.py var/schedules"""

import hashlib
import json
import pathlib
import sys
import zlib

KEYS = ["v", "seq", "ts", "type", "id", "actor", "data", "prev"]
LOSS = ["after", "after_hash", "first", "first_prev", "lost"]


def must(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)


def lines(path):
    rest = path.read_bytes()
    while rest:  # one gzip member after another; each is one append
        member = zlib.decompressobj(31)
        content = member.decompress(rest)  # raises where a checksum is wrong
        must(member.eof and content.endswith(b"\n"), "cut off in the middle")
        yield from content[:-1].split(b"\n")
        rest = member.unused_data


seq, head, ts, lost, bad = 0, "0" * 64, "", 0, {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("????-??.ndjson.gz")):
    try:
        for line in lines(path):
            event = json.loads(line)
            must(isinstance(event, dict) and list(event) == KEYS, "its keys are others")
            if event["type"] == "ledger.recovered":  # what it says is lost may be missing
                loss = tuple(event["data"].get(key) for key in LOSS)
                lost += loss[4] if loss[2] is None or bad.pop(loss, "") else 0
            gap = (seq, head, event["seq"], event["prev"], event["seq"] - seq - 1)
            if gap[4] > 0:  # bad, unless a later event says exactly this
                bad[gap] = f"{seq + 1} in {path.name}: its number is {event['seq']}"
                seq, head = event["seq"] - 1, event["prev"]
            must(event["seq"] == seq + 1, f"its number is {event['seq']}")
            must(event["prev"] == head, "it doesn't follow from the line before")
            must(event["ts"] >= ts, "its time runs backwards")
            must(event["ts"][:7] == path.name[:7], "it lies in another month")
            seq, head, ts = seq + 1, hashlib.sha256(line).hexdigest(), event["ts"]
    except (zlib.error, ValueError, TypeError, AttributeError) as error:
        bad[path] = f"{seq + 1} in {path.name}: {error}"
        break
for first in bad.values():
    sys.exit(print("bad event", first) or 1)
print("ok", seq, head, *(["lost", lost] if lost else []))
