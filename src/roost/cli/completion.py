"""``roost completion SHELL``, and what the shells are told: verbs, options, boxes, groups, jobs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from roost.errors import ExitCode, RoostError

if TYPE_CHECKING:
    from roost.cli.context import Context

SHELLS = ("bash", "zsh", "fish")

WHERE = """\
  bash  roost completion bash > ~/.local/share/bash-completion/completions/roost
  zsh   roost completion zsh > ~/.zfunc/_roost        (with ~/.zfunc in $fpath)
  fish  roost completion fish > ~/.config/fish/completions/roost.fish
"""

Completer = Callable[..., Iterable[str]]


def register(
    sub: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the verbs of this group."""
    parser = sub.add_parser(
        "completion",
        parents=[common],
        help="print what makes the shell complete commands, boxes and jobs",
        description="Print a completion script for a shell. Where it goes:\n\n" + WHERE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(handler=completion)


def completion(ctx: Context, args: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    ctx.out.line(shellcode(["roost"], shell=args.shell))
    return ExitCode.OK


def answer(parser: argparse.ArgumentParser, context: Callable[[Any], Context]) -> None:
    """Answer the shell that asks (it has set ``_ARGCOMPLETE``) and end the process.

    Args:
        parser: the whole command line.
        context: makes the context of the call from what was typed so far.
    """
    import argcomplete

    attach(parser, context)
    argcomplete.autocomplete(parser)


def attach(parser: argparse.ArgumentParser, context: Callable[[Any], Context]) -> None:
    """Give every argument a completer by what its metavar says that it is."""

    def names(*, boxes: bool = False, groups: bool = False) -> Completer:
        def complete(parsed_args: Any, **_: object) -> list[str]:
            try:
                fleet = context(parsed_args).fleet()
            except RoostError:
                return []
            found = [b.name for b in fleet.boxes] if boxes else []
            return found + (sorted(fleet.groups) if groups else [])

        return complete

    def own_hosts(parsed_args: Any, **_: object) -> list[str]:
        from roost.cli import installed
        from roost.ssh_config_reader import is_literal, read

        try:
            user = installed.user_config(context(parsed_args), parsed_args.config)
        except RoostError:
            return []
        blocks = (line.words for line in read(user.config) if line.keyword == "host")
        return [word for words in blocks for word in words if is_literal(word)]

    def who(parsed_args: Any, **_: object) -> list[str]:
        given = getattr(parsed_args, "names", None) or []
        if given[:1] != ["sign"]:
            boxes = names(boxes=True, groups=True)(parsed_args)
            return [*boxes, *([] if given else ["sign"])]
        try:
            return [person.name for person in context(parsed_args).fleet().people]
        except RoostError:
            return []

    by_metavar: dict[str, Completer] = {
        "BOX": names(boxes=True),
        "GATEWAY": names(boxes=True),
        "NAME": names(boxes=True),
        "BOX|GROUP": names(boxes=True, groups=True),
        "G": names(groups=True),
        "HOST": own_hosts,
        "WHO": who,
    }
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in by_metavar:
            action.completer = by_metavar[action.metavar]  # type: ignore[attr-defined]


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
        else:
            yield action
