"""The target that the settings don't have: whatever is asked of it, it says so."""

from datetime import timedelta
from typing import NoReturn

from promptyoself.events.target_names import TargetName
from promptyoself.targets.api import DeliveryError, Target, Traits


class Unconfigured(Target):
    """In the place of a target that isn't configured.

    Every call raises :class:`DeliveryError` of kind ``retry`` with ``target_not_configured``, so
    that prompts wait for it to be configured, as long as their grace lasts.
    """

    def __init__(self, name: TargetName, hint: str) -> None:
        """``hint`` says how it is configured."""
        self.traits = Traits(name, False, False, "", timedelta())
        self._hint = hint

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        title = self.traits.title
        raise DeliveryError(
            "retry", "target_not_configured", f"{title} isn't configured here.", self._hint
        )

    active_runs = all_active_runs = ended_runs = send = run = failure = find = _refuse
    reply = agents = agent = health = check = _refuse

    def close(self) -> None:
        """There is nothing to let go of."""
