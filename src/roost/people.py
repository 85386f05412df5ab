"""Who can log in on a box and by which key, against what the list of people says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from roost import onbox, public_keys, ssh
from roost.errors import ProcessError, RoostError
from roost.job_stream import Remote, lacks_python
from roost.model import Box
from roost.people_list import Known
from roost.public_keys import PublicKey

_PYTHON = "/usr/bin/python3 -I -X utf8"
# As root; a sudo that wants a password says so at once instead of waiting for one.
_PROGRAM = (
    f'if [ "$(id -u)" = 0 ]; then become=; else become="sudo -n"; fi; exec $become {_PYTHON} -'
)
# The password is the first line. A sudo that does not ask leaves it unread, and so does Python.
_WITH_PASSWORD = (
    "IFS= read -r password; program=$(cat); "
    f'printf "%s\\n" "$password" | sudo -S -p "" {_PYTHON} -c "$program"'
)


@dataclass(frozen=True)
class Way:
    """One way into one account, or an account that has none.

    Attributes:
        box: the box.
        account: the account there.
        full_name: whose it is, as the box says.
        sudo: ``yes`` (without a password), ``password``, ``limited`` or ``no``.
        by: ``key``, ``certificate``, ``password`` or ``nothing``.
        state: ``listed``; ``unlisted``: nobody listed it; ``left``: listed as somebody who is to
            be gone; ``missing``: listed, and not on the box; ``ignored``: sshd does not use it.
        source: the entry of the list or the file here that it comes from; empty if there is none.
        file: the file on the box that it stands in.
        algorithm: the key's type.
        fingerprint: the key's fingerprint.
        comment: what stands behind the key.
        options: what stands before it.
        note: why sshd ignores it, or whose key it is.
    """

    box: str
    account: str
    full_name: str = ""
    sudo: str = "no"
    by: str = "nothing"
    state: str = "unlisted"
    source: str = ""
    file: str = ""
    algorithm: str = ""
    fingerprint: str = ""
    comment: str = ""
    options: str = ""
    note: str = ""

    def as_json(self) -> dict[str, str]:
        """Every field by its name."""
        return asdict(self)


def ask(remote: Remote, become_password: str | None = None) -> dict[str, Any]:
    """What the box says of its accounts.

    Args:
        remote: the way to the box.
        become_password: for a sudo that wants one.

    Raises:
        UnreachableError: it does not answer, or does not let us in.
        RoostError: it does not let us become root, or lacks Python.
    """
    name = remote.box.name
    program = onbox.text("accounts.py")
    try:
        script = _PROGRAM if become_password is None else _WITH_PASSWORD
        sent = program if become_password is None else f"{become_password}\n{program}"
        done = ssh.run(remote.config, remote.box, script, fleet=remote.fleet, input=sent)
        found = json.loads(done.stdout[done.stdout.index("{") :])
    except ProcessError as error:
        if lacks_python(error.returncode, error.stderr):
            raise RoostError(f"{name} has no complete Python", fix=f"roost up {name}") from error
        if "sudo" in error.stderr and become_password is None:
            raise RoostError(
                f"{name}: only root can read who may log in, and sudo wants a password there",
                fix=f"roost people {name} --ask-become-pass",
            ) from error
        raise
    except ValueError as error:
        raise RoostError(f"{name} gave no answer that is understood") from error
    return found if isinstance(found, dict) else {}


def ways(said: Mapping[str, Any], box: Box, known: Known) -> list[Way]:
    """Every way into every account of a box, and what is listed and not there.

    Args:
        said: what ``ask`` returned.
        box: the box.
        known: what the workspace says.
    """
    judge = _Judge(said, box, known)
    found = [way for account in said["accounts"] for way in judge.ways(account)]
    there = {way.account for way in found}
    keys_there = {(way.account, way.fingerprint) for way in found}
    for one in known.keys:
        if one.owner and (one.owner, one.key.fingerprint) not in keys_there:
            way = Way(box.name, one.owner, by="key", state="missing", source=one.source)
            found.append(_with_key(way, one.key))
            there.add(one.owner)
    lacking = [name for name in known.here if name not in there]
    return found + [Way(box.name, name, state="missing") for name in lacking]


class _Judge:
    """The ways into the accounts of one box."""

    def __init__(self, said: Mapping[str, Any], box: Box, known: Known) -> None:
        self.box = box
        self.known = known
        self.contents: Mapping[str, list[str]] = said["contents"]
        self.login = said["login"]

    def ways(self, account: Mapping[str, Any]) -> list[Way]:
        settings = account["settings"]
        base = Way(self.box.name, account["name"], account["full_name"], _sudo(account["sudo"]))
        base = replace(base, state=self._state(base.account))
        # PAM refuses a closed account whatever key it shows.
        if account["closed"]:
            return []
        found = [*self._keys(base, account), *self._certificates(base, account)]
        refused = _refused(account)
        if refused:
            found = [replace(way, state="ignored", note=refused) for way in found]
        asks = (
            settings.get("passwordauthentication"),
            settings.get("kbdinteractiveauthentication"),
        )
        for_root = account["uid"] != 0 or settings.get("permitrootlogin") == "yes"
        if account["password"] and "yes" in asks and account["admitted"] and for_root:
            found.append(replace(base, by="password"))
        return found or ([base] if account["personal"] else [])

    def _state(self, name: str) -> str:
        if name in self.known.here or name == self.login:
            return "listed"
        return "left" if name in self.known.gone else "unlisted"

    def _keys(self, base: Way, account: Mapping[str, Any]) -> Iterator[Way]:
        revoked = {key.blob for key in self._in_file(account, "revokedkeys")}
        for file in account["files"]:
            for key in public_keys.parse_all("\n".join(file["lines"])):
                by = "certificate" if key.is_authority else "key"
                way = _with_key(replace(base, by=by, file=file["path"]), key)
                if file["untrusted"]:
                    yield replace(way, state="ignored", note=f"modes of {file['untrusted']}")
                elif key.blob in revoked:
                    yield replace(way, state="ignored", note="revoked")
                else:
                    yield self._judged(way, key)

    def _judged(self, way: Way, key: PublicKey) -> Way:
        same = [one for one in self.known.keys if one.key.blob == key.blob]
        # The key of the connection belongs into the account of the connection alone.
        owners = (way.account, "") if way.account == self.login else (way.account,)
        mine = [one for one in same if one.owner in owners]
        if mine:
            return replace(way, state="listed", source=mine[0].source)
        note = f"the key of {same[0].owner}" if same and same[0].owner else ""
        state = "left" if way.account in self.known.gone else "unlisted"
        return replace(way, state=state, note=note)

    def _certificates(self, base: Way, account: Mapping[str, Any]) -> Iterator[Way]:
        for key in self._in_file(account, "trustedusercakeys"):
            if account["principals"]:
                way = _with_key(replace(base, by="certificate"), key)
                note = "for " + ", ".join(account["principals"])
                state = base.state if key.blob in self.known.authorities else "unlisted"
                path = account["settings"]["trustedusercakeys"]
                yield replace(way, state=state, file=path, note=note)

    def _in_file(self, account: Mapping[str, Any], setting: str) -> Iterator[PublicKey]:
        lines = self.contents.get(account["settings"].get(setting, "none"), [])
        return public_keys.parse_all("\n".join(lines))


def _refused(account: Mapping[str, Any]) -> str:
    """Why sshd lets nobody into the account by a key; empty where it does."""
    settings = account["settings"]
    if not account["admitted"]:
        return "sshd refuses the account, or its shell is missing"
    if settings.get("pubkeyauthentication") != "yes":
        return "PubkeyAuthentication no"
    if account["uid"] == 0 and settings.get("permitrootlogin") == "no":
        return "PermitRootLogin no"
    return ""


def _with_key(way: Way, key: PublicKey) -> Way:
    return replace(
        way, algorithm=key.algorithm, fingerprint=key.fingerprint, comment=key.comment,
        options=key.options,
    )  # fmt: skip


def _sudo(said: str) -> str:
    """What ``sudo -l -U`` said, in one word."""
    if re.search(r"^\s*\([^)]*\) NOPASSWD: (.*, )?ALL$", said, re.MULTILINE):
        return "yes"
    if re.search(r"^\s*\([^)]*\) ALL$", said, re.MULTILINE):
        return "password"
    return "limited" if re.search(r"^\s*\([^)]*\) ", said, re.MULTILINE) else "no"
