"""`service`: the units that are installed, and what is said where none can be."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from app_servers import free_port, make_letta, serving
from calling import call
from installed import home  # noqa: F401

from promptyoself.ledger.worker_locks import WorkerLocks
from promptyoself.service.setup import systemd, units

PROGRAM = ["/opt/promptyoself/bin/promptyoself"]
ODD = "/srv/a b%c$d'e\\f"


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On no machine does a test install a service."""
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "nowhere")


@pytest.fixture
def crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A crontab of the test's own: what `crontab -l` prints and `crontab -` replaces."""
    table = tmp_path / "table"
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = - ]; then cat >{table}; exit; fi\n'
        f'[ -f {table} ] || {{ echo "no crontab for you" >&2; exit 1; }}\ncat {table}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return table


def printed(*arguments: str) -> str:
    """What `service install --print` prints."""
    answer = call("service", "install", "--print", *arguments)
    assert answer.code == 0, answer
    return answer.out.decode()


def test_without_systemd_one_message_says_what_to_do(home: Path) -> None:
    for arguments in ([], ["--system"]):
        error = call("service", "install", *arguments).error("no_systemd")
        assert "`promptyoself service install --cron`" in error["hint"]
        assert "`promptyoself execute --loop`" in error["hint"]
    assert list(home.iterdir()) == []
    assert call("service").success()["installed"] is False
    assert call("service", "uninstall").success()["removed"] == []


def test_the_unit_runs_this_installation_on_this_data(home: Path, tmp_path: Path) -> None:
    """By its absolute path, whatever folder and environment systemd has."""
    unit = printed("--var", str(tmp_path / "my data"))
    program = Path(sys.executable).with_name("promptyoself")
    assert f"ExecStart={program} execute --loop\n" in unit
    assert f'Environment="PROMPTYOSELF_VAR={tmp_path}/my data"\n' in unit
    assert "WantedBy=default.target\n" in unit
    assert "User=" not in unit
    assert "PROMPTYOSELF_VAR" not in printed()  # where the file of settings, or nothing, names it
    call("config", "set", "var", str(tmp_path / "elsewhere")).success()
    assert "PROMPTYOSELF_VAR" not in printed()
    shutil.rmtree(home / ".config")
    assert list(home.iterdir()) == []


def test_no_start_limit_ends_it_in_silence() -> None:
    """A loop that ends at once, over and over, is started again for ever, five seconds later."""
    for unit in (units.user_unit(PROGRAM, {}), units.system_unit(PROGRAM, units.SYSTEM_VAR, "u")):
        assert "StartLimitIntervalSec=0\n" in unit
        assert "Restart=always\nRestartSec=5\n" in unit


