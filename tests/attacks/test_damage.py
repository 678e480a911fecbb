"""P3, P4: damage is found and named, wherever it is; and it is never read past or written over."""

import gzip
import hashlib
import json
import resource
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from chains import NOW, append, draft, ledger_in, snapshot_of, three_months
from checker import check_chain, lines
from damage import (
    ALTERATIONS,
    ANSWERS,
    DAMAGED,
    DECEMBER,
    borders,
    broken,
    flips,
    lay,
    nine_events,
    store_in,
    verdict,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from power import placed_lines, whole_lines
from tally import SCALE, chance, count, rounds

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.ledger import FileLedger
from promptyoself.ledger.segments import MAX_MEMBER_BYTES, compress
from promptyoself.service.proof.verify import verify


def _refuses_appends(folder: Path) -> dict[str, bytes]:
    """P4: an append is refused, and alters nothing; the files."""
    before = snapshot_of(folder)
    with pytest.raises(ChainError):
        append(ledger_in(folder), 9)
    assert snapshot_of(folder) == before
    return before


@pytest.fixture
def chain(folder: Path) -> FileLedger:
    """Seven events in six members in three months."""
    return three_months(folder)


def _borders(folder: Path) -> list[tuple[Path, int, int, int]]:
    """Each member: its month's file, its start and end there, and its first event's number."""
    return [(path, *border) for path in sorted(folder.glob("*.gz")) for border in borders(path)]


def test_every_bit(chain: FileLedger, folder: Path) -> None:
    """P3: whichever bit of a chain is flipped, a replay names that event, or every line is
    unchanged, or it lies in the last append, which is then no longer read at all."""
    good, members = lines(folder), _borders(folder)
    head = verdict(folder)[0]
    unchanged = tails = noticed = 0
    for path, start, end, seq in members:
        for flip in flips(path, start, end):
            position, error = verdict(folder)
            if error is not None:
                noticed += 1
                assert error.code == "corrupt_chain"
                where = [error.details[name] for name in ("month", "offset", "seq")]
                assert where == [path.name[:7], start, seq], flip
                assert {"expected", "found"} <= set(error.details)
                assert position.seq == seq - 1
            elif position == head:
                unchanged += 1
                assert lines(folder) == good
            else:
                tails += 1
                assert (path, start, end, seq) == members[-1]
                assert position.seq == seq - 1
                assert not ledger_in(folder).holds(head)
                torn = ledger_in(folder).torn()
                assert torn is not None
                assert (torn.month, torn.offset) == ("2026-11", start)
    assert verdict(folder) == (head, None)
    count("bits flipped", noticed + unchanged + tails)
    assert noticed > 5000
    assert unchanged < 60 * len(members)
    assert tails > 1000


def _edits(good: list[bytes]) -> Iterator[tuple[str, list[bytes], int]]:
    """Changed lists of lines, and the first bad event of each; 0 where only a head can tell."""
    for at, line in enumerate(good):
        seq, last = at + 1, at == len(good) - 1
        yield f"drop {seq}", good[:at] + good[at + 1 :], 0 if last else seq
        yield f"repeat {seq}", good[: at + 1] + good[at:], seq + 1
        if not last:
            yield f"swap {seq}", [*good[:at], good[at + 1], line, *good[at + 2 :]], seq
        edited = line.replace(b"Water", b"Drown").replace(b"promptyoself", b"somebodyelse")
        yield f"edit {seq}", [*good[:at], edited, *good[at + 1 :]], 0 if last else seq + 1
        forged = json.loads(line)
        forged["data"]["prompt"] = "forged"
        extra = json.dumps(forged, separators=(",", ":")).encode()
        yield f"insert {seq}", [*good[:at], extra, *good[at:]], seq + 1
        yield f"blank {seq}", [*good[:at], b"", *good[at:]], seq
        yield f"space {seq}", [*good[:at], line + b" ", *good[at + 1 :]], seq


@pytest.mark.usefixtures("both_chains")
@pytest.mark.parametrize("grouping", ["one member", "a member each"])
def test_every_line(folder: Path, grouping: str) -> None:
    """P3: a line dropped, repeated, swapped, edited, forged or blanked, in members that are whole
    again, is found, and the first bad event named; at the very end that takes a head."""
    ledger = ledger_in(folder)
    for number in range(5):
        append(ledger, number)
    head = ledger.head()
    good = lines(folder)
    path = folder / "2026-11.ndjson.gz"
    for name, bad, seq in _edits(good):
        count("lines altered")
        if grouping == "one member":
            path.write_bytes(compress(b"".join(line + b"\n" for line in bad)))
        else:
            path.write_bytes(b"".join(compress(line + b"\n") for line in bad))
        position, error = verdict(folder)
        if seq:
            assert error is not None, name
            # An edit is only seen in the line after it, whose prev no longer fits.
            assert error.details["seq"] == seq, name
            assert error.details["month"] == "2026-11"
        else:
            assert error is None, name
            assert (position.seq, position.hash) != (head.seq, head.hash), name
            assert not ledger.holds(head), name


def test_forged_from_there_on(folder: Path) -> None:
    """P3: a chain rewritten from one event to its end, hashes and all, is only told by its head."""
    ledger = ledger_in(folder)
    for number in range(4):
        append(ledger, number)
    head, prev, forged = ledger.head(), "0" * 64, b""
    for line in lines(folder):
        event = json.loads(line)
        event["prev"] = prev
        if event["seq"] == 3:
            event["data"]["prompt"] = "forged"
        spelled = json.dumps(event, separators=(",", ":")).encode()
        prev = hashlib.sha256(spelled).hexdigest()
        forged += spelled + b"\n"
    (folder / "2026-11.ndjson.gz").write_bytes(compress(forged))
    position, error = verdict(folder)
    assert error is None
    assert position.seq == head.seq
    assert position.hash != head.hash
    assert not ledger.holds(head)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seq": 4}, "sequence"),
        ({"seq": 2}, "sequence"),
        ({"ts": "2026-11-20T20:29:59.999999Z"}, "backwards"),
        ({"ts": "2026-12-01T00:00:00.000000Z"}, "another month"),
        ({"prev": "0" * 64}, "follow"),
        ({"ts": "2026-11-20T20:30:00Z"}, "instant"),
        ({"type": None}, "type is of another type"),
    ],
)
def test_link_is_right_but_nothing_else(folder: Path, change: dict[str, object], what: str) -> None:
    """P3: an event that follows by its hash, but not by its number, time or month, is named."""
    ledger = ledger_in(folder)
    head = append(ledger, 1)
    event = {**json.loads(lines(folder)[-1]), "seq": 3, "prev": head.hash, **change}
    with (folder / "2026-11.ndjson.gz").open("ab") as file:
        file.write(compress(json.dumps(event, separators=(",", ":")).encode() + b"\n"))
    position, error = verdict(folder)
    assert position == head
    assert error is not None
    assert what in error.message
    assert (error.details["month"], error.details["seq"]) == ("2026-11", 3)
    assert error.details["offset"] == head.offset
    assert error.details["expected"] != error.details["found"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":"', b'"id":"sch_00000000","id":"'),
        (b'"id":"', b'"id":null,"id":"'),
        (b'"ts":"', b'"ts":"2026-11-20T20:29:00.000000Z","ts":"'),
        (b'"ts":"', b'"ts":"2026-11-20T20:31:00.000000Z","ts":"'),
        (b'"type":"', b'"type":"x","id":"y","type":"'),
        (b'"v":1', b'"v":1,"v":1'),
        (b'"id":"sch_', b'"id":"sch\\u005f'),
        (b'"id":', b'"id": '),
        (b'"data":{', b'"data":{"x":"y","id":"z",'),
        (b'"ts":', b'"ts": '),
    ],
)
def test_lines_that_read_otherwise_than_they_look(folder: Path, old: bytes, new: bytes) -> None:
    """P3: a line whose id, time or version is there twice, or spelled in another way than ours, is
    refused."""
    for number in range(3):
        append(ledger_in(folder), 3 * number, 3 * number + 1, 3 * number + 2)
    good = lines(folder)
    for changed in range(1, len(good)):
        prev, text = "0" * 64, b""
        for at, line in enumerate(good):
            spelled = line[:-66] + prev.encode() + line[-2:]
            if at == changed:
                spelled = spelled.replace(old, new, 1)
            prev = hashlib.sha256(spelled).hexdigest()
            text += spelled + b"\n"
        (folder / "2026-11.ndjson.gz").write_bytes(compress(text))
        _, error = verdict(folder)
        # The last of them is spelled as the format has it, though no writer writes such an event.
        assert (error is None) == (old == b'"data":{')


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"prompt":"', b'"prompt":"Say no.","prompt":"'),
        (b'"seq":2,', b'"seq":7,"seq":2,'),
        (b'"tier":0', b'"tier":-0'),
        (b'"grace":86400', b'"grace":8.64e4'),
        (b'"prompt":"Water', b'"prompt":"\\u0057ater'),
        (b'"prompt":"Water', b'"prompt":"\\/Water'),
        (b"},", b"} ,"),
        (b'{"v":1', b'\t{"v":1'),
        (b'{"v":1', b'\xef\xbb\xbf{"v":1'),
        (b'"}', b'"}\r'),
        (b'"}', b'"}\0'),
    ],
)
def test_a_line_has_one_reading(folder: Path, old: bytes, new: bytes) -> None:
    """P3: a line that is the same JSON to some readers and other JSON to others, or spelled in any
    other way than the format's, is refused, though its links hold."""
    append(ledger_in(folder), 1)
    created, line = lines(folder)
    spelled = line.replace(old, new) if new.startswith(b'"}') else line.replace(old, new, 1)
    assert spelled != line
    (folder / "2026-11.ndjson.gz").write_bytes(compress(created + b"\n" + spelled + b"\n"))
    position, error = verdict(folder)
    assert error is not None
    assert (position.seq, error.code, error.details["seq"]) == (0, "corrupt_chain", 2)
    _refuses_appends(folder)


