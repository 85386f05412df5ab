"""``roost tunnel open``, ``close`` and ``list``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from roost.cli.boxes import remote, with_verbs
from roost.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs
    from roost.supervisor.protocol import ForwardStatus, Status

# Words that stand for a tunnel where it is closed.
_LABELS = ("lab", "proxy", "rmate")
# Seconds that `list` waits for the other ends to answer.
_ASK = 2.0


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    verbs = with_verbs(
        sub,
        common,
        "tunnel",
        "port and socket forwards that survive sleep and network changes",
        "Forwards through ssh, kept open in the background until they are closed.",
    )
    _register_open(verbs, common)
    close = verbs.add_parser(
        "close",
        parents=[common],
        help="close a box's tunnels, or some of their forwards",
        description="Close every tunnel to a box, or the tunnels that hold the forwards named.",
    )
    close.add_argument("box", metavar="BOX", nargs="?", help="the box; see also --all")
    close.add_argument(
        "specs", metavar="SPEC", nargs="*", help="only these (also: lab, proxy, rmate)"
    )
    close.add_argument("--all", action="store_true", help="every tunnel of every workspace")
    close.set_defaults(handler=close_tunnels)
    listing = verbs.add_parser(
        "list",
        parents=[common],
        help="every tunnel: since when, how often it broke, why it is down",
        description="Ask through every forward, and show what was found.",
    )
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(handler=list_tunnels)
    auto = verbs.add_parser(
        "autostart",
        parents=[common],
        help="take the tunnels up again at every login",
        description="Install a systemd user unit (a launchd agent on macOS) that takes up the "
        "tunnels that are open when you log in. Without it the next `roost tunnel` does that.",
    )
    auto.add_argument("--off", action="store_true", help="remove it")
    auto.set_defaults(handler=autostart)


def _register_open(verbs: Verbs, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "open",
        parents=[common],
        help="open forwards to a box, and keep them open",
        description="Open forwards to a box and return when they answer. They stay until "
        "`roost tunnel close`: through sleep, another network, a reboot of the box.",
        epilog="A SPEC is written as ssh writes it: 6006:localhost:6006 (local), "
        "R:/home/me/own.sock:localhost:9000 (remote), D:8157 (SOCKS), with a socket in place of "
        "a port: 8888:/run/app.sock, /tmp/db.sock:localhost:5432. The word rmate stands for the "
        "remote forward by which `rmate FILE` on the box opens files in the editor here.",
    )
    parser.add_argument("box", metavar="BOX", help="a box of the inventory")
    parser.add_argument(
        "specs",
        metavar="SPEC",
        nargs="*",
        default=[],
        help="forwards (default: the box's roost_forwards)",
    )
    parser.add_argument(
        "--public", action="store_true", help="allow addresses that other machines reach"
    )
    parser.add_argument(
        "--shared", action="store_true", help="allow ports on the box, which all of its users reach"
    )
    parser.add_argument("--privileged", action="store_true", help="allow ports below 1024")
    parser.set_defaults(handler=open_tunnel)


def open_tunnel(ctx: Context, args: argparse.Namespace) -> int:
    """Open forwards, and say where they are."""
    from roost import rmate, tunnels
    from roost.forwards import Allow
    from roost.model import Forward

    way = remote(ctx, args.box)
    specs = [spec for spec in args.specs if spec != rmate.LABEL]
    forwards = [Forward.parse(s) for s in specs] if args.specs else list(way.box.forwards)
    wanted = [(forwards, tunnels.JUST_FORWARDS)] if forwards or not args.specs else []
    if rmate.LABEL in args.specs:
        editor = rmate.forward(way.config, way.box, fleet=way.fleet)
        wanted.append(([editor], tunnels.Purpose(rmate.LABEL)))
    client = tunnels.Tunnels(ctx.paths, ctx.environ)
    allow = Allow(args.public, args.privileged, args.shared)
    for some, purpose in wanted:
        for status in client.open(
            way.box, way.config, some, fleet=way.fleet, purpose=purpose, allow=allow
        ):
            _say_open(ctx, status)
    ctx.out.note(f"open until: roost tunnel close {way.box.name}")
    return ExitCode.OK


def _say_open(ctx: Context, status: Status) -> None:
    from roost import ports, rmate

    for forward in status.forwards:
        ctx.out.line(forward.spec)
        if forward.state == "refused":
            ctx.out.note(f"  {forward.why}; the tunnel is open and waits for it")
    if status.label == rmate.LABEL and ports.is_free(rmate.EDITOR_PORT):
        ctx.out.note(
            f"  no editor listens at port {rmate.EDITOR_PORT} of this machine yet: start its "
            "rmate server"
        )


def close_tunnels(ctx: Context, args: argparse.Namespace) -> int:
    """Close what is named."""
    from roost import tunnels
    from roost.forwards import named

    if bool(args.box) == args.all:
        raise UsageError("name a box, or say --all", fix="roost tunnel list")
    client = tunnels.Tunnels(ctx.paths, ctx.environ)
    known = client.list()
    wanted = known if args.all else _to_box(ctx, known, args.box)
    if args.specs:
        labels = set(args.specs) & set(_LABELS)
        specs = {str(named(spec)) for spec in args.specs if spec not in labels}
        wanted = [s for s in wanted if s.label in labels or specs & {f.spec for f in s.forwards}]
    if not wanted:
        ctx.out.note("nothing of that is open")
        return ExitCode.OK
    client.close(s.id for s in wanted)
    for status in wanted:
        for forward in status.forwards:
            ctx.out.note(f"closed {status.box} {forward.spec}")
    return ExitCode.OK


def _to_box(ctx: Context, known: list[Status], name: str) -> list[Status]:
    """The tunnels to the box of this workspace; outside of one, of any that has such a box."""
    named = [s for s in known if s.box == name]
    try:
        config = str(ctx.workspace().root.absolute() / ".roost" / "ssh_config")
    except UsageError:
        return named
    return [s for s in named if s.config == config]


def list_tunnels(ctx: Context, args: argparse.Namespace) -> int:
    """Show every tunnel of this user."""
    import dataclasses

    from roost import tunnels

    known = tunnels.Tunnels(ctx.paths, ctx.environ).list(probe=_ASK)
    if args.json:
        ctx.out.json([dataclasses.asdict(s) for s in known])
        return ExitCode.OK
    if not known:
        ctx.out.note("no tunnel is open; open one: roost tunnel open BOX 6006:localhost:6006")
        return ExitCode.OK
    rows = [_row(status, forward) for status in known for forward in status.forwards]
    ctx.out.table(("BOX", "FORWARD", "STATE", "SINCE", "BROKE", ""), rows)
    return ExitCode.OK


def autostart(ctx: Context, args: argparse.Namespace) -> int:
    """Install or remove the service."""
    from roost import autostart as service

    if not args.off:
        path = service.switch_on(ctx.paths, ctx.environ)
        ctx.out.note(f"written and enabled: {ctx.paths.display(path)}")
    elif service.switch_off(ctx.paths, ctx.environ):
        ctx.out.note("removed; tunnels that are open stay open")
    else:
        ctx.out.note("it was not installed")
    return ExitCode.OK


def _row(status: Status, forward: ForwardStatus) -> tuple[str, ...]:
    from roost.report import duration

    now = time.time()
    state = status.state
    why = status.why if state != "up" else forward.why
    if state == "up" and forward.state in {"refused", "silent", "closed"}:
        state = forward.state
    if state == "up" and status.broke:
        why = f"{duration(now - status.broke)} ago for {duration(status.gone)}: {status.broke_why}"
    broke = f"{status.breaks} times" if status.breaks != 1 else "once"
    label = f"{forward.spec} ({status.label})" if status.label else forward.spec
    since = duration(now - status.since)
    return status.box, label, state, since, broke if status.breaks else "never", why
