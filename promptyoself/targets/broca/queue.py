"""The queue of one Broca, as a target.

A prompt is put in with three rows in one transaction: Broca's message, Broca's queue item, and our
own note of the otid. So it is in the queue exactly once, whatever is killed when, and the note
tells definitely whether it is. From there on it is Broca's: Broca sends it to the agent with an id
of its own at each of its attempts, so an agent may have it twice where Broca is killed in a turn.

Broca takes one item at a time. So nothing has to end before a prompt may be put in, and a prompt
that waited for a free moment outside would lose its place to everybody who writes meanwhile.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import NamedTuple

from promptyoself.core.times import shown
from promptyoself.events.target_names import DEFAULT, is_route
from promptyoself.targets.api import (
    HISTORY_GAP,
    Agent,
    DeliveryError,
    Found,
    Message,
    Reply,
    Run,
    RunFailure,
    Sent,
    Target,
    Traits,
)
from promptyoself.targets.broca.database import SENT, BrocaDatabase
from promptyoself.targets.broca.fitness import Misfit
from promptyoself.targets.http import MOST_BYTES

_RUN = "broca-"
"""What stands before the number of a queue item in the id of its run."""

_MOST_REMEMBERED = 10_000

_NOW = "SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"
"""The time in UTC as Broca writes it, to the millisecond. The order of its queue rests on that."""

_STATUSES = {"pending": "created", "processing": "running"}
"""What a run is called whose item has this status and isn't over."""

_ITEM = f"""
    SELECT sent.otid, sent.queue_id, sent.message_id, sent.agent_id, sent.at,
           queue.status, queue.timestamp, messages.processed
    FROM {SENT} AS sent
    LEFT JOIN queue ON queue.id = sent.queue_id
    LEFT JOIN messages ON messages.id = sent.message_id
"""


class _Item(NamedTuple):
    """A prompt that was put into the queue, and what has become of it."""

    otid: str
    queue_id: int
    message_id: int
    agent_id: str
    at: str
    status: str | None  # of the item in Broca's queue; None: it was deleted
    timestamp: str | None  # when it got that status
    processed: int | None  # whether Broca has noted an answer; None: the message was deleted

    @property
    def run_id(self) -> str:
        return f"{_RUN}{self.queue_id}"

    @property
    def is_answered(self) -> bool:
        """Whether the agent has answered it. Broca notes that before the item's own status."""
        return self.status == "completed" or bool(self.processed)

    @property
    def is_flushed(self) -> bool:
        return self.status == "flushed" and not self.is_answered

    @property
    def is_lost(self) -> bool:
        """Whether nothing more will come of it, though the agent may have read it."""
        return self.status in ("failed", None) and not self.is_answered

    @property
    def is_active(self) -> bool:
        return not (self.is_answered or self.is_flushed or self.is_lost)


