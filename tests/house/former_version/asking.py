"""Asking the questions: from data directories to documents, each a file's name and its text."""

import gzip
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import orjson
import pytest
from former_version.doors import PACK_TEXTS
from former_version.history import Teller, tell_story
from former_version.machine import DATA, Machine, copy_of, machine
from former_version.questions import CONTINUED, DELIVERED, IMPORTED, QUESTIONS, WRONG

from promptyoself.sandbox import Sandbox

AGENTS = ("echo", "other", "third", "fourth", "fifth", "sixth")
"""The names of the sandbox's agents; their ids are made of these."""


@contextmanager
def opened(name: str, folder: Path, data: Path = DATA) -> Iterator[tuple[Machine, dict[str, str]]]:
    """A machine with a copy of that data directory, at the time at which it was left; and the ids
    of what is in it."""
    known = orjson.loads((data / f"{name}.json").read_bytes())
    folder.mkdir()
    with machine(copy_of(folder / "var", name, known["last_pass"], data)) as here:
        here.set(known["now"])
        (folder / "note").write_bytes((data / "note").read_bytes())
        yield here, known["ids"]


def _ask(here: Machine, ids: dict[str, str], lines: Sequence[str]) -> str:
    records = []
    for line in lines:
        if line.startswith("@ "):
            here.set(line[2:])
            records.append(f"{line}\n")
            continue
        words = shlex.split(line.format(**ids).replace("FOLDER", str(here.var.parent)))
        records.append(here.record(*words))
    return "\n".join(records)


def answers(name: str, folder: Path, data: Path = DATA) -> dict[str, str]:
    """What the questions of a data directory are answered, each file of them on its own copy."""
    documents = {}
    for file, lines in QUESTIONS[name].items():
        with opened(name, folder / file, data) as (here, ids):
            documents[f"{name}/{file}.txt"] = _ask(here, ids, lines)
            for pack in sorted(here.var.parent.glob("*.zip")):
                documents[f"{name}/{pack.stem}-pack.txt"] = _contents(pack)
    return documents


def _contents(pack: Path) -> str:
    """What is in an audit pack, but for the texts that `doors` has: the script and the page."""
    with ZipFile(pack) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    return "".join(
        f"{name}\n" if name in PACK_TEXTS else f"{name} {sha256(content).hexdigest()}\n"
        for name, content in contents.items()
    )


def refusals(folder: Path, data: Path = DATA) -> dict[str, str]:
    """What wrong input is answered. Nothing may change by it."""
    documents = {}
    with opened("main", folder, data) as (here, ids):
        before = untouched(here.var)
        for file, lines in WRONG.items():
            with pytest.MonkeyPatch.context() as patch:
                if file == "pinned":
                    patch.setenv("PROMPTYOSELF_ONLY_AGENT", ids["echo"])
                documents[f"errors/{file}.txt"] = _ask(here, ids, lines)
        assert untouched(here.var) == before
    return documents


def untouched(var: Path) -> dict[str, bytes]:
    """The bytes of the segments, and of what is private."""
    paths = [*var.glob("*/*.ndjson.gz"), *var.glob("approvals/**/*"), *var.glob("keys/*")]
    return {str(path.relative_to(var)): path.read_bytes() for path in paths if path.is_file()}


def rebuilt(name: str, folder: Path, data: Path = DATA) -> dict[str, str]:
    """An index that was made from the log: its root, byte for byte, and its parts, whose names have
    the hashes of their content."""
    with opened(name, folder, data) as (here, _):
        here.ask("rebuild").success()
        return {
            f"index/{name}/{chain.name}.txt": _index(chain)
            for chain in (here.var / "schedules", here.var / "desires")
            if chain.is_dir()
        }


def _index(chain: Path) -> str:
    parts = [
        f"{path.relative_to(chain)} {sha256(path.read_bytes()).hexdigest()}\n"
        for path in sorted(chain.glob("index/*/*.json"))
    ]
    return f"{(chain / 'index.json').read_bytes().decode()}\n{''.join(parts)}"