@pytest.mark.usefixtures("both_chains")
def test_month_removed(chain: FileLedger, quick_path: Path) -> None:
    """P3: a missing month is named at the first event after it; the last one takes a head."""
    folder, head = quick_path / "s", chain.head()
    for month, seq in (("2026-09", 1), ("2026-10", 4), ("2026-11", 0)):
        saved = (folder / f"{month}.ndjson.gz").read_bytes()
        (folder / f"{month}.ndjson.gz").unlink()
        assert not chain.holds(head)
        if seq:
            details = broken(folder).details
            assert (details["seq"], details["found"]) == (seq, {1: 4, 4: 6}[seq])
        else:
            assert verdict(folder)[1] is None
        (folder / f"{month}.ndjson.gz").write_bytes(saved)
    assert verdict(folder) == (head, None)


@pytest.mark.usefixtures("both_chains")
def test_month_renamed(chain: FileLedger, folder: Path) -> None:
    """P3: events in another month's file are refused."""
    (folder / "2026-11.ndjson.gz").rename(folder / "2026-12.ndjson.gz")
    details = broken(folder).details
    assert (details["seq"], details["expected"], details["found"]) == (6, "2026-12", "2026-11")


@pytest.mark.usefixtures("both_chains")
def test_cut_at_a_border(chain: FileLedger, quick_path: Path) -> None:
    """P3: cut off between two members, the last month reads as a shorter chain, which no longer
    holds the old head; any other month is found broken at the next event."""
    folder, head = quick_path / "s", chain.head()
    for path, start, _, seq in _borders(folder):
        saved = path.read_bytes()
        path.write_bytes(saved[:start])
        position, error = verdict(folder)
        assert not chain.holds(head)
        if path.name.startswith("2026-11"):
            assert error is None
            assert position.seq == seq - 1
            with pytest.raises(Exception, match="no longer where it was"):
                chain.append([draft(9)], NOW, head)
        else:
            assert error is not None
            assert error.details["seq"] == seq
        path.write_bytes(saved)


