"""The wheel: built and installed by the very commands of the Dockerfile, it works by itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from promptyoself import __version__
from promptyoself.core.errors import EXTRAS
from promptyoself.doors.registry import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
OPERATING = ROOT / "docs" / "howto" / "operating.md"
AGENT = "agent-7"
DATA = ("promptyoself.service", ".env.example", "alerts.yml", "promptyoself.1", "SKILL.md")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in ``dist`` and an environment in ``venv`` that has it alone.

    Made once, also where several processes share the work.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "package"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            for command in build_steps(folder):
                done = subprocess.run(
                    ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            (folder / "done").touch()
    return folder


def build_steps(folder: Path) -> Iterator[str]:
    """What the Dockerfile's first stage runs, in a folder of ours and with this Python."""
    stage = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())[1]
    for command in re.findall(r"^RUN (.*)$", stage, re.MULTILINE):
        local = re.sub(r"^python ", f"{sys.executable} ", command)
        local = local.replace("--no-cache-dir ", "")
        yield local.replace("/dist", f"{folder}/dist").replace("/opt/venv", f"{folder}/venv")


def run(built: Path, *command: str, var: Path) -> str:
    """Run a program of the new environment, as someone who has nothing else; its output."""
    done = subprocess.run(
        [str(built / "venv" / "bin" / command[0]), *command[1:]],
        cwd=var.parent,
        env={"HOME": str(var.parent), "PATH": "/usr/bin:/bin", "PROMPTYOSELF_VAR": str(var)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    """It has every module, the unit for systemd and other files that people need, the marker for
    type checkers and the license, and no tests or docs."""
    (wheel,) = (built / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "promptyoself"
    parts = [*package.rglob("*.py"), *package.rglob("*.md"), *(package / "data").iterdir()]
    assert {str(path.relative_to(ROOT)) for path in parts} <= names
    assert "promptyoself/py.typed" in names
    assert {f"promptyoself/data/{name}" for name in DATA} <= names
    info = f"promptyoself-{__version__}.dist-info/"
    assert {f"{info}METADATA", f"{info}licenses/LICENSE"} <= names
    page = f"promptyoself-{__version__}.data/data/share/man/man1/promptyoself.1"
    assert all(name.startswith(("promptyoself/", info)) for name in names - {page})


def test_the_source_has_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    """The sdist has the package with its files, and what the docs and the tests refer to."""
    backend = tmp_path / "backend"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(backend)]
    subprocess.run([*install, "hatchling>=1.27"], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(backend)}
    subprocess.run(build, cwd=ROOT, env=environ, check=True, capture_output=True)
    with tarfile.open(tmp_path / f"promptyoself-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {*(f"promptyoself/data/{name}" for name in DATA), ".env.example", "docs/alerts.yml"}
    assert wanted | {"promptyoself/cli.py", "README.md", "LICENSE", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith(("var/", ".venv", ".git/"))}


def test_the_files_are_found_once_installed(built: Path, tmp_path: Path) -> None:
    """`doctor` says where they are, and so does the line that the docs show; they are the ones of
    the source."""
    var = tmp_path / "var"
    checks = json.loads(run(built, "promptyoself", "doctor", "--skip-letta", var=var))["checks"]
    (check,) = (check for check in checks if check["name"] == "files")
    shown = re.search(r"python -c '([^']+)'\)(/data/promptyoself.service)", OPERATING.read_text())
    assert shown is not None
    unit = Path(run(built, "python", "-c", shown[1], var=var).strip() + shown[2])
    assert str(unit.parent) in check["detail"]
    assert built / "venv" in unit.parents
    for name in DATA:
        assert (unit.parent / name).read_bytes() == (ROOT / "promptyoself/data" / name).read_bytes()
    assert (unit.parent / "alerts.yml").read_bytes() == (ROOT / "docs/alerts.yml").read_bytes()
    assert (unit.parent / ".env.example").read_bytes() == (ROOT / ".env.example").read_bytes()


def test_the_manual_page_is_installed(built: Path) -> None:
    """Where `man promptyoself` looks, which knows the folders beside those of PATH."""
    page = built / "venv" / "share" / "man" / "man1" / "promptyoself.1"
    assert page.read_bytes() == (ROOT / "promptyoself/data/promptyoself.1").read_bytes()


@pytest.mark.parametrize(
    "checker", [["man", "--warnings", "-l"], ["mandoc", "-T", "lint", "-W", "warning"]]
)
def test_the_manual_page_is_well_formed(checker: list[str]) -> None:
    """Whichever program shows it has nothing to complain of; and it names every command."""
    page = ROOT / "promptyoself/data/promptyoself.1"
    text = page.read_text().replace("\\-", "-")
    assert all(f"\n.SS promptyoself {name}" in text for name in COMMANDS)
    if shutil.which(checker[0]) is None:
        pytest.skip(f"{checker[0]} is not installed")
    environ = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*checker, str(page)], env=environ, capture_output=True, text=True, check=False
    )
    said = done.stderr if checker[0] == "man" else done.stdout
    assert [line for line in said.splitlines() if "missing date" not in line] == []


def test_the_wheel_works_alone(built: Path, tmp_path: Path) -> None:
    """Installed without anything else, it tells its version, registers, lists and verifies."""
    var = tmp_path / "var"
    assert __version__ in run(built, "promptyoself", "--version", var=var)
    register = ["register", "--agent-id", AGENT, "--prompt", "Hello", "--cron", "0 9 * * MON"]
    registered = json.loads(run(built, "promptyoself", *register, var=var))
    listed = json.loads(run(built, "python", "-m", "promptyoself", "list", var=var))
    assert [schedule["id"] for schedule in listed["schedules"]] == [registered["id"]]
    assert json.loads(run(built, "promptyoself", "verify", var=var))["valid"] is True
    assert run(built, "promptyoself", "list", "--format", "table", var=var)
    run(built, "promptyoself", "pack", "--out", str(tmp_path / "pack.zip"), var=var)
    run(built, "python", "-m", "zipfile", "-e", "pack.zip", "pack", var=var)
    assert run(built, "python", "pack/verify.py", var=var).startswith("ok 2 2:")


def test_the_image_would_pass_its_health_check(built: Path, tmp_path: Path) -> None:
    """What the image runs without a loop is unhealthy; beside a loop it is well."""
    program = str(built / "venv" / "bin" / "promptyoself")
    environ = {"PATH": "/usr/bin:/bin", "PROMPTYOSELF_VAR": str(tmp_path / "var")}
    environ["LETTA_BASE_URL"] = "http://127.0.0.1:9"  # where nobody listens
    check = [program, "doctor", "--skip-letta", "--require-loop"]
    before = subprocess.run(check, env=environ, capture_output=True, check=False)
    assert json.loads(before.stdout)["code"] == "unhealthy"
    with subprocess.Popen([program, "execute", "--loop"], env=environ) as loop:
        try:
            for _ in range(100):
                healthy = subprocess.run(check, env=environ, capture_output=True, check=False)
                if healthy.returncode == 0:
                    break
            assert healthy.returncode == 0, healthy.stdout
        finally:
            loop.terminate()
        assert loop.wait(timeout=60) == 0


def test_what_is_missing_can_be_installed() -> None:
    """What a hint says to install is the package of the extra, within the same bounds; nothing says
    to install promptyoself itself from an index, where that name may be nobody's or another's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {name: [wanted] for name, wanted in EXTRAS.items()} == project["optional-dependencies"]
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for path in [*pages, *(ROOT / "promptyoself").rglob("*.py")]:
        assert "promptyoself[" not in path.read_text(), path
