"""Forged logs: a real story with every type of event, and strategies that spoil it: at random, or
so that its hash links still hold and only what lies behind them can tell.

No code of the package writes them: gzip, hashlib and orjson only. Only the story itself is made by
the package, as all events are.
"""

import copy
import gzip
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st
from world import World

from promptyoself.core.instants import format_utc
from promptyoself.events import records
from promptyoself.events.versions import SCHEDULE_VERSIONS, VERSIONS
from promptyoself.rules.notices.replies import Answer, NoAnswer
from promptyoself.rules.outcome import Abandoned, Failed
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.request import Request
from promptyoself.state.desires import Desire, Ranked

Event = dict[str, Any]
Segments = dict[str, bytes]

_ENVELOPE = ("v", "seq", "ts", "type", "id", "actor", "data", "prev")
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


@lru_cache(maxsize=1)
def _story() -> list[Event]:
    world = World()
    store: Any = world
    world.add([(records.LedgerCreated(1, "schedules", "promptyoself 0"), None)])
    world.add([(records.WorkerStarted("wrk_1", 7, "here", "promptyoself 0", "loop", 32), None)])
    world.keep_reply = "excerpt"
    hourly = world.register(
        every="1h", name="Hourly", misfire="all", jitter="5m", keep_reply="excerpt", reply_to="me"
    )
    daily = world.register(
        *("agent-b", "Hi"),
        cron="30 9 * * MON-FRI",
        timezone="Europe/London",
        until="2027-01-31T00:00Z",
        keep_reply="hash",
    )
    once = world.register("agent-c", time="in 30m", conversation_id="conv-1", tier=1)
    idle = world.register("agent-d", None, template="idle", time="in 35m")
    world.strongest = lambda agent, now: [_wish(agent, now)]
    world.advance(minutes=40)
    world.deliver()
    world.answer(NoAnswer("no_answer", "Nothing.", ("search",)))
    resume_at = world.register("agent-c", "Ünïcode \U0001f600\n", every="1d", max_repetitions=9)
    world.advance(hours=2)
    for made in world.claim().claims:
        head = (made.slot, made.otid, made.attempt, "wrk_1")
        stalled = records.DeliveryStalled(
            *head, "letta_server_error", "HTTP 500.", True, 500, "Oh."
        )
        world.add([(stalled, made.id)])
        world.settle(made, Abandoned("letta_busy", "Busy."))
    world.advance(minutes=30)
    world.deliver(Failed("agent_not_found", "Gone.", permanent=True, run_id="run-1"))
    run_now(store, daily, "now", world.now)
    world.deliver()
    outside = world.register("agent-d", every="4h", tier=2, on_failure="agent-a")
    world.approve(outside, 2, days=30)
    world.advance(hours=4)
    world.deliver()
    grant = world.approve(outside)
    world.add([(records.ApprovalRevoked(grant, "on second thoughts"), outside)])
    world.add([(records.TailQuarantined("2026-11", 5, 3, "0" * 64, "2026-11-5-0.torn"), None)])
    piece = {"month": "2026-11", "offset": 5, "bytes": 0, "sha256": "0" * 64, "file": "x.damaged"}
    lost = records.LedgerRecovered(900, "0" * 64, 0, 901, "0" * 64, None, None, [piece], [outside])
    world.add([(lost, None)])
    world.answer(Answer("Done.", ("a", "b"), world.now))
    for owed in list(world.state.notices.values()):
        about = (owed.notice, owed.to, owed.kind)
        late = format_utc(world.now + timedelta(minutes=1))
        failed = records.NoticeFailed(*about, 1, "timeout", "Late.", owed.slot, retry_at=late)
        world.add([(failed, owed.id), (records.NoticeSent(*about, 2, owed.slot), owed.id)])
    digest = ("ntc_1", "me", "digest")
    world.add([(records.NoticeSent(*digest, 1, until=format_utc(world.now)), None)])
    world.add(
        [(records.NoticeFailed(*digest, 1, "gone", "", until="2026-12-01T00:00:00.000000Z"), None)]
    )
    pause(store, hourly, "a rest", world.now)
    world.advance(days=3)
    resume(store, hourly, None, world.now)
    modify(store, hourly, Request(every="2h", envelope=True, until=""), world.now)
    world.advance(days=20)
    world.add([(records.SegmentSealed("2026-11", 0, ""), None)])
    claims = world.claim().claims
    left = [{"id": made.id, "slot": made.slot, "run_id": "run-2"} for made in claims]
    cancel(store, daily, "done", world.now)
    world.add([(records.WorkerStopped("wrk_1", "SIGTERM", left), None)])
    assert {once, resume_at, idle} < set(world.state.schedules)
    assert set(world.state.counts) == set(SCHEDULE_VERSIONS), set(SCHEDULE_VERSIONS) - set(
        world.state.counts
    )
    return [event._asdict() for event in world.events]


def _wish(agent_id: str, now: datetime) -> Ranked:
    at = format_utc(now)
    return Ranked(0.5, Desire("des_00000001", agent_id, "Learn Danish", 0.5, at, at, at, ("old",)))


def story() -> list[Event]:
    """Events of every type there is, over two months; their links come from :func:`segments_of`."""
    return copy.deepcopy(_story())


