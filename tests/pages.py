"""The commands that the pages of the documentation show, and which test follows which page.

A page shows commands in blocks marked ``sh``. Above a block may stand ``<!-- keys: … -->``, what is
pressed once its last line runs, or ``<!-- not run: WHY -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
# By the test that follows them, block by block.
FOLLOWED = {
    "test_howto": ("howto/data.md", "howto/edit.md", "howto/overnight.md"),
    "test_people": ("howto/people.md",),
    "test_roles_python": ("howto/notebooks.md",),
    "test_readme": (
        "tutorial.md",
        "howto/remote.md",
        "howto/team.md",
        "howto/leaving.md",
        "howto/gpu.md",
        "howto/company-proxy.md",
        "howto/upgrade.md",
        "howto/moving.md",
        "howto/ansible.md",
        "troubleshooting.md",
        "security.md",
    ),
}


@dataclass(frozen=True)
class Block:
    """A block of commands.

    Attributes:
        text: the commands.
        keys: what is pressed once the last of them runs.
        why: why no test runs it; empty where one does.
    """

    text: str
    keys: tuple[str, ...] = ()
    why: str = ""

    @property
    def lines(self) -> list[str]:
        """The commands, without their comments."""
        lines = (re.sub(r"\s+#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks(page: str) -> list[Block]:
    """Every block of commands on a page of ``docs``."""
    text = (DOCS / page).read_text("utf-8")
    found = re.findall(
        r"(?:<!-- (keys|not run): (.*?) -->\n)?^ *```sh\n(.*?)^ *```$", text, re.S | re.M
    )
    return [
        Block(
            body,
            tuple(re.findall(r'"[^"]*"|\S+', said)) if kind == "keys" else (),
            said if kind == "not run" else "",
        )
        for kind, said, body in found
    ]


def steps(page: str) -> list[Block]:
    """The blocks that a test runs."""
    return [block for block in blocks(page) if not block.why]
