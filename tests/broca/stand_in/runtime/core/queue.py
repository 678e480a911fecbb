"""The processor of the queue: one item at a time, from pending to completed or failed."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from database.operations.shared import connect

log = logging.getLogger(__name__)

STALE = timedelta(seconds=300)
IDLE = 0.05  # seconds; Broca's own is 1


class QueueProcessor:
    """An answer goes to the handler of the platform that the message came from."""

    def __init__(self, message_processor, message_mode="echo", plugin_manager=None):
        self.message_processor = message_processor
        self.message_mode = message_mode
        self.plugin_manager = plugin_manager
        self._stopped = False

    def set_message_mode(self, mode):
        self.message_mode = mode

    async def start(self):
        self._requeue_stale()
        while not self._stopped:
            item = self._take()
            if item is None:
                await asyncio.sleep(IDLE)
            else:
                await self._process(item)

    async def stop(self):
        self._stopped = True

    def _requeue_stale(self):
        before = (_now() - STALE).isoformat()
        with connect() as database:
            database.execute(
                "UPDATE queue SET status = 'pending', timestamp = ? "
                "WHERE status = 'processing' AND timestamp < ?",
                (_now().isoformat(), before),
            )

    def _take(self):
        database = connect()
        try:
            database.execute("BEGIN IMMEDIATE")
            item = database.execute(
                "SELECT * FROM queue WHERE status = 'pending' ORDER BY timestamp LIMIT 1"
            ).fetchone()
            if item is not None:
                self._set(database, item["id"], "processing")
            database.execute("COMMIT")
            return item
        finally:
            database.close()

    async def _process(self, item):
        with connect() as database:
            message = database.execute(
                "SELECT m.message, p.* FROM messages m "
                "JOIN platform_profiles p ON p.id = m.platform_profile_id WHERE m.id = ?",
                (item["message_id"],),
            ).fetchone()
        # It goes to the agent with these words before it.
        who = f"@{message['username']}, {message['platform'].title()} ID"
        text = f"[Username: {who}: {message['platform_user_id']}] {message['message']}"
        try:
            response = text if self.message_mode == "echo" else await self.message_processor(text)
        except TimeoutError:  # the agent may be at work on it all the same
            with connect() as database:
                self._set(database, item["id"], "failed")
            return
        with connect() as database:
            if not response:  # it is tried again, without limit
                self._set(database, item["id"], "pending", attempts=item["attempts"] + 1)
                return
            database.execute(
                "UPDATE messages SET agent_response = ?, processed = 1 WHERE id = ?",
                (response, item["message_id"]),
            )
            self._set(database, item["id"], "completed")
        handler = self.plugin_manager.get_platform_handler(message["platform"])
        if handler is None:
            log.error("No handler registered for platform %s", message["platform"])
        else:
            await handler(response, message, item["message_id"])

    @staticmethod
    def _set(database, id_, status, attempts=None):
        database.execute(
            "UPDATE queue SET status = ?, timestamp = ?, attempts = coalesce(?, attempts) "
            "WHERE id = ?",
            (status, _now().isoformat(), attempts, id_),
        )


def _now():
    return datetime.now(UTC).replace(tzinfo=None)
