"""Where roost keeps its files, as one value that is passed in.

Source of the folders: the XDG Base Directory Specification 0.8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """The folders of one user on this side.

    Attributes:
        home: the user's home.
        config: settings, and the workspace that is used where no other is found.
        state: run logs, the demo's workspace, what must survive a reboot.
        cache: what can be made again at any time.
        runtime: sockets and process ids; gone after a reboot.
    """

    home: Path
    config: Path
    state: Path
    cache: Path
    runtime: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Paths:
        """Read the folders from ``environ``, with the defaults of the specification.

        Without ``XDG_RUNTIME_DIR`` (macOS, a bare ssh login, cron) the run-time folder is a
        short path in the temporary folder that carries the user id: control sockets have to
        stay below 104 characters (``sun_path`` in macOS's unix(4)).
        """
        home = Path(environ.get("HOME") or Path.home())

        def xdg(name: str, fallback: Path) -> Path:
            value = environ.get(name, "")
            # The specification: a relative path is invalid and must be ignored.
            base = Path(value) if value.startswith("/") else fallback
            return base / "roost"

        runtime = environ.get("XDG_RUNTIME_DIR", "")
        if runtime.startswith("/"):
            folder = Path(runtime) / "roost"
        else:
            import tempfile

            folder = Path(tempfile.gettempdir()) / f"roost-{os.getuid()}"
        return cls(
            home=home,
            config=xdg("XDG_CONFIG_HOME", home / ".config"),
            state=xdg("XDG_STATE_HOME", home / ".local" / "state"),
            cache=xdg("XDG_CACHE_HOME", home / ".cache"),
            runtime=folder,
        )

    def display(self, path: Path) -> str:
        """``path`` as a person writes it: ``~`` for the home."""
        try:
            return str("~" / path.relative_to(self.home))
        except ValueError:
            return str(path)
