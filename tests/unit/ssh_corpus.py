"""A hundred differently shaped ssh configs, made here, the same in every run."""

from __future__ import annotations

import random
from pathlib import Path

NAMES = ("web", "db-1", "gate.example.com", "10.1.2.3", "alias", "größe", "fe80--1", "x_y")
OPTIONS = (
    ("HostName", "192.0.2.9"), ("User", "someone"), ("Port", "2200"), ("Compression", "yes"),
    ("IdentityFile", "~/.ssh/id_%h"), ("IdentityFile", '"/keys/with space"'),
    ("ProxyJump", "gate.example.com"), ("ProxyCommand", "nc -x 127.0.0.1:1080 %h %p"),
    ("LocalForward", "8080 localhost:80"), ("RemoteForward", "9090 localhost:90"),
    ("SendEnv", "LANG LC_*"), ("SetEnv", 'A="b c" D=e'), ("ServerAliveInterval", "7"),
    ("ForwardAgent", "no"), ("IgnoreUnknown", "UseKeychain"), ("UseKeychain", "yes"),
)  # fmt: skip


def shape(number: int, folder: Path) -> bytes:
    """The config of this number, its included files beside it in ``folder``."""
    chance = random.Random(number)
    newline = chance.choice(["\n", "\n", "\r\n"])
    indent = chance.choice(["  ", "\t", "    ", "", " \t "])
    between = chance.choice([" ", "=", " = ", "\t", "  "])
    lines: list[str] = []
    if chance.random() < 0.3:
        lines += ["# kept by hand, do not touch", ""]
    if chance.random() < 0.4:
        lines += _options(chance, "", between, 2)
    for _ in range(chance.randint(0, 5)):
        lines += _block(chance, indent, between, folder, number)
    if chance.random() < 0.3:
        lines += [f"# trailing{chance.choice(['', ' ', '  '])}", *[""] * chance.randint(0, 3)]
    text = newline.join(lines)
    if chance.random() < 0.6 and text:
        text += newline
    data = text.encode()
    if chance.random() < 0.2:
        data += b"# caf\xe9 \xff\xfe" + newline.encode()
    return data


def _block(
    chance: random.Random, indent: str, between: str, folder: Path, number: int
) -> list[str]:
    kind = chance.random()
    names = " ".join(chance.sample(NAMES, chance.randint(1, 3)))
    if kind < 0.55:
        heading = f"{chance.choice(['Host', 'host', 'HOST'])}{between}{names}"
    elif kind < 0.7:
        heading = f"Host {chance.choice(['*', 'web*', '!db-1 *', '*.example.com', '10.?.*'])}"
    elif kind < 0.8:
        heading = f'Match host {chance.choice(NAMES)} exec "test -d / && exit 0"'
    elif kind < 0.9:
        heading = chance.choice(["Match all", "Match user nobody", "Match final all"])
    else:
        inner, outer = folder / f"inner-{number}", folder / f"outer-{number}"
        inner.write_text("Host nested\n  Port 2022\n", "utf-8")
        outer.write_text(f"Include {inner}\nHost outer\n  User outer\n", "utf-8")
        return [f"Include {outer}"]
    return [heading, *_options(chance, indent, between, 4), *[""] * chance.randint(0, 2)]


def _options(chance: random.Random, indent: str, between: str, most: int) -> list[str]:
    chosen = chance.sample(OPTIONS, chance.randint(0, most))
    # ssh takes an unknown keyword only below the line that says so.
    chosen.sort(key=lambda option: option[0] != "IgnoreUnknown")
    if any(key == "UseKeychain" for key, _ in chosen):
        chosen.insert(0, ("IgnoreUnknown", "UseKeychain"))
    return [f"{indent}{key}{between}{value}" for key, value in chosen]
