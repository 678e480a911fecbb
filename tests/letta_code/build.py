"""Make the environments of the real Letta Code, once, and say where its program is.

Letta Code is the package ``letta`` from version 0.30 on. Up to 0.16 that package is the server,
whose environment ``letta_server/build.py`` makes.

    python3 build.py             prints the path of the pinned version's `letta`
    python3 build.py --newest    and, in a second line, that of the newest release, if that is newer
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "support"))

import environments  # noqa: E402

PINNED = (HERE / "requirements.txt").read_text()
PATIENCE = 60.0  # seconds for the index to answer


def install(requirements: str, python: str) -> Path:
    """Make the environment, unless it is there; returns its folder of programs."""
    folder = environments.place("letta-code", requirements)
    title = f"Letta Code ({requirements.strip()})"
    environments.build(folder, requirements, lambda: python, title)
    return folder / "bin"


def newest(python: Path) -> str | None:
    """The newest release on the index, as requirements, as the pip of this Python says it.

    ``None`` where the index can't be reached.
    """
    command = [python, "-m", "pip", "--disable-pip-version-check", "index", "versions", "letta"]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        ).stdout
    except subprocess.TimeoutExpired:
        return None
    version = re.match(r"letta \((\S+)\)", shown)
    return f"letta=={version[1]}\n" if version else None


def numbers(requirements: str) -> list[int]:
    """The parts of the version in these requirements, by which versions are in order."""
    return [int(number) for number in re.findall(r"\d+", requirements)]


def main() -> None:
    """Make them, and print the paths of their programs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python to make it from")
    parser.add_argument("--newest", action="store_true", help="the newest release too")
    options = parser.parse_args()
    pinned = install(PINNED, options.python)
    print(pinned / "letta")
    if not options.newest:
        return
    release = newest(pinned / "python")
    if release is None:
        sentence = "The package index can't be reached, so the newest release is unknown."
    elif release == PINNED:
        sentence = f"The newest release on the package index is the pinned one, {PINNED.strip()}."
    elif numbers(release) < numbers(PINNED):
        sentence = (
            f"The newest release on the package index, {release.strip()}, is older than the pinned "
            f"one, {PINNED.strip()}."
        )
    else:
        print(install(release, options.python) / "letta")
        return
    print(sentence, "The pinned one alone is tried.", file=sys.stderr)


if __name__ == "__main__":
    main()
