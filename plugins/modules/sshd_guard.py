#!/usr/bin/python
"""Ansible module: change sshd's configuration so that a mistake undoes itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_guard
short_description: Change sshd's configuration so that a mistake undoes itself
description:
  - V(apply) checks the wanted files together with all that is there, saves the former state, arms
    a timer on the box that puts it back, places the files and reloads sshd. The caller then logs
    in anew and says V(commit). Without that the timer acts, whether or not the controller is
    still alive; after a reboot in between a unit acts before sshd starts.
options:
  step:
    description: V(look) only looks. V(rollback) puts the former state back at once.
    type: str
    choices: [look, apply, commit, rollback]
    required: true
  files:
    description: The wanted files as C(path), C(state) (file or absent) and C(content).
    type: list
    elements: dict
    default: []
  settings:
    description:
      - Keywords and values that sshd has to have in the end, for the logins of O(users). Of a list
        what this OpenSSH knows counts.
    type: dict
    default: {}
  users:
    description: Accounts for which the configuration is evaluated.
    type: list
    elements: str
    default: [root]
  admins:
    description: Accounts that may become root, of which one has to have a key.
    type: list
    elements: str
    default: []
  seconds:
    description: The time for the new login.
    type: int
    default: 60
author: The roost authors
"""

EXAMPLES = r"""
- name: Apply
  sshd_guard:
    step: apply
    files: [{path: /etc/ssh/sshd_config.d/00-x.conf, content: "X11Forwarding no\n"}]
"""

RETURN = r"""
problem:
  description: What sshd finds wrong with the configuration that is on the box, or nothing.
  type: str
  returned: when step is look
settings:
  description: The settings as text, lists reduced to what this OpenSSH knows.
  type: dict
  returned: when step is look
socket:
  description: Whether systemd listens in sshd's place.
  type: bool
  returned: when step is look
wrong:
  description: Settings that another file overrides.
  type: list
  elements: str
  returned: when step is look
admins_with_key:
  description: The admins that have a key that sshd would honour.
  type: list
  elements: str
  returned: when step is look
"""

import fcntl  # noqa: E402 - Ansible wants the documentation first
import glob  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from typing import IO  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

CONFIG = "/etc/ssh/sshd_config"
DROPINS = "/etc/ssh/sshd_config.d"
STATE = "/var/lib/roost/sshd"
PENDING = f"{STATE}/pending"
UNIT = "roost-sshd-guard"
BOOT_UNIT = f"/etc/systemd/system/{UNIT}-boot.service"
QUERIES = {"KexAlgorithms": "kex", "Ciphers": "cipher", "MACs": "mac"}  # for ssh -Q
# sshd -T prints these values under another name than the one that is usual today.
SYNONYMS = {"without-password": "prohibit-password"}

ROLLBACK = f"""\
# Puts sshd's former configuration back; started by a timer, at boot, or by hand.
cd {STATE} || exit 1
# Whoever renames the mark first has decided; one left by a cut-off rollback is taken up again.
mv pending rolling 2>/dev/null || [ -e rolling ] || exit 0
while read -r number path; do
  if [ -e "former/$number" ]; then
    cp -p "former/$number" "$path.roost-new" && mv "$path.roost-new" "$path"
  else
    rm -f "$path"
  fi
done <former/list
if [ "$1" != boot ]; then
  systemctl daemon-reload
  if grep -q ssh.socket former/list && systemctl -q is-active ssh.socket; then
    systemctl stop ssh.service
    systemctl restart ssh.socket
  else
    systemctl try-reload-or-restart ssh.service
  fi
fi
systemctl -q disable {UNIT}-boot.service
rm -rf {BOOT_UNIT} former
rm -f rolling
"""

BOOT = f"""\
[Unit]
Description=Put back the sshd configuration that no login has proven
ConditionPathExistsGlob={STATE}/[pr]*ing
Before=ssh.service ssh.socket
DefaultDependencies=no
After=local-fs.target

[Service]
Type=oneshot
ExecStart=/bin/sh {STATE}/rollback.sh boot

[Install]
WantedBy=sysinit.target
"""


