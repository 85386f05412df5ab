"""Start a browser with a profile of its own that takes its proxy from a script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from roost import process
from roost.errors import MissingProgramError, RoostError
from roost.paths import Paths

_CHROMIUM = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "brave-browser",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_FIREFOX = ("firefox", "firefox-esr", "/Applications/Firefox.app/Contents/MacOS/firefox")

# Firefox's own names; 2 is "automatic, by a script".
_USER_JS = """\
user_pref("network.proxy.type", 2);
user_pref("network.proxy.autoconfig_url", "{pac}");
user_pref("network.proxy.socks_remote_dns", true);
user_pref("network.proxy.socks5_remote_dns", true);
user_pref("network.dns.disablePrefetch", true);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
"""


def start(
    paths: Paths, environ: Mapping[str, str], gateway: str, pac_url: str, *, program: str = ""
) -> None:
    """Start the browser and leave it to the user.

    Args:
        paths: the profile is kept among the user's state.
        environ: of the call.
        gateway: each has a profile of its own.
        pac_url: the proxy script.
        program: the browser; empty: the first one that is found.

    Raises:
        MissingProgramError: there is none.
        RoostError: the profile cannot be written.
    """
    name = program or next(_installed(environ), "")
    path = process.which(name, environ) if name else None
    if path is None:
        raise MissingProgramError(
            f"the browser {program} is not installed" if program else "no browser was found",
            why="Chromium, Chrome, Brave, Edge and Firefox are looked for",
            fix="install chromium or firefox, or name one: --browser PROGRAM",
        )
    firefox = "firefox" in Path(path).name.lower()
    profile = _profile(paths, Path(path), gateway)
    try:
        profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        if firefox:
            (profile / "user.js").write_text(_USER_JS.format(pac=pac_url), "utf-8")
    except OSError as error:
        raise RoostError(f"{profile} cannot be written: {error.strerror}") from error
    process.start(
        [path, *(_firefox(profile) if firefox else _chromium(profile, pac_url))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
        new_session=True,
    )


def _chromium(profile: Path, pac_url: str) -> list[str]:
    return [
        f"--user-data-dir={profile}",
        f"--proxy-pac-url={pac_url}",
        "--no-first-run",
        "--no-default-browser-check",
    ]


def _firefox(profile: Path) -> list[str]:
    return ["--new-instance", "--profile", str(profile)]


def _installed(environ: Mapping[str, str]) -> Iterator[str]:
    for name in (*_CHROMIUM, *_FIREFOX):
        if process.which(name, environ):
            yield name


def _profile(paths: Paths, program: Path, gateway: str) -> Path:
    """A folder that the browser may write: a snap may not enter hidden ones."""
    real = program.resolve()
    if real.name == "snap" or "/snap/" in str(real) or _is_snap_wrapper(program):
        name = "firefox" if "firefox" in program.name else "chromium"
        return paths.home / "snap" / name / "common" / "roost" / gateway
    return paths.state / "browsers" / f"{program.name}-{gateway}"


def _is_snap_wrapper(program: Path) -> bool:
    """Ubuntu's chromium-browser and firefox packages are scripts that start the snap."""
    if sys.platform != "linux" or not os.access(program, os.R_OK):
        return False
    with program.open("rb") as file:
        head = file.read(2048)
    return head.startswith(b"#!") and b"/snap/bin/" in head
