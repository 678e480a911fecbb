"""Which settings of a Broca have it echo prompts, or repeat them. Pure.

Each was seen at its public state of 2026 (which calls itself 3.0.0) with a Letta 0.16.8.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Misfit(NamedTuple):
    """A setting with which no prompt may go into a Broca's queue."""

    message: str  # what Broca would do with a prompt
    hint: str  # what to set


def misfits(environ: Mapping[str, str], settings: Mapping[str, Any]) -> list[Misfit]:
    """What is in the way of delivering through a Broca.

    ``environ`` is its environment, and ``settings`` what its ``settings.json`` says.
    """
    found: list[Misfit] = []
    debug = environ.get("DEBUG_MODE")
    if debug is None or debug.lower() == "true":
        how = "unset, which turns debug mode on" if debug is None else "on"
        found.append(
            Misfit(
                f"Broca's DEBUG_MODE is {how}: prompts are sent back to the user, and the agent "
                "never sees them.",
                "Set DEBUG_MODE=false where Broca runs.",
            )
        )
    if _is_on(_setting(environ, settings, "debug_mode", False)):
        found.append(
            Misfit(
                "debug_mode is on in Broca's settings.json: prompts are sent back to the user, and "
                "the agent never sees them.",
                'Set "debug_mode": false in settings.json.',
            )
        )
    if _setting(environ, settings, "message_mode", "live") == "echo":
        found.append(
            Misfit(
                "Broca's message_mode is echo: prompts are sent back to the user, and the agent "
                "never sees them.",
                'Set "message_mode": "live" in settings.json.',
            )
        )
    if environ.get("USE_BACKGROUND_PROCESSING", "true").lower() == "true":
        found.append(
            Misfit(
                "Broca's USE_BACKGROUND_PROCESSING is on, as it is where nothing sets it: with a "
                "Letta that has no Redis, a prompt is sent again and again without end.",
                "Set USE_BACKGROUND_PROCESSING=false where Broca runs.",
            )
        )
    return found


def _setting(
    environ: Mapping[str, str], settings: Mapping[str, Any], name: str, default: object
) -> object:
    """A setting as Broca reads it: from the file, then from ``BROCA_…`` in the environment."""
    if name in settings:
        return settings[name]
    named = f"BROCA_{name}".upper()
    return next((environ[key] for key in environ if key.upper() == named), default)


def _is_on(value: object) -> bool:
    if isinstance(value, str):
        return value.lower() in ("1", "on", "t", "true", "y", "yes")
    return bool(value)
