"""Kills process groups when the process that holds our stdin has ended, by whatever death.

Each line of stdin names a group: ``+4711`` is to be killed at the end, ``-4711`` no more.
"""

import contextlib
import os
import signal
import sys

groups: set[int] = set()
for line in sys.stdin:
    (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
for group in groups:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
