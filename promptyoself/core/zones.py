"""The machine's time zone, and hints for names of zones that aren't taken.

A hint says what was probably meant, and never names a zone that is hours away from it. Nothing is
read but the time zone data, and the settings that tell this machine's zone. The module is imported
only for an error, so commands that succeed don't load it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

_EXAMPLES = "Give an IANA name such as Europe/London, America/New_York or UTC."

# The places that an abbreviation can mean, the most populous first.
_ABBREVIATIONS = {
    "ACDT": "Australia/Adelaide",
    "ACST": "Australia/Adelaide, Australia/Darwin",
    "ADT": "America/Halifax",
    "AEDT": "Australia/Sydney",
    "AEST": "Australia/Sydney, Australia/Brisbane",
    "AKDT": "America/Anchorage",
    "AKST": "America/Anchorage",
    "AMT": "America/Manaus, Asia/Yerevan",
    "ART": "America/Argentina/Buenos_Aires",
    "AST": "America/Halifax, America/Puerto_Rico, Asia/Riyadh",
    "AWST": "Australia/Perth",
    "BRT": "America/Sao_Paulo",
    "BST": "Europe/London, Asia/Dhaka",
    "CAT": "Africa/Maputo",
    "CDT": "America/Chicago, America/Havana",
    "CEST": "Europe/Berlin, Europe/Paris",
    "CST": "America/Chicago, Asia/Shanghai, America/Havana",
    "CT": "America/Chicago",
    "EAT": "Africa/Nairobi",
    "ECT": "America/Guayaquil, Europe/Paris",
    "EDT": "America/New_York",
    "EEST": "Europe/Athens, Europe/Kyiv",
    "EST": "America/New_York, America/Panama",
    "ET": "America/New_York",
    "GST": "Asia/Dubai, Atlantic/South_Georgia",
    "HDT": "America/Adak",
    "HKT": "Asia/Hong_Kong",
    "HST": "Pacific/Honolulu",
    "ICT": "Asia/Bangkok",
    "IDT": "Asia/Jerusalem",
    "IRST": "Asia/Tehran",
    "IST": "Asia/Kolkata, Europe/Dublin, Asia/Jerusalem",
    "JST": "Asia/Tokyo",
    "KST": "Asia/Seoul",
    "MDT": "America/Denver",
    "MEST": "Europe/Berlin",
    "MESZ": "Europe/Berlin",
    "MEZ": "Europe/Berlin",
    "MSK": "Europe/Moscow",
    "MST": "America/Denver, America/Phoenix",
    "MT": "America/Denver",
    "NDT": "America/St_Johns",
    "NPT": "Asia/Kathmandu",
    "NST": "America/St_Johns",
    "NZDT": "Pacific/Auckland",
    "NZST": "Pacific/Auckland",
    "PDT": "America/Los_Angeles",
    "PHT": "Asia/Manila",
    "PKT": "Asia/Karachi",
    "PST": "America/Los_Angeles, Asia/Manila",
    "PT": "America/Los_Angeles",
    "SAST": "Africa/Johannesburg",
    "SGT": "Asia/Singapore",
    "SST": "Pacific/Pago_Pago, Asia/Singapore",
    "TRT": "Europe/Istanbul",
    "WAT": "Africa/Lagos",
    "WEST": "Europe/Lisbon",
    "WIB": "Asia/Jakarta",
}

# Names that the time zone data has for an offset without summer time, though people mean a place.
_FIXED = {
    "EST": ("America/New_York", "Etc/GMT+5"),
    "MST": ("America/Denver", "Etc/GMT+7"),
    "HST": ("Pacific/Honolulu", "Etc/GMT+10"),
}

_OFFSET = r"(?:(?:etc/)?(?:utc|gmt|ut|z))? ?([+-])([0-9]{1,2})(?::?([0-9]{2}))?"
_POSIX = r"(?:[a-z]{3,}|<[^>]*>)[+-]?[0-9]{1,2}(?::[0-9]{2})*.*"


def zone_hint(name: str) -> str:
    """Say what to write instead of a name that is no zone, or that isn't taken."""
    wanted = name[:64].strip()
    low = wanted.lower()
    if wanted in _FIXED:
        place, fixed = _FIXED[wanted]
        return f"{place} follows its place's clocks; {fixed} is fixed all year."
    if match := re.fullmatch(_OFFSET, low):
        return _of_offset(*match.groups())
    if low in ("localtime", "local", "system", "posixrules", "factory") or low.endswith(
        ("/localtime", "/posixrules")
    ):
        here, problem = machine_zone()
        return _EXAMPLES if problem else f"This machine's zone is {here}: name that. {_EXAMPLES}"
    close = _close(low.replace(" ", "_"))
    if close:
        return f"Did you mean {', '.join(close)}? {_EXAMPLES}"
    if places := _ABBREVIATIONS.get(wanted.upper()):
        return (
            f"An abbreviation doesn't say which place's clocks are meant, nor whether they change. "
            f"Name a place: {places.replace(', ', ' or ')}."
        )
    if re.fullmatch(_POSIX, low):
        return f"POSIX rules aren't taken; the name of a place has its rules in it. {_EXAMPLES}"
    if not any("/" in zone for zone in available_timezones()):
        return (
            "This machine has no time zone data but UTC's: install the package tzdata, or check "
            "PYTHONTZPATH."
        )
    if re.fullmatch(r"[a-z]{2,5}", low):
        return f"Abbreviations of zones are ambiguous. Name a place. {_EXAMPLES}"
    return _EXAMPLES


