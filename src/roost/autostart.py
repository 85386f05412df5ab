"""Have the tunnels taken up again when the user logs in: a systemd user unit or a launchd agent."""

from __future__ import annotations

import os
import plistlib
import sys
from collections.abc import Mapping
from pathlib import Path

from roost import files, process
from roost.errors import RoostError
from roost.paths import Paths

UNIT = "roost-tunnels.service"
AGENT = "roost.tunnels"

_UNIT_TEXT = """\
# Written by roost; `roost tunnel autostart --off` removes it.
[Unit]
Description=Tunnels of roost that are wanted

[Service]
ExecStart={command}
# It ends by itself when no tunnel is wanted. After a crash the next one takes over the ssh
# processes that still run, so they are not ended with it.
Restart=on-failure
KillMode=process

[Install]
WantedBy=default.target
"""


def supervisor_command(paths: Paths) -> list[str]:
    """What starts the supervisor of these folders."""
    return [sys.executable, "-m", "roost.supervisor", str(paths.runtime), str(paths.state)]


def unit_path(paths: Paths, environ: Mapping[str, str], platform: str) -> Path:
    """Where the service manager of ``platform`` looks for the user's own services."""
    if platform == "darwin":
        return paths.home / "Library" / "LaunchAgents" / f"{AGENT}.plist"
    config = environ.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config.startswith("/") else paths.home / ".config"
    return base / "systemd" / "user" / UNIT


def render(paths: Paths, platform: str) -> bytes:
    """The service, as the service manager of ``platform`` reads it.

    Sources: systemd.service(5) with the quoting of systemd.syntax(7), and launchd.plist(5).
    """
    words = supervisor_command(paths)
    if platform == "darwin":
        return plistlib.dumps(
            {
                "Label": AGENT,
                "ProgramArguments": words,
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},
                "AbandonProcessGroup": True,
            }
        )
    return _UNIT_TEXT.format(command=" ".join(map(_systemd_word, words))).encode()


def _systemd_word(word: str) -> str:
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def switch_on(paths: Paths, environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Install the service and return its file; may be called any number of times.

    Raises:
        RoostError: the file cannot be written, or there is no service manager for this user.
    """
    path = unit_path(paths, environ, platform)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, render(paths, platform), mode=0o644)
    except OSError as error:
        raise RoostError(f"{path} cannot be written: {error.strerror}") from error
    try:
        if platform == "darwin":
            _launchctl(["bootout", f"gui/{os.getuid()}/{AGENT}"], environ, check=False)
            _launchctl(["bootstrap", f"gui/{os.getuid()}", str(path)], environ)
        else:
            _systemctl(["daemon-reload"], environ)
            _systemctl(["enable", UNIT], environ)
    except RoostError as error:
        path.unlink(missing_ok=True)
        raise RoostError(
            "the service manager does not take the service",
            why=error.why or error.what,
            fix="start the tunnels yourself after a login: roost tunnel list",
        ) from error
    return path


def switch_off(paths: Paths, environ: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Remove the service, and return whether there was one. Open tunnels stay open.

    Raises:
        RoostError: the file cannot be removed.
    """
    path = unit_path(paths, environ, platform)
    if not path.exists():
        return False
    if platform == "darwin":
        _launchctl(["bootout", f"gui/{os.getuid()}/{AGENT}"], environ, check=False)
    else:
        _systemctl(["disable", UNIT], environ, check=False)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RoostError(f"{path} cannot be removed: {error.strerror}") from error
    if platform != "darwin":
        _systemctl(["daemon-reload"], environ, check=False)
    return True


def _systemctl(words: list[str], environ: Mapping[str, str], *, check: bool = True) -> None:
    process.run(["systemctl", "--user", *words], env=environ, check=check)


def _launchctl(words: list[str], environ: Mapping[str, str], *, check: bool = True) -> None:
    process.run(["launchctl", *words], env=environ, check=check)
