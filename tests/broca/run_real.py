"""Run what is about Broca against a real checkout too: ``run_real.py DIR [PYTHON] [pytest's …]``.

``PYTHON`` is one that has the packages of that Broca, and promptyoself: by default this one. The
checkout is copied, so nothing in it is changed. Its agent is a stand-in, and no Letta is needed.
"""

import sys
from pathlib import Path

import pytest


def main(words: list[str]) -> int:
    """Run the suite; the exit code is pytest's."""
    if not words or not (Path(words[0]) / "runtime" / "core" / "queue.py").is_file():
        print(__doc__, file=sys.stderr)
        return 2
    options = [f"--broca={Path(words[0]).absolute()}"]
    if len(words) > 1 and not words[1].startswith("-"):
        options.append(f"--broca-python={words.pop(1)}")
    return int(pytest.main([str(Path(__file__).parent), *options, *words[1:]]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
