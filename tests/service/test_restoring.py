"""`recover --from-index`: what an index knows and the log has lost is put back by new events."""

from pathlib import Path

import pytest
from chains import ACTOR, draft
from checker import check_chain
from crashes import Unsynced
from damage import raw_members, store_in
from recoveries import NOW, recovered

from promptyoself.events import records
from promptyoself.events.draft import Draft

SLOT = "2026-12-05T11:00:00.000000Z"
NEXT = "2026-12-07T09:00:00.000000Z"
CHANGES: list[tuple[int, records.Record]] = [
    (0, records.ScheduleModified({"prompt": "New", "next_run": NEXT}, "asked")),
    (1, records.SchedulePaused(NEXT, "asked")),
    (2, records.ScheduleCancelled("asked")),
    (3, records.ScheduleTriggered(SLOT, "asked")),
]
FIELDS = ("agent_id", "prompt", "schedule_type", "schedule_value", "timezone", "status", "next_run",
          "tier", "misfire", "grace")  # fmt: skip


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
@pytest.mark.parametrize("from_index", [True, False])
def test_what_the_index_knows(quick_path: Path, where: str, from_index: bool) -> None:
    """Changed, paused, cancelled, triggered and registered in what is lost: each is put back where
    that is asked for; else each is named, and the index is kept."""
    folder = quick_path / "var" / "schedules"
    store = store_in(folder, Unsynced())
    for number in range(4):
        store.transact(NOW, lambda _, n=number: ([draft(n)], None))  # type: ignore[misc]
    for number, record in CHANGES:
        made = Draft(record, draft(number).id, ACTOR)
        store.transact(NOW, lambda _, m=made: ([m], None))  # type: ignore[misc]
    store.transact(NOW, lambda _: ([draft(4)], None))
    if where == "in the middle":
        store.transact(NOW, lambda _: ([draft(5)], None))
    state = store_in(folder).read().state
    known = {id_: each._asdict() for id_, each in state.schedules.items()}
    index = (folder / "index.json").read_bytes()
    (path,) = folder.glob("*.gz")
    pieces = raw_members(path.read_bytes())
    path.write_bytes(b"".join([*pieces[:4], *pieces[9:]]))
    answer = recovered(folder, from_index=from_index)
    assert answer["lost_events"] == 5
    named = {each["id"] for each in answer["differs"]}
    assert named == {draft(number).id for number in range(5)}
    left = store_in(folder).read().state
    if from_index:
        assert set(left.schedules) == set(known)
        for id_, each in known.items():
            found = left.schedules[id_]._asdict()
            assert {name: found[name] for name in FIELDS} == {name: each[name] for name in FIELDS}
        assert set(left.open) == set(state.open)
    else:
        assert draft(4).id not in left.schedules
        (kept,) = (folder / "quarantine").glob("index-*/index.json")
        assert kept.read_bytes() == index
    check_chain(folder)
