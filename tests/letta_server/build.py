"""Make the environment of the real Letta server, once, and say where it is.

It lies outside the tree, in a folder named after the hash of ``requirements.txt``:
``$TEST_LETTA_ENV``, else ``${XDG_CACHE_HOME:-~/.cache}/promptyoself/letta-<hash>``.
A second one that comes meanwhile waits for the first. What a killed build left is made again.

    python3 build.py [--python python3.12]    prints the path of its Python
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
VERSIONS = ("3.11", "3.12")  # those that there are wheels of everything for


def place() -> Path:
    """Where the environment is, or is going to be."""
    if chosen := os.environ.get("TEST_LETTA_ENV"):
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return Path(cache) / "promptyoself" / f"letta-{digest[:12]}"


def fitting(python: str) -> str:
    """A Python that the packages are made for: the given one, or another that is installed."""
    for candidate in (python, *(f"python{version}" for version in VERSIONS)):
        if program := shutil.which(candidate):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            asked = subprocess.run(
                [program, "-c", code], capture_output=True, text=True, check=True
            )
            if asked.stdout.strip() in VERSIONS:
                return program
    raise SystemExit(
        f"Letta's packages need Python {' or '.join(VERSIONS)}, which {python} isn't, and there "
        "is no other. Name one: make test-letta LETTA_PYTHON=/path/to/python3.11"
    )


def build(folder: Path, python: str) -> None:
    """Make it, unless it is there and whole."""
    ready = folder / ".ready"  # written last
    wanted = REQUIREMENTS.read_text()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.is_file() and ready.read_text() == wanted:
            return
        print(f"Installing Letta into {folder}; this takes some minutes ...", file=sys.stderr)
        began = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)

        def run(*command: str | Path) -> None:
            # pip holds the lock too: if we are killed, it may go on writing for a while.
            subprocess.run(command, check=True, stdout=sys.stderr, pass_fds=[lock.fileno()])

        run(fitting(python), "-m", "venv", folder)
        # The list is complete, and only some of it is ever imported: neither resolved nor compiled.
        options = ("-qq", "--disable-pip-version-check", "--no-deps", "--no-compile")
        run(folder / "bin" / "python", "-m", "pip", "install", *options, "-r", REQUIREMENTS)
        ready.write_text(wanted)
        print(f"That took {time.monotonic() - began:.0f} s.", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python to make it from")
    build(place(), parser.parse_args().python)
    print(place() / "bin" / "python")