@pytest.mark.usefixtures("both_chains")
def test_a_member_spoiled_in_the_middle(chain: FileLedger, folder: Path) -> None:
    """P3: a member that lost its end, or in whose place are zeros or noise, is named, anywhere but
    at the chain's end; zeros or noise before a member are damage too."""
    dice = chance("noise in the middle")
    for path, start, end, seq in _borders(folder)[:-1]:
        saved = path.read_bytes()
        before, member, after = saved[:start], saved[start:end], saved[end:]
        fillers = [bytes(len(member)), dice.randbytes(len(member))]
        pieces = [member[:cut] for cut in range(1, len(member), 1 if SCALE > 1 else 11)]
        for piece in [*pieces, *fillers]:
            path.write_bytes(before + piece + after)
            details = broken(folder).details
            where = (details["month"], details["offset"], details["seq"])
            assert where == (path.name[:7], start, seq), piece
            count("members and months altered")
        for filler in fillers:
            path.write_bytes(before + filler + member + after)
            broken(folder)
        path.write_bytes(saved)


# The same through `verify` and the commands, over months that are sealed and such as are not.


@pytest.mark.parametrize("what", ALTERATIONS)
@pytest.mark.parametrize("state", ["open", "sealed"])
def test_no_alteration_goes_unnoticed(quick_path: Path, state: str, what: str) -> None:
    """P3, P4: whatever is altered, `verify` names the first event that doesn't follow from what is
    before it, or an independent reader finds every line unchanged. Where whole appends were cut off
    the end, or the last event was changed, only a head kept elsewhere tells (or, of a cut, the
    index). And no command reads what is left as empty, or writes over it."""
    folder = quick_path / "var" / "schedules"
    log = nine_events(folder, sealed=state == "sealed")
    stranger = nine_events(quick_path / "other" / "schedules", sealed=state == "sealed", first=77)
    good, index = placed_lines(folder), (folder / "index.json").read_bytes()
    head = verify(store_in(folder))["head"]
    kind, alterations = ALTERATIONS[what]
    tried = refused = 0
    for name, altered in alterations(log, stranger):
        (folder / "index.json").unlink(missing_ok=True)
        lay(folder, altered)
        tried += 1
        refused += _judge(folder, good, head, name, index)
        if tried % (5 if SCALE > 1 else 23) == 0:
            _use(folder, name, index if tried % 2 else None)
    count(kind, tried)
    assert refused > tried // 2


