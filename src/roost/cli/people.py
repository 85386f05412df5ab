"""``roost people``: who can log in where; ``roost people sign``: a certificate for one of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from roost.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from roost.cli.context import Context
    from roost.job_stream import Remote
    from roost.model import Box
    from roost.people import Way
    from roost.public_keys import PublicKey

COLUMNS = ("BOX", "ACCOUNT", "SUDO", "KEY", "COMMENT", "FROM")
SHORT = 12
WORDS = {"unlisted": "NOT LISTED", "left": "SHOULD BE GONE", "missing": "not on the box yet",
         "ignored": "not used"}  # fmt: skip


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    from roost.cli.up import add_password

    parser = sub.add_parser(
        "people",
        parents=[common],
        usage="roost people [BOX|GROUP...] [-K] [--json]\n"
        "       roost people sign NAME [--ca FILE] [--key FILE] [--valid TIME] [--json]",
        help="who can log in where, and by which key",
        description="Ask sshd and sudo on the boxes who can log in, by which key, and who may "
        "become root, and compare that with people_list. Keys and accounts that nobody listed "
        "are named. `sign` makes a short-lived ssh certificate for somebody of the list.",
    )
    parser.add_argument("names", nargs="*", metavar="WHO", help="boxes or groups; sign NAME")
    parser.add_argument("--json", action="store_true", help="as JSON, with whole fingerprints")
    add_password(parser)
    sign = parser.add_argument_group("with sign")
    sign.add_argument(
        "--ca",
        metavar="FILE",
        help="the key that signs; its public half alone where an agent holds it "
        "(default: $ROOST_CA, then ~/.ssh/roost_ca)",
    )
    sign.add_argument(
        "--key", metavar="FILE", help="the public key to sign (default: the one that is listed)"
    )
    sign.add_argument("--valid", metavar="TIME", help="for how long, as 8h, 2d or 1w (default: 1d)")
    parser.set_defaults(handler=people)


def people(ctx: Context, args: argparse.Namespace) -> int:
    """List the ways in, or sign."""
    if args.names[:1] == ["sign"]:
        return sign_handler(ctx, args)
    if args.ca or args.key or args.valid:
        raise UsageError("--ca, --key and --valid belong to: roost people sign NAME")
    return list_handler(ctx, args)


def list_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Ask the boxes, several at a time, and show what they say."""
    from roost import people as asking
    from roost import people_list
    from roost.cli.boxes import on_each, remotes
    from roost.cli.up import ask_password

    root, today = ctx.workspace().root, _today()
    ways_there = remotes(ctx, args.names)
    password = ask_password() if args.ask_become_pass else None

    def look(way: Remote) -> list[Way]:
        known = people_list.known(way.box, root, ctx.paths.home, today)
        return asking.ways(asking.ask(way, password), way.box, known)

    found, code = on_each(ctx, ways_there, look)
    every = [way for some in found for way in some]
    if args.json:
        ctx.out.json([way.as_json() for way in every])
        return code
    if every:
        ctx.out.table(COLUMNS, [row(way) for way in every])
    for state, text in (("unlisted", "that nobody listed"), ("left", "of people who left")):
        number = sum(way.state == state for way in every)
        if number:
            plural = "" if number == 1 else "s"
            ctx.out.note(f"{number} key{plural} or account{plural} {text}")
    return code


def row(way: Way) -> tuple[str, ...]:
    """One way in as a row of the table."""
    return way.box, way.account, way.sudo, _key(way), way.comment, _source(way)


def _key(way: Way) -> str:
    if not way.fingerprint:
        return {"nothing": "-"}.get(way.by, way.by)
    short = way.fingerprint.removeprefix("SHA256:")[:SHORT]
    return f"{'CA ' if way.by == 'certificate' else ''}{way.algorithm} {short}"


def _source(way: Way) -> str:
    if way.state == "listed":
        return way.source or way.file or "people_list"
    return ": ".join(word for word in (WORDS[way.state], way.note or way.file) if word)


def sign_handler(ctx: Context, args: argparse.Namespace) -> int:
    """Sign the key of somebody of the list; the certificate goes to standard output."""
    from pathlib import Path

    from roost import certificates

    if len(args.names) != 2:
        raise UsageError("sign takes one name", fix="roost people sign NAME")
    name = args.names[1]
    entry, box = _entry(ctx, name)
    home = ctx.paths.home
    ca = args.ca or ctx.environ.get("ROOST_CA") or str(home / ".ssh" / "roost_ca")
    path = Path(ca).expanduser()
    trusted, revoked = _authorities(ctx, box)
    certificates.authority(path, trusted)
    key = _key_to_sign(ctx, entry, args.key)
    if key.blob in revoked:
        raise UsageError(f"{key.fingerprint} of {name} is revoked: people_revoked_keys has it")
    validity = certificates.parse_validity(args.valid or "1d")
    end = certificates.end_of(validity, str(entry.get("until") or ""))
    made = certificates.sign(name, key, path, end, environ=ctx.environ)
    if args.json:
        ctx.out.json(made.as_json())
    else:
        ctx.out.line(made.text)
    ctx.out.note(
        f"for {name} until {end:%Y-%m-%d %H:%M} UTC, serial {made.serial}. It belongs beside the "
        "private key, as KEY-cert.pub"
    )
    return ExitCode.OK


def _entry(ctx: Context, name: str) -> tuple[Mapping[str, Any], Box]:
    """The entry of somebody who is on the list, and a box whose list it is."""
    from roost import people_list

    today = _today()
    found = [(entry, box) for box in ctx.fleet().boxes for entry in people_list.entries(box)
             if entry.get("name") == name]  # fmt: skip
    if not found:
        names = sorted(person.name for person in ctx.fleet().people)
        raise UsageError(
            f"nobody is called {name!r} in people_list",
            why=f"it has: {', '.join(names)}" if names else "it is empty",
        )
    entry, box = found[0]
    if people_list.has_left(entry, today):
        raise UsageError(f"{name} has left: people_list says so")
    return entry, box


def _authorities(ctx: Context, box: Box) -> tuple[set[str], set[str]]:
    from roost import people_list

    root, home = ctx.workspace().root, ctx.paths.home
    lists = (people_list.AUTHORITIES, people_list.REVOKED)
    trusted, revoked = ({one.key.blob for one in people_list.keys_in(box, name, root, home)}
                        for name in lists)  # fmt: skip
    return trusted, revoked


def _key_to_sign(ctx: Context, entry: Mapping[str, Any], file: str | None) -> PublicKey:
    from roost import people_list

    listed = {**entry, "keys": [{"file": file}]} if file else entry
    # A file on the command line is relative to where the command is given.
    root = ctx.cwd if file else ctx.workspace().root
    keys = [one.key for one in people_list.keys_of(listed, root, ctx.paths.home)]
    if len(keys) != 1:
        raise UsageError(
            f"people_list has {len(keys) or 'no'} keys of {entry['name']}"
            if not file
            else f"{file} holds {len(keys) or 'no'} public keys",
            fix=f"name the one to sign: roost people sign {entry['name']} --key FILE",
        )
    if keys[0].options:
        raise UsageError(
            f"the key of {entry['name']} has options ({keys[0].options})",
            why="a certificate would let its holder in without them",
            fix="sign another key: --key FILE",
        )
    return keys[0]


def _today() -> date:
    from datetime import UTC, datetime

    return datetime.now(UTC).date()
