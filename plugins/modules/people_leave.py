#!/usr/bin/python
"""Ansible module: people who left a box keep nothing that lets them in or runs for them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: people_leave
short_description: Close the accounts of people who left
description:
  - Closes the account first, so that nobody comes back in between; then stops what runs and what
    would start again; the key file goes last, because it is what tells a later run that the
    account was ours. Cut off at any point, the next run finishes the job.
  - The account itself stays, closed, so that its number is not given to somebody else.
options:
  people:
    description: Who leaves.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The account.
        type: str
        required: true
      home:
        description: What becomes of the home.
        type: str
        choices: [keep, archive, remove]
        default: keep
      closed:
        description: Whether the account is closed already, as M(people_plan) found it.
        type: bool
        default: false
  keys_folder:
    description: Where the key files are.
    type: path
    required: true
  archive_folder:
    description: Where archived homes and cron tables go.
    type: path
    required: true
author: The roost authors
"""

EXAMPLES = r"""
- name: Close the accounts
  people_leave:
    people: [{name: bob, home: archive}]
    keys_folder: /etc/ssh/authorized_keys.d
    archive_folder: /var/backups/roost
"""

RETURN = r"""
done:
  description: What was done, one line each.
  type: list
  elements: str
  returned: always
roost_leaves:
  description: What a seal has to look at.
  type: list
  elements: dict
  returned: always
"""

import contextlib  # noqa: E402 - Ansible wants the documentation first
import glob  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import shutil  # noqa: E402
import tarfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

CLOSED = "1"  # as in people_plan
KILL_SECONDS = 15
CRONTABS = "/var/spool/cron/crontabs"


