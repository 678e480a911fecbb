"""The documentation: what it shows is run, what it lists is compared with the code."""

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

import pytest
from documents import ROOT, Reader, Step, blocks, steps, table

from promptyoself import sandbox
from promptyoself.core.ids import slot_otid
from promptyoself.core.setting_values import SETTINGS
from promptyoself.doors.registry import COMMANDS
from promptyoself.events import records
from promptyoself.events.versions import VERSIONS

RECORDS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page not in RECORDS),
]
LANGUAGES = {"console", "console exact", "sh", "json", "text", "mermaid", "python"}
REASONS = {
    "it installs from a package index",
    "it needs Docker",
    "it needs an account of Letta's cloud",
    "it needs Letta Code",
    "it runs this suite",
    "it sends to somebody",
    "make runs it",
    "a test at a terminal runs it",
    "another test runs it",
    "make test-letta runs it",
    "make test-letta-code runs it",
    "it needs an account",
    "it changes your crontab",
    "it changes the system's services",
    "it waits for Letta's answer for minutes",
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with a sandbox for a Letta."""
    names = ("echo-1", "echo-2", "echo-3")  # those of `promptyoself sandbox`, so the same ids
    with sandbox.Sandbox(names, latency=0.2) as letta:
        reader = Reader(tmp_path, letta.url)
        try:
            yield reader
        finally:
            reader.abandon()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_shows_is_what_one_gets(document: Path, reader: Reader) -> None:
    """Every command shown succeeds, or fails as shown, with an answer of the form shown."""
    todo = list(steps(document.read_text()))
    for program in ("curl", "jq"):
        words = (re.split(r"\W+", step.command) for step in todo)
        if any(program in step_words for step_words in words) and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    for step in todo:
        reader.follow(step)
    reader.leave()


def test_the_audit_that_the_readme_shows_proves_the_link(reader: Reader) -> None:
    """The hash of a line, by sha256sum, is what the next line has for ``prev``."""
    register = "promptyoself register --agent-id a --prompt x --every"
    reader.type(Step(0, f"{register} 1h; {register} 2h", "", exact=False))
    hashed, linked = None, None
    for step in steps((ROOT / "README.md").read_text()):
        if "sha256sum" in step.command:
            hashed = reader.type(step)[0].split()[0]
        elif '"prev"' in step.command:
            linked, _ = reader.type(step)
    assert hashed is not None
    assert linked is not None
    assert hashed in linked


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECORDS], ids=lambda path: path.name)
def test_every_block_is_run_or_says_why_not(document: Path) -> None:
    """A command that isn't run says why, with one of a few reasons; nothing else hides one."""
    for block in blocks(document.read_text()):
        where = f"{document.name}:{block.line}"
        assert block.language in LANGUAGES, where
        assert block.reason is None or block.reason in REASONS, where
        if block.language == "text":
            assert not re.search(r"^(\$ |promptyoself )", block.content, re.MULTILINE), where
        if block.language == "json":
            json.loads(block.content)
        if block.reason is not None:
            for target in re.findall(r"^make (\w+)$", block.content, re.MULTILINE):
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECORDS], ids=lambda path: path.name)
def test_links_resolve(document: Path) -> None:
    """Every link to a file of the repository, and to a heading in it, leads somewhere."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, heading = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in slugs, link


def test_the_index_lists_every_page_once() -> None:
    """docs/index.md links to each page of docs/, and to each no more than once."""
    index = ROOT / "docs" / "index.md"
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\): .", index.read_text(), re.MULTILINE)
    pages = [(index.parent / link).resolve() for link in links]
    assert sorted(pages) == sorted({*DOCUMENTS} - {index, ROOT / "README.md"})


NAMED_FOLDERS = "promptyoself|tests|docs|docker|benchmarks"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_path_that_a_contributor_is_told_exists(name: str) -> None:
    """Files and folders that these pages name are there, also those in diagrams."""
    text = (ROOT / name).read_text()
    paths = re.findall(rf"`((?:{NAMED_FOLDERS})/[\w./-]*)`", text)
    drawn = re.findall(r'"([a-z_]+(?:/[a-z_]+)*(?:\.py|/))[<:]', text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    missing += [path for path in drawn if not (ROOT / "promptyoself" / path).exists()]
    assert paths
    assert not missing


def test_the_architecture_names_every_folder() -> None:
    """docs/architecture.md has a row for each folder of the package, and for no other."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "promptyoself"
    folders = {path.parent for path in package.rglob("*") if path.suffix in (".py", ".yml")}
    rows = re.findall(r"^\| `(promptyoself/[\w/]+)/` \| .", text, re.MULTILINE)
    assert sorted(rows) == sorted(
        str(path.relative_to(ROOT)) for path in folders if path != package
    )


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    """Each word has one entry, where a reader looks for it."""
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = re.findall(r"^- \*\*(.+)\.\*\* ", text, re.MULTILINE)
    assert words == sorted(set(words), key=str.lower)
    # A word in italics leads to its entry, in the plural or as a participle too.
    for word in re.findall(r"(?<!\*)\*([A-Za-z][\w -]*)\*(?!\*)", text):
        assert any(word.lower().startswith(entry.lower()) for entry in words), word


