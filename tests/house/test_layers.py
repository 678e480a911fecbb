"""The house: imports run one way, and what must be in one place is in one place."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import promptyoself

ROOT = Path(promptyoself.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}

BELOW_STORE = {"core", "events", "state", "ledger", "index"}
BELOW_SERVICE = {*BELOW_STORE, "rules", "store"}

MAY_IMPORT: dict[str, set[str]] = {
    # What everything stands on.
    "core": set(),
    "events": {"core"},
    # The log, and what it says.
    "ledger": {"core", "events"},
    "state": {"core", "events"},
    "index": {"core", "events", "ledger", "state"},
    "store": {"core", "events", "ledger", "state", "index", "phrases"},
    # Times in words.
    "phrases": {"core"},
    # What follows from it, and where prompts go.
    "rules": {"core", "events", "state"},
    "targets": {"core", "events"},
    "targets.letta": {"core", "events", "targets"},
    "targets.letta_code": {"core", "events", "targets"},
    "targets.letta_cloud": {"events", "targets", "targets.letta"},
    "targets.broca": {"core", "events", "targets"},
    "sandbox": {"core"},
    # What is done, by subject.
    "service.schedules": BELOW_SERVICE - {"index"} | {"phrases"},
    "service.desires": BELOW_SERVICE - {"ledger", "index"},
    "service.proof": BELOW_SERVICE - {"rules", "index"} | {"phrases"},
    "service.metrics": BELOW_SERVICE - {"index"},
    "service.audit": BELOW_SERVICE - {"index"} | {"phrases", "targets", "service.proof"},
    "service.transfer": BELOW_SERVICE - {"index"} | {"service.schedules"},
    "service.files": {"core", "events", "state", "store", "service.schedules"},
    "service.forecast": BELOW_SERVICE - {"index"}
    | {"phrases", "service.schedules", "service.desires"},
    "service.broca": {"core", "targets", "targets.broca", "service.setup"},
    "service.setup": {"core"},
    "service.letta_code": {"core", "targets.letta_code"},
    "service.notices": BELOW_SERVICE - {"index"} | {"targets", "service.setup"},
    "service.upkeep": BELOW_SERVICE
    | {"targets", "targets.letta", "service.notices", "service.proof", "service.schedules"}
    | {"service.transfer"},
    "service.delivery": BELOW_SERVICE - {"index"}
    | {"targets", "targets.letta", "targets.letta_cloud", "targets.letta_code"}
    | {"service.schedules", "service.desires", "service.notices", "service.upkeep"},
    # How callers come in.
    "doors": {"core", "events", "state", "rules", "store", "targets"}
    | {"service.delivery", "service.metrics", "service.schedules", "service.upkeep"}
    | {"service.setup", "doors.terminal"},
    "doors.terminal": {"core", "events"},
    "doors.mcp": {"core", "doors", "service.delivery"},
    "doors.commands": {"core", "events", "store", "ledger", "targets", "sandbox"}
    | {"doors", "doors.mcp", "doors.terminal"}
    | {f"service.{subject}" for subject in ("audit", "delivery", "desires", "files", "forecast")}
    | {f"service.{subject}" for subject in ("metrics", "proof", "schedules", "setup", "transfer")}
    | {"service.upkeep", "service.letta_code", "service.notices", "service.broca"},
    "broca": {"core", "events", "store", "targets", "targets.broca", "doors"}
    | {"service.broca", "service.delivery"},
    "cli": {"doors"},
    "__main__": {"cli"},
}
"""Each folder, or subject of ``service/``, and those that it imports besides itself: no more, and
no fewer."""

PURE = {"rules", "state"}
"""Folders that read no file, no socket, no process, no clock and no environment."""

MOST_LINES = 450
MOST_ENTRIES = 20

LIBRARIES = {
    "letta_client": {"targets.letta"},
    "httpx": {"targets", "targets.letta", "service.notices"},
    "httpcore": {"targets"},
    "websockets": {"targets.letta_code"},
    "filelock": {"ledger"},
    "rich": {"doors", "doors.terminal"},
    "dotenv": {"core"},
    "platformdirs": {"core"},
    "click": {"cli", "doors", "doors.commands", "doors.mcp"},
    "mcp": {"doors.mcp"},
    "mcp_types": {"doors.mcp"},
    "anyio": {"doors.mcp"},
    "uvicorn": {"doors.mcp"},
    "starlette": {"doors.mcp"},
    "pydantic": {"doors.mcp"},
    "isal": {"ledger"},
    "croniter": {"rules"},
    "cron_descriptor": {"doors.terminal"},
    "jinja2": {"rules"},
    "cryptography": {"service.proof"},
    "prometheus_client": {"service.metrics"},
    "apprise": {"service.notices"},
}
"""Each library that we don't own, and the folders that know it."""

