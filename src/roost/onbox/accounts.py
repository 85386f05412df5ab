"""Who can log in on this box, as sshd, sudo and the accounts themselves say; run as root.

Prints one JSON document: for each account that somebody could use its settings of sshd, the lines
of the key files that sshd honours, and what sudo allows. Nothing is judged here.
"""

import contextlib
import fnmatch
import grp
import json
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

FIRST_PERSONAL_UID = 1000  # UID_MIN of login.defs(5)
NOBODY_UID = 65534
LARGEST = 1_000_000
# Names without a value in every sshd: what is not printed is not set.
SETTINGS = (
    "pubkeyauthentication", "passwordauthentication", "kbdinteractiveauthentication",
    "permitrootlogin", "trustedusercakeys", "authorizedprincipalsfile", "authorizedkeyscommand",
    "revokedkeys", "strictmodes",
)  # fmt: skip


def said(*words: str) -> str:
    """What a program prints, whatever its exit code."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    return done.stdout


def effective(name: str) -> dict[str, list[str]]:
    """What sshd would do for this account; each keyword with all its values."""
    found: dict[str, list[str]] = {}
    for line in said("sshd", "-T", "-C", f"user={name},host=localhost,addr=127.0.0.1").splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def admitted(name: str, gid: int, settings: dict[str, list[str]]) -> bool:
    """Whether DenyUsers, AllowUsers, DenyGroups and AllowGroups let the account through."""
    groups = [grp.getgrgid(g).gr_name for g in os.getgrouplist(name, gid) if known_group(g)]

    def matches(keyword: str, names: list[str]) -> bool:
        patterns = [word.split("@")[0] for line in settings[keyword] for word in line.split()]
        return any(fnmatch.fnmatchcase(one, pattern) for one in names for pattern in patterns)

    for keyword, names in (("users", [name]), ("groups", groups)):
        if f"deny{keyword}" in settings and matches(f"deny{keyword}", names):
            return False
        if f"allow{keyword}" in settings and not matches(f"allow{keyword}", names):
            return False
    return True


def known_group(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


@contextlib.contextmanager
def acting_as(entry: pwd.struct_passwd) -> Iterator[None]:
    """Look at files with the rights of the person, as sshd does: a link leads no further."""
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def lines_of(path: str) -> list[str]:
    """The lines of a regular file that hold something; none where it cannot be read."""
    try:
        # Not blocking: at the path of a key file there may be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(handle, errors="replace") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return []
        text = stream.read(LARGEST)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def expand(pattern: str, entry: pwd.struct_passwd) -> str:
    """The path that sshd makes of a pattern: its tokens, and relative to the home."""
    tokens = {"%%": "%", "%u": entry.pw_name, "%h": entry.pw_dir, "%U": str(entry.pw_uid)}
    for token, value in tokens.items():
        pattern = pattern.replace(token, value)
    return os.path.join(entry.pw_dir, pattern)


def untrusted(path: str, entry: pwd.struct_passwd) -> str:
    """The file or folder for whose modes sshd would ignore the key file (StrictModes)."""
    at = os.path.realpath(path)
    while True:
        status = os.stat(at)
        if status.st_uid not in (0, entry.pw_uid) or status.st_mode & 0o022:
            return at
        if at in ("/", os.path.realpath(entry.pw_dir)):
            return ""
        at = os.path.dirname(at)


def key_files(entry: pwd.struct_passwd, settings: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The key files that sshd reads for the account, with their lines."""
    found = []
    patterns = " ".join(settings.get("authorizedkeysfile", [])).split()
    for path in [expand(pattern, entry) for pattern in patterns if pattern != "none"]:
        with acting_as(entry):
            lines = lines_of(path)
        if lines:
            strict = settings.get("strictmodes") != ["no"]
            refused = untrusted(path, entry) if strict else ""
            found.append({"path": path, "lines": lines, "untrusted": refused})
    return found


def shadow() -> dict[str, list[str]]:
    with open("/etc/shadow", errors="replace") as stream:
        return {line.split(":")[0]: line.rstrip("\n").split(":") for line in stream}


def account(entry: pwd.struct_passwd, secret: list[str]) -> dict[str, Any] | None:
    """What is to be known of one account; None of one that nobody could use."""
    settings = effective(entry.pw_name)
    files = key_files(entry, settings)
    personal = FIRST_PERSONAL_UID <= entry.pw_uid != NOBODY_UID
    password = bool(secret[1]) and secret[1][0] not in "!*"
    if not (files or personal or password or entry.pw_uid == 0):
        return None
    day = int(time.time()) // 86400
    expires = secret[7] if len(secret) > 7 else ""
    principals = settings.get("authorizedprincipalsfile", ["none"])[0]
    return {
        "name": entry.pw_name,
        "uid": entry.pw_uid,
        "full_name": entry.pw_gecos.split(",")[0],
        "shell": entry.pw_shell,
        "personal": personal,
        "closed": expires.isdigit() and int(expires) <= day,
        "password": password,
        "admitted": admitted(entry.pw_name, entry.pw_gid, settings)
        and os.access(entry.pw_shell or "/bin/sh", os.X_OK),
        "settings": {name: settings[name][0] for name in SETTINGS if name in settings},
        "files": files,
        "principals": [entry.pw_name]
        if principals == "none"
        else lines_of(expand(principals, entry)),
        "sudo": said("sudo", "-l", "-U", entry.pw_name) if entry.pw_uid else "(ALL) NOPASSWD: ALL",
    }


def main() -> None:
    """Print what there is to know."""
    os.setgroups([])
    # The privilege separation folder of sshd is there only while the service runs.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    secrets = shadow()
    nothing = ["", "*"]
    found = [account(entry, secrets.get(entry.pw_name, nothing)) for entry in pwd.getpwall()]
    accounts = [one for one in found if one]
    files = {one["settings"].get(name, "none") for one in accounts for name in
             ("trustedusercakeys", "revokedkeys")}  # fmt: skip
    contents = {path: lines_of(path) for path in files if path != "none"}
    login = os.environ.get("SUDO_USER", "root")
    json.dump({"accounts": accounts, "contents": contents, "login": login}, sys.stdout)


if __name__ == "__main__":
    main()
