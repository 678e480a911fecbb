"""The environment, then a ``.env`` file that never overrides it, as one immutable Settings.

The ``.env`` file is that of the source checkout, else of the user's configuration folder; never
that of the working directory, since a host may call us from anywhere.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from promptyoself.errors import PromptyoselfError
from promptyoself.identity import is_opaque_id
from promptyoself.policy import Caps

__all__ = [
    "SETTINGS",
    "Setting",
    "Settings",
    "Source",
    "default_zone",
    "desire_half_life",
    "load_settings",
    "read_sources",
]

_ROOT = Path(__file__).resolve().parent.parent


class Setting(NamedTuple):
    """One environment variable: what it is for, and its default as it would be written."""

    name: str
    default: str
    help: str
    secret: bool = False


SETTINGS = (
    Setting("PROMPTYOSELF_VAR", "", "The data directory."),
    Setting("LETTA_BASE_URL", "http://localhost:8283", "Where the Letta server answers."),
    Setting("LETTA_API_KEY", "", "Letta's API key.", secret=True),
    Setting("LETTA_SERVER_PASSWORD", "", "A self-hosted Letta's password.", secret=True),
    Setting("PROMPTYOSELF_INTERVAL", "60", "The longest sleep of the loop: seconds, or 1m30s."),
    Setting("PROMPTYOSELF_TZ", "UTC", "The time zone of times that name none."),
    Setting("PROMPTYOSELF_DEFAULT_AGENT_ID", "", "The agent where --agent-id isn't given."),
    Setting("LETTA_AGENT_ID", "", "The same, where PROMPTYOSELF_DEFAULT_AGENT_ID isn't set."),
    Setting("PROMPTYOSELF_ONLY_AGENT", "", "Refuse everything that concerns another agent."),
    Setting("PROMPTYOSELF_MIN_INTERVAL", "10", "The shortest interval allowed, in seconds."),
    Setting("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "100", "Active schedules per agent."),
    Setting("PROMPTYOSELF_DAILY_PER_AGENT", "500", "Deliveries per agent and day (UTC)."),
    Setting("PROMPTYOSELF_RECONCILE_GRACE", "120", "Seconds without a trace before a resend."),
    Setting("PROMPTYOSELF_DESIRE_HALF_LIFE", "30d", "In which a desire fades to half."),
    Setting("PROMPTYOSELF_CALL_TIMEOUT", "30", "Seconds that one request to Letta may take."),
    Setting("PROMPTYOSELF_LOCK_TIMEOUT", "10", "Seconds to wait for the log's lock."),
    Setting("PROMPTYOSELF_LOG_FILE", "", "Where the loop's log goes, rotated; else stderr."),
    Setting("PROMPTYOSELF_LOG_FORMAT", "text", "What it is on stderr: text (warnings) or json."),
    Setting("PROMPTYOSELF_LOG_LEVEL", "info", "The least level of JSON lines: debug to error."),
    Setting("PROMPTYOSELF_LOG_PROMPTS", "0", "Whether prompts may appear in the loop's log."),
    Setting("PROMPTYOSELF_MCP_TOKEN", "", "What MCP clients have to show over HTTP.", secret=True),
    Setting("PROMPTYOSELF_DB_PATH", "", "Of the SQLite versions; not used any more."),
)


class Source(NamedTuple):
    """A setting's value as text, and where it came from."""

    setting: Setting
    value: str
    origin: str


class Settings(NamedTuple):
    """What the environment says, checked. Durations are in seconds."""

    var: Path
    base_url: str
    token: str | None
    interval: float
    timezone: str
    default_agent: str | None
    only_agent: str | None
    caps: Caps
    reconcile_grace: float
    half_life: str
    call_timeout: float
    lock_timeout: float
    log_file: Path | None
    log_format: str
    log_level: str
    log_prompts: bool
    secrets: tuple[str, ...]
    mcp_token: str | None


