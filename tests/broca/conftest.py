"""A Broca for each test: the stand-in, and with ``--broca`` a copy of a real checkout too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from brocas import Broca


@pytest.fixture(scope="session")
def made_brocas() -> dict[Path, Broca]:
    """Brocas as they are at first, which take a moment to make."""
    return {}


@pytest.fixture
def broca(
    any_broca: Path,
    made_brocas: dict[Path, Broca],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Broca:
    """A Broca of this test's own."""
    if any_broca not in made_brocas:
        python = str(pytestconfig.getoption("broca_python"))
        folder = tmp_path_factory.mktemp("broca") / "checkout"
        made_brocas[any_broca] = Broca(any_broca, folder, python)
    made = made_brocas[any_broca]
    broca = Broca.__new__(Broca)
    broca.__dict__.update(made.__dict__, environ=dict(made.environ))
    plugins = {name: dict(given) for name, given in made.settings["plugins"].items()}
    broca.settings = {**made.settings, "plugins": plugins}
    broca.folder = tmp_path / "broca"
    broca.database = broca.folder / "broca.db"
    broca.environ["DB_PATH"] = str(broca.database)
    shutil.copytree(made.folder, broca.folder)
    return broca
