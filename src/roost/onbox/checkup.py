"""How a box is, as facts for ``roost doctor``: nothing is judged here, and nothing is changed.

Each part is a function that is asked at the same time as the others. What a part cannot tell is
in its answer as ``{"trouble": TEXT}``; no part holds the others up for longer than ``LONGEST``.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MARK = "\x1eroost checkup\n"
# Seconds for one program; a package archive that says nothing is given up sooner.
LONGEST = 60.0
PATIENCE = "10"
STARTING = 60.0
USER = pwd.getpwuid(os.getuid()).pw_name
HOME = os.path.expanduser("~")
PLACES = ("/", HOME, "/boot", "/opt", "/srv", "/data", "/tmp", "/var", "/var/tmp")  # noqa: S108
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What Ansible's modules, pip and venv need, and what minimal images leave out.
MODULES = ("ctypes", "ensurepip", "json", "shutil", "venv")

Facts = dict[str, Any]
Request = dict[str, Any]


def run(*argv: str, seconds: float = LONGEST, text: str = "") -> tuple[int, str, str]:
    """A program's exit code and what it wrote; 127 where it is not there."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, timeout=seconds, env=env, check=False,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        return 127, "", f"{argv[0]}: not found"
    except subprocess.TimeoutExpired:
        return 124, "", f"{argv[0]} did not end within {seconds:g} s"
    return done.returncode, done.stdout, done.stderr


def python(_: Request) -> Facts:
    """The box's own Python, and what is missing from it."""
    gone = [name for name in MODULES if importlib.util.find_spec(name) is None]
    return {"version": list(sys.version_info[:3]), "missing": gone}


def system(_: Request) -> Facts:
    """The release, a reboot that is due, memory, and what synchronises the clock."""
    with open("/etc/os-release", encoding="utf-8") as file:
        pairs = dict(line.rstrip("\n").partition("=")[::2] for line in file)
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = {line.partition(":")[0]: int(line.split()[1]) << 10 for line in file}
    return {
        "id": pairs.get("ID", "").strip('"'),
        "release": pairs.get("VERSION_ID", "").strip('"'),
        "reboot": os.path.exists("/run/reboot-required"),
        "memory": [memory.get("MemTotal", 0), memory.get("MemAvailable", 0)],
        "synchronized": run("timedatectl", "show", "-P", "NTPSynchronized")[1].strip(),
        "container": run("systemd-detect-virt", "-c")[0] == 0,
    }


def sudo(_: Request) -> Facts:
    """Whether the person becomes root without a password."""
    code, _out, said = run("sudo", "-n", "true")
    return {"code": code, "said": said.strip()}


def disks(_: Request) -> list[Facts]:
    """The file systems that matter, each once: bytes, inodes, and whether it is read-only."""
    found: dict[int, Facts] = {}
    for place in PLACES:
        with contextlib.suppress(OSError):
            device, at = os.stat(place).st_dev, os.statvfs(place)
            fact = {
                "mount": place,
                "total": at.f_blocks * at.f_frsize,
                "free": at.f_bavail * at.f_frsize,
                "inodes": [at.f_files, at.f_favail],
                "read_only": bool(at.f_flag & os.ST_RDONLY),
            }
            found.setdefault(device, fact)
    return list(found.values())


def apt(_: Request) -> Facts:
    """Who holds a lock of apt or dpkg, and what an interrupted installation left behind."""
    nodes = {}
    for path in LOCKS:
        with contextlib.suppress(OSError):
            nodes[os.stat(path).st_ino] = path
    holders = {}
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            # "1: POSIX ADVISORY WRITE 812 00:2f:4711 0 EOF"; a waiting one has "->" before it.
            found = re.search(r"\bWRITE +(\d+) +\w+:\w+:(\d+) ", line)
            if found and "->" not in line and int(found[2]) in nodes:
                holders[int(found[1])] = nodes[int(found[2])]
    updates = "/var/lib/dpkg/updates"
    pending = [n for n in os.listdir(updates) if n.isdigit()] if os.path.isdir(updates) else []
    return {
        "holders": [[pid, _name(pid), path] for pid, path in sorted(holders.items())],
        "interrupted": bool(pending),
        "half": _half_installed(),
    }


