"""Look at the seals of hundreds of boxes at once: time, memory, and what dead ones cost the others.

    python bench/rerun/many.py WORKSPACE BOX COUNT DEAD SILENT

BOX is sealed, and has an sshd on each port from 3001 to 3000 + COUNT: each stands for a box of its
own. DEAD more refuse, SILENT more accept the connection and say nothing. Prints JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from roost import process, seals
from roost.cli.boxes import on_each, remotes
from roost.cli.context import Context
from roost.job_stream import Remote
from roost.seal_basis import Basis

FIRST_PORT = 3001
TAKEN_OVER = ("hostname", "user", "identityfile", "userknownhostsfile")


def main() -> None:
    root, name, *numbers = sys.argv[1:]
    count, dead, silent = map(int, numbers)
    ctx = Context(environ=dict(os.environ), cwd=Path(root))
    real = remotes(ctx, [name])[0]
    asked = process.run(["ssh", "-F", real.config, "-G", name]).stdout.splitlines()
    known = dict(line.partition(" ")[::2] for line in asked)
    common = [f"  {key} {known[key]}" for key in TAKEN_OVER]
    common += [f"  HostKeyAlias {known['hostname']}", "  ControlPath none"]
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as mute,
        tempfile.TemporaryDirectory() as f,
    ):
        hosts = [f"Host m{n}\n  Port {FIRST_PORT + n}" for n in range(count)]
        hosts += [f"Host dead{n}\n  Port 2999" for n in range(dead)]
        mute_port = mute.getsockname()[1]
        hosts += [f"Host mute{n}\n  HostName 127.0.0.1\n  Port {mute_port}" for n in range(silent)]
        config = Path(f) / "config"
        config.write_text("\n".join([*hosts, "Host *", *common, ""]), "utf-8")
        names = [host.split()[1] for host in hosts]
        # The silent ones come first: nobody may have to wait for them.
        ways = [
            Remote(config, dataclasses.replace(real.box, name=one), real.fleet)
            for one in reversed(names)
        ]
        today = time.strftime("%Y-%m-%d", time.gmtime())
        basis = Basis(ctx.workspace(), ctx.fleet(), ctx.environ, today).of(real.box)
        last = [0.0]
        began = time.monotonic()

        def look(way: Remote) -> seals.Look:
            found = seals.look(way, lambda: basis)
            if found.state == "in order":
                last[0] = time.monotonic() - began
            return found

        looks, _ = on_each(ctx, ways, look)
        took = time.monotonic() - began
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    found = {
        "states": Counter(one.state for one in looks),
        "seconds": took,
        "last_in_order": last[0],
        "cpu_per_box": cpu / len(ways),
        "peak_mib": own.ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
