"""Write what is committed here: data directories and documents of one version.

The data, the answers and the index were written once, by the software of commit 6f28843 (version
0.1.0, on Python 3.11). They are never to be written again: they stand for the logs that people
have, and for the answers that programs read. How the commands describe themselves may be changed
deliberately; after that,

    .venv/bin/python tests/house/former_version/write.py doors

rewrites `documents/help` and `documents/doors`, and nothing else.

    .venv/bin/python tests/house/former_version/write.py all FOLDER

tells the stories again and writes everything into a new folder, to compare it with what is here.
"""

import gzip
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import orjson

_TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(_TESTS / "support"), str(_TESTS / "house")]

from former_version import asking  # noqa: E402
from former_version.doors import doors, help_texts  # noqa: E402
from former_version.history import Teller, tell_damage, tell_parts, tell_story  # noqa: E402
from former_version.machine import HERE, machine  # noqa: E402

from promptyoself.sandbox import Sandbox  # noqa: E402

STORIES: Mapping[str, Callable[[Teller], None]] = {
    "main": tell_story,
    "parts": tell_parts,
    "damaged": partial(tell_damage, recovered=False),
    "recovered": partial(tell_damage, recovered=True),
}
_OF_PROCESSES = ("lock", "lock.*", "sealing", "sealing.*", "workers")
"""What has no meaning once the process is gone that made it."""


def write_data(target: Path) -> None:
    """Tell the stories; their data directories, and what a test must know of each."""
    for name, tell in STORIES.items():
        with tempfile.TemporaryDirectory() as folder:
            _write_story(name, tell, Path(folder) / "var", target)


def _write_story(name: str, tell: Callable[[Teller], None], var: Path, target: Path) -> None:
    with machine(var) as here, Sandbox(asking.AGENTS, clock=lambda: here.now) as sandbox:
        here.letta = asking.port_of(sandbox)
        teller = Teller(here, sandbox)
        tell(teller)
        ids = {**teller.ids, **dict(zip(asking.AGENTS, sandbox.agents, strict=True))}
        passed = var / "last-pass"
        known = {
            "now": here.now.replace(tzinfo=None).isoformat(),
            "last_pass": passed.stat().st_mtime if passed.exists() else None,
            "ids": ids,
        }
        if name == "main":
            here.ask("pack", "--since", "2026-12-01", "--out", str(target / "pack.zip")).success()
            (target / "export.json").write_bytes(here.ask("export").out)
            key = str(var / "keys" / "head.key")
            (target / "note").write_bytes(here.ask("head", "--note", "--key", key).out)
    (target / f"{name}.json").write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2) + b"\n")
    shutil.copytree(var, target / name, ignore=shutil.ignore_patterns(*_OF_PROCESSES))


def write_documents(target: Path, data: Path) -> None:
    """Ask everything of that data; the answers."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in STORIES:
            (place / name).mkdir()
            _write(target, asking.answers(name, place / name, data))
            if name != "damaged":
                _write(target, asking.rebuilt(name, place / f"{name}-rebuilt", data))
            _write(target, asking.continued(name, place / f"{name}-continued", data))
        _write(target, asking.refusals(place / "refusals", data))
        _write(target, asking.delivered(place / "delivered", data))
        _write(target, asking.imported(place / "imported", data))
        _write(target, asking.retold(place / "retold"))


def write_doors(target: Path, data: Path) -> None:
    """What the commands say of themselves, in the place of what is there."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asking.opened("main", Path(folder) / "a", data) as (here, _),
    ):
        told = {"help": help_texts(here), "doors": doors(here)}
    for kind, texts in told.items():
        shutil.rmtree(target / kind, ignore_errors=True)
        _write(target, {f"{kind}/{name}": text for name, text in texts.items()})


def _write(target: Path, documents: Mapping[str, str]) -> None:
    for name, text in documents.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        content = text.encode()
        if name.endswith(".gz"):  # of what nobody reads as it is
            content = gzip.compress(content, mtime=0)
        (target / name).write_bytes(content)


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["doors"]:
            write_doors(HERE / "documents", HERE / "data")
        case ["all", folder]:
            target = Path(folder).absolute()
            (target / "data").mkdir(parents=True)
            write_data(target / "data")
            write_documents(target / "documents", target / "data")
            write_doors(target / "documents", target / "data")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
