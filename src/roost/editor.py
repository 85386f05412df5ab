"""Open an editor of the VS Code family on a box, through its Remote-SSH extension.

Source of the option: ``code --remote ssh-remote+HOST PATH``, as "Remote Development using SSH"
documents it. HOST is a name that plain ``ssh`` knows: the extension reads ``~/.ssh/config``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from roost import process
from roost.errors import MissingProgramError

# The first that is installed is taken, unless one is asked for.
EDITORS = ("code", "cursor", "codium", "windsurf")
# The extension that each uses, by the name that --list-extensions prints.
_MICROSOFT = "ms-vscode-remote.remote-ssh"
_INSTALL = {"cursor": "anysphere.remote-ssh", "codium": "jeanp413.open-remote-ssh"}
EXTENSIONS = re.compile(r"(?:^|\.)(?:remote-ssh|open-remote-ssh|remote-openssh)$", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """What stands between the editor and the box.

    Attributes:
        what: what was found.
        fix: the command that mends it.
    """

    what: str
    fix: str


def choose(wanted: str | None, environ: Mapping[str, str]) -> list[str]:
    """The editor's command, as words.

    Args:
        wanted: a command, such as ``cursor`` or ``code-insiders``; None: ``$ROOST_EDITOR``, then
            the first of ``EDITORS`` that is installed.
        environ: our environment.

    Raises:
        MissingProgramError: it is not installed, or none is.
    """
    asked = wanted or environ.get("ROOST_EDITOR")
    candidates = [shlex.split(asked)] if asked else [[name] for name in EDITORS]
    for words in candidates:
        if words and process.which(words[0], environ):
            return words
    raise MissingProgramError(
        f"{asked} is not on the PATH" if asked else "no editor of the VS Code family was found",
        why=None if asked else f"looked for {', '.join(EDITORS)}",
        fix="in VS Code: “Shell Command: Install 'code' command in PATH”; "
        "another editor: --editor COMMAND, or $ROOST_EDITOR",
    )


def command(editor: list[str], box: str, path: str) -> list[str]:
    """The argument list that opens ``path``, absolute, on the host that ssh knows as ``box``."""
    return [*editor, "--remote", f"ssh-remote+{box}", path]


def findings(editor: list[str], box: str, host: str) -> list[Finding]:
    """What would keep the editor's extension from finding the box; empty where nothing does.

    Args:
        editor: the editor's command.
        box: the box's name.
        host: its address in the inventory.
    """
    found = []
    resolved = process.run(["ssh", "-G", box], check=False).stdout
    names = re.search(r"^hostname (.*)$", resolved, re.MULTILINE)
    if not names or names[1].lower() != host.strip("[]").lower():
        found.append(
            Finding(
                f"plain ssh does not know {box}, so neither does the editor",
                "roost ssh-config install",
            )
        )
    name = PurePath(editor[0]).name
    listed = process.run([*editor, "--list-extensions"], check=False, timeout=30).stdout
    if not EXTENSIONS.search(listed.lower()):
        found.append(
            Finding(
                f"{editor[0]} has no Remote-SSH extension",
                f"{shlex.join(editor)} --install-extension {_INSTALL.get(name, _MICROSOFT)}",
            )
        )
    return found