def _judge(folder: Path, good: list[tuple[str, bytes]], head: str, name: str, index: bytes) -> bool:
    """What `verify` says against what an independent reader finds; whether it refused."""
    read = placed_lines(folder)
    pairs = enumerate(zip(read, good, strict=False))
    same = next((at for at, (one, other) in pairs if one != other), min(len(read), len(good)))
    before, store = snapshot_of(folder), store_in(folder)
    error, answer = None, {}
    try:
        answer = verify(store)
    except ChainError as refusal:
        error = refusal
    assert snapshot_of(folder) == before, f"{name}: verify changed something"
    if error is None and "torn_tail" not in answer:
        if read == good:
            assert f"{answer['head']}" == head, name
            return False
        # Nothing in the log tells that it ever was longer, or ended otherwise.
        shorter = read == good[: len(read)]
        other_end = len(read) == len(good) == same + 1
        longer = same == len(good)  # a whole event behind the last, which anybody can make
        assert shorter or other_end or longer, f"{name}: unnoticed"
        with pytest.raises(ChainError, match="is not on this chain"):
            verify(store, head)
        if shorter:
            (folder / "index.json").write_bytes(index)
            with pytest.raises(ChainError) as caught:
                verify(store)
            assert caught.value.code == "events_missing", name
            (folder / "index.json").unlink()
        return False
    seq = error.details["seq"] if error is not None else answer["events"] + 1
    assert seq == _first_bad(read), f"{name}: {seq} is named"
    if error is not None:
        assert error.details["month"] in [path.name[:7] for path in folder.glob("*.gz")], name
    with pytest.raises(ChainError):
        verify(store, head)
    return True