ASK_WHO_IS_PINNED = {
    # The doors know who calls.
    "doors.session": "hands out the store as the caller may see it",
    "doors.completion": "destinations are the operator's",
    "doors.commands.configuration": "and so are their settings",
    "doors.commands.mcp": "an agenda is the caller's own, unless another is named",
    "doors.commands.schedules": "with --check, it asks Letta for the caller's agent first",
    "doors.commands.delivery": "Letta's agents, and what a pass tells, are no part of the store",
    # What a caller may ask for at all.
    "core.settings": "reads it from the environment",
    "service.schedules.request": "a schedule can't be given to another agent, nor tell one",
    "service.schedules.register": "whose a schedule is that names no agent",
    "service.files.registrations": "the same, of schedules in a file",
    "service.schedules.approvals": "approvals are for people",
    "service.schedules.views": "who is pinned isn't told which agents there are",
    "service.proof.pack": "a pack has everybody's events in it",
    "service.proof.signed_heads": "a key speaks for everybody's events",
    "service.upkeep.recover": "a recovery changes everybody's log",
    "service.notices.destinations": "where notices go is the operator's choice",
    "service.upkeep.doctor": "the names of destinations are the operator's",
    "service.upkeep.running_loop": "the loop is no business of an agent",
    # Work on all agents' data, of which a pinned caller gets a part.
    "service.delivery.loop": "a pass claims the slots of that agent alone",
    "service.metrics.collect": "totals are everybody's, single budgets the agent's own",
    "service.transfer.export": "a schedule that was another's keeps its first content",
}
"""The modules outside ``store`` that ask whether the caller is pinned to an agent, and what for.
All others get from the store what the caller may see, and can't forget to ask."""

SEE_EVERYTHING = {
    "doors.monitor": "says whether the loop does its work",
    "doors.commands.delivery": "a loop delivers for everybody",
    "broca": "a loop delivers for everybody",
    "doors.commands.log": "the chain is checked, sealed, recovered and counted as one",
    "doors.commands.proof": "what is signed and packed is the whole chain",
    "doors.commands.setup": "doctor examines the whole installation",
    "service.audit.diff": "a schedule may have been another agent's before",
    "service.audit.report": "whether a slot was claimed twice, only all events together say",
    "service.metrics.collect": "counts are everybody's",
    "service.schedules.replies.listing": "an answer is that of the agent that was prompted",
    "service.schedules.times.clock_rollback": "a schedule's slots as another agent's count",
    "service.schedules.register": "which id is free",
    "service.schedules.resumption": "a schedule may have been another agent's before",
    "service.schedules.transition": "who is to be told of a failure",
    "service.schedules.undo": "a schedule may have been another agent's before",
    "service.transfer.admission": "which id is free",
    "service.transfer.export": "what a schedule was registered with, if for another agent",
    "service.desires.manage": "which id is free",
}
"""The modules outside ``store`` that take everything from it, also where the caller is pinned."""

READ_THE_CLOCK = {"core.diagnostics", "doors.session"} | {
    f"sandbox.{module}" for module in ("chat_completions", "http", "server")
}
"""The modules that ask what time it is. To all others, time is an argument."""


def room(name: str) -> str:
    """The folder that a module lies in; of ``service``, ``targets`` and ``doors`` the inner one."""
    parts = name.split(".")
    if parts[0] in ("service", "targets", "doors") and len(parts) > 1:
        inner = ".".join(parts[:2])
        return inner if MODULES[inner].name == "__init__.py" else parts[0]
    return parts[0]


