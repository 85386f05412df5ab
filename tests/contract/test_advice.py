"""Commands that can be typed: those of ours in a `fix` and in a page are known to the parser."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost import content, explain
from roost.cli.main import build_parser

SOURCE = Path(explain.__file__).parent
ROOT = content.collection_root()
COMMAND = re.compile(r"\broost (-w \S+ )?([a-z][a-z-]*)((?: [^\n;,()]*)?)")


def texts(node: ast.expr) -> Iterator[str]:
    """The text that an expression makes, with X for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def advice() -> Iterator[tuple[str, str]]:
    """Where advice stands, and its text."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.keyword("fix", value) | ast.Assign([ast.Name("fix")], value):
                    for text in texts(value):
                        yield file.stem, text
    for _, _, fix in explain._KNOWN:
        yield "explain", fix.format("X", "X", box="X") if "{" in fix else fix


def pages() -> Iterator[tuple[str, str]]:
    """Where a page shows code: between backticks, in a block, or a line set in."""
    for top in ("*.md", "docs/**/*.md", "roles/*/README.md"):
        for file in sorted(ROOT.glob(top)):
            fenced = False
            for line in file.read_text("utf-8").splitlines():
                fenced ^= line.lstrip().startswith("```")
                whole = fenced or line.startswith("    ")
                shown = [line] if whole else re.findall(r"`([^`]+)`", line)
                for code in shown:
                    if code.strip().startswith("roost "):
                        yield str(file.relative_to(ROOT)), code.strip().partition("  #")[0]


def commands() -> list[tuple[str, str, str]]:
    """Where, the verb, and what follows it."""
    return [
        (where, found[2], found[3])
        for where, text in (*advice(), *pages())
        for found in COMMAND.finditer(text)
    ]


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_there_is_a_lot_of_both() -> None:
    assert len(list(advice())) > 40
    assert len(list(pages())) > 40


@pytest.mark.parametrize(("where", "verb", "rest"), sorted(set(commands())))
def test_a_command_can_be_typed(where: str, verb: str, rest: str) -> None:
    known = verbs(build_parser())
    assert verb in known, f"{where}: roost {verb}{rest}"
    parser = known[verb]
    words = rest.partition(" -- ")[0].split()
    inner = verbs(parser)
    if inner and not words:
        assert where.endswith(".md"), f"{where}: roost {verb} needs a verb"  # a page's name for it
    elif inner:
        assert words[0] in inner, f"{where}: roost {verb}{rest}"
        parser = inner[words[0]]
    options = {word.rstrip(".:").partition("=")[0] for word in words if word.startswith("-")}
    assert options <= {name for action in parser._actions for name in action.option_strings}