def test_the_units_are_what_lies_in_the_package() -> None:
    """One source: the service of the system is that file, for its default places."""
    text = (Path(units.__file__).parents[2] / "data" / units.NAME).read_text()
    assert units.system_unit(PROGRAM, units.SYSTEM_VAR, "promptyoself") == text
    own = units.user_unit(PROGRAM, {"PROMPTYOSELF_VAR": "/d"}).splitlines()
    assert [line for line in own if line not in text.splitlines()] == [
        "Environment=PROMPTYOSELF_VAR=/d",
        "WantedBy=default.target",
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("kind", ["user", "system", "elsewhere", "letta code"])
def test_systemd_understands_the_units(kind: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, also of odd paths; and of the service of the
    system, `systemd-analyze security` says that it may do little."""
    program = tmp_path / ("a b$c%d" if kind != "system" else "plain") / "promptyoself"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / units.NAME
    if kind == "user":
        text = units.user_unit([str(program)], {"PROMPTYOSELF_VAR": ODD})
    elif kind == "letta code":
        text = units.app_server_unit([str(program)], program, {"PATH": ODD})
    else:
        var = units.SYSTEM_VAR if kind == "system" else Path("/srv/a b%c")
        text = units.system_unit([str(program)], var, "root")
    path.write_text(text)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    words = ["--user"] if kind in ("user", "letta code") else []
    analyze = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *words, str(path)]
    done = subprocess.run(analyze, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if kind == "system":
        words = ["--offline=true", "--threshold=25", "--no-pager", str(path)]
        security = subprocess.run(
            ["systemd-analyze", "security", *words], capture_output=True, text=True, check=False
        )
        assert security.returncode == 0, security.stdout[-300:]


def test_a_launchd_agent_is_a_property_list() -> None:
    """It can't be tried here; but it is read as it is meant."""
    agent = plistlib.loads(units.launchd_agent(["/a & b/p"], {"PROMPTYOSELF_VAR": ODD}).encode())
    assert agent["ProgramArguments"] == ["/a & b/p", "execute", "--loop"]
    assert agent["EnvironmentVariables"] == {"PROMPTYOSELF_VAR": ODD}
    assert agent["RunAtLoad"] is agent["KeepAlive"] is True


def test_the_line_for_cron_is_run_as_it_is_meant(tmp_path: Path) -> None:
    """Whatever the paths have in them: cron makes a % of \\%, and then sh runs it."""
    var = tmp_path / "a b%c$d'e"
    var.mkdir()
    program = tmp_path / "it's 100% mine"
    program.write_text('#!/bin/sh\necho "$PROMPTYOSELF_VAR|$*" >&2\n')
    program.chmod(0o755)
    line = units.cron_line([str(program)], {"PROMPTYOSELF_VAR": str(var)}, var)
    assert line.startswith("* * * * * ")
    assert not re.search(r"(?<!\\)%", line)
    command = line.removeprefix("* * * * * ").replace("\\%", "%")
    subprocess.run(["sh", "-c", command], check=True)
    assert (var / "cron.log").read_text() == f"{var}|execute --deadline 50\n"


def test_a_line_of_the_crontab_is_added_once_and_taken_away(home: Path, crontab: Path) -> None:
    """All other lines stay."""
    crontab.write_text("MAILTO=me\n0 9 * * * other\n")
    answer = call("service", "install", "--cron").success()
    assert (answer["kind"], answer["changed"]) == ("cron", True)
    assert crontab.read_text() == f"MAILTO=me\n0 9 * * * other\n{answer['line']}\n"
    assert printed("--cron") == f"{answer['line']}\n"
    assert call("service", "install", "--cron").success()["changed"] is False
    assert call("service", "status").success()["kind"] == "cron"
    moved = call("service", "install", "--cron", "--var", str(home / "other")).success()
    assert crontab.read_text() == f"MAILTO=me\n0 9 * * * other\n{moved['line']}\n"
    call("service", "uninstall").success()
    assert crontab.read_text() == "MAILTO=me\n0 9 * * * other\n"


def test_a_crontab_that_cannot_be_read_is_not_replaced(home: Path, crontab: Path) -> None:
    """Otherwise all of its lines would be lost."""
    crontab.write_text("0 9 * * * other\n")
    program = crontab.parent / "bin" / "crontab"
    program.write_text(program.read_text().replace("cat " + str(crontab) + "\n", "exit 1\n"))
    call("service", "install", "--cron").error("service_failed")
    assert crontab.read_text() == "0 9 * * * other\n"


def test_settings_of_the_shell_are_told(
    home: Path, crontab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service doesn't get them."""
    monkeypatch.setenv("LETTA_BASE_URL", "http://letta.example")
    warning = call("service", "install", "--cron").success()["warning"]
    assert "LETTA_BASE_URL" in warning
    assert "`promptyoself config set NAME VALUE`" in warning


def test_what_excludes_each_other(home: Path) -> None:
    call("service", "install", "--system", "--cron").error("conflicting_options", 2)
    error = call("service", "instal").error("unknown_command", 2)
    assert error["hint"] == "Did you mean `service install`?"


# An App Server of Letta Code.


@pytest.fixture
def letta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Letta Code, a port for its App Server, and a systemd that only notes what it is told."""
    folder = tmp_path / "bin"
    program = make_letta(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", f"ws://127.0.0.1:{free_port()}")
    (folder / "systemctl").write_text(
        f'#!/bin/sh\necho "$*" >>{folder}/told\n'
        "printf 'UnitFileState=enabled\\nActiveState=active\\nNRestarts=0\\n'\n"
    )
    (folder / "loginctl").write_text("#!/bin/sh\n")
    for name in ("systemctl", "loginctl"):
        (folder / name).chmod(0o755)
    return program


def test_an_app_server_is_kept_running_too(
    home: Path, letta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a unit of its own, which `status` tells of and `uninstall` takes away."""
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path)
    var = tmp_path / "var"
    words = ("service", "install", "--with-letta-code", "--var", str(var))
    port = int(os.environ["PROMPTYOSELF_LETTA_CODE_URL"].rpartition(":")[2])
    (var / "workers").mkdir(parents=True)
    with WorkerLocks(var / "workers").alive("wrk_0"), serving(port, tmp_path):
        answer = call(*words).success()
    unit = home / ".config" / "systemd" / "user" / units.LETTA_CODE_NAME
    assert answer["letta_code"] == {
        "file": str(unit),
        "changed": True,
        "url": f"ws://127.0.0.1:{port}",
    }
    assert f" letta-code up --program {letta}\n" in unit.read_text()
    assert unit.with_name(units.NAME).exists()
    told = (letta.parent / "told").read_text().splitlines()
    assert f"--user restart {units.LETTA_CODE_NAME}" in told
    state = call("service", "status").success()["letta_code"]
    assert (state["file"], state["state"], state["restarts"]) == (str(unit), "active", 0)
    assert call("service", "uninstall").success()["removed"] == [
        *(str(unit.with_name(units.NAME)), str(unit)),
    ]
    assert not unit.exists()
    assert "letta_code" not in call("service", "status").success()


def test_the_unit_of_an_app_server_has_its_environment(
    home: Path, letta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agents' PATH, their store, and our data directory; and no key."""
    monkeypatch.setenv("LETTA_LOCAL_BACKEND_DIR", "/srv/my store")
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_TOKEN", "hush")
    loop, _, unit = printed("--with-letta-code", "--var", "/d").partition("\n# An App Server")
    assert loop == printed("--var", "/d")
    assert 'Environment="LETTA_LOCAL_BACKEND_DIR=/srv/my store"\n' in unit
    assert f"Environment=PATH={os.environ['PATH']}\n" in unit
    assert "Environment=PROMPTYOSELF_VAR=/d\n" in unit
    assert "hush" not in unit
    assert list(home.iterdir()) == []


def test_what_an_app_server_as_a_service_needs(
    home: Path, letta: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is refused before anything is installed."""
    for kind in ("--system", "--cron"):
        call("service", "install", "--with-letta-code", kind).error("conflicting_options", 2)
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path)
    make_letta(letta.parent, version="0.16.8")
    call("service", "install", "--with-letta-code").error("letta_code_not_installed")
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    call("service", "install", "--with-letta-code").error("target_not_configured")
    assert list(home.iterdir()) == []
    assert not (letta.parent / "told").exists()
