"""How quickly a tunnel is back, and how fast it is: roost beside autossh and plain ssh -L.

    python bench/tunnels.py recovery [--rounds 3] [--cuts 5 15 40]
    python bench/tunnels.py throughput [--rounds 3] [--megabytes 1024]
    python bench/tunnels.py faults [--rounds 3] [--long]

It starts a throwaway box of its own and removes it. ``recovery`` and ``faults`` count from the
moment when the network (or the box) is there again to the first answer through the same local
port. It needs root, for the packet filter in the box's network. ``BENCH_QUICK=1`` takes one round,
one cut and less data.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1] / "tests" / part) for part in ("", "integration")
]

import tunnel_rig as rig  # noqa: E402

import boxes  # noqa: E402
from roost import process  # noqa: E402
from roost.tunnels import Tunnels  # noqa: E402

NEVER = 90.0
# As their manuals advise for tunnels that should last; the same figures as roost's own ssh has.
ALIVE = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", "-o", "BatchMode=yes")


# The local port, and whether the program has given up.
Contender = tuple[int, Callable[[], bool]]


@contextlib.contextmanager
def by_roost(box: boxes.LiveBox, client: Tunnels) -> Iterator[Contender]:
    port = rig.free_port()
    opened = rig.way(box).open(client, f"{port}:localhost:8000")
    yield port, lambda: False
    client.close([s.id for s in opened])


@contextlib.contextmanager
def by_program(box: boxes.LiveBox, *program: str) -> Iterator[Contender]:
    port = rig.free_port()
    forward = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:localhost:8000")
    argv = [*program, "-F", str(rig.way(box).config), "-S", "none", *ALIVE, *forward, box.name]
    environ = {**os.environ, "AUTOSSH_GATETIME": "0", "AUTOSSH_POLL": "30"}
    child = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environ, start_new_session=True)
    try:
        rig.wait_for(lambda: rig.answers(port))
        yield port, lambda: child.poll() is not None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
        child.wait()


def back_after(port: int, since: float) -> float:
    """Seconds from ``since`` to the first answer; ``NEVER`` where none comes."""
    return asyncio.run(_back_after(port, since))


async def _back_after(port: int, since: float, gone: Callable[[], bool] = lambda: False) -> float:
    async def one() -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.closing(writer):
                    writer.write(b"GET / HTTP/1.0\r\n\r\n")
                    return await reader.read(4) == b"HTTP"
        return False

    asked: set[asyncio.Task[bool]] = set()
    while time.monotonic() - since < NEVER and not gone():
        asked.add(asyncio.create_task(one()))
        done, asked = await asyncio.wait(asked, timeout=0.05)
        if any(task.result() for task in done):
            return time.monotonic() - since
    return NEVER


def recovery(box: boxes.LiveBox, client: Tunnels, args: argparse.Namespace) -> None:
    """All contenders lose the network at the same moment and get it back at the same moment."""
    names = ("roost", "autossh -M 0", "ssh -L")
    print(f"seconds until the forward answers again; median (worst) of {args.rounds}")
    for cut in args.cuts:
        took: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(args.rounds):
            with (
                by_roost(box, client) as ours,
                by_program(box, "autossh", "-M", "0") as autossh,
                by_program(box, "ssh") as ssh,
            ):
                with rig.cut_off(box):
                    time.sleep(cut)
                for name, seconds in zip(names, _all_back(ours, autossh, ssh), strict=True):
                    took[name].append(seconds)
        for name, times in took.items():
            print(f"  cut of {cut:3.0f} s  {name:14} {_figures(times)}", flush=True)


def _all_back(*contenders: Contender) -> list[float]:
    async def together() -> list[float]:
        return await asyncio.gather(*(_back_after(port, since, gone) for port, gone in contenders))

    since = time.monotonic()
    return asyncio.run(together())


def throughput(box: boxes.LiveBox, client: Tunnels, args: argparse.Namespace) -> None:
    contenders: dict[str, Callable[[], contextlib.AbstractContextManager[Contender]]] = {
        "roost": lambda: by_roost(box, client),
        "ssh -L": lambda: by_program(box, "ssh"),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    size = args.megabytes * 1_000_000
    for _ in range(args.rounds):
        for name, open_one in contenders.items():
            with open_one() as (port, _):
                began = time.monotonic()
                with rig.connect(port, 600) as connection:
                    connection.sendall(b"SEND %d\n" % size)
                    got = 0
                    while data := connection.recv(1 << 18):
                        got += len(data)
                assert got == size
                rates[name].append(args.megabytes / (time.monotonic() - began))
    print(f"MB/s for {args.megabytes} MB, median of {args.rounds}")
    for name, found in rates.items():
        print(f"  {name:8} {statistics.median(found):7.0f}   {[round(r) for r in found]}")


def faults(box: boxes.LiveBox, client: Tunnels, args: argparse.Namespace) -> None:
    pause = 300.0 if args.long else 45.0
    staged: dict[str, Callable[[], float]] = {
        "ssh killed": lambda: _kill(rig.carriers(client), signal.SIGKILL),
        "ssh hangs (SIGSTOP)": lambda: _kill(rig.carriers(client), signal.SIGSTOP),
        "sshd sessions killed": lambda: _then(lambda: rig.kill_sshd_sessions(box)),
        "supervisor killed": lambda: _supervisor(client, with_ssh=False),
        "supervisor and ssh killed": lambda: _supervisor(client, with_ssh=True),
        "network cut 3 s": lambda: _during(rig.cut_off(box), 3),
        "network cut 10 s": lambda: _during(rig.cut_off(box), 10),
        "network cut 60 s": lambda: _during(rig.cut_off(box), 60),
        f"box paused {pause:.0f} s": lambda: _during(rig.paused(box), pause),
        "box rebooted": lambda: _then(lambda: boxes.reboot(box)),
    }
    print(f"seconds until the forward answers again; median (worst) of {args.rounds}")
    results = Results(client, args.rounds)
    with by_roost(box, client) as (port, _):
        for name, fault in staged.items():
            results.stage(name, port, fault)
        with _full_disk(client):
            results.stage("ssh killed, state disk full", port, staged["ssh killed"])
    results.take("two opened at once", lambda: _two_at_once(box, client))
    with boxes.start_boxes("gate") as far:
        inner = boxes.private_network(far["gate"])
        rig.give_speaker(inner)
        with by_roost(inner, client) as (port, _):
            results.stage(
                "gateway rebooted", port, lambda: _then(lambda: boxes.reboot(far["gate"]))
            )
    with boxes.start_boxes("one", "two") as pair, contextlib.ExitStack() as silent:
        for one in pair.values():
            rig.give_speaker(one)
        with by_roost(pair["one"], client) as (port, _):
            move = Move(rig.way(pair["one"]).config, list(pair.values()), silent)
            results.stage("box at another address", port, move)
    print(f"{sum(map(len, results.times.values()))} faults, all mended")
    if args.json:
        print(json.dumps(results.times))


class Results:
    """What every fault took, printed as it comes."""

    def __init__(self, client: Tunnels, rounds: int) -> None:
        self.client = client
        self.rounds = rounds
        self.times: dict[str, list[float]] = {}

    def stage(self, name: str, port: int, fault: Callable[[], float]) -> None:
        """``fault`` returns when it was over; it is staged while the tunnel is well."""

        def one() -> float:
            rig.wait_for(lambda: rig.answers(port))
            rig.wait_for(lambda: rig.status_of(self.client, ":8000").state == "up")
            return back_after(port, fault())

        self.take(name, one)

    def take(self, name: str, one: Callable[[], float]) -> None:
        self.times[name] = [one() for _ in range(self.rounds)]
        print(f"  {name:28} {_figures(self.times[name])}", flush=True)
        assert max(self.times[name]) < NEVER, name


class Move:
    """The box falls silent at its address, and the inventory names another one."""

    def __init__(
        self, config: Path, pair: list[boxes.LiveBox], silent: contextlib.ExitStack
    ) -> None:
        self.config = config
        self.pair = pair
        self.silent = silent

    def __call__(self) -> float:
        self.silent.close()
        old, new = self.pair
        self.pair = [new, old]
        text = self.config.read_text()
        self.config.write_text(
            text.replace(f"HostName {old.now.host}\n", f"HostName {new.now.host}\n")
        )
        self.silent.enter_context(rig.cut_off(old))
        return time.monotonic()


@contextlib.contextmanager
def _full_disk(client: Tunnels) -> Iterator[None]:
    """No byte is free where the supervisor writes down what is wanted."""
    folder = client.places.state
    kept = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    process.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder])
    try:
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(256))
        yield
    finally:
        process.run(["umount", "-l", folder])


def _two_at_once(box: boxes.LiveBox, client: Tunnels) -> float:
    """Two commands that both find no supervisor; until both forwards answer."""
    rig.wait_for(lambda: not rig.supervisors(client))
    began = time.monotonic()
    free = [rig.free_port(), rig.free_port()]
    reach = rig.way(box)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda port: reach.open(client, f"{port}:localhost:8000"), free))
    took = max(back_after(port, began) for port in free)
    assert len(rig.supervisors(client)) == 1
    client.close([s.id for s in client.list()])
    return took


def _kill(pids: list[int], number: int) -> float:
    for pid in pids:
        os.kill(pid, number)
    return time.monotonic()


def _supervisor(client: Tunnels, *, with_ssh: bool) -> float:
    since = _kill(rig.supervisors(client) + (rig.carriers(client) if with_ssh else []), 9)
    client.list()  # the next command
    return since


def _then(action: Callable[[], object]) -> float:
    action()
    return time.monotonic()


def _during(fault: contextlib.AbstractContextManager[None], seconds: float) -> float:
    with fault:
        time.sleep(seconds)
    return time.monotonic()


def _figures(times: list[float]) -> str:
    def text(seconds: float) -> str:
        return "never" if seconds >= NEVER else f"{seconds:.2f}"

    return f"{text(statistics.median(times)):>6} ({text(max(times))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("recovery", "throughput", "faults"))
    quick = bool(os.environ.get("BENCH_QUICK"))
    parser.add_argument("--rounds", type=int, default=1 if quick else 3)
    parser.add_argument(
        "--cuts", type=float, nargs="+", default=[5.0] if quick else [5.0, 15.0, 40.0]
    )
    parser.add_argument("--megabytes", type=int, default=256 if quick else 1024)
    parser.add_argument("--long", action="store_true", help="pause the box for five minutes")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # As after Ctrl-C: the box goes, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        os.environ |= {"HOME": folder, "XDG_RUNTIME_DIR": folder, boxes.RUN_FOLDER: folder}
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            os.environ.pop(name, None)
        from roost.paths import Paths

        client = Tunnels(Paths.from_environment(os.environ), dict(os.environ))
        with boxes.start_boxes("bench") as started:
            box = started["bench"]
            rig.give_speaker(box)
            try:
                {"recovery": recovery, "throughput": throughput, "faults": faults}[args.what](
                    box, client, args
                )
            finally:
                client.close([s.id for s in client.list()])


if __name__ == "__main__":
    main()
