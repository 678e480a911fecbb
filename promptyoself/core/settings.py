"""The environment, then a ``.env`` file that never overrides it, as one immutable Settings.

The ``.env`` file is that of the source checkout, else of the user's configuration folder; never
that of the working directory, since a host may call us from anywhere. A value of white space alone
counts as none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from promptyoself.core.addresses import credentials, presentable
from promptyoself.core.diagnostics import LEVELS
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.setting_values import (
    DESTINATION,
    DIGEST,
    SETTINGS,
    WEBHOOK_SECRET,
    Destination,
    Setting,
    SettingValues,
    check_destination_setting,
    destination_of,
    destination_setting,
    read_destinations,
    setting_of_destination,
)
from promptyoself.core.texts import trimmed
from promptyoself.core.times import parse_duration, parse_zone

if TYPE_CHECKING:
    from promptyoself.core.envfile import Entry

V = TypeVar("V")

_ROOT = Path(__file__).resolve().parents[2]


_BY_NAME = {setting.name: setting for setting in SETTINGS}
_SECRETS = {setting.name for setting in SETTINGS if setting.secret}
_PREFIX = "PROMPTYOSELF_"


class Source(NamedTuple):
    """A setting's value as text, its origin, and its line if the origin is a file."""

    setting: Setting
    value: str
    origin: str
    line: int | None = None

    @property
    def shown(self) -> str:
        """The value as everybody may see it."""
        if self.setting.secret and self.value:
            return "***"
        return presentable(self.value) if self.setting.address else self.value


class Unknown(NamedTuple):
    """A name that looks like a setting's and isn't one, and where it is set."""

    name: str
    origin: str
    line: int | None = None


class Caps(NamedTuple):
    """Limits that no schedule can opt out of."""

    min_interval: int = 10  # seconds
    max_active_per_agent: int = 100
    daily_per_agent: int = 500
    max_prompt_bytes_per_agent: int = 4 * 1024 * 1024


class Settings(NamedTuple):
    """The checked values of all settings. Durations are in seconds."""

    var: Path
    base_url: str
    shown_url: str
    token: str | None
    interval: float
    timezone: str
    default_agent: str | None
    only_agent: str | None
    caps: Caps
    reconcile_grace: float
    keep_reply: str
    half_life: str
    call_timeout: float
    lock_timeout: float
    log_file: Path | None
    log_format: str
    log_level: str
    log_prompts: bool
    secrets: tuple[str, ...]
    mcp_token: str | None
    letta_code_url: str | None
    letta_code_token: str | None
    letta_cloud: bool
    format: str
    unknown: tuple[Unknown, ...]
    destinations: Mapping[str, Destination]


def load_settings(
    environ: Mapping[str, str] | None = None, var: str | None = None, *, with_file: bool = True
) -> Settings:
    """Read and check the settings; ``var`` is the command line's ``--var``.

    Without ``with_file`` no file is read, only the environment.

    Raises:
        PromptyoselfError: ``invalid_setting``, with the variable, its value and its origin.
    """
    environ = os.environ if environ is None else environ
    path, entries = _read_dotenv(environ) if with_file else (settings_path(environ), {})
    sources = tuple(_sources(environ, var, path, entries))
    unknown = tuple(_unknown(environ, path, entries))
    try:
        values = SettingValues((source.setting.name, source.value) for source in sources)
        settings = _checked(values, unknown)
    except PromptyoselfError as error:
        name = error.details["setting"]
        source = next(source for source in sources if source.setting.name == name)
        error.hint = f"Change or unset it; it came from {_origin_of(source.origin, source.line)}."
        raise
    return settings


def check_value(name: str, value: str) -> None:
    """Refuse a value that the setting of that name can't have.

    Raises:
        PromptyoselfError: ``invalid_setting``, with ``setting``. It never shows a secret.
    """
    if setting_of_destination(name) is not None:
        check_destination_setting(name, trimmed(value))
        return
    values = SettingValues((setting.name, setting.default) for setting in SETTINGS)
    values[name] = trimmed(value)
    if name == "LETTA_SERVER_URL":
        values["LETTA_BASE_URL"] = values[name]
    if name in _SECRETS:
        values.secret(name)
    settings = _checked(values, ())
    default_zone(settings)
    desire_half_life(settings)


