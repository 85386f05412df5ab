#!/usr/bin/python
"""Ansible module: compare the list of people with the accounts of a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: people_plan
short_description: Compare the list of people with the accounts of a box
description:
  - Checks every entry of the list, and every key, before anything is written, and says which
    accounts, key files and sudo rules a box has to have and who has to leave it.
  - It only looks; M(ansible.builtin.user), M(small_files) and M(people_leave) do the rest.
options:
  people:
    description: The list, with the texts of all keys in it.
    type: list
    elements: dict
    required: true
  places:
    description: The name and the groups of this box; who names one of them belongs here.
    type: list
    elements: str
    required: true
  today:
    description: The date, as C(YYYY-MM-DD).
    type: str
    required: true
  login_user:
    description: The account of the connection, which may not be taken away.
    type: str
    required: true
  keys_folder:
    description: Where the key files are.
    type: path
    required: true
  authorities:
    description: Keys that vouch for certificates, each as C(key).
    type: list
    elements: dict
    default: []
  revoked:
    description: Keys that let nobody in, each as C(key).
    type: list
    elements: dict
    default: []
  principals_folder:
    description: Where the files with the principals of certificates are.
    type: path
    required: true
  unlisted:
    description: What becomes of people whom a former list had and this one has not.
    type: str
    choices: [leave, keep]
    default: leave
author: The roost authors
"""

EXAMPLES = r"""
- name: Compare the list with the accounts
  people_plan:
    people: [{name: ann, keys: [{key: ssh-ed25519 AAAA… ann}]}]
    places: [gpu1, gpu]
    today: "2027-01-31"
    login_user: ubuntu
    keys_folder: /etc/ssh/authorized_keys.d
    principals_folder: /etc/ssh/authorized_principals.d
"""

RETURN = r"""
accounts:
  description: Arguments for M(ansible.builtin.user), of the accounts that differ.
  type: list
  elements: dict
  returned: success
files:
  description: The key files and the sudo rules, for M(small_files).
  type: list
  elements: dict
  returned: success
here:
  description: The names of the people who belong on this box.
  type: list
  elements: str
  returned: success
admins:
  description: Those of them who have sudo.
  type: list
  elements: str
  returned: success
authorities:
  description: The lines of the keys that vouch for certificates; C(revoked) likewise.
  type: list
  elements: str
  returned: success
roost_leaves:
  description: What it looked at, for the seal.
  type: list
  elements: dict
  returned: success
leaving:
  description: Who has to leave this box, as C(name), C(home) and C(closed).
  type: list
  elements: dict
  returned: success
"""

import contextlib  # noqa: E402 - Ansible wants the documentation first
import datetime  # noqa: E402
import difflib  # noqa: E402
import grp  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

try:  # in the collection, which does not look into a role's own module_utils
    from ansible_collections.roost.box.plugins.module_utils.roost_keys import (
        RefusedError,
        key_lines,
        split_options,
    )
except ImportError:  # a role of a checkout, by its short name
    from ansible.module_utils.roost_keys import RefusedError, key_lines, split_options

PERSON = re.compile("name|full_name|keys|boxes|sudo|shell|groups|until|state|home")
# useradd(8) of Debian and Ubuntu: at most 32 characters, no upper case.
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
CLOSED = "1"  # shadow(5): the first day of the account's end; 0 is understood in two ways
FIRST_PERSONAL_UID = 1000  # UID_MIN of login.defs(5)
NOBODY_UID = 65534
HEADER = "# Managed by roost, role people; a change here is lost at the next run.\n"


def check_person(person: dict) -> None:
    for field in person:
        if not PERSON.fullmatch(field):
            near = difflib.get_close_matches(field, PERSON.pattern.split("|"), 1)
            raise RefusedError(f"unknown field {field!r}" + (f"; {near[0]!r}?" if near else ""))
    if not NAME.fullmatch(str(person.get("name", ""))):
        raise RefusedError("a name starts with a-z or _, then a-z 0-9 _ -, at most 32 characters")
    choices = {
        "sudo": (True, False, "password"),
        "state": ("present", "absent"),
        "home": ("keep", "archive", "remove"),
    }
    for field, allowed in choices.items():
        if field in person and person[field] not in allowed:
            raise RefusedError(f"{field} is one of {', '.join(str(a).lower() for a in allowed)}")
    if person.get("until"):
        try:
            datetime.date.fromisoformat(str(person["until"]))
        except ValueError:
            raise RefusedError("until is a date, YYYY-MM-DD") from None
    if not str(person.get("shell", "/")).startswith("/"):
        raise RefusedError("shell is an absolute path")
    if re.search(r"[:\n]", str(person.get("full_name", ""))):
        raise RefusedError("full_name holds a colon or a line break")


