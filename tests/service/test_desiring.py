"""Desires as commands: recording, listing, reinforcing and pruning, and what their log and their
index promise: the same as those of the schedules."""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from actors import Actor
from answers import check_answer
from calling import Answer, add, call, clean_environ
from chains import StepDisk, kill
from checker import check_chain
from crashes import Unsynced, in_child, ways
from damage import store_in
from forging import Event, segments_of, spoiled_stories, write_segments
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tally import count, rounds

from promptyoself.core import ids as identity
from promptyoself.core.disk import Disk
from promptyoself.core.instants import format_utc
from promptyoself.doors.session import Session
from promptyoself.index.desire_schema import DESIRE_SCHEMA
from promptyoself.index.index import Index
from promptyoself.index.parts import Branch
from promptyoself.ledger import START
from promptyoself.service.desires import manage
from promptyoself.service.desires.manage import list_desires, prune, record, reinforce
from promptyoself.state.desires import EMPTY, fold

if TYPE_CHECKING:
    from conftest import Clock

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DESIRE = ("desire", "--agent-id", "agent-a", "--text")


def desired(text: str, strength: float = 0.5, *more: str) -> str:
    """Record one; returns its id."""
    answer = call(*DESIRE, text, "--strength", str(strength), *more).success()
    return str(answer["id"])


def texts(*more: str) -> list[str]:
    return [desire["text"] for desire in call("desires", *more).success()["desires"]]


def chain_of(var: Path) -> dict[str, bytes]:
    """The bytes of everything under the data directory but locks and indexes."""
    return {
        str(path.relative_to(var)): path.read_bytes()
        for path in sorted(var.rglob("*"))
        if path.is_file() and ("ndjson.gz" in path.name or "quarantine" in path.parts)
    }


# --- what they do ---------------------------------------------------------------------------------


def test_strongest_first(var: Path, clock: Clock) -> None:
    """They are listed by strength as it is now, with all that is known of them."""
    faint = desired("Faint", 0.2, "--tag", "Old", "--tag", "old", "--tag", "x")
    clock.advance(days=30)
    strong = desired("Strong", 0.15)
    answer = call("desires").success()
    assert [desire["id"] for desire in answer["desires"]] == [strong, faint]
    assert answer["desires"][1] == {
        "id": faint, "agent_id": "agent-a", "text": "Faint", "tags": ["old", "x"],
        "strength": 0.1, "created_at": "2026-11-20T12:00:00.000000Z", "reinforced": 0,
        "last_strength": 0.2, "last_at": "2026-11-20T12:00:00.000000Z",
    }  # fmt: skip
    assert answer["as_of"] == "2026-12-20T12:00:00.000000Z"
    limited = call("desires", "--limit", "1").success()
    assert (limited["count"], limited["total"]) == (1, 2)


def test_filters(var: Path, clock: Clock) -> None:
    """By agent, strength, tags and words; all that is given must hold."""
    desired("Learn Danish", 0.9, "--tag", "language")
    desired("Learn Greek", 0.3, "--tag", "language", "--tag", "old")
    desired("Paint the fence", 0.6)
    clock.advance(seconds=1)
    call("desire", "--agent-id", "agent-b", "--text", "Learn Welsh").success()
    assert texts("--agent-id", "agent-b") == ["Learn Welsh"]
    assert texts("--min-strength", "0.5") == ["Learn Danish", "Paint the fence", "Learn Welsh"]
    assert texts("--tag", "LANGUAGE") == ["Learn Danish", "Learn Greek"]
    assert texts("--tag", "language", "--tag", "old") == ["Learn Greek"]
    assert texts("--query", "fence PAINT") == ["Paint the fence"]
    assert texts("--query", "learn", "--agent-id", "agent-a", "--min-strength", "0.4") == [
        "Learn Danish"
    ]
    assert texts("--query", "language greek") == ["Learn Greek"]
    assert texts("--query", "nothing of the kind") == []


