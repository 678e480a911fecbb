"""What a call leaves behind: open files, threads and processes.

Of this process, a test takes away what was there before the call. What the tests before it have
left may end at any time.
"""

import os
from pathlib import Path


def open_files() -> set[tuple[str, str]]:
    """The numbers of the files that this process has open, and what they lead to."""
    files = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            files.add((number, os.readlink(f"/proc/self/fd/{number}")))
        except OSError:  # the one by which the folder was listed
            continue
    return files


def tasks() -> set[str]:
    """The ids of this process's threads, also of those that ``threading`` doesn't know."""
    return set(os.listdir("/proc/self/task"))


def is_running(process: int) -> bool:
    """Whether a process runs, by its id; a zombie doesn't."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
