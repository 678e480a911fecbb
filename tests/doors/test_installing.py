"""What the docs say of running it for good: the crontab line and the unit for systemd, tried."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPERATING = (ROOT / "docs" / "howto" / "operating.md").read_text()
UNIT = ROOT / "promptyoself" / "data" / "promptyoself.service"
OTHERS = "MAILTO=me@example.org\n# mine\n0 4 * * *  backup --all\n"

CRONTAB = """#!/bin/sh
# Stands in for the real one, as Debian's behaves, on a file.
case "$1" in
-l) if [ -f "$TABLE" ]; then cat "$TABLE"; else echo "no crontab for $USER" >&2; exit 1; fi ;;
-) cat >"$TABLE.new" && mv "$TABLE.new" "$TABLE" ;;
*) echo "usage: crontab -l | -" >&2; exit 1 ;;
esac
"""


def block(heading: str) -> str:
    """The first shell block under a heading of docs/howto/operating.md."""
    section = OPERATING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    shown = re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert shown is not None, heading
    return shown[1]


class Crontab:
    """Somebody's crontab, who types what the docs show."""

    def __init__(self, folder: Path, program: Path | None) -> None:
        self.table = folder / "table"
        self.home = folder / "a home"
        (folder / "bin").mkdir()
        self.home.mkdir()
        (folder / "bin" / "crontab").write_text(CRONTAB)
        (folder / "bin" / "crontab").chmod(0o755)
        path = [str(folder / "bin"), "/usr/bin", "/bin"]
        self.environ = {
            "PATH": os.pathsep.join([str(program.parent), *path] if program else path),
            "HOME": str(self.home), "TABLE": str(self.table), "USER": "me",
        }  # fmt: skip

    def type(self, shell: str) -> subprocess.CompletedProcess[str]:
        """Run the documented lines."""
        return subprocess.run(
            [shell, "-c", block("From cron")],
            env=self.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """promptyoself, in a folder whose name has a space."""
    folder = tmp_path / "my programs"
    folder.mkdir()
    script = folder / "promptyoself"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m promptyoself "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("before", [None, "", OTHERS, OTHERS.rstrip("\n")])
def test_the_crontab_keeps_its_lines(
    tmp_path: Path, program: Path, shell: str, before: str | None
) -> None:
    """A line is added to whatever is there, also where there is no crontab yet; typed again, the
    same lines add nothing."""
    crontab = Crontab(tmp_path, program)
    if before is not None:
        crontab.table.write_text(before)
    for _ in range(2):
        done = crontab.type(shell)
        assert (done.returncode, done.stderr) == (0, "")
        lines = crontab.table.read_text().splitlines()
        assert lines[:-1] == (before or "").splitlines()
        assert lines[-1].startswith(f'* * * * * "{program}" execute --deadline 50 ')
        assert crontab.table.read_text().endswith("\n")


def test_the_line_in_the_crontab_delivers(
    tmp_path: Path, program: Path, environ: dict[str, str]
) -> None:
    """cron runs the line with /bin/sh, and next to no environment: it executes, and the answer is
    in the log that it names."""
    crontab = Crontab(tmp_path, program)
    assert crontab.type("sh").returncode == 0
    command = crontab.table.read_text().removeprefix("* * * * * ")
    cron = {"HOME": str(crontab.home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    cron["PROMPTYOSELF_VAR"] = environ["PROMPTYOSELF_VAR"]  # else from .env
    done = subprocess.run(["/bin/sh", "-c", command], env=cron, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    answer = json.loads((crontab.home / "promptyoself.log").read_text())
    assert (answer["status"], answer["executed"]) == ("success", [])


def test_without_the_program_the_crontab_stays(tmp_path: Path) -> None:
    """Where the shell doesn't find promptyoself, nothing is written."""
    crontab = Crontab(tmp_path, None)
    crontab.table.write_text(OTHERS)
    assert crontab.type("bash").returncode != 0
    assert crontab.table.read_text() == OTHERS


def test_the_unit_survives_a_reboot() -> None:
    """It is wanted at every start, comes back however it ended, and runs what the docs install."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    service = unit["Service"]
    assert (service["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("always", "0")
    installed = block("As a service of the system")
    program, *arguments = service["ExecStart"].split()
    assert f"python3 -m venv {Path(program).parent.parent}\n" in installed
    assert arguments == ["execute", "--loop"]
    assert f" {service['User']}\n" in installed
    assert "systemctl enable --now promptyoself\n" in installed
    state = f"/var/lib/{service['StateDirectory']}"
    assert f"--home-dir {state} " in installed
    assert service["Environment"] == f"PROMPTYOSELF_VAR={state}"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about it."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "promptyoself"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/promptyoself/bin/promptyoself", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
