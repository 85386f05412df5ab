"""Hooks of MkDocs: pages that are made of what the repository holds already.

The reference comes from the parser of the command line and from the roles; the first page is the
README. Links between files of the repository become links between pages of the site.
"""

from __future__ import annotations

import argparse
import html
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import role_docs

from roost import explain
from roost.cli.main import EPILOG, build_parser

ROOT = Path(__file__).resolve().parents[1]
# Of the site, and of the repository.
COPIES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "reference/jupyter-keeper.md": "packages/jupyter-keeper/README.md",
}
FAILURES = "<!-- failures -->"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are no files."""
    for uri, text in pages():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to pages."""
    here = page.file.src_uri
    return relink(markdown.replace(FAILURES, failures()), COPIES.get(here, f"docs/{here}"), here)


def pages() -> Iterator[tuple[str, str]]:
    """Each page that is made here: its place on the site, and its text."""
    for uri, source in COPIES.items():
        yield uri, (ROOT / source).read_text("utf-8")
    yield "reference/commands.md", commands()
    yield "reference/inventory.md", inventory()
    for role in role_docs.roles(ROOT):
        uri = f"reference/roles/{role.name}.md"
        yield uri, relink(role_docs.render_readme(role), f"roles/{role.name}/README.md", uri)


def place(path: str) -> str | None:
    """Where a file of the repository stands on the site; None where it does not."""
    for uri, source in COPIES.items():
        if path == source:
            return uri
    role = re.fullmatch(r"roles/(\w+)/README\.md", path)
    if role:
        return f"reference/roles/{role[1]}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def relink(text: str, source: str, uri: str) -> str:
    """Rewrite the links of a page; one to a file that is not on the site loses its link.

    Args:
        text: the page.
        source: the file of the repository that its links start from.
        uri: its place on the site.
    """

    def link(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = place(path)
        if to is None:
            return label.lstrip("!").strip("[]")
        return f"{label}({posixpath.relpath(to, posixpath.dirname(uri) or '.')}{anchor})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)#\s]*)(#[^)\s]*)?\)", link, text)


def commands() -> str:
    """Every command, as its own ``--help`` says it."""
    parts = [
        "# Commands",
        f"```text\n{EPILOG}```",
        "Every command also takes `-w DIR` (the workspace) and `-v` (show more).",
    ]
    for words, parser in walk(build_parser(), "roost"):
        parts += [f"## {words}", description(parser), f"```text\n{usage(parser)}\n```"]
        rows = [row for action in parser._actions if (row := argument(action))]
        if rows:
            parts.append("\n".join(["| argument | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def walk(
    parser: argparse.ArgumentParser, words: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that can be typed, in the order of ``--help``."""
    verbs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not verbs:
        yield words, parser
    for action in verbs:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, inner in action.choices.items():
            inner.description = inner.description or helps.get(name)
            yield from walk(inner, f"{words} {name}")


def description(parser: argparse.ArgumentParser) -> str:
    text = " ".join((parser.description or "").split()).replace("<", "&lt;")
    return text[:1].upper() + text[1:]


def usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").rstrip()


def argument(action: argparse.Action) -> str | None:
    """One row of a table; none for what every command has."""
    if action.dest in {"help", "workspace", "verbose"} or action.help == argparse.SUPPRESS:
        return None
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    shown = value if isinstance(value, str) else " ".join(value or ())
    names = ", ".join(action.option_strings)
    taken = f"{names} {shown}".strip() if action.nargs != 0 else names
    if action.choices and not action.metavar:
        taken = f"{names} {'|'.join(map(str, action.choices))}".strip()
    cells = (
        f"<code>{html.escape(taken)}</code>",
        html.escape((action.help or "").replace("%%", "%")),
    )
    return "| {} | {} |".format(*(cell.replace("|", "&#124;") for cell in cells))


def inventory() -> str:
    """The inventory that a workspace starts with, which says what may stand in it."""
    parts = [
        "# The inventory",
        "What `roost init` writes. It is an ordinary inventory of Ansible; what belongs to roost "
        "has the prefix `roost_`, and every variable of a role may stand beside it.",
    ]
    for path in sorted((ROOT / "inventory").rglob("*.yml")):
        parts += [f"## {path.relative_to(ROOT)}", f"```yaml\n{path.read_text('utf-8')}```"]
    return "\n\n".join(parts) + "\n"


def failures() -> str:
    """What ``roost up`` recognises, and what it says to that."""
    rows = []
    for _, what, fix in explain._KNOWN:
        cells = [text.format("…", "…", box="BOX") for text in (what, fix)]
        rows.append("| {} | {} |".format(*(cell.replace("|", "&#124;") for cell in cells)))
    return "\n".join(["| it says | what mends it |", "| --- | --- |", *rows])
