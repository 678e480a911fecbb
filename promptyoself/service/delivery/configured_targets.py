"""The targets as the settings have them. Each is made when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptyoself.targets.unconfigured import Unconfigured

if TYPE_CHECKING:
    from promptyoself.core.settings import Settings
    from promptyoself.events.target_names import TargetName
    from promptyoself.targets.api import Target


def target_for(settings: Settings, name: TargetName) -> Target:
    """The way to one target. Nobody is called before it is used.

    Raises:
        PromptyoselfError: ``invalid_base_url`` or ``invalid_token``.
    """
    if name == "letta":
        from promptyoself.targets.letta import LettaClient

        return LettaClient(settings.base_url, settings.token, call_timeout=settings.call_timeout)
    if name == "letta-code":
        url = settings.letta_code_url
        if url is None:
            hint = "Set PROMPTYOSELF_LETTA_CODE_URL to where its App Server is."
            return Unconfigured(name, hint)
        from promptyoself.targets.letta_code import LettaCode

        token = settings.letta_code_token
        return LettaCode(url, token, call_timeout=settings.call_timeout)
    if name == "broca":
        return Unconfigured(name, "Only the loop that its plugin runs inside a Broca reaches it.")
    if settings.letta_cloud:
        from promptyoself.targets.letta_cloud import LettaCloud

        return LettaCloud(settings.base_url, settings.token, call_timeout=settings.call_timeout)
    return Unconfigured(
        name,
        "It is untested. If you want to try it, set PROMPTYOSELF_LETTA_CLOUD=untested and "
        "LETTA_API_KEY where the loop runs.",
    )


class ConfiguredTargets:
    """All targets of the settings, by name. For one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._targets: dict[TargetName, Target] = {}

    def __getitem__(self, name: TargetName, /) -> Target:
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = target_for(self._settings, name)
        return target

    def close(self) -> None:
        """Let go of all connections."""
        for target in self._targets.values():
            target.close()
