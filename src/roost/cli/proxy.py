"""``roost proxy``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.cli.boxes import remote
from roost.errors import ExitCode

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs
    from roost.proxy import Proxy

ANY = "any"


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "proxy",
        parents=[common],
        help="browse a private network through a gateway",
        description="SOCKS through a gateway, which resolves the names, and a script that sends "
        "only the listed names there. It stays until `roost tunnel close GATEWAY`.",
    )
    parser.add_argument("gateway", metavar="GATEWAY", help="a box of the inventory")
    parser.add_argument(
        "--domain",
        metavar="D",
        action="append",
        default=[],
        help="a name with all below it, or an IPv4 network such as 10.20.0.0/16; may be repeated "
        "(default: the boxes behind the gateway)",
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="of SOCKS on this side")
    parser.add_argument(
        "--browser",
        metavar="PROGRAM",
        nargs="?",
        const=ANY,
        help="open Chromium or Firefox, with a profile of its own that uses the proxy",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(handler=proxy)


def proxy(ctx: Context, args: argparse.Namespace) -> int:
    """Open the proxy, and say how to use it."""
    from roost import proxy as proxies
    from roost.proxy_browser import start
    from roost.tunnels import Tunnels

    way = remote(ctx, args.gateway)
    gateway = way.box
    what = proxies.private(args.domain) or proxies.behind(ctx.fleet(), gateway)
    found = proxies.connect(
        Tunnels(ctx.paths, ctx.environ),
        gateway,
        way.config,
        what,
        fleet=way.fleet,
        port=args.port,
    )
    for note in found.notes:
        ctx.out.note(note)
    if args.json:
        ctx.out.json(_settings(found))
    else:
        _print(ctx, found)
    if args.browser:
        name = "" if args.browser == ANY else args.browser
        start(ctx.paths, ctx.environ, gateway.name, found.pac_url, program=name)
    ctx.out.note(f"open until: roost tunnel close {gateway.name}")
    return ExitCode.OK


def _settings(found: Proxy) -> dict[str, object]:
    return {
        "socks": found.socks_url,
        "pac": found.pac_url,
        "domains": list(found.private.domains),
        "networks": [str(n) for n in found.private.networks],
    }


def _print(ctx: Context, found: Proxy) -> None:
    some = found.private.domains[0] if found.private.domains else "ADDRESS"
    ctx.out.mapping(
        {
            "through it": str(found.private),
            "PAC": found.pac_url,
            "SOCKS5": f"127.0.0.1, port {found.port}, names resolved by the proxy",
            "curl": f"curl --proxy {found.socks_url} http://{some}/",
            "FoxyProxy": f"SOCKS5, 127.0.0.1, {found.port}, Proxy DNS on, patterns "
            + (", ".join(f"*{d}" for d in found.private.domains) or str(found.private)),
        }
    )