def processes(uid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/status", encoding="utf-8") as stream:
                    text = stream.read()
            except OSError:
                continue  # it ended meanwhile
            uids = text.split("\nUid:", 1)[1].split("\n", 1)[0].split()
            state = text.split("\nState:", 1)[1].split()[0]
            if str(uid) in uids and state != "Z":
                found.append(int(entry))
    return found


class Leaver:
    """One person who leaves."""

    def __init__(self, module: AnsibleModule, spec: dict) -> None:
        self.module = module
        self.name = spec["name"]
        self.home = spec["home"]
        self.closed = spec["closed"]
        self.entry = pwd.getpwnam(self.name)
        self.done: list[str] = []

    def run(self, *words: str, check: bool = True) -> str:
        return str(self.module.run_command(list(words), check_rc=check)[1])

    def act(self, needed: object, what: str, action: Callable[[], object]) -> None:
        if needed:
            self.done.append(f"{self.name}: {what}")
            if not self.module.check_mode:
                action()

    def units(self) -> list[str]:
        pattern = f"roost-*@{self.name}.*"
        listed = self.run("systemctl", "list-units", "--plain", "--no-legend", pattern)
        enabled = glob.glob(f"/etc/systemd/system/*.wants/{pattern}")
        return sorted(
            {line.split()[0] for line in listed.splitlines()} | set(map(os.path.basename, enabled))
        )

    def at_jobs(self) -> list[str]:
        if not shutil.which("atq"):
            return []
        lines = [line.split() for line in self.run("atq").splitlines()]
        return [words[0] for words in lines if words[-1] == self.name]

    def kill(self) -> None:
        self.run("loginctl", "terminate-user", self.name, check=False)
        deadline = time.monotonic() + KILL_SECONDS
        while processes(self.entry.pw_uid):
            self.run("pkill", "-KILL", "-U", str(self.entry.pw_uid), check=False)
            self.run("pkill", "-KILL", "-u", str(self.entry.pw_uid), check=False)
            if time.monotonic() > deadline:
                self.module.fail_json(
                    msg=f"processes of {self.name} do not end: {processes(self.entry.pw_uid)}",
                    done=self.done,
                )
            time.sleep(0.05)

    def close(self) -> None:
        name, uid = self.name, self.entry.pw_uid
        self.act(
            not self.closed,
            "account closed",
            lambda: self.run("usermod", "--expiredate", CLOSED, name),
        )
        self.act(
            os.path.exists(f"/var/lib/systemd/linger/{name}"),
            "lingering ended",
            lambda: self.run("loginctl", "disable-linger", name),
        )
        units = self.units()
        self.act(
            units,
            f"stopped {', '.join(units)}",
            lambda: self.run("systemctl", "-q", "disable", "--now", *units),
        )
        self.act(
            os.path.exists(f"{CRONTABS}/{name}"), "cron table put into the archive", self.keep_cron
        )
        jobs = self.at_jobs()
        self.act(jobs, f"{len(jobs)} at job(s) removed", lambda: self.run("atrm", *jobs))
        self.act(processes(uid), "sessions and processes ended", self.kill)

    def keep_cron(self) -> None:
        shutil.move(f"{CRONTABS}/{self.name}", self.archive(".crontab"))

    def archive(self, ending: str) -> str:
        folder = self.module.params["archive_folder"]
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.path.join(folder, f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}{ending}")

    def put_home_away(self) -> None:
        home = self.entry.pw_dir
        if not os.path.isdir(home) or os.path.islink(home) or self.home == "keep":
            return
        # A home that belongs to somebody else (/, /srv, a shared one) is not theirs to lose.
        if os.stat(home).st_uid != self.entry.pw_uid:
            self.module.fail_json(msg=f"{home} does not belong to {self.name}; it stays")
        if self.home == "archive":
            self.act(True, f"{home} archived", lambda: self.pack(home))
        self.act(True, f"{home} removed", lambda: shutil.rmtree(home))

    def pack(self, home: str) -> None:
        path = self.archive(".tar.gz")
        with open(path + ".part", "wb", opener=lambda p, f: os.open(p, f, 0o600)) as stream:
            with tarfile.open(fileobj=stream, mode="w:gz") as tar:
                tar.add(home, arcname=os.path.basename(home))
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(path + ".part", path)

    def drop_keys(self) -> None:
        path = os.path.join(self.module.params["keys_folder"], self.name)
        self.act(os.path.lexists(path), "keys removed", lambda: os.unlink(path))


def leaves(spec: dict, module: AnsibleModule) -> list[dict]:
    """What is looked at, for the seal: that the account is closed, and nothing of it runs."""
    name = spec["name"]
    found = [
        {"user": name},
        {"path": os.path.join(module.params["keys_folder"], name)},
        {"path": f"/var/lib/systemd/linger/{name}"},
        {"path": f"{CRONTABS}/{name}"},
        {"units": f"roost-*@{name}.*"},
        {"glob": f"/etc/systemd/system/*.wants/roost-*@{name}.*"},
        {"command": ["pgrep", "-c", "-u", name]},
    ]
    with contextlib.suppress(KeyError):
        found.append({"path": pwd.getpwnam(name).pw_dir, "only": ["type"]})
    return found


def main() -> None:
    person = {
        "name": {"type": "str", "required": True},
        "home": {"choices": ["keep", "archive", "remove"], "default": "keep"},
        "closed": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "people": {"type": "list", "elements": "dict", "required": True, "options": person},
            "keys_folder": {"type": "path", "required": True, "no_log": False},
            "archive_folder": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    done: list[str] = []
    for spec in module.params["people"]:
        try:
            leaver = Leaver(module, spec)
        except KeyError:
            path = os.path.join(module.params["keys_folder"], spec["name"])
            done.append(f"{spec['name']}: keys removed (there is no such account)")
            if not module.check_mode:
                os.unlink(path)
            continue
        leaver.close()
        leaver.put_home_away()
        leaver.drop_keys()
        done += leaver.done
    left = [leaf for spec in module.params["people"] for leaf in leaves(spec, module)]
    module.exit_json(changed=bool(done), done=done, roost_leaves=left)


if __name__ == "__main__":
    main()
