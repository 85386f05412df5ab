"""What a run costs when nothing has changed: roost beside its peers, on the same boxes.

    python bench/reruns.py [--boxes 1 8] [--rounds 5] [--many 200] [--once CONTENDER...]
                           [--json FILE]

``BENCH_QUICK=1`` takes one box, twice, and leaves out what runs Ansible's own modules and the way
with a delay. One box is provisioned by roost and by each peer,
each with about as many packages, files, links, accounts, environments and units as roost's roles
place (bench/rerun/state.json is the peers'). Copies of it are what all of them run against, in
turn, so that each meets what the machine does at that moment. A contender that fails has no figure
in the table, and the others go on.
The peers come into an environment of their own, .cache/bench-peers. It removes what it starts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench" / "rerun")]

import script as by_hand  # noqa: E402

import boxes  # noqa: E402
from roost import process  # noqa: E402
from roost.errors import RoostError  # noqa: E402
from roost.paths import Paths  # noqa: E402
from roost.sandbox import Sandbox, releases  # noqa: E402
from roost.sandbox.image import Image  # noqa: E402

PARTS = ROOT / "bench" / "rerun"
PEERS = ROOT / ".cache" / "bench-peers"
ROOST = ROOT / ".venv" / "bin" / "roost"
HALF_TRIP = 0.025
# Whoever took longer than this, in seconds, is not asked again for the same boxes.
ENOUGH = 40.0
ENVIRONMENTS = """\
python_environments:
  - {name: one, requirements: [requests]}
  - {name: two, requirements: [rich]}
