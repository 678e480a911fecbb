"""What passes of a worker tell of themselves."""

from typing import Any, NamedTuple


class Report(NamedTuple):
    """What a pass did."""

    executed: list[dict[str, Any]]  # a line per slot that was tried, or has its outcome
    skipped: list[dict[str, Any]]  # a line per range of skipped slots
    replies: list[dict[str, Any]]  # a line per answer that was read, or won't come
    notices: list[dict[str, Any]]  # a line per notice that was sent, or wasn't taken

    def __bool__(self) -> bool:
        return any(self)

    def add(self, other: "Report") -> None:
        """Take in what another pass did."""
        for lines, more in zip(self, other, strict=True):
            lines.extend(more)


def nothing_done() -> Report:
    """The report of a pass that has nothing to tell."""
    return Report([], [], [], [])


def of_notices(lines: list[dict[str, Any]]) -> Report:
    """The report of what became of notices."""
    return nothing_done()._replace(notices=lines)
