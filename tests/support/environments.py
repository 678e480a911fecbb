"""Make the environment of a program that the tests run: once, whole, and outside the tree.

It lies in a folder named after the hash of what is installed in it:
``${XDG_CACHE_HOME:-~/.cache}/promptyoself/<name>-<hash>``. A second process that comes meanwhile
waits for the first. What a killed installation left is made again.

This needs nothing but Python: make runs it before anything is installed.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def place(name: str, requirements: str) -> Path:
    """Where the environment with these requirements is, or is going to be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(requirements.encode()).hexdigest()
    return Path(cache) / "promptyoself" / f"{name}-{digest[:12]}"


def build(folder: Path, requirements: str, choose_python: Callable[[], str], title: str) -> None:
    """Make the environment in this folder, unless it is there and whole.

    ``requirements`` is the text of a complete list. ``choose_python`` is asked for the Python to
    make it from, when it has to be made. ``title`` says to people what is being installed.
    """
    ready = folder / ".ready"  # written last
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.is_file() and ready.read_text() == requirements:
            return
        print(f"Installing {title} into {folder} ...", file=sys.stderr)
        began = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)

        def run(*command: str | Path) -> None:
            # pip holds the lock too: if we are killed, it may go on writing for a while.
            subprocess.run(command, check=True, stdout=sys.stderr, pass_fds=[lock.fileno()])

        run(choose_python(), "-m", "venv", folder)
        wanted = folder / "requirements.txt"
        wanted.write_text(requirements)
        # The list is complete, and only some of it is ever imported: neither resolved nor compiled.
        options = ("-qq", "--disable-pip-version-check", "--no-deps", "--no-compile")
        run(folder / "bin" / "python", "-m", "pip", "install", *options, "-r", wanted)
        ready.write_text(requirements)
        print(f"That took {time.monotonic() - began:.0f} s.", file=sys.stderr)
