"""Measuring, for a Prometheus."""

from __future__ import annotations

import sys

from promptyoself.doors.command import command
from promptyoself.doors.session import Session


@command("metrics")
def metrics_command(session: Session) -> None:
    """Print metrics in Prometheus's text format; needs the package prometheus-client.

    They are counted from the log, so that every process says the same; `execute --loop
    --metrics-port` serves them too, with what only the loop knows. Errors are JSON.
    """
    from promptyoself.service.metrics.collect import Measurer
    from promptyoself.service.metrics.prometheus import render, require_library

    require_library()
    text = render(Measurer(session.reading()).measure(session.now()))
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
