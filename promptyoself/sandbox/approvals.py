"""What the sandbox's agents ask people to approve of, and what people answer."""

from __future__ import annotations

from typing import Any, NamedTuple


class Request(NamedTuple):
    """A call of a tool that waits for an answer."""

    call_id: str
    tool: str
    text: str  # what the agent says once it has the answer
    asks: int  # how many such calls the agent makes, one after the other

    def next(self, call_id: str) -> Request | None:
        """The request that follows this one, if there is one."""
        return self._replace(call_id=call_id, asks=self.asks - 1) if self.asks > 1 else None


class Answer(NamedTuple):
    """What somebody says to requests."""

    call_ids: list[str]
    approve: bool
    reason: str | None

    @property
    def outcome(self) -> str:
        """What the tool returns then."""
        if self.approve:
            return "It is done."
        return f"Error: request to call tool denied. User reason: {self.reason}"


def is_answer(row: dict[str, Any]) -> bool:
    """Whether a message that was sent is an answer to requests, of the form that Letta takes."""
    approvals = row.get("approvals")
    return (
        row.get("type") == "approval"
        and isinstance(approvals, list)
        and bool(approvals)
        and all(
            isinstance(approval, dict)
            and isinstance(approval.get("tool_call_id"), str)
            and isinstance(approval.get("approve"), bool)
            and isinstance(approval.get("reason"), str | None)
            for approval in approvals
        )
    )


def answer_of(rows: list[dict[str, Any]]) -> Answer | None:
    """The answer that messages begin with, if they do."""
    if not rows or not is_answer(rows[0]):
        return None
    approvals = rows[0]["approvals"]
    first = approvals[0]
    ids = [approval["tool_call_id"] for approval in approvals]
    return Answer(ids, first["approve"], first.get("reason"))


def wrong_answer(request: Request | None, answer: Answer) -> str:
    """Why Letta doesn't take an answer. Empty: it does."""
    if request is None:
        return (
            "Cannot process approval response: No tool call is currently awaiting approval. Please "
            "send a regular message to interact with the agent."
        )
    if answer.call_ids != [request.call_id]:
        expected = f"Expected '{[request.call_id]}', but received '{answer.call_ids}'."
        return f"Invalid tool call IDs. {expected}"
    return ""
