"""What tells a machine to run the loop: units for systemd, a launchd agent, a line for cron. Pure
but for reading the unit that lies in the package."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

NAME = "promptyoself.service"

LETTA_CODE_NAME = "promptyoself-letta-code.service"
"""The service that keeps an App Server of Letta Code running."""

LAUNCHD_LABEL = "promptyoself"

CRON_MARK = "# promptyoself service"
"""How our line in a crontab ends. The shell that runs the line takes it for a comment."""

SYSTEM_VAR = Path("/var/lib/promptyoself")
"""The data directory of the service of the system."""

_TEMPLATE = Path(__file__).resolve().parents[2] / "data" / NAME
_SYSTEM_ALONE = "# What follows needs a service of the system"
_DATA_COMMENT = "# The data directory: "
_FOR_SYSTEM = ("User=", "StateDirectory", "EnvironmentFile=", "Wants=", "After=", "# Settings, as")


def system_unit(program: Sequence[str], var: Path, user: str) -> str:
    """The unit of a service of the system, which runs the ``program`` as that ``user``."""
    return "".join(_system_lines(program, var, user))


def _system_lines(program: Sequence[str], var: Path, user: str) -> Iterator[str]:
    elsewhere = var != SYSTEM_VAR
    for line in _template():
        if line.startswith("ExecStart="):
            yield _exec_start(program)
        elif line.startswith("User="):
            yield f"User={user}\n"
        elif line.startswith("Environment="):
            yield f"Environment={_word(f'PROMPTYOSELF_VAR={var}')}\n"
        elif elsewhere and line.startswith("StateDirectory="):
            yield f"ReadWritePaths={_word(str(var))}\n"
        elif not (elsewhere and line.startswith(("StateDirectory", _DATA_COMMENT))):
            yield line


def user_unit(program: Sequence[str], environ: Mapping[str, str]) -> str:
    """The unit of a user's own service, with that environment. The loop reads the user's file of
    settings."""
    return "".join(_user_lines(program, environ))


def _user_lines(program: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    skipping = False
    for line in _template():
        skipping = line.startswith(_SYSTEM_ALONE) or (skipping and line.strip() != "")
        if skipping or line.startswith((*_FOR_SYSTEM, _DATA_COMMENT)):
            continue
        if line.startswith("ExecStart="):
            yield _exec_start(program)
        elif line.startswith("Environment="):
            for name, value in environ.items():
                yield f"Environment={_word(f'{name}={value}')}\n"
        elif line.startswith("WantedBy="):
            yield "WantedBy=default.target\n"
        else:
            yield line


def app_server_unit(program: Sequence[str], letta: Path, environ: Mapping[str, str]) -> str:
    """The unit of a user's own service that keeps an App Server of Letta Code running, with that
    environment, by the program ``letta``. Its agents' tools may do what the user may."""
    words = " ".join(map(_word, [*program, "letta-code", "up", "--program", str(letta)]))
    variables = "".join(
        f"Environment={_word(f'{name}={value}')}\n" for name, value in environ.items()
    )
    return f"""\
# An App Server of Letta Code. `promptyoself service install --with-letta-code` has written this. To
# change something, don't edit it: `systemctl --user edit promptyoself-letta-code`.
[Unit]
Description=An App Server of Letta Code, kept running by promptyoself
# It is started again however often it ends.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={words}
{variables}Restart=always
# `letta-code up` has its own pauses, and gives up only after some. Then the cause is another.
RestartSec=30
# It tells the App Server to end, which may take 10 seconds.
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=default.target
"""


def launchd_agent(program: Sequence[str], environ: Mapping[str, str]) -> str:
    """The property list of a launchd agent of macOS, which runs the loop while the user is logged
    in, and starts it again 5 seconds after it ended."""
    words = "".join(f"    <string>{escape(word)}</string>\n" for word in _loop(program))
    variables = "".join(
        f"    <key>{escape(name)}</key>\n    <string>{escape(value)}</string>\n"
        for name, value in environ.items()
    )
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" \
"http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{LAUNCHD_LABEL}</string>
  <key>ProgramArguments</key>
  <array>
{words}  </array>
  <key>EnvironmentVariables</key>
  <dict>
{variables}  </dict>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <true/>
  <key>ThrottleInterval</key>
  <integer>5</integer>
</dict>
</plist>
"""


def cron_line(program: Sequence[str], environ: Mapping[str, str], var: Path) -> str:
    """The line of a crontab that delivers what is due, once a minute. What isn't finished after 50
    seconds is left to the next run. Only what goes wrong is written to a file, in the data
    directory ``var``."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in environ.items()]
    words = [*map(shlex.quote, program), "execute", "--deadline", "50"]
    log = shlex.quote(f"{var}/cron.log")
    command = " ".join([*variables, *words, ">/dev/null", f"2>>{log}"])
    escaped = command.replace("%", "\\%")  # to cron, % is a line's end
    return f"* * * * * {escaped} {CRON_MARK}"


def _loop(program: Sequence[str]) -> list[str]:
    return [*program, "execute", "--loop"]


def _template() -> list[str]:
    return _TEMPLATE.read_text(encoding="utf-8").splitlines(keepends=True)


def _exec_start(program: Sequence[str]) -> str:
    return f"ExecStart={' '.join(map(_word, _loop(program)))}\n"


def _word(text: str) -> str:
    """A word as systemd reads it in a list of words."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != text or any(c in text for c in " '\t;") else escaped
