"""What a machine tells of itself to a person who sets promptyoself up."""

from __future__ import annotations

import shutil

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import parse_zone


def machine_zone() -> str:
    """The IANA name of the time zone of this machine, or of ``TZ``; UTC where it has no such
    name."""
    from tzlocal import get_localzone_name

    try:
        zone = parse_zone(get_localzone_name())
        return "UTC" if zone == "Etc/UTC" else zone
    except (PromptyoselfError, LookupError, OSError, ValueError, AttributeError):
        return "UTC"


def letta_code() -> str | None:
    """The path of the program of Letta Code, where that is installed."""
    return shutil.which("letta")
