"""What can be wrong with a sealed box: made from what its seal covers, one thing at a time."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boxes import LiveBox, exec_in

SEAL = "/var/lib/roost/seal/seal"
KEEP = "/root/kept"


@dataclass(frozen=True)
class Tamper:
    """One way to spoil a box, as commands for root's shell, and the way back."""

    name: str
    do: str
    undo: str


def as_json(box: LiveBox) -> str:
    """The seal of a box, as text."""
    script = f"import json, marshal; print(json.dumps(marshal.load(open({SEAL!r}, 'rb'))))"
    return exec_in(box, ["python3", "-c", script]).stdout


def manifest(box: LiveBox) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """What the seal of a box covers: each thing, and how it was seen."""
    return [(leaf, seen) for leaf, seen in json.loads(as_json(box))["leaves"]]


def shell(box: LiveBox, script: str) -> None:
    exec_in(box, ["bash", "-euc", script], timeout=300)


def all_of(box: LiveBox) -> list[Tamper]:
    """Every tamper that the seal of the box gives rise to."""
    found: dict[str, Tamper] = {}
    for leaf, seen in manifest(box):
        for tamper in _of(leaf, seen):
            found[tamper.name] = tamper
    return sorted(found.values(), key=lambda t: t.name)


def drawn(box: LiveBox, count: int, seed: int) -> list[Tamper]:
    """``count`` of them at random; each kind comes before one comes twice."""
    dice = random.Random(seed)
    rest, chosen = all_of(box), []
    dice.shuffle(rest)
    while rest and len(chosen) < count:
        kinds = set()
        for tamper in list(rest):
            kind = tamper.name.split(":")[0]
            if kind not in kinds and len(chosen) < count:
                kinds.add(kind)
                chosen.append(tamper)
                rest.remove(tamper)
    return chosen


def _of(leaf: dict[str, Any], seen: dict[str, str]) -> Iterator[Tamper]:
    if "path" in leaf and "only" not in leaf:
        yield from _of_path(leaf["path"], seen, follow=bool(leaf.get("follow")))
    elif "package" in leaf:
        name = leaf["package"]
        yield Tamper(f"hold: {name}", f"apt-mark hold {name}", f"apt-mark unhold {name}")
        if name in ("tmux", "task-spooler"):
            again = f"apt-get install -qq --yes --no-install-recommends {name}"
            yield Tamper(f"remove package: {name}", f"dpkg --force-all -r {name}", again)
    elif "unit" in leaf and seen["LoadState"] == "loaded":
        yield from _of_unit(leaf["unit"], seen)
    elif "user" in leaf and seen["type"] == "user":
        yield from _of_user(leaf["user"], seen)
    elif "venv" in leaf:
        yield from _of_venv(leaf, seen)
    elif "glob" in leaf and leaf["glob"].endswith("/*"):
        extra = leaf["glob"][:-1] + "extra"
        folder = leaf["glob"][:-2]
        made, gone = f"mkdir -p {folder}; echo 1 >{extra}", f"rm {extra}"
        if not seen:
            gone += f"; rmdir --ignore-fail-on-non-empty {folder}"
        yield Tamper(f"added: {extra}", made, gone)


def _of_path(path: str, seen: dict[str, str], *, follow: bool) -> Iterator[Tamper]:
    word = shlex.quote(path)
    if follow:
        word = f'"$(readlink -f {word})"'
    keep, back = f"cp -a {word} {KEEP}", f"rm -rf {word}; mv -T {KEEP} {word}"
    if seen["type"] == "file":
        yield Tamper(f"content: {path}", f"{keep}; echo '# x' >>{word}", back)
        yield Tamper(f"gone: {path}", f"{keep}; rm {word}", back)
        # The same length and the same times as before; of an empty file there is nothing like that.
        other = "bytes(c ^ 1 for c in b) or b'x'"
        flip = f"python3 -c \"p={path!r}; b=open(p,'rb').read(); open(p,'wb').write({other})\""
        yield Tamper(f"same size: {path}", f"{keep}; {flip}; touch -r {KEEP} {word}", back)
        if not follow:
            yield Tamper(f"link instead: {path}", f"{keep}; rm {word}; ln -s {KEEP} {word}", back)
    if seen["type"] in ("file", "directory"):
        wrong = "0611" if seen["mode"] != "0611" else "0600"
        yield Tamper(f"mode: {path}", f"chmod {wrong} {word}", f"chmod {seen['mode']} {word}")
        owner = f"{seen['owner']}:{seen['group']}"
        yield Tamper(f"owner: {path}", f"chown daemon {word}", f"chown {owner} {word}")
        yield Tamper(f"group: {path}", f"chgrp daemon {word}", f"chown {owner} {word}")
    if seen["type"] == "link":
        yield Tamper(f"target: {path}", f"{keep}; ln -sfn /nowhere {word}", back)
    if seen["type"] == "absent" and "/home/" not in path:
        made = f"mkdir -p $(dirname {word}); echo 1 >{word}"
        yield Tamper(f"created: {path}", made, f"rm {word}")


