"""The notebook keeper's own tests, at both ends of the releases that it supports."""

from __future__ import annotations

import pytest
from keeper_suite import PACKAGE, python_of

from roost import process

# What the package is for: every line in a new browser, which shows that the cell runs; and after a
# silent link.
CORE = (
    "test_browser.py::test_browser_closed_and_a_new_one",
    "test_browser.py::test_page_stays_open_through_a_bad_link[stall]",
)


def run_suite(end: str, *words: str) -> None:
    argv = [python_of(end), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = process.run(argv, cwd=PACKAGE, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.timeout(1900)
@pytest.mark.parametrize(
    "end",
    ["newest", pytest.param("oldest", marks=pytest.mark.long)],  # four minutes more
)
def test_a_real_server_and_kernel(end: str) -> None:
    run_suite(end)


@pytest.mark.browser
@pytest.mark.timeout(1900)
def test_the_core_in_a_real_browser() -> None:
    run_suite("newest", *(f"tests/browser/{test}" for test in CORE))


@pytest.mark.long  # five minutes and more at each end
@pytest.mark.browser
@pytest.mark.timeout(1900)
@pytest.mark.parametrize("end", ["newest", "oldest"])
def test_everything_in_a_real_browser(end: str) -> None:
    run_suite(end, "tests/browser")