def find_setting(word: str) -> Setting:
    """The setting that a person means by a word: its name, or the last part of it, in any case.

    Raises:
        PromptyoselfError: ``unknown_setting``, with what may be meant.
    """
    wanted = word.strip().upper().replace("-", "_")
    name = _spellings().get(_without_prefix(wanted))
    if wanted in _BY_NAME:
        name = wanted
    if (owner := destination_of(wanted)) is not None:
        raise PromptyoselfError(
            "unknown_setting",
            f"{wanted} is changed together with the destination {owner}.",
            "`promptyoself notify` adds, lists and removes destinations.",
        )
    if name is None:
        close = _closest(wanted)
        raise PromptyoselfError(
            "unknown_setting",
            f"There is no setting {word[:200]!r}.",
            f"Did you mean {close}?" if close else "`promptyoself config` lists the settings.",
        )
    return _BY_NAME[name]


def describe_unknown(unknown: Unknown) -> tuple[str, str]:
    """A sentence about a name that is no setting, and what to do about it."""
    where = _origin_of(unknown.origin, unknown.line)
    if (owner := destination_of(unknown.name)) is not None:
        address = destination_setting(DESTINATION, owner)
        return (
            f"{unknown.name} is set in {where}, but {address} isn't, so it changes nothing.",
            f"`promptyoself notify add {owner}` adds that destination. Or unset this.",
        )
    if unknown.name.startswith((DESTINATION, WEBHOOK_SECRET, DIGEST)):
        return (
            f"{unknown.name} is set in {where}, but no destination can have that name.",
            "It has capitals, digits and _, and begins with a letter.",
        )
    close = _closest(unknown.name.upper())
    message = f"{unknown.name} is set in {where}, but it is no setting, and changes nothing."
    if close:
        return message, f"Did you mean {close}?"
    return message, "`promptyoself doctor` lists the settings. Unset this one."


def _without_prefix(name: str) -> str:
    return re.sub(r"^PROM[A-Z]*?SELF[_.-]*", "", name)


def _spellings() -> dict[str, str]:
    """Each setting by the part of its name that tells it from others, and by other words for it."""
    lettas = {name.removeprefix("LETTA_"): name for name in _BY_NAME if name[:5] == "LETTA"}
    return lettas | {name.removeprefix("PROMPTYOSELF_"): name for name in _BY_NAME} | _GUESSES


def _closest(name: str) -> str | None:
    """The setting whose name is most like another name, if any is."""
    from difflib import get_close_matches

    spellings = _spellings()
    close = get_close_matches(_without_prefix(name), spellings, 1)
    return spellings[close[0]] if close else None


_ORIGINS = {"environment": "the environment", "--var": "the option --var"}
_GUESSES = {
    "TIMEZONE": "PROMPTYOSELF_TZ",
    "TIME_ZONE": "PROMPTYOSELF_TZ",
    "DATA": "PROMPTYOSELF_VAR",
    "DATA_DIR": "PROMPTYOSELF_VAR",
    "AGENT": "PROMPTYOSELF_DEFAULT_AGENT_ID",
    "AGENT_ID": "PROMPTYOSELF_DEFAULT_AGENT_ID",
    "DEFAULT_AGENT": "PROMPTYOSELF_DEFAULT_AGENT_ID",
    "ZONE": "PROMPTYOSELF_TZ",
    "URL": "LETTA_BASE_URL",
    "PASSWORD": "LETTA_SERVER_PASSWORD",
}
"""Other words that people use for some settings, by the part after PROMPTYOSELF_."""


def _origin_of(origin: str, line: int | None) -> str:
    source = _ORIGINS.get(origin, origin)
    return source if line is None else f"line {line} of {source}"


def default_zone(settings: Settings) -> str:
    """The zone of times that name none: the machine's, where PROMPTYOSELF_TZ isn't set.

    Raises:
        PromptyoselfError: ``invalid_setting``, where PROMPTYOSELF_TZ names none that exists.
    """
    if not settings.timezone:
        from promptyoself.core.zones import machine_zone

        return machine_zone().name
    return _parsed(parse_zone, "PROMPTYOSELF_TZ", settings.timezone)