def _of_offset(sign: str, hours: str, minutes: str | None) -> str:
    """Name the zone of a fixed offset, or say why there is none."""
    place = "A place, such as Europe/Athens or Asia/Kolkata, has its own rules in its name."
    whole, rest = int(hours), int(minutes or 0)
    if whole == rest == 0:
        return f"Did you mean UTC? {place}"
    offset = f"{sign}{whole:02d}:{rest:02d}"
    if rest or whole > (14 if sign == "+" else 12):
        return f"There is no name for the offset {offset}. {place}"
    opposite = "-" if sign == "+" else "+"
    return (
        f"For the offset {offset} all year, write Etc/GMT{opposite}{whole}: in these names the "
        f"sign is the other way round, and Etc/GMT{sign}{whole} is {opposite}{whole:02d}:00. "
        f"{place}"
    )


def _close(wanted: str) -> list[str]:
    """Names of places that are spelled like this one. Other names are left out, since ``GMT+2`` and
    ``GMT-2`` differ by one character and four hours."""
    known = {zone.lower(): zone for zone in sorted(available_timezones())}
    for name in ("localtime", "posixrules", "factory", *(fixed.lower() for fixed in _FIXED)):
        known.pop(name, None)
    if wanted in known:
        return [known[wanted]]
    if wanted.upper() in _ABBREVIATIONS:
        return []
    places = {low: zone for low, zone in known.items() if "/" in low and not low.startswith("etc/")}
    close = [zone for low, zone in places.items() if low.rpartition("/")[2] == wanted]
    if not close and len(wanted) > 4:
        from difflib import get_close_matches

        close = [places[low] for low in get_close_matches(wanted, places, cutoff=0.75)]
    return close[:3]


_UTC = frozenset({"", "UTC", "Etc/UTC", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu", "Universal",
                  "Etc/Universal"})  # fmt: skip


class MachineZone(NamedTuple):
    """The zone in which a machine shows times."""

    name: str
    problem: str = ""  # a sentence, where the zone has no name or is broken, and UTC stands for it


def machine_zone(tz: str | None = None, etc: str = "/etc") -> MachineZone:
    """The zone that ``TZ`` names (or ``tz``), else that of this machine, else UTC."""
    tz = os.environ.get("TZ") if tz is None else tz
    if tz is not None:
        name = _named(tz.removeprefix(":"))
        return name or _utc(f"TZ is {tz[:80]!a}, which names no place")
    localtime = Path(etc, "localtime")
    if not os.path.lexists(localtime):
        return MachineZone("UTC")  # as the C library has it
    names = []
    with suppress(OSError):
        names = [os.readlink(localtime), os.path.realpath(localtime)]
    with suppress(OSError, ValueError):
        names.append(Path(etc, "timezone").read_text(encoding="ascii")[:200].strip() or "?")
    zones = (_named(name) for name in names if "zoneinfo/" in name or not name.startswith("/"))
    return next((zone for zone in zones if zone), None) or _utc(
        "This machine's time zone has no name"
    )


def _named(name: str) -> MachineZone | None:
    name = name.rpartition("zoneinfo/")[2]
    if name in _UTC:
        return MachineZone("UTC")
    name = _FIXED[name][1] if name in _FIXED else name
    return MachineZone(name) if _is_known(name) else None


def _utc(what: str) -> MachineZone:
    problem = f"{what}, so times are read in UTC. Set PROMPTYOSELF_TZ, or use --tz."
    return MachineZone("UTC", problem)


def _is_known(name: str) -> bool:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name):
        return False
    if name.startswith(("posix/", "right/")) or name in ("localtime", "posixrules", "Factory"):
        return False
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return False
    return True
