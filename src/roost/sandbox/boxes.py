"""One box: a container with systemd as PID 1 and a real sshd."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shlex
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from roost.errors import ProcessTimeoutError, SandboxError
from roost.sandbox.engine import Engine
from roost.sandbox.image import RELEASE_LABEL, Image
from roost.sandbox.interrupts import deferred

LABEL = "roost.sandbox"  # its value is the folder that the box belongs to
NAME_LABEL = "roost.sandbox.name"
GROUPS_LABEL = "roost.sandbox.groups"
VIA_LABEL = "roost.sandbox.via"
ADDRESS_LABEL = "roost.sandbox.address"
BOOT_TIMEOUT = 90.0
SSH_PORT = 22
NETWORK = "podman"  # the network that podman brings along
POLL = 0.1
EXEC_TIMEOUT = 10.0


@dataclass(frozen=True)
class Private:
    """The place of a box that has no network but a cable to its gateway.

    Laying the cable is left to the caller, who needs the gateway's network namespace for it.

    Attributes:
        via: the box that is its gateway.
        address: its address as the gateway sees it.
    """

    via: str
    address: str


@dataclass(frozen=True)
class SandboxBox:
    """One box as it is now.

    Attributes:
        name: its name, also its host name and its name in the inventory.
        container: the container's name.
        running: whether it runs.
        release: what runs on it, such as ``debian:12``.
        user: the default user.
        host: the address that ssh connects to; empty while it does not run.
        port: the ssh port at that address.
        via: the gateway to jump through; empty for none.
        groups: the inventory groups that it is in.
        pid: the process id of its PID 1 on this machine; 0 while it does not run.
        folder: the sandbox that it belongs to.
    """

    name: str
    container: str
    running: bool
    release: str
    user: str
    host: str
    port: int
    via: str
    groups: tuple[str, ...]
    pid: int
    folder: str


def container_name(folder: str, name: str) -> str:
    """What the engine calls the box ``name`` of the sandbox in ``folder``."""
    return f"roost-{hashlib.sha256(folder.encode()).hexdigest()[:8]}-{name}"


def listing(engine: Engine, folder: str | None = None) -> list[SandboxBox]:
    """The boxes of one sandbox, or of all (None), by folder and name."""
    label = LABEL if folder is None else f"{LABEL}={folder}"
    boxes = [_read(container) for container in engine.containers(label)]
    return sorted(boxes, key=lambda box: (box.folder, box.name))


def _read(container: dict[str, Any]) -> SandboxBox:
    labels: dict[str, str] = container["Config"]["Labels"]
    running = container["State"]["Status"] == "running"
    host, port = _address(container, labels) if running else ("", SSH_PORT)
    release = labels.get(RELEASE_LABEL, "")
    return SandboxBox(
        name=labels[NAME_LABEL],
        container=container["Name"].lstrip("/"),
        running=running,
        release=release,
        user=release.partition(":")[0],
        host=host,
        port=port,
        via=labels.get(VIA_LABEL, ""),
        groups=tuple(labels.get(GROUPS_LABEL, "").split()),
        pid=int(container["State"]["Pid"]),
        folder=labels[LABEL],
    )


def _address(container: dict[str, Any], labels: dict[str, str]) -> tuple[str, int]:
    settings = container["NetworkSettings"]
    for published in (settings.get("Ports") or {}).get(f"{SSH_PORT}/tcp") or ():
        return published["HostIp"] or "127.0.0.1", int(published["HostPort"])
    networks = (settings.get("Networks") or {}).values()
    addresses = (network.get("IPAddress") for network in networks)
    return next(filter(None, addresses), labels.get(ADDRESS_LABEL, "")), SSH_PORT


def create(
    engine: Engine,
    folder: str,
    name: str,
    image: Image,
    *,
    groups: Iterable[str] = (),
    private: Private | None = None,
) -> None:
    """Make and start the container of one box; Ctrl-C waits until that is done or undone.

    Raises:
        SandboxError: the engine cannot start it; nothing of it is left.
    """
    container = container_name(folder, name)
    labels = {LABEL: folder, NAME_LABEL: name, GROUPS_LABEL: " ".join(groups)}
    labels[RELEASE_LABEL] = str(image.release)
    if private:
        labels |= {VIA_LABEL: private.via, ADDRESS_LABEL: private.address}
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    network = ["--network", "none"] if private else _network(engine, container)
    with deferred():
        try:
            engine(
                "run", "--detach", "--tty", "--name", container, "--hostname", name,
                "--stop-signal", "SIGRTMIN+3", *words, *network, *engine.limits(),
                *_systemd(engine), image.reference, *_init(engine),
            )  # fmt: skip
        except BaseException:
            engine.remove([container])
            raise


def _systemd(engine: Engine) -> list[str]:
    if engine.kind == "podman":
        return ["--systemd=always"]
    # docker knows nothing of systemd. It needs a cgroup tree of its own that it may write to,
    # and docker mounts that read-only: the right to mount turns it writable (and AppArmor's
    # profile of docker forbids any mount). Less than --privileged, which would also hand over
    # this machine's devices, its consoles among them.
    return [
        "--cgroupns=private", "--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined",
        "--tmpfs=/run", "--tmpfs=/run/lock", "--env=container=docker",
    ]  # fmt: skip


def _init(engine: Engine) -> list[str]:
    if engine.kind == "podman":
        return ["/sbin/init"]
    remount = (
        "for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd; do "
        '[ ! -d "$tree" ] || mount -o remount,bind,rw "$tree"; done; exec /sbin/init'
    )
    return ["sh", "-c", remount]


def _network(engine: Engine, container: str) -> list[str]:
    if not engine.direct:
        return ["--publish", f"127.0.0.1::{SSH_PORT}"]
    address = _own_address(engine, container)
    if not address:
        return []
    # The hardware address stays, too: this machine would go on sending to the old one for as
    # long as its ARP table remembers that, well over half a minute.
    hardware = ":".join(f"{octet:02x}" for octet in (2, 0, *address.packed))
    return ["--network", NETWORK, "--ip", str(address), "--mac-address", hardware]


def _own_address(engine: Engine, container: str) -> ipaddress.IPv4Address | None:
    """An address that the box keeps when it boots again, as a real machine does.

    The engine would hand out another one at every start. Made from the container's name, in the
    upper half of the engine's network, where the engine itself comes last.
    """
    listed = engine("network", "inspect", NETWORK, check=False).stdout
    networks = json.loads(listed)[0].get("subnets", []) if listed.startswith("[") else []
    for entry in networks:
        subnet = ipaddress.ip_network(entry["subnet"])
        if isinstance(subnet, ipaddress.IPv4Network) and subnet.num_addresses >= 256:
            half = subnet.num_addresses // 2
            number = int.from_bytes(hashlib.sha256(container.encode()).digest()[:8], "big")
            return subnet[half + number % (half - 1)]
    return None


def wait_ready(engine: Engine, name: str, folder: str, timeout: float = BOOT_TIMEOUT) -> SandboxBox:
    """Wait until systemd is up and sshd answers; returns the box as it is then.

    Raises:
        SandboxError: it did not come up within ``timeout`` seconds; with the last lines of its
            log, and with what was tried.
    """
    deadline = time.monotonic() + timeout
    container = container_name(folder, name)
    state = ""
    while time.monotonic() < deadline:
        state = _systemd_state(engine, container)
        if state in ("running", "degraded"):
            break
        found = engine.inspect("container", [container])
        if not found or not _read(found[0]).running:
            raise _not_up(engine, container, "it ended while it started")
        time.sleep(POLL)
    else:
        raise _not_up(engine, container, f"after {timeout:g} s systemd says {state or 'nothing'!r}")
    box = _read(engine.inspect("container", [container])[0])
    while not _answers(engine, box):
        if time.monotonic() > deadline:
            raise _not_up(engine, container, f"after {timeout:g} s sshd does not answer")
        time.sleep(POLL)
    return box


def _systemd_state(engine: Engine, container: str) -> str:
    # Without --wait, and asked again: under load an exec into a container that boots can stay
    # without an end, and would take the whole time that the boot is given.
    try:
        done = engine(
            "exec", container, "systemctl", "is-system-running", check=False, timeout=EXEC_TIMEOUT
        )
    except SandboxError as error:
        if isinstance(error.__cause__, ProcessTimeoutError):
            return ""
        raise
    return done.stdout.strip()


def _answers(engine: Engine, box: SandboxBox) -> bool:
    if box.via:
        # No way there but through the gateway: it is asked from inside.
        banner = f"exec 3<>/dev/tcp/127.0.0.1/{SSH_PORT} && head -c 4 <&3"
        done = engine("exec", box.container, "bash", "-c", banner, check=False)
        return done.stdout == "SSH-"
    try:
        with socket.create_connection((box.host, box.port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _not_up(engine: Engine, container: str, why: str) -> SandboxError:
    logs = engine("logs", "--tail", "10", container, check=False)
    lines = [line.strip() for line in (logs.stdout + logs.stderr).splitlines() if line.strip()]
    tried = f"{engine.program} with {engine.runtime or 'its own runtime'}, cgroup {engine.cgroups}"
    return SandboxError(
        "systemd does not start in a container here",
        why=f"{why}; tried: {tried}; its last words: " + (" | ".join(lines[-5:]) or "none"),
        fix="try another engine (ROOST_ENGINE=docker or podman), or run as root",
    )


# Adds the key where it is missing, and prints the host keys. Whatever else is in the file stays:
# by now it may have been provisioned.
_ADMIT = """\
set -eu
home=$(getent passwd "$user" | cut -d: -f6)
file=$home/.ssh/authorized_keys
[ -d "$home/.ssh" ] || install -d -m 0700 -o "$user" -g "$user" "$home/.ssh"
grep -qxF "$key" "$file" 2>/dev/null || {
    printf '%s\\n' "$key" >>"$file"
    chown "$user:$user" "$file"
    chmod 0600 "$file"
}
cat /etc/ssh/ssh_host_*_key.pub
"""


def admit(engine: Engine, box: SandboxBox, public_key: str) -> tuple[str, ...]:
    """Let the holder of ``public_key`` in as the default user; returns the box's host keys.

    The keys are read through the engine, so that they can be pinned without trusting the first
    connection. Each is ``TYPE BASE64``.
    """
    head = f"user={shlex.quote(box.user)}\nkey={shlex.quote(public_key.strip())}\n"
    done = engine("exec", "--interactive", box.container, "sh", "-s", input=head + _ADMIT)
    return tuple(" ".join(line.split()[:2]) for line in done.stdout.splitlines() if line.strip())
