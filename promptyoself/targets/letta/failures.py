"""What a failed call or run means: whether the message may have arrived, which words mean credits,
busy or permanent, and what a person can do."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from promptyoself.core.addresses import is_ambiguous, presentable
from promptyoself.core.diagnostics import redact_secrets
from promptyoself.core.errors import PromptyoselfError
from promptyoself.targets.api import DeliveryError, Kind, Run, RunFailure
from promptyoself.targets.http import (
    MOST_BYTES,
    TooLong,
    causes,
    retry_after,
    why_unreachable,
)

UNFIT_CLIENTS = ("1.7.4", "1.7.5", "1.7.6")
"""Releases of letta-client that name an argument differently. With them no prompt can be sent into
a conversation, so ``pyproject.toml`` excludes them."""

_NOT_LETTAS = frozenset({405, 407, 421, 426})
"""HTTP statuses of a proxy, or of another server at that address; Letta has none of them here."""

_CHECK_ADDRESS = "Check that LETTA_BASE_URL is a Letta server, and not another one or a proxy."
_LOOKED_FOR = "Nothing is sent again before the agent's history has been looked through."

_MOST_MASKED = 64 * 1024  # characters
_MOST_KEPT = 4000  # characters


class AnswerTooLong(DeliveryError):
    """The answer was longer than we read; a shorter list may not be."""


class Failures:
    """Turns what went wrong with one server into a :class:`DeliveryError`."""

    def __init__(self, url: str, has_token: bool, timeout: float) -> None:
        """``url`` is as it may be shown; ``timeout`` is in seconds, for the error's sentence."""
        self._url = url
        self._has_token = has_token
        self._timeout = timeout

    def unreadable(
        self, doing: str, said: object = None, status: int | None = None
    ) -> DeliveryError:
        """The server answered ``said``, but not as a Letta does."""
        return DeliveryError(
            "doubt",
            "letta_unreadable",
            f"{self._url} answered {doing} with something that is not Letta's"
            f"{'' if status is None else f' (HTTP {status})'}.",
            _CHECK_ADDRESS,
            status=status,
            detail=_detail(said),
        )

    def broke_off(self, doing: str, said: object) -> DeliveryError:
        """The server began an answer, and then told an error without naming the run."""
        return DeliveryError(
            "doubt",
            "letta_server_error",
            f"{self._url} answered {doing} with HTTP 200, and then with an error.",
            _LOOKED_FOR,
            status=200,
            detail=_detail(said),
        )

    def explained(
        self, err: Exception, doing: str, subject: dict[str, str], *, wrote: bool
    ) -> DeliveryError:
        """What an exception of the SDK means; ``wrote`` says that the call had begun to write."""
        try:
            from letta_client import APIStatusError
        except ImportError as missing:
            return self._unfit(missing, wrote=False)

        if isinstance(err, APIStatusError):
            return self._refused(err, doing, subject)
        roots = [err, *causes(err)]
        cause = type(roots[-1]).__name__
        if any(isinstance(root, TooLong) for root in roots):
            return AnswerTooLong(
                "doubt",
                "letta_unreadable",
                f"{self._url} answered {doing} with more than {MOST_BYTES} bytes, or packed; the "
                "rest wasn't read.",
                _CHECK_ADDRESS,
            )
        if not wrote:
            if _is_unwritable(err, roots):
                return DeliveryError(
                    "permanent",
                    "letta_rejected",
                    f"The request to {self._url} could not even be written ({cause}).",
                    "Check the agent id and the text of the prompt.",
                    cause=cause,
                )
            if not any(_is_transport(root) for root in roots):
                return self._unfit(roots[-1], wrote=False)
            return DeliveryError(
                "retry",
                "letta_unreachable",
                f"Cannot reach Letta at {self._url} ({why_unreachable(roots)}).",
                "Start the server, or set LETTA_BASE_URL to where it is.",
                cause=cause,
            )
        if any("Timeout" in type(root).__name__ for root in roots):
            return DeliveryError(
                "doubt",
                "letta_timeout",
                f"Letta at {self._url} did not answer {doing} within {self._timeout:g} s.",
                _LOOKED_FOR,
                cause=cause,
            )
        if isinstance(err, ValueError | RecursionError):
            return self.unreadable(doing)
        if not any(_is_transport(root) for root in roots):
            return self._unfit(roots[-1], wrote=True)
        return DeliveryError(
            "doubt",
            "letta_connection_lost",
            f"The connection to {self._url} broke while {doing} ({cause}).",
            _LOOKED_FOR,
            cause=cause,
        )

    def _unfit(self, err: BaseException, *, wrote: bool) -> DeliveryError:
        """The SDK doesn't accept the call as we make it.

        That is a fault of the installation, or ours, and not the prompt's. So deliveries wait until
        it is mended.
        """
        cause = type(err).__name__
        outcome = "it isn't known what was sent" if wrote else "nothing was sent"
        return DeliveryError(
            "doubt" if wrote else "retry",
            "letta_client_unfit",
            f"The letta-client that is installed and this promptyoself don't fit ({cause}); "
            f"{outcome} to {self._url}.",
            "Install another one: pip install 'letta-client>=1.7,<2"
            f"{''.join(f',!={version}' for version in UNFIT_CLIENTS)}'.",
            detail=_detail(str(err)),
            cause=cause,
        )

    def _refused(self, err: Any, doing: str, subject: dict[str, str]) -> DeliveryError:
        """What an HTTP status means.

        The body helps to decide. It may repeat what was sent, so the sentence doesn't quote it.
        """
        status: int = err.status_code
        text = json.dumps(err.body) if err.body is not None else ""
        wait = retry_after(err.response.headers)
        said = _detail(err.body)

        def error(kind: Kind, code: str, sentence: str, hint: str = "") -> DeliveryError:
            return DeliveryError(
                kind,
                code,
                f"{self._url} {sentence}.",
                hint,
                status=status,
                retry_after=wait,
                detail=said,
            )

        def not_lettas() -> DeliveryError:
            hint = "Check that LETTA_BASE_URL is a Letta server, and that it is up."
            return error(
                "retry", "letta_unreachable", f"{answered}, which is not Letta's answer", hint
            )

        answered = f"answered {doing} with HTTP {status}"
        if status == 402 or (
            status in (400, 403, 429) and lacks_credits(text, surely=status == 400)
        ):
            return error(
                "retry",
                "letta_out_of_credits",
                f"{answered}: out of credits, or of quota",
                "Top up the account of Letta or of the model's provider. Prompts wait within their "
                "grace.",
            )
        if status in (401, 403):
            if '"llm_' in text or '"bedrock_' in text:  # the model's refusal, passed on
                return error("permanent", "letta_rejected", f"{answered}: the model refuses")
            wants = "it wants another token" if self._has_token else "no token"
            return error(
                "unauthorized",
                "letta_unauthorized",
                f"{answered}: {wants}",
                "Set LETTA_API_KEY, or LETTA_SERVER_PASSWORD where the server has a password.",
            )
        if status == 404 and "No message found" in text:
            # A cursor that vanished while we turned pages.
            return self.unreadable(doing, err.body, status)
        if status == 404:
            ours = isinstance(err.body, dict) and err.body.get("detail") not in (None, "Not Found")
            if not subject or not ours:
                # A proxy says this while Letta behind it is down, and another server for good. It
                # isn't Letta that says it of the agent.
                return not_lettas()
            return self._unknown(error, doing, subject, status)
        if status == 422 and re.search(r"\bpath\W+(agent|conversation)_id\b", text):
            return self._unknown(error, doing, subject, status)
        if status == 408:
            return error("retry", "letta_timeout", answered)
        if status == 409 and ("PENDING_APPROVAL" in text or "waiting for approval" in text):
            return error("busy", "letta_busy", f"{answered}: the agent awaits an approval")
        if status == 409 and re.search(r"BUSY|busy|being processed|in progress", text):
            return error("busy", "letta_busy", f"{answered}: the agent is occupied")
        if status in (409, 423, 424):
            return error("retry", "letta_conflict", answered)
        if status in (425, 429):
            return error("retry", "letta_rate_limited", f"{answered}: too many requests")
        if 300 <= status < 400:
            return error(
                "retry",
                "letta_unreachable",
                f"{answered}: a redirect, which is not Letta's answer",
                "Set LETTA_BASE_URL to where it leads, if Letta is there.",
            )
        if status in _NOT_LETTAS:
            return not_lettas()
        if status == 503 and _was_not_admitted(err.body):
            return error("retry", "letta_shutting_down", f"{answered}: it is about to restart")
        if 400 <= status < 500 and status != 499:  # 499: it lost sight of us, and may have gone on
            return error("permanent", "letta_rejected", answered)
        return error("doubt", "letta_server_error", answered)

    @staticmethod
    def _unknown(
        error: Callable[..., DeliveryError], doing: str, subject: dict[str, str], status: int
    ) -> DeliveryError:
        """Letta has no such agent, conversation or run, or says that this can't be an id (422)."""
        thing, name = next(iter(subject.items()), ("agent", ""))
        hint = "`promptyoself agents` lists what it has." if thing == "agent" else ""
        if thing == "run" or name.startswith(("agent-", "conv-")):
            sentence = f"does not know {thing} {name} (HTTP {status})"
            return error("permanent", f"{thing}_not_found", sentence, hint)
        # The sentence goes into the log without the hint, so it says what to do by itself.
        ids = "`promptyoself agents` lists the ids" if thing == "agent" else "an id is conv-…"
        sentence = (
            f"answered {doing} with HTTP {status}: Letta has no {thing} with that id; "
            f"is it a name? It is {name!r}; {ids}"
        )
        hint = hint or "Give the conversation's id, as Letta shows it: conv-… ."
        return error("permanent", f"{thing}_not_found", sentence, hint)


