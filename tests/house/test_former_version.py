"""P1, P3, P8: what a former version wrote is read, continued and proved by this one, and what
programs read is byte for byte the same.

`former_version/data` has the data directories, `former_version/documents` what that version
answered about them; `former_version/write.py` wrote both. A difference in an answer, an index or a
line is a break of the formats: mend the software, never the files. Only the texts with which the
commands describe themselves may be written again, where they were changed on purpose.
Two mistakes of that version are known, in three answers and in one line of the story; the files
have them as they were.
The counters of calls and of rebuilt indexes were taken out of the files, since they are no more.
"""

import gzip
import io
import re
import subprocess
import sys
from difflib import unified_diff
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import orjson
import pytest
from former_version import asking
from former_version.doors import doors, help_texts
from former_version.machine import DATA, DOCUMENTS

from promptyoself.events.versions import VERSIONS

NAMES = ("main", "recovered", "damaged", "parts")
SKIPS = {
    "misfire", "overlap", "grace", "paused", "parked", "modified", "cancelled", "budget",
    "agent_cap", "clock", "no_desires", "approval",
}  # fmt: skip
"""The reasons that docs/reference/scheduling.md has."""

AGAIN = "If that was meant: .venv/bin/python tests/house/former_version/write.py doors"

WRONG_ACTOR = '"seq":13,"by":{"via":"cli","who":"mary","kind":"login","host":"clock-1"}'
RIGHT_ACTOR = WRONG_ACTOR.replace("}", ',"for_agent":"agent-1"}')
ANSWERS_WITH_WRONG_ACTOR = ("recovered/audit.txt", "continued/recovered.txt",
                            "continued/damaged.txt")  # fmt: skip
"""Behind a loss `audit` of that version named the actor of another event."""

LINES_WITHOUT_AGENT = "retold/schedules.ndjson.gz"
"""That version named no agent where it gave up a slot that a clock that was ahead had begun."""


LATER_TYPES = {"delivery.replied", "delivery.unanswered", "notice.failed", "notice.sent"}

OF_A_VERSION = re.compile(
    # Settings that came later; `doctor` names each.
    r',\{"name":"PROMPTYOSELF_(?:FORMAT|KEEP_REPLY|LETTA_C\w+)",[^}]*\}'
    r'|"sha256":"[0-9a-f]{64}","format":2,"schema":"[0-9a-f]{16}"'  # which events an index knows
    r"|(?<='--nonsense'\. ).*?(?=\")"  # which options there are that are like a mistyped one
    rf"|(?<=, )(?:{'|'.join(map(re.escape, sorted(LATER_TYPES)))}), "
)
"""What says which version wrote a text, and nothing else."""


def compare(texts: dict[str, str], *folders: str, hint: str = "") -> None:
    """Each text is as the committed file of that name has it, and in the folders is no other."""
    differing = []
    for name, text in texts.items():
        content = (DOCUMENTS / name).read_bytes()
        expected = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        if name in ANSWERS_WITH_WRONG_ACTOR:
            assert expected.count(WRONG_ACTOR) == 1
            expected = expected.replace(WRONG_ACTOR, RIGHT_ACTOR)
        if name == LINES_WITHOUT_AGENT:
            expected = with_agent(expected)
        expected, now = OF_A_VERSION.sub("", expected), OF_A_VERSION.sub("", text)
        if now != expected:
            lines = unified_diff(expected.split("\n"), now.split("\n"), name, "now", n=0)
            differing.extend(_shortened(list(lines)))
    assert not differing, "\n".join([*differing, hint])
    for folder in folders:
        files = {path.name for path in (DOCUMENTS / folder).iterdir() if path.is_file()}
        assert files == {name.rpartition("/")[2] for name in texts if name.startswith(folder)}


def with_agent(text: str) -> str:
    """The lines with the agent where that version named none, each with the hash of the one before
    it."""
    lines: list[bytes] = []
    agents: dict[str, str] = {}  # by the schedule's id
    for line in text.splitlines():
        event = orjson.loads(line)
        if event["data"].get("why") == "clock":
            assert "for_agent" not in event["actor"]
            event["actor"]["for_agent"] = agents[event["id"]]
        elif event["id"] is not None and "for_agent" in event["actor"]:
            agents[event["id"]] = event["actor"]["for_agent"]
        if lines:
            event["prev"] = sha256(lines[-1]).hexdigest()
        lines.append(orjson.dumps(event))
    return "".join(f"{line.decode()}\n" for line in lines)


def _shortened(lines: list[str]) -> list[str]:
    """A difference of long lines, each with the place where it differs."""
    shown = lines[:40]
    for at in range(len(shown) - 1):
        old, new = shown[at : at + 2]
        if old[:1] == "-" and new[:1] == "+" and len(old) > 300:
            same = next((i for i in range(1, min(len(old), len(new))) if old[i] != new[i]), 1)
            begin = max(same - 100, 1)
            shown[at : at + 2] = [f"-…{old[begin : same + 100]}…", f"+…{new[begin : same + 100]}…"]
    return [line[:400] for line in shown]


