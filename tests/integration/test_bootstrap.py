"""``tools/bootstrap.sh`` on machines that have nothing: fresh boxes, as an ordinary user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from boxes import LiveBox, exec_in, ssh
from roost import content, process

pytestmark = pytest.mark.box

REPOSITORY = content.collection_root()


@pytest.fixture
def clone(box: LiveBox) -> LiveBox:
    """A box with the checkout in ~/roost: the files that git knows, as they are now."""
    listed = process.run(["git", "ls-files", "-z"], cwd=REPOSITORY).stdout.split("\0")
    files = [name for name in listed if name and (REPOSITORY / name).exists()]
    tar = ["tar", "--create", "--gzip", "--null", "--files-from=-"]
    packed = subprocess.run(
        tar, cwd=REPOSITORY, input="\0".join(files).encode(), capture_output=True, check=True
    ).stdout
    unpack = ["ssh", "-F", box.workspace.ssh_config, "-S", "none", box.name,
              "mkdir roost && tar -xzf - -C roost"]  # fmt: skip
    subprocess.run(unpack, input=packed, check=True, timeout=120)
    return box


def test_without_the_right_to_install_one_message_says_what_is_missing(clone: LiveBox) -> None:
    exec_in(clone, ["rm", "/etc/sudoers.d/90-default-user"])
    before = ssh(clone, "find roost -type f | sort | xargs sha256sum; dpkg -l").stdout
    done = ssh(clone, "roost/tools/bootstrap.sh demo", check=False)
    assert done.returncode == 1 and done.stdout == ""
    (message,) = done.stderr.splitlines()
    for package in ("podman", "runc", "mmdebstrap", "rsync", "tmux", "python3-venv"):
        assert f" {package}" in message
    assert "sudo apt-get install -y --no-install-recommends" in message
    assert ssh(clone, "find roost -type f | sort | xargs sha256sum; dpkg -l").stdout == before


def test_the_tests_say_that_they_need_root(clone: LiveBox) -> None:
    done = ssh(clone, "roost/tools/bootstrap.sh test", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "sudo make test" in done.stderr
    assert ssh(clone, "test -e roost/.venv", check=False).returncode == 1


def test_setup_installs_what_is_missing_and_is_quick_the_second_time(clone: LiveBox) -> None:
    first = ssh(clone, "cd roost && tools/bootstrap.sh setup", timeout=600)
    assert "installing python3-venv" in first.stderr
    assert ssh(clone, "roost/.venv/bin/roost --version").stdout.startswith("roost ")
    assert ssh(clone, "roost/.venv/bin/pytest --version").returncode == 0
    second = ssh(clone, "cd roost && tools/bootstrap.sh setup")
    assert second.stderr == ""
    # Another dependency is installed; a folder that was moved gets a .venv that works.
    ssh(clone, r"sed -i 's/^dependencies = \[/&\n  \"six\",/' roost/pyproject.toml; mv roost nest")
    ssh(clone, "nest/tools/bootstrap.sh setup", timeout=600)
    assert ssh(clone, "nest/.venv/bin/python -c 'import six, roost'").returncode == 0
    assert ssh(clone, "head -1 nest/.venv/bin/roost").stdout.startswith("#!/home/debian/nest/")


@pytest.mark.parametrize(("words", "code"), [("", 1), ("nonsense", 1)])
def test_wrong_words_are_an_error(words: str, code: int) -> None:
    argv = [REPOSITORY / "tools" / "bootstrap.sh", *words.split()]
    done = process.run(argv, check=False)
    assert done.returncode == code and "usage: tools/bootstrap.sh" in done.stderr


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["python3"], "Python 3.11 or newer is needed"),
        (["python3", "python3.12"], "python3.12 makes the venv"),
    ],
)
def test_a_new_enough_python_is_looked_for(names: list[str], says: str, tmp_path: Path) -> None:
    """An Ubuntu 22.04 has Python 3.10 as python3, and may have a newer one beside it."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for tool in ("cat", "cksum", "dirname", "sh"):
        (binaries / tool).symlink_to(f"/usr/bin/{tool}")
    for name in names:
        old = 'case "$2" in *version_info*) exit 1 ;; esac' if name == "python3" else ":"
        text = f'#!/bin/sh\n{old}\n[ "$1" = -c ] || echo "{name} makes the venv" >&2\nexit $?\n'
        (binaries / name).write_text(text + "\n")
        (binaries / name).chmod(0o755)
    # A copy, so that the .venv of this checkout is not touched.
    (tmp_path / "tools").mkdir()
    for file in ("tools/bootstrap.sh", "pyproject.toml"):
        shutil.copy(REPOSITORY / file, tmp_path / file)
    argv = [tmp_path / "tools" / "bootstrap.sh", "setup"]
    done = process.run(argv, check=False, env={"PATH": str(binaries)})
    assert done.returncode != 0 and says in done.stderr