"""
IMAGE = "localhost/roost-bench:provisioned"
FLOOR = "ssh BOX true"
# Where a connection is open already; every other one logs in anew.
WARM = "roost up, connection open"
SLOW = ("ansible", "ansible with mitogen")


class FailedError(Exception):
    """A contender did not come to its end."""


class Copies(Sandbox):
    """A sandbox whose boxes are copies of one that is provisioned."""

    image: Image

    def _images(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(ensure=lambda release: self.image)


@dataclass(frozen=True)
class Field:
    """Boxes to run against, by any contender.

    Attributes:
        workspace: roost's, an ordinary Ansible project.
        names: the boxes that count.
        keys: a folder with a file of public keys for each person.
    """

    workspace: Path
    names: tuple[str, ...]
    keys: Path

    @property
    def config(self) -> Path:
        return self.workspace / ".roost" / "ssh_config"

    def run(self, *argv: object, **environ: str) -> str:
        env = {**os.environ, "BENCH_KEYS": str(self.keys), **environ}
        words = [str(word) for word in argv]
        done = process.run(words, env=env, cwd=self.workspace, timeout=1800, check=False)
        if done.returncode:
            raise FailedError(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout + done.stderr

    def on_each(self, *command: str, input: str | None = None) -> None:
        """One new connection to each box, all at once."""
        argv = ["ssh", "-F", str(self.config), "-S", "none", "-o", "BatchMode=yes"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = [
            subprocess.Popen([*argv, name, *command], text=True, **pipes) for name in self.names
        ]
        for child in started:
            said = child.communicate(input)[0]
            if child.returncode:
                raise FailedError(f"{command}: exit {child.returncode}\n{said}")

    def disconnect(self) -> None:
        """End the connections that roost and Ansible keep open."""
        for name in self.names:
            argv = ["ssh", "-F", self.config, "-O", "exit", name]
            process.run(argv, check=False)


Contender = Callable[[Field], object]


def ssh_true(field: Field) -> None:
    field.on_each("true")


def shell_script(field: Field) -> None:
    field.on_each("sudo", "sh", "-s", input=by_hand.script(field.keys))


def roost(*words: str) -> Contender:
    return lambda field: field.run(ROOST, *words, *field.names)


def ansible(**environ: str) -> Contender:
    """Stock ansible-playbook, with the defaults of ansible.cfg but for the way to the boxes."""

    def run(field: Field) -> None:
        given = {"keys_folder": str(field.keys), "ansible_python_interpreter": "/usr/bin/python3"}
        field.run(
            PEERS / "bin" / "ansible-playbook",
            PARTS / "naive.yml",
            *("--limit", ",".join(field.names), "-e", json.dumps(given)),
            ANSIBLE_CONFIG=str(field.keys / "ansible.cfg"),
            ANSIBLE_INVENTORY=str(field.workspace / "inventory"),
            **environ,
        )

    return run


def pyinfra(field: Field) -> None:
    inventory = field.keys / f"inventory{len(field.names)}{field.names[0]}.py"
    data = {"ssh_config_file": str(field.config)}
    inventory.write_text(f"boxes = ({list(field.names)!r}, {data!r})\n")
    field.run(PEERS / "bin" / "pyinfra", "-y", inventory, PARTS / "pyinfra_state.py")


def contenders() -> dict[str, Contender]:
    mitogen = next((PEERS / "lib").glob("python3*/site-packages/ansible_mitogen/plugins/strategy"))
    return {
        FLOOR: ssh_true,
        "shell script, one ssh": shell_script,
        "roost check": roost("check"),
        "roost up": roost("up"),
        WARM: roost("up"),
        "roost up --full": roost("up", "--full"),
        "pyinfra": pyinfra,
        "ansible with mitogen": ansible(
            ANSIBLE_STRATEGY_PLUGINS=str(mitogen), ANSIBLE_STRATEGY="mitogen_linear"
        ),
        "ansible": ansible(),
    }


def measure(
    field: Field, rounds: int, without: Sequence[str] = ()
) -> dict[str, dict[str, list[float]]]:
    """Seconds, and seconds of this machine's CPU, of each contender in each round.

    Of one that fails, and of those that stay out (``without``), there is nothing.
    """
    found: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "cpu": []} for name in contenders()
    }
    failed = set()
    for _ in range(rounds):
        for name, run in contenders().items():
            if name in failed or name in without or sum(found[name]["seconds"]) > ENOUGH:
                continue
            if name != WARM:
                field.disconnect()
            before, began = _cpu(), time.monotonic()
            if not attempt(name, lambda: run(field)):  # noqa: B023 - called at once
                failed.add(name)
                found[name] = {"seconds": [], "cpu": []}
                continue
            found[name]["seconds"].append(time.monotonic() - began)
            found[name]["cpu"].append(_cpu() - before)
    return found


def attempt(name: str, run: Callable[[], object]) -> bool:
    """Whether it came to its end; where not, it says why, and the bench goes on."""
    try:
        run()
    except (FailedError, RoostError) as error:
        say(f"{name} failed: {error}")
        return False
    return True


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def delayed(address: str, port: int) -> Iterator[int]:
    """A local port that leads to another, each byte ``HALF_TRIP`` later."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await coming.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivery = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                coming.put_nowait((loop.time() + HALF_TRIP, data))
        coming.put_nowait((loop.time() + HALF_TRIP, b""))
        await delivery

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(address, port)
        with contextlib.suppress(asyncio.CancelledError):  # it ends with the bench
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async def serve() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        here = asyncio.get_running_loop()
        ready.put((server.sockets[0].getsockname()[1], lambda: here.call_soon_threadsafe(stop.set)))
        await stop.wait()

    ready: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    number, stop = ready.get(timeout=10)
    yield number
    stop()
    thread.join()


def equip(workspace: Path, keys: Path) -> None:
    """The inventory of the team that roost keeps: three people, two environments."""
    for name in ("ann", "bob", "cee"):
        for number in (1, 2):
            key = keys / f".{name}{number}"
            process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
        public = [Path(f"{keys}/.{name}{n}.pub").read_text("utf-8") for n in (1, 2)]
        (keys / name).write_text("".join(public), "utf-8")
    (keys / "ansible.cfg").touch()
    people = [
        {"name": name, "groups": ["video", "adm"], "keys": (keys / name).read_text().splitlines()}
        for name in ("ann", "bob", "cee")
    ]
    folder = workspace / "inventory" / "group_vars" / "all"
    # JSON is YAML.
    (folder / "people.yml").write_text(json.dumps({"people_list": people}), "utf-8")
    (folder / "environments.yml").write_text(ENVIRONMENTS, "utf-8")