def has_left(person: dict, today: str) -> bool:
    until = person.get("until")
    return person.get("state") == "absent" or bool(until and str(until) < today)


def shadow_expiry(name: str) -> str:
    # Not the module spwd: Python 3.13 has none.
    with open("/etc/shadow", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            if fields[0] == name:
                return fields[7]
    return ""


def account(person: dict) -> dict | None:
    """Arguments for the module user, or None where the account is in order."""
    name, until = person["name"], person.get("until")
    day = None
    if until:
        # shadow(5) names the first day on which the account is closed.
        day = (datetime.date.fromisoformat(str(until)) - datetime.date(1970, 1, 1)).days + 1
    wanted = {
        "name": name,
        "comment": person.get("full_name"),
        "shell": person.get("shell"),
        "groups": list(person.get("groups") or []),
        "expires": -1 if day is None else day * 86400,
    }
    lists = [members(group) for group in wanted["groups"]]
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return {**wanted, "shell": wanted["shell"] or "/bin/bash"}
    if entry.pw_uid < FIRST_PERSONAL_UID or entry.pw_uid == NOBODY_UID:
        raise RefusedError("it is a system account of the box, which no person may have")
    same = (
        wanted["comment"] in (None, entry.pw_gecos)
        and wanted["shell"] in (None, entry.pw_shell)
        and all(name in group.gr_mem or group.gr_gid == entry.pw_gid for group in lists)
        and shadow_expiry(name) == ("" if day is None else str(day))
    )
    return None if same else wanted


def members(group: str) -> grp.struct_group:
    try:
        return grp.getgrnam(group)
    except KeyError:
        raise RefusedError(f"the box has no group {group!r}") from None


def sudo_rule(person: dict) -> str:
    kind = person.get("sudo", False)
    tag = "" if kind == "password" else "NOPASSWD: "
    return f"{person['name']} ALL=(ALL:ALL) {tag}ALL\n" if kind else ""


class Planner:
    """The plan of one box, and what is wrong with the list."""

    def __init__(self, params: dict) -> None:
        self.params = params
        self.problems: list[str] = []
        self.accounts: list[dict] = []
        self.leaving: list[dict] = []
        self.here: list[str] = []
        self.admins: list[str] = []
        folder = params["keys_folder"]
        self.files: list[dict] = [{"path": folder, "state": "directory"}]
        self.rules = HEADER
        self.authorities = self.plain_keys("authorities", "people_ca_keys")
        self.revoked = self.plain_keys("revoked", "people_revoked_keys")

    def plain_keys(self, param: str, variable: str) -> list[str]:
        lines: list[str] = []
        for number, entry in enumerate(self.params[param], 1):
            try:
                found = key_lines(entry)
                if any(split_options(line)[0] for line in found):
                    raise RefusedError("it has options, which sshd does not take there")
                lines += found
            except RefusedError as problem:
                self.problems.append(f"{variable}: key {number} is refused: {problem}")
        return lines

    def add(self, person: dict) -> None:
        check_person(person)
        name = person["name"]
        lines: list[str] = []
        for number, entry in enumerate(person.get("keys") or [], 1):
            try:
                lines += key_lines(entry)
            except RefusedError as problem:
                raise RefusedError(f"key {number} is refused: {problem}") from None
        path = os.path.join(self.params["keys_folder"], name)
        elsewhere = person.get("boxes") is not None and not (
            set(self.params["places"]) & set(person["boxes"])
        )
        if has_left(person, self.params["today"]):
            self.leave(name, person.get("home", "keep"))
        elif not elsewhere:
            self.stay(person, lines, path)
        elif os.path.lexists(path):
            # Without a key file the account here was never ours, and it is none of our business.
            self.leave(name, "keep")

    def stay(self, person: dict, lines: list[str], path: str) -> None:
        changes = account(person)
        self.accounts += [changes] if changes else []
        content = HEADER + "".join(line + "\n" for line in lines)
        self.files.append({"path": path, "content": content})
        self.here.append(person["name"])
        self.admins += [person["name"]] if person.get("sudo") else []
        self.rules += sudo_rule(person)

    def leave(self, name: str, home: str) -> None:
        listed_key = os.path.lexists(os.path.join(self.params["keys_folder"], name))
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            if not listed_key:
                return
            uid = None
        if name in (self.params["login_user"], os.environ.get("SUDO_USER")):
            raise RefusedError(
                "this run is logged in as that account; use another one to remove it"
            )
        if uid is not None and uid < FIRST_PERSONAL_UID:
            raise RefusedError("it is a system account of the box, which cannot be removed")
        closed = shadow_expiry(name) == CLOSED
        self.leaving.append({"name": name, "home": home, "closed": closed})

    def build(self) -> None:
        names = [str(p.get("name", "")) for p in self.params["people"]]
        for number, person in enumerate(self.params["people"], 1):
            name = str(person.get("name", ""))
            label = name if NAME.fullmatch(name) else f"entry {number}"
            try:
                if names.count(name) > 1:
                    raise RefusedError("the name stands in the list more than once")
                self.add(person)
            except RefusedError as problem:
                self.problems.append(f"{label}: {problem}")
        folder = self.params["keys_folder"]
        if self.params["unlisted"] == "leave" and os.path.isdir(folder):
            for name in sorted(set(os.listdir(folder)) - set(names)):
                # What may not be closed (root, the account of the connection) was not ours.
                with contextlib.suppress(RefusedError):
                    self.leave(name, "keep")
        self.name_principals()
        rules = {"path": "/etc/sudoers.d/roost-people", "content": self.rules, "mode": "0440"}
        self.files.append({**rules, "validate": "visudo -cf %s"})

    def name_principals(self) -> None:
        """Who has no such file gets in by no certificate, whatever its principals."""
        folder = self.params["principals_folder"]
        wanted = set(self.here) if self.authorities else set()
        there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if wanted:
            self.files.append({"path": folder, "state": "directory"})
        for name in sorted(wanted | there):
            content = f"{HEADER}{name}\n" if name in wanted else ""
            state = "file" if name in wanted else "absent"
            path = os.path.join(folder, name)
            self.files.append({"path": path, "content": content, "state": state})
        if there and not wanted:
            self.files.append({"path": folder, "state": "absent"})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "people": {"type": "list", "elements": "dict", "required": True},
            "places": {"type": "list", "elements": "str", "required": True},
            "today": {"type": "str", "required": True},
            "login_user": {"type": "str", "required": True},
            "keys_folder": {"type": "path", "required": True, "no_log": False},
            "authorities": {"type": "list", "elements": "dict", "default": []},
            "revoked": {"type": "list", "elements": "dict", "default": []},
            "principals_folder": {"type": "path", "required": True},
            "unlisted": {"choices": ["leave", "keep"], "default": "leave"},
        },
        supports_check_mode=True,
    )
    planner = Planner(module.params)
    planner.build()
    if planner.problems:
        problems = "; ".join(dict.fromkeys(planner.problems))
        module.fail_json(msg=f"The list of people cannot be used: {problems}. Nothing was changed.")
    left = [p["name"] for p in module.params["people"] if has_left(p, module.params["today"])]
    groups = {g for p in module.params["people"] for g in p.get("groups") or []}
    leaves = [{"user": name} for name in planner.here + left]
    leaves += [{"group": name} for name in sorted(groups)]
    folders = (module.params["keys_folder"], module.params["principals_folder"])
    leaves += [{"glob": folder + "/*"} for folder in folders]
    names = ("accounts", "files", "here", "admins", "authorities", "revoked", "leaving")
    plan = {name: getattr(planner, name) for name in names}
    module.exit_json(changed=False, roost_leaves=leaves, **plan)


if __name__ == "__main__":
    main()