def _half_installed() -> list[str]:
    """Packages that are neither installed nor not; ``dpkg --audit`` wants to be root for that."""
    _, said, _ = run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${binary:Package}\n")
    rows = [line.partition("|") for line in said.splitlines()]
    return [name for state, _, name in rows if state[1:2] in "UFHWt" or state[2:3] == "R"]


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "?"


def archive(_: Request) -> list[Facts]:
    """For each package archive, what apt's own download of its index says."""
    code, said, trouble = run("apt-get", "--print-uris", "update")
    if code:
        return [{"uri": "", "said": trouble.strip()}]
    uris: dict[str, str] = {}
    for uri in re.findall(r"^'([^']+)'", said, re.MULTILINE):
        uris.setdefault(re.sub(r"(?<=[^:/])/.*", "", uri), uri)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_download, list(uris.values())[:8]))


def _download(uri: str) -> Facts:
    options = ["-o", f"Acquire::http::Timeout={PATIENCE}", "-o", "Acquire::Retries=0"]
    with tempfile.TemporaryDirectory(prefix="roost-doctor-") as folder:
        argv = ["/usr/lib/apt/apt-helper", *options, "download-file", uri, folder + "/index"]
        code, out, trouble = run(*argv)
    return {"uri": uri, "said": (trouble or out).strip() if code else ""}


def index(request: Request) -> Facts:
    """Whether the box reaches the index that Python packages come from."""
    if not request["index"]:
        return _own_index(request["uv"])
    uri = request["index"].rstrip("/") + "/pip/"
    try:
        # The address is the inventory's own.
        with urllib.request.urlopen(uri, timeout=float(PATIENCE)) as answer:  # noqa: S310
            answer.read(1)
    except (OSError, ValueError) as error:
        return {"uri": uri, "said": str(error)}
    return {"uri": uri, "said": ""}


def _own_index(uv: str) -> Facts:
    """The same of the index that the box's own settings name: uv alone knows which that is."""
    if not os.access(uv, os.X_OK):
        return {"trouble": f"{uv} is not there to ask"}
    env = ["env", f"UV_HTTP_TIMEOUT={PATIENCE}", "UV_HTTP_RETRIES=0"]
    if os.path.exists(CERTIFICATES):
        env.append(f"SSL_CERT_FILE={CERTIFICATES}")  # as the roles run it
    with tempfile.TemporaryDirectory(prefix="roost-doctor-") as folder:
        only_look = ("--dry-run", "--no-deps", "--no-cache", "--target", folder)
        words = ("pip", "install", *only_look, "--python", "/usr/bin/python3", "pip")
        code, _, trouble = run(*env, uv, *words)
    return {"uri": "the index of its settings", "said": trouble.strip() if code else ""}


class _Socket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=float(PATIENCE))
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def jupyter(request: Request) -> Facts:
    """The person's own JupyterLab: its unit, whether it answers, and what its keeper says."""
    unit = f"{request['unit']}@{USER}.service"
    wanted = ("LoadState", "ActiveState", "Result", "ActiveEnterTimestampMonotonic")
    _, said, _ = run("systemctl", "show", *(f"-p{name}" for name in wanted), unit)
    found: Facts = dict(line.partition("=")[::2] for line in said.splitlines())
    found.update(unit=unit, user=USER, said="", keeper=None)
    if found.get("ActiveState") != "active":
        return found
    # One that has only just been started opens its socket a little later.
    patient_until = int(found[wanted[-1]] or 0) / 1e6 + STARTING
    while True:
        try:
            with open(f"{request['state_dir']}/{USER}/token", encoding="ascii") as file:
                token = file.read().strip()
            found["status"] = _get(request, "/api/status", token)[0]
            status, body = _get(request, "/api/keeper", token)
            found["keeper"] = json.loads(body) if status == http.client.OK else {}
        except (OSError, ValueError, http.client.HTTPException) as error:
            if time.monotonic() < patient_until:
                time.sleep(0.2)
                continue
            found["said"] = str(error) or type(error).__name__
        return found