def test_what_is_generated_is_up_to_date() -> None:
    """The generated pages and .env.example are what `make docs` makes of the code as it is."""
    for path, make in run_path(str(ROOT / "docs" / "make_reference.py"))["FILES"].items():
        assert path.read_text() == make(), f"run `make docs`: {path.name} is out of date"


def test_the_readme_has_a_line_for_every_promise() -> None:
    """P1 to P10 each have a row in the README, with a limit beside it."""
    rows = re.findall(r"^\| \*\*P(\d+)\*\* \|(.*)\|(.*)\|$", (ROOT / "README.md").read_text(), re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 11))
    assert all(promise.strip() and limit.strip() for _, promise, limit in rows)


def test_every_command_has_an_example_of_its_answer() -> None:
    """docs/reference/json.md has a heading for each command, and no other below "Answers"."""
    answers = (ROOT / "docs" / "reference" / "json.md").read_text().partition("\n## Answers\n")[2]
    headings = re.findall(r"^### (.*)$", answers.partition("\n## ")[0], re.MULTILINE)
    named = [name for heading in headings for name in re.findall(r"`([a-z-]+)`", heading)]
    assert sorted(named) == sorted(COMMANDS)


# --- what is listed exists, and what exists is listed ---------------------------------------------


@pytest.mark.parametrize("type_", VERSIONS)
def test_every_field_of_every_event_is_described(type_: str) -> None:
    """docs/reference/format.md lists each type's fields in order, and which may be left out."""
    record = records.CLASSES[type_]
    rows = table("format.md", f"`{type_}`")
    assert list(rows) == list(record._fields)
    optional = [name for name, cells in rows.items() if "optional" in cells[0]]
    absent = [name for name, default in record._field_defaults.items() if default is None]
    assert optional == absent


def test_no_event_is_described_that_does_not_exist() -> None:
    """docs/reference/format.md describes the known types and no other."""
    text = (ROOT / "docs" / "reference" / "format.md").read_text()
    assert re.findall(r"^#+ `(\w+\.\w+)`$", text, re.MULTILINE) == list(VERSIONS)


def test_the_faults_of_the_sandbox_are_described() -> None:
    """docs/reference/sandbox.md lists every fault with its parameters, and every route."""
    rows = table("sandbox.md", "The faults")
    assert list(rows) == list(sandbox.FAULTS)
    for name, cells in rows.items():
        assert re.findall(r"`(\w+)`", cells[0]) == list(sandbox.PARAMS.get(name, {})), name
    text = (ROOT / "docs" / "reference" / "sandbox.md").read_text()
    assert all(f"`{route}`" in text for route in sandbox.ROUTES)


def test_the_otid_of_the_example_is_the_one_we_send() -> None:
    """The otid that docs/reference/format.md computes by hand is that of the code."""
    text = (ROOT / "docs" / "reference" / "format.md").read_text()
    found = re.search(r"'(sch_[0-9a-f]{8})\|([^']+)'.*\n([0-9a-f-]{36})", text)
    assert found is not None
    assert slot_otid(found[1], found[2]) == found[3]


RAISED = {
    "PromptyoselfError": 0,
    "WrongUsage": 0,
    "ChainError": 0,
    "DeliveryError": 1,
    "NoticeError": 1,
}
OUTCOMES = {"Failed": 0, "Abandoned": 0, "RunFailure": 0}
COMPUTED: dict[str, set[str]] = {  # a function, and the codes that its expression can come to
    "from_click_error": {
        "unknown_command", "unknown_option", "missing_option", "invalid_value", "wrong_usage",
    },
    "_from_os": {
        "disk_full", "var_not_writable", "var_not_accessible", "var_unusable", "too_many_files",
        "disk_error", "os_error",
    },
    "check_agent_id": {"invalid_agent_id", "invalid_conversation_id", "invalid_on_failure"},
    "check_text": {"invalid_name", "invalid_reason", "invalid_text", "invalid_query"},
    "_invalid": {
        "invalid_misfire", "invalid_target", "invalid_tier", "invalid_daily_budget",
        "invalid_max_repetitions",
    },
    "_find_out": set(),  # passes on what a target says of a run
    "_wait_until_free": set(),  # passes on the target's own code
    "_unknown": {"agent_not_found", "conversation_not_found", "run_not_found"},
    "_gone": {"history_compacted"},
    "summed_up": {"history_compacted"},
    "conversation_lost": {"history_compacted"},
    "turn_after": {"history_compacted"},
    "find": {"history_compacted"},
    "reply": {"history_compacted"},
    "_success": set(),  # passes on what a command answered
}  # fmt: skip


