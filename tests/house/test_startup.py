"""P8: a command pays only for what it uses."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from calling import AGENT, call, run

from promptyoself.cli import main

HEAVY = {
    "letta_client", "httpx", "croniter", "rich", "pydantic", "asyncio", "mcp", "platformdirs",
    "dotenv", "zoneinfo", "unittest", "multiprocessing", "concurrent", "http", "email", "difflib",
    "gzip", "tempfile", "subprocess", "socket", "ssl", "calendar", "queue", "optparse", "zipfile",
    "shutil", "xml", "sqlite3", "importlib.metadata",
}  # fmt: skip
OURS = {
    "", "cli", "core", "core.addresses", "core.diagnostics", "core.disk",
    "core.errors", "core.ids", "core.instants", "core.long_work", "core.setting_values",
    "core.settings", "core.texts", "core.times",
    "doors", "doors.arguments", "doors.command", "doors.commands", "doors.options", "doors.output",
    "doors.registry", "doors.session", "events", "events.draft", "events.kinds",
    "events.schedule_fields", "events.target_names", "events.versions", "index", "index.index",
    "index.parts",
    "index.schedule_schema", "index.schema", "index.tree", "index.witness", "ledger",
    "ledger.batch", "ledger.envelope",
    "ledger.files", "ledger.folder_cache", "ledger.lock", "ledger.replay",
    "ledger.segments", "service", "service.schedules", "state", "state.fold", "state.overlay",
    "state.schedules", "store", "store.access", "store.chain", "store.store",
}  # fmt: skip
"""What every command loads that reads the schedules."""

FOLDING = {
    "events.answer_records", "events.codec", "events.records", "state.answers", "state.apply",
}  # fmt: skip
"""What an event needs that isn't in the index yet."""

WRITING = FOLDING | {
    "core.text_limits", "ledger.linking", "ledger.worker_locks", "rules", "rules.daily_rate",
    "rules.placement", "rules.policy", "rules.slots", "rules.triggers",
    "service.schedules.limits", "service.schedules.register", "service.schedules.request",
    "service.schedules.times", "service.schedules.times.asked", "service.schedules.times.fires",
    "service.schedules.transition",
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
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROBE, *arguments],
        env={**environ, "PYTHONPATH": ":".join([*path, root])},
        capture_output=True,
        check=False,
    )
    assert orjson.loads(done.stdout)["status"] == "success", done
    return set(done.stderr.decode().split())


def ours(modules: set[str]) -> set[str]:
    """Those of promptyoself."""
    found = {module for module in modules if module.split(".")[0] == "promptyoself"}
    return {module.partition(".")[2] for module in found}


def third_party(modules: set[str]) -> set[str]:
    """Those that neither Python nor we brought along."""
    tops = {module.split(".")[0] for module in modules}
    return tops - set(sys.stdlib_module_names) - {"promptyoself"}


def heavy(modules: set[str]) -> set[str]:
    """Those of them that cost much."""
    return HEAVY & (modules | {module.split(".")[0] for module in modules})


def test_register_imports_what_it_uses(environ: dict[str, str]) -> None:
    """P8: registering an interval loads click and orjson, of ours what it calls, and nothing else;
    neither the Letta SDK nor the time zones."""
    modules = loaded(environ, *REGISTER)
    assert third_party(modules) == {"click", "orjson"}
    assert ours(modules) == OURS | WRITING | {
        "doors.commands.schedules",
        "service.upkeep",
        "service.upkeep.running_loop",
    }
    assert not heavy(modules)


def test_reading_needs_less(var: Path, environ: dict[str, str]) -> None:
    """P8: a command that only reads doesn't load what only writing needs."""
    call(*REGISTER).success()
    for arguments in (("list",), ("history",), ("stats",), ("head",), ("verify",)):
        modules = loaded(environ, *arguments)
        assert third_party(modules) == {"click", "orjson"}, arguments
        assert not heavy(modules), arguments
        allowed = FOLDING if arguments == ("verify",) else set()
        assert not ours(modules) & WRITING - allowed, arguments
    assert ours(loaded(environ, "list")) == OURS | {
        "doors.commands.listing",
        "service.schedules.views",
    }


def test_only_what_expands_a_cron_expression_loads_croniter(
    var: Path, environ: dict[str, str]
) -> None:
    """P8: registering on a cron expression loads croniter, and the zone that it names. Reading
    schedules that have one doesn't, nor does registering an interval for another agent. (For the
    same agent it does: the fires of all its schedules in a day are counted.)"""
    base = ("register", "--agent-id", AGENT, "--prompt", "Hello")
    there = loaded(environ, *base, "--cron", "0 9 * * MON", "--tz", "Europe/London")
    assert {"croniter", "zoneinfo", "promptyoself.rules.cron_expressions"} <= there
    assert ours(loaded(environ, "list")) == OURS | {
        "doors.commands.listing",
        "rules",
        "rules.cron_expressions",
        "service.schedules.views",
    }
    other = ("register", "--agent-id", AGENT[:-1] + "2", "--prompt", "Hello", "--every", "5m")
    for arguments in (("list",), ("history",), ("stats",), ("verify",), other):
        assert not {"croniter", "dateutil"} & loaded(environ, *arguments), arguments


def test_only_what_delivers_loads_the_sdk(var: Path, environ: dict[str, str]) -> None:
    """P8: the Letta SDK, which takes longer to load than all the rest, is for those who ask Letta:
    not even `simulate` and `execute`, where nothing is due, need it."""
    call(*REGISTER).success()
    for arguments in (("simulate", "--until", "in 1d"), ("next", "--every", "5m"), ("audit",)):
        assert third_party(loaded(environ, *arguments)) <= {"click", "orjson", "isal"}, arguments
    assert "letta_client" not in loaded(environ, "execute")


def test_the_group_loads_no_command(environ: dict[str, str]) -> None:
    """P8: importing the command line doesn't import the commands."""
    code = "import sys, promptyoself.cli\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, check=True
    )
    modules = set(done.stdout.decode().split())
    assert not {name for name in ours(modules) if name.startswith("doors.commands.")}
    assert "promptyoself.ledger" not in modules
    assert "orjson" in modules


def test_help_loads_the_commands_alone(environ: dict[str, str]) -> None:
    """P8: `--help` loads every command for its first sentence, and nothing that does their work."""
    code = "import sys\nfrom promptyoself import cli\ncli._run(['--help'])\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, check=True
    )
    modules = ours(set(done.stdout.decode().splitlines()[-1].split()))
    assert "doors.commands.listing" in modules
    working = ("service", "store", "state", "index", "ledger", "rules", "targets", "sandbox")
    assert not {name for name in modules if name.split(".")[0] in working}


def test_the_end_is_clean(environ: dict[str, str]) -> None:
    """P8: a command ends at once, without taking the interpreter apart, and yet its whole answer
    arrives, its exit code too; called from Python, `main` raises SystemExit as any program does."""
    prompt = "x" * 100_000  # more than a pipe holds
    run(*REGISTER, "--prompt", prompt, environ=environ).success()
    listed = run("list", "--full", environ=environ).success()
    assert listed["schedules"][0]["prompt"] == prompt
    run("what", environ=environ).error("unknown_command", 2)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
