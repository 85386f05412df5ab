"""What a box takes over from the machine: sources, certificates, the package index."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from roost import process
from roost.errors import ProcessError, UsageError
from roost.sandbox import machine, releases
from roost.sandbox.releases import parse

DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}
UBUNTU = {"ID": "ubuntu", "VERSION_ID": "24.04", "VERSION_CODENAME": "noble"}


def pem(name: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("debian:12", "debian:12"), (" Ubuntu:24.04 ", "ubuntu:24.04"), ("trixie", "debian:13")],
)
def test_a_release_is_named_by_version_or_codename(text: str, expected: str) -> None:
    assert str(parse(text)) == expected


@pytest.mark.parametrize("text", ["debian:11", "fedora:44", "", "debian"])
def test_other_systems_are_refused_with_the_list_of_those_that_work(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "ubuntu:26.04" in str(caught.value.why)


def test_the_fallback_is_the_machines_own_debian() -> None:
    assert str(releases.fallback({"ID": "debian", "VERSION_ID": "13"})) == "debian:13"
    assert str(releases.fallback(UBUNTU)) == "debian:12"
    assert str(releases.fallback({})) == "debian:12"


def test_os_release_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text("# comment\nID=debian\nVERSION_ID=\"12\"\nNAME='a=b'\n\n")
    assert releases.os_release(file) == {"ID": "debian", "VERSION_ID": "12", "NAME": "a=b"}
    assert releases.os_release(tmp_path / "missing") == {}


def test_sources_are_rewritten_for_the_boxs_release() -> None:
    listed = """\
http://mirror.example/debian/ bookworm main
http://mirror.example/debian/ bookworm contrib
http://mirror.example/debian/ bookworm-updates main
http://mirror.example/debian-security/ bookworm-security main
http://mirror.example/debian/ bookworm-backports main
https://download.example/linux/debian bookworm stable
https://packages.example/apt cloud-sdk-bookworm main
cdrom://disk/debian/ bookworm main
"""
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert machine.rewrite_sources(listed, parse("debian:13"), "bookworm") == (
        f"deb {key} http://mirror.example/debian/ trixie main contrib",
        f"deb {key} http://mirror.example/debian/ trixie-updates main",
        f"deb {key} http://mirror.example/debian-security/ trixie-security main",
    )


def test_sources_that_the_box_cannot_reach_are_left_to_its_image() -> None:
    # GitHub's runners name a mirror list on their own disk.
    listed = "mirror+file:/etc/apt/apt-mirrors.txt noble main\n"
    assert machine.rewrite_sources(listed, parse("ubuntu:24.04"), "noble") == ()
    # Without the release itself the pockets are worth nothing.
    listed = "http://mirror.example/ubuntu noble-security main\n"
    assert machine.rewrite_sources(listed, parse("ubuntu:24.04"), "noble") == ()


def test_another_distribution_or_no_apt_says_nothing_about_sources() -> None:
    def fail(*args: object, **kwargs: object) -> process.Completed:
        raise ProcessError("no apt")

    assert machine.package_sources(parse("debian:12"), UBUNTU, fail) == ()
    assert machine.package_sources(parse("debian:12"), DEBIAN_12, fail) == ()


def test_only_certificates_beside_the_packaged_ones_are_extra(tmp_path: Path) -> None:
    packaged = tmp_path / "usr/share/ca-certificates/mozilla"
    local = tmp_path / "usr/local/share/ca-certificates"
    bundle = tmp_path / "etc/ssl/certs/ca-certificates.crt"
    for folder in (packaged, local, bundle.parent):
        folder.mkdir(parents=True)
    (packaged / "public.crt").write_text(pem("public") + "\n")
    (local / "company.crt").write_text(pem("company").replace("\n", "\r\n"))
    bundle.write_text("\n".join([pem("public"), pem("company"), pem("proxy")]))
    assert machine.extra_certificates(tmp_path) == (pem("company"), pem("proxy"))
    # With nothing to compare with, the bundle tells nothing.
    (packaged / "public.crt").unlink()
    assert machine.extra_certificates(tmp_path) == (pem("company"),)


@pytest.mark.parametrize(
    ("variable", "file", "expected"),
    [
        ("https://pypi.example/simple", "", "https://pypi.example/simple"),
        ("", "[global]\nindex-url = https://a.example/simple\n", "https://a.example/simple"),
        ("https://b.example/s", "[global]\nindex-url = https://a.example/s\n", "https://b.example/s"),
        ("", "[global]\nextra-index-url = file:///opt/wheels\n", ""),
        ("file:///opt/simple", "", ""),
        ("http://127.0.0.1:3141/simple", "", ""),
        ("http://localhost:3141/simple", "", ""),
        ("https://ann:secret@pypi.example/simple", "", ""),
        ("", "this is not a configuration file", ""),
    ],
)  # fmt: skip
def test_an_index_that_the_box_can_use_is_passed_on(
    variable: str, file: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "pip.conf").write_text(file)
    found = machine.package_index({"PIP_INDEX_URL": variable}, [tmp_path / "pip.conf"])
    assert found == expected


def test_apt_itself_is_asked_for_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], Path]
) -> None:
    program("apt-get", "echo http://mirror.example/debian bookworm main")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (line,) = machine.package_sources(parse("debian:13"), DEBIAN_12)
    assert line.endswith("http://mirror.example/debian trixie main")


def test_the_prepare_script_is_accepted_by_the_shell() -> None:
    script = Path(machine.__file__).with_name("prepare.sh")
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