def test_reinforcing(var: Path, clock: Clock) -> None:
    """It adds to what is left, is capped, and fading begins again; the event has the outcome."""
    id_ = desired("Learn Danish", 0.8)
    clock.advance(days=30)
    answer = call("reinforce", "--id", id_, "--by", "0.3").success()
    assert (answer["before"], answer["strength"]) == (0.4, 0.7)
    clock.advance(days=30)
    (only,) = call("desires").success()["desires"]
    assert (only["strength"], only["reinforced"], only["last_strength"]) == (0.35, 1, 0.7)
    assert call("reinforce", "--id", id_, "--by", "1").success()["strength"] == 1.0
    events = call("history", "--id", id_).success()["events"]
    assert [event["type"] for event in events] == ["desire.recorded", *["desire.reinforced"] * 2]
    assert events[1]["data"] == {"by": 0.3, "strength": pytest.approx(0.7)}


def test_pruning_records_and_erases_nothing(var: Path, clock: Clock) -> None:
    """What has faded is listed no more, and is in the log; a dry run changes nothing; it can't be
    reinforced, but recorded again."""
    faint, strong = desired("Faint", 0.1), desired("Strong", 0.9)
    call("desire", "--agent-id", "agent-b", "--text", "Faint too", "--strength", "0.1").success()
    before = chain_of(var)
    dry = call("prune", "--below", "0.2", "--agent-id", "agent-a", "--dry-run").success()
    assert ([desire["id"] for desire in dry["pruned"]], dry["dry_run"]) == ([faint], True)
    assert chain_of(var) == before
    asked = ("prune", "--below", "0.2", "--agent-id", "agent-a", "--reason", "too faint")
    done = call(*asked).success()
    assert [desire["id"] for desire in done["pruned"]] == [faint]
    assert texts() == ["Strong", "Faint too"]
    assert call(*asked).success()["count"] == 0
    (event,) = call("history", "--type", "desire.pruned").success()["events"]
    assert event["data"] == {"strength": 0.1, "below": 0.2, "reason": "too faint"}
    call("reinforce", "--id", faint).error("pruned")
    assert call("prune", "--below", "0.2").success()["count"] == 1
    clock.advance(seconds=1)
    assert desired("Faint", 0.1) != faint
    assert strong in {desire["id"] for desire in call("desires").success()["desires"]}


def test_whole_numbers_are_kept_as_strengths(quick_path: Path) -> None:
    """From Python, a strength may be given as 1, 0 or -0.0: the log has 1.0 and 0.0."""
    store = store_in(quick_path / "schedules")
    id_ = record(store, "agent-a", "One", 1, [], NOON)["id"]
    record(store, "agent-a", "None", -0.0, [], NOON)
    reinforce(store, id_, 1, NOON)
    assert prune(store, 1, NOON)["count"] == 1
    _, *events = check_chain(quick_path / "desires")
    strengths = [repr(event["data"].get("strength")) for event in events]
    assert strengths == ["1.0", "0.0", "1.0", "0.0"]


