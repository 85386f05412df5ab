"""A browser's way into a private network: SOCKS through a gateway, for the listed names alone."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import ports
from roost.errors import UsageError
from roost.forwards import local_port
from roost.model import Box, Fleet, Forward, ForwardKind
from roost.tunnels import Purpose, Tunnels

FIRST_PORT = 8157
PAC_PATH = "/proxy.pac"

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")

# Netscape's proxy auto-config: FindProxyForURL, dnsDomainIs, isInNet. Nothing here looks a name
# up on this side: private names are known only behind the gateway, and asking for them here
# would tell the local network about them. Without a DIRECT after it, a private page fails when
# the tunnel is down, and is not asked for in public.
_PAC = """\
// Written by roost: {what} through {gateway}, everything else as usual.
var domains = {domains};
var networks = {networks};
var proxy = "SOCKS5 127.0.0.1:{port}";

function FindProxyForURL(url, host) {{
    host = host.toLowerCase().replace(/\\.$/, "");
    for (var i = 0; i < domains.length; i++) {{
        if (host === domains[i] || dnsDomainIs(host, "." + domains[i])) {{
            return proxy;
        }}
    }}
    if (/^\\d+\\.\\d+\\.\\d+\\.\\d+$/.test(host)) {{
        for (var j = 0; j < networks.length; j++) {{
            if (isInNet(host, networks[j][0], networks[j][1])) {{
                return proxy;
            }}
        }}
    }}
    return "DIRECT";
}}
"""


@dataclass(frozen=True)
class Private:
    """What goes through the gateway.

    Attributes:
        domains: names; each stands for itself and all below it.
        networks: IPv4 networks, for addresses that are typed as such.
    """

    domains: tuple[str, ...] = ()
    networks: tuple[ipaddress.IPv4Network, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.domains or self.networks)

    def __str__(self) -> str:
        return ", ".join([*self.domains, *map(str, self.networks)])


@dataclass(frozen=True)
class Proxy:
    """An open proxy.

    Attributes:
        port: of SOCKS5, on loopback.
        pac_url: where the script for browsers is.
        private: what goes through it.
        notes: what the user should know, such as another port than the last time.
    """

    port: int
    pac_url: str
    private: Private
    notes: tuple[str, ...] = ()

    @property
    def socks_url(self) -> str:
        """For ``curl --proxy`` and ``ALL_PROXY``; the h has names resolved on the far side."""
        return f"socks5h://{ports.LOOPBACK}:{self.port}"


def private(texts: Sequence[str]) -> Private:
    """Read names (``corp.example``, ``*.corp.example``) and networks (``10.0.0.0/8``).

    Raises:
        UsageError: a text is neither.
    """
    domains: list[str] = []
    networks: list[ipaddress.IPv4Network] = []
    for text in texts:
        plain = text.strip().lower().removeprefix("*").strip(".")
        try:
            network = ipaddress.ip_network(plain, strict=False)
        except ValueError:
            if not _NAME.fullmatch(plain) or re.fullmatch(r"[\d.]+", plain):
                raise UsageError(
                    f"{text!r} is neither a domain nor a network",
                    fix="write corp.example or 10.20.0.0/16",
                ) from None
            domains.append(plain)
        else:
            if not isinstance(network, ipaddress.IPv4Network):
                raise UsageError(
                    f"{text} is an IPv6 network",
                    why="a browser's proxy script has no way to compare those",
                    fix="name the domains instead",
                )
            networks.append(network)
    return Private(tuple(dict.fromkeys(domains)), tuple(dict.fromkeys(networks)))


def behind(fleet: Fleet, gateway: Box) -> Private:
    """The names and addresses of the boxes that are reached through ``gateway``."""
    return private(
        [box.host for box in fleet if gateway in fleet.jumps(box) and ":" not in box.host]
    )


def render_pac(what: Private, gateway: str, port: int) -> str:
    """The proxy script."""
    networks = [[str(n.network_address), str(n.netmask)] for n in what.networks]
    return _PAC.format(
        what=what,
        gateway=gateway,
        domains=json.dumps(list(what.domains)),
        networks=json.dumps(networks),
        port=port,
    )


def connect(
    tunnels: Tunnels,
    gateway: Box,
    config: Path,
    what: Private,
    *,
    fleet: Fleet | None = None,
    port: int | None = None,
) -> Proxy:
    """Open SOCKS through ``gateway`` and serve the script for browsers.

    Asking again with other names changes the script alone.

    Args:
        tunnels: the user's tunnels.
        gateway: the box that the connections go out from.
        config: the ssh config that knows it.
        what: what goes through it.
        fleet: where the gateways on the way are found that an error may be about.
        port: of SOCKS on this side; None: that of the last time, else the next free one.

    Raises:
        UsageError: nothing is to go through it, or the port that was named is taken.
        UnreachableError: the gateway does not answer, or does not let us in.
    """
    if not what:
        raise UsageError(
            f"nothing is to go through {gateway.name}",
            why="no domain is named, and no box of the inventory is behind it",
            fix=f"roost proxy {gateway.name} --domain corp.example --domain 10.20.0.0/16",
        )
    known = tunnels.list()
    open_already = next(
        (
            s
            for s in known
            if (s.box, s.config, s.label) == (gateway.name, str(config), "proxy") and s.pac_port
        ),
        None,
    )
    notes: list[str] = []
    if open_already and port in {None, local_port(open_already)}:
        port, pac_port = local_port(open_already), open_already.pac_port
    else:
        if port is None:
            port, note = tunnels.same_port_as_ever("socks", config, gateway.name, FIRST_PORT, known)
            notes.append(note)
        pac_port, note = tunnels.same_port_as_ever(
            "pac", config, gateway.name, FIRST_PORT + 1, known
        )
        notes.append(note)
    forward = Forward(ForwardKind.DYNAMIC, f"{ports.LOOPBACK}:{port}")
    script = render_pac(what, gateway.name, port)
    purpose = Purpose("proxy", pac=(pac_port, script))
    tunnels.open(gateway, config, [forward], fleet=fleet, purpose=purpose)
    url = f"http://{ports.LOOPBACK}:{pac_port}{PAC_PATH}"
    return Proxy(port, url, what, tuple(n for n in notes if n))
