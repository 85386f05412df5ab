"""Files to and from a box by rsync, resumed where a transfer broke off; scp where there is none.

Three kinds of rsync are catered for: rsync 3.1 and later; the openrsync of macOS 15 and later
and the rsync 2.6.9 of macOS before it, which know fewer options; and none at all on the other
side. Source of the options and exit codes: rsync(1) of 3.2 to 3.5, and openrsync's rsync(1).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roost import process, ssh
from roost.errors import ProcessError, RoostError, SshError, UsageError
from roost.gitignore import ignored_by_git
from roost.model import Box, Fleet

# What a partly transferred file is kept in, beside its place, until the transfer goes on.
PARTIAL = ".rsync-partial"
# Seconds without a byte after which a connection counts as dead.
SILENCE = 60
# rsync's own codes for a connection that broke, and ssh's.
BROKEN = frozenset({10, 12, 30, 35, 255})
VANISHED = 24
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_ALONE = ("-o", "ControlMaster=no", "-o", "ControlPath=none")


@dataclass(frozen=True)
class Options:
    """How to transfer.

    Attributes:
        delete: remove on the receiving side what the sending side does not have.
        ignore_existing: leave alone what is there already, older or newer.
        gitignore: leave out what git ignores.
        exclude: patterns to leave out, as rsync writes them.
        compress: compress on the way.
        progress: show it.
        retries: how often a connection that broke is made again.
    """

    delete: bool = False
    ignore_existing: bool = False
    gitignore: bool = False
    exclude: tuple[str, ...] = ()
    compress: bool = False
    progress: bool = False
    retries: int = 20


@dataclass(frozen=True)
class Transfer:
    """One transfer between this machine and a box.

    Attributes:
        config: the workspace's ssh config.
        box: the box.
        sources: what to transfer, as rsync understands it: with a final slash the contents.
        target: where to. A path on the box is absolute or below the home there.
        up: to the box; otherwise from it.
        options: how.
        fleet: where the gateways are found that an error may be about.
    """

    config: Path
    box: Box
    sources: tuple[str, ...]
    target: str
    up: bool
    options: Options = Options()
    fleet: Fleet | None = None


@dataclass(frozen=True)
class Change:
    """What a transfer would do to one file: ``copy`` or ``delete``."""

    what: str
    path: str


def prepare(transfer: Transfer, *, make_target: bool = False) -> bool:
    """Look at both sides before the first byte; make the target folder where that is wished.

    Returns:
        Whether both sides have rsync.

    Raises:
        UsageError: a source on this side is missing.
        UnreachableError: the box does not answer, or does not let us in.
    """
    if transfer.up:
        for source in transfer.sources:
            if not Path(source).expanduser().exists():
                raise UsageError(f"there is no {source} here")
    script = "command -v rsync >/dev/null && echo rsync || echo none"
    if transfer.up and make_target:
        script = f"mkdir -p -- {shlex.quote(_remote_path(transfer.target))} && {script}"
    done = ssh.run(transfer.config, transfer.box, script, fleet=transfer.fleet)
    if not transfer.up and make_target:
        Path(transfer.target).expanduser().mkdir(parents=True, exist_ok=True)
    return done.stdout.endswith("rsync\n") and process.which("rsync") is not None


def preview(transfer: Transfer) -> list[Change]:
    """What the transfer would do, changing nothing.

    Raises:
        ProcessError: rsync failed.
        SshError: the connection broke.
    """
    with _excluded(transfer) as excluded:
        argv = _argv(transfer, [*excluded, "--dry-run", "--itemize-changes"])
        done = process.run(argv, timeout=None, check=False)
    if done.returncode not in (0, VANISHED):
        raise _failure(transfer, done.returncode, done.stderr)
    changes = []
    for line in done.stdout.splitlines():
        # rsync's %i: eleven letters (nine in openrsync), a space, the name.
        if match := re.match(r"(\*deleting  |[<>c.][fdLDS]\S{7,9}) (.*)", line):
            what = "delete" if match[1].startswith("*") else "copy"
            if what == "delete" or match[1][0] in "<>c":
                changes.append(Change(what, match[2].strip()))
    return changes


def run(
    transfer: Transfer,
    *,
    deletions: int | None = None,
    lost: Callable[[RoostError], None] = lambda _: None,
) -> None:
    """Transfer, over as many connections as it takes; what has arrived is not sent again.

    Args:
        transfer: what to do.
        deletions: delete no more than so many files: those that were shown.
        lost: told of each connection that was lost.

    Raises:
        SshError: the connection broke more often than the options allow.
        ProcessError: rsync failed.
    """
    guard = [] if deletions is None else [f"--max-delete={deletions}"]
    pause = FIRST_PAUSE
    with _excluded(transfer) as excluded:
        for attempt in range(transfer.options.retries + 1):
            code, said = _foreground(_argv(transfer, [*excluded, *guard], alone=attempt > 0))
            if code in (0, VANISHED):
                return
            error = _failure(transfer, code, said)
            if code not in BROKEN or attempt == transfer.options.retries:
                raise error
            lost(error)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


def copy_plainly(transfer: Transfer) -> None:
    """The same by scp, which cannot resume, delete or leave anything out.

    Raises:
        UsageError: the options ask for what it cannot do.
        SshError: the connection broke.
    """
    if transfer.options != replace(
        Options(), progress=transfer.options.progress, retries=transfer.options.retries
    ):
        raise UsageError(
            "without rsync on both sides only whole files are copied",
            fix=f"install it there: roost ssh {transfer.box.name} -- sudo apt-get install rsync"
            if process.which("rsync")
            else "install it here: sudo apt-get install rsync",
        )
    sources, target = _ends(transfer, quoted=False)
    sources = [s.rstrip("/") + "/." if s.endswith("/") else s for s in sources]
    # -s: by SFTP, so that no shell on the other side reads the names.
    argv = ["scp", "-s", "-r", "-p", "-F", str(transfer.config), "--", *sources, target]
    code, said = _foreground(argv)
    if code:
        raise _failure(transfer, code, said)


def _argv(transfer: Transfer, more: Sequence[str], *, alone: bool = False) -> list[str]:
    options = transfer.options
    words = ["rsync", "-rlpt", f"--timeout={SILENCE}", f"--partial-dir={PARTIAL}"]
    if _modern():
        # -s: no shell on the other side reads the names. -8: they are shown as they are.
        words += ["-s", "-8"]
        words += ["--info=progress2", "--no-inc-recursive"] if options.progress else []
    elif options.progress:
        words.append("--progress")
    words += ["-z"] * options.compress + ["--ignore-existing"] * options.ignore_existing
    words += ["--delete"] * options.delete + [f"--exclude={p}" for p in options.exclude]
    reach = ["ssh", "-F", str(transfer.config), "-o", "BatchMode=yes", *(_ALONE if alone else ())]
    sources, target = _ends(transfer, quoted=not _modern())
    return [*words, *more, "-e", " ".join(map(_quoted, reach)), "--", *sources, target]


def _ends(transfer: Transfer, *, quoted: bool) -> tuple[list[str], str]:
    """Sources and target; ``quoted``: a shell on the other side reads the names."""

    def here(path: str) -> str:
        path = path if not path.startswith("~") else os.path.expanduser(path)  # noqa: PTH111
        # So that a colon or a dash in a name is taken for what it is.
        return path if path.startswith("/") else f"./{path}"

    def there(path: str) -> str:
        path = _remote_path(path)
        return f"{transfer.box.name}:{shlex.quote(path) if quoted else path}"

    if transfer.up:
        return [here(s) for s in transfer.sources], there(transfer.target)
    return [there(s) for s in transfer.sources], here(transfer.target)


def _remote_path(path: str) -> str:
    """A path on the box: one below the home there is relative."""
    if path == "~":
        return "."
    path = path.removeprefix("~/")
    return path if path.startswith("/") else f"./{path}"


def _quoted(word: str) -> str:
    """A word of ``-e``, where rsync knows quotes, but no backslash."""
    if re.fullmatch(r"[\w@%+=:,./-]+", word):
        return word
    return f'"{word}"' if "'" in word else f"'{word}'"


@functools.cache
def _modern() -> bool:
    """Whether our rsync is 3.1 or later.

    Raises:
        MissingProgramError: there is none.
    """
    said = process.run(["rsync", "--version"], check=False).stdout
    version = re.search(r"rsync\s+version v?(\d+)\.(\d+)", said)
    old = "openrsync" in said or not version
    return not old and version is not None and (int(version[1]), int(version[2])) >= (3, 1)


@contextlib.contextmanager
def _excluded(transfer: Transfer) -> Iterator[list[str]]:
    """The options that leave out what git ignores."""
    if not transfer.options.gitignore:
        yield []
        return
    patterns = ignored_by_git(transfer.sources) if transfer.up else None
    if patterns is None:
        # No git to ask: rsync reads the .gitignore files itself, which is nearly the same.
        yield ["--filter=:- .gitignore"]
        return
    with tempfile.NamedTemporaryFile("wb", prefix="roost-") as file:
        file.write(b"\0".join(patterns))
        file.flush()
        yield ["--from0", f"--exclude-from={file.name}"]


def _foreground(argv: list[str]) -> tuple[int, str]:
    """Run with its progress on our standard error; return the exit code and what it complained."""
    with process.start(argv, stdout=sys.stderr, stderr=subprocess.PIPE) as child:
        said = []
        for line in child.stderr or ():
            said.append(line)
        return child.wait(), "".join(said)


def _failure(transfer: Transfer, code: int, said: str) -> RoostError:
    name = transfer.box.name
    lines = [s for s in said.splitlines() if s.strip() and "rsync error:" not in s]
    if code in BROKEN and "shell produces no output" not in said:
        return SshError(
            f"the connection to {name} was lost",
            why=lines[-1] if lines else None,
            fix="run it again: it goes on where it stopped",
        )
    if "is your shell clean" in said or "shell produces no output" in said:
        return RoostError(
            f"a start-up file of yours on {name} prints something even when no one logs in",
            why="rsync and scp talk over the same line",
            fix=f"see it: roost ssh {name} -- true; move it below the test for an interactive "
            "shell (in ~/.bashrc, ~/.zshenv or config.fish)",
        )
    return ProcessError(
        f"the transfer failed with exit code {code}",
        returncode=code,
        stderr=said,
        why="; ".join(lines[:3]) or None,
    )
