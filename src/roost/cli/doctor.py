"""``roost doctor``."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from roost.cli import installed
from roost.errors import ExitCode, RoostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roost.cli.context import Context, Verbs
    from roost.finding import Finding
    from roost.job_stream import Remote

DESCRIPTION = """\
Look at ssh, keys, agent, rsync, Python and the workspace on this side, and at the boxes that are
named: the way there, sudo, disks, clock, apt, the package archive and index as the box reaches
them, JupyterLab, a cell in each kernel, tmux, tunnels, units that are left over. Nothing is changed
without --fix. Exit code 1 if something has to be mended.
"""
# Seconds that one of the commands of --fix may take: dpkg may have a lot to finish.
MENDING = 600.0
# Seconds for what a forward leads to.
ASKING = 2.0
ENTRY = "from roost.cli.main import entry; entry()"


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "doctor",
        parents=[common],
        help="what is wrong, each finding with the command that mends it",
        description=DESCRIPTION,
    )
    parser.add_argument("names", nargs="*", metavar="BOX|GROUP", help="boxes to look at, too")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="mend what can be mended without asking and without losing anybody's work",
    )
    parser.set_defaults(handler=doctor)


def doctor(ctx: Context, args: argparse.Namespace) -> int:
    """Show every finding; what is in order comes last."""
    findings = _look(ctx, args.names)
    if args.fix and _mend(ctx, findings):
        findings = _look(ctx, args.names)
    if args.json:
        ctx.out.json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            ctx.out.line(f"{finding.level:<8} {finding.subject}: {finding.text}")
            if finding.fix:
                ctx.out.line(f"         fix: {finding.fix}")
    if not args.fix and any(finding.safe for finding in findings):
        words = shlex.join(["roost", "doctor", "--fix", *args.names])
        ctx.out.note(f"some of that can be mended without you: {words}")
    bad = any(finding.level == "error" for finding in findings)
    return ExitCode.FAILED if bad else ExitCode.OK


def _look(ctx: Context, names: list[str]) -> list[Finding]:
    from roost.doctor import examine
    from roost.doctor_facts import gather

    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    try:
        root = ctx.workspace().root
    except UsageError:
        root = None
    findings = examine(gather(ctx.paths, ctx.environ, home, root))
    findings += _include(ctx)
    if root is not None:
        findings += _workspace(ctx)
    findings += _boxes(ctx, names)
    order = ("error", "warning", "note", "ok")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _mend(ctx: Context, findings: list[Finding]) -> int:
    """Run what mends the safe findings, each said before it is done; how many there were."""
    from roost import process

    safe = [finding for finding in findings if finding.safe]
    for finding in safe:
        ctx.out.note(f"{finding.subject}: {finding.text}\n  {finding.fix}")
        words = shlex.split(finding.fix)
        if words[0] == "roost":
            root = str(ctx.workspace().root)
            words = [sys.executable, "-c", ENTRY, "-w", root, *words[1:]]
        try:
            process.run(words, timeout=MENDING)
        except RoostError as error:
            ctx.out.error(error)
    if not safe:
        ctx.out.note("there is nothing that could be mended without you")
    return len(safe)


def _include(ctx: Context) -> Iterator[Finding]:
    from roost.finding import Finding

    if not installed.same_home(ctx):
        return
    state = installed.user_config(ctx).state()
    if state.effective:
        yield Finding("Include", "ok", f"{state.config} line {state.at}: {state.line}")
    elif state.at is not None:
        yield Finding(
            "Include",
            "warning",
            f"roost's line is line {state.at} of {state.config}, below others that come first",
            "roost ssh-config install",
        )
    else:
        text = "plain ssh does not know the boxes; roost ssh does"
        yield Finding("Include", "note", text, "roost ssh-config install")


def _workspace(ctx: Context) -> Iterator[Finding]:
    from roost import known_hosts, ssh
    from roost.finding import Finding
    from roost.ssh_config import Settings, ambiguous_addresses, host_key_name

    try:
        fleet = ctx.fleet()
        ssh.ensure_config(ctx.workspace().root, fleet, ctx.paths)
    except RoostError as error:
        yield Finding("inventory", "error", error.what, error.fix or "")
        return
    pins = ctx.workspace().known_hosts
    for box in fleet.boxes:
        name = host_key_name(box)
        if not known_hosts.pinned(pins, name) and not known_hosts.authorities([pins], name):
            text = f"no host key of {box.name} is pinned"
            yield Finding("host key", "warning", text, f"roost add {box.name}")
    settings = Settings(pins, addresses=True)
    for boxes in ambiguous_addresses(fleet, settings):
        lacking = [b.name for b in boxes if "ansible_ssh_host" not in b.vars]
        if lacking:
            text = f"Ansible cannot tell {', '.join(lacking)} apart: one address"
            fix = f"ansible_ssh_host: {lacking[0]} for {lacking[0]}, and so on, in the inventory"
            yield Finding("inventory", "error", text, fix)
    count = "1 box" if len(fleet.boxes) == 1 else f"{len(fleet.boxes)} boxes"
    yield Finding("workspace", "ok", f"{ctx.workspace().root}: {count}")


def _boxes(ctx: Context, names: list[str]) -> Iterator[Finding]:
    from roost import checkup
    from roost.cli.boxes import on_each, remotes

    if not names:
        return
    ways = remotes(ctx, names)
    found, _ = on_each(ctx, ways, checkup.examine)
    for way, findings in zip(ways, found, strict=True):
        yield from findings
        yield from _tunnels(ctx, way)
        yield from _editor(ctx, way.box.name, way.box.host)


def _tunnels(ctx: Context, way: Remote) -> Iterator[Finding]:
    from roost.finding import Finding
    from roost.tunnels import Tunnels

    name = way.box.name
    for tunnel in Tunnels(ctx.paths, ctx.environ).list(probe=ASKING):
        if (tunnel.box, tunnel.config) != (name, str(way.config)):
            continue
        for forward in tunnel.forwards:
            spec, subject = forward.spec, f"{name} tunnel"
            if tunnel.state != "up":
                why = f"{spec} is {tunnel.state}: {tunnel.why or 'it is being opened'}"
                yield Finding(subject, "warning", why, "it goes on trying: roost tunnel list")
            elif forward.state in {"refused", "silent", "closed"}:
                fix = f"start what it leads to, or close it: roost tunnel close {name} {spec}"
                yield Finding(subject, "warning", f"{spec}: {forward.why}", fix)
            else:
                yield Finding(subject, "ok", spec)


def _editor(ctx: Context, box: str, host: str) -> Iterator[Finding]:
    from roost import editor
    from roost.errors import MissingProgramError
    from roost.finding import Finding

    try:
        words = editor.choose(None, ctx.environ)
    except MissingProgramError:
        return
    found = editor.findings(words, box, host)
    for finding in found:
        yield Finding("editor", "note", finding.what, finding.fix)
    if not found:
        yield Finding("editor", "ok", f"{words[0]} finds {box}: roost code {box}")
