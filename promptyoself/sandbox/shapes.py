"""The sandbox's JSON documents, as a real Letta 0.16.8 server writes them."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from promptyoself.sandbox.agents import AgentState, ConversationState, RunState, SandboxMessage


def micros(instant: datetime | None) -> str | None:
    """An instant as Letta writes it, with microseconds."""
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds(instant: datetime) -> str:
    """An instant as Letta writes it, with whole seconds."""
    return instant.astimezone(UTC).isoformat(timespec="seconds")


def agent_json(agent: AgentState) -> dict[str, Any]:
    """An agent."""
    return {
        "id": agent.id,
        "name": agent.name,
        "created_at": micros(agent.created_at),
        "updated_at": micros(agent.updated_at or agent.created_at),
        "last_run_completion": None,  # without a setting that is off by default
        "agent_type": "letta_v1_agent",
        "model": "sandbox/echo",
        "system": "You echo.",
        "message_ids": agent.context,
        "description": None,
        "tags": [],
        "tools": [],
        "blocks": [],
    }


def conversation_json(
    conversation: ConversationState, messages: Sequence[SandboxMessage] = ()
) -> dict[str, Any]:
    """A conversation with these messages. Lists, and the answer to a creation, have none of
    them."""
    return {
        "id": conversation.id,
        "agent_id": conversation.agent_id,
        "created_at": micros(conversation.created_at),
        "summary": conversation.summary,
        "in_context_message_ids": [message.id for message in messages],
    }


def message_json(message: SandboxMessage) -> dict[str, Any]:
    """A message of a history."""
    return {
        **_head(message.id, message.date, message.kind, message.run_id),
        "otid": message.otid,
        "step_id": _step_of(message),
        **_content(message),
    }


def _step_of(message: SandboxMessage) -> str | None:
    """What people say to a request is no step of the agent's."""
    if message.run_id is None or message.kind == "approval_response_message":
        return None
    return f"step-{message.run_id[4:]}"


def ping_json(run: RunState, now: datetime) -> dict[str, Any]:
    """The first event of a stream, which names its run."""
    return _head(f"ping-{uuid.uuid4()}", now, "ping", run.id)


def _head(id_: str, date: datetime, kind: str, run_id: str | None) -> dict[str, Any]:
    """What a message and a ping have in common."""
    return {
        "id": id_,
        "date": seconds(date),
        "name": None,
        "message_type": kind,
        "otid": None,
        "sender_id": None,
        "step_id": None,
        "is_err": None,
        "seq_id": None,
        "run_id": run_id,
    }


def _content(message: SandboxMessage) -> dict[str, Any]:
    """The content of a message, whose keys depend on its kind."""
    match message.kind:
        case "tool_call_message" | "approval_request_message":
            called = {"name": message.text, "tool_call_id": message.call_id, "arguments": "{}"}
            return {"tool_call": called, "tool_calls": [called]}
        case "tool_return_message":
            # What has run has printed something, if only nothing.
            printed: list[str] | None = [] if message.approve else None
            status = "success" if message.approve else "error"
            returned = {"tool_return": message.text, "status": status, "stdout": printed}
            returned |= {"stderr": printed, "tool_call_id": message.call_id}
            return {**returned, "tool_returns": [{"type": "tool", **returned}]}
        case "approval_response_message":
            said = {"approve": message.approve, "reason": message.reason}
            approval = {"type": "approval", "tool_call_id": message.call_id, **said}
            return {"approvals": [approval], "approval_request_id": message.call_id, **said}
    if message.parts is not None:
        return {"content": [{**part, "signature": None} for part in message.parts]}
    return {"content": message.text}


def error_json(run: RunState) -> dict[str, Any]:
    """Why the run of a stream has failed."""
    error_type, where = "llm_error", "with the LLM request"
    if run.answers:
        error_type, where = "internal_error", "during agent execution"
    return {
        "message_type": "error_message",
        "run_id": run.id,
        "error_type": error_type,
        "message": f"An error occurred {where}.",
        "detail": run.error,
        "seq_id": None,
    }


def run_json(run: RunState) -> dict[str, Any]:
    """A run as it stands."""
    streamed = run.conversation_id is not None
    metadata: dict[str, Any] = {
        "run_type": "send_conversation_message" if streamed else "send_message_async"
    }
    is_streamed = streamed and not run.background
    reason: str | None = None
    if run.status == "failed":
        metadata["error"] = error_json(run) if is_streamed else run.error
        reason = "llm_api_error" if is_streamed else None if streamed else "error"
    elif run.status == "completed":
        reason = "llm_api_error" if run.error else "end_turn"
        if run.request is not None:
            reason = "requires_approval"
    return {
        "id": run.id,
        "status": run.status,
        "created_at": micros(run.created_at),
        "completed_at": (micros(run.completed_at) or "")[:-1] or None,
        "agent_id": run.agent_id,
        "conversation_id": run.conversation_id,
        "background": not is_streamed,
        "metadata": metadata,
        "request_config": {
            "use_assistant_message": True,
            "assistant_message_tool_name": run.tag,
            "assistant_message_tool_kwarg": "message",
            "include_return_message_types": run.shown,
        },
        "stop_reason": reason,
    }
