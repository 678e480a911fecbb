"""What goes wrong with an App Server, as errors; and what a turn that went wrong means."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from promptyoself.core.addresses import web_socket
from promptyoself.core.diagnostics import redact_secrets
from promptyoself.core.errors import EXTRAS, PromptyoselfError, sentence
from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Kind, Run, RunFailure

OLDEST = (0, 32, 13)
"""The oldest version of Letta Code that this was tried with."""

_CHECK_ADDRESS = "Check that PROMPTYOSELF_LETTA_CODE_URL is a Letta Code App Server."
_LOOKED_FOR = "Nothing is sent again before the conversation has been looked through."
_LONGEST_DETAIL = 4000  # characters


class Address(NamedTuple):
    """Where an App Server is."""

    url: str  # of its WebSocket
    shown: str  # as anybody may see it


def require_address(url: str) -> Address:
    """The address of the WebSocket, whose path is ``/ws`` unless the URL has one.

    Raises:
        PromptyoselfError: ``invalid_base_url``.
    """
    shown = url.strip().rstrip("/")
    parts = web_socket(shown)
    if parts is None:
        raise PromptyoselfError(
            "invalid_base_url",
            "The address of Letta Code's App Server is not of the form ws(s)://host[:port].",
            "Set PROMPTYOSELF_LETTA_CODE_URL, for instance to ws://127.0.0.1:4500.",
        )
    return Address(shown if parts.path else f"{shown}/ws", shown)


def require_token(token: str | None) -> str | None:
    """The token without spaces around it, or ``None`` for an empty one.

    Raises:
        PromptyoselfError: ``invalid_token``.
    """
    stripped = (token or "").strip()
    if stripped and not re.fullmatch(r"[!-~]+", stripped):
        raise PromptyoselfError(
            "invalid_token",
            "The token of Letta Code has characters that no HTTP header can carry.",
            "Check PROMPTYOSELF_LETTA_CODE_TOKEN for spaces and line ends.",
        )
    return stripped or None


class FrameTooLong(DeliveryError):
    """The answer was longer than we read; a shorter list may not be."""


class Failures:
    """Makes a :class:`DeliveryError` of what went wrong with one App Server."""

    def __init__(self, shown: str, has_token: bool) -> None:
        """``shown`` is the address as anybody may see it."""
        self._shown = shown
        self._has_token = has_token

    def not_installed(self, cause: ImportError) -> DeliveryError:
        """The package that speaks WebSocket is missing, or is another one."""
        return DeliveryError(
            "retry",
            "letta_code_not_installed",
            f"Letta Code needs the package websockets, which can't be loaded "
            f"({type(cause).__name__}).",
            f"Install it: pip install '{EXTRAS['letta-code']}'.",
        )

    def unreachable(self, cause: Exception) -> DeliveryError:
        """No connection came about."""
        return DeliveryError(
            "retry",
            "letta_code_unreachable",
            f"Cannot reach a Letta Code App Server at {self._shown} ({_reason(cause)}).",
            "`promptyoself letta-code up` starts one on this machine. "
            "PROMPTYOSELF_LETTA_CODE_URL says where it is.",
            cause=type(cause).__name__,
        )

    def refused(self, status: int) -> DeliveryError:
        """It answered the opening of a connection with a status of HTTP."""
        if status in (401, 403):
            wants = "it wants another token" if self._has_token else "it wants a token"
            return DeliveryError(
                "unauthorized",
                "letta_code_unauthorized",
                f"{self._shown} refused the connection with HTTP {status}: {wants}.",
                "Set PROMPTYOSELF_LETTA_CODE_TOKEN to what is in the file that the App Server was "
                "given as --ws-token-file.",
                status=status,
            )
        return DeliveryError(
            "retry",
            "letta_code_unreadable",
            f"{self._shown} answered with HTTP {status}, and opened no WebSocket.",
            _CHECK_ADDRESS,
            status=status,
        )

    def too_old(self, version: str) -> DeliveryError:
        """It runs, and its version is below :data:`OLDEST`."""
        oldest = ".".join(str(number) for number in OLDEST)
        return DeliveryError(
            "retry",
            "letta_code_too_old",
            f"The App Server at {self._shown} is Letta Code {version}, and {oldest} is the oldest "
            "that prompts can be sent to.",
            "Install the newest: pip install --upgrade letta.",
            version=version,
        )

    def unreadable(self, doing: str, kind: Kind = "doubt", detail: object = None) -> DeliveryError:
        """It said something that no App Server says."""
        return DeliveryError(
            kind,
            "letta_code_unreadable",
            f"{self._shown} answered {doing} with something that is not an App Server's.",
            _CHECK_ADDRESS,
            detail=_detail(detail),
        )

    def timeout(self, doing: str, seconds: float, kind: Kind = "doubt") -> DeliveryError:
        """It hasn't answered a request in time. It answers none at all that it doesn't know."""
        return DeliveryError(
            kind,
            "letta_code_timeout",
            f"The App Server at {self._shown} did not answer {doing} within {seconds:g} s.",
            _LOOKED_FOR if kind == "doubt" else "",
        )

    def lost(self, doing: str, kind: Kind = "doubt") -> DeliveryError:
        """The connection ended while a request was waiting for its answer."""
        return DeliveryError(
            kind,
            "letta_code_connection_lost",
            f"The connection to {self._shown} broke while {doing}.",
            _LOOKED_FOR if kind == "doubt" else "",
        )

    def too_long(self, doing: str, kind: Kind) -> DeliveryError:
        """A frame was longer than is read of one, which ended the connection."""
        return FrameTooLong(
            kind,
            "letta_code_unreadable",
            f"{self._shown} sent a frame that is too long while {doing}.",
            _CHECK_ADDRESS,
        )

    def busy(self, conversation_id: str, why: str, detail: object = None) -> DeliveryError:
        """The conversation takes no message now. ``why`` is a clause."""
        return DeliveryError(
            "busy",
            "letta_code_busy",
            f"Conversation {conversation_id} takes no message: {why}.",
            detail=_detail(detail),
        )

    def no_anchor(self, conversation_id: str) -> DeliveryError:
        """No second process keeps the turn alive, and the conversation is others' too."""
        return DeliveryError(
            "retry",
            "letta_code_no_anchor",
            f"No process could be started that keeps a turn in {conversation_id} going if this one "
            "dies. A turn that is cut off there would block the conversation until the App Server "
            "is started again.",
            "See that this user may start another process, and that the App Server takes a second "
            "connection.",
        )

    def summed_up(self) -> DeliveryError:
        """A message isn't listed, and may be in what was summed up."""
        return DeliveryError(
            "permanent",
            HISTORY_GAP,
            "The message isn't in its conversation, which was summed up since it was sent.",
        )

    def conversation_lost(self, conversation_id: str) -> DeliveryError:
        """The server has lost a conversation that it had made, with all that was in it."""
        return DeliveryError(
            "permanent",
            HISTORY_GAP,
            f"{self._shown} has lost {conversation_id}, the conversation that was made for the "
            "message. It can't be told any more whether it arrived.",
        )

    def unknown(self, error: str, doing: str, kind: Kind = "doubt") -> DeliveryError:
        """What an answer with ``success`` false means."""
        match = re.match(r"(Agent|Conversation) (.*) not found", error)
        if match is None:
            return self.unreadable(doing, kind, error)
        thing = match[1].lower()
        text = f"{self._shown} does not know {thing} {match[2][:100]}."
        if thing == "conversation":
            return DeliveryError("permanent", "conversation_not_found", text)
        return DeliveryError(
            "retry",
            "agent_not_found",
            f"{text} `promptyoself agents --target letta-code` lists those that it knows. It "
            "knows one that was made later after its next start.",
            "If the agent was made since the App Server was started, start that again.",
        )


def turn_failure(run: Run) -> RunFailure:
    """What a turn means that is over, and whose message isn't in the history."""
    error = redact_secrets(run.error) if run.error else f"The turn is {run.status}."
    if "already has an active run" in error:
        return RunFailure(
            "letta_code_wedged",
            f"{sentence(error)} The App Server takes that conversation for busy until it is "
            "started again: restart it, or send into another conversation.",
        )
    if re.match(r"Agent .* not found", error):
        return RunFailure("agent_not_found", error)
    if re.match(r"Conversation .* not found", error):
        return RunFailure("conversation_not_found", error, permanent=True)
    return RunFailure("run_failed", error)


def _detail(said: object) -> str | None:
    return redact_secrets(str(said)[:_LONGEST_DETAIL]) if said else None


def _reason(cause: Exception) -> str:
    if isinstance(cause, socket.gaierror):
        return "its name is not known"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, TimeoutError):
        return "no answer to connecting"
    return "no connection"