class _Codes(ast.NodeVisitor):
    """Collects the codes that a module gives to errors, and to outcomes of deliveries."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.classes: list[ast.ClassDef] = []
        self.raised: set[str] = set()
        self.outcomes: set[str] = set()
        self.computed: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.functions.append(node.name)
        self.generic_visit(node)
        self.functions.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.classes.append(node)
        self.generic_visit(node)
        self.classes.pop()

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in RAISED:
            self._note(node.args[RAISED[name]], self.raised)
        elif name in OUTCOMES:
            self._note(node.args[OUTCOMES[name]], self.outcomes)
        elif name == "error" and len(node.args) > 2:  # a helper that makes a DeliveryError
            self._note(node.args[1], self.raised)
        elif (
            isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func) == "super().__init__"
            and any(ast.unparse(base) in RAISED for base in self.classes[-1].bases)
        ):
            self._note(node.args[0], self.raised)

    def visit_Dict(self, node: ast.Dict) -> None:
        """An error's document, where there is no package yet that could make it of an exception."""
        self.generic_visit(node)
        fields = {ast.unparse(k): v for k, v in zip(node.keys, node.values, strict=True) if k}
        if (
            ast.unparse(fields.get("'status'", ast.Constant(None))) == "'error'"
            and "'code'" in fields
        ):
            code = fields["'code'"]
            if isinstance(code, ast.Constant):
                self.raised.add(code.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Likewise in a program that is written to a file."""
        if isinstance(node.value, str) and node.value.startswith("#!"):
            self.raised |= set(re.findall(r'"code": "([a-z_]+)"', node.value))

    def _note(self, node: ast.expr, found: set[str]) -> None:
        for part in (node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,):
            if isinstance(part, ast.Constant):
                found.add(part.value)
            elif ast.unparse(part) in ("error.code", "outcome.code"):
                pass  # passed on
            elif self.functions[-1] not in ("error", "__init__"):  # they pass it on
                self.computed.add(self.functions[-1])


@pytest.fixture(scope="module")
def codes() -> _Codes:
    """Every code in the source."""
    found = _Codes()
    for path in sorted((ROOT / "promptyoself").rglob("*.py")):
        found.visit(ast.parse(path.read_text()))
    return found


def test_every_code_is_listed_and_no_other(codes: _Codes) -> None:
    """docs/reference/json.md lists each code that the source can raise, once, and nothing else."""
    assert codes.computed == set(COMPUTED), "say in COMPUTED what these can come to"
    text = (ROOT / "docs" / "reference" / "json.md").read_text()
    section = text.partition("\n## Error codes\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(codes.raised.union(*COMPUTED.values()))


def test_every_code_of_an_outcome_is_listed_and_no_other(codes: _Codes) -> None:
    """docs/reference/json.md lists each code that only the end of a delivery can bear."""
    listed = set(table("json.md", "Codes in delivery events"))
    assert listed == codes.outcomes - codes.raised


def test_what_to_do_is_said_of_codes_that_exist(codes: _Codes) -> None:
    """docs/howto/operating.md names existing codes, and every one that concerns the log."""
    listed = set(table("operating.md", "When something is wrong")) - {"torn_tail"}
    assert listed <= codes.raised.union(*COMPUTED.values())
    log = {"corrupt_chain", "damaged_tail", "chain_missing", "head_not_on_chain", "newer_events"}
    assert listed >= log | {"lock_timeout"}


def test_every_setting_is_in_the_example() -> None:
    """.env.example has each setting, commented out, with its default."""
    text = (ROOT / ".env.example").read_text()
    assert all(f"\n#{setting.name}={setting.default}\n" in text for setting in SETTINGS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_decisions_are_short_and_of_one_form(record: Path) -> None:
    """A decision has its number, a context, a decision and a consequence, in 25 lines at most."""
    text = record.read_text()
    number = int(record.name.partition("-")[0])
    assert [each.name[:4] for each in RECORDS].count(f"{number:04d}") == 1
    assert text.startswith(f"# {number}. ")
    parts = [text.find(f"**{part}.**") for part in ("Context", "Decision", "Consequence")]
    assert -1 < parts[0] < parts[1] < parts[2]
    assert text.count("\n") <= 25
