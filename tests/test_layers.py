"""The house: imports run one way, and what must be in one place is in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import promptyoself

ROOT = Path(promptyoself.__file__).parent
NAMES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
TREES = {name: ast.parse(path.read_text()) for name, path in NAMES.items()}

# Each may import what stands below it, and its own level where that is a package.
ORDER: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"mcp_server"},
    {"monitor"},
    {"sandbox", "loop", "sanctum", "exposition"},
    {"wording"},
    {"tools"},
    {"service"},
    {"letta"},
    {"index"},
    {"ledger"},
    {"log", "counting"},
    {"durable"},
    {"settings", "extras"},
    {"accounts", "telemetry", "envfile"},
    {"account"},
    {"policy", "slots", "presence", "envelope"},
    {"schedules", "desires"},
    {"overlay", "folding"},
    {"identity", "clocks"},
    {"triggers"},
    {"times"},
    {"zones"},
    {"events"},
    {"versions", "digests", "visible", "patience", "connections"},
    {"instants", "errors", "texts", "addresses"},
    {"__init__"},
]
RANK = {name: rank for rank, level in enumerate(ORDER) for name in level}

LONGER = {
    "service.registering": "every use case of a schedule with the checks that they all share",
    "accounts": "what each event means to an account, and what is left at the end, by one rule",
    "sandbox.http": "one server: its routes and its faults belong side by side",
}
MOST_LINES = 600

# Who else may do what one place is for.
CLOCKS = {"commands", "loop", "sandbox", "cli", "log", "monitor"}


def level(name: str) -> str:
    """The part of the house that a module belongs to."""
    return name.partition(".")[0]


def imports(name: str) -> Iterator[str]:
    """Everything that a module imports, wherever in it, but for the eyes of a type checker too."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            yield node.module or ""
            # `from promptyoself import events` imports a module, not a name.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> set[str]:
    """The parts of the house that a module imports from."""
    found = {
        imported.removeprefix("promptyoself.")
        for imported in imports(name)
        if imported.startswith("promptyoself.")
    }
    return {level(each) for each in found if level(each) in RANK or each in NAMES}


def calls(name: str) -> set[str]:
    """The dotted names that a module calls or mentions."""
    return {ast.unparse(node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)}


def exports(name: str) -> list[str]:
    """What a module says that it exports."""
    for node in TREES[name].body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            found: list[str] = ast.literal_eval(getattr(node, "value"))  # noqa: B009
            return found
    return []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_imports_run_one_way(name: str) -> None:
    """A module imports only from the levels below its own, or from its own package."""
    assert level(name) in RANK or name == "", f"{name} has no place in the order yet"
    if name == "":
        assert not ours(name)
        return
    for imported in ours(name):
        allowed = RANK[imported] > RANK[level(name)] or imported == level(name)
        assert allowed, f"{name} imports {imported}, which stands above it or beside it"


def test_the_packages_are_no_circles() -> None:
    """Within a package too: no module imports, at its top, one that imports it at its top."""

    def top(name: str) -> set[str]:
        found = set()
        for node in TREES[name].body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("promptyoself."):
                found.add((node.module or "").removeprefix("promptyoself."))
        return found & set(NAMES)

    def reach(name: str, seen: set[str]) -> Iterator[str]:
        for imported in top(name) - seen:
            seen.add(imported)
            yield imported
            yield from reach(imported, seen)

    for name in NAMES:
        if name.startswith("sandbox"):
            continue  # its server and its faults know each other; neither is imported by others
        assert name not in set(reach(name, set())), f"{name} imports itself in the end"


@pytest.mark.parametrize(
    ("library", "place"),
    [
        ("letta_client", {"letta"}),
        ("croniter", set()),
        ("filelock", {"ledger"}),
        ("rich", {"commands"}),
        ("dotenv", {"envfile"}),
        ("platformdirs", {"settings"}),
        ("click", {"cli", "commands", "sanctum", "mcp_server"}),
        ("mcp", {"mcp_server"}),
        ("mcp_types", {"mcp_server"}),
        ("anyio", {"mcp_server"}),
        ("uvicorn", {"mcp_server"}),
        ("starlette", {"mcp_server"}),
        ("pydantic", {"mcp_server"}),
        ("isal", {"ledger"}),
        ("cryptography", {"service"}),
        ("prometheus_client", {"exposition"}),
    ],
)
def test_a_library_is_known_in_one_place(library: str, place: set[str]) -> None:
    """Each library is imported by one part of the house, so that it could be replaced there."""
    found = {
        level(name)
        for name in NAMES
        for imported in imports(name)
        if imported.split(".")[0] == library
    }
    assert found <= place


def test_only_one_module_syncs() -> None:
    """P1: the syscalls that durability rests on are made by durable.py alone."""
    for name in NAMES:
        if name != "durable":
            forbidden = {"os.fsync", "os.fdatasync", "os.sync", "os.rename", "os.replace"}
            forbidden |= {"os.truncate", "os.ftruncate", "os.write"}
            assert not calls(name) & forbidden, name


def test_only_the_doors_read_the_clock() -> None:
    """Below the doors, time is an argument: nothing there asks what time it is."""
    for name in NAMES:
        if level(name) not in CLOCKS:
            clocks = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
            clocks |= {"time.time", "time.time_ns", "time.localtime", "time.gmtime"}
            assert not calls(name) & clocks, name


def test_nothing_pure_touches_the_world() -> None:
    """The pure part imports nothing that reads files, sockets, processes or the environment."""
    pure = {"policy", "slots", "schedules", "identity", "triggers", "times", "events"}
    pure |= {"instants", "errors", "texts", "addresses"}
    worldly = {"os", "io", "pathlib", "socket", "subprocess", "threading", "time", "random", "sys"}
    for name in pure:
        assert not {imported.split(".")[0] for imported in imports(name)} & worldly, name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_modules_are_small_and_say_what_they_are(name: str) -> None:
    """Every module has a docstring and says what it exports; few are long, each for a reason."""
    tree = TREES[name]
    assert ast.get_docstring(tree), name
    lines = NAMES[name].read_text().count("\n")
    assert lines <= MOST_LINES or name in LONGER, f"{name} has {lines} lines"
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    exported = exports(name)
    assert exported or not public or level(name) == "commands", name
    if exported:
        defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        defined |= {alias.asname or alias.name for node in ast.walk(tree)
                    if isinstance(node, ast.ImportFrom) for alias in node.names}  # fmt: skip
        assert set(exported) <= public | defined, name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_is_exported_is_explained(name: str) -> None:
    """Every class and function that a module exports has a docstring."""
    for node in TREES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in exports(name):
            assert ast.get_docstring(node), f"{name}.{node.name}"
