"""Make the environment of the real Letta server, once, and say where it is.

It lies where ``$TEST_LETTA_ENV`` says, else where ``support/environments.py`` puts it.

    python3 build.py [--python python3.12]    prints the path of its Python
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "support"))

import environments  # noqa: E402

REQUIREMENTS = HERE / "requirements.txt"
VERSIONS = ("3.11", "3.12")  # those that there are wheels of everything for


def place() -> Path:
    """Where the environment is, or is going to be."""
    if chosen := os.environ.get("TEST_LETTA_ENV"):
        return Path(chosen).absolute()
    return environments.place("letta", REQUIREMENTS.read_text())


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


def main() -> None:
    """Make it, and print the path of its Python."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python to make it from")
    python = parser.parse_args().python
    title = "Letta, which takes some minutes,"
    environments.build(place(), REQUIREMENTS.read_text(), lambda: fitting(python), title)
    print(place() / "bin" / "python")


if __name__ == "__main__":
    main()
