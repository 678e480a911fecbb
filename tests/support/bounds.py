"""Try the lowest and the highest version of each package that pyproject.toml allows.

Two environments are made in .venv/bounds, one of each kind, with every extra; a choice of the suite
that uses every package runs in both. What those packages need themselves is the newest there is.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = (
    "tests/doors/test_bounds.py",
    "tests/rules/test_cron.py",
    "tests/delivery/test_letta_deliveries.py::test_conversations",
    "tests/delivery/test_letta_deliveries.py::test_an_agent_is_deleted",
    "tests/service/test_notes.py",
    "tests/doors/test_mcp_server.py::test_over_stdio",
    "tests/doors/test_mcp_server.py::test_over_http",
    "tests/doors/test_mcp_server.py::test_who_is_let_in",
)
RUNNERS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")


def requirements() -> list[Requirement]:
    """What the package and its extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    return [Requirement(requirement) for requirement in asked]


def lowest(requirement: Requirement) -> str:
    """The lowest version allowed, as a constraint. Every requirement must name one."""
    for specifier in requirement.specifier:
        if specifier.operator == ">=":
            return f"{requirement.name}=={specifier.version}"
    raise SystemExit(f"pyproject.toml names no lowest version of {requirement.name}.")


def attempt(kind: str, constraints: list[str]) -> bool:
    """Whether the chosen tests pass with packages under these constraints."""
    print(f"\n== {kind}", flush=True)
    folder = ROOT / ".venv" / "bounds" / kind
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    file = folder / "constraints.txt"
    file.write_text("".join(f"{constraint}\n" for constraint in constraints))
    extras = ",".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
                      ["optional-dependencies"])  # fmt: skip
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(file)]
    subprocess.run([*install, "--editable", f"{ROOT}[{extras}]", *RUNNERS], check=True)
    names = [requirement.name for requirement in requirements()]
    shown = subprocess.run(
        [python, "-m", "pip", "list", "--format", "freeze"], check=True, capture_output=True
    )
    for line in shown.stdout.decode().splitlines():
        if line.partition("==")[0] in names:
            print(line)
    command = [python, "-m", "pytest", "--numprocesses", "2", *CHOSEN]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main() -> int:
    """Both kinds; 1 where one fails."""
    kinds = {"lowest": [lowest(requirement) for requirement in requirements()], "newest": []}
    failed = [kind for kind, constraints in kinds.items() if not attempt(kind, constraints)]
    if failed:
        print(f"\nNot with the {' and the '.join(failed)} versions that pyproject.toml allows.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
