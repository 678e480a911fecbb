"""docs/tutorial/letta-code.md, typed with a real Letta Code and a model that echoes."""

import os
from pathlib import Path

from app_servers import free_port
from documents import ROOT, Reader, Step, steps

from promptyoself.sandbox.echo_model import HANDLE, EchoModel
from promptyoself.service.letta_code.supervisor import QUIET

PAGE = ROOT / "docs" / "tutorial" / "letta-code.md"


def test_the_tutorial_is_what_one_gets(letta_code_program: Path, tmp_path: Path) -> None:
    """Every command of the page that needs no account answers as shown, and the agent's answer is
    read at the end."""
    with EchoModel() as model:
        reader = Reader(tmp_path, "http://127.0.0.1:1", patience=60)
        reader.environ |= dict(
            **QUIET,
            PATH=f"{reader.environ['PATH']}{os.pathsep}{letta_code_program.parent}",
            PROMPTYOSELF_LETTA_CODE_URL=f"ws://127.0.0.1:{free_port()}",
            PROMPTYOSELF_TZ="UTC",
            MODEL=HANDLE,
        )
        connect = f"connect openai-compatible --base-url {model.url} --api-key none"
        try:
            reader.type(Step(0, f"letta --backend local {connect}", "", exact=False))
            for step in steps(PAGE.read_text(), "make test-letta-code runs it"):
                reader.follow(step)
            reader.leave()
        finally:
            reader.abandon()
