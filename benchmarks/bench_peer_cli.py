"""``list`` against ``letta cron list`` of Letta Code (at least 12 times as fast).

Ours has 100 schedules to show, theirs none, which is the least it can take.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pairs import PAIRS, Figure, fill, measure, promptyoself
from peers import PEERS, has, missing

NAME, PEER = "`list`, 100 schedules", "`letta cron list` (Letta Code), no schedules"
BAR = 1 / 12


def run(pairs: int = PAIRS) -> Iterator[Figure]:
    """Whole processes; theirs takes a second or so, so there are fewer pairs."""
    if not has("letta"):
        yield missing(NAME, PEER, BAR)
        return
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        environ = {**fill(Path(scratch) / "var"), "HOME": str(home)}
        # `measure` wants to see a success in what is printed; theirs is an empty list.
        theirs = f'{PEERS / "letta"} cron list | grep -qx "\\[\\]" && echo \'"status":"success"\''
        yield measure(
            NAME,
            PEER,
            lambda _: [*promptyoself(), "list"],
            lambda _: ["sh", "-c", theirs],
            environ,
            min(pairs, 10),
            BAR,
        )


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
