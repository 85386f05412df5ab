"""A person's JupyterLab on a box: found or started there, and reached through a tunnel."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roost import content, ports, ssh
from roost.errors import ProcessError, RoostError
from roost.forwards import local_port
from roost.model import Box, Fleet, Forward, ForwardKind
from roost.notebook import NotebookError, NotebookServer
from roost.paths import Paths
from roost.supervisor.protocol import Status
from roost.tunnels import Purpose, Tunnels

FIRST_PORT = 8888
_START_SECONDS = 120
_ANSWER_SECONDS = 30.0

# Says one word, then what belongs to it. systemctl start comes back when the unit is started;
# the socket may be a moment later. Exit codes are kept for ssh and the shell.
_FIND = """\
user=$(id -un)
unit={unit}@$user.service
if ! systemctl is-active --quiet "$unit"; then
    if [ "$(systemctl show -p LoadState --value "$unit")" != loaded ]; then
        echo missing; exit 0
    fi
    said=$(sudo -n systemctl start "$unit" 2>&1) || {{ echo "failed $said"; exit 0; }}
fi
end=$(($(date +%s) + {seconds}))
until [ -S {run_dir}/"$user"/jupyter.sock ] && [ -s {state_dir}/"$user"/token ]; do
    [ "$(date +%s)" -lt $end ] || {{ echo "failed it does not open its socket"; exit 0; }}
    sleep 0.1
done
echo "found $user $(cat {state_dir}/"$user"/token)"
"""


@dataclass(frozen=True)
class Server:
    """A JupyterLab as it stands on its box.

    Attributes:
        user: whose it is.
        socket: where it listens.
        token: what opens it; never printed by accident.
    """

    user: str
    socket: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Lab:
    """A JupyterLab as it is reached from here.

    Attributes:
        url: its address on this side, without the token.
        token: what opens it.
        port: the local port.
        user: whose it is, on the box.
        note: what the user should know, such as another port than the last time.
    """

    url: str
    token: str = field(repr=False)
    port: int
    user: str = ""
    note: str = ""

    @property
    def url_with_token(self) -> str:
        """The address that opens it without a question: a secret."""
        return f"{self.url}?token={self.token}"


def connect(
    box: Box,
    config: Path,
    *,
    paths: Paths,
    environ: Mapping[str, str],
    fleet: Fleet | None = None,
    port: int | None = None,
) -> Lab:
    """Find or start the JupyterLab of the user that logs in, and open a tunnel to it.

    Args:
        box: where it runs.
        config: the ssh config that knows the box.
        paths: the user's folders.
        environ: where ssh finds its agent.
        fleet: where the gateways are found that an error may be about.
        port: the local port; None: that of the last time, else the next free one from 8888 on.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        UsageError: the port that was named is taken.
        RoostError: there is no JupyterLab on the box, or it does not start or answer.
    """
    server = find(box, config, fleet=fleet)
    tunnels = Tunnels(paths, environ)
    known = tunnels.list()
    note = ""
    if port is None:
        port = _open_port(known, box, config, server)
    if not port:
        port, note = tunnels.same_port_as_ever("lab", config, box.name, FIRST_PORT, known)
    forward = Forward(ForwardKind.LOCAL, f"{ports.LOOPBACK}:{port}", server.socket)
    purpose = Purpose("lab", {str(forward): "http /api"})
    tunnels.open(box, config, [forward], fleet=fleet, purpose=purpose)
    address = f"http://{ports.LOOPBACK}:{port}"
    _wait_for_answer(NotebookServer(address, server.token), box)
    return Lab(f"{address}/lab", server.token, port, server.user, note)


def find(box: Box, config: Path, *, fleet: Fleet | None = None) -> Server:
    """The JupyterLab of the user that logs in; it is started where it is stopped.

    Raises:
        UnreachableError: the box does not answer, or does not let us in.
        RoostError: it is not installed, or does not start.
    """
    names = {**content.role_defaults("jupyter"), **box.vars}
    script = _FIND.format(
        unit=shlex.quote(str(names["jupyter_unit"])),
        run_dir=shlex.quote(str(names["jupyter_run_dir"])),
        state_dir=shlex.quote(str(names["jupyter_state_dir"])),
        seconds=_START_SECONDS,
    )
    try:
        done = ssh.run(config, box, script, fleet=fleet, timeout=_START_SECONDS + 30)
    except ProcessError as error:
        raise RoostError(
            f"JupyterLab on {box.name} cannot be asked for", why=error.why or error.what
        ) from error
    word, _, rest = done.stdout.strip().partition(" ")
    if word == "found":
        user, _, token = rest.partition(" ")
        return Server(user, f"{names['jupyter_run_dir']}/{user}/jupyter.sock", token)
    if word == "missing":
        raise RoostError(
            f"there is no JupyterLab on {box.name}", fix=f"roost up {box.name} --tags jupyter"
        )
    unit = f"{names['jupyter_unit']}@$(id -un)"
    raise RoostError(
        f"JupyterLab on {box.name} does not start",
        why=rest or None,
        fix=f"roost ssh {box.name} -- 'systemctl status {unit}; journalctl -u {unit} -n 30'",
    )


def _open_port(known: list[Status], box: Box, config: Path, server: Server) -> int:
    for status in known:
        if (status.box, status.config) == (box.name, str(config)) and any(
            Forward.parse(f.spec).target == server.socket for f in status.forwards
        ):
            return local_port(status)
    return 0


def _wait_for_answer(server: NotebookServer, box: Box) -> None:
    try:
        server.wait_until_ready(timeout=_ANSWER_SECONDS)
    except NotebookError as error:
        raise RoostError(
            f"JupyterLab on {box.name} does not answer",
            why=error.why or error.what,
            fix=f"roost ssh {box.name} -- 'systemctl status roost-jupyter@$(id -un)'",
        ) from error
