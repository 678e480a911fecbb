"""Conversations of a Letta: whose one is, and the one that is made for a message.

A conversation that is made for a message has the message's otid in its summary. Letta finds
conversations by a part of their summary. So whoever looks later finds the one that there is, even
where the process that made it never heard of it.
"""

from promptyoself.targets.api import DeliveryError, Message
from promptyoself.targets.letta.calls import Calls, text_of

_MOST_REMEMBERED = 10_000
_LONGEST_TITLE = 100  # characters


class Conversations:
    """The conversations of one Letta. For many threads at once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._owners: dict[str, str] = {}

    def require_owner(self, conversation_id: str, agent_id: str) -> None:
        """Check that a conversation is this agent's.

        Letta would deliver a message to the other agent, and we would search the wrong history.

        Raises:
            DeliveryError: any kind. ``permanent`` with ``conversation_of_another_agent`` or
                ``conversation_not_found``.
        """
        owner = self._owners.get(conversation_id)
        if owner is None:
            row = self._calls.fetch(
                "asking for a conversation",
                lambda c: c.conversations.with_raw_response.retrieve(conversation_id),
                conversation=conversation_id,
            )
            owner = text_of(row, "agent_id")
            if owner is None:
                raise self._calls.failures.unreadable("asking for a conversation")
            if len(self._owners) > _MOST_REMEMBERED:
                self._owners.clear()
            self._owners[conversation_id] = owner
        if owner != agent_id:
            raise DeliveryError(
                "permanent",
                "conversation_of_another_agent",
                f"Conversation {conversation_id} belongs to {owner}, not to {agent_id}.",
                "Cancel the schedule and register it with the agent that has the conversation.",
            )

    def made_for(self, message: Message) -> str | None:
        """The conversation that was made for a message, if there is one.

        Raises:
            DeliveryError: any kind but ``busy``.
        """
        rows = self._calls.rows(
            "listing conversations",
            lambda c: c.conversations.with_raw_response.list(
                agent_id=message.agent_id,
                # Not as arguments, since early releases of the SDK lack some. An archived one is
                # as good as another. A server that can't search answers with those made last.
                extra_query={
                    "summary_search": message.otid,
                    "archive_status": "all",
                    "order": "desc",
                },
            ),
        )
        # If there should be several, then the one that was made first.
        made = [row["id"] for row in rows if message.otid in (text_of(row, "summary") or "")]
        return made[-1] if made else None

    def make(self, message: Message) -> str:
        """The conversation that was made for a message, or else a new one.

        Raises:
            DeliveryError: any kind. In doubt one may have been made, which is found later. Only
                then may it: if merely looking fails, that is ``retry``.
        """
        try:
            conversation_id = self.made_for(message)
        except DeliveryError as error:
            if error.kind == "doubt":
                error.kind = "retry"
            raise
        if conversation_id is not None:
            return conversation_id
        title = message.title[:_LONGEST_TITLE]
        row = self._calls.fetch(
            "beginning a conversation",
            lambda c: c.conversations.with_raw_response.create(
                agent_id=message.agent_id,
                extra_body={"summary": f"{title} [{message.otid}]".strip()},
            ),
            agent=message.agent_id,
        )
        conversation_id = text_of(row, "id")
        if conversation_id is None:
            raise self._calls.failures.unreadable("beginning a conversation", row, 200)
        return conversation_id