def first_runs(field: Field) -> dict[str, float]:
    """Provision a bare box by roost, and the next one, if any, by the script; seconds of each."""
    took = {}
    runs: list[tuple[str, Contender]] = [("roost up", roost("up")), ("shell script", shell_script)]
    for name, (label, run) in zip(field.names, runs, strict=False):
        began = time.monotonic()
        run(Field(field.workspace, (name,), field.keys))
        took[label] = time.monotonic() - began
    return took


def many(field: Field, sandbox: Sandbox, count: int) -> dict[str, object]:
    """The seals of ``count`` boxes, each an sshd of its own on one box, and of ten broken ones."""
    box = next(box for box in sandbox.boxes() if box.name == field.names[0])
    listen = f"for n in $(seq {count}); do /usr/sbin/sshd -p $((3000 + n)); done"
    sandbox.engine("exec", box.container, "sh", "-c", listen)
    arguments = [field.workspace, box.name, count, 5, 5]
    said = field.run(sys.executable, PARTS / "many.py", *arguments)
    return dict(json.loads(next(line for line in said.splitlines() if line.startswith("{"))))


def start_up(rounds: int) -> dict[str, list[float]]:
    commands = {
        "python -c ''": [sys.executable, "-c", ""],
        "roost --help": [str(ROOST), "--help"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            began = time.monotonic()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            found[name].append(time.monotonic() - began)
    return found


def peers() -> None:
    """Install them where they are not: in an environment of their own."""
    if (PEERS / "bin" / "pyinfra").exists():
        return
    shutil.rmtree(PEERS, ignore_errors=True)
    process.run([sys.executable, "-m", "venv", PEERS])
    wanted = ["ansible-core>=2.19,<2.22", "mitogen>=0.3.54", "pyinfra>=3.10,<4", "matplotlib"]
    process.run([PEERS / "bin" / "pip", "-q", "install", *wanted], timeout=600)


@contextlib.contextmanager
def copies(paths: Paths, names: Sequence[str], image: Image) -> Iterator[Copies]:
    sandbox = Copies(paths, "copies", environ=dict(os.environ))
    sandbox.image = image
    try:
        sandbox.up(names)
        yield sandbox
    finally:
        sandbox.down()
        sandbox.engine("rmi", IMAGE, check=False)


def provisioned(
    args: argparse.Namespace, folder: Path, keys: Path, results: dict[str, object]
) -> Image:
    """An image of a box that roost and the peers have provisioned.

    The variables of its inventory are left in ``folder/vars``.
    """
    bare = ("byroost",) if args.quick else ("byroost", "byscript")
    with boxes.start_boxes(*bare) as fresh:
        maker = fresh["byroost"]
        equip(maker.workspace.root, keys)
        say("the first run on a bare box")
        results["first"] = first_runs(Field(maker.workspace.root, bare, keys))
        one = Field(maker.workspace.root, ("byroost",), keys)
        say("the peers, once, to their own state")
        first_time = {"script": shell_script, "ansible": ansible(), "pyinfra": pyinfra}
        for label, run in first_time.items():
            if not (args.quick and label in SLOW):
                attempt(label, lambda: run(one))  # noqa: B023 - called at once
        maker.sandbox.engine("commit", "--quiet", maker.now.container, IMAGE, timeout=600)
        inventory = maker.workspace.root / "inventory" / "group_vars" / "all"
        shutil.copytree(inventory, folder / "vars")
        return Image(IMAGE, releases.parse(maker.now.release))


def bench(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    paths = Paths.from_environment(os.environ)
    keys = folder / "keys"
    keys.mkdir()
    results: dict[str, object] = {"start": start_up(20)}
    names = [f"box{number}" for number in range(1, max(args.boxes) + 1)]
    image = provisioned(args, folder, keys, results)
    with copies(paths, names, image) as sandbox:
        root = sandbox.workspace.root
        for file in ("people.yml", "environments.yml"):
            shutil.copy(folder / "vars" / file, root / "inventory/group_vars/all" / file)
        whole = Field(root, tuple(names), keys)
        say("each to the state that it keeps, once on every copy")
        for run in (shell_script, roost("up")):
            run(whole)
        results["again"] = {}
        for count in args.boxes:
            say(f"{count} boxes, {args.rounds} rounds")
            everybody = count == args.boxes[0] and not args.quick
            results["again"][str(count)] = measure(  # type: ignore[index]
                Field(root, tuple(names[:count]), keys),
                args.rounds,
                () if everybody else args.once,
            )
        alone = Field(root, (names[0],), keys)
        if args.many:
            say(f"the seals of {args.many} boxes")
            attempt("many", lambda: results.update(many=many(alone, sandbox, args.many)))
        if not args.quick:
            say("one box, 50 ms of round trip")
            with far_away(sandbox, alone):
                if attempt("roost up", lambda: roost("up")(alone)):
                    results["far"] = measure(alone, args.rounds, args.once)
    return results


@contextlib.contextmanager
def far_away(sandbox: Copies, field: Field) -> Iterator[None]:
    """Let the way to the one box of ``field`` have a delay."""
    (name,) = field.names
    box = next(box for box in sandbox.boxes() if box.name == name)
    with delayed(box.host, box.port) as port:
        own = field.workspace / "inventory" / "host_vars" / f"{name}.yml"
        own.parent.mkdir(exist_ok=True)
        own.write_text(json.dumps({"ansible_host": "127.0.0.1", "ansible_port": port}))
        pinned = sandbox.workspace.known_hosts
        keys_of_it = [line.split(" ", 1) for line in pinned.read_text().splitlines()]
        with pinned.open("a") as file:
            file.writelines(
                f"[127.0.0.1]:{port} {key}\n" for host, key in keys_of_it if host == box.host
            )
        yield


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def report(results: dict) -> None:
    """The table: medians, and how many times the floor each is."""
    start = {name: statistics.median(times) for name, times in results["start"].items()}
    print("start-up, ms:", ", ".join(f"{name} {1000 * t:.0f}" for name, t in start.items()))
    first = ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["first"].items())
    print(f"first provision of one box, s: {first}")
    fields = {f"{n} box{'es' * (n != '1')}": found for n, found in results["again"].items()}
    if "far" in results:
        fields["1 box, 50 ms"] = results["far"]
    if many := results.get("many"):
        print("the seals of many boxes:", json.dumps(many))
    print("\nA run with nothing to change: seconds (times the floor), median\n")
    print("| what runs | " + " | ".join(fields) + " | CPU here, 1 box |")
    print("| --- |" + " ---: |" * (len(fields) + 1))
    for name in next(iter(fields.values())):
        cells = []
        for found in fields.values():
            floor, took = median(found[FLOOR]["seconds"]), median(found[name]["seconds"])
            cells.append(f"{took:.2f} ({took / floor:.2f})" if took else "-")
        cpu = median(next(iter(fields.values()))[name]["cpu"])
        print(f"| {name} | {' | '.join(cells)} | {cpu:.2f} |")


def median(times: Sequence[float]) -> float:
    return statistics.median(times) if times else 0.0


def main() -> None:
    quick = bool(os.environ.get("BENCH_QUICK"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1] if quick else [1, 8])
    parser.add_argument("--rounds", type=int, default=2 if quick else 5)
    parser.add_argument("--many", type=int, default=0 if quick else 200, metavar="BOXES")
    parser.add_argument(
        "--once", nargs="*", default=SLOW, metavar="CONTENDER",
        help="who meets the first number of boxes alone",
    )  # fmt: skip
    parser.set_defaults(quick=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all that was measured")
    args = parser.parse_args()
    # As after Ctrl-C: the boxes go, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    peers()
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        os.environ |= {"HOME": folder, "XDG_RUNTIME_DIR": folder, boxes.RUN_FOLDER: folder}
        # Compiled programs, as every installation has them.
        unwanted = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
        for name in (*unwanted, "PYTHONDONTWRITEBYTECODE"):
            os.environ.pop(name, None)
        results = bench(args, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(results), "utf-8")
    report(results)


if __name__ == "__main__":
    main()
