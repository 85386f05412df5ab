"""``roost doctor``."""

from __future__ import annotations

import argparse
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from roost.cli import installed
from roost.errors import ExitCode, RoostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roost.cli.context import Context, Verbs
    from roost.doctor import Finding
    from roost.model import Box


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "doctor",
        parents=[common],
        help="what is wrong, each finding with the command that mends it",
        description="Look at ssh, keys, agent, rsync, Python and the workspace on this side, and "
        "at whether the boxes that are named can be reached. Nothing is changed. Exit code 1 if "
        "something has to be mended.",
    )
    parser.add_argument("names", nargs="*", metavar="BOX", help="boxes to reach, too")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(handler=doctor)


def doctor(ctx: Context, args: argparse.Namespace) -> int:
    """Show every finding; what is in order comes last."""
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
    findings += _boxes(ctx, args.names)
    order = ("error", "warning", "note", "ok")
    findings.sort(key=lambda finding: order.index(finding.level))
    if args.json:
        ctx.out.json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            ctx.out.line(f"{finding.level:<8} {finding.subject}: {finding.text}")
            if finding.fix:
                ctx.out.line(f"         fix: {finding.fix}")
    bad = any(finding.level == "error" for finding in findings)
    return ExitCode.FAILED if bad else ExitCode.OK


def _include(ctx: Context) -> Iterator[Finding]:
    from roost.doctor import Finding

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
    from roost.doctor import Finding
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
    yield Finding("workspace", "ok", f"{ctx.workspace().root}: {len(fleet.boxes)} boxes")


def _boxes(ctx: Context, names: list[str]) -> Iterator[Finding]:
    from roost import ssh
    from roost.doctor import Finding

    for box in ctx.fleet().select(names) if names else ():
        config = ssh.ensure_config(ctx.workspace().root, ctx.fleet(), ctx.paths)
        try:
            ssh.run(config, box, "true", fleet=ctx.fleet())
        except RoostError as error:
            yield Finding(box.name, "error", error.what, error.fix or "")
        else:
            yield Finding(box.name, "ok", "it answers, and lets us in")
            yield from _notebooks(ctx, box, config)
        yield from _editor(ctx, box.name, box.host)


def _notebooks(ctx: Context, box: Box, config: Path) -> Iterator[Finding]:
    from roost import keeper
    from roost.doctor import Finding

    try:
        found = keeper.status(config, box, fleet=ctx.fleet())
    except RoostError:
        return  # no Python there: nothing of ours, either
    if found is None:
        return
    if found.get("active"):
        yield Finding(f"{box.name} notebooks", "ok", "what cells print with nobody there is kept")
    else:
        why = found.get("reason") or "there is no jupyter-keeper in this JupyterLab"
        text = f"what cells print with nobody there is lost: {why}"
        fix = f"roost up {box.name} --tags jupyter, with jupyter_keeper: true; or your own settings"
        yield Finding(f"{box.name} notebooks", "warning", text, fix)


def _editor(ctx: Context, box: str, host: str) -> Iterator[Finding]:
    from roost import editor
    from roost.doctor import Finding
    from roost.errors import MissingProgramError

    try:
        words = editor.choose(None, ctx.environ)
    except MissingProgramError:
        return
    found = editor.findings(words, box, host)
    for finding in found:
        yield Finding("editor", "note", finding.what, finding.fix)
    if not found:
        yield Finding("editor", "ok", f"{words[0]} finds {box}: roost code {box}")
