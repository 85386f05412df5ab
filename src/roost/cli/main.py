"""The entry point: parse, dispatch, and turn every error into one message and an exit code."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from roost import __version__
from roost.cli import check as check_verbs
from roost.cli import completion
from roost.cli import demo as demo_verbs
from roost.cli import doctor as doctor_verbs
from roost.cli import editor as editor_verbs
from roost.cli import hosts as host_verbs
from roost.cli import jobs as job_verbs
from roost.cli import kernels as kernel_verbs
from roost.cli import lab as lab_verbs
from roost.cli import logs as log_verbs
from roost.cli import people as people_verbs
from roost.cli import proxy as proxy_verbs
from roost.cli import sandbox as sandbox_verbs
from roost.cli import shell as shell_verbs
from roost.cli import ssh as ssh_verbs
from roost.cli import ssh_config as ssh_config_verbs
from roost.cli import status as status_verbs
from roost.cli import transfer as transfer_verbs
from roost.cli import tunnel as tunnel_verbs
from roost.cli import up as up_verbs
from roost.cli import workspace as workspace_verbs
from roost.cli.context import Context
from roost.errors import ExitCode, RoostError

# In the order in which `roost --help` lists them: the way a new user goes.
GROUPS = (
    workspace_verbs,
    host_verbs,
    up_verbs,
    check_verbs,
    status_verbs,
    people_verbs,
    ssh_verbs,
    ssh_config_verbs,
    lab_verbs,
    kernel_verbs,
    tunnel_verbs,
    proxy_verbs,
    shell_verbs,
    job_verbs,
    log_verbs,
    transfer_verbs,
    editor_verbs,
    doctor_verbs,
    sandbox_verbs,
    demo_verbs,
    completion,
)

EPILOG = """\
exit codes: 0 fine, 1 failed, 2 wrong usage (or drift, for check), 4 a box is unreachable,
255 the ssh transport failed, 130 interrupted; wait ends with the job's own code.
"""


class _Parser(argparse.ArgumentParser):
    """Says of a command that is none which one may have been meant, not all that there are."""

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument (?:COMMAND|VERB): invalid choice: '(.*?)'(.*)", message):
            from difflib import get_close_matches

            known = re.findall(r"[\w-]+", found[2].partition("choose from")[2])
            near = "".join(
                f", but there is '{one}'" for one in get_close_matches(found[1], known, 1)
            )
            message = f"there is no '{found[1]}'{near}; {self.prog} --help lists what there is"
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each group of verbs adds its own."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-w",
        "--workspace",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="the workspace (default: $ROOST_WORKSPACE, the nearest parent folder that is one, "
        "then ~/.config/roost)",
    )
    common.add_argument(
        "-v", "--verbose", action="count", default=argparse.SUPPRESS, help="show more"
    )
    parser = _Parser(
        prog="roost",
        description="Provision remote machines for data science, and work on them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"roost {__version__}")
    sub = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for group in GROUPS:
        group.register(sub, common)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; what stands after ``--`` is another program's, and argparse never sees it."""
    if "--" not in argv:
        return parser.parse_args(argv)
    at = argv.index("--")
    args = parser.parse_args(argv[:at])
    if not hasattr(args, "words"):
        parser.error(f"{args.command or 'roost'} takes nothing after --")
    args.words = [*args.words, *argv[at + 1 :]]
    return args


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments without the program's name; None: those of the process.
        environ: the environment; None: that of the process.
    """
    environ = os.environ if environ is None else environ

    def context_of(args: argparse.Namespace) -> Context:
        return Context(
            environ=environ,
            cwd=Path.cwd(),
            workspace_flag=getattr(args, "workspace", None),
            verbose=getattr(args, "verbose", 0),
        )

    parser = build_parser()
    if "_ARGCOMPLETE" in environ:
        completion.answer(parser, context_of)
    args = _parse(parser, list(sys.argv[1:] if argv is None else argv))
    context = context_of(args)
    if args.command is None:
        parser.print_help(context.out.stderr)
        return ExitCode.USAGE
    try:
        return int(args.handler(context, args))
    except RoostError as error:
        context.out.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        context.out.note("roost: interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if context.verbose:
            raise
        context.out.note(f"roost: a mistake of roost's own: {type(error).__name__}: {error}")
        context.out.note("  fix: run it again with -v, and report what it shows")
        return ExitCode.FAILED


def entry() -> None:
    """The console script."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # `roost … | head`: the reader has enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FAILED
    sys.exit(code)
