"""P3, P4, P7: whatever lies on the disk, stands on the command line or in the environment, the
answer is one JSON document with a documented code, soon, and nothing else is touched."""

import gzip
import hashlib
import os
import resource
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from answers import check_answer
from calling import AGENT, call, log_of, run, served_to_agents
from checker import members
from conftest import Clock
from forging import (
    arbitrary_json,
    forged_events,
    mutated_bytes,
    segments_of,
    spoiled_stories,
    story,
    write_segments,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tally import chance, count, rounds

from promptyoself.cli import cli
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import SETTINGS
from promptyoself.core.times import format_duration, parse_duration, parse_time, parse_zone
from promptyoself.doors.registry import COMMANDS
from promptyoself.ledger.envelope import Envelope, decode_line, encode_line
from promptyoself.rules.cron_expressions import parse_cron
from promptyoself.rules.triggers import Trigger, last_slot, next_fire_time
from promptyoself.sandbox import Sandbox

LATER = datetime(2026, 12, 20, 12, tzinfo=UTC)
SECONDS = 60.0
"""What a command may take at the very most, on a machine that has other things to do too."""

SECONDS_OF = {"simulate": 400.0}
"""The same of commands whose work grows with what is asked: the story has half a million fires in a
century, which take 25 s."""

KNOWN = str(next(event["id"] for event in story() if event["id"]))
OUTSIDE = str(next(event["id"] for event in story() if event["type"] == "approval.granted"))
SLOT = "2026-11-20T13:00:00Z"

READERS: list[tuple[str, ...]] = [
    ("verify",),
    ("verify", "--head", "3:" + "0" * 64),
    ("list", "--status", "all", "--full"),
    ("list", "--status", "all", "--full", "--format", "table"),
    ("list", "--at", "9"),
    ("list", "--at", "2026-11-25T00:00", "--full", "--status", "all"),
    ("show", "--id", KNOWN),
    ("show", "--id", KNOWN, "--format", "table"),
    ("replies",),
    ("replies", "--limit", "2"),
    ("report", "--since", "2026-11-20T13:30"),
    ("agenda",),
    ("simulate", "--until", "in 2d"),
    ("next", "--id", KNOWN, "--count", "3"),
    ("history",),
    ("history", "--ndjson"),
    ("history", "--id", KNOWN, "--slot", SLOT),
    ("history", "--agent-id", "agent-a", "--limit", "4"),
    ("audit",),
    ("audit", "--since", "2026-11-20T13:30", "--until", "2026-12-05T00:00"),
    ("diff", "--from", "0"),
    ("diff", "--from", "9", "--to", "2026-12-01T00:00"),
    ("stats",),
    ("doctor", "--skip-letta"),
    ("doctor", "--skip-letta", "--quick"),
    ("head",),
    ("export",),
    ("approvals",),
    ("budgets",),
    ("rebuild",),
]
WRITERS: list[tuple[str, ...]] = [
    ("register", "--agent-id", AGENT, "--prompt", "New", "--every", "1h"),
    ("modify", "--id", KNOWN, "--every", "3h"),
    ("pause", "--id", KNOWN),
    ("resume", "--id", KNOWN),
    ("trigger", "--id", KNOWN),
    ("cancel", "--id", KNOWN),
    ("approve", "--id", OUTSIDE),
    ("revoke", "--id", OUTSIDE),
    ("seal",),
]
LOOSE = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
)


def ask(var: Path, arguments: tuple[str, ...]) -> dict[str, Any] | None:
    """Call a command on a data directory, within the time that it may take."""
    began = time.monotonic()
    answer = call(*arguments, "--var", str(var))
    assert time.monotonic() - began < SECONDS, arguments
    return check_answer(answer, arguments)


@contextmanager
def laid_out(quick_path: Path, segments: dict[str, bytes]) -> Iterator[Path]:
    """A data directory with these segments, for a moment."""
    with tempfile.TemporaryDirectory(dir=quick_path) as folder:
        write_segments(Path(folder) / "var", segments)
        yield Path(folder) / "var"


def heads_of(var: Path) -> tuple[int, str]:
    """The last event's number and hash, by links alone; fails where one doesn't hold."""
    prev, seq = "0" * 64, 0
    for path in sorted((var / "schedules").glob("*.ndjson.gz")):
        for content in members(path.read_bytes()):
            for line in content[:-1].split(b"\n"):
                seq += 1
                event = orjson.loads(line)
                assert (event["seq"], event["prev"]) == (seq, prev)
                prev = hashlib.sha256(line).hexdigest()
    return seq, prev


