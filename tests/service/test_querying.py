"""Answers that change nothing: list, show, next, history, stats, verify, head, rebuild, doctor."""

import random
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from by_hand import deliver_due
from calling import AGENT, add, call, lines_of, log_of
from checker import members
from conftest import Clock
from damage import store_in

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")
IDLE_LISTED = [
    "id", "agent_id", "name", "prompt", "schedule_type", "schedule_value", "timezone", "next_run",
    "last_run", "created_at", "status", "active", "repetition_count", "max_repetitions",
]  # fmt: skip


@pytest.fixture
def several(var: Path, clock: Clock) -> dict[str, str]:
    """A schedule of each status, made a minute apart, by what became of it."""
    ids = {}
    for number, name in enumerate(("hourly", "cron", "once", "paused", "cancelled", "other")):
        agent = "other" if name == "other" else AGENT
        when = {"cron": ("--cron", "@daily"), "once": ("--time", "in 30m")}
        arguments = when.get(name, ("--every", "1h"))
        ids[name] = add("--name", name, *arguments, agent=agent, prompt="Hello")
        if name in ("paused", "cancelled"):
            call({"paused": "pause", "cancelled": "cancel"}[name], "--id", ids[name]).success()
        clock.advance(minutes=number + 1)
    return ids


def names(*arguments: str) -> list[str]:
    """The names of what `list` lists, in its order."""
    answer = call("list", *arguments).success()
    assert answer["count"] == len(answer["schedules"])
    return [schedule["name"] for schedule in answer["schedules"]]


# list and show


def test_list_has_the_keys_of_the_contract(var: Path, several: dict[str, str]) -> None:
    """Each listed schedule has exactly the promised keys, in their order, and types."""
    for schedule in call("list", "--status", "all").success()["schedules"]:
        assert list(schedule) == IDLE_LISTED
        assert schedule["schedule_type"] in ("once", "cron", "interval")
        assert schedule["active"] is (schedule["status"] == "active")
        assert (schedule["next_run"] is not None) is schedule["active"]
    full = call("list", "--full").success()["schedules"][0]
    assert list(full)[: len(IDLE_LISTED)] == IDLE_LISTED
    assert {"misfire", "grace", "jitter", "tier", "life", "open", "next_run_local"} < set(full)
    assert call("show", "--id", full["id"]).success() == {
        "status": "success", "id": full["id"], "schedule": full,
    }  # fmt: skip


def test_list_is_sorted_and_filtered(var: Path, several: dict[str, str]) -> None:
    """The soonest comes first; by default what is over is left out; every filter filters."""
    assert names() == ["once", "hourly", "other", "cron", "paused"]
    assert names("--status", "active") == ["once", "hourly", "other", "cron"]
    assert names("--status", "paused") == ["paused"]
    assert names("--status", "cancelled") == ["cancelled"]
    assert names("--status", "completed") == names("--status", "failed") == []
    assert len(names("--status", "all")) == 6
    assert names("--agent-id", "other") == ["other"]
    assert names("--agent-id", "nobody") == []
    assert names("--limit", "2") == ["once", "hourly"]
    assert call("list", "--limit", "2").success()["total"] == 5
    assert "total" not in call("list", "--limit", "5").success()


def test_list_shortens_long_prompts(var: Path) -> None:
    """A long prompt is cut unless `--full` asks for it."""
    text = "é" * 500
    call("register", "--agent-id", AGENT, "--prompt", text, "--every", "1h").success()
    (short,) = call("list").success()["schedules"]
    assert short["prompt"] == "é" * 119 + "…"
    assert call("list", "--full").success()["schedules"][0]["prompt"] == text