def desire_half_life(settings: Settings) -> int:
    """In how many seconds a desire loses half its strength.

    Raises:
        PromptyoselfError: ``invalid_setting``, where PROMPTYOSELF_DESIRE_HALF_LIFE is no duration.
    """
    return _parsed(parse_duration, "PROMPTYOSELF_DESIRE_HALF_LIFE", settings.half_life)


def _parsed(parse: Callable[[str], V], name: str, value: str) -> V:
    """The value of a setting that is read where it is needed. The error has its name and origin."""
    try:
        return parse(value)
    except PromptyoselfError as error:
        hint, message = error.hint, f"{name}: {error.message}"
        source = next(source for source in read_sources() if source.setting.name == name)
        if source.value == value and source.origin != "default":
            hint = f"{hint} It came from {_origin_of(source.origin, source.line)}.".lstrip()
        raise PromptyoselfError("invalid_setting", message, hint, setting=name) from None


def _checked(values: SettingValues, unknown: tuple[Unknown, ...]) -> Settings:
    url = values.base_url()
    destinations = read_destinations(values)
    secrets = [values[name] for name in _BY_NAME if name in _SECRETS and values[name]]
    for setting in SETTINGS:
        if setting.address:
            secrets += credentials(values[setting.name])
    for destination in destinations.values():
        secrets += destination.secrets
    return Settings(
        var=values.path("PROMPTYOSELF_VAR").absolute(),
        base_url=url,
        shown_url=presentable(url),
        token=values["LETTA_API_KEY"] or values["LETTA_SERVER_PASSWORD"] or None,
        interval=values.seconds("PROMPTYOSELF_INTERVAL", 0.1),
        timezone=values["PROMPTYOSELF_TZ"],
        default_agent=values.agent("PROMPTYOSELF_DEFAULT_AGENT_ID")
        or values.agent("LETTA_AGENT_ID"),
        only_agent=values.agent("PROMPTYOSELF_ONLY_AGENT"),
        caps=Caps(
            values.whole_seconds("PROMPTYOSELF_MIN_INTERVAL"),
            values.whole("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT"),
            values.whole("PROMPTYOSELF_DAILY_PER_AGENT"),
            values.whole("PROMPTYOSELF_MAX_PROMPT_BYTES_PER_AGENT"),
        ),
        reconcile_grace=values.seconds("PROMPTYOSELF_RECONCILE_GRACE", 0.0),
        keep_reply=values.word("PROMPTYOSELF_KEEP_REPLY", ("none", "hash", "excerpt", "full")),
        half_life=values["PROMPTYOSELF_DESIRE_HALF_LIFE"],
        call_timeout=values.seconds("PROMPTYOSELF_CALL_TIMEOUT", 0.1),
        lock_timeout=values.seconds("PROMPTYOSELF_LOCK_TIMEOUT", 0.0),
        log_file=values.path("PROMPTYOSELF_LOG_FILE") if values["PROMPTYOSELF_LOG_FILE"] else None,
        log_format=values.word("PROMPTYOSELF_LOG_FORMAT", ("text", "json")),
        log_level=values.word("PROMPTYOSELF_LOG_LEVEL", LEVELS),
        log_prompts=values.flag("PROMPTYOSELF_LOG_PROMPTS"),
        secrets=tuple(secrets),
        mcp_token=values.secret("PROMPTYOSELF_MCP_TOKEN"),
        letta_code_url=values.letta_code_url(),
        letta_code_token=values.secret("PROMPTYOSELF_LETTA_CODE_TOKEN"),
        letta_cloud=values.word("PROMPTYOSELF_LETTA_CLOUD", ("off", "untested")) != "off",
        format=values.word("PROMPTYOSELF_FORMAT", ("auto", "table", "json")),
        unknown=unknown,
        destinations=destinations,
    )