def read_by_all(var: Path, readers: list[tuple[str, ...]]) -> None:
    """P4, P7: every reading command answers, and none changes the log; what `verify` calls sound
    has links that hold, and one head for all."""
    before = log_of(var)
    heads = set()
    for arguments in [*readers, ("verify",)]:
        document = ask(var, arguments)
        assert log_of(var) == before, f"{arguments} has changed the log"
        if document is not None and "head" in document and arguments[0] in ("verify", "head"):
            heads.add(document["head"])
    assert len(heads) <= 1, heads
    assert document is not None
    if document["status"] == "success" and "torn_tail" not in document:
        assert (document["seq"], document["hash"]) == heads_of(var)
    count("inputs fuzzed")


# --- the reader -----------------------------------------------------------------------------------


@st.composite
def members_of_anything(draw: st.DrawFn) -> dict[str, bytes]:
    """Whole gzip members, whatever they hold, alone or after a sound log."""
    contents = st.binary(max_size=60) | arbitrary_json.map(orjson.dumps)
    end = b"\n" * draw(st.booleans())
    segments = segments_of(story()) if draw(st.booleans()) else {}
    for content in draw(st.lists(contents, min_size=1, max_size=4)):
        before = segments.get("2026-12.ndjson.gz", b"")
        segments["2026-12.ndjson.gz"] = before + gzip.compress(content + end)
    return segments


@st.composite
def spoiled_segments(draw: st.DrawFn) -> dict[str, bytes]:
    """A real log with flips, cuts, splices and copies in it."""
    segments = segments_of(story(), together=draw(st.sampled_from([1, 3, 100])))
    name = draw(st.sampled_from(sorted(segments)))
    return {**segments, name: draw(mutated_bytes(segments[name]))}


MONTHS = ("2026-10.ndjson.gz", "2026-11.ndjson.gz", "9999-12.ndjson.gz", "0001-01.ndjson.gz")
LOGS: dict[str, tuple[int, st.SearchStrategy[dict[str, bytes]]]] = {
    "any bytes": (
        25, st.dictionaries(st.sampled_from(MONTHS), st.binary(max_size=600), min_size=1,
                            max_size=2),
    ),
    "members of anything": (25, members_of_anything()),
    # Lines with the keys of an event and anything in them, rightly linked.
    "forged events": (
        25, st.builds(
            lambda forged, before: segments_of([*before, *forged]),
            st.lists(forged_events, min_size=1, max_size=4), st.sampled_from([[], story()]),
        ),
    ),
    "spoiled bytes": (30, spoiled_segments()),
    # The links hold, and the events say what none of ours would: what the fold, the audit and the
    # answers read may be anything.
    "lies": (120, st.builds(segments_of, spoiled_stories(), together=st.sampled_from([1, 4]))),
}  # fmt: skip
"""Logs of every kind, and how many are tried of each."""


@pytest.mark.parametrize("kind", LOGS)
def test_any_log_is_answered_for(quick_path: Path, clock: Clock, kind: str) -> None:
    """P3, P7: whatever lies in the place of a log, every reading command answers, and leaves it as
    it is."""
    clock.now = LATER
    examples, logs = LOGS[kind]

    @settings(LOOSE, max_examples=rounds(examples))
    @given(logs, st.lists(st.sampled_from(READERS), min_size=2, max_size=4, unique=True))
    def fuzz(segments: dict[str, bytes], readers: list[tuple[str, ...]]) -> None:
        with laid_out(quick_path, segments) as var:
            read_by_all(var, readers)

    fuzz()


LIES: tuple[object, ...] = (None, 5, -(2**63), "x", "2026-11-31T25:00:00.000000Z", [5], {"x": 5})


def test_each_field_may_lie(quick_path: Path, clock: Clock) -> None:
    """P7: one field of one event at a time, with a value that none of ours would have written."""
    clock.now = LATER
    cases = [
        (at, path, lie)
        for at, event in enumerate(story())
        for path in [
            *((name,) for name in event["data"]),
            *((name, more) for name, value in event["data"].items() if isinstance(value, dict)
              for more in value),
        ]
        for lie in LIES
    ]  # fmt: skip
    commands = [reader for reader in READERS if reader[0] != "verify"] + WRITERS[1:]
    chosen = chance("lies")
    for at, path, lie in chosen.sample(cases, min(rounds(150), len(cases))):
        spoiled = story()
        data = spoiled[at]["data"]
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = lie
        with laid_out(quick_path, segments_of(spoiled)) as var:
            for command in chosen.sample(commands, 3):
                ask(var, command)
        count("inputs fuzzed")


