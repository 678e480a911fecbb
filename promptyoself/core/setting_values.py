"""Which settings there are, and how their values, which are text, are read as numbers and so on."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import time
from pathlib import Path
from typing import Literal, NamedTuple

from promptyoself.core.addresses import credentials, is_ambiguous, presentable, web_socket
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import is_opaque_id
from promptyoself.core.times import number_of_seconds, parse_zone, shown


class Setting(NamedTuple):
    """One environment variable: what it is for, and its default as it would be written."""

    name: str
    default: str
    help: str
    secret: bool = False
    address: bool = False


SETTINGS = (
    Setting("PROMPTYOSELF_VAR", "", "The data directory."),
    Setting(
        "LETTA_BASE_URL", "http://localhost:8283", "Where the Letta server answers.", address=True
    ),
    Setting(
        "LETTA_SERVER_URL",
        "",
        "The same, where LETTA_BASE_URL isn't set; Sanctum hosts set it.",
        address=True,
    ),
    Setting("LETTA_API_KEY", "", "Letta's API key.", secret=True),
    Setting("LETTA_SERVER_PASSWORD", "", "A self-hosted Letta's password.", secret=True),
    Setting(
        "PROMPTYOSELF_LETTA_CODE_URL",
        "ws://127.0.0.1:4500",
        "Where Letta Code's App Server answers, or off where there is none.",
        address=True,
    ),
    Setting(
        "PROMPTYOSELF_LETTA_CODE_TOKEN",
        "",
        "The token of an App Server that asks for one.",
        secret=True,
    ),
    Setting(
        "PROMPTYOSELF_LETTA_CLOUD",
        "off",
        "Prompts for Letta Code's agents in Letta Cloud: off, or untested, as nobody has tried it.",
    ),
    Setting("PROMPTYOSELF_INTERVAL", "60", "The longest sleep of the loop: seconds, or 1m30s."),
    Setting(
        "PROMPTYOSELF_TZ",
        "",
        "The time zone of times that name none; else the machine's, and UTC for agents.",
    ),
    Setting("PROMPTYOSELF_DEFAULT_AGENT_ID", "", "The agent where --agent-id isn't given."),
    Setting("LETTA_AGENT_ID", "", "The same, where PROMPTYOSELF_DEFAULT_AGENT_ID isn't set."),
    Setting("PROMPTYOSELF_ONLY_AGENT", "", "Refuse everything that concerns another agent."),
    Setting("PROMPTYOSELF_MIN_INTERVAL", "10", "The shortest interval allowed, in seconds."),
    Setting("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "100", "Active schedules per agent."),
    Setting(
        "PROMPTYOSELF_MAX_PROMPT_BYTES_PER_AGENT",
        "4194304",
        "Bytes of an agent's prompts together, of schedules that aren't over.",
    ),
    Setting("PROMPTYOSELF_DAILY_PER_AGENT", "500", "Deliveries per agent and day (UTC)."),
    Setting("PROMPTYOSELF_RECONCILE_GRACE", "120", "Seconds without a trace before a resend."),
    Setting(
        "PROMPTYOSELF_KEEP_REPLY",
        "excerpt",
        "What is kept of agents' answers at most: none, hash, excerpt (4 KiB) or full (1 MiB).",
    ),
    Setting("PROMPTYOSELF_DESIRE_HALF_LIFE", "30d", "The time in which a desire fades to half."),
    Setting("PROMPTYOSELF_CALL_TIMEOUT", "30", "Seconds that one request to Letta may take."),
    Setting("PROMPTYOSELF_LOCK_TIMEOUT", "10", "Seconds to wait for the log's lock."),
    Setting("PROMPTYOSELF_LOG_FILE", "", "Where the loop's log goes, rotated; else stderr."),
    Setting(
        "PROMPTYOSELF_LOG_FORMAT", "text", "The loop's log on stderr: text (warnings) or json."
    ),
    Setting("PROMPTYOSELF_LOG_LEVEL", "info", "The least level of JSON lines: debug to error."),
    Setting("PROMPTYOSELF_LOG_PROMPTS", "0", "Whether prompts may appear in the loop's log."),
    Setting(
        "PROMPTYOSELF_MCP_TOKEN",
        "",
        "What MCP clients have to show over HTTP, of 16 characters at least.",
        secret=True,
    ),
    Setting(
        "PROMPTYOSELF_FORMAT",
        "auto",
        "How answers look: table (for people), json, or auto: table at a terminal, json elsewhere.",
    ),
    Setting("PROMPTYOSELF_DB_PATH", "", "For the SQLite versions; it is not used any more."),
)


_DELIMITERS = re.compile(r"[/?#&=:@,;]+")
_LEAST_PART, _LEAST_KEY = 4, 8  # characters
_DIGIT = re.compile("[0-9]")

DestinationKind = Literal["webhook", "agent", "apprise"]

AGENT = "agent:"
"""What the address of a destination that is an agent begins with."""

WEBHOOKS = ("https://", "http://")
"""What the address of a webhook begins with. What begins otherwise is for Apprise."""


class Destination(NamedTuple):
    """Where notices go, as the operator has defined it. It is never written into the log."""

    name: str
    address: str  # as the operator wrote it; it may have keys and passwords
    secret: str | None = None  # what a webhook is signed with
    digest: str | None = None  # the time of day of its digest, and perhaps a zone

    @property
    def kind(self) -> DestinationKind:
        """Which way leads there."""
        if self.address.startswith(AGENT):
            return "agent"
        return "webhook" if self.address.lower().startswith(WEBHOOKS) else "apprise"

    @property
    def shown(self) -> str:
        """The address as everybody may see it: an agent's id, a webhook's host, or the name of a
        service. Everything else in it may be a key."""
        if self.kind == "agent":
            return self.address
        scheme, _, rest = presentable(self.address).partition("://")
        return f"{scheme}://" + (rest.partition("/")[0] if self.kind == "webhook" else "")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the address that aren't shown and may be keys, as written and decoded. Some
        of them are common words."""
        if self.kind == "agent":
            return ()
        from urllib.parse import unquote

        shown = self.shown
        hidden = self.address.removeprefix(shown)
        parts = [part for part in _DELIMITERS.split(hidden) if len(part) >= _LEAST_PART]
        decoded = [unquote(part) for part in parts]
        return tuple(dict.fromkeys([*credentials(self.address), *parts, *decoded]))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing that is written may have in it: the address, the secret, and those parts of
        the address that can't be words."""
        if self.kind == "agent":
            return ()
        pieces = (piece for part in self.parts for piece in part.split("."))  # not hosts
        keys = (piece for piece in pieces if len(piece) >= _LEAST_KEY and _DIGIT.search(piece))
        known = (self.address, self.secret or "", *credentials(self.address), *keys)
        return tuple(dict.fromkeys(text for text in known if text))


