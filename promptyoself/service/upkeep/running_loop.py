"""Whether anything delivers: a loop, or passes of ``execute``, which cron may start.

A loop holds a lock while it lives. A pass sets the time of an empty file in the data directory.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from promptyoself.events.target_names import serves
from promptyoself.store.store import Store

RECENT_PASS = timedelta(hours=1)
"""A pass within this time counts. Passes that cron starts come more often."""

_FILE = "last-pass"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def record_pass(store: Store, now: datetime) -> None:
    """Record a pass at ``now``, if there is a data directory. A pass for one agent alone doesn't
    count, since it delivers nothing to the others. Never fails."""
    if store.settings.only_agent is not None:
        return
    path, seconds = store.settings.var / _FILE, now.timestamp()
    with suppress(OSError, OverflowError):
        with suppress(FileExistsError):
            os.close(os.open(path, _FLAGS, 0o600))
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def last_pass(store: Store) -> datetime | None:
    """When `execute` last made a pass over this data directory; ``None`` if that isn't known."""
    try:
        seconds = os.lstat(store.settings.var / _FILE).st_mtime
        return datetime.fromtimestamp(seconds, UTC)
    except (OSError, OverflowError, ValueError):
        return None


def no_broca_loop_warning(store: Store, agent_ids: Iterable[str]) -> str | None:
    """A sentence about agents whose prompts go through a Broca, if no loop lives inside that;
    else ``None``."""
    agents = sorted(set(agent_ids))
    living = store.workers.living() if agents else []
    alone = [
        agent_id
        for agent_id in agents
        if not any(serves(worker, "broca", agent_id) for worker in living)
    ]
    if not alone:
        return None
    who = f"{alone[0]} and {len(alone) - 1} more" if len(alone) > 1 else alone[0]
    return (
        f"No loop is running inside the Broca of {who}, and no other loop can put prompts into its "
        "queue. They wait until it is started."
    )


def no_loop_warning(store: Store, now: datetime) -> str | None:
    """A sentence for a caller that wants deliveries, if no loop lives and no pass was made lately;
    else ``None``."""
    seen = last_pass(store)
    if seen is not None and abs(now - seen) <= RECENT_PASS:
        return None
    if store.workers.anyone():
        return None
    return (
        "No loop is running, so nothing is delivered for now. Start `promptyoself execute --loop`, "
        "or have `promptyoself execute` run from cron."
    )
