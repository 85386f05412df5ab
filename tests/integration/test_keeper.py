"""The notebook keeper's own tests, at both ends of the releases that it supports."""

from __future__ import annotations

import pytest
from keeper_suite import PACKAGE, python_of

from roost import process

# Minutes each, and with time limits of their own that other work beside them breaks.
pytestmark = pytest.mark.long


def run_suite(end: str, *words: str) -> None:
    argv = [python_of(end), "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = process.run(argv, cwd=PACKAGE, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.timeout(1900)
@pytest.mark.parametrize("end", ["newest", "oldest"])
def test_a_real_server_and_kernel(end: str) -> None:
    run_suite(end)


@pytest.mark.browser
@pytest.mark.timeout(1900)
@pytest.mark.parametrize("end", ["newest", "oldest"])
def test_a_real_browser(end: str) -> None:
    run_suite(end, "tests/browser")