def test_an_empty_directory_has_answers_and_stays_empty(var: Path) -> None:
    """Reading where nothing was ever written gives empty answers, and makes no folder."""
    warning = f"There is no folder '{var}', which PROMPTYOSELF_VAR or --var names."
    plain = {"status": "success", "schedules": [], "count": 0, "warning": warning}
    assert call("list").success() == plain
    assert call("history").success()["events"] == []
    streamed = call("history", "--ndjson")
    assert (streamed.out, streamed.err) == (b"", f"promptyoself: {warning}\n")
    assert call("stats").success()["events"] == 0
    assert call("head").success()["head"] == "0:" + "0" * 64
    assert call("verify").success()["events"] == 0
    assert call("audit").success()["totals"]["slots"] == 0
    assert call("diff", "--from", "0").success()["count"] == 0
    assert b'promptyoself_chain_events{chain="schedules"} 0.0' in call("metrics").out
    call("doctor", "--skip-letta").success()
    assert not var.exists()


@pytest.mark.parametrize(
    "arguments", [("audit",), ("diff", "--from", "0"), ("export",), ("metrics",)], ids=" ".join
)
def test_a_damaged_log_has_no_answers(
    var: Path, several: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """P4, P7: what is computed from the log is refused where that is damaged; it isn't that of the
    sound part."""
    # An export reads as what a modified schedule was registered.
    call("modify", "--id", several["hourly"], "--name", "n").success()
    (path,) = (var / "schedules").glob("*.gz")
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    assert call(*arguments).error("corrupt_chain")["hint"]


def test_the_past_can_be_listed(var: Path, clock: Clock) -> None:
    """`--at` answers as it was after any event, by its number or its time."""
    id_ = call(*BASE, "--every", "1h").success()["id"]
    clock.advance(minutes=1)
    call("modify", "--id", id_, "--prompt", "Other").success()
    clock.advance(minutes=1)
    call("cancel", "--id", id_).success()
    for at, expected in (
        ("0", None),
        ("1", None),
        ("2", ("Hello", "active")),
        ("3", ("Other", "active")),
        ("4", ("Other", "cancelled")),
        ("999", ("Other", "cancelled")),
        ("2026-11-20T11:59:59", None),
        ("2026-11-20T12:00", ("Hello", "active")),
        ("2026-11-20T13:01:59+01:00", ("Other", "active")),
        ("2026-11-20T12:02", ("Other", "cancelled")),
    ):
        found = call("list", "--status", "all", "--at", at).success()["schedules"]
        seen = [(schedule["prompt"], schedule["status"]) for schedule in found]
        assert seen == ([] if expected is None else [expected]), at
        if expected is None:
            call("show", "--id", id_, "--at", at).error("unknown_id")
        else:
            schedule = call("show", "--id", id_, "--at", at).success()["schedule"]
            assert (schedule["prompt"], schedule["status"]) == expected


# next


def test_next_counts(var: Path, clock: Clock) -> None:
    """`next` shows the fires to come, in UTC and in the schedule's zone, and no more of them than
    are asked for, or left."""
    id_ = call(*BASE, "--cron", "30 9 * * MON", "--tz", "Asia/Kathmandu").success()["id"]
    fires = call("next", "--id", id_).success()["fires"]
    assert len(fires) == 5
    assert fires[0] == {"utc": "2026-11-23T03:45:00.000000Z", "local": "2026-11-23T09:30:00+05:45"}
    assert len(call("next", "--id", id_, "--count", "7").success()["fires"]) == 7
    limited = call(*BASE, "--every", "1h", "--max-repetitions", "3").success()["id"]
    assert len(call("next", "--id", limited).success()["fires"]) == 3
    deliver_due(store_in(var / "schedules"), clock.advance(hours=1))
    assert len(call("next", "--id", limited).success()["fires"]) == 2
    assert len(call("next", "--id", limited, "--count", "1").success()["fires"]) == 1
    shown = call("show", "--id", limited).success()["schedule"]
    assert (shown["repetition_count"], shown["last_run"]) == (1, "2026-11-20T13:00:00.000000Z")
    call("modify", "--id", limited, "--max-repetitions", "1").error("nothing_left")
    call("modify", "--id", limited, "--max-repetitions", "2").success()
    assert len(call("next", "--id", limited).success()["fires"]) == 1


@pytest.mark.parametrize(
    ("options", "fires"),
    [
        (("--every", "90m", "--count", "2"), ["13:30", "15:00"]),
        (("--every", "1h", "--max-repetitions", "2"), ["13:00", "14:00"]),
        (("--every", "1h", "--until", "2026-11-20T14:30"), ["13:00", "14:00"]),
        (("--every", "1h", "--start-at", "2026-11-20T12:10", "--count", "2"), ["12:10", "13:10"]),
        (("--time", "18:15"), ["18:15"]),
        (("--cron", "*/20 * * * *", "--count", "3"), ["12:20", "12:40", "13:00"]),
    ],
)
def test_next_of_a_trigger_not_yet_registered(
    var: Path, clock: Clock, options: tuple[str, ...], fires: list[str]
) -> None:
    """A trigger can be tried out, without an agent and without leaving anything behind; and it
    then fires as foretold."""
    found = call("next", *options).success()["fires"]
    assert [fire["utc"][11:16] for fire in found] == fires
    assert not var.exists()
    plain = [word for word in options if word not in ("--count", "2", "3")]
    if "--max-repetitions" not in options:
        assert call(*BASE, *plain).success()["next_run"] == found[0]["utc"]


# history


def test_history_is_what_zcat_shows(var: Path, several: dict[str, str]) -> None:
    """`history --ndjson` prints the lines of the log, byte for byte."""
    text = 'é\u2028\U0001f600\\ "/\x7f\x01'
    call("register", "--agent-id", AGENT, "--prompt", text, "--every", "1h").success()
    assert call("history", "--ndjson").out.splitlines() == lines_of(var)
    events = call("history").success()["events"]
    assert [orjson.dumps(event) for event in events] == lines_of(var)


def test_history_is_filtered(var: Path, several: dict[str, str]) -> None:
    """Every filter of `history` filters, and together they all hold."""

    def seqs(*arguments: str) -> list[int]:
        answer = call("history", *arguments).success()
        assert answer["count"] == len(answer["events"])
        lines = call("history", "--ndjson", *arguments).out.splitlines()
        assert [orjson.loads(line) for line in lines] == answer["events"]
        return [event["seq"] for event in answer["events"]]

    assert seqs() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert seqs("--id", several["paused"]) == [5, 6]
    assert seqs("--type", "schedule.paused") == [6]
    assert seqs("--type", "schedule") == [2, 3, 4, 5, 6, 7, 8, 9]
    call("history", "--type", "sched").error("unknown_type")
    assert seqs("--agent-id", "other") == [9]
    assert seqs("--agent-id", AGENT) == [2, 3, 4, 5, 6, 7, 8]
    assert seqs("--limit", "2") == [8, 9]
    assert seqs("--since", "2026-11-20T12:06") == [5, 6, 7, 8, 9]
    assert seqs("--until", "2026-11-20T12:01") == [1, 2, 3]
    assert seqs("--since", "2026-11-20T12:01", "--until", "2026-11-20T12:03", "--limit", "1") == [4]
    assert seqs("--id", several["paused"], "--type", "delivery") == []


def test_history_follows_a_schedule_to_its_agent(var: Path, clock: Clock) -> None:
    """An agent's history has the events of what was its own at the time."""
    id_ = call(*BASE, "--every", "1h").success()["id"]
    call("modify", "--id", id_, "--agent-id", "other").success()
    call("cancel", "--id", id_).success()
    mine = call("history", "--agent-id", AGENT).success()["events"]
    others = call("history", "--agent-id", "other").success()["events"]
    assert [event["seq"] for event in mine] == [2]
    assert [event["seq"] for event in others] == [3, 4]


def test_history_shows_the_text_that_was_sent(var: Path, clock: Clock) -> None:
    """With --text the very text of each attempt is there, made again from the schedule as it was
    then, with its header; and with its hash. Otherwise nothing is added."""
    store = store_in(var / "schedules")
    id_ = add("--every", "1h", "--envelope", prompt="Before.\nAll of it.")
    clock.advance(hours=1)
    (claimed,) = deliver_due(store, clock.now)
    call("modify", "--id", id_, "--prompt", "After.").success()
    asked = ("history", "--id", id_, "--slot", "2026-11-20T13:00Z")
    assert "texts" not in call(*asked).success()
    (sent,) = call(*asked, "--text").success()["texts"]
    assert sent["text"] == claimed.text
    assert sent["text"].endswith("Before.\nAll of it.")
    assert sent["text_sha256"] == sha256(claimed.text.encode()).hexdigest()
    assert (sent["attempt"], sent["at"]) == (1, "2026-11-20T13:00:00.000000Z")
    shown = call(*asked, "--format", "table").out.decode()
    assert "Before.\nAll of it.\n" in shown
    call("history", "--id", id_, "--text").error("conflicting_options", 2)
    call(*asked, "--text", "--ndjson").error("conflicting_options", 2)


def test_every_command_that_looks_back_takes_words(var: Path, clock: Clock) -> None:
    """Times that have passed may be said in words, by whichever command."""
    id_ = add("--every", "1h")
    clock.advance(days=1)
    call("pause", "--id", id_).success()
    clock.advance(hours=3)
    since = call("history", "--since", "today").success()["events"]
    assert [event["seq"] for event in since] == [3, 4, 5]
    until = call("history", "--until", "yesterday").success()["events"]
    assert [event["seq"] for event in until] == [1, 2]
    assert call("show", "--id", id_, "--at", "yesterday").success()["schedule"]["active"]
    assert call("list", "--at", "an hour ago").success()["schedules"][0]["status"] == "paused"
    (change,) = call("diff", "--since", "yesterday at 18:00").success()["changes"]
    assert change["fields"]["status"] == {"from": "active", "to": "paused"}
    audited = call("audit", "--since", "last night", "--until", "last night").success()
    assert (audited["since"], audited["until"]) == (
        "2026-11-20T18:00:00.000000Z", "2026-11-21T05:59:59.999999Z",
    )  # fmt: skip
    packed = call("pack", "--since", "last month", "--out", str(var.parent / "p.zip")).success()
    assert packed["months"]
    # It is Saturday.
    assert call("history", "--since", "friday", "--until", "friday").success()["count"] == 2
    refused = call("audit", "--since", "saturday").error("invalid_time")
    assert "can mean two things" in refused["message"]


# verify, head, rebuild, stats, doctor


def test_verify_proves_a_head(var: Path, several: dict[str, str]) -> None:
    """P3: every head there ever was is on the chain; another hash, or one beyond the end, isn't."""
    lines = lines_of(var)
    for seq, line in enumerate(lines, 1):
        head = f"{seq}:{sha256(line).hexdigest()}"
        answer = call("verify", "--head", head).success()
        assert (answer["valid"], answer["contains"]) == (True, head)
    assert call("head").success()["head"] == head == answer["head"]
    call("verify", "--head", "0:" + "0" * 64).success()
    wrong = sha256(b"").hexdigest()
    document = call("verify", "--head", f"3:{wrong}").error("head_not_on_chain")
    assert (document["seq"], document["expected"]) == (3, wrong)
    document = call("verify", "--head", f"{len(lines) + 1}:{wrong}").error("head_not_on_chain")
    assert document["found"] is None


def test_stats_count(var: Path, several: dict[str, str]) -> None:
    """`stats` counts schedules, events and bytes."""
    answer = call("stats").success()
    assert answer["schedules"] == {"active": 4, "paused": 1, "cancelled": 1}
    assert answer["agents"] == 2
    assert answer["events"] == len(lines_of(var)) == sum(answer["events_by_type"].values())
    assert answer["bytes"] == sum(len(content) for content in log_of(var).values())
    assert f"{answer['head']['seq']}:{answer['head']['hash']}" == call("head").success()["head"]


def test_rebuild_makes_the_index_again(var: Path, several: dict[str, str]) -> None:
    """P4: rebuild writes the index that was there, and changes nothing else."""
    index = var / "schedules" / "index.json"
    before, log = orjson.loads(index.read_bytes()), log_of(var)
    index.write_bytes(b"noise")
    answer = call("rebuild").success()
    assert (answer["events"], answer["schedules"]) == (9, 6)
    assert orjson.loads(index.read_bytes()) == before
    assert log_of(var) == log


def test_rebuilding_nothing_leaves_nothing(var: Path) -> None:
    """P4: an index of an empty log would later tell of a log that was lost."""
    assert call("rebuild").success()["events"] == 0
    assert not (var / "schedules" / "index.json").exists()
    call(*BASE, "--every", "1h").success()


def test_doctor_finds_nothing_wrong_and_hides_secrets(
    var: Path, several: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` lists every setting with where it came from, and no secret; it changes nothing."""
    monkeypatch.setenv("LETTA_API_KEY", "sesame")
    before = log_of(var)
    answer = call("doctor", "--skip-letta", "--allow-no-loop")
    assert b"sesame" not in answer.out
    settings = {setting["name"]: setting for setting in answer.success()["settings"]}
    assert settings["LETTA_API_KEY"]["value"] == "***"
    assert settings["PROMPTYOSELF_VAR"]["origin"] == "environment"
    assert settings["LETTA_SERVER_PASSWORD"]["value"] == ""
    monkeypatch.setenv("PROMPTYOSELF_DB_PATH", "/old.db")
    checks = call("doctor", "--skip-letta", "--allow-no-loop").success()["checks"]
    assert [check["ok"] for check in checks if check["name"] == "old_database"] == [True]
    assert log_of(var) == before


def test_doctor_says_what_is_wrong(
    var: Path, several: dict[str, str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` exits 1 and names each check that fails: overdue schedules, no loop where one is
    wanted, a clock that runs behind the log, a zone that isn't."""
    clock.advance(days=1)
    document = call("doctor", "--skip-letta", "--require-loop").error("unhealthy")
    assert "overdue" in document["message"]
    assert "none is running" in document["message"]
    clock.set("2026-11-19T00:00")
    assert "clock" in call("doctor", "--skip-letta").error("unhealthy")["message"]
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Mars/Olympus")
    assert "Mars/Olympus" in call("doctor", "--skip-letta").error("unhealthy")["message"]


# the index


def test_the_index_is_disposable(var: Path, clock: Clock) -> None:
    """P4: with the index deleted, cut off, changed or filled with noise, the answers of `list
    --full` are byte for byte the same, a warning is given, and the log is untouched."""
    hourly = call(*BASE, "--every", "1h").success()["id"]
    paused = call(*BASE, "--cron", "@daily", "--tz", "Europe/London").success()["id"]
    call("pause", "--id", paused).success()
    deliver_due(store_in(var / "schedules"), clock.advance(hours=2))
    call("trigger", "--id", hourly).success()
    index = var / "schedules" / "index.json"
    expected = call("list", "--full", "--status", "all")
    good, log = index.read_bytes(), log_of(var)
    assert not expected.err
    flipped = good[:500] + bytes([good[500] ^ 1]) + good[501:]
    noise = random.Random(1).randbytes(len(good))
    for content in (None, b"", good[:-1], good[1:], good[: len(good) // 2], flipped, noise):
        index.unlink() if content is None else index.write_bytes(content)
        answer = call("list", "--full", "--status", "all")
        assert answer.out == expected.out
        assert answer.err.count("promptyoself: ") == 1
        assert index.read_bytes() == good  # and it is back
    assert log_of(var) == log


def test_without_the_log_the_index_is_nothing(var: Path, several: dict[str, str]) -> None:
    """P4: a log that is gone is not an empty one: nobody reads or writes past it."""
    for path in (var / "schedules").glob("*.ndjson.gz"):
        path.rename(path.with_suffix(".away"))
    for arguments in (("list",), (*BASE, "--every", "9h"), ("rebuild",)):
        call(*arguments).error("chain_missing")


def test_the_segment_is_gzip(var: Path, several: dict[str, str]) -> None:
    """P1: every command's events are one whole gzip member, so that a crash can spoil but the
    last."""
    (content,) = log_of(var).values()
    appended = members(content)
    assert len(appended) == 8
    assert all(member.endswith(b"\n") for member in appended)