def test_many_are_pruned_in_several_appends(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, all are pruned, and no append holds more than it may."""
    monkeypatch.setattr(manage, "_AT_ONCE", 3)
    store = store_in(quick_path / "schedules")
    for number in range(8):
        record(store, "agent-a", str(number), 0.1, [], NOON)
    assert prune(store, 0.5, NOON)["count"] == 8
    batches = [len(batch.envelopes) for batch in store.desires.replay()]
    assert batches[-3:] == [3, 3, 2]


def test_the_same_text_again_is_another(var: Path, clock: Clock) -> None:
    """P6: at another instant the same text is another wish; at the same instant it is the same."""
    first = desired("Learn Danish")
    again = call(*DESIRE, "Learn Danish").success()
    assert (again["id"], again["created"]) == (first, False)
    clock.advance(seconds=1)
    assert desired("Learn Danish") != first
    assert len(texts()) == 2


def test_at_shows_what_was(var: Path, clock: Clock) -> None:
    """--at tells how things stood, and how strong they were then: by time, or by event."""
    id_ = desired("Learn Danish", 0.8)
    clock.advance(days=30)
    call("reinforce", "--id", id_, "--by", "0.5").success()
    call("prune", "--below", "1").success()
    assert texts() == []
    (then,) = call("desires", "--at", "2026-12-05T12:00").success()["desires"]
    assert then["strength"] == pytest.approx(0.8 / math.sqrt(2), abs=1e-6)
    (third,) = call("desires", "--at", "3").success()["desires"]
    assert third["strength"] == 0.9
    assert texts("--at", "2026-11-19") == []


def test_the_half_life_is_a_setting(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTYOSELF_DESIRE_HALF_LIFE decides how fast they fade, at once and for all; doctor names
    one that is none, and so does each command that needs it."""
    desired("Learn Danish", 0.8)
    clock.advance(days=1)
    monkeypatch.setenv("PROMPTYOSELF_DESIRE_HALF_LIFE", "1d")
    assert call("desires").success()["desires"][0]["strength"] == 0.4
    doctor = call("doctor", "--skip-letta").success()
    (setting,) = [s for s in doctor["settings"] if s["name"] == "PROMPTYOSELF_DESIRE_HALF_LIFE"]
    assert (setting["value"], setting["origin"]) == ("1d", "environment")
    monkeypatch.setenv("PROMPTYOSELF_DESIRE_HALF_LIFE", "30 moons")
    error = call("desires").error("invalid_setting")
    assert "PROMPTYOSELF_DESIRE_HALF_LIFE" in error["message"]
    doctor = call("doctor", "--skip-letta").error("unhealthy")
    assert [check["name"] for check in doctor["checks"] if not check["ok"]] == ["half_life"]
    call("list").success()


def test_a_pinned_caller_has_only_its_own(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTYOSELF_ONLY_AGENT: all commands see and change one agent's desires, and refuse
    another's."""
    mine = desired("Mine", 0.1)
    other = call("desire", "--agent-id", "agent-b", "--text", "T", "--strength", "0.1").success()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-a")
    before = chain_of(var)
    theirs = ("--agent-id", "agent-b")
    for arguments in (
        ("desire", *theirs, "--text", "x"), ("desires", *theirs),
        ("prune", "--below", "1", *theirs),
        ("reinforce", "--id", other["id"]), ("idle", *theirs, "--every", "1h"),
        ("history", "--id", other["id"]),
    ):  # fmt: skip
        call(*arguments).error("forbidden_agent")
    assert chain_of(var) == before
    assert texts() == ["Mine"]
    assert call("desire", "--text", "Mine too").success()["created"]
    assert [desire["id"] for desire in call("prune", "--below", "0.2").success()["pruned"]] == [
        mine
    ]
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    assert sorted(texts()) == ["Mine too", "T"]


def test_the_agent_by_default(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --agent-id: the default agent records and prunes; all are listed."""
    desired("A's", 0.1)
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", "agent-b")
    call("desire", "--text", "B's", "--strength", "0.1").success()
    assert sorted(texts()) == ["A's", "B's"]
    assert [e["text"] for e in call("prune", "--below", "1").success()["pruned"]] == ["B's"]


REFUSED: dict[str, tuple[tuple[str, ...], str, int, str]] = {
    "no text": (("desire", "--agent-id", "a"), "missing_option", 2, "--text"),
    "no agent": (("desire", "--text", "x"), "missing_option", 2, "agent"),
    "bad agent": (("desire", "--agent-id", "a b", "--text", "x"), "invalid_agent_id", 1, "a b"),
    "empty text": ((*DESIRE, ""), "empty_text", 1, "empty"),
    "blank text": ((*DESIRE, " \n\u3000"), "empty_text", 1, "blank"),
    "endless text": ((*DESIRE, "x" * 4001), "invalid_text", 1, "4001"),
    "NUL": ((*DESIRE, "a\0b"), "invalid_text", 1, "NUL"),
    "surrogate": ((*DESIRE, "a\ud800"), "invalid_text", 1, "surrogate"),
    "too strong": ((*DESIRE, "x", "--strength", "1.01"), "invalid_strength", 1, "1.01"),
    "too weak": ((*DESIRE, "x", "--strength", "-0.1"), "invalid_strength", 1, "-0.1"),
    "not a number": ((*DESIRE, "x", "--strength", "nan"), "invalid_strength", 1, "nan"),
    "infinite": ((*DESIRE, "x", "--strength", "inf"), "invalid_strength", 1, "inf"),
    "a word": ((*DESIRE, "x", "--strength", "much"), "invalid_value", 2, "much"),
    "empty tag": ((*DESIRE, "x", "--tag", ""), "invalid_tag", 1, "''"),
    "tag of two words": ((*DESIRE, "x", "--tag", "a b"), "invalid_tag", 1, "a b"),
    "tags in one": ((*DESIRE, "x", "--tag", "a,b"), "invalid_tag", 1, "a,b"),
    "endless tag": ((*DESIRE, "x", "--tag", "t" * 65), "invalid_tag", 1, "ttt"),
    "tag with a surrogate": ((*DESIRE, "x", "--tag", "\ud800"), "invalid_tag", 1, "ud800"),
    "too many tags": (
        (*DESIRE, "x", *(word for n in range(21) for word in ("--tag", f"t{n}"))),
        "invalid_tag", 1, "21",
    ),
    "endless reason": ((*DESIRE, "x", "--reason", "n" * 2001), "invalid_reason", 1, "2001"),
    "unknown tag": (("desires", "--tag", "nope"), "unknown_tag", 1, "nope"),
    "tag that is none": (("desires", "--tag", " "), "invalid_tag", 1, "''"),
    "blank query": (("desires", "--query", " "), "invalid_query", 1, "blank"),
    "query with a NUL": (("desires", "--query", "\0"), "invalid_query", 1, "NUL"),
    "limit of zero": (("desires", "--limit", "0"), "invalid_value", 2, "0"),
    "at no time": (("desires", "--at", "then"), "invalid_time", 1, "then"),
    "at least too much": (("desires", "--min-strength", "2"), "invalid_strength", 1, "2"),
    "at least nothing": (("desires", "--min-strength", "nan"), "invalid_strength", 1, "nan"),
    "of no agent": (("desires", "--agent-id", ""), "invalid_agent_id", 1, "''"),
    "by nothing": (("reinforce", "--id", "des_1", "--by", "0"), "invalid_strength", 1, "0"),
    "by less": (("reinforce", "--id", "des_1", "--by", "-1"), "invalid_strength", 1, "-1"),
    "by too much": (("reinforce", "--id", "des_1", "--by", "1.5"), "invalid_strength", 1, "1.5"),
    "below what": (("prune",), "missing_option", 2, "--below"),
    "below too much": (("prune", "--below", "1.5"), "invalid_strength", 1, "1.5"),
    "below nothing": (("prune", "--below", "nan"), "invalid_strength", 1, "nan"),
    "a schedule's id": (("reinforce", "--id", "sch_00000000"), "unknown_id", 1, "sch_00000000"),
    "history of none": (("history", "--id", "des_00000000"), "unknown_id", 1, "des_00000000"),
    "signed": (("head", "--note", "--chain", "desires"), "conflicting_options", 2, "desires"),
    "another log": (("verify", "--chain", "wishes"), "invalid_value", 2, "wishes"),
}  # fmt: skip
for _id in ("des_00000000", "../../x", "", "des_\ud800", "x" * 5000):
    REFUSED[f"reinforce {_id[:12]!r}"] = (
        ("reinforce", "--id", _id), "unknown_id", 1, ascii(_id[:70])[1:-1],
    )  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_changes_nothing(case: str, var: Path, clock: Clock) -> None:
    """P7: each kind of bad input has its code, names the wrong value, hints at a way out, and
    leaves their log as it was: missing where there was none, byte for byte the same else."""
    arguments, code, exit_code, named = REFUSED[case]
    for _ in range(2):
        before = chain_of(var)
        document = call(*arguments).error(code, exit_code)
        said = document["message"].encode("ascii", "backslashreplace").decode()
        assert named.replace("\\\\", "\\") in said.replace("\\\\", "\\")
        assert document["hint"]
        assert chain_of(var) == before
        desired("Learn Danish", 0.5, "--tag", "known")


# --- their log and their index --------------------------------------------------------------------


def test_nothing_is_made_for_nothing(var: Path, clock: Clock) -> None:
    """Looking at desires where there are none makes no folder; nor does it appear in answers."""
    assert call("desires").success()["desires"] == []
    assert call("prune", "--below", "0.5").success()["count"] == 0
    assert not var.exists()
    add()
    for command in ("verify", "rebuild", "stats", "head"):
        assert "desires" not in call(command).success()
    assert not (var / "desires").exists()


def test_every_command_about_the_log_reaches_theirs(var: Path, clock: Clock) -> None:
    """`verify`, `head`, `rebuild`, `seal`, `stats`, `history` and `doctor` cover both logs, or
    the one that is named."""
    add()
    id_ = desired("Learn Danish")
    head = call("head", "--chain", "desires").success()
    assert head["seq"] == 2
    assert head["head"] != call("head").success()["head"]
    both = call("verify").success()
    assert (both["events"], both["desires"]["head"]) == (2, head["head"])
    assert call("verify", "--chain", "desires").success()["head"] == head["head"]
    given_head = ("verify", "--head", head["head"])
    assert call(*given_head, "--chain", "desires").success()["contains"] == head["head"]
    call(*given_head).error("head_not_on_chain")
    rebuilt = call("rebuild").success()
    assert (rebuilt["schedules"], rebuilt["desires"]["desires"]) == (1, 1)
    assert call("rebuild", "--chain", "desires").success()["events"] == 2
    assert call("stats").success()["desires"]["living"] == 1
    assert call("history", "--chain", "desires").success()["count"] == 2
    assert call("history", "--type", "desire").success()["count"] == 1
    assert call("history").success()["events"][1]["type"] == "schedule.registered"
    assert "2 events" in str(call("doctor", "--skip-letta", "--allow-no-loop").success()["checks"])
    clock.advance(days=30)
    call("seal", "--month", "2026-10").error("unknown_month")
    sealed = call("seal").success()
    assert [(month["month"], month.get("chain")) for month in sealed["sealed"]] == [
        ("2026-11", None),
        ("2026-11", "desires"),
    ]
    assert call("verify").success()["desires"]["sealed"] == 1
    assert [desire["id"] for desire in call("desires").success()["desires"]] == [id_]


def test_the_index_is_disposable(var: Path, clock: Clock) -> None:
    """P4: without their index, or with noise in its place, desires are the same; and it is theirs
    alone that is made again."""
    desired("Learn Danish")
    before = call("desires").success()
    for spoil in (b"", b"noise", None):
        path = var / "desires" / "index.json"
        path.unlink() if spoil is None else path.write_bytes(spoil)
        answer = call("desires")
        assert answer.success() == before
        assert "rebuilt" in answer.err
        assert not call("desires").err
    for path in (var / "desires").glob("*.gz"):
        path.unlink()
    call("desires").error("chain_missing")


def test_collisions_take_the_next_salt(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: where another has the id already, a salt makes another, is kept in the event, and gives
    the same ids when the log is read again."""

    def one_of_eight(content: Any, salt: int = 0) -> str:
        return f"des_0000000{int(identity.desire_id(content, salt)[4:6], 16) % 8}"

    monkeypatch.setattr(manage, "desire_id", one_of_eight)
    store = store_in(quick_path / "schedules")
    first, again = (
        [record(store, "agent-a", f"Wish {n}", 0.5, [], NOON) for n in range(8)] for _ in range(2)
    )
    ids = [answer["id"] for answer in first]
    assert len(set(ids)) == 8
    assert [answer["id"] for answer in again] == ids
    assert not any(answer["created"] for answer in again)
    fresh = Index(quick_path / "none", DESIRE_SCHEMA, store.desires._ledger, print).load()
    assert fresh == store.desires.read()
    salts = [d.salt for id_ in ids if (d := fresh.state.find(id_))]
    assert any(salts)


def test_many_lie_in_parts_by_agent(quick_path: Path) -> None:
    """P8: many desires lie in parts, those of one agent side by side: listing them reads few, and
    recording one writes few; and the parts say what the log says."""
    chain = store_in(quick_path / "schedules", Unsynced()).desires
    for lo in range(0, 3000, 500):

        def decide(state: Any, lo: int = lo) -> Any:
            drafts = []
            for n in range(lo, lo + 500):
                new = manage.DesireRecorded(f"agent-{n % 30}", f"Wish {n}", 0.5, format_utc(NOON))
                id_, salt, _ = manage._id_for_content(state, new)
                drafts.append(chain.draft(new._replace(salt=salt or None), id_))
            return drafts, None

        chain.transact(NOON, decide)
    call("rebuild", "--chain", "desires", "--var", str(quick_path)).success()
    other = store_in(quick_path / "schedules")
    state = other.desires.read().state
    root = other.desires._index._root
    assert root is not None
    assert all(isinstance(node, Branch) for node in root.tables)
    files = list((quick_path / "desires" / "index").rglob("*.json"))
    answer = list_desires(other, agent_id="agent-7", now=NOON)
    assert answer["count"] == 100
    read = {name for name in other.desires._index._parts._cache if name.startswith("desires/")}
    assert 0 < len(read) < len(files) / 5
    replayed = Index(quick_path / "none", DESIRE_SCHEMA, chain._ledger, print).load().state
    assert state == replayed


# --- crashes, races, models -----------------------------------------------------------------------


def story_of(var: Path, disk: Disk, report: Callable[[str], None]) -> None:
    """Two desires, one reinforced and one pruned, over the end of a month."""
    store = store_in(var / "schedules", disk)
    first = record(store, "agent-a", "First", 0.8, ["x"], NOON)["id"]
    report("first")
    record(store, "agent-a", "Second", 0.1, [], NOON)
    report("second")
    reinforce(store, first, 0.1, NOON + timedelta(days=5))
    report("reinforced")
    prune(store, 0.2, NOON + timedelta(days=20))
    report("pruned")


def test_killed_at_every_syscall(quick_path: Path) -> None:
    """P1: SIGKILL before, after and in the middle of every change to the disk loses nothing
    acknowledged, and doing the rest again ends where it would have ended."""
    dry = StepDisk()
    story_of(quick_path / "dry", dry, lambda _: None)
    wanted = ["first", "second", "reinforced", "pruned"]
    kinds = ["recorded", "recorded", "reinforced", "pruned"]
    for at, when in ways(dry.log):
        var = quick_path / f"{at}-{when}"
        disk = StepDisk(at, when, kill)
        acknowledged, ended_by = in_child(lambda r, v=var, d=disk: story_of(v, d, r))
        assert ended_by == signal.SIGKILL
        count("kills by SIGKILL")
        store = store_in(var / "schedules", Unsynced())
        snapshot = store.desires.read()
        replayed = Index(var / "none", DESIRE_SCHEMA, store.desires._ledger, print).load()
        assert snapshot == replayed
        happened = Counter(f"desire.{what}" for what in kinds[: len(acknowledged)])
        assert happened <= Counter(snapshot.state.counts)
        assert acknowledged == wanted[: len(acknowledged)]
        record(store, "agent-a", "After", 0.5, [], NOON + timedelta(days=30))
        events = check_chain(var / "desires")
        assert [event["type"] for event in events].count("desire.recorded") <= 3


def test_several_at_once(tmp_path: Path) -> None:
    """P5: of several processes that record, reinforce and prune at one time, nothing is lost or
    doubled: every success is in the log once, and a desire is pruned once."""
    environ = clean_environ(tmp_path / "var")
    with ExitStack() as stack:
        actors = [stack.enter_context(Actor(environ)) for _ in range(3)]

        def at_once(*words: str) -> list[Answer]:
            for number, actor in enumerate(actors):
                actor.begin(*(word.replace("#", str(number)) for word in words))
            count("commands raced", len(actors))
            return [actor.end() for actor in actors]

        for turn in range(rounds(6)):
            made = at_once("desire", "--agent-id", "a", "--text", f"{turn} of #", "--strength", "1")
            ids = {answer.success()["id"] for answer in made}
            assert len(ids) == 3
            for answer in at_once("reinforce", "--id", sorted(ids)[0], "--by", "0.1"):
                answer.success()
            pruned = [answer.success()["count"] for answer in at_once("prune", "--below", "1")]
            assert sum(pruned) in (2, 3), pruned  # the one reinforced may be at 1 still
    events = check_chain(tmp_path / "var" / "desires")
    sums = Counter(event["type"] for event in events)
    assert (sums["desire.recorded"], sums["desire.reinforced"]) == (3 * rounds(6), 3 * rounds(6))
    ends = Counter(event["id"] for event in events if event["type"] == "desire.pruned")
    assert set(ends.values()) == {1}


class Wishing(RuleBasedStateMachine):
    """Every command in any order against plain dictionaries that were written from the
    documentation; and the index, the log and each rebuilt one say the same."""

    root: Path
    number = 0

    @initialize()
    def begin(self) -> None:
        Wishing.number += 1
        self.var = self.root / str(Wishing.number)
        self.var.mkdir()  # --var that names no folder is an error
        self.now = NOON
        self.model: dict[str, dict[str, Any]] = {}

    def call(self, *arguments: str) -> Answer:
        Session.now = lambda _: self.now  # type: ignore[method-assign]
        return call(*arguments, "--var", str(self.var))

    def faded(self, mine: dict[str, Any]) -> float:
        days = max((self.now - mine["at"]) / timedelta(days=30), 0.0)
        return float(mine["strength"] * 2**-days)

    @rule(hours=st.integers(1, 2000))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(
        agent=st.sampled_from("ab"),
        text=st.sampled_from(["Learn Danish", "Paint", "Ünïcode\n\U0001f600"]),
        strength=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        tags=st.lists(st.sampled_from(["x", "y"]), unique=True),
    )
    def records(self, agent: str, text: str, strength: float, tags: list[str]) -> None:
        more = [word for tag in tags for word in ("--tag", tag)]
        asked = ("--agent-id", agent, "--text", text, "--strength", str(strength))
        answer = self.call("desire", *asked, *more).success()
        same = [
            id_
            for id_, mine in self.model.items()
            if (mine["agent"], mine["text"], mine["made"]) == (agent, text, self.now)
        ]
        assert answer["created"] == (not same)
        if same:
            assert answer["id"] == same[0]
            return
        self.model[answer["id"]] = {
            "agent": agent, "text": text, "made": self.now, "at": self.now, "strength": strength,
            "tags": tags, "pruned": False,
        }  # fmt: skip

    @rule(number=st.integers(0, 20), by=st.sampled_from([0.1, 1.0]))
    def reinforces(self, number: int, by: float) -> None:
        if not self.model:
            self.call("reinforce", "--id", "des_00000000").error("unknown_id")
            return
        id_ = sorted(self.model)[number % len(self.model)]
        mine, answer = self.model[id_], self.call("reinforce", "--id", id_, "--by", str(by))
        if mine["pruned"]:
            answer.error("pruned")
            return
        strength = min(1.0, self.faded(mine) + by)
        assert answer.success()["strength"] == pytest.approx(strength, abs=1e-6)
        mine.update(at=self.now, strength=strength)

    @rule(below=st.sampled_from([0.0, 0.04, 0.3, 1.0]), agent=st.sampled_from(["a", "b", None]))
    def prunes(self, below: float, agent: str | None) -> None:
        more = ["--agent-id", agent] if agent else []
        answer = self.call("prune", "--below", str(below), *more).success()
        faint = {
            id_
            for id_, mine in self.model.items()
            if not mine["pruned"] and agent in (None, mine["agent"]) and self.faded(mine) < below
        }
        assert {desire["id"] for desire in answer["pruned"]} == faint
        for id_ in faint:
            self.model[id_]["pruned"] = True

    @rule()
    def the_index_is_lost(self) -> None:
        (self.var / "desires" / "index.json").unlink(missing_ok=True)

    @rule()
    def months_are_sealed(self) -> None:
        self.call("seal", "--chain", "desires").success()

    @rule(agent=st.sampled_from(["a", "b", None]))
    def lists(self, agent: str | None) -> None:
        more = ["--agent-id", agent] if agent else []
        found = self.call("desires", *more).success()["desires"]
        mine = {
            id_: (round(self.faded(mine), 6), mine["text"], mine["tags"])
            for id_, mine in self.model.items()
            if not mine["pruned"] and agent in (None, mine["agent"])
        }
        listed = {
            desire["id"]: (desire["strength"], desire["text"], desire["tags"]) for desire in found
        }
        assert listed == {
            id_: (pytest.approx(strength, abs=2e-6), *rest)
            for id_, (strength, *rest) in mine.items()
        }
        order = [desire["strength"] for desire in found]
        assert order == sorted(order, reverse=True)

    def teardown(self) -> None:
        if not hasattr(self, "var"):
            return
        self.lists(None)
        store = store_in(self.var / "schedules")
        events = [e for batch in store.desires.replay() for e in batch.envelopes]
        assert store.desires.read().state == fold(EMPTY, events)
        if self.model:
            check_chain(self.var / "desires")
            assert self.call("verify").success()["desires"]["events"] == len(events)
        else:
            assert store.desires.read().position == START


def test_model(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1, P4, P6, P7: whatever is asked, in whatever order, the model agrees."""
    monkeypatch.setattr(Session, "now", Session.now)  # put back afterwards
    Wishing.root = quick_path
    run_state_machine_as_test(
        Wishing,
        settings=settings(
            max_examples=rounds(12),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- logs that lie --------------------------------------------------------------------------------


def told() -> list[Event]:
    """A log with every event of desires, over two months."""
    at = "2026-11-20T12:00:00.000000Z"
    one, two = "des_00000001", "des_00000002"
    desire = {"agent_id": "agent-a", "text": "x", "strength": 0.5, "recorded_at": at}
    quarantined = {"month": "2026-11", "offset": 5, "bytes": 3, "sha256": "0" * 64, "file": "f"}
    sealed = {"month": "2026-11", "events": 0, "content_sha256": ""}
    story: list[tuple[str, str | None, dict[str, Any]]] = [
        ("ledger.created", None, {"format": 1, "chain": "desires", "software": "x"}),
        ("desire.recorded", one, {**desire, "tags": ["old"], "reason": "why"}),
        ("desire.recorded", two, {**desire, "agent_id": "agent-b", "salt": 1}),
        ("desire.reinforced", one, {"by": 0.2, "strength": 0.7, "reason": "why"}),
        ("tail.quarantined", None, quarantined),
        ("segment.sealed", None, sealed),
        ("desire.pruned", two, {"strength": 0.1, "below": 0.2}),
    ]
    return [
        {
            "v": 1, "seq": seq, "ts": at if seq < 6 else at.replace("-11-", "-12-"), "type": type_,
            "id": id_, "actor": {"via": "cli", "who": "x"}, "data": data, "prev": "",
        }
        for seq, (type_, id_, data) in enumerate(story, 1)
    ]  # fmt: skip


ASKED: list[tuple[str, ...]] = [
    ("desires",), ("desires", "--agent-id", "agent-a", "--at", "4"), ("verify",),
    ("desires", "--format", "table"), ("history", "--chain", "desires"), ("stats",),
    ("doctor", "--skip-letta"), ("head", "--chain", "desires"), ("rebuild",),
    ("reinforce", "--id", "des_00000001"), ("prune", "--below", "0.9"), ("seal",),
    ("desire", "--agent-id", "agent-a", "--text", "New"), ("prune", "--below", "1", "--dry-run"),
]  # fmt: skip


def test_the_story_is_sound(quick_path: Path, clock: Clock) -> None:
    """What is spoiled below is right as long as it isn't."""
    write_segments(quick_path, segments_of(told()), "desires")
    answer = call("verify", "--var", str(quick_path)).success()
    assert answer["desires"]["events"] == 7


@settings(
    max_examples=rounds(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spoiled_stories(told), st.lists(st.sampled_from(ASKED), min_size=2, max_size=4, unique=True))
def test_a_log_that_lies(
    tmp_path_factory: pytest.TempPathFactory, clock: Clock, spoiled: list[Event], asked: Any
) -> None:
    """P3, P7: a log of desires whose links hold and whose events say what none of ours would is
    answered for by every command: one document, a documented code, and no line of it changed."""
    clock.set("2026-12-20T12:00:00")
    var = tmp_path_factory.mktemp("lies")
    write_segments(var, segments_of(spoiled), "desires")
    for arguments in asked:
        before = chain_of(var)
        document = check_answer(call(*arguments, "--var", str(var)), arguments)
        if document is not None and document["status"] == "error":
            assert chain_of(var) == before, arguments
    count("inputs fuzzed")