def continued(name: str, folder: Path, data: Path = DATA) -> dict[str, str]:
    """What a data directory is answered as it goes on, and which lines that adds; of the damaged
    one, all lines that it has then."""
    with opened(name, folder, data) as (here, ids):
        before = {} if name == "damaged" else lines_in(here.var)
        documents = {f"continued/{name}.txt": _sizeless(_ask(here, ids, CONTINUED[name]))}
        return documents | _added(here, before, f"continued/{name}")


def delivered(folder: Path, data: Path = DATA) -> dict[str, str]:
    """The same of the main one, where what is due is delivered."""
    with (
        opened("main", folder, data) as (here, ids),
        Sandbox(AGENTS, clock=lambda: here.now) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        here.letta = port_of(sandbox)
        patch.setenv("PROMPTYOSELF_RECONCILE_GRACE", "0.3")
        before = lines_in(here.var)
        documents = {"continued/delivered.txt": _in_order(_ask(here, ids, DELIVERED))}
        added = _added(here, before, "continued/delivered")
    return documents | {name: _by_schedule(text) for name, text in added.items()}


def _in_order(text: str) -> str:
    """Answers without what depends on which of several deliveries under way came first: their order
    in what `execute` tells, and the hashes of the log."""
    lines = []
    for line in text.split("\n"):
        if line.startswith("{"):
            document = orjson.loads(line)
            document.get("executed", []).sort(key=lambda told: (told["id"], told["slot"]))
            lines.append(_HASH.sub("…", orjson.dumps(document).decode()))
        else:
            lines.append(line)
    return _sizeless("\n".join(lines))


def _sizeless(text: str) -> str:
    """Answers of `stats` and `seal` without sizes in bytes: how well what was added is compressed
    depends on the library that is installed, and on how many events came into one append."""
    return _SIZE.sub(r'"\1":…', text)


def _by_schedule(text: str) -> str:
    """Lines without their numbers and links, those of each schedule together, in their order: for
    the same reason. That they are linked is what `verify` finds."""
    events = [orjson.loads(line) for line in text.splitlines()]
    for event in events:
        del event["seq"], event["prev"]
    events.sort(key=lambda event: event["id"] or "")
    return "".join(orjson.dumps(event).decode() + "\n" for event in events)


_SIZE = re.compile(r'"(bytes(?:_before|_after|(?=":\d+(?:,"desires"|\}))))":\d+')
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def retold(folder: Path) -> dict[str, str]:
    """The lines of the main story, told again from its beginning, without Letta's troubles."""
    folder.mkdir()
    with machine(folder / "var") as here, Sandbox(AGENTS, clock=lambda: here.now) as sandbox:
        here.letta = port_of(sandbox)
        tell_story(Teller(here, sandbox), troubles=False)
        return {
            f"retold/{chain}.ndjson.gz": b"".join(lines).decode()
            for chain, lines in lines_in(here.var).items()
        }


def imported(folder: Path, data: Path = DATA) -> dict[str, str]:
    """What an empty data directory is answered that takes over an export, and its lines."""
    known = orjson.loads((data / "main.json").read_bytes())
    folder.mkdir()
    (folder / "export.json").write_bytes((data / "export.json").read_bytes())
    with machine(folder / "var") as here:
        here.set(known["now"])
        documents = {"continued/imported.txt": _ask(here, {}, IMPORTED)}
        return documents | _added(here, {}, "continued/imported")


def port_of(sandbox: Sandbox) -> int:
    """Where it listens."""
    return int(sandbox.url.rpartition(":")[2])


def _added(here: Machine, before: dict[str, list[bytes]], file: str) -> dict[str, str]:
    documents = {}
    for chain, lines in lines_in(here.var).items():
        old = before.get(chain, [])
        assert lines[: len(old)] == old, f"{chain}: what was there isn't any more"
        documents[f"{file}-{chain}.ndjson"] = b"".join(lines[len(old) :]).decode()
    return documents


def lines_in(var: Path) -> dict[str, list[bytes]]:
    """The lines of each chain, with their newlines."""
    lines_of_chain: dict[str, list[bytes]] = {}
    for path in sorted(var.glob("*/*.ndjson.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        lines_of_chain.setdefault(path.parent.name, []).extend(lines)
    return lines_of_chain