def test_everything_is_in_the_data() -> None:
    """Each type of event, each reason for a skip, each kind of trigger and of file: what isn't in
    the data isn't guarded."""
    events = [
        orjson.loads(line)
        for name in NAMES
        if name != "damaged"
        for lines in asking.lines_in(DATA / name).values()
        for line in lines
    ]
    assert {(event["type"], event["v"]) for event in events} >= {
        (type_, 1) for type_ in VERSIONS if type_ not in LATER_TYPES
    }
    skips = [event["data"] for event in events if event["type"] == "delivery.skipped"]
    assert {data["why"] for data in skips} == SKIPS
    registered = [event["data"] for event in events if event["type"] == "schedule.registered"]
    assert {data["schedule_type"] for data in registered} == {"once", "cron", "interval"}
    assert {data["misfire"] for data in registered} == {"coalesce", "skip", "all"}
    fields = {name for event in events for name in event["data"]}
    assert {"parked", "notice", "counts_from", "uncounted", "retry_at", "in_flight"} < fields
    assert any("kind" not in event["actor"] and event["id"] for event in events)  # of before
    claims = [event["data"] for event in events if event["type"] == "delivery.attempted"]
    assert len(claims) > 50
    main = DATA / "main"
    sealed = [event["data"]["month"] for event in events if event["type"] == "segment.sealed"]
    months = {path.name[:7] for path in (main / "schedules").glob("*.gz")}
    assert len(months - set(sealed)) == 2
    assert len(months & set(sealed)) == 2
    stored = re.compile(rb"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01")
    last = max((main / "schedules").glob("*.gz")).read_bytes()
    assert stored.search(last)
    assert len(stored.findall(last)) < last.count(b"\x1f\x8b\x08")
    assert [path.suffix for path in (main / "schedules" / "quarantine").iterdir()] == [".torn"]
    assert {path.suffix for path in (DATA / "recovered").glob("*/quarantine/*")} == {".damaged"}
    assert len(list((DATA / "parts" / "schedules" / "index").glob("*/*.json"))) >= 16
    assert list((main / "approvals" / "pending").iterdir())
    assert list((main / "approvals" / "consumed").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_answers(tmp_path: Path, name: str) -> None:
    """Every command that answers from a log gives the same document, byte for byte."""
    compare(asking.answers(name, tmp_path), name)


def test_the_same_refusals(tmp_path: Path) -> None:
    """Wrong input gets the same error, and changes nothing."""
    compare(asking.refusals(tmp_path / "a"), "errors")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "damaged"])
def test_the_same_index(tmp_path: Path, name: str) -> None:
    """An index that is made from that log has the same bytes, in one file or in parts, but for the
    name of its schema."""
    compare(asking.rebuilt(name, tmp_path / "a"))


@pytest.mark.parametrize("name", NAMES)
def test_the_log_goes_on(tmp_path: Path, name: str) -> None:
    """The same commands at the same instants add the same lines, byte for byte, with the same
    answers; what is registered already is known, and what was there stays."""
    compare(asking.continued(name, tmp_path / "a"))


def test_deliveries_go_on(tmp_path: Path) -> None:
    """What is due is delivered, what a dead process left is looked for, and the lines about that
    are the same."""
    compare(asking.delivered(tmp_path / "a"))


def test_the_same_story(tmp_path: Path) -> None:
    """The whole story, told again with deliveries over HTTP, makes the same lines, byte for byte:
    each reason for a skip, and each kind of event, is written as it was."""
    texts = asking.retold(tmp_path / "a")
    compare(texts, "retold")
    skips = re.findall(
        r'"type":"delivery.skipped".*?"why":"(\w+)"', texts["retold/schedules.ndjson.gz"]
    )
    assert set(skips) == SKIPS


def test_an_export_is_taken_over(tmp_path: Path) -> None:
    """An export of that version is imported: the same ids, the same lines, the same answers."""
    compare(asking.imported(tmp_path / "a"))


def test_a_pack_is_checked(tmp_path: Path) -> None:
    """An audit pack of that version is sound by the script in it, and its month is the log's."""
    with ZipFile(DATA / "pack.zip") as pack:
        pack.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "verify.py"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done
    month = Path("schedules", "2026-12.ndjson.gz")
    assert (tmp_path / month).read_bytes() == (DATA / "main" / month).read_bytes()


@pytest.mark.parametrize("what", ["bit", "end"])
def test_damage_is_noticed(tmp_path: Path, what: str) -> None:
    """A log of that version that isn't whole any more is refused, as one of this version is."""
    with asking.opened("main", tmp_path / "a") as (here, _):
        month = here.var / "schedules" / "2026-10.ndjson.gz"
        content = bytearray(month.read_bytes())
        if what == "bit":
            content[len(content) // 3] ^= 4
        else:
            buffer = gzip.GzipFile(fileobj=io.BytesIO(content)).read()
            content = bytearray(gzip.compress(buffer[: buffer[:-1].rindex(b"\n") + 1]))
        month.write_bytes(content)
        here.ask("verify").error("corrupt_chain")


def test_the_same_help(tmp_path: Path) -> None:
    """Each command's help is the same, in 80 columns."""
    with asking.opened("main", tmp_path / "a") as (here, _):
        texts = {f"help/{name}": text for name, text in help_texts(here).items()}
    compare(texts, "help", hint=AGAIN)


def test_the_same_doors(tmp_path: Path) -> None:
    """Sanctum hosts and MCP clients are told the same of each command, with the same schemas."""
    with asking.opened("main", tmp_path / "a") as (here, _):
        texts = {f"doors/{name}": text for name, text in doors(here).items()}
    compare(texts, "doors", hint=AGAIN)
