"""Which versions of Letta Code are tried: the pinned one, and the newest on the index."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def wheel(folder: Path, version: str) -> None:
    """A package `letta` of this version, whose program says it."""
    info = f"letta-{version}.dist-info"
    files = {
        "letta_code.py": f"def main():\n    print('{version} (Letta Code)')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: letta\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nletta = letta_code:main\n",
    }
    rows = []
    with zipfile.ZipFile(folder / f"letta-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            rows.append(f"{name},sha256={digest.decode()},{len(text)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A package index with the pinned version alone."""
    folder = tmp_path / "index" / "letta"
    folder.mkdir(parents=True)
    wheel(folder, "0.34.12")
    publish(folder)
    return folder


def publish(folder: Path) -> None:
    """Write the index's page about `letta`."""
    links = "".join(f'<a href="{file.name}">{file.name}</a>\n' for file in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """The script."""
    for folder, name in (("letta_code", "build.py"), ("support", "environments.py")):
        (tmp_path / folder).mkdir()
        shutil.copy(HERE.parent / folder / name, tmp_path / folder)
    (tmp_path / "letta_code" / "requirements.txt").write_text("letta==0.34.12\n")
    return tmp_path / "letta_code" / "build.py"


def build(builder: Path, index: str) -> tuple[list[str], str]:
    """The versions of the programs that it prints, and what it says besides."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ = {
        **kept,
        "XDG_CACHE_HOME": str(builder.parents[1] / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index,
        "PIP_RETRIES": "0",
    }
    done = subprocess.run(
        [sys.executable, builder, "--newest"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    programs = done.stdout.splitlines()
    shown = [
        subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()[0]
        for program in programs
    ]
    return shown, done.stderr


def test_the_pinned_one_and_the_newest(builder: Path, index: Path) -> None:
    """If the newest release is newer, both are installed. If it is the pinned one or older, or the
    index can't be reached, the pinned one is, and the output says why."""
    versions, said = build(builder, index.parent.as_uri())
    assert versions == ["0.34.12"]
    assert "The newest release on the package index is the pinned one, letta==0.34.12." in said
    assert said.endswith("The pinned one alone is tried.\n")
    versions, said = build(builder, "http://127.0.0.1:9/simple")
    assert versions == ["0.34.12"]
    assert said == (
        "The package index can't be reached, so the newest release is unknown. "
        "The pinned one alone is tried.\n"
    )
    (index / "letta-0.34.12-py3-none-any.whl").unlink()  # as if it had been withdrawn
    wheel(index, "0.34.9")
    publish(index)
    versions, said = build(builder, index.parent.as_uri())
    assert versions == ["0.34.12"]
    assert "The newest release on the package index, letta==0.34.9, is older than" in said
    wheel(index, "0.35.0")
    publish(index)
    versions, said = build(builder, index.parent.as_uri())
    assert versions == ["0.34.12", "0.35.0"]
    assert "alone" not in said
