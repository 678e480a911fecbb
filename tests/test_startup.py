"""P8: a command pays only for what it uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from calling import AGENT, call

from promptyoself.cli import main

HEAVY = {
    "letta_client", "httpx", "croniter", "rich", "pydantic", "asyncio", "mcp", "platformdirs",
    "dotenv", "zoneinfo", "unittest", "multiprocessing", "concurrent", "http", "email", "difflib",
    "traceback_", "pwd_", "gzip", "tempfile", "subprocess", "socket",
}  # fmt: skip
REGISTER = ("register", "--agent-id", AGENT, "--prompt", "Hello", "--every", "5m")

# What runs the command in a fresh interpreter and then tells which modules that brought in. It
# starts without site, whose .pth files may import anything.
PROBE = """
import sys
before = set(sys.modules)
from promptyoself import cli
code = cli._run(sys.argv[1:])
sys.stderr.write("\\n".join(sorted(set(sys.modules) - before)))
sys.exit(code)
"""


def loaded(environ: dict[str, str], *arguments: str) -> set[str]:
    """The modules that a command imports in a process of its own."""
    path = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROBE, *arguments],
        env={**environ, "PYTHONPATH": ":".join([*path, root])},
        capture_output=True,
        check=False,
    )
    assert orjson.loads(done.stdout)["status"] == "success", done
    return set(done.stderr.decode().split())


def third_party(modules: set[str]) -> set[str]:
    """Those that neither Python nor we brought along."""
    tops = {module.split(".")[0] for module in modules}
    return tops - set(sys.stdlib_module_names) - {"promptyoself"}


@pytest.fixture
def filelock_alone(environ: dict[str, str]) -> set[str]:
    """What filelock imports by itself: not ours to choose."""
    code = "import sys, filelock\nfilelock.FileLock\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, check=True
    )
    return {module.split(".")[0] for module in done.stdout.decode().split()}


def test_register_imports_what_it_uses(environ: dict[str, str], filelock_alone: set[str]) -> None:
    """P8: registering an interval loads click, filelock and orjson, and nothing else of others;
    neither the Letta SDK nor croniter nor the time zones."""
    modules = loaded(environ, *REGISTER)
    assert third_party(modules) == {"click", "filelock", "orjson"}
    tops = {module.split(".")[0] for module in modules}
    assert not tops & (HEAVY - filelock_alone)
    assert "promptyoself.letta" not in modules
    assert "promptyoself.loop" not in modules
    assert "promptyoself.service.querying" not in modules


def test_list_needs_no_lock(var: Path, environ: dict[str, str]) -> None:
    """P8: a command that only reads doesn't load filelock, nor what only writing needs."""
    call(*REGISTER).success()
    for arguments in (("list",), ("history",), ("stats",), ("head",), ("verify",)):
        modules = loaded(environ, *arguments)
        assert third_party(modules) == {"click", "orjson"}, arguments
        tops = {module.split(".")[0] for module in modules}
        assert not tops & HEAVY, arguments
        assert "promptyoself.service.registering" not in modules


def test_cron_costs_croniter_only_where_days_differ(environ: dict[str, str]) -> None:
    """P8: a cron expression that fires every day needs no calendar."""
    base = ("register", "--agent-id", AGENT, "--prompt", "Hello", "--cron")
    assert third_party(loaded(environ, *base, "0 9 * * *")) == {"click", "filelock", "orjson"}
    assert "croniter" in third_party(loaded(environ, *base, "0 9 * * MON"))


def test_the_group_loads_no_command(environ: dict[str, str]) -> None:
    """P8: importing the command line doesn't import the commands."""
    code = "import sys, promptyoself.cli\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, check=True
    )
    modules = set(done.stdout.decode().split())
    assert "promptyoself.commands.schedules" not in modules
    assert "promptyoself.ledger" not in modules
    assert "orjson" in modules


def test_the_end_is_clean(environ: dict[str, str]) -> None:
    """P8: a command ends at once, without taking the interpreter apart, and yet its whole answer
    arrives, its exit code too; called from Python, `main` raises SystemExit as any program does."""
    prompt = "x" * 100_000  # more than a pipe holds
    script = [sys.executable, "-m", "promptyoself"]
    register = [*script, "register", "--agent-id", AGENT, "--every", "5m", "--prompt", prompt]
    subprocess.run(register, env=environ, stdout=subprocess.PIPE, check=True)
    listed = subprocess.run(
        [*script, "list", "--full"], env=environ, stdout=subprocess.PIPE, check=True
    )
    assert orjson.loads(listed.stdout)["schedules"][0]["prompt"] == prompt
    wrong = subprocess.run([*script, "what"], env=environ, capture_output=True, check=False)
    assert (wrong.returncode, orjson.loads(wrong.stdout)["code"]) == (2, "unknown_command")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