def imports(name: str) -> Iterator[str]:
    """Everything that a module imports, wherever in it, also for the eyes of a type checker."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            # `from promptyoself.events import records` imports a module, not a name.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names
            if not {imported.removeprefix("promptyoself.") for imported in names} <= set(MODULES):
                yield node.module or ""


def neighbours(name: str) -> set[str]:
    """The modules of this package that a module imports."""
    found = {
        imported.removeprefix("promptyoself.")
        for imported in imports(name)
        if imported.startswith("promptyoself.")
    }
    return found & set(MODULES) - {name}


def mentions(name: str) -> set[str]:
    """The dotted names that a module calls or mentions."""
    return {ast.unparse(node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}


def rooms_imported(place: str) -> set[str]:
    """The folders that the modules of a folder import from, without itself."""
    imported = {
        room(other) for name in MODULES if room(name) == place for other in neighbours(name)
    }
    return imported - {place}


def test_every_module_is_in_a_folder_of_the_table() -> None:
    assert {room(name) for name in MODULES} == set(MAY_IMPORT) | {"service"}
    assert not neighbours("service")


@pytest.mark.parametrize("place", sorted(MAY_IMPORT))
def test_a_folder_imports_what_the_table_says(place: str) -> None:
    """No more than that; and no less, so that no permission outlives its reason."""
    assert rooms_imported(place) == MAY_IMPORT[place]


def test_the_table_runs_one_way() -> None:
    """No folder imports another that, in the end, imports it."""
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


def test_no_module_imports_itself_in_the_end() -> None:
    """Not within a folder either, nor inside functions, nor for a type checker's eyes."""
    TopologicalSorter({name: neighbours(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_in_one_place(library: str) -> None:
    """Each library is imported where the table says, so that it could be replaced there."""
    places = {
        room(name)
        for name in MODULES
        for imported in imports(name)
        if imported.split(".")[0] == library
    }
    assert places == LIBRARIES[library]


def test_only_one_module_syncs() -> None:
    """P1: the syscalls that durability rests on are made by core/disk.py alone."""
    for name in MODULES:
        if name != "core.disk":
            forbidden = {"os.fsync", "os.fdatasync", "os.sync", "os.rename", "os.replace"}
            forbidden |= {"os.truncate", "os.ftruncate", "os.write"}
            assert not mentions(name) & forbidden, name


def mentioning(*attributes: str) -> set[str]:
    """The modules outside ``store`` that mention an attribute of one of these names."""
    return {
        name
        for name in MODULES
        if room(name) != "store"
        and any(
            isinstance(node, ast.Attribute) and node.attr in attributes
            for node in ast.walk(TREES[name])
        )
    }


def test_who_asks_whether_a_caller_is_pinned() -> None:
    """What another agent has is withheld in one place, not wherever somebody thinks of it."""
    asking = mentioning("only_agent", "pinned_to")
    assert asking | {"core.settings"} == set(ASK_WHO_IS_PINNED)
    assert mentioning("unpinned", "unpinned_state") == set(SEE_EVERYTHING)


def test_nobody_gets_around_the_store() -> None:
    """The index and the ledger of a store are its own, but for what rewrites them."""
    outside = set(MODULES) - {name for name in MODULES if room(name) in ("index", "ledger")}
    assert not mentioning("_index", "_ledger") & outside
    assert mentioning("ledger_and_index") == {"service.upkeep.seal", "service.upkeep.recover"}


def test_the_audit_rests_on_no_decision() -> None:
    """The auditor shares what says what a specification means; neither a decision nor the fold."""
    names = {name for name in MODULES if room(name) == "service.audit"} - {"service.audit.diff"}
    shared = {module for name in names for module in neighbours(name)}
    assert {module for module in shared if room(module) == "rules"} == {
        "rules.triggers", "rules.slots", "rules.prompts",
    }  # fmt: skip
    assert "state.apply" not in shared


def test_who_reads_the_clock() -> None:
    """Time is an argument but in these modules, and each of them does ask."""
    clocks = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    clocks |= {"time.time", "time.time_ns", "time.localtime", "time.gmtime"}
    assert {name for name in MODULES if mentions(name) & clocks} == READ_THE_CLOCK


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) in PURE))
def test_nothing_pure_touches_the_world(name: str) -> None:
    worldly = {"os", "io", "pathlib", "socket", "subprocess", "threading", "time", "random", "sys"}
    assert not {imported.split(".")[0] for imported in imports(name)} & worldly


def test_modules_are_small() -> None:
    assert not [name for name, path in MODULES.items() if path.read_text().count("\n") > MOST_LINES]


def test_folders_are_small() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        entries = [path for path in folder.iterdir() if path.name != "__pycache__"]
        assert len(entries) <= MOST_ENTRIES, folder


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_say_what_they_are(name: str) -> None:
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"service.proof.pack_verifier"}))
def test_what_is_public_is_explained(name: str) -> None:
    """Every class and function without an underscore has a docstring. The verifier stays byte for
    byte as it lies in packs, where auditors compare it."""
    for node in TREES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name}"


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest takes two files of one name for one module, and runs the first alone."""
    names = Counter(path.name for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
