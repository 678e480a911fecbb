"""P3: audit packs: what is in them, what their verifier finds, and what happens meanwhile."""

import ast
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from errno import ENOSPC, EROFS
from pathlib import Path
from typing import Any

import packs
import pytest
from by_hand import answer_all, deliver_due
from calling import call, log_of, run
from chains import NOW, StepDisk
from checker import check_chain
from conftest import Clock
from damage import store_in
from gaps import drop
from packs import MONTHS, REGISTER, Lines
from tally import chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.events.records import NoticeSent
from promptyoself.rules.notices.replies import Answer
from promptyoself.service.proof import pack as packing
from promptyoself.service.proof import pack_verifier
from promptyoself.service.upkeep import seal as sealing

VERIFIER = Path(pack_verifier.__file__)


@pytest.fixture
def log(var: Path, clock: Clock) -> Path:
    """Seven events in three months, of which November isn't one."""
    packs.register_monthly(clock, 3, 4)
    return var


@pytest.fixture
def pack(log: Path, tmp_path: Path) -> Path:
    """The whole log's pack, unpacked."""
    return packs.packed(tmp_path)[1]


def rechain(lines: Lines) -> Lines:
    """The same lines with good numbers and links: a chain that is sound, but another."""
    seq, prev, found = 0, "0" * 64, {}
    for month, each in lines.items():
        found[month] = []
        for line in each:
            event = json.loads(line)
            seq += 1
            event.update(seq=seq, prev=prev)
            found[month].append(json.dumps(event, separators=(",", ":")).encode())
            prev = hashlib.sha256(found[month][-1]).hexdigest()
    return found


def at_most(kind: int, most: int) -> Callable[[], None]:
    """For a process that may have no more of a resource, one of ``RLIMIT_*``."""
    return lambda: resource.setrlimit(kind, (most, most))


# --- packs ----------------------------------------------------------------------------------------


