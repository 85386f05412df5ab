"""The state of state.json as a pyinfra deploy."""

import io
import json
import os
from pathlib import Path

from pyinfra.operations import apt, files, pip, server, systemd

HERE = Path(__file__).parent
STATE = json.loads((HERE / "state.json").read_text())
KEYS = Path(os.environ["BENCH_KEYS"])
KERNEL = (HERE / "kernel.json.j2").read_text()

apt.packages(packages=STATE["packages"], _sudo=True)
files.put(
    src=io.StringIO(f"LANG={STATE['locale']}\n"), dest="/etc/default/locale", mode="644", _sudo=True
)
files.link(path="/etc/localtime", target=f"/usr/share/zoneinfo/{STATE['timezone']}", _sudo=True)
for folder in STATE["folders"]:
    files.directory(path=folder, mode="755", _sudo=True)
for person in STATE["people"]:
    account = {"shell": "/bin/bash", "groups": STATE["account_groups"], "append": True}
    server.user(user=person, **account, _sudo=True)
    files.put(src=str(KEYS / person), dest=f"/opt/bench/keys/{person}", mode="644", _sudo=True)
placed = [
    files.put(src=io.StringIO(text), dest=path, mode="644", _sudo=True)
    for path, text in STATE["files"].items()
]
for path, target in STATE["links"].items():
    files.link(path=path, target=target, _sudo=True)
for venv, packages in STATE["venvs"].items():
    pip.venv(path=venv, _sudo=True)
    pip.packages(packages=packages, virtualenv=venv, _sudo=True)
for name in STATE["kernels"]:
    files.directory(path=f"/opt/bench/kernels/{name}", mode="755", _sudo=True)
    text = KERNEL.replace("{{ item }}", name)
    files.put(src=io.StringIO(text), dest=f"/opt/bench/kernels/{name}/kernel.json", mode="644",
              _sudo=True)  # fmt: skip
systemd.daemon_reload(_sudo=True, _if=lambda: any(one.did_change() for one in placed))
for unit in STATE["units"]:
    systemd.service(service=unit, running=True, enabled=True, _sudo=True)