def load_settings(environ: Mapping[str, str] | None = None, var: str | None = None) -> Settings:
    """Read and check the settings; ``var`` is the command line's ``--var``.

    Raises:
        PromptyoselfError: ``invalid_setting``, naming the variable, its value and where that came
            from.
    """
    sources = read_sources(environ, var)
    try:
        return _checked({source.setting.name: source.value for source in sources})
    except PromptyoselfError as error:
        origin = next(
            source.origin for source in sources if source.setting.name == error.details["setting"]
        )
        error.hint = f"Change or unset it; it came from {_ORIGINS.get(origin, origin)}."
        raise


_ORIGINS = {"environment": "the environment", "--var": "the option --var"}


def default_zone(settings: Settings) -> str:
    """The zone of times that name none.

    Raises:
        PromptyoselfError: ``invalid_setting``, where PROMPTYOSELF_TZ names none that exists.
    """
    from promptyoself.times import parse_zone

    try:
        return parse_zone(settings.timezone)
    except PromptyoselfError as error:
        message, name = f"PROMPTYOSELF_TZ: {error.message}", "PROMPTYOSELF_TZ"
        raise PromptyoselfError("invalid_setting", message, error.hint, setting=name) from None


def desire_half_life(settings: Settings) -> int:
    """In how many seconds a desire loses half its strength.

    Raises:
        PromptyoselfError: ``invalid_setting``, where PROMPTYOSELF_DESIRE_HALF_LIFE is no duration.
    """
    from promptyoself.times import parse_duration

    try:
        return parse_duration(settings.half_life)
    except PromptyoselfError as error:
        name = "PROMPTYOSELF_DESIRE_HALF_LIFE"
        message = f"{name}: {error.message}"
        raise PromptyoselfError("invalid_setting", message, error.hint, setting=name) from None


def _checked(values: Mapping[str, str]) -> Settings:
    return Settings(
        var=_folder(values),
        base_url=_url(values),
        token=values["LETTA_API_KEY"] or values["LETTA_SERVER_PASSWORD"] or None,
        interval=_number(values, "PROMPTYOSELF_INTERVAL", 0.1),
        timezone=values["PROMPTYOSELF_TZ"],
        default_agent=_agent(values, "PROMPTYOSELF_DEFAULT_AGENT_ID")
        or _agent(values, "LETTA_AGENT_ID"),
        only_agent=_agent(values, "PROMPTYOSELF_ONLY_AGENT"),
        caps=Caps(
            _whole_seconds(values, "PROMPTYOSELF_MIN_INTERVAL"),
            _whole(values, "PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", 0),
            _whole(values, "PROMPTYOSELF_DAILY_PER_AGENT", 0),
        ),
        reconcile_grace=_number(values, "PROMPTYOSELF_RECONCILE_GRACE", 0.0),
        half_life=values["PROMPTYOSELF_DESIRE_HALF_LIFE"],
        call_timeout=_number(values, "PROMPTYOSELF_CALL_TIMEOUT", 0.1),
        lock_timeout=_number(values, "PROMPTYOSELF_LOCK_TIMEOUT", 0.0),
        log_file=Path(values["PROMPTYOSELF_LOG_FILE"]) if values["PROMPTYOSELF_LOG_FILE"] else None,
        log_format=_one_of(values, "PROMPTYOSELF_LOG_FORMAT", ("text", "json")),
        log_level=_one_of(values, "PROMPTYOSELF_LOG_LEVEL", ("debug", "info", "warning", "error")),
        log_prompts=_flag(values, "PROMPTYOSELF_LOG_PROMPTS"),
        secrets=tuple(values[each.name] for each in SETTINGS if each.secret and values[each.name]),
        mcp_token=_secret(values, "PROMPTYOSELF_MCP_TOKEN"),
    )


