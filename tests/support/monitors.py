"""A monitor to be asked, and what it shows, parsed."""

from datetime import UTC, datetime
from typing import Any

from calling import AGENT, call
from dispatch import FakeLetta
from prometheus_client.parser import text_string_to_metric_families

from promptyoself.core.settings import load_settings
from promptyoself.doors.monitor import Monitor
from promptyoself.events.target_names import TargetName
from promptyoself.service.delivery.loop import Heartbeat
from promptyoself.store.store import Store


class Watched:
    """A monitor of a data directory, with a heartbeat that is set by hand."""

    def __init__(self, letta: Any = None) -> None:
        call("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h").success()
        self.settings = load_settings()
        self.heartbeat = Heartbeat()
        self.warnings: list[str] = []
        self.letta = letta or FakeLetta()
        self.targets: dict[TargetName, Any] = {"letta": self.letta}
        self.monitor = Monitor(self.store, self.heartbeat, self.targets, lambda: datetime.now(UTC))

    def store(self) -> Store:
        return Store(self.settings, {"via": "t", "who": "t"}, warn=self.warnings.append)


def parsed(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples of an exposition: by metric, then by the values of the labels."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples
