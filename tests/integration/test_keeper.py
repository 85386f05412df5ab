"""The notebook keeper's own tests, at both ends of the releases that it supports."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from keeper_suite import PACKAGE, install, python_of, reached

from boxes import LiveBox
from roost import process

# What the package is for: every line in a new browser, which shows that the cell runs; and after a
# silent link.
CORE = (
    "test_browser.py::test_browser_gone_and_a_new_one[closed]",
    "test_browser.py::test_page_stays_open_through_a_bad_link[stall]",
)


def run_suite(end: str, *words: str, **settings: str) -> str:
    argv = [python_of(end), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    env = os.environ | settings
    done = process.run(argv, cwd=PACKAGE, timeout=1800, check=False, env=env)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


@pytest.mark.timeout(1900)
@pytest.mark.parametrize(
    "end",
    ["newest", pytest.param("oldest", marks=pytest.mark.long)],  # four minutes more
)
def test_a_real_server_and_kernel(end: str) -> None:
    run_suite(end)


@pytest.fixture
def through_a_box(shared_box: Callable[..., LiveBox]) -> Callable[..., str]:
    """Runs browser tests: the server on a box, and a real ssh forward to it."""

    def run(end: str, *words: str) -> str:
        # Some of the pinned releases want a later Python 3.11 than Debian 12 has.
        box = shared_box(f"keeper-{end}", lambda box: install(box, end), os="debian:13")
        with reached(box) as settings:
            return run_suite(end, *words, **settings)

    return run


@pytest.mark.box
@pytest.mark.browser
@pytest.mark.timeout(1900)
def test_the_core_in_a_real_browser(through_a_box: Callable[..., str]) -> None:
    through_a_box("newest", *(f"tests/browser/{test}" for test in CORE))


@pytest.mark.long  # five minutes and more at each end
@pytest.mark.box
@pytest.mark.browser
@pytest.mark.timeout(1900)
@pytest.mark.parametrize("end", ["newest", "oldest"])
def test_everything_in_a_real_browser(through_a_box: Callable[..., str], end: str) -> None:
    assert " skipped" not in through_a_box(end, "tests/browser")