def read_sources(
    environ: Mapping[str, str] | None = None, var: str | None = None
) -> tuple[Source, ...]:
    """Every setting with its value and where that came from, unchecked."""
    environ = os.environ if environ is None else environ
    path, dotenv = _read_dotenv(environ)
    sources = []
    for setting in SETTINGS:
        if setting.name == "PROMPTYOSELF_VAR" and var is not None:
            source = Source(setting, var, "--var")
        elif environ.get(setting.name, "").strip():
            source = Source(setting, environ[setting.name].strip(), "environment")
        elif (dotenv.get(setting.name) or "").strip():
            source = Source(setting, (dotenv[setting.name] or "").strip(), str(path))
        else:
            source = Source(setting, setting.default, "default")
        if setting.name == "PROMPTYOSELF_VAR" and not source.value:
            source = Source(setting, str(_default_var()), "default")
        sources.append(source)
    return tuple(sources)


def _read_dotenv(environ: Mapping[str, str]) -> tuple[Path, Mapping[str, str | None]]:
    if _is_checkout():
        path = _ROOT / ".env"
    else:
        home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
        path = Path(home) / "promptyoself" / ".env"
    if not path.is_file():
        return path, {}
    from dotenv import dotenv_values

    try:
        return path, dotenv_values(path, interpolate=False)
    except (OSError, ValueError) as error:
        raise PromptyoselfError(
            "invalid_setting",
            f"The file of settings {str(path)!r} can't be read: {error}.",
            "Check its mode, and that it is UTF-8; or remove it.",
            setting=".env",
        ) from None


def _default_var() -> Path:
    if _is_checkout():
        return _ROOT / "var"
    from platformdirs import user_data_path

    return user_data_path("promptyoself", appauthor=False)


def _is_checkout() -> bool:
    return (_ROOT / "pyproject.toml").is_file() and (_ROOT / "promptyoself").is_dir()


def _folder(values: Mapping[str, str]) -> Path:
    text = values["PROMPTYOSELF_VAR"]
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = "\0"
    if "\0" in text:
        raise _invalid("PROMPTYOSELF_VAR", values["PROMPTYOSELF_VAR"], "a path")
    return Path(text).absolute()


def _agent(values: Mapping[str, str], name: str) -> str | None:
    text = values[name]
    if text and not is_opaque_id(text):
        raise _invalid(name, text, "an id of at most 200 characters, without white space")
    return text or None


def _secret(values: Mapping[str, str], name: str) -> str | None:
    text = values[name]
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise _invalid(name, "***", "printable ASCII without spaces, as a header can carry it")
    return text or None


def _url(values: Mapping[str, str]) -> str:
    url = values["LETTA_BASE_URL"]
    if not url.startswith(("http://", "https://")) or len(url.partition("//")[2]) == 0:
        raise _invalid("LETTA_BASE_URL", url, "an address such as http://localhost:8283")
    return url.rstrip("/")


def _number(values: Mapping[str, str], name: str, least: float) -> float:
    number = _seconds(values[name])
    if number is None or not least <= number < 1e9:
        wanted = f"a number of seconds, or a duration such as 1m30s, at least {least:g} s"
        raise _invalid(name, values[name], wanted)
    return number


def _seconds(text: str) -> float | None:
    if not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        # Few settings are written with a unit, and reading one costs an import.
        from promptyoself.times import number_of_seconds

        return number_of_seconds(text)


def _whole(values: Mapping[str, str], name: str, least: int) -> int:
    text = values[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise _invalid(name, text, f"a whole number, at least {least}")
    return int(text)


def _whole_seconds(values: Mapping[str, str], name: str) -> int:
    number = _seconds(values[name])
    if number is None or not 1 <= number < 1e9 or number != int(number):
        wanted = "a whole number of seconds, or a duration such as 1m30s, at least 1 s"
        raise _invalid(name, values[name], wanted)
    return int(number)


def _flag(values: Mapping[str, str], name: str) -> bool:
    text = values[name].lower()
    if text not in {"0", "1", "true", "false", "yes", "no", "on", "off"}:
        raise _invalid(name, values[name], "1 or 0")
    return text in {"1", "true", "yes", "on"}


def _one_of(values: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    text = values[name].lower()
    if text not in known:
        raise _invalid(name, values[name], f"one of {', '.join(known)}")
    return text


def _invalid(name: str, value: str, wanted: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_setting",
        f"{name} is {value[:200]!r}, which is not {wanted}.",
        setting=name,
    )