@pytest.mark.parametrize(
    ("type_", "name", "lie", "command"),
    [
        ("delivery.delivered", "slot", 5, "audit"),
        ("delivery.unanswered", "slot", None, "audit"),
        ("notice.failed", "until", [5], "audit"),
        ("notice.sent", "until", {"x": 5}, "audit"),
        ("delivery.replied", "tools", [5], "replies --format table"),
        ("ledger.created", "chain", "2026-11-31T25:00:00.000000Z", "list --format table"),
        ("schedule.registered", "grace", -(2**63), "list --all --full --format table"),
        ("schedule.registered", "jitter", -(2**63), "list --all --full --format table"),
        ("schedule.registered", "keep_reply", "x", "list --all --full --format table"),
    ],
)
def test_lies_that_were_found_out(
    quick_path: Path, clock: Clock, type_: str, name: str, lie: object, command: str
) -> None:
    """P7: the lies that once were a bug, in each event of that type."""
    clock.now = LATER
    events = [at for at, event in enumerate(story()) if event["type"] == type_]
    assert events
    for at in events:
        spoiled = story()
        spoiled[at]["data"][name] = lie
        with laid_out(quick_path, segments_of(spoiled)) as var:
            ask(var, tuple(command.split()))


@settings(LOOSE, max_examples=rounds(40))
@given(spoiled_stories(), st.sampled_from(WRITERS))
def test_writing_after_a_log_that_lies(
    quick_path: Path, clock: Clock, spoiled: list[dict[str, Any]], writer: tuple[str, ...]
) -> None:
    """P4: a writing command on such a log either refuses and changes nothing, or goes on at its
    end, and what was there before stays, byte for byte."""
    clock.now = LATER
    with laid_out(quick_path, segments_of(spoiled)) as var:
        before = log_of(var)
        document = ask(var, writer)
        after = log_of(var)
        assert document is not None
        if document["status"] == "error":
            assert after == before
        elif writer != ("seal",):
            assert all(after[name].startswith(content) for name, content in before.items())
    count("inputs fuzzed")


# --- bombs ----------------------------------------------------------------------------------------