def _first_bad(read: list[tuple[str, bytes]]) -> int:
    """The first event that doesn't follow, by an independent reader; else the one after the last,
    which lies in what can't be read."""
    prev, ts = "0" * 64, ""
    for seq, (name, line) in enumerate(read, 1):
        try:
            event = json.loads(line)
        except ValueError:
            return seq
        if json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() != line:
            return seq
        if (event["seq"], event["prev"], event["ts"][:7]) != (seq, prev, name[:7]):
            return seq
        if event["ts"] < ts:
            return seq
        prev, ts = hashlib.sha256(line).hexdigest(), event["ts"]
    return len(read) + 1


def _use(folder: Path, name: str, index: bytes | None) -> None:
    """List and register, with the index that was there or without one."""
    if index is not None:
        (folder / "index.json").write_bytes(index)
    found_lines, before = whole_lines(folder), snapshot_of(folder)
    registered = sum(b'"type":"schedule.registered"' in line for line in found_lines)
    try:
        listed = len(store_in(folder).read().state.schedules)
    except ChainError:
        pass
    else:
        # The index may vouch for what it has seen; nothing else may be made up, or left out.
        assert listed in (registered, 9), name
    assert snapshot_of(folder) == before, f"{name}: a reader changed something"
    try:
        store_in(folder).transact(DECEMBER, lambda _: ([draft(500)], None))
    except PromptyoselfError:
        assert snapshot_of(folder) == before, f"{name}: a refused command changed something"
    else:
        after = snapshot_of(folder)
        kept = b"".join(path.read_bytes() for path in (folder / "quarantine").glob("*.torn"))
        for path, content in before.items():
            torn = content[len(after[path]) :] if content.startswith(after[path]) else b""
            assert after[path].startswith(content) or torn in kept, f"{name}: written over"
        shutil.rmtree(folder / "quarantine", ignore_errors=True)


@pytest.mark.usefixtures("both_chains")
def test_append_leaves_damage_alone(chain: FileLedger, folder: Path) -> None:
    """P4: an append that meets damage, or has no need to look at it, never alters damaged bytes."""
    head = chain.head()
    for path, start, end, _ in _borders(folder)[:-1]:
        saved = snapshot_of(folder)
        content = bytearray(saved[path.name])
        content[(start + end) // 2] ^= 4
        path.write_bytes(content)
        before = _refuses_appends(folder)
        # With the end known, as from an index, the append goes behind the last whole member.
        ledger_in(folder).append([draft(9)], NOW, head)
        after = snapshot_of(folder)
        assert all(after[name].startswith(data) for name, data in before.items())
        assert not (folder / "quarantine").exists()
        for name, data in saved.items():
            (folder / name).write_bytes(data)
    check_chain(folder)


def test_gzip_bomb(quick_path: Path) -> None:
    """A member that unpacks to far more than any append holds costs bounded memory, and is refused
    in the middle of the chain, moved aside at its end."""
    folder = quick_path / "s"
    ledger = ledger_in(folder)
    head = append(ledger, 1)
    path = folder / "2026-11.ndjson.gz"
    sound = path.read_bytes()
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(512)) + squeeze.flush()
    path.write_bytes(sound + bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.thread_time()
    assert ledger.head() == head
    torn = ledger.torn()
    assert torn is not None
    assert torn.size == len(bomb)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 4 * MAX_MEMBER_BYTES // 1024
    assert time.thread_time() - started < 10
    append(ledger_in(quick_path / "other"), 5)
    path.write_bytes(sound + bomb + sound)
    assert broken(folder).details["seq"] == 3
    path.write_bytes(sound + bomb)
    append(ledger, 2)
    assert len(check_chain(folder)) == 4


@pytest.mark.parametrize("kind", ["noise", "zeros", "headers", "starts"])
def test_long_garbage_tail(folder: Path, kind: str) -> None:
    """P1, P4: ten megabytes of garbage at the end are moved aside; garbage made of gzip headers,
    which no crash leaves, is refused; either in bounded time."""
    size = 10 << 20
    begun = compress(b'{"v":1,"seq":3,')[:-9]
    header = b"\x1f\x8b\x08\x10\0\0\0\0\0\x03"  # with a comment that ends who knows where
    tail = {
        "noise": chance("long garbage").randbytes(size),
        "zeros": bytes(size),
        "headers": header * (size // len(header)),
        "starts": begun * (size // len(begun)),
    }[kind]
    ledger = ledger_in(folder)
    append(ledger, 1)
    path = folder / "2026-11.ndjson.gz"
    content = path.read_bytes() + tail
    path.write_bytes(content)
    started = time.thread_time()
    if kind in ("noise", "zeros"):
        append(ledger, 2)
        assert len(check_chain(folder)) == 4
    else:
        with pytest.raises(ChainError):
            append(ledger, 2)
        assert path.read_bytes() == content
    assert time.thread_time() - started < 10


@settings(max_examples=rounds(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300), st.sampled_from(["raw", "member", "after", "before", "line"]))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, place: str) -> None:
    """P3: whatever bytes a segment, a member or a line consist of, the answer is ChainError or a
    torn end; never another exception."""
    folder = tmp_path_factory.mktemp("fuzz") / "s"
    append(ledger_in(folder), 1)
    path = folder / "2026-11.ndjson.gz"
    sound = path.read_bytes()
    path.write_bytes(
        {
            "raw": data,
            "member": compress(data),
            "after": sound + compress(data + b"\n"),
            "before": data + sound,
            "line": sound + compress(data.replace(b"\n", b"") + b"\n"),
        }[place]
    )
    _any_answer(folder)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=rounds(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["v", "seq", "ts", "type", "id", "actor", "data", "prev", "x"]),
        values,
        max_size=3,
    )
)
def test_any_envelope(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]) -> None:
    """P3: an event whose fields are of any other value or type is refused, or is a good event."""
    folder = tmp_path_factory.mktemp("fuzz") / "s"
    append(ledger_in(folder), 1)
    event = {**json.loads(lines(folder)[-1]), **changes}
    with (folder / "2026-11.ndjson.gz").open("ab") as file:
        file.write(compress(json.dumps(event).encode("utf-8", "surrogatepass") + b"\n"))
    _any_answer(folder)


