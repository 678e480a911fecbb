"""P3: audit packs of a log that has lost events and says so; and packs in which that is forged."""

import hashlib
import json
from pathlib import Path
from typing import Any

import packs
import pytest
from calling import call
from checker import check_chain, members
from conftest import Clock
from gaps import drop, hidden_alteration
from tally import count

SINCE = ("--since", "2026-10-01T00:00")
UNTIL = ("--until", "2026-10-31T00:00")


@pytest.fixture
def log(var: Path, clock: Clock) -> Path:
    """Thirteen events in three months, the first two of which are one append."""
    packs.register_monthly(clock, 3, 4, 5, 6)
    return var


def lose(log: Path, *numbers: int) -> dict[str, Any]:
    """Lose these, and recover."""
    assert drop(log / "schedules", *numbers)
    answer = call("recover", "--yes").success()
    assert answer["recovered"]
    return answer


def lost(number: int, after: int, event: int) -> str:
    """What the verifier says of a gap whose statement is in the pack."""
    events = "event" if number == 1 else "events"
    return f"lost {number} {events} after event {after}, as event {event} states"


def claimed(after: int, event: int) -> str:
    """What it says of a lost event, of which heads.json alone tells."""
    return (
        f"lost 1 event after event {after}, as heads.json alone claims: event {event} is not in "
        "this pack"
    )


@pytest.mark.parametrize(
    ("numbers", "arguments", "events", "first", "said"),
    [
        ((7,), (), 13, 1, [lost(1, 6, 14)]),
        ((1, 2), (), 12, 3, [lost(2, 0, 14)]),
        ((7,), SINCE, 8, 6, [lost(1, 6, 14)]),
        ((5,), SINCE, 9, 6, [lost(1, 4, 14)]),
        ((5, 6), SINCE, 8, 7, [lost(2, 4, 14)]),
        ((4,), SINCE, 9, 6, []),
        ((6, 7, 8, 9), (), 10, 1, [lost(4, 5, 14)]),
        ((8, 9, 10), SINCE, 6, 6, [lost(3, 7, 14)]),
        ((4, 8), (), 13, 1, [lost(1, 3, 14), lost(1, 7, 15)]),
        ((12, 13), (), 12, 1, [lost(2, 11, 12)]),
        ((4, 8), UNTIL, 7, 1, [claimed(3, 14), claimed(7, 15)]),
    ],
)
def test_a_pack_over_gaps(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: tuple[int, ...],
    arguments: tuple[str, ...], events: int, first: int, said: list[str],
) -> None:  # fmt: skip
    """P3: a pack over gaps counts what is there, and says what is lost and who states it; its
    verifier passes these gaps and prints the same. It proves the heads of what is left alone."""
    before = [line for lines in packs.lines_in(log).values() for line in lines]
    lose(log, *numbers)
    check_chain(log / "schedules")
    answer, folder = packs.packed(tmp_path, *arguments)
    found = packs.lines_in(folder)
    assert (answer["events"], answer["first"]) == (events, first)
    assert events == sum(map(len, found.values()))
    heads = json.loads((folder / "heads.json").read_bytes())
    gaps = heads.get("gaps", [])
    assert heads["format"] == (2 if gaps else 1)
    assert answer.get("lost_events", 0) == sum(gap["lost"] for gap in gaps)
    assert [entry["events"] for entry in heads["months"]] == [len(each) for each in found.values()]
    done = packs.check(folder)
    assert done.err == ""
    assert done.out.decode().splitlines() == [f"ok {events} {answer['head']}", *said]
    inside = {line for lines in found.values() for line in lines}
    for seq, line in enumerate(before, 1):
        head = f"{seq}:{hashlib.sha256(line).hexdigest()}"
        code, told = packs.verdict(folder, capsys, "--head", head)
        known = line in inside or seq == heads["before"]["seq"]
        assert code == (not known), told
        if code and any(gap["after"] < seq < gap["first"] for gap in gaps):
            assert told.startswith(f"bad event {seq}: that of --head is lost, as event 1"), told