DESTINATION, WEBHOOK_SECRET, DIGEST = (
    "PROMPTYOSELF_DESTINATION_",
    "PROMPTYOSELF_WEBHOOK_SECRET_",
    "PROMPTYOSELF_DIGEST_",
)
"""What the names of the settings of a destination begin with. Its own name follows, in capitals."""

_OF_DESTINATIONS = {
    DESTINATION: "Where the notices for the destination {} go: see `promptyoself notify`.",
    WEBHOOK_SECRET: "What the webhook {} is signed with.",
    DIGEST: "When the digest for the destination {} is sent.",
}
_DESTINATION_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_SERVICE_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*")
_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]+={0,2}")
_SECRET_BYTES = range(24, 65)
_DIGEST = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?:\s+(\S+))?")
_MOST_ADDRESS = 2000  # characters


def is_destination_name(text: str) -> bool:
    """Whether a destination can have that name."""
    return _DESTINATION_NAME.fullmatch(text) is not None


def shown_name(text: str) -> str:
    """What somebody gave as a destination's name, quoted; but no address, which may have a key in
    it."""
    return "of an address" if ":" in text or "/" in text else shown(text)


def other_destinations(names: Iterable[str], text: str) -> str:
    """What to do about the name of no destination: the one that is close to it, else all that there
    are, else how one is added."""
    known = list(names)
    if close := close_destination(known, text):
        return f"Did you mean {close}?"
    if not known:
        return "`promptyoself notify add NAME ADDRESS` adds one."
    return f"There {'is' if len(known) == 1 else 'are'}: {', '.join(known)}."


