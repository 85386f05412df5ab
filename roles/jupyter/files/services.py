"""Run one JupyterLab per person: start what is missing, restart what is outdated and unused.

Fed to the box's Python; see tasks/run.yml.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box import Owner, Runner, StepError, as_owner

UNITS = Path("/etc/systemd/system")
START_SECONDS = 90.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass(frozen=True)
class Server:
    """The JupyterLab of one person.

    Attributes:
        owner: whose it is.
        unit: the name of its systemd unit.
        socket: where it listens.
        token: the file that holds its token.
        folder: where the releases are.
        config: the server's configuration.
        runner: what starts programs.
    """

    owner: Owner
    unit: str
    socket: Path
    token: Path
    folder: Path
    config: Path
    runner: Runner

    def property(self, name: str) -> str:
        """A property of the unit, as ``systemctl show`` gives it."""
        return self.systemctl("show", "--property", name, "--value").strip()

    def systemctl(self, verb: str, *words: str) -> str:
        """Run ``systemctl`` on the unit and return what it says.

        Raises:
            StepError: it failed.
        """
        return self.runner(["systemctl", verb, *words, self.unit]).stdout

    def get(self, path: str) -> Any:
        """Ask the server, as its owner: the socket and the token are theirs alone.

        Raises:
            StepError: it does not answer.
        """

        def work() -> Any:
            connection = UnixConnection(self.socket, timeout=10)
            try:
                token = self.token.read_text(encoding="ascii").strip()
                connection.request("GET", path, headers={"Authorization": f"token {token}"})
                response = connection.getresponse()
                text = response.read()
                if response.status != http.client.OK:
                    raise StepError(f"GET {path} is answered by {response.status}")
                return json.loads(text)
            finally:
                connection.close()

        return as_owner(self.owner, work)

    def wait_until_ready(self) -> None:
        """Return when the server answers.

        Raises:
            StepError: it does not, with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/api/status")
            except StepError as error:
                if time.monotonic() > deadline or self.gave_up():
                    log = self.runner(
                        ["journalctl", "--unit", self.unit, "--lines", "15", "--output", "cat"],
                        check=False,
                    ).stdout
                    raise StepError(f"{self.unit} does not answer ({error}):\n{log}") from None
                time.sleep(0.2)
            else:
                return

    def gave_up(self) -> bool:
        """Whether it failed, or systemd is starting it over and over."""
        again = self.property("NRestarts")
        return self.property("ActiveState") == "failed" or (again.isdigit() and int(again) > 2)

    def start(self) -> None:
        """Start it anew, without waiting: the servers of all people start side by side.

        Raises:
            StepError: the old one does not stop.
        """
        self.systemctl("stop")
        self.systemctl("start", "--no-block")

    def fingerprint(self) -> str:
        """What the server would be if it were started now; `roost-jupyter prepare` writes it."""
        template = UNITS / re.sub(r"@.*\.service$", "@.service", self.unit)
        files = [self.config, template, *sorted((UNITS / f"{self.unit}.d").glob("*.conf"))]
        digest = hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file()))
        return f"{os.path.realpath(self.folder / 'current')} {digest.hexdigest()}"

    def outdated(self) -> bool:
        """Whether the running server is another one than a start would bring now."""
        try:
            started_as = (self.socket.parent / "fingerprint").read_text(encoding="utf-8").strip()
        except OSError:
            return True
        return started_as != self.fingerprint()

    def in_use(self, policy: str) -> str:
        """Why the server must not be restarted now; empty where it may.

        Args:
            policy: ``unused``, ``idle``, ``always`` or ``never``.
        """
        if policy == "never":
            return "jupyter_restart is never"
        try:
            kernels = self.get("/api/kernels")
            terminals = self.get("/api/terminals") if policy == "unused" else []
        except StepError:
            return ""  # it does not answer: nobody uses it
        busy = [k for k in kernels if k["execution_state"] not in {"idle", "dead"}]
        if policy == "always" or (policy == "idle" and not busy) or not (kernels or terminals):
            return ""
        return f"{len(kernels)} kernels ({len(busy)} busy), {len(terminals)} terminals"


