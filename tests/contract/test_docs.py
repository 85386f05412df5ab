"""The documentation: its commands are run or say why not, and the site asks nobody for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pages import DOCS, FOLLOWED, blocks
from roost import process
from roost.inventory import ansible_program

ROOT = DOCS.parent
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
TESTS = {page: test for test, pages in FOLLOWED.items() for page in pages}
TYPED = re.compile(r"^(    )(roost|ansible\S*|git|ssh|curl|make|sudo|uv|pipx) ", re.M)
# What a browser fetches when it shows a page; a link is only followed by a click.
FETCHES = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_or_says_why_not(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    fenced = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)
    assert not TYPED.search(fenced), "commands belong into blocks marked sh"
    assert "```bash" not in text and "```console" not in text
    if page in TESTS:
        assert any(not block.why for block in blocks(page))
    else:
        assert [block.text for block in blocks(page) if not block.why] == []


def test_every_page_that_is_followed_is_there() -> None:
    assert set(TESTS) <= set(PAGES)
    for page, test in TESTS.items():
        said = (ROOT / "tests/integration" / f"{test}.py").read_text("utf-8")
        named = Path(page).name
        assert named in said or f'FOLLOWED["{test}"]' in said, f"{test} does not follow {page}"


class Fetched(HTMLParser):
    """The addresses that a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in {"canonical", "prev", "next"}:
            return
        address = values.get(FETCHES.get(tag, ""))
        if address:
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built; any warning ends that."""
    folder = tmp_path_factory.mktemp("site")
    build = [ansible_program("mkdocs"), "build", "--strict", "--site-dir", folder]
    done = process.run(build, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert {"index.html", "commands.html", "jupyter.html", "security.html"} <= {
        page.name for page in built
    }
    for page in built:
        reader = Fetched()
        reader.feed(page.read_text("utf-8"))
        foreign = [address for address in reader.found if re.match(r"(\w+:)?//", address)]
        assert foreign == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text("utf-8"))


def test_the_reference_has_every_command_and_every_variable(site: Path) -> None:
    commands = (site / "reference" / "commands.html").read_text("utf-8")
    for words in ("roost up", "roost tunnel open", "roost ssh-config import", "roost doctor"):
        assert f">{words}<" in commands, words
    roles = (site / "reference" / "roles" / "base.html").read_text("utf-8")
    assert "<code>base_apt_mirror</code>" in roles
    assert "C(" not in re.sub(r"<[^>]+>", "", roles)