def close_destination(names: Iterable[str], text: str) -> str | None:
    """The destination that somebody may have meant by ``text``, if one is close to it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(text.lower(), list(names), 1)), None)


def destination_setting(prefix: str, name: str) -> str:
    """The name of a setting of the destination of that name."""
    return prefix + name.upper().replace("-", "_")


def setting_of_destination(setting: str) -> Setting | None:
    """What such a setting of a destination is, or None where no destination can have one of that
    name."""
    for prefix, purpose in _OF_DESTINATIONS.items():
        name = destination_of(setting, prefix)
        if name is not None:
            return Setting(setting, "", purpose.format(name), secret=prefix != DIGEST)
    return None


def destination_of(setting: str, *prefixes: str) -> str | None:
    """The name of the destination that a setting with one of these prefixes belongs to, if any."""
    for prefix in prefixes or _OF_DESTINATIONS:
        name = setting.removeprefix(prefix).lower().replace("_", "-")
        if destination_setting(prefix, name) == setting and is_destination_name(name):
            return name
    return None


def read_destinations(values: Mapping[str, str]) -> dict[str, Destination]:
    """The destinations that settings define, by name. Each of them has an address; what is there
    besides, without an address, is of none.

    ``values`` are the texts of all settings, also of those that define no destination.

    Raises:
        PromptyoselfError: ``invalid_setting``, which never shows an address or a secret.
    """
    destinations = {}
    for setting, text in values.items():
        name = destination_of(setting, DESTINATION)
        if name is not None and text:
            secret, digest = (
                values.get(destination_setting(prefix, name)) or None
                for prefix in (WEBHOOK_SECRET, DIGEST)
            )
            destination = Destination(name, text, secret, digest)
            _check_destination(destination)
            destinations[name] = destination
    return dict(sorted(destinations.items()))


def _check_destination(destination: Destination) -> None:
    name = destination.name
    check_destination_setting(destination_setting(DESTINATION, name), destination.address)
    if destination.secret is not None:
        setting = destination_setting(WEBHOOK_SECRET, name)
        if destination.kind != "webhook":
            raise PromptyoselfError(
                "invalid_setting",
                f"{setting} is set, but {name} is no webhook: only these are signed.",
                setting=setting,
            )
        check_destination_setting(setting, destination.secret)
    if destination.digest is not None:
        check_destination_setting(destination_setting(DIGEST, name), destination.digest)


def check_destination_setting(setting: str, value: str) -> None:
    """Refuse a value that such a setting of a destination can't have.

    Raises:
        PromptyoselfError: ``invalid_setting``, which never shows an address or a secret.
    """
    if setting.startswith(DIGEST):
        if digest_time(value) is None:
            wanted = "a time of day such as 08:00, perhaps with a time zone behind it"
            raise _invalid(setting, value, wanted)
    elif setting.startswith(WEBHOOK_SECRET):
        if not _is_webhook_secret(value):
            wanted = "a secret: whsec_ and 24 to 64 bytes in base64"
            raise _invalid(setting, "***", wanted)
    elif (fault := wanted_address(value)) is not None:
        raise _invalid(setting, "***", fault)


def digest_time(text: str) -> tuple[time, str | None] | None:
    """The time of day of a digest, and its zone where it names one. None: it is no such text."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        return None
    zone = match[3]
    if zone is not None:
        try:
            zone = parse_zone(zone)
        except PromptyoselfError:
            return None
    return time(int(match[1]), int(match[2])), zone


def _is_webhook_secret(text: str) -> bool:
    if not _SECRET.fullmatch(text):
        return False
    from binascii import Error, a2b_base64

    try:
        return len(a2b_base64(text.partition("_")[2])) in _SECRET_BYTES
    except Error:
        return False


