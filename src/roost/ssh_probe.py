"""What ``ssh -G`` answers for a set of hosts, and where two configs differ."""

from __future__ import annotations

import difflib
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from roost import process
from roost.errors import ProcessTimeoutError
from roost.ssh_config_reader import is_literal, read

# Hosts that no config names: what a Host * or a negated pattern does shows on them.
STRANGERS = ("roost-stranger", "stranger.example.com", "192.0.2.7", "2001:db8::7")
_BUDGET = 15.0
_SECONDS = 20.0
_SIDE_BY_SIDE = 4


def names(config: Path, skip: Path | None = None) -> list[str]:
    """Every host that ``config`` names, one for each of its patterns, and some strangers.

    Args:
        config: the config, with what it includes.
        skip: a folder whose files do not count.
    """
    found: dict[str, None] = {}
    for line in read(config, skip=skip):
        words: Sequence[str] = line.words if line.keyword == "host" else ()
        if line.keyword == "match":
            pairs = zip(line.words, line.words[1:], strict=False)
            words = [w for k, v in pairs if k.lower() in _HOST_CRITERIA for w in v.split(",")]
        for pattern in words:
            name = pattern.lstrip("!").replace("*", "x").replace("?", "x")
            if is_literal(name) and _is_host(name):
                found.setdefault(name)
    return [*found, *STRANGERS]


def compare(before: Path, after: Path, hosts: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Where two configs are answered differently, as lines with ``-`` and ``+`` for each host.

    A host whose answer changes from one moment to the next (``Match exec``) does not count. Of a
    config that ssh takes so long to read that all hosts would need more than 15 s, a
    sample is asked for, spread evenly.
    """

    def differs(host: str) -> list[str]:
        old, new = answer(before, host), answer(after, host)
        if old == new or answer(before, host) != old:
            return []
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]

    listed = list(hosts)
    began = time.monotonic()
    answer(before, STRANGERS[0])
    each = 2 * (time.monotonic() - began) / min(_SIDE_BY_SIDE, os.cpu_count() or 1)
    listed = listed[:: max(1, math.ceil(len(listed) * each / _BUDGET))]
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        found = zip(listed, pool.map(differs, listed), strict=True)
        return {host: lines for host, lines in found if lines}


def answer(config: Path, host: str) -> str:
    """What ssh would use for ``host``; where it refuses the config, its exit code alone."""
    argv = ["ssh", "-G", "-F", str(config), "--", host]
    try:
        done = process.run(argv, check=False, timeout=_SECONDS)
    except ProcessTimeoutError:
        return "no answer in time"
    # Its complaint holds line numbers, which a line at the top moves.
    return done.stdout if done.returncode == 0 else f"exit code {done.returncode}"


def settings(config: Path, host: str) -> dict[str, str]:
    """The answer for ``host`` by keyword; of one that comes several times, the first."""
    found: dict[str, str] = {}
    for line in answer(config, host).splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, value)
    return found


def complaint(config: Path) -> str:
    """What ssh has to say against ``config``; empty where it takes it."""
    done = process.run(
        ["ssh", "-G", "-F", str(config), STRANGERS[0]], check=False, timeout=_SECONDS
    )
    return "" if done.returncode == 0 else done.stderr.strip().replace(str(config), config.name)


_HOST_CRITERIA = {"host", "originalhost"}


def _is_host(name: str) -> bool:
    return bool(name) and not name.startswith("-") and name.isprintable()
