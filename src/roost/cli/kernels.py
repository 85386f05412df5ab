"""``roost kernel``: environments that were made by hand, as kernels of JupyterLab."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from roost.cli.boxes import with_verbs
from roost.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from roost.cli.context import Context, Verbs


def register(sub: Verbs, common: argparse.ArgumentParser) -> None:
    """Add the verbs of this group."""
    verbs = with_verbs(
        sub,
        common,
        "kernel",
        "make an environment on a box a kernel of JupyterLab; list kernels, remove one",
        "Kernels of environments that are in no inventory: a venv or a conda environment that was "
        "made by hand. Those of python_environments need no command.",
    )
    _register_add(verbs, common)

    listing = verbs.add_parser(
        "list", parents=[common], help="your kernels on a box, and everybody's"
    )
    listing.add_argument("box", metavar="BOX", help="a box of the inventory")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(handler=show)

    gone = verbs.add_parser(
        "remove", parents=[common], help="take a kernel away; its environment stays"
    )
    gone.add_argument("box", metavar="BOX", help="a box of the inventory")
    gone.add_argument("kernel", metavar="KERNEL", help="its name, as list shows it")
    gone.set_defaults(handler=remove)
    for verb in (verbs.choices["add"], gone):
        verb.add_argument("--everybody", action="store_true", help="for all people (needs sudo)")


def _register_add(verbs: Verbs, common: argparse.ArgumentParser) -> None:
    add = verbs.add_parser(
        "add",
        parents=[common],
        help="make an environment a kernel",
        description="Register an environment as a kernel on a box. ipykernel is installed in it "
        "where it is missing. With a name that has been registered before, this replaces it.",
    )
    add.add_argument("box", metavar="BOX", help="a box of the inventory")
    add.add_argument(
        "path",
        metavar="PATH",
        nargs="?",
        help="a venv, a conda environment or an interpreter on the box, absolute or below the "
        "home; quote a ~, which this machine's shell would expand",
    )
    add.add_argument(
        "--conda", action="store_true", help="instead of PATH: all of your conda environments"
    )
    add.add_argument("--name", metavar="KERNEL", help="its name (default: the folder's)")
    add.add_argument("--display-name", metavar="TEXT", help="its name on the launcher")
    add.add_argument("--cwd", metavar="DIR", help="the folder that its notebooks work in")
    add.add_argument(
        "--env", metavar="K=V", action="append", default=[], help="an environment variable of it"
    )
    add.add_argument(
        "--no-install", action="store_true", help="do not install ipykernel; fail without it"
    )
    add.set_defaults(handler=register_kernel)


def _ask(ctx: Context, args: argparse.Namespace, *words: str) -> str:
    from roost import kernels
    from roost.cli.boxes import remote

    way = remote(ctx, args.box)
    return kernels.call(way.config, way.box, words, fleet=way.fleet, everybody=args.everybody)


def register_kernel(ctx: Context, args: argparse.Namespace) -> int:
    """Register an environment, and say what came of it."""
    named = {"--name": args.name, "--display-name": args.display_name, "--cwd": args.cwd}
    options = [f"{option}={value}" for option, value in named.items() if value]
    options += [f"--env={pair}" for pair in args.env]
    options += ["--no-install"] if args.no_install else []
    if bool(args.path) == args.conda:
        raise UsageError("name an environment on the box, or say --conda")
    # From the home on: that is where ssh begins, also for a command that becomes root.
    which = ["--conda"] if args.conda else ["--", args.path.removeprefix("~/")]
    ctx.out.line(_ask(ctx, args, "add", *options, *which))
    ctx.out.note(f"reload the page to see it on the launcher, or open one: roost lab {args.box}")
    return ExitCode.OK


def show(ctx: Context, args: argparse.Namespace) -> int:
    """List the kernels of a box."""
    from roost import kernels
    from roost.cli.boxes import remote

    way = remote(ctx, args.box)
    found = kernels.listing(way.config, way.box, fleet=way.fleet)
    if args.json:
        ctx.out.json(found)
        return ExitCode.OK
    rows = [
        (k["name"], k["display_name"], "dangling" if k["dangling"] else "", k["interpreter"])
        for k in found
    ]
    if rows:
        ctx.out.table(("KERNEL", "SHOWN AS", "STATE", "INTERPRETER"), rows)
    else:
        ctx.out.note(f"no kernels. Make an environment one: roost kernel add {args.box} PATH")
    return ExitCode.OK


def remove(ctx: Context, args: argparse.Namespace) -> int:
    """Take a kernel away."""
    ctx.out.line(_ask(ctx, args, "remove", "--", args.kernel))
    return ExitCode.OK