def repeated(byte: bytes, size: int, begin: bytes = b"") -> bytes:
    """A gzip member of a beginning and ``size`` times one byte, but for its checksum, without
    compressing them all."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = compressor.compress(begin) + compressor.flush(zlib.Z_FULL_FLUSH)
    piece = compressor.compress(byte * MIB) + compressor.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    trailer = struct.pack("<II", 0, (len(begin) + size) % (1 << 32))
    return HEADER + first + piece * (size // MIB) + end + trailer


HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\3"
MIB = 1 << 20

BOMBS: dict[str, Callable[[], bytes]] = {
    "ten gigabytes of zeros": lambda: repeated(b"\0", 10_000 * MIB),
    "a line of 200 MB": lambda: repeated(b"a", 200 * MIB, b'{"v":1,"seq":"'),
    "100,000 empty members": lambda: gzip.compress(b"", mtime=0) * 100_000,
    "100,000 headers": lambda: HEADER * 100_000,
    "a name that never ends": lambda: HEADER[:3] + b"\x08" + HEADER[4:] + b"a" * (4 * MIB),
    "lists in a list": lambda: gzip.compress(b'{"v":1,"seq":[%s[]]}\n' % (b"[]," * (20 * MIB)), 1),
    "brackets in brackets": lambda: gzip.compress(b'{"v":' + b"[" * (20 * MIB) + b"\n", 1),
    "what begins as an event, 500 times": lambda: b"\0" + repeated(b" ", 40 * MIB, b'{"v":') * 500,
    "nothing but ends of lines": lambda: gzip.compress(b"\n" * (64 * MIB), 1),
    "members in members": lambda: gzip.compress(gzip.compress(gzip.compress(bytes(50 * MIB), 1))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(quick_path: Path, environ: dict[str, str], name: str) -> None:
    """P4, P7: what unpacks to gigabytes, or to a hundred thousand nothings, is answered in bounded
    time and memory: as damage, or as a torn end where it lies at the end, which `verify` tells."""
    bomb, sound = BOMBS[name](), segments_of(story(), together=100)
    last = max(sound)
    places = {
        "alone": {last: bomb},
        "before": {"2026-10.ndjson.gz": bomb, **sound},
        "after": {**sound, last: sound[last] + bomb},
    }
    for where in chance(name).sample(sorted(places), min(rounds(1), len(places))):
        with laid_out(quick_path, places[where]) as var:
            before = log_of(var)
            answer = run(
                "verify",
                environ={**environ, "PROMPTYOSELF_VAR": str(var)},
                prepare=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
            )
            document = check_answer(answer, ("verify",))
            assert document is not None
            if document["status"] == "error":
                assert document["code"] in ("corrupt_chain", "damaged_tail"), document
                assert document["hint"]
            else:
                assert document["torn_tail"]["size"] == len(bomb)
                assert where != "before"
            assert log_of(var) == before
        count("inputs fuzzed")


# --- the index ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def sound_index() -> bytes:
    """What the index of the story is."""
    with tempfile.TemporaryDirectory() as folder:
        var = Path(folder)
        write_segments(var, segments_of(story()))
        call("rebuild", "--var", folder).success()
        return (var / "schedules" / "index.json").read_bytes()


def forged_index(fields: dict[str, Any]) -> bytes:
    """An index with a checksum that is right."""
    rest = orjson.dumps({**orjson.loads(sound_index()), **fields})
    rest = rest[rest.index(b",") + 1 :]
    return b'{"sha256":"' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest


positions = st.fixed_dictionaries(
    {},
    optional={
        "seq": st.integers(0, len(story())),  # one from beyond the end bears witness, and is kept
        "hash": st.just("0" * 64),
        "ts": st.just("2026-11-20T13:00:00.000000Z"),
        "month": st.sampled_from(["2026-11", "2026-12", "2027-01", "", "../x", "\0"]),
        **dict.fromkeys(("offset", "member", "earlier"), st.integers(-5, 9000)),
    },
)
indexes = st.one_of(
    st.binary(max_size=300),
    arbitrary_json.map(orjson.dumps),
    st.deferred(lambda: mutated_bytes(sound_index())),
    positions.filter(bool).map(
        lambda some: forged_index({"position": {**orjson.loads(sound_index())["position"], **some}})
    ),
    st.just(b'{"sha256":"' + b"0" * 64 + b'",'),
)


@settings(LOOSE, max_examples=rounds(60))
@given(indexes, st.sampled_from(READERS[2:]))
def test_any_bytes_as_the_index(
    quick_path: Path, clock: Clock, index: bytes, reader: tuple[str, ...]
) -> None:
    """P4: whatever the index holds, also one of our own making that points somewhere else, the
    answer is that without one, the log stays, and the next reader finds a sound one."""
    clock.now = LATER
    if index != sound_index() and reader[0] != "doctor":
        check_index(quick_path, index, reader)


@pytest.mark.parametrize("name", ["offset", "member", "earlier"])
def test_an_index_that_points_before_a_file(quick_path: Path, clock: Clock, name: str) -> None:
    """P4: the same, where all else of the position is right."""
    clock.now = LATER
    position = {**orjson.loads(sound_index())["position"], name: -1}
    check_index(quick_path, forged_index({"position": position}), ("list",))


def check_index(quick_path: Path, index: bytes, reader: tuple[str, ...]) -> None:
    """With that index, a reader answers as without one."""
    with laid_out(quick_path, segments_of(story())) as var:
        path, log = var / "schedules" / "index.json", log_of(var)
        expected = call(*reader, "--var", str(var))
        path.write_bytes(index)
        answer = call(*reader, "--var", str(var))
        check_answer(answer, reader)
        assert (answer.code, answer.out) == (expected.code, expected.out)
        assert log_of(var) == log
        call("list", "--var", str(var)).success()
        # One that knows of more events than there are bears witness of a cut, and is left to it.
        ahead = b"something has cut it off" in answer.err.encode()
        assert path.read_bytes() == (index if ahead else sound_index())
    count("inputs fuzzed")


# --- the command line -----------------------------------------------------------------------------

CLOSED = "http://127.0.0.1:9"  # nothing listens on the port of `discard`

NUMBERS = (
    "0", "-0", "1", "-1", "5.0", "1e3", "1e400", "-1e400", "nan", "-nan", "inf", "-inf", "0x10",
    "1_000", "٣", "²", "9" * 400, "-" + "9" * 400, "0.1", "1e-400", " 1", "1 ", "+1", "1e9", "256",
    "65535", "65536", "10000", "999999999", "1000000000", "9223372036854775808",
)  # fmt: skip
TIMES = (
    "in 5m", "in 0s", "in 36500d", "in  1h", "IN 5m", "in", "in 5", "09:00", "24:00", "23:59:60",
    "9:5", "2027-01-31", "2027-01-31T09:00", "2027-02-29T09:00", "2027-01-31T09:00+01:00",
    "2027-01-31T09:00-24:00", "2027-01-31t09:00z", "2027-01-31T09:00:00,123456Z",
    "0000-01-01T00:00",
    "0001-01-01T00:00", "0001-01-01T00:00+23:59", "9999-12-31T23:59", "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59-23:59", "2027-03-28T01:30", "2026-12-20T12:00", "now", "9", "0",
    "99999999999",
    "2026-W47-5T00:00", "20270131T0900", "12:00Z",
)  # fmt: skip
CRONS = (
    "* * * * *", "0 0 29 2 *", "0 0 31 2 *", "*/7 */5 * * *", "@daily", "@reboot", "@", "0 9 * * 8",
    "59 23 31 12 7", "0-59/59 0-23 1-31 1-12 0-7", "0,0,0 0 1 1 *", "5-1 * * * *", "* * * * * *",
    "60 * * * *", "0 0 L * *", "0 0 1 JAN-DEC SUN-SAT", "0 0 * * MON#1", "*/0 * * * *",
    "1,,2 * * * *",
    "0 0 1-0 * *", "0 0 30 2 1", "\t0\t0 1 1 *", "* " * 5, ",".join(map(str,
    range(60))) + " * * * *",
)  # fmt: skip
DURATIONS = (
    "90s", "5m", "2h30m", "1d", "1w", "0s", "-5m", "5", "m5", "1h1h", "36500d", "36501d", "1m1h",
    "9" * 12 + "s", "9" * 13 + "s", "9" * 5000 + "w", "1.5h", "5M", " 5m ", "٣m", "10s", "1s", "",
)  # fmt: skip
OTHERS = (
    "", "-", "--", "--id", "--format", "--help", "-h", "true", "all", "json", "table", "active",
    AGENT, KNOWN, "sch_00000000", "SCH_00000000", "../../x", "Europe/London", "UTC", "utc",
    "posix/UTC",
    "../UTC", "Europe", "skip", "coalesce", "delivery", "schedule.registered", "1:" + "0" * 64,
    "32:" + "f" * 64, "0:" + "0" * 64, "-1:" + "0" * 64, "1:" + "0" * 63, ":", "{}", '{"a":1}',
    "[]",
    "null", "ed25519:", "ed25519:" + "A" * 43 + "=", "2026-11", "2026-12", "2026-13", "0000-01",
    "x" * 5000,
    "\ud800", "\udcff\udcfe", "e\u0301", "\u202e", "\r\n", "\x1b[2J", "\x7f", "%s", "{0}", "\\",
    "'", "𝔘" * 90,
)  # fmt: skip
RAW = st.binary(max_size=12).map(lambda some: os.fsdecode(some.replace(b"\0", b"?")))
WORDS = st.one_of(
    *map(st.sampled_from, (OTHERS, NUMBERS, TIMES, CRONS, DURATIONS)),
    RAW,
    st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12),
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
"""Also what no process can be given: with a NUL in it."""
LIKELY: dict[str, st.SearchStrategy[str]] = {
    "id_": st.sampled_from([KNOWN, KNOWN, "sch_00000000"]),
    **dict.fromkeys(
        ("time", "at", "since", "until", "start_at", "from_", "to", "slot"), st.sampled_from(TIMES)
    ),
    **dict.fromkeys(("every", "grace", "jitter"), st.sampled_from(DURATIONS)),
    "cron": st.sampled_from(CRONS),
    "timezone": st.sampled_from(["Europe/London", "Asia/Kathmandu", "Mars/X"]),
    "agent_id": st.sampled_from([AGENT, "agent-a"]),
}
PATHS = ("file", "note", "key", "out", "prompt_file", "var")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """Paths of every kind: files, none, a folder, links, devices."""
    (tmp_path / "file").write_bytes(b"Hello")
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone/away")
    names = ("file", "bytes", "empty", "loop", "nowhere", "gone", "gone/away", "file/x", "x" * 300)
    paths = [str(tmp_path / name) for name in names]
    return [*paths, str(tmp_path), "/dev/null", "/dev/full", "/", "-"]


ABOUT_THE_MACHINE = {"init", "service"}
"""Commands that would change settings and services of the machine that runs the tests."""


def parameters(name: str) -> list[click.Parameter]:
    """Those of a command, but for the one with which it would serve for ever."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return [param for param in command.params if (name, param.name) != ("execute", "loop")]