def _was_not_admitted(body: object) -> bool:
    """Whether a 503 says that nothing was done, as Letta's cloud does before a restart."""
    return isinstance(body, dict) and (
        body.get("errorCode") == "cloud_api_shutting_down"
        and body.get("admitted") is False
        and body.get("retryable") is True
    )


def require_address(base_url: str) -> str:
    """The base URL as it may be shown.

    Raises:
        PromptyoselfError: ``invalid_base_url``.
    """
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or is_ambiguous(base_url):
        raise PromptyoselfError(
            "invalid_base_url",
            "The Letta base URL is not of the form http(s)://host[:port].",
            "Set LETTA_BASE_URL, for instance to http://localhost:8283.",
        )
    return presentable(base_url).rstrip("/")


def _is_unwritable(err: Exception, roots: Iterable[BaseException]) -> bool:
    """Whether no request can be made of what was to be sent: an empty id, a lone surrogate."""
    if isinstance(err, UnicodeError) or "non-empty value" in str(err):
        return True
    return any(type(root).__name__ in ("LocalProtocolError", "InvalidURL") for root in roots)


def _is_transport(err: BaseException) -> bool:
    """Whether a connection went wrong, and not the program that uses it."""
    return isinstance(err, OSError) or type(err).__module__.partition(".")[0] in (
        "httpx",
        "httpcore",
    )