def read_sources(
    environ: Mapping[str, str] | None = None, var: str | None = None
) -> tuple[Source, ...]:
    """Every setting with its value and where that came from, unchecked."""
    environ = os.environ if environ is None else environ
    return tuple(_sources(environ, var, *_read_dotenv(environ)))


def _sources(
    environ: Mapping[str, str], var: str | None, path: Path, entries: Mapping[str, Entry]
) -> Iterator[Source]:
    def source(setting: Setting) -> Source:
        if value := trimmed(environ.get(setting.name, "")):
            return Source(setting, value, "environment")
        entry = entries.get(setting.name)
        if entry is not None and (value := trimmed(entry.value)):
            return Source(setting, value, str(path), entry.line)
        return Source(setting, setting.default, "default")

    for setting in SETTINGS:
        effective = source(setting)
        if setting.name == "PROMPTYOSELF_VAR":
            if var is not None:
                effective = Source(setting, var, "--var")
            elif not effective.value:
                effective = effective._replace(value=str(_default_var()))
        if setting.name == "LETTA_BASE_URL" and effective.origin == "default":
            instead = source(_BY_NAME["LETTA_SERVER_URL"])
            if instead.value:
                effective = Source(setting, instead.value, "LETTA_SERVER_URL")
        yield effective
    for name in sorted({*environ, *entries}):
        if name.startswith(_PREFIX) and (of_destination := setting_of_destination(name)):
            yield source(of_destination)


def settings_path(environ: Mapping[str, str] | None = None) -> Path:
    """The file of settings, whether it is there or not."""
    environ = os.environ if environ is None else environ
    if _is_checkout():
        return _ROOT / ".env"
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # the specification has it ignored: it would be the caller's
        home = os.path.join(environ.get("HOME", "/"), ".config")
    return Path(home) / "promptyoself" / ".env"


def read_file(path: Path) -> dict[str, Entry]:
    """What a file of settings sets, by name; nothing if it isn't there.

    Raises:
        PromptyoselfError: ``invalid_setting``, with ``file`` and perhaps ``line``.
    """
    from promptyoself.core.envfile import read_envfile

    return read_envfile(path, _is_setting, _is_secret)


def _is_setting(name: str) -> bool:
    return name in _BY_NAME or setting_of_destination(name) is not None


def _is_secret(name: str) -> bool:
    setting = _BY_NAME.get(name) or setting_of_destination(name)
    return setting is not None and setting.secret


def _read_dotenv(environ: Mapping[str, str]) -> tuple[Path, dict[str, Entry]]:
    path = settings_path(environ)
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path, {}  # as most have it: nothing more is imported
    except (OSError, ValueError):
        pass  # read_file reports it
    return path, read_file(path)


def _unknown(
    environ: Mapping[str, str], path: Path, entries: Mapping[str, Entry]
) -> Iterator[Unknown]:
    names = {name for name, value in environ.items() if value.strip()}
    names |= {name for name, entry in entries.items() if entry.value.strip()}

    def is_unknown(name: str) -> bool:
        owner = destination_of(name)
        if owner is None:
            return _is_like_ours(name)
        return name in names and destination_setting(DESTINATION, owner) not in names

    for name in environ:
        ours = name[:4].upper() == "PROM" and is_unknown(name)
        if ours and not _is_kubernetes(name, environ[name]):
            yield Unknown(name, "environment")
    for name, entry in entries.items():
        if is_unknown(name) or (name not in _BY_NAME and name.upper() in _BY_NAME):
            yield Unknown(name, str(path), entry.line)


def _is_like_ours(name: str) -> bool:
    # Few names get to the slower check: every command checks the whole environment.
    if name[:4].upper() != "PROM" or name in _BY_NAME:
        return False
    return re.match(r"PROM[A-Z]*SELF[_.-]", name.upper()) is not None


def _is_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable, for a service whose name is like ours."""
    forms = r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$"
    if re.search(forms, name):
        return True
    return name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


def _default_var() -> Path:
    if _is_checkout():
        return _ROOT / "var"
    from platformdirs import user_data_path

    return user_data_path("promptyoself", appauthor=False)


def _is_checkout() -> bool:
    return (_ROOT / "pyproject.toml").is_file() and (_ROOT / "promptyoself").is_dir()