@st.composite
def command_lines(draw: st.DrawFn, name: str, paths: list[str]) -> tuple[str, ...]:
    """A command and some of its own options, most of them with values that could be meant."""
    words: list[str] = [name]
    params = parameters(name)
    for param in draw(st.lists(st.sampled_from(params), max_size=6)):
        value: str | None = None
        if not getattr(param, "is_flag", False):
            known = LIKELY.get(str(param.name), WORDS)
            if param.name in PATHS:
                known = st.sampled_from(paths)
            elif isinstance(param.type, click.Choice):
                known = st.sampled_from([str(choice) for choice in param.type.choices])
            elif param.type.name in ("integer", "float", "integer range", "float range"):
                known = st.sampled_from(NUMBERS)
            value = draw(st.one_of(known, known, WORDS, ANY_TEXT))
        if isinstance(param, click.Argument):
            words.append(str(value))
            continue
        flag = draw(st.sampled_from([*param.opts, *param.secondary_opts]))
        words += [flag] if value is None else draw(
            st.sampled_from([[flag, value], [f"{flag}={value}"]])
        )  # fmt: skip
    return (*words, *draw(st.just(()) | st.tuples(WORDS | ANY_TEXT)))


@pytest.fixture
def fuzzed(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data directory with a story in it, no Letta, and servers that end as soon as they serve."""
    from promptyoself import sandbox
    from promptyoself.doors import waiting
    from promptyoself.doors.mcp import lifecycle
    from promptyoself.service.delivery import loop

    clock.now = LATER
    write_segments(var, segments_of(story()))
    monkeypatch.setenv("LETTA_BASE_URL", CLOSED)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("promptyoself.core.settings._ROOT", tmp_path / "site-packages")
    deep = tmp_path / "some" / "way" / "down"  # where `../..` is still our own
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)

    def served(names: Any, *, host: str, port: int, latency: float, ready: Any) -> None:
        with sandbox.Sandbox(names[:3], host=host, port=port, latency=latency) as serving:
            ready(serving)

    once = loop.execute_once

    def hurried(*arguments: Any, deadline: float, **more: Any) -> Any:
        return once(*arguments, deadline=min(deadline, 0.2), **more)

    # `history --follow` would go on until a signal.
    monkeypatch.setattr(waiting, "until_stopped", lambda: nullcontext(lambda: False))
    monkeypatch.setattr(sandbox, "serve_forever", served)
    monkeypatch.setattr(lifecycle, "serve", served_to_agents)
    monkeypatch.setattr(loop, "execute_once", hurried)
    return var


def expect(var: Path, arguments: tuple[str, ...], stdin: bytes | None = b"Hello") -> None:
    """P7: one answer, in time; and where it is an error, the log is as it was."""
    before = log_of(var)
    began = time.monotonic()
    answer = call(*arguments, stdin=stdin)
    assert time.monotonic() - began < SECONDS_OF.get(next(iter(arguments), ""), SECONDS), arguments
    check_answer(answer, arguments)
    if answer.code:
        assert log_of(var) == before, arguments
    count("command lines fuzzed")


@pytest.mark.timeout(900)  # a century may be drawn several times
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - ABOUT_THE_MACHINE))
def test_no_command_line_breaks_a_command(
    fuzzed: Path, places: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """P7: whatever the options of whatever command get, the answer is one JSON document with a
    documented code, soon, and an error leaves the log as it was."""

    examples = rounds(9) if name == "demo" else max(100, rounds(10))  # that one takes its time

    @settings(LOOSE, max_examples=examples)
    @given(command_lines(name, places))
    def fuzz(arguments: tuple[str, ...]) -> None:
        expect(fuzzed, arguments)

    with Sandbox(()) as letta:
        monkeypatch.setenv("LETTA_BASE_URL", letta.url)
        fuzz()


@settings(LOOSE, max_examples=rounds(60))
@given(st.lists(WORDS | ANY_TEXT, max_size=4))
def test_no_words_break_the_command_line(fuzzed: Path, words: list[str]) -> None:
    """P7: likewise where not even the command is one; without any words the answer is the help."""
    if not words:
        assert call().out.startswith(b"Usage")
    elif words[0] not in COMMANDS:
        expect(fuzzed, tuple(words))


@settings(LOOSE, max_examples=rounds(40))
@given(st.binary(max_size=200) | st.text(st.characters(exclude_categories=()), max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass")), st.sampled_from([
    ("register", "--agent-id", AGENT, "--every", "1h", "--prompt-file", "-"),
    ("import", "-"), ("import", "-", "--partial"),
    ("verify", "--note", "-", "--key", "ed25519:" + "A" * 43 + "="),
    ("list",),
]))  # fmt: skip
def test_no_stdin_breaks_a_command(
    fuzzed: Path, content: bytes, arguments: tuple[str, ...]
) -> None:
    """P7: likewise for whatever comes in through stdin."""
    expect(fuzzed, arguments, stdin=content)


ADDRESSES = (
    "agent:agent-7", "agent:", "agent: x", "json://127.0.0.1:9/x", "json://", "nonsense://x", "x",
    "https://h", "https://u:p@h/@", "http://[::1", "http://h:0", "whsec_" + "A" * 32, "08:00",
    "8:60", "08:00 Europe/London", "08:00 Nowhere",
)  # fmt: skip
URLS = ("", "/a b", "/?#", "x", "\udcff", "/" * 400)


def in_environment(text: str) -> str:
    """What can stand in an environment: bytes, however they are decoded."""
    return os.fsdecode(text.encode("utf-8", "surrogatepass"))


ENVIRONMENT = st.one_of(
    WORDS.map(in_environment),
    st.sampled_from([*(CLOSED + end for end in URLS), "http://[::1", "http://127.0.0.1:99999"]),
    st.sampled_from(ADDRESSES),
)
DESTINATION_SETTINGS = [
    f"PROMPTYOSELF_{prefix}_{name}"
    for prefix in ("DESTINATION", "WEBHOOK_SECRET", "DIGEST")
    for name in ("OPS", "ops", "9", "A__B")
]
SETTINGS_NAMES = [*(setting.name for setting in SETTINGS), *DESTINATION_SETTINGS]
ORDERS = st.sampled_from(
    [
        ("list",),
        ("doctor",),
        ("doctor", "--skip-letta"),
        ("register", "--prompt", "Hi", "--every", "1h"),
        ("next", "--cron", "@daily", "--start-at", "2027-01-31T09:00"),
        ("test",),
        ("agents",),
        ("execute", "--deadline", "1"),
        ("demo",),
        ("notify",),
        ("notify", "test", "ops"),
        ("audit",),
        ("rebuild",),
    ]
)


@settings(LOOSE, max_examples=rounds(60))
@given(
    st.dictionaries(st.sampled_from(SETTINGS_NAMES), ENVIRONMENT, min_size=1, max_size=3), ORDERS
)
def test_no_setting_breaks_a_command(
    fuzzed: Path, chosen: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """P7: likewise for whatever every setting is, in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in chosen.items():
            patch.setenv(name, value)
        expect(fuzzed, arguments)


ASSIGNMENTS = st.lists(st.tuples(st.sampled_from(SETTINGS_NAMES), ENVIRONMENT), max_size=4).map(
    lambda pairs: "\n".join("=".join(pair) for pair in pairs).encode("utf-8", "surrogateescape")
)
PIECES = ("PROMPTYOSELF_TZ", "=", "'", '"', "\n", "export ", "#", "${HOME}", "\\", "\0", "é")
DOTENVS = st.one_of(
    st.binary(max_size=120),
    ASSIGNMENTS,
    st.lists(st.sampled_from(PIECES), max_size=12).map(lambda words: "".join(words).encode()),
)


@settings(LOOSE, max_examples=rounds(40))
@given(DOTENVS, ORDERS)
def test_no_dotenv_breaks_a_command(
    fuzzed: Path, tmp_path: Path, content: bytes, arguments: tuple[str, ...]
) -> None:
    """P7: likewise for whatever a file of settings holds."""
    folder = tmp_path / "config" / "promptyoself"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".env").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptyoself.core.settings._ROOT", tmp_path)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        for name in SETTINGS_NAMES:
            if name not in ("PROMPTYOSELF_VAR", "LETTA_BASE_URL"):
                patch.delenv(name, raising=False)
        expect(fuzzed, arguments)