def _of_unit(unit: str, seen: dict[str, str]) -> Iterator[Tamper]:
    if unit in ("ssh.service", "systemd-logind.service"):
        return  # the way to the box
    folder = f"/etc/systemd/system/{unit}.d"
    text = f"mkdir -p {folder}; printf '[Service]\\nNice=5\\n' >{folder}/zz.conf"
    gone = f"rm {folder}/zz.conf; rmdir --ignore-fail-on-non-empty {folder}"
    reload = "systemctl daemon-reload"
    yield Tamper(f"override: {unit}", f"{text}; {reload}", f"{gone}; {reload}")
    yield Tamper(f"override, no reload: {unit}", text, f"{gone}; {reload}")
    if seen["ActiveState"] == "active":
        start = f"systemctl start {unit}"
        yield Tamper(f"stop: {unit}", f"systemctl stop {unit}", start)
        mask = f"systemctl mask --runtime --now {unit}"
        yield Tamper(f"mask: {unit}", mask, f"systemctl unmask --runtime {unit}; {start}")
    if seen["UnitFileState"] == "enabled":
        disable, enable = f"systemctl disable {unit}", f"systemctl enable {unit}"
        yield Tamper(f"disable: {unit}", disable, enable)


def _of_user(name: str, seen: dict[str, str]) -> Iterator[Tamper]:
    shell = "/bin/sh" if seen["shell"] != "/bin/sh" else "/bin/bash"
    yield Tamper(
        f"shell: {name}", f"usermod -s {shell} {name}", f"usermod -s {seen['shell']} {name}"
    )
    back = f"usermod -c {shlex.quote(seen['full name'])} {name}"
    yield Tamper(f"full name: {name}", f"usermod -c Nobody {name}", back)
    if seen["end"]:
        yield Tamper(
            f"open again: {name}", f"usermod -e '' {name}", f"chage -E {seen['end']} {name}"
        )
    else:
        yield Tamper(f"end: {name}", f"chage -E 30000 {name}", f"chage -E -1 {name}")
    if seen["password"] == "locked":
        unlock = f"getent shadow {name} | cut -d: -f2 >{KEEP}.pw; usermod -p '$6$x$y' {name}"
        yield Tamper(f"unlock: {name}", unlock, f'usermod -p "$(cat {KEEP}.pw)" {name}')
    for group in sorted(set(seen["groups"].split(",")) - {seen["group"]}):
        drop, add = f"gpasswd -d {name} {group}", f"gpasswd -a {name} {group}"
        yield Tamper(f"member dropped: {name} {group}", drop, add)
    yield Tamper(f"member added: {name}", f"gpasswd -a {name} games", f"gpasswd -d {name} games")


def _of_venv(leaf: dict[str, Any], seen: dict[str, str]) -> Iterator[Tamper]:
    folder = leaf["venv"]
    site = f"$(ls -d {folder}/lib/python3*/site-packages)"
    for module in sorted(k.removeprefix("module ") for k in seen if k.startswith("module ")):
        away = f"mv {site}/{module} {KEEP}"
        yield Tamper(f"module gone: {folder} {module}", away, f"mv -T {KEEP} {site}/{module}")
    for name in sorted(k for k in seen if len(k.split("-")) == 2 and k[-1].isdigit()):
        info = f"{site}/{name}.dist-info"
        yield Tamper(f"package gone: {folder} {name}", f"mv {info} {KEEP}", f"mv -T {KEEP} {info}")
    extra = f"{site}/extra-1.0.dist-info"
    if not leaf.get("more"):
        yield Tamper(f"package added: {folder}", f"mkdir {extra}", f"rmdir {extra}")
    python = f"{folder}/bin/python"
    yield Tamper(f"interpreter: {folder}", f"mv {python} {KEEP}; ln -s /bin/false {python}",
                 f"mv -T {KEEP} {python}")  # fmt: skip