def _detail(said: object) -> str | None:
    """What a body says is wrong, without secrets, and cut if it is long."""
    while isinstance(said, dict):
        inner = next((said[name] for name in _MESSAGE_FIELDS if said.get(name)), None)
        if inner is None:
            break
        said = inner
    if said is None or said == "":
        return None
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return redact_secrets(text[:_MOST_MASKED])[:_MOST_KEPT]


_MESSAGE_FIELDS = ("detail", "message", "error")


# --- the words of refusals -----------------------------------------------------------------------


def failure_of_run(run: Run) -> RunFailure:
    """What a run means that has failed before the agent had the message."""
    error = redact_secrets(run.error) if run.error else f"The run is {run.status}."
    if run_failure_is_busy(run.error):
        return RunFailure("letta_busy", error)
    if run_failure_is_permanent(run.error):
        return RunFailure("model_refused", error, permanent=True)
    if run_failure_lacks_credits(run.error):
        return RunFailure("letta_out_of_credits", f"Out of credits, or of quota. {error}")
    return RunFailure("run_failed", error)


def run_failure_is_permanent(error: str | None) -> bool:
    """Whether a failed run's error says that the model refuses the key (401).

    Letta prefixes its code, and most providers' own text follows: ``UNAUTHENTICATED:
    Authentication failed with OpenAI: Error code: 401 - {…}``. Anything else (rate limits, 5xx,
    time-outs) may pass.
    """
    words = _first_words(error)
    return bool(re.match(r"UNAUTHENTICATED|llm_authentication|[^{]*\bError code: 401\b", words))


def run_failure_lacks_credits(error: str | None) -> bool:
    """Whether a failed run's error says that somebody has to pay before the model answers again.

    ``PAYMENT_REQUIRED: Insufficient credits: Error code: 402 - {…}`` is Letta's word for it. Of
    OpenAI it is a 429 with ``insufficient_quota``, of Anthropic a 400.
    """
    words = _first_words(error)
    if run_failure_is_permanent(error):
        return False
    return bool(
        re.match(r"PAYMENT_REQUIRED|llm_insufficient|[^{]*\bError code: 402\b", words)
        or lacks_credits(error or "")
    )


def lacks_credits(text: str, *, surely: bool = False) -> bool:
    """Whether a refusal says that credits, a quota or an account's balance are used up.

    The text may quote the prompt. With ``surely`` only words count that no prompt would have.
    """
    return bool((_SURELY if surely else _PERHAPS).search(text))


_SURELY = re.compile(
    r"PAYMENT_REQUIRED|llm_insufficient|insufficient_(quota|credits?|funds|balance)"
    r"|billing_(hard_limit|not_active)|credit balance is too low|exceeded your current quota"
)
_PERHAPS = re.compile(
    _SURELY.pattern + r"|payment required"
    r"|\b(insufficient|not enough|no more|out of|lacks?|without) (credits?|funds|balance|quota)\b"
    r"|\b(credits?|quota|balance)\b[^.]{0,40}\b(exhausted|exceeded|used up|depleted|too low)\b"
    r"|\bexceeded\b[^.]{0,40}\b(quota|credits?|billing)\b",
    re.IGNORECASE,
)


def run_failure_is_busy(error: str | None) -> bool:
    """Whether a run failed only because its agent waits for an approval or is occupied.

    An asynchronous send to such an agent is accepted (200). Its run then fails with ``CONFLICT:
    Cannot send a new message: …``, and the message isn't stored. So the delivery waits, as it does
    after a 409.
    """
    return bool(re.match(r"\s*CONFLICT: Cannot send a new message", error or ""))


def _first_words(error: str | None) -> str:
    return re.sub(r"\s+", " ", error or "").strip()[:200]
