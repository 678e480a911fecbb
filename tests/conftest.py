"""What many tests share: a data directory of their own, and a clock that they turn by hand."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from calling import clean_environ, use_environ
from chains import use_chain
from tally import EXPLORES, SCALE

from promptyoself.core import diagnostics
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from broca.brocas import Broca
    from dispatch import Place
    from letta_code.server import LettaCode
    from lettas import Letta

    from promptyoself.sandbox import Sandbox


# Where nothing is to be explored, hypothesis tries the same examples in every run: what fails on
# one machine fails on the next. A busy machine is no counterexample, in whichever run.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    **({} if EXPLORES else {"derandomize": True}),
)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that sets itself a time limit gets more of it where it has more rounds."""
    for item in items if SCALE > 1 else ():
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args:
            item.add_marker(pytest.mark.timeout(limit.args[0] * SCALE), append=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the real Lettas and a Docker engine are; `make test-letta`, `make test-letta-code` and
    `make test-docker` say it."""
    parser.addoption(
        "--real-letta",
        metavar="PYTHON",
        help="run what is about any Letta against a real server too: the Python that it is "
        "installed for, as tests/letta_server/build.py prints it",
    )
    parser.addoption(
        "--letta-code",
        metavar="PROGRAM",
        action="append",
        default=[],
        help="run what is about Letta Code against a real App Server: its `letta`, as "
        "tests/letta_code/build.py prints it; once for each version to be tried",
    )
    parser.addoption(
        "--broca",
        metavar="DIR",
        help="run what is about Broca against this checkout too, as tests/broca/run_real.py does",
    )
    parser.addoption(
        "--broca-python",
        metavar="PYTHON",
        default=sys.executable,
        help="the Python that has the packages of that Broca, and promptyoself",
    )
    parser.addoption(
        "--engine",
        metavar="WORDS",
        help="run the containers: the words before `docker`, as docker/engine.sh takes them, or "
        "`env` for this machine's own Docker",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which versions of Letta Code are tried."""
    programs = config.getoption("letta_code")
    return f"Letta Code: {', '.join(map(version, programs))}" if programs else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is about any Letta runs against the sandbox, and against a real one where there is.
    What is about Letta Code runs against each version of it that there is."""
    if "any_letta" in metafunc.fixturenames:
        kinds = ["sandbox", "real"] if metafunc.config.getoption("real_letta") else ["sandbox"]
        metafunc.parametrize("any_letta", kinds, indirect=True)

    if "any_broca" in metafunc.fixturenames:
        real = metafunc.config.getoption("broca")
        folders = [Path(__file__).parent / "broca" / "stand_in", *([Path(real)] if real else [])]
        metafunc.parametrize("any_broca", folders, ids=["stand-in", "real"][: len(folders)])

    if "letta_code_program" in metafunc.fixturenames:
        programs = metafunc.config.getoption("letta_code")
        without = pytest.mark.skip("it needs a real Letta Code: make test-letta-code")
        metafunc.parametrize(
            "letta_code_program",
            [Path(program) for program in programs] or [pytest.param(None, marks=without)],
            ids=[f"letta-{version(program)}" for program in programs] or ["letta"],
            scope="session",
        )


@functools.cache
def version(program: str) -> str:
    """The version of a Letta Code."""
    from letta_code.server import version

    return version(Path(program))


@pytest.fixture(scope="session")
def letta_code(
    letta_code_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LettaCode]:
    """The one App Server of the whole session, for what leaves it as it is. It runs."""
    from letta_code.server import LettaCode

    with LettaCode(letta_code_program, tmp_path_factory.mktemp("letta-code")) as server:
        yield server.start()


@pytest.fixture
def new_letta_code(
    letta_code_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LettaCode]]:
    """Makes App Servers of this test's own, with the given options. They run."""
    from letta_code.server import LettaCode

    with ExitStack() as servers:

        def make(*options: str) -> LettaCode:
            folder = tmp_path_factory.mktemp("letta-code")
            return servers.enter_context(LettaCode(letta_code_program, folder, *options)).start()

        yield make


@pytest.fixture(scope="session")
def real_letta_server(pytestconfig: pytest.Config) -> Iterator[Letta]:
    """The one real server of the whole session."""
    from lettas import real_letta

    with real_letta(pytestconfig.getoption("real_letta")) as server:
        yield server


@pytest.fixture
def any_letta(request: pytest.FixtureRequest) -> Iterator[Letta]:
    """A Letta: a sandbox without agents, or the real server, with those that others have made."""
    from lettas import SandboxLetta

    from promptyoself.sandbox import Sandbox

    if request.param == "real":
        server: Letta = request.getfixturevalue("real_letta_server")
        yield server
        server.finish()
    else:
        with Sandbox(()) as sandbox:
            yield SandboxLetta(sandbox)


@pytest.fixture
def broca(any_broca: Path, tmp_path: Path, pytestconfig: pytest.Config) -> Broca:
    """A Broca of this test's own: of the stand-in, and with ``--broca`` of a real checkout too."""
    from broca.brocas import new_broca

    return new_broca(any_broca, tmp_path / "broca", pytestconfig.getoption("broca_python"))


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, var: Path) -> Iterator[Sandbox]:
    """A sandbox with two agents, as the server of every command called in this process."""
    from promptyoself.sandbox import Sandbox

    with Sandbox(("echo", "other"), latency=0.02) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        yield sandbox


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A data directory with dispatchers, and a Letta that fails on demand."""
    from dispatch import Place

    place = Place(tmp_path / "var")
    yield place
    place.close()


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hidden in one test's messages (a token of one character, say) isn't in another's."""
    monkeypatch.setattr(diagnostics, "_secrets", set())


class Clock:
    """The time at the door of every command called in this process."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def advance(self, **duration: float) -> datetime:
        """Let time pass."""
        self.now += timedelta(**duration)
        return self.now

    def set(self, text: str) -> None:
        """Set it to a time in UTC."""
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for a data directory, named by the environment; all else at its default."""
    folder = tmp_path / "var"
    use_environ(monkeypatch, folder)
    return folder


@pytest.fixture
def environ(var: Path) -> dict[str, str]:
    """The same for commands in processes of their own."""
    return clean_environ(var)


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory where there is one: for tests that make a thousand chains, on which
    syncing means nothing anyhow."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def folder(quick_path: Path) -> Path:
    """Where a test makes a chain."""
    return quick_path / "s"


@pytest.fixture(params=["schedules", "desires"])
def both_chains(request: pytest.FixtureRequest) -> Iterator[str]:
    """For the tests of what both chains promise: each runs once for either."""
    use_chain(request.param)
    yield request.param
    use_chain("schedules")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands at noon of 2026-11-20 (UTC) until the test turns it."""
    turned = Clock(datetime(2026, 11, 20, 12, tzinfo=UTC))
    monkeypatch.setattr(Session, "now", lambda _: turned.now)
    return turned
