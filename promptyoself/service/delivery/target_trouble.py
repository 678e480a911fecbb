"""Whether a target itself is in trouble, so that no delivery to it is begun for a while."""

from typing import NamedTuple

from promptyoself.targets.api import SURE_TROUBLE, TROUBLE

_FIRST_HOLD, _LONGEST_HOLD = 5.0, 60.0  # seconds

_AGENTS = 3
"""If the deliveries of this many agents get no answer, and no agent's gets one, it is the server's
trouble and not the agents'."""


class Trouble(NamedTuple):
    """What keeps a target from us."""

    code: str
    until: float  # by when somebody should have tried again, by the monotonic clock


class TargetTrouble:
    """What deliveries met at one target, and how long no other is begun for it.

    Each hold is twice as long as the one before, until it answers. Instants are seconds of a
    monotonic clock.
    """

    def __init__(self) -> None:
        self._code = ""
        self._seconds = 0.0  # of the latest hold; 0 once it has answered
        self._until = float("-inf")
        self._unanswered: set[str] = set()  # agents

    def __bool__(self) -> bool:
        """Whether it refused us, or could not be reached, when it was last called."""
        return self._seconds > 0

    @property
    def latest(self) -> Trouble | None:
        """What the trouble is, if there is any."""
        return Trouble(self._code, self._until + _LONGEST_HOLD) if self else None

    def seconds_left(self, now: float) -> float:
        """How long no delivery is begun; 0 or less if one may be."""
        return self._until - now

    def answered(self) -> None:
        """It has answered a delivery."""
        self._seconds, self._until = 0.0, float("-inf")
        self._unanswered.clear()

    def failed(self, agent_id: str, code: str, now: float) -> float | None:
        """A delivery was abandoned with that code; how many seconds of hold that has begun."""
        if code in TROUBLE - SURE_TROUBLE:
            self._unanswered.add(agent_id)
        if code not in SURE_TROUBLE and len(self._unanswered) < _AGENTS:
            return None
        if now < self._until:
            return None
        self._seconds = min(max(self._seconds * 2, _FIRST_HOLD), _LONGEST_HOLD)
        self._until = now + self._seconds
        self._code = code
        return self._seconds