def segments_of(found: Sequence[Event], *, relink: bool = True, together: int = 1) -> Segments:
    """The segments of these events, ``together`` of them in each member.

    With ``relink`` their numbers and hash links are made right, and so is what sealing recorded of
    a month: then only what they say can be wrong with them.
    """
    contents: dict[str, list[bytes]] = {}
    prev, month = "0" * 64, "2026-11"
    for number, each in enumerate(found, 1):
        event = dict(each)
        if relink:
            event.update(seq=number, prev=prev)
            event = {key: event[key] for key in _ENVELOPE}
            data = event.get("data")
            if event.get("type") == "segment.sealed" and isinstance(data, dict):
                lines = contents.get(str(data.get("month")), [])
                digest = hashlib.sha256(b"".join(lines)).hexdigest()
                event["data"] = {**data, "events": len(lines), "content_sha256": digest}
        line = orjson.dumps(event)
        prev = hashlib.sha256(line).hexdigest()
        ts = event.get("ts")
        if isinstance(ts, str) and _MONTH.fullmatch(ts[:7]):
            month = ts[:7]
        contents.setdefault(month, []).append(line + b"\n")
    return {
        f"{month}.ndjson.gz": b"".join(
            gzip.compress(b"".join(lines[at : at + together]), 1, mtime=0)
            for at in range(0, len(lines), together)
        )
        for month, lines in contents.items()
    }


def write_segments(var: Path, segments: Segments, chain: str = "schedules") -> None:
    """Put them into a data directory that has nothing of that chain."""
    folder = var / chain
    folder.mkdir(parents=True)
    for name, content in segments.items():
        (folder / name).write_bytes(content)


# --- strategies -----------------------------------------------------------------------------------

WORDS = (
    "", "schedules", "sch_00000000", "agent-a", "agent-b", "wrk_1", "cron", "once", "interval",
    "active", "paused", "cancelled", "completed", "failed", "trigger", "scheduled", "all", "skip",
    "1h", "0s", "9" * 30 + "d", "* * * * *", "0 0 31 2 *", "UTC", "Mars/Olympus", "Europe/London",
    "2026-11-20T13:00:00.000000Z", "2026-11-31T13:00:00.000000Z", "2026-11-20T25:61:61.000000Z",
    "2026-11-20T13:00", "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z",
    "0000-00-00T00:00:00.000000Z", "2026-12-09T13:10:00.000000Z", "2026-11", "\0", "\x1b[2J", "∞",
)  # fmt: skip
_texts = st.sampled_from(WORDS) | st.text(max_size=12)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-2, 40),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
arbitrary_json: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_instants = st.sampled_from([word for word in WORDS if re.fullmatch(r"\d{4}-.*Z", word)])
_types = st.sampled_from([*VERSIONS, "moon.risen"])
_ids = st.sampled_from([*dict.fromkeys(event["id"] for event in _story()), "sch_00000000"])

forged_events: st.SearchStrategy[Event] = st.fixed_dictionaries(
    {
        "v": st.sampled_from([1, 1, 1, 0, 2, 2**64 - 1]) | _scalars,
        "seq": _scalars,
        "ts": _instants | _scalars,
        "type": _types | _scalars,
        "id": _ids | _scalars,
        "actor": st.just({"via": "cli", "who": "x"}) | arbitrary_json,
        "data": st.dictionaries(_texts, arbitrary_json, max_size=4) | arbitrary_json,
        "prev": _scalars,
    }
)


@st.composite
def spoiled_stories(draw: st.DrawFn, told: Callable[[], list[Event]] = story) -> list[Event]:
    """The story with one to three things wrong in it. Numbers and links are not among them."""
    events = told()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(events) - 1))
        event = events[place]
        change = draw(st.sampled_from(["set", "set", "set", "nested", "rename", *_WHOLE]))
        match change:
            case "drop" if len(events) > 1:
                del events[place]
            case "copy":
                events.insert(draw(st.integers(0, len(events))), copy.deepcopy(event))
            case "swap":
                other = draw(st.integers(0, len(events) - 1))
                events[place], events[other] = events[other], event
            case "insert":
                events.insert(place, draw(forged_events))
        if change in _WHOLE:
            continue
        data = event["data"]
        if not isinstance(data, dict):
            continue
        inner = [value for value in data.values() if isinstance(value, dict)]
        if change == "nested" and inner:
            data = inner[0]
        if change != "rename" and data and draw(st.integers(0, 5)):
            data[draw(st.sampled_from(sorted(data)))] = draw(arbitrary_json)
        elif change == "rename" and data:
            value = data.pop(draw(st.sampled_from(sorted(data))))
            if draw(st.booleans()):
                data[draw(_texts | st.sampled_from(_FIELDS))] = value
        else:
            name = draw(st.sampled_from(_ENVELOPE))
            event[name] = draw({"type": _types, "id": _ids, "ts": _instants}.get(name, _scalars))
    return events


_WHOLE = ("drop", "copy", "swap", "insert")
_FIELDS = sorted({name for cls in records.CLASSES.values() for name in cls._fields})


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """These bytes with one to three flips, cuts, splices or copies."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        end = at + draw(st.integers(0, 400))
        match draw(st.sampled_from(["flip", "cut", "splice", "copy", "end"])):
            case "flip" if content:
                flipped = content[at] ^ (1 << draw(st.integers(0, 7)))
                content = content[:at] + bytes([flipped]) + content[at + 1 :]
            case "cut":
                content = content[:at] + content[end:]
            case "splice":
                content = content[:at] + draw(st.binary(max_size=40)) + content[at:]
            case "copy":
                to = draw(st.integers(0, len(content)))
                content = content[:to] + content[at:end] + content[to:]
            case "end":
                content = content[:at]
    return content
