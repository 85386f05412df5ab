"""The entry point: parse, dispatch, and turn every error into one message and an exit code."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from roost import __version__
from roost.cli.context import Context
from roost.errors import ExitCode, RoostError

# Each group of verbs, with its verbs: what is called is imported, and nothing else.
# In the order in which `roost --help` lists them: the way a new user goes.
GROUPS = {
    "workspace": ("init",),
    "hosts": ("add", "remove"),
    "up": ("up",),
    "check": ("check",),
    "status": ("status",),
    "people": ("people",),
    "ssh": ("ssh",),
    "ssh_config": ("ssh-config",),
    "lab": ("lab",),
    "kernels": ("kernel",),
    "tunnel": ("tunnel",),
    "proxy": ("proxy",),
    "shell": ("shell",),
    "jobs": ("run", "jobs", "stop", "wait"),
    "logs": ("logs", "attach"),
    "transfer": ("push", "pull", "sync"),
    "editor": ("code",),
    "doctor": ("doctor",),
    "sandbox": ("sandbox",),
    "demo": ("demo",),
    "completion": ("completion",),
}

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


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; each group of verbs adds its own.

    Args:
        verb: the one that is called, whose group is enough then; None, or what is no verb: all.
    """
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
    wanted = [group for group, verbs in GROUPS.items() if verb in verbs] or GROUPS
    for group in wanted:
        import_module(f"roost.cli.{group}").register(sub, common)
    return parser


def _verb(argv: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the folder of ``-w``; None: there is none."""
    words = iter(argv)
    for word in words:
        if word in ("-w", "--workspace"):
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; what stands after ``--`` is another program's, and argparse never sees it."""
    if "--" not in argv:
        args, left = parser.parse_known_args(argv)
        if left and hasattr(args, "words") and not left[0].startswith("-"):
            parser.error(f"a command stands after --: roost {args.command} ... -- {left[0]} ...")
        return parser.parse_args(argv) if left else args
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

    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in environ:
        from roost.cli import completion

        completion.answer(build_parser(), context_of)
    parser = build_parser(_verb(words))
    args = _parse(parser, words)
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