def wanted_address(text: str) -> str | None:
    """What the address of a destination would have to be, where this isn't one."""
    if len(text) > _MOST_ADDRESS or not text.isprintable() or " " in text:
        return f"an address of at most {_MOST_ADDRESS} characters, without white space"
    if text.startswith(AGENT):
        return None if is_opaque_id(text.removeprefix(AGENT)) else "agent: and an agent's id"
    if not text.lower().startswith(WEBHOOKS):
        services = "a webhook (https://…), an agent (agent:ID) or an address of Apprise's"
        return None if _SERVICE_ADDRESS.fullmatch(text) else services
    if is_ambiguous(text):
        return "an address: write /, ?, # and @ before its host's name as %2F, %3F, %23 and %40"
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        return None if parts.hostname and parts.port != 0 else "the address of a webhook"
    except ValueError:  # of the port, or of an address of IPv6
        return "the address of a webhook"


class SettingValues(dict[str, str]):
    """The texts of all settings, by name. Each method raises ``invalid_setting`` if the value isn't
    of its kind; the error's details have the setting's name."""

    def path(self, name: str) -> Path:
        """The setting as a path, which need not exist."""
        text = self[name]
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            text = "\0"
        if "\0" in text:
            raise _invalid(name, self[name], "a path")
        if text.startswith("~"):
            raise _invalid(name, text, "a path as it stands: ~ isn't expanded here; write it out")
        return Path(text)

    def agent(self, name: str) -> str | None:
        """The setting as an agent's id, if it is set."""
        text = self[name]
        if text and not is_opaque_id(text):
            raise _invalid(name, text, "an id of at most 200 characters, without white space")
        return text or None

    def secret(self, name: str) -> str | None:
        """The setting as a secret that a header can carry, if it is set."""
        text = self[name]
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise _invalid(name, "***", "printable ASCII without spaces, as a header can carry it")
        return text or None

    def base_url(self) -> str:
        """The address of the Letta server, without a slash at its end."""
        url = self["LETTA_BASE_URL"]
        if not url.startswith(("http://", "https://")) or len(url.partition("//")[2]) == 0:
            raise _invalid(
                "LETTA_BASE_URL", presentable(url), "an address such as http://localhost:8283"
            )
        if is_ambiguous(url):
            wanted = (
                "an address: write /, ?, # and @ before its host's name as %2F, %3F, %23 and %40"
            )
            raise _invalid("LETTA_BASE_URL", presentable(url), wanted)
        return url.rstrip("/")

    def letta_code_url(self) -> str | None:
        """The address of the App Server, without a slash at its end. None: there is none."""
        name = "PROMPTYOSELF_LETTA_CODE_URL"
        url = self[name]
        if url.lower() == "off":
            return None
        if web_socket(url) is None:
            wanted = "off, or an address such as ws://127.0.0.1:4500, without a user or a query"
            raise _invalid(name, presentable(url), wanted)
        return url.rstrip("/")

    def seconds(self, name: str, least: float) -> float:
        """The setting in seconds, of a number or a duration."""
        number = number_of_seconds(self[name])
        if number is None or not least <= number < 1e9:
            wanted = f"a number of seconds, or a duration such as 1m30s, at least {least:g} s"
            raise _invalid(name, self[name], wanted)
        return number

    def whole(self, name: str) -> int:
        """The setting as a whole number."""
        text = self[name]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise _invalid(name, text, "a whole number, at least 0")
        return int(text)

    def whole_seconds(self, name: str) -> int:
        """The setting in whole seconds, of a number or a duration."""
        number = number_of_seconds(self[name])
        if number is None or not 1 <= number < 1e9 or number != int(number):
            wanted = "a whole number of seconds, or a duration such as 1m30s, at least 1 s"
            raise _invalid(name, self[name], wanted)
        return int(number)

    def flag(self, name: str) -> bool:
        """Whether the setting is on."""
        text = self[name].lower()
        if text not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
            raise _invalid(name, self[name], "1 or 0")
        return text in {"1", "true", "yes", "on"}

    def word(self, name: str, words: Sequence[str]) -> str:
        """The setting as one of the known words, in lower case."""
        text = self[name].lower()
        if text not in words:
            raise _invalid(name, self[name], f"one of {', '.join(words)}")
        return text


def _invalid(name: str, value: str, wanted: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_setting", f"{name} is {value[:200]!r}, which is not {wanted}.", setting=name
    )
