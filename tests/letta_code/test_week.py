"""docs/tutorial/week.md: a week of three agents on two targets, typed day by day with a real Letta
Code, a sandbox for a Letta server, and a webhook that takes the digests."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from app_servers import free_port
from documents import ROOT, Reader, Step, check, steps
from webhooks import webhook

from promptyoself.sandbox import Sandbox
from promptyoself.sandbox.echo_model import HANDLE, EchoModel
from promptyoself.service.letta_code.supervisor import QUIET

PAGE = ROOT / "docs" / "tutorial" / "week.md"
REASON = "make test-letta-code runs it"

COMMAND = f"""#!{sys.executable}
# promptyoself as it is, at the time that the page has come to.
import os, sys
from datetime import datetime
from promptyoself.doors.session import Session
Session.now = lambda self: datetime.fromisoformat(os.environ["NOW"])
from promptyoself.cli import main
sys.exit(main())
"""


def days(text: str) -> Iterator[tuple[str, str]]:
    """The parts of the page, each with the time that a comment before it names."""
    parts = re.split(r"^<!-- the clock: (.*) -->$", text, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def test_a_week_of_three_agents(letta_code_program: Path, tmp_path: Path) -> None:
    """Each command of the page answers as shown; each digest and each answer arrives once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "promptyoself").write_text(COMMAND)
    (folder / "promptyoself").chmod(0o755)
    with (
        EchoModel() as model,
        Sandbox(("Iris", "Otto"), latency=0.05) as letta,
        webhook() as home,
    ):
        reader = Reader(tmp_path, letta.url, patience=60)
        path = reader.environ["PATH"]
        reader.environ |= dict(
            **QUIET,
            PATH=os.pathsep.join([str(folder), path, str(letta_code_program.parent)]),
            PROMPTYOSELF_LETTA_CODE_URL=f"ws://127.0.0.1:{free_port()}",
            PROMPTYOSELF_TZ="UTC",
            MODEL=HANDLE,
            HOOK=home.url,
            IRIS=letta.agents[0],
            OTTO=letta.agents[1],
        )
        connect = f"connect openai-compatible --base-url {model.url} --api-key none"
        try:
            reader.type(Step(0, f"letta --backend local {connect}", "", exact=False))
            for now, part in days(PAGE.read_text()):
                reader.environ["NOW"] = now
                for step in steps(part, REASON):
                    is_server = "letta-code up" in step.command
                    clock = "" if is_server else f"export NOW={now}\n"
                    check(step, *reader.type(step._replace(command=clock + step.command)))
            reader.leave()
        finally:
            reader.abandon()
        sums = json.loads(reader.type(Step(0, "promptyoself audit", "", exact=False))[0])
        assert (sums["totals"]["delivered"], sums["totals"]["failed"]) == (19, 1)
        assert sums["answers"] == {"replied": 19, "unanswered": 0, "awaited": 0}
        assert sums["notices"] == {"sent": 20, "failed": 0, "owed": 0}
        kinds = [request.json["type"] for request in home.received]
        assert len(set(home.ids)) == len(home.ids)
        assert kinds.count("notice.digest") == 7
        assert kinds.count("notice.reply") == 12
        assert kinds.count("notice.failure") == 1