class BrocaQueue(Target):
    """The queue of the Broca of one agent. For what its methods promise, see its base class.

    Args:
        agent_id: the agent that this Broca talks to.
        database: the path of Broca's database.
        default_route: the user that a prompt without a conversation goes to, as ``PLATFORM:USER``.
        misfits: what would have Broca echo or repeat prompts, asked before each.
        call_timeout: seconds that one call waits for a lock on the database.
    """

    traits = Traits(
        "broca",
        run_proves_arrival=True,
        lists_runs=False,
        busy_code="broca_busy",
        clock_margin=timedelta(seconds=1),
    )

    def __init__(
        self,
        agent_id: str,
        database: str,
        default_route: str | None,
        *,
        misfits: Callable[[], Sequence[Misfit]],
        call_timeout: float = 30.0,
    ) -> None:
        self._agent_id = agent_id
        self._default_route = default_route
        self._database = BrocaDatabase(database, timeout=call_timeout)
        self._misfits = misfits
        self._lock = Lock()  # of the next two
        self._known = 0
        self._sent: dict[str, None] = {}  # the otids that this process has put in, oldest first

    def remember(self, queue_id: int) -> None:
        """Take in the greatest number of an item that the log tells of. A database that has come
        less far is an older copy, whose silence about a prompt means nothing."""
        with self._lock:
            self._known = max(self._known, queue_id)

    def active_runs(self, message: Message) -> list[Run]:
        if message.agent_id != self._agent_id:
            return []
        item = self._look(message)[0]
        return [_run_of(item)] if item is not None and item.is_active else []

    def all_active_runs(self) -> list[Run] | None:
        return None

    def ended_runs(self, most: int) -> list[Run]:  # noqa: ARG002
        return []

    def send(self, message: Message) -> Sent:
        self._require_agent(message)
        self._require_fit()
        with self._database.writing() as connection:
            item = _item(connection, "sent.otid", message.otid)
            queue_id = self._put_in(connection, message) if item is None else item.queue_id
        self.remember(queue_id)
        with self._lock:
            self._sent[message.otid] = None
            if len(self._sent) > _MOST_REMEMBERED:
                del self._sent[next(iter(self._sent))]
        return Sent(f"{_RUN}{queue_id}")

    def run(self, run_id: str) -> Run:
        number = run_id.removeprefix(_RUN)
        item = None
        if run_id.startswith(_RUN) and number.isascii() and number.isdecimal():
            with self._database.reading() as connection:
                if self._database.has_sent_table(connection):
                    item = _item(connection, "sent.queue_id", number)
        if item is None:
            message = f"Broca's database has no {shown(run_id)} of ours."
            raise DeliveryError("permanent", "run_not_found", message)
        return _run_of(item)

    def failure(self, run: Run) -> RunFailure:
        if run.status == "cancelled":
            return RunFailure("broca_flushed", run.error or "", permanent=True)
        return RunFailure("run_failed", run.error or "The run has failed.")

    def find(self, message: Message, since: datetime) -> Found | None:  # noqa: ARG002
        self._require_agent(message)
        item, is_older_copy = self._look(message)
        if item is None:
            if is_older_copy:
                raise DeliveryError(
                    "permanent",
                    HISTORY_GAP,
                    "Broca's database is an older copy than the one that prompts were put into, so "
                    "it can't be told whether this one was.",
                )
            return None
        if item.is_lost:
            raise DeliveryError("permanent", HISTORY_GAP, _error_of(item) or "")
        if not item.is_answered:
            return None
        date = _instant(item.at)
        return Found(f"{_RUN}message-{item.message_id}", item.run_id, date, answered=True)

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:  # noqa: ARG002
        self._require_agent(message)
        with self._database.reading() as connection:
            item = None
            if self._database.has_sent_table(connection):
                item = _item(connection, "sent.otid", message.otid)
            size = text = None
            if item is not None:
                rows = connection.execute(
                    "SELECT length(CAST(agent_response AS BLOB)), "
                    "substr(CAST(agent_response AS BLOB), 1, ?) FROM messages WHERE id = ?",
                    (MOST_BYTES, item.message_id),
                )
                size, text = rows.fetchone() or (None, None)
        if size is not None and size > MOST_BYTES:
            error = f"The answer has {size} bytes; {MOST_BYTES} are taken in at most."
            raise DeliveryError("permanent", "reply_too_large", error)
        if item is not None and text is not None:
            return Reply(text.decode("utf-8", "replace"), date=_instant(item.timestamp))
        if item is not None and item.is_active:
            return None
        if item is not None and item.status == "failed":
            return Reply(None)
        raise DeliveryError("permanent", HISTORY_GAP, "Broca's database has no answer to it.")

    def agents(self) -> list[Agent]:
        return [Agent(self._agent_id, self._agent_id)]

    def agent(self, agent_id: str) -> Agent | None:
        return Agent(agent_id, agent_id) if agent_id == self._agent_id else None

    def health(self) -> str:
        with self._database.reading():
            return f"{sqlite3.sqlite_version} of SQLite"

    def check(self) -> None:
        self._require_fit()
        with self._database.reading():
            pass

    def close(self) -> None:
        """Every call has a connection of its own, which it closes."""

    # -- how it is done

    def _look(self, message: Message) -> tuple[_Item | None, bool]:
        """The prompt in the queue, if it is there; and whether the database is an older copy, so
        that it means nothing if it isn't."""
        with self._lock:
            known, was_sent = self._known, message.otid in self._sent
        with self._database.reading() as connection:
            if not self._database.has_sent_table(connection):
                return None, known > 0
            item = _item(connection, "sent.otid", message.otid)
            latest = connection.execute(f"SELECT max(queue_id) FROM {SENT}").fetchone()[0] or 0
        return item, was_sent or latest < known

    def _put_in(self, connection: sqlite3.Connection, message: Message) -> int:
        """Put a prompt into the queue; returns the number of its item."""
        profile_id, user_id = self._user(connection, message)
        (now,) = connection.execute(_NOW).fetchone()
        message_id = connection.execute(
            "INSERT INTO messages (letta_user_id, platform_profile_id, role, message, timestamp) "
            "VALUES (?, ?, 'user', ?, ?)",
            (user_id, profile_id, message.text, now),
        ).lastrowid
        queue_id = connection.execute(
            "INSERT INTO queue (letta_user_id, message_id, status, attempts, timestamp) "
            "VALUES (?, ?, 'pending', 0, ?)",
            (user_id, message_id, now),
        ).lastrowid
        connection.execute(
            f"INSERT INTO {SENT} (otid, queue_id, message_id, agent_id, at) VALUES (?, ?, ?, ?, ?)",
            (message.otid, queue_id, message_id, self._agent_id, now),
        )
        assert queue_id is not None
        return queue_id

    def _user(self, connection: sqlite3.Connection, message: Message) -> tuple[int, int]:
        """The user's profile, and the user, to whom the answer goes."""
        route = message.conversation
        if route == DEFAULT:
            if self._default_route is None:
                raise DeliveryError(
                    "permanent",
                    "missing_route",
                    "The schedule names no user of Broca's, and Broca's plugin has no default.",
                    "Give it one: `promptyoself modify --id ID --conversation PLATFORM:USER`; or "
                    'set "default_route" under plugins.promptyoself in Broca\'s settings.json.',
                )
            route = self._default_route
        platform, _, user = route.partition(":")
        row = None
        if is_route(route):
            row = connection.execute(
                "SELECT id, letta_user_id FROM platform_profiles "
                "WHERE platform = ? AND platform_user_id = ?",
                (platform, user),
            ).fetchone()
        if row is None:
            raise DeliveryError(
                "permanent",
                "conversation_not_found",
                f"Broca knows no user {shown(route)} (PLATFORM:USER).",
                "Broca knows those who have written to its agent there once.",
            )
        return row[0], row[1]

    def _require_agent(self, message: Message) -> None:
        if message.agent_id != self._agent_id:
            raise DeliveryError(
                "permanent",
                "agent_not_found",
                f"This Broca talks to {self._agent_id}, and not to agent {message.agent_id}.",
                "Broca's AGENT_ID says which agent it talks to.",
            )

    def _require_fit(self) -> None:
        for misfit in self._misfits():
            raise DeliveryError("retry", "broca_unfit", misfit.message, misfit.hint)


def _item(connection: sqlite3.Connection, column: str, value: str) -> _Item | None:
    row = connection.execute(f"{_ITEM} WHERE {column} = ?", (value,)).fetchone()
    return None if row is None else _Item(*row)


def _run_of(item: _Item) -> Run:
    if item.is_answered:
        status = "completed"
    elif item.is_active:
        status = _STATUSES.get(item.status or "", "running")
    else:
        status = "failed" if item.status == "failed" else "cancelled"
    return Run(item.run_id, item.agent_id, status, item.otid, _instant(item.at), _error_of(item))


def _error_of(item: _Item) -> str | None:
    """What went wrong with an item that nothing more will come of."""
    if item.is_flushed:
        return f"Item {item.queue_id} was flushed from Broca's queue while it waited there."
    if not item.is_lost:
        return None
    what = "was deleted from" if item.status is None else "has failed in"
    told = "It can't be told whether the agent has read it."
    return f"Item {item.queue_id} {what} Broca's queue. {told}"


def _instant(text: str | None) -> datetime | None:
    """A time of Broca's: UTC, without saying so."""
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=UTC)
    except ValueError:
        return None