class Guard:
    """The steps; each may be called twice."""

    def __init__(self, module: AnsibleModule, lock: IO[str]) -> None:
        self.module = module
        self.lock = lock
        self.params = module.params
        self.settings = {k: self.known(k, v) for k, v in self.params["settings"].items()}

    def run(self, *words: str, check: bool = True) -> tuple[int, str, str]:
        code, out, err = self.module.run_command(list(words), check_rc=check)
        return int(code), str(out), str(err)

    def known(self, keyword: str, value: object) -> str:
        if not isinstance(value, list):
            return str(value)
        query = self.run("ssh", "-Q", QUERIES.get(keyword, keyword))[1].split()
        return ",".join(word for word in value if word in query)

    def wait_for_others(self) -> None:
        """Another run may be proving its change at this moment; its timer bounds the wait.

        The lock is let go meanwhile: the other run needs it for its "commit".
        """
        deadline = time.monotonic() + self.params["seconds"] + 30
        while os.path.exists(PENDING) or os.path.exists(f"{STATE}/rolling"):
            if time.monotonic() > deadline:
                self.run("sh", f"{STATE}/rollback.sh")
                return
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            time.sleep(0.2)
            fcntl.flock(self.lock, fcntl.LOCK_EX)

    def staged(self, folder: str) -> str:
        """A copy of the whole configuration with the wanted files in it, in ``folder``."""
        parts = os.path.join(folder, "parts")
        os.mkdir(parts)
        for path in glob.glob(f"{DROPINS}/*.conf"):
            shutil.copy(path, parts)
        for spec in self.params["files"]:
            if os.path.dirname(spec["path"]) == DROPINS:
                target = os.path.join(parts, os.path.basename(spec["path"]))
                if spec.get("state", "file") == "file":
                    write(target, spec["content"])
                elif os.path.exists(target):
                    os.unlink(target)
        main = os.path.join(folder, "sshd_config")
        write(main, self.main_config().replace(DROPINS, parts))
        return main

    def main_config(self) -> str:
        with open(CONFIG, encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read()
        if re.search(rf"^\s*Include\s+.*{re.escape(DROPINS)}", text, re.MULTILINE | re.IGNORECASE):
            return text
        return f"Include {DROPINS}/*.conf\n{text}"

    def problem(self, config: str) -> str:
        code, out, err = self.run("/usr/sbin/sshd", "-t", "-f", config, check=False)
        return (err or out).strip() if code else ""

    def wrong(self, config: str) -> list[str]:
        """What differs from the expected values, for the accounts that were given."""
        found = []
        for user in self.params["users"]:
            context = f"user={user},host=localhost,addr=127.0.0.1"
            text = self.run("/usr/sbin/sshd", "-T", "-f", config, "-C", context)[1]
            effective = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
            for keyword, value in self.settings.items():
                actual = effective.get(keyword.lower())
                actual = SYNONYMS.get(str(actual), actual)
                if actual is not None and str(actual).lower() != str(value).lower():
                    found.append(f"{keyword} is {actual!r} for {user}, not {value!r}")
        return found

    def admins_with_key(self) -> list[str]:
        files = str(self.settings.get("AuthorizedKeysFile", "")).split()
        found = []
        for name in {*self.params["admins"], os.environ.get("SUDO_USER", "root")}:
            try:
                home = pwd.getpwnam(name).pw_dir
            except KeyError:
                continue
            paths = [os.path.join(home, f.replace("%u", name)) for f in files]
            if any(self.run("ssh-keygen", "-lf", p, check=False)[0] == 0 for p in paths):
                found.append(name)
        return sorted(found)

    def listens_by_socket(self) -> bool:
        return self.run("systemctl", "-q", "is-active", "ssh.socket", check=False)[0] == 0

    def look(self) -> dict:
        self.wait_for_others()
        problem = self.problem(CONFIG)
        return {
            "changed": False,
            "problem": problem,
            "settings": self.settings,
            "socket": self.listens_by_socket(),
            "wrong": [] if problem else self.wrong(CONFIG),
            "admins_with_key": self.admins_with_key(),
        }

    def check_staged(self) -> None:
        with tempfile.TemporaryDirectory(prefix="roost-sshd-") as folder:
            config = self.staged(folder)
            problem = self.problem(config)
            if problem:
                text = problem.replace(f"{folder}/parts", DROPINS)
                self.module.fail_json(msg=f"sshd refuses the configuration: {text}")
            wrong = self.wrong(config)
            if wrong:
                self.module.fail_json(msg=f"another file overrides ours: {'; '.join(wrong)}")

    def apply(self) -> dict:
        self.wait_for_others()
        self.check_staged()
        files = list(self.params["files"])
        main = self.main_config()
        if main != read(CONFIG):
            files.append({"path": CONFIG, "content": main})
        self.arm(files)
        for spec in files:
            if spec.get("state", "file") == "absent":
                if os.path.exists(spec["path"]):
                    os.unlink(spec["path"])
            else:
                write(spec["path"], spec["content"])
        self.reload(any("ssh.socket" in f["path"] for f in files))
        return {"changed": True}

    def arm(self, files: list[dict]) -> None:
        shutil.rmtree(f"{STATE}/former", ignore_errors=True)
        os.makedirs(f"{STATE}/former", mode=0o700)
        for number, spec in enumerate(files):
            if os.path.exists(spec["path"]):
                shutil.copy2(spec["path"], f"{STATE}/former/{number}")
        lines = "".join(f"{number} {spec['path']}\n" for number, spec in enumerate(files))
        write(f"{STATE}/former/list", lines)
        write(f"{STATE}/rollback.sh", ROLLBACK)
        write(BOOT_UNIT, BOOT)
        self.run("systemctl", "-q", "enable", f"{UNIT}-boot.service")
        self.disarm()
        write(PENDING, "")
        os.sync()
        command = ["systemd-run", "--quiet", f"--unit={UNIT}", "--timer-property=AccuracySec=1s"]
        command += [f"--on-active={self.params['seconds']}s", "/bin/sh", f"{STATE}/rollback.sh"]
        self.run(*command)

    def disarm(self) -> None:
        self.run("systemctl", "stop", f"{UNIT}.timer", check=False)
        self.run("systemctl", "reset-failed", f"{UNIT}.service", f"{UNIT}.timer", check=False)

    def reload(self, with_socket: bool) -> None:
        self.run("systemctl", "daemon-reload")
        if with_socket and self.listens_by_socket():
            # The logins that are open survive: the unit's KillMode is "process".
            self.run("systemctl", "stop", "ssh.service")
            self.run("systemctl", "restart", "ssh.socket")
        else:
            self.run("systemctl", "try-reload-or-restart", "ssh.service")

    def commit(self) -> dict:
        try:
            os.rename(PENDING, f"{STATE}/proven")
        except FileNotFoundError:
            self.module.fail_json(
                msg="the time for the new login was over: the former state is back"
            )
        self.disarm()
        self.run("systemctl", "-q", "disable", f"{UNIT}-boot.service")
        os.unlink(BOOT_UNIT)
        self.run("systemctl", "daemon-reload")
        shutil.rmtree(f"{STATE}/former")
        return {"changed": False}

    def rollback(self) -> dict:
        if os.path.exists(f"{STATE}/rollback.sh"):
            self.run("sh", f"{STATE}/rollback.sh")
            self.wait_for_others()
        return {"changed": True}


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def write(path: str, content: str) -> None:
    """Replace a file in one step, root's and readable by all, as sshd_config is."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".roost-new", "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(path + ".roost-new", 0o644)
    os.rename(path + ".roost-new", path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["look", "apply", "commit", "rollback"], "required": True},
            "files": {"type": "list", "elements": "dict", "default": []},
            "settings": {"type": "dict", "default": {}},
            "users": {"type": "list", "elements": "str", "default": ["root"]},
            "admins": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=False,
    )
    # The privilege separation folder of sshd is there only while the service runs.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    with open("/run/roost-sshd.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        module.exit_json(**getattr(Guard(module, lock), module.params["step"])())


if __name__ == "__main__":
    main()
