"""P3, P4, P9: a known loss is never written over. `recover` brings a damaged or cut log back into
service, with everything sound in force and everything lost named."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from chains import append, draft
from checker import lines
from crashes import Unsynced
from damage import ALTERATIONS, lay, nine_events, store_in
from recoveries import NOW, SOUND, found_lines, recovered
from tally import SCALE, chance, count

from promptyoself.core.errors import ChainError
from promptyoself.service.proof.verify import verify


def assert_sound(
    folder: Path, good: list[bytes], before: set[bytes], answer: dict[str, Any], *, index: bool
) -> None:
    """Every sound line is in force, nothing was invented, and every loss is named: at the end of
    the log, as far as an index has seen it."""
    left = lines(folder)
    rivals = {json.loads(line)["seq"] for line in left if line in before and line not in good}
    found = [line for line in good if line in before]
    if rivals and not index:  # a changed line in the last place but one, or the last: who can tell?
        found = [line for line in found if json.loads(line)["seq"] < min(rivals)]
        left = [line for line in left if json.loads(line)["seq"] < min(rivals)]
        assert min(rivals) >= len(good) - 1
        rivals.add(len(good))
    elif rivals:  # a changed line in the very last place: only a head tells
        assert rivals == {len(good)}
        found = found[: len(good) - 1]
    assert found == [line for line in left if line in good and line in before], "a loss"
    new = {json.loads(line)["type"] for line in left if line not in good and line not in before}
    assert new <= {"ledger.recovered", "ledger.created", "tail.quarantined"}, "it was invented"
    gaps = answer.get("gaps", [])
    for seq in (json.loads(line)["seq"] for line in good if line not in left):
        named = any(gap["after"] < seq < gap.get("first", gap.get("known", 0) + 1) for gap in gaps)
        at_end = seq in rivals or (not index and seq > answer.get("sound_events", 0))
        assert named or at_end, f"the loss of event {seq} isn't named"
    stated = verify(store_in(folder)).get("recovered", [])
    places = [(gap["after"], gap["lost"]) for gap in gaps]
    assert [(gap["after"], gap["lost"]) for gap in stated] == places
    _check_quarantine(folder)


def _check_quarantine(folder: Path) -> None:
    """Each piece that is recorded lies there, and nothing else does."""
    events = [json.loads(line) for line in lines(folder)]
    statements = [event["data"] for event in events if event["type"] == "ledger.recovered"]
    recorded = [piece for data in statements for piece in data.get("quarantined", ())]
    torn = [event["data"] for event in events if event["type"].startswith("tail.")]
    there = {path.name for path in (folder / "quarantine").glob("*") if path.is_file()}
    assert there == {piece["file"] for piece in recorded + torn}
    for piece in recorded:
        content = (folder / "quarantine" / piece["file"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert (len(content), digest) == (piece["bytes"], piece["sha256"])


@pytest.mark.parametrize("index", ["with", "without"])
@pytest.mark.parametrize("state", ["open", "sealed"])
@pytest.mark.parametrize("what", sorted(ALTERATIONS))
def test_every_alteration_is_recovered_from(
    quick_path: Path, what: str, state: str, index: str
) -> None:
    """Whatever is altered in a log of three months: after `recover` no sound event is lost, what is
    lost is named, old heads up to the gap still verify, and every command works."""
    folder = quick_path / "var" / "schedules"
    log = nine_events(folder, sealed=state == "sealed")
    stranger = nine_events(quick_path / "other" / "schedules", sealed=state == "sealed", first=77)
    foreign = {line for text in stranger.values() for line in gzip.decompress(text).split(b"\n")}
    good, kept = lines(folder), (folder / "index.json").read_bytes()
    tried = 0
    _, alterations = ALTERATIONS[what]
    pick = chance(f"recover {what} {state} {index}")
    share = 1.0 if SCALE > 1 else 0.06 if "bit" in what or "cut" in what else 0.5
    for name, altered in alterations(log, stranger):
        if pick.random() > share:
            continue
        shutil.rmtree(folder / "quarantine", ignore_errors=True)
        (folder / "index.json").unlink(missing_ok=True)
        lay(folder, altered)
        if index == "with":
            (folder / "index.json").write_bytes(kept)
        before = found_lines(folder)
        answer = recovered(folder)
        tried += 1
        left = lines(folder)
        if not foreign & set(left) - set(good):  # in whose place ours can't be told from theirs
            assert_sound(folder, good, before, answer, index=index == "with")
        store = store_in(folder, Unsynced())
        assert verify(store)["valid"], name
        first_gap = min((gap["after"] for gap in answer.get("gaps", ())), default=len(good))
        for seq, line in list(enumerate(good, 1))[:first_gap]:
            if left[seq - 1 : seq] == [line]:
                verify(store, f"{seq}:{hashlib.sha256(line).hexdigest()}")
        append(store._ledger, 500, now=NOW + timedelta(hours=1))
        assert store_in(folder, Unsynced()).read().position.seq >= len(left)
        assert recovered(folder) == SOUND
    count("logs recovered", tried)
    assert tried


def test_a_loss_after_a_recovered_end_is_noticed(quick_path: Path) -> None:
    """The numbers of a lost end are used again. An event that is lost among those is missed, though
    a statement has its number: another event had it then."""
    folder = quick_path / "var" / "schedules"
    nine_events(folder, sealed=False)
    store_in(folder, Unsynced()).read()
    (path,) = folder.glob("2026-11*.gz")
    content = path.read_bytes()
    starts = [at for at in range(len(content)) if content.startswith(b"\x1f\x8b\x08", at)]
    path.write_bytes(content[: starts[-2]])  # two events of the end
    assert recovered(folder)["gaps"][-1]["lost"] == 2
    store = store_in(folder, Unsynced())
    for number in (50, 51):
        later = NOW + timedelta(minutes=number)
        store.transact(later, lambda _, number=number: ([draft(number)], None))
    last = max(folder.glob("*.gz"))
    content = last.read_bytes()
    last.write_bytes(content[: content.rindex(b"\x1f\x8b\x08")])
    for check in (verify, lambda chain: chain.require_whole()):
        with pytest.raises(ChainError) as caught:
            check(store_in(folder, Unsynced()))
        assert caught.value.code == "events_missing"
    assert recovered(folder)["gaps"][-1]["lost"] == 1
    assert verify(store_in(folder, Unsynced()))["valid"]