def bring_in_order(
    server: Server, policy: str, notes: list[str], *, check: bool
) -> tuple[bool, bool]:
    """Enable, start or restart one server: whether that changes something, and whether it starts.

    Raises:
        StepError: systemd refuses.
    """
    changed = starts = False
    if server.property("UnitFileState") != "enabled":
        changed = True
        if not check:
            server.systemctl("enable", "--quiet")
    if server.property("NeedDaemonReload") == "yes" and not check:
        server.runner(["systemctl", "daemon-reload"])
    if server.property("ActiveState") not in {"active", "activating"}:
        starts = True
    elif server.outdated():
        if reason := server.in_use(policy):
            notes.append(
                f"{server.unit} is to be restarted, and is in use: {reason}. A later run does it, "
                f"or: sudo systemctl restart {server.unit}"
            )
        else:
            starts = True
    if starts and not check:
        server.start()
    return changed or starts, starts


def remove_others(config: Mapping[str, Any], runner: Runner, *, check: bool) -> bool:
    """Stop the servers of people who are not in the list; True where there are any."""
    unit, changed = config["unit"], False
    listing = runner(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{unit}@*"], check=False
    ).stdout
    running = {line.split()[0] for line in listing.splitlines() if line.split()[2:3] == ["active"]}
    enabled = {p.name for p in (UNITS / "multi-user.target.wants").glob(f"{unit}@*.service")}
    for name in sorted(running | enabled):
        person = name.removeprefix(f"{unit}@").removesuffix(".service")
        if person in config["people"]:
            continue
        changed = True
        if not check:
            runner(["systemctl", "disable", "--quiet", "--now", name])
    # A token in the folder of an account that is gone could become somebody else's by its id.
    for folder in Path(config["state_dir"]).glob("*"):
        if folder.name not in config["people"] and not Owner.exists(folder.name):
            changed = True
            if not check:
                shutil.rmtree(folder)
    return changed


def leaves(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the servers are on the box, for the seal (docs/seal.md of roost)."""
    unit = config["unit"]
    enabled = UNITS / "multi-user.target.wants" / f"{unit}@*.service"
    found: list[dict[str, Any]] = [
        {"units": f"{unit}@*"},
        {"glob": str(enabled)},
        {"glob": str(Path(config["state_dir"]) / "*")},
    ]
    for name in config["people"]:
        found += [
            {"user": name},
            {"unit": f"{unit}@{name}.service"},
            {"path": str(Path(config["run_dir"]) / name / "fingerprint")},
            {"glob": str(UNITS / f"{unit}@{name}.service.d" / "*.conf")},
        ]
    return found


def main(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the servers of all people in order."""
    started: list[tuple[str, Server]] = []
    check = config["check"]
    result: dict[str, Any] = {"changed": False, "errors": [], "notes": [], "leaves": []}
    runner = Runner(config["timeout"])
    result["changed"] = remove_others(config, runner, check=check)
    for name in config["people"]:
        if check and not Owner.exists(name):
            result["changed"] = True
            continue
        try:
            server = Server(
                owner=Owner.named(name),
                unit=f"{config['unit']}@{name}.service",
                socket=Path(config["run_dir"]) / name / "jupyter.sock",
                token=Path(config["state_dir"]) / name / "token",
                folder=Path(config["folder"]),
                config=Path(config["config"]),
                runner=runner,
            )
            done, starts = bring_in_order(server, config["restart"], result["notes"], check=check)
            result["changed"] |= done
            if starts:
                started.append((name, server))
        except (StepError, OSError) as error:
            result["errors"].append(f"{name}: {error}")
    for name, server in [] if check else started:
        try:
            server.wait_until_ready()
        except StepError as error:
            result["errors"].append(f"{name}: {error}")
    put_off = "a server is to be restarted, and is in use"
    result["leaves"] = put_off if result["notes"] else leaves(config)
    return result