def test_a_sealed_month_that_lost_events(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    """P3: what was recorded of a month before it lost some of its events needn't fit it any more,
    to `verify` and to the pack's verifier alike."""
    clock.set("2026-12-20T12:00:00")
    assert len(call("seal").success()["sealed"]) == 2
    packs.put(log, "2026-10", packs.lines_in(log)["2026-10"])
    lose(log, 7)
    call("verify").success()
    _, folder = packs.packed(tmp_path)
    code, said = packs.verdict(folder, capsys)
    assert (code, said.splitlines()[1:]) == (0, [lost(1, 6, 16)])


def test_a_month_with_a_gap_is_sealed(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    """P3: a month with a gap can be sealed, and the gap stays at a member's border. What is
    recorded of it after the loss was stated must fit what it has."""
    lose(log, 4)
    clock.set("2026-12-20T12:00:00")
    assert [each["events"] for each in call("seal").success()["sealed"]] == [4, 4]
    assert len(members((log / "schedules" / "2026-09.ndjson.gz").read_bytes())) == 2
    check_chain(log / "schedules")
    call("verify").success()
    _, folder = packs.packed(tmp_path)
    assert packs.verdict(folder, capsys)[0] == 0
    lines = packs.lines_in(folder)["2026-12"]
    heads = json.loads((folder / "heads.json").read_bytes())
    for at, month in ((-2, "2026-09"), (-1, "2026-10")):
        event = json.loads(lines[at])
        assert event["data"]["month"] == month
        event["data"]["events"] += 1
        text = json.dumps(event, separators=(",", ":"))
        put_december(folder, [*lines[:at], *relinked([text, *lines[at:][1:]])], heads)
        assert f"it was sealed with other content in {month}" in packs.refused(folder, capsys)
        call("verify", "--var", str(folder)).error("corrupt_chain")


def put_december(folder: Path, lines: list[bytes], heads: dict[str, Any]) -> None:
    """Write the last month again, and a heads.json that ends where it does."""
    packs.put(folder, "2026-12", lines)
    last = hashlib.sha256(lines[-1]).hexdigest()
    ends = [*heads["months"][:-1], {**heads["months"][-1], "hash": last}]
    document = {**heads, "months": ends, "head": {**heads["head"], "hash": last}}
    (folder / "heads.json").write_text(json.dumps(document))


def relinked(lines: list[Any]) -> list[bytes]:
    """The lines after the first, with good links."""
    found = [lines[0].encode()]
    for line in lines[1:]:
        event = json.loads(line)
        event["prev"] = hashlib.sha256(found[-1]).hexdigest()
        found.append(json.dumps(event, separators=(",", ":")).encode())
    return found


def test_every_change_of_a_stated_gap(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P3: whatever heads.json says otherwise of gaps whose statements are in the pack, the verifier
    finds it; and so it does where the statements say something else."""
    lose(log, 4, 8)
    _, pack = packs.packed(tmp_path)
    path = pack / "heads.json"
    heads = json.loads(path.read_bytes())
    assert packs.verdict(pack, capsys)[0] == 0
    for changed in packs.changes_of(heads["gaps"]):
        if changed == heads["gaps"]:
            continue
        path.write_text(json.dumps({**heads, "gaps": changed}))
        packs.refused(pack, capsys)
        count("heads altered")
    for format_ in (1, 3, "2", None):
        path.write_text(json.dumps({**heads, "format": format_}))
        packs.refused(pack, capsys)
    path.write_text(json.dumps(heads))
    lines = packs.lines_in(pack)
    false = ({"lost": 2}, {"lost": 0}, {"after": 2}, {"first": None}, {"first_prev": "0" * 64})
    for change in false:
        event = json.loads(lines["2026-12"][-1])
        event["data"].update(change)
        text = json.dumps(event, separators=(",", ":")).encode()
        put_december(pack, [*lines["2026-12"][:-1], text], heads)
        said = packs.refused(pack, capsys)
        assert said.startswith("bad event 15 in 2026-12.ndjson.gz: heads.json says that"), said
        assert call("verify", "--var", str(pack)).code == 1


def test_a_claim_says_that_it_is_one(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P3: where somebody drops events from a pack, and heads.json claims a gap there, the verifier
    says that it is a claim; where the number of its statement is in the pack, it is found."""
    _, pack = packs.packed(tmp_path)
    lines = packs.lines_in(pack)
    every = [line for each in lines.values() for line in each]
    kept = {month: [line for line in each if line != every[6]] for month, each in lines.items()}
    packs.put(pack, "2026-10", kept["2026-10"])
    heads = json.loads(packs.heads_of(kept))
    (pack / "heads.json").write_text(json.dumps(heads))
    assert packs.refused(pack, capsys).startswith("bad event 7 in 2026-10.ndjson.gz: its number")
    claim = {
        "after": 6,
        "after_hash": hashlib.sha256(every[5]).hexdigest(),
        "first": 8,
        "first_prev": hashlib.sha256(every[6]).hexdigest(),
        "lost": 1,
    }
    for event in (7, 8, 9, 13, 14):
        document = {**heads, "format": 2, "gaps": [{**claim, "event": event}]}
        (pack / "heads.json").write_text(json.dumps(document))
        code, said = packs.verdict(pack, capsys)
        assert (code, said.splitlines()[1:]) == ((0, [claimed(6, 14)]) if event == 14 else (1, []))
    document["gaps"].append({**claim, "after": 8, "first": 10, "event": 14})
    (pack / "heads.json").write_text(json.dumps(document))
    assert "nothing is missing after event 8 as it says" in packs.refused(pack, capsys)


def test_no_alteration_hides_behind_a_gap(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P3: where no number is missing, neither a statement nor heads.json excuses a broken link; and
    nothing of such a log is packed."""
    hidden_alteration(log / "schedules", 7)
    code = call("pack", "--out", str(tmp_path / "none.zip")).document["code"]
    assert code in ("corrupt_chain", "events_missing")
    folder = tmp_path / "pack"
    (folder / "schedules").mkdir(parents=True)
    lines = packs.lines_in(log)
    for month, each in lines.items():
        packs.put(folder, month, each)
    statement = json.loads(lines["2026-12"][-1])
    heads = json.loads(packs.heads_of(lines))
    for lost in (0, 1):
        gap = {**statement["data"], "lost": lost, "event": statement["seq"]}
        (folder / "heads.json").write_text(json.dumps({**heads, "format": 2, "gaps": [gap]}))
        assert packs.refused(folder, capsys) == "bad heads.json: what it says of a gap is none\n"
    (folder / "heads.json").write_text(json.dumps(heads))
    assert packs.refused(folder, capsys).startswith("bad event 8 in 2026-10.ndjson.gz: it doesn't")