def _any_answer(folder: Path) -> None:
    position, error = verdict(folder)
    if error is None:
        ledger_in(folder).torn()
        assert ledger_in(folder).holds(position)
    else:
        assert error.code == "corrupt_chain"
        assert error.details["seq"] == position.seq + 1
        json.dumps(error.details)
        _refuses_appends(folder)


def test_true_is_no_number(folder: Path) -> None:
    """A line with ``true`` for 1 isn't an event, though Python thinks them equal."""
    append(ledger_in(folder), 1)
    path = folder / "2026-11.ndjson.gz"
    content = gzip.decompress(path.read_bytes()).replace(b'"seq":1,', b'"seq":true,')
    path.write_bytes(compress(content))
    assert broken(folder).details["seq"] == 1


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_named_damage(folder: Path, name: str) -> None:
    """P3, P4: each kind of damage has the answer that stands beside its name, and refusing alters
    nothing."""
    shutil.copytree(DAMAGED / name, folder)
    source = snapshot_of(folder)
    answer, seq = ANSWERS[name]
    position, error = verdict(folder)
    torn = ledger_in(folder).torn() if error is None else None
    if answer == "corrupt_chain":
        assert error is not None
        assert error.code == answer
        assert error.details["seq"] == seq
        _refuses_appends(folder)
        assert snapshot_of(folder) == source
    elif answer == "torn":
        assert error is None
        assert torn is not None
        assert position.seq == seq - 1
        append(ledger_in(folder), 9)
        kept = b"".join(path.read_bytes() for path in (folder / "quarantine").iterdir())
        assert source["2026-11.ndjson.gz"].endswith(kept)
        check_chain(folder)
    else:
        assert (error, torn, position.seq) == (None, None, seq - (answer == "sound"))
        check_chain(folder)


def test_every_damage_has_an_answer() -> None:
    """No damaged file lies there without a test."""
    assert {path.name for path in DAMAGED.iterdir()} == set(ANSWERS)