def test_a_pack_holds_the_log_as_it_is(log: Path, tmp_path: Path) -> None:
    """P3: a pack has the months byte for byte, heads.json, a page and the verifier; it is private,
    and its verifier finds it sound from anywhere, with nothing but Python."""
    answer, folder = packs.packed(tmp_path)
    out = tmp_path / "pack.zip"
    head = call("head").success()["head"]
    assert (answer["file"], answer["months"], answer["events"]) == (str(out), MONTHS, 7)
    assert (answer["first"], answer["head"]) == (1, head)
    assert answer["bytes"] == out.stat().st_size
    assert answer["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert log_of(folder) == log_of(log)
    check_chain(folder / "schedules")
    assert sorted(os.listdir(folder)) == ["README.md", "heads.json", "schedules", "verify.py"]
    assert packs.check(folder).out.decode() == f"ok 7 {head}\n"
    assert packs.check(folder, "--head", head, str(folder)).code == 0
    assert call("verify", "--var", str(folder)).success()["head"] == head
    assert sorted(os.listdir(tmp_path)) == ["pack", "pack.zip", "var"]


def test_a_pack_says_that_it_has_answers(
    log: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: answers and notices are events like any others to the verifier that everybody has. The
    page and the answer of `pack` say that what agents have said is in it."""
    answer, folder = packs.packed(tmp_path)
    assert "answers" not in answer["message"]
    assert "agents have answered" not in (folder / "README.md").read_text()
    monkeypatch.setenv("PROMPTYOSELF_DESTINATION_ME", "https://example.org/hook")
    words = ("register", "--agent-id", "a", "--prompt", "p", "--time", "in 1m", "--reply-to", "me")
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "excerpt")
    call(*words).success()
    clock.advance(minutes=1)
    store = store_in(log / "schedules")
    deliver_due(store, clock.now, "excerpt")
    answer_all(store, clock.now, Answer("What I have said."))
    (owed,) = store.read().state.notices.values()
    sent = NoticeSent(owed.notice, owed.to, owed.kind, 1, owed.slot)
    store.transact(clock.now, lambda _: ([store.draft(sent, owed.id, owed.agent_id)], None))
    (tmp_path / "with").mkdir()
    answer, folder = packs.packed(tmp_path / "with")
    assert answer["message"].startswith("Checked and packed. Prompts and agents' answers are in it")
    assert (
        "the prompts are in it, and\nwhat agents have answered."
        in (folder / "README.md").read_text()
    )
    assert packs.check(folder).code == 0
    packed_lines = b"".join(
        gzip.decompress(path.read_bytes()) for path in (folder / "schedules").iterdir()
    )
    assert b"What I have said." in packed_lines
    assert b'"notice.sent"' in packed_lines


def test_the_same_log_gives_the_same_pack(log: Path, tmp_path: Path, clock: Clock) -> None:
    """The same log and arguments give the same bytes at any time; a signature changes nothing
    about that."""
    key = call("keygen", "--out", str(tmp_path / "key")).success()["key"]
    for arguments in ((), ("--since", "2026-10-01T00:00"), ("--key", key)):
        one = packs.made(tmp_path / "one", *arguments)
        clock.advance(days=1)
        other = packs.made(tmp_path / "other", *arguments)
        assert one["sha256"] == other["sha256"]
        assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
        (tmp_path / "one").unlink()
        (tmp_path / "other").unlink()


@pytest.mark.parametrize(
    ("since", "until", "months"),
    [
        (None, None, MONTHS),
        ("2026-10-31T23:59:59", None, MONTHS[1:]),
        ("2026-11-01T00:00", None, MONTHS[2:]),
        (None, "2026-11-30T00:00", MONTHS[:2]),
        ("2026-10-15T00:00", "2026-10-15T00:00", MONTHS[1:2]),
        ("2020-01-01T00:00", "2030-01-01T00:00", MONTHS),
    ],
)
def test_a_range_is_whole_months(
    log: Path, tmp_path: Path, since: str | None, until: str | None, months: list[str]
) -> None:
    """A pack has the months that the range touches, starts at the head before them, and proves
    heads in them and no others."""
    options = [("--since", since), ("--until", until)]
    arguments = [word for name, text in options if text for word in (name, text)]
    answer, folder = packs.packed(tmp_path, *arguments)
    assert answer["months"] == months == list(packs.lines_in(folder))
    every = packs.lines_in(log)
    heads = [(0, "0" * 64)]
    for line in (line for month in MONTHS for line in every[month]):
        heads.append((len(heads), hashlib.sha256(line).hexdigest()))
    first = next(at for at, month in enumerate(MONTHS) if month == months[0])
    start = sum(len(every[month]) for month in MONTHS[:first])
    end = start + answer["events"]
    assert (answer["first"], answer["head"]) == (start + 1, f"{heads[end][0]}:{heads[end][1]}")
    assert packs.check(folder).out.decode() == f"ok {answer['events']} {answer['head']}\n"
    document = json.loads((folder / "heads.json").read_bytes())
    assert (document["before"]["seq"], document["before"]["hash"]) == heads[start]
    for seq, hash_ in heads:
        inside = start <= seq <= end
        assert packs.check(folder, "--head", f"{seq}:{hash_}").code == (not inside)
        assert packs.check(folder, "--head", f"{seq}:{'1' * 64}").code == 1
    assert packs.check(folder, "--head", f"99:{'1' * 64}").code == 1


def test_the_readme_is_true(log: Path, tmp_path: Path) -> None:
    """P3: every command on a pack's page works, in order, and its signature is one that OpenSSL
    accepts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    keys = call("keygen", "--out", str(tmp_path / "key")).success()
    answer, folder = packs.packed(tmp_path, "--key", keys["key"])
    page = (folder / "README.md").read_text()
    commands = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    commands = [line for line in commands if re.match(r"(python3|zcat|sed|\{|openssl) ", line)]
    assert len(commands) == 9
    public = keys["public_key"].removeprefix("ed25519:")
    script = "\n".join(commands).replace("BASE64", public).replace("SEQ:HASH", answer["head"])
    done = subprocess.run(
        ["bash", "-ec", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == said[3] == f"ok 7 {answer['head']}"
    assert said[1].split()[0] in said[2]
    note = (folder / "note").read_bytes()
    found = call("verify", "--note", "-", "--key", keys["public_key"], stdin=note).success()
    assert found["contains"] == answer["head"]
    assert not set(packs.lines_in(folder)) - set(packs.lines_in(log))


def test_the_verifier_needs_nothing_of_ours() -> None:
    """It imports the standard library alone, and its grammar is that of Python 3.9."""
    text = VERIFIER.read_text()
    ast.parse(text, feature_version=(3, 9))
    imported = re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE)
    assert {"zlib"} < set(imported) <= set(sys.stdlib_module_names)
    assert "promptyoself" not in text.replace("promptyoself-head-v1", "")


def test_wrong_ranges(log: Path, tmp_path: Path) -> None:
    """P7: a range the wrong way round, one without a month that has events, and what is no time
    are refused, and nothing is made."""
    out = ("pack", "--out", str(tmp_path / "pack.zip"))
    later, earlier = "2026-10-02T00:00", "2026-10-01T00:00"
    call(*out, "--since", later, "--until", earlier).error("empty_window", 2)
    call(*out, "--since", "2026-11-01T00:00", "--until", "2026-11-30T00:00").error(
        "nothing_to_pack"
    )
    call(*out, "--since", "2027-01-01T00:00").error("nothing_to_pack")
    call(*out, "--until", "2026-08-31T23:59").error("nothing_to_pack")
    call(*out, "--since", "some day").error("invalid_time")
    call("pack").error("missing_option", 2)
    assert os.listdir(tmp_path) == ["var"]


def test_of_two_packs_at_once_one_gets_the_name(
    log: Path, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: a file that comes into being while a pack is made is not overwritten by it."""
    out, verify = tmp_path / "pack.zip", packing.verify

    def slowly(*arguments: Any) -> Any:
        run("pack", "--out", str(out), environ=environ).success()
        return verify(*arguments)

    monkeypatch.setattr(packing, "verify", slowly)
    call("pack", "--out", str(out)).error("file_exists")
    assert sorted(os.listdir(tmp_path)) == ["pack.zip", "var"]
    assert packs.check(packs.unpacked(out, tmp_path / "pack")).code == 0


def test_a_damaged_log_is_not_packed(log: Path, tmp_path: Path) -> None:
    """P3: whichever month is damaged, in the range or not, nothing is packed."""
    arguments = ("pack", "--since", "2026-10-01T00:00", "--until", "2026-10-31T00:00", "--out")
    for month in MONTHS:
        path = log / "schedules" / f"{month}.ndjson.gz"
        good = path.read_bytes()
        path.write_bytes(good[:30] + bytes([good[30] ^ 1]) + good[31:])
        call(*arguments, str(tmp_path / "pack.zip")).error("corrupt_chain")
        path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
        answer = call(*arguments, str(tmp_path / "pack.zip"))
        assert answer.document["code"] in ("corrupt_chain", "events_missing", "damaged_tail")
        path.write_bytes(good)
        assert os.listdir(tmp_path) == ["var"]
    packs.made(tmp_path / "pack.zip")


def test_a_log_that_was_cut_is_not_packed(log: Path, tmp_path: Path) -> None:
    """P3: where the index bears witness that events were cut off, nothing is packed, however
    often one asks."""
    drop(log / "schedules", 7)
    for _ in range(2):
        call("pack", "--out", str(tmp_path / "pack.zip")).error("events_missing")
    assert os.listdir(tmp_path) == ["var"]


# --- meanwhile ------------------------------------------------------------------------------------


def seal(var: Path, month: str) -> None:
    """What sealing does to a file: the same lines in one member, put in its place at once."""
    path = var / "schedules" / f"{month}.ndjson.gz"
    beside = path.with_suffix(".beside")
    beside.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())))
    beside.rename(path)


def test_an_append_under_way_is_not_in_it(log: Path, tmp_path: Path) -> None:
    """P5: what follows the last whole append isn't copied, be it torn or whole."""
    path = log / "schedules" / "2026-12.ndjson.gz"
    good = path.read_bytes()
    sound = packs.made(tmp_path / "sound")["head"]
    path.write_bytes(good + good[:40])
    assert packs.made(tmp_path / "torn")["head"] == sound
    torn = log_of(packs.unpacked(tmp_path / "torn", tmp_path / "t"))
    assert torn[f"schedules/{path.name}"] == good


@pytest.mark.parametrize("when", ["verify", "end_before", "open_segment", "check_copy"])
@pytest.mark.parametrize("month", MONTHS)
@pytest.mark.parametrize("what", ["append", "seal", "both"])
def test_the_log_may_go_on_meanwhile(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock,
    when: str, month: str, what: str,
) -> None:  # fmt: skip
    """P5: whatever is appended, and whichever month is sealed, between any two steps of a pack,
    the pack is sound and starts and ends with events of this log."""
    original, todo = getattr(packing, when), [what]

    def hook(*arguments: Any) -> Any:
        if todo.pop() if todo else None:
            if what != "seal":
                clock.set("2027-01-01T12:00:00")
                call(*REGISTER, "meanwhile").success()
            if what != "append":
                seal(log, month)
        return original(*arguments)

    monkeypatch.setattr(packing, when, hook)
    answer, folder = packs.packed(tmp_path)
    assert packs.check(folder).out.decode() == f"ok {answer['events']} {answer['head']}\n"
    assert answer["events"] in (7, 8)
    call("verify", "--head", answer["head"]).success()
    everything = packs.lines_in(log)
    assert all(lines == everything[name] for name, lines in packs.lines_in(folder).items())


@pytest.mark.parametrize("when", ["before", "verify", "end_before", "open_segment", "check_copy"])
def test_a_sealed_log_is_packed(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, when: str
) -> None:
    """P3, P5: a log that `seal` rewrites, before or in the middle of a pack, gives a sound pack, in
    which what was recorded of the sealed months is checked."""
    clock.set("2027-01-01T12:00:00")
    store, lines = store_in(log / "schedules"), packs.lines_in(log)

    def hook(*arguments: Any) -> Any:
        sealing.seal(store, clock.now)
        return original(*arguments)

    if when == "before":
        sealing.seal(store, clock.now)
    else:
        original = getattr(packing, when)
        monkeypatch.setattr(packing, when, hook)
    answer, folder = packs.packed(tmp_path)
    assert packs.check(folder).out.decode() == f"ok {answer['events']} {answer['head']}\n"
    months = packs.lines_in(folder)
    sealed = months.pop("2027-01", [])
    assert months == lines
    assert len(sealed) in ((3,) if when == "before" else (0, 1, 2, 3))
    call("verify", "--var", str(log), "--head", answer["head"]).success()
    if sealed:
        packs.put(folder, MONTHS[0], [*lines[MONTHS[0]][:-1], lines[MONTHS[0]][-1] + b" "])
        assert packs.check(folder).code == 1


def test_a_log_that_never_rests_is_given_up(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: where a file is replaced by another again and again, the pack is refused, not wrong."""
    original = packing.open_segment

    def hook(folder: Path, end: Any, month: str) -> Any:
        packs.put(log, month, packs.lines_in(log)[month][:-1])
        return original(folder, end, month)

    monkeypatch.setattr(packing, "open_segment", hook)
    call("pack", "--out", str(tmp_path / "pack.zip")).error("corrupt_chain")
    assert os.listdir(tmp_path) == ["var"]


def test_packing_while_others_register(log: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    """P5: packs made while other processes append are sound, each with a head that the log has
    had."""
    script = (
        "import sys; from calling import call\n"
        "for n in range(80): call(*sys.argv[1:], f'storm {n}').success()"
    )
    environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")
    with subprocess.Popen([sys.executable, "-c", script, *REGISTER], env=environ) as writer:
        heads = set()
        for number in range(rounds(5)):
            answer = packs.made(tmp_path / str(number))
            folder = packs.unpacked(tmp_path / str(number), tmp_path / f"un{number}")
            assert packs.check(folder).out.decode() == f"ok {answer['events']} {answer['head']}\n"
            heads.add(answer["head"])
        assert writer.wait(timeout=120) == 0
    for head in heads:
        call("verify", "--head", head).success()


@pytest.mark.parametrize("error", [ENOSPC, EROFS])
def test_a_pack_that_fails_leaves_nothing(log: Path, tmp_path: Path, error: int) -> None:
    """P7: at whichever syscall the disk fails, no file has the pack's name, and none is left."""
    for at in range(1, 20):

        def fail() -> None:
            raise OSError(error, os.strerror(error))

        disk = StepDisk(at, act=fail)
        try:
            packing.pack(store_in(log / "schedules"), tmp_path / "pack.zip", now=NOW, disk=disk)
        except Exception:
            assert set(os.listdir(tmp_path)) <= {"var", "pack.zip"}
            if (tmp_path / "pack.zip").exists():  # whole, though perhaps not durable
                assert packs.check(packs.unpacked(tmp_path / "pack.zip", tmp_path / "un")).code == 0
                shutil.rmtree(tmp_path / "un")
                (tmp_path / "pack.zip").unlink()
        else:
            assert disk.count < at
            return
    pytest.fail("it never came through")


def test_a_pack_that_is_killed_leaves_nothing_under_its_name(
    log: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    """P7: SIGKILL in the middle leaves no file of the pack's name, and the next one works; Ctrl-C
    leaves nothing at all."""
    script = (
        "import os, signal, sys; from promptyoself import cli\n"
        "from promptyoself.service.proof import pack\n"
        # A shell has it ignored in what it runs in the background.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "original = pack._heads\n"
        "def die(*arguments):\n"
        "    os.kill(os.getpid(), int(sys.argv[1]))\n"
        "    return original(*arguments)\n"
        "pack._heads = die\n"
        "cli.main(sys.argv[2:])"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        command = [sys.executable, "-c", script, str(number.value), "pack", "--out"]
        done = subprocess.run(
            [*command, str(tmp_path / "pack.zip")], env=environ, capture_output=True, check=False
        )
        assert done.returncode in (1, -signal.SIGKILL)
        assert not (tmp_path / "pack.zip").exists()
        if number == signal.SIGINT:
            assert json.loads(done.stdout)["code"] == "interrupted"
            assert os.listdir(tmp_path) == ["var"]
    left = [name for name in os.listdir(tmp_path) if name != "var"]
    assert re.fullmatch(r"\.pack\.zip\.[0-9a-f]{8}\.tmp", *left)
    assert stat.S_IMODE((tmp_path / left[0]).stat().st_mode) == 0o600
    packs.made(tmp_path / "pack.zip")


def test_a_full_disk_is_said(log: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    """P7: a limit on file sizes, as a full disk, is said to be one, and nothing is left."""
    small = at_most(resource.RLIMIT_FSIZE, 6000)
    answer = run("pack", "--out", str(tmp_path / "pack.zip"), environ=environ, prepare=small)
    answer.error("disk_full")
    assert os.listdir(tmp_path) == ["var"]


def test_a_log_that_may_not_be_written_is_packed(log: Path, tmp_path: Path) -> None:
    """Of a log on a medium that is read-only a pack is made all the same."""

    def refuse() -> None:
        raise OSError(EROFS, os.strerror(EROFS))

    readonly = store_in(log / "schedules", StepDisk(1, act=refuse))
    answer = packing.pack(readonly, tmp_path / "pack.zip", now=NOW, disk=Disk())
    assert answer["events"] == 7


def test_memory_does_not_grow_with_the_log(
    log: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    """P8: packing, and checking a pack, take as much memory for a log of 60 MB as for a small one,
    but for the largest append."""
    lines = packs.lines_in(log)
    event = json.loads(lines["2026-10"][-1])
    event["type"], event["id"] = "worker.stopped", None
    random = chance("memory")
    for _ in range(60):
        event["data"] = {"worker": random.randbytes(500_000).hex(), "why": "done"}
        lines["2026-10"].append(json.dumps(event, separators=(",", ":")).encode())
    for month, each in rechain(lines).items():
        packs.put(log, month, each)
    (log / "schedules" / "index.json").unlink()
    out, enough = tmp_path / "pack.zip", at_most(resource.RLIMIT_DATA, 100 << 20)
    answer = run("pack", "--out", str(out), environ=environ, prepare=enough).success()
    assert answer["events"] == 67
    assert answer["bytes"] > 30_000_000
    folder, less = packs.unpacked(out, tmp_path / "pack"), at_most(resource.RLIMIT_DATA, 40 << 20)
    assert packs.check(folder, prepare=less).out.decode() == f"ok 67 {answer['head']}\n"


# --- what the verifier finds ----------------------------------------------------------------------


def test_every_flipped_byte(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P3: whichever byte of a pack's months is changed, the verifier names it, or every line is
    as it was (a gzip header has bytes that say nothing)."""
    good, random, noticed = packs.lines_in(pack), chance("pack bytes"), 0
    for path in sorted((pack / "schedules").iterdir()):
        content = path.read_bytes()
        for at in range(len(content)):
            for _ in range(rounds(1)):
                mask = random.randrange(1, 256)
                path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
                code, said = packs.verdict(pack, capsys)
                count("bits flipped", mask.bit_count())
                if code:
                    noticed += 1
                    assert re.match(r"bad event \d+ in 2026-\d\d\.ndjson\.gz: ", said), said
                else:
                    assert packs.lines_in(pack) == good, (path.name, at, mask)
        path.write_bytes(content)
    assert noticed > 0
    assert packs.verdict(pack, capsys)[0] == 0


@pytest.mark.parametrize("single", [False, True], ids=["a member a line", "a member for all"])
def test_every_altered_line(pack: Path, capsys: pytest.CaptureFixture[str], single: bool) -> None:
    """P3: a line that is dropped, doubled, swapped with the next, or altered is found, in members
    of one line or of many, and named where the chain breaks."""
    for month, lines in packs.lines_in(pack).items():
        first = json.loads(lines[0])["seq"]
        for at in range(len(lines)):
            rest = lines[:at], lines[at + 1 :]
            swapped = lines[:at] + lines[at + 1 : at + 2] + lines[at : at + 1] + lines[at + 2 :]
            altered = lines[at].replace(b'"who":"', b'"who":"x')
            spaced = lines[at].replace(b'"v":1,', b'"v": 1,')
            for changed in (
                rest[0] + rest[1],
                [*rest[0], lines[at], lines[at], *rest[1]],
                swapped,
                [*rest[0], altered, *rest[1]],
                [*rest[0], spaced, *rest[1]],
                [*rest[0], b"", lines[at], *rest[1]],
                [*rest[0], lines[at].replace(b'"v":1,', b""), *rest[1]],
            ):
                if changed == lines:
                    continue  # the last one has no next
                packs.put(pack, month, changed, single=single)
                said = packs.refused(pack, capsys)
                count("lines altered")
                found = re.match(r"bad event (\d+) in |bad heads.json: ", said)
                assert found, said
                assert found[1] is None or int(found[1]) >= first + at, said
        packs.put(pack, month, lines, single=single)
    assert packs.verdict(pack, capsys)[0] == 0


def test_every_month_is_needed(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P3: a month that is missing, from the pack or from heads.json as well, or is added, or has
    another's name, is found."""
    heads = json.loads((pack / "heads.json").read_bytes())
    for at, month in enumerate(MONTHS):
        path = pack / "schedules" / f"{month}.ndjson.gz"
        path.rename(pack / "kept")
        said = packs.refused(pack, capsys)
        assert "the file is missing" in said
        assert month in said
        others = [entry for entry in heads["months"] if entry["month"] != month]
        (pack / "heads.json").write_text(json.dumps({**heads, "months": others}))
        packs.refused(pack, capsys)
        (pack / "kept").rename(pack / "schedules" / "2026-11.ndjson.gz")
        packs.refused(pack, capsys)
        renamed = [*heads["months"]]
        renamed[at] = {**renamed[at], "month": "2026-11"}
        (pack / "heads.json").write_text(json.dumps({**heads, "months": renamed}))
        packs.refused(pack, capsys)
        (pack / "schedules" / "2026-11.ndjson.gz").rename(path)
        (pack / "heads.json").write_text(json.dumps(heads))
        assert packs.verdict(pack, capsys)[0] == 0


def test_a_cut_that_is_told_by_a_head(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P3: a pack that was made again without its last events is sound by itself; a head that was
    kept says what is missing. So does one of a chain that was forged from the middle on."""
    lines = packs.lines_in(pack)
    heads = [
        f"{number}:{hashlib.sha256(line).hexdigest()}"
        for number, line in enumerate((x for each in lines.values() for x in each), 1)
    ]
    lines["2026-12"].pop()
    packs.put(pack, "2026-12", lines["2026-12"])
    assert packs.refused(pack, capsys).startswith("bad heads.json:")
    (pack / "heads.json").write_bytes(packs.heads_of(lines))
    assert packs.verdict(pack, capsys, "--head", heads[-2])[0] == 0
    assert "isn't in this pack" in packs.refused(pack, capsys, "--head", heads[-1])
    lines["2026-10"][0] = lines["2026-10"][0].replace(b"prompt 3", b"prompt 9")
    forged = rechain(lines)
    for month, each in forged.items():
        packs.put(pack, month, each)
    (pack / "heads.json").write_bytes(packs.heads_of(forged))
    assert packs.verdict(pack, capsys)[0] == 0
    assert packs.verdict(pack, capsys, "--head", heads[2])[0] == 0
    for head in heads[3:5]:
        assert "--head" in packs.refused(pack, capsys, "--head", head)


def test_every_change_of_heads_json(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """P3: whatever in heads.json is another way, the verifier says so; but for what only tells who
    asked for what, and for a signature, which it can't check."""
    key = call("keygen", "--out", str(tmp_path / "key")).success()["key"]
    _, pack = packs.packed(tmp_path, "--since", "2026-10-01T00:00", "--key", key)
    path = pack / "heads.json"
    heads = json.loads(path.read_bytes())
    told = {name: heads.pop(name) for name in ("chain", "software", "since", "until")}
    note = heads.pop("note")
    for changed in packs.changes_of(heads):
        if changed == heads:
            continue
        path.write_text(json.dumps({**told, **changed, "note": note}))
        packs.refused(pack, capsys)
        count("heads altered")
    for other in ("", 0, note.replace(":", ";"), note.replace(" 7:", " 6:"), note.split(" ")[0]):
        path.write_text(json.dumps({**heads, "note": other}))
        packs.refused(pack, capsys)
    path.write_text(json.dumps({**heads, "note": note}))
    assert packs.verdict(pack, capsys)[0] == 0


def test_what_is_no_heads_json(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P7: heads.json that is missing, cut anywhere, nested without end, binary or large gives one
    plain line."""
    path = pack / "heads.json"
    good = path.read_bytes()
    wrong = [good[:at] for at in range(0, len(good) - 2, 7)]
    wrong += [b"[" * 100_000, b'{"format":' + b"9" * 100_000 + b"}", b"\xff", b"NaN", b"x" * 2**21]
    wrong += [b'{"format":1e999}', b"\0", b"[]", b"null"]
    for content in wrong:
        path.write_bytes(content)
        assert packs.refused(pack, capsys).startswith("bad heads.json: ")
    path.unlink()
    packs.refused(pack, capsys)
    packs.refused(pack / "nowhere", capsys)
    path.write_bytes(good)
    shutil.rmtree(pack / "schedules")
    assert "schedules" in packs.verdict(pack, capsys)[1]
    assert packs.check(pack, "--head", "nonsense").code == 2
    assert packs.check(pack, "--what").code == 2


def test_what_is_no_event(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P7: lines that are JSON of another kind, nested without end, or numbers without end are
    named in one plain line, whatever is in them."""
    lines = packs.lines_in(pack)["2026-09"]
    event = json.loads(lines[0])
    wrong = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"9" * 100_000, b"\x1b[2J"]
    wrong += [lines[0].decode().encode("utf-16")]
    kinds: list[Any] = [None, 1, 1.5, True, "x", "\x1b]0;x\x07", [], {}, -1, 10**17, "\u2028"]
    wrong += [
        json.dumps({**event, key: kind}).encode() for key in event for kind in kinds
        if kind != event[key] or type(kind) is not type(event[key])
    ]  # fmt: skip
    wrong += [lines[0].replace(b'"seq":1', b'"seq":' + digits) for digits in (b"9" * 99, b"NaN")]
    for line in wrong:
        packs.put(pack, "2026-09", [line, *lines[1:]])
        assert not {"\x1b", "\x07"} & set(packs.refused(pack, capsys))
        count("lines altered")


@pytest.mark.parametrize("kind", ["member", "many members", "line", "nothing"])
def test_a_bomb_is_refused(pack: Path, kind: str) -> None:
    """P7: a few bytes that unpack to gigabytes are refused with little memory."""
    path = pack / "schedules" / "2026-10.ndjson.gz"
    zeros = b"\0" * (1 << 20)
    good = path.read_bytes()
    with gzip.open(path, "wb", compresslevel=9) as file:
        if kind == "member":
            for _ in range(1000):
                file.write(zeros)
        elif kind == "line":
            file.write(b'{"v":1,"seq":"' + b"x" * (60 << 20) + b'"}\n')
        elif kind == "many members":
            file.write(b"\n")
    if kind == "many members":
        path.write_bytes(path.read_bytes() * 10_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))

    answer = packs.check(pack, prepare=limit)
    assert answer.code == 1
    assert answer.out.startswith(b"bad event 4 in 2026-10.ndjson.gz: ")
    path.write_bytes(good)
    assert packs.check(pack, prepare=limit).code == 0


def sealed_chain(pack: Path, **changes: Any) -> None:
    """Seal the first month and record that in the last, perhaps wrongly."""
    lines = packs.lines_in(pack)
    content = b"".join(line + b"\n" for line in lines["2026-09"])
    digest = hashlib.sha256(content).hexdigest()
    data = {"month": "2026-09", "events": len(lines["2026-09"]), "content_sha256": digest}
    event = json.loads(lines["2026-12"][-1])
    event.update(type="segment.sealed", id=None, data={**data, **changes})
    lines["2026-12"].append(json.dumps(event).encode())
    chained = rechain(lines)
    chained["2026-09"] = lines["2026-09"]  # which it is already: it comes first
    for month, each in chained.items():
        packs.put(pack, month, each, single=month == "2026-09")
    (pack / "heads.json").write_bytes(packs.heads_of(chained))


def test_a_seal_must_tell_the_truth(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P3: what `segment.sealed` says of a month in the pack is compared with that month; of one
    that isn't in it, it can't be."""
    kept = {path: path.read_bytes() for path in pack.rglob("*") if path.is_file()}
    wrong: tuple[dict[str, Any], ...] = (
        {"events": 4}, {"events": "3"}, {"content_sha256": "0" * 64}, {"content_sha256": None},
        {"month": "2026-10"}, {"month": "2026-12"}, {"month": "2027-01"}, {"month": None},
    )  # fmt: skip
    for changes in ({}, {"month": "2026-08"}, *wrong):
        sealed_chain(pack, **changes)
        code, said = packs.verdict(pack, capsys)
        assert said.startswith("bad event 8 " if changes in wrong else "ok"), changes
        assert code == (changes in wrong)
        for path, content in kept.items():
            path.write_bytes(content)


def test_any_damage_gives_one_plain_line(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P7: however files of a pack are cut, overwritten, put together or filled with noise, the
    verifier gives one plain line; and where it says ok, every line is as it was."""
    random, good = chance("packs"), packs.lines_in(pack)
    kept = {path: path.read_bytes() for path in pack.rglob("*") if path.suffix in (".gz", ".json")}
    for _ in range(rounds(300)):
        path = random.choice(sorted(kept))
        content = kept[path]
        start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
        piece = random.choice([
            b"", random.randbytes(random.randrange(50)), content[start:end] * 2,
            random.choice(list(kept.values())), gzip.compress(random.randbytes(20)),
        ])  # fmt: skip
        path.write_bytes(content[:start] + piece + content[end:])
        code, said = packs.verdict(pack, capsys)
        count("packs damaged")
        assert (said.count("\n"), said.isascii()) == (1, True)
        if code == 0:
            assert packs.lines_in(pack) == good
        path.write_bytes(content)
    assert packs.verdict(pack, capsys)[0] == 0