def _get(request: Request, path: str, token: str) -> tuple[int, str]:
    there = _Socket(f"{request['run_dir']}/{USER}/jupyter.sock")
    with contextlib.closing(there):
        there.request("GET", path, headers={"Authorization": "token " + token})
        answer = there.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


def kernels(request: Request) -> Facts:
    """For each kernel that the person can start: what went wrong when a cell was computed."""
    program = request["jupyter_dir"] + "/current/bin/python"
    if not os.access(program, os.X_OK):
        return {}
    code, said, trouble = run(program, "-I", "-", seconds=300, text=request["compute"])
    if code:
        raise OSError((trouble.strip() or "it ended without a word").splitlines()[-1])
    found: Facts = json.loads(said.splitlines()[-1])
    return found


def tmux(_: Request) -> Facts:
    """Whether tmux starts a session, and whether the person's own server still understands it."""
    name = f"roost-doctor-{os.getpid()}"
    code, _out, trouble = run("tmux", "-L", name, "-f", "/dev/null", "new-session", "-d", "sleep 9")
    run("tmux", "-L", name, "kill-server")
    own = run("tmux", "list-sessions")
    quiet = own[0] == 0 or "no server running" in own[2] or "No such file" in own[2]
    return {"code": code, "said": trouble.strip(), "server": "" if quiet else own[2].strip()}


def units(request: Request) -> Facts:
    """Units of roost that have failed, and servers of people who have no account any more."""
    plain = ("--all", "--plain", "--no-legend", "--full")
    _, failed, _ = run("systemctl", "list-units", "--state=failed", *plain, "roost-*")
    _, every, _ = run("systemctl", "list-units", *plain, request["unit"] + "@*")
    wants = f"/etc/systemd/system/multi-user.target.wants/{request['unit']}@"
    names = {line.split()[0] for line in every.splitlines() if line.split()}
    with contextlib.suppress(OSError):
        folder, prefix = os.path.split(wants)
        names |= {name for name in os.listdir(folder) if name.startswith(prefix)}
    ownerless = []
    for unit in sorted(names):
        try:
            pwd.getpwnam(unit.partition("@")[2].rpartition(".service")[0].replace("\\x2d", "-"))
        except KeyError:
            ownerless.append(unit)
    return {"failed": [s.split()[0] for s in failed.splitlines() if s], "ownerless": ownerless}


def gpu(_: Request) -> Facts:
    """What nvidia-smi says, where there is one."""
    if not shutil.which("nvidia-smi"):
        return {}
    code, said, trouble = run("nvidia-smi", "-L")
    return {"code": code, "said": (trouble or said).strip()}


PARTS: tuple[Callable[[Request], Any], ...] = (
    python, system, sudo, disks, apt, archive, index, jupyter, kernels, tmux, units, gpu,
)  # fmt: skip


def main(request: Request) -> None:
    """Ask every part at once, and print what they say."""
    found: Facts = {"user": USER, "begun": time.time()}
    with ThreadPoolExecutor(len(PARTS)) as pool:
        for part, answer in [(part, pool.submit(part, request)) for part in PARTS]:
            try:
                found[part.__name__] = answer.result()
            except Exception as error:  # one part that stumbles must not hide the others
                found[part.__name__] = {"trouble": f"{type(error).__name__}: {error}"}
    found["ended"] = time.time()
    print(MARK + json.dumps(found), flush=True)  # noqa: T201 - this is the answer