NOTIFYING = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(["ops", "Ops", "9", ""]), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("add"), WORDS, WORDS),
    st.tuples(st.just("add"), st.just("ops"), st.sampled_from(ADDRESSES), st.just("--replace")),
    st.tuples(st.just("digest"), st.just("ops"), st.just("--at"), st.sampled_from(ADDRESSES)),
    st.tuples(st.just("digest"), WORDS, st.just("--at"), WORDS, st.just("--tz"), WORDS),
    st.tuples(st.just("remove"), WORDS, st.just("--yes")),
    st.tuples(st.just("remove"), st.just("ops")),
)


@settings(LOOSE, max_examples=rounds(40))
@given(st.lists(NOTIFYING, min_size=1, max_size=4))
def test_no_destination_breaks_a_command(
    fuzzed: Path, tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    """P7: whatever is said of destinations, each command answers, and so does the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptyoself.core.settings._ROOT", tmp_path)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        for words in calls:
            expect(fuzzed, ("notify", *words))
        expect(fuzzed, ("notify",))


def test_processes_answer_too(fuzzed: Path, places: list[str], environ: dict[str, str]) -> None:
    """P7: raw bytes reach a real process the same way: one document, no traceback, in time."""
    chosen = chance("processes")
    environ["LETTA_BASE_URL"] = CLOSED
    names = sorted(set(COMMANDS) - {"sandbox", "execute", "mcp"} - ABOUT_THE_MACHINE)
    for _ in range(rounds(6)):
        name = chosen.choice(names)
        arguments: list[str | bytes] = [name]
        options = [option for option in parameters(name) if isinstance(option, click.Option)]
        options = [option for option in options if option.name != "follows"]  # that has no end
        for option in chosen.sample(options, min(len(options), 3)):
            arguments.append(option.opts[0])
            if not option.is_flag:
                word = chosen.choice([*NUMBERS, *TIMES, *CRONS, *DURATIONS, *OTHERS, *places])
                noise = bytes(chosen.randrange(1, 256) for _ in range(9))
                arguments.append(chosen.choice([os.fsencode(word.replace("\ud800", "")), noise]))
        before = log_of(fuzzed)
        answer = run(*arguments, environ=environ)
        check_answer(answer, tuple(os.fsdecode(word) for word in arguments))
        if answer.code:
            assert log_of(fuzzed) == before
        count("command lines fuzzed")


# --- what everything above rests on ---------------------------------------------------------------


@settings(LOOSE, max_examples=rounds(100))
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=9),
    st.none() | st.text(max_size=9),
    st.dictionaries(st.text(max_size=4), arbitrary_json, max_size=3),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_line_comes_back(
    number: int, text: str, id_: str | None, data: dict[str, Any], when: datetime
) -> None:
    """P3: what is written into a line is read out of it, and a line has one spelling."""
    event = Envelope(
        number, number, format_utc(when), text, id_, {"via": text, "who": text}, data, text
    )
    line = encode_line(event)
    assert b"\n" not in line
    decoded = decode_line(line)
    assert encode_line(decoded) == line
    assert decoded == event
    assert parse_utc(format_utc(when)) == when


@settings(LOOSE, max_examples=rounds(150))
@given(st.binary(max_size=80) | arbitrary_json.map(orjson.dumps) | forged_events.map(orjson.dumps))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    """P7: a line is an event or a ValueError, nothing else; and its time is one that exists."""
    try:
        event = decode_line(line)
    except ValueError:
        return
    assert format_utc(parse_utc(event.ts)) == event.ts


@settings(LOOSE, max_examples=rounds(150))
@given(st.integers(1, 36500 * 86400))
def test_durations_come_back(seconds: int) -> None:
    """P6: a duration has one spelling, which means the same."""
    text = format_duration(seconds)
    assert parse_duration(text) == seconds
    assert format_duration(parse_duration(text)) == text


def refusal(function: Callable[..., object], *arguments: object) -> str | None:
    """The code with which it refuses, if it does."""
    try:
        function(*arguments)
    except PromptyoselfError as error:
        return error.code
    return None


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Instants between two years."""
    begin, end = (datetime(year, 1, 8) for year in (first, last))  # noqa: DTZ001
    return st.datetimes(begin, end, timezones=st.just(UTC))


@settings(LOOSE, max_examples=rounds(300))
@given(
    WORDS,
    st.sampled_from(["UTC", "Europe/London", "Pacific/Apia", "Australia/Lord_Howe"]),
    moments(1, 9999),
)
def test_no_text_breaks_the_reading_of_times(text: str, zone: str, now: datetime) -> None:
    """P7: a time, a duration, a zone is what it says, or an error of ours."""
    code = refusal(parse_time, text, zone, now)
    assert code in (None, "invalid_time", "nonexistent_time")
    if code is None:
        instant = parse_time(text, zone, now)
        assert parse_utc(format_utc(instant)) == instant
    assert refusal(parse_duration, text) in (None, "invalid_duration")
    assert refusal(parse_zone, text) in (None, "unknown_zone")


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A field of a cron expression, mostly a good one."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.tuples(st.just("*") | span, st.integers(1, high)).map(
        lambda two: "/".join(map(str, two))
    )
    item = st.one_of(st.just("*"), number.map(str), span, step)
    return st.lists(item, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.one_of(
    st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(" ".join),
    st.sampled_from(CRONS),
    st.text("0123456789*,-/ @#LWMONJAN", max_size=20),
    WORDS,
)


@settings(LOOSE, max_examples=rounds(200))
@given(
    EXPRESSIONS,
    st.sampled_from(["UTC", "Europe/London", "Pacific/Apia", "America/New_York"]),
    moments(1970, 2100),
)
def test_every_expression_is_refused_or_fires_soon_told(
    text: str, zone: str, after: datetime
) -> None:
    """P7: a cron expression is refused by an error of ours, or says in no time when it fires next
    and when it fired last."""
    code = refusal(parse_cron, text)
    assert code in (None, "invalid_cron", "cron_never_fires")
    if code is not None:
        return
    expression = parse_cron(text)
    assert parse_cron(expression) == expression
    began = time.thread_time()
    trigger = Trigger("cron", expression, zone)
    fire = next_fire_time(trigger, after)
    assert fire is not None
    assert fire > after
    assert last_slot(trigger, after, fire) == fire
    assert last_slot(trigger, after, fire - timedelta(microseconds=1)) is None
    assert time.thread_time() - began < 4
