"""The programs that the roles python and jupyter feed to a box: their parts without effects."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROLES = Path(__file__).resolve().parents[2] / "roles"
NAMES = (
    "box", "kernel_tool", "uv_tool", "projects", "environments", "provision", "release", "services",
)  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ModuleType]]:
    """The programs, imported as the box imports them: by their short names."""
    folders = [str(ROLES / role / "files") for role in ("python", "jupyter")]
    sys.path[:0] = folders
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        for folder in folders:
            sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


def test_a_release_has_another_name_for_any_change(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    name = programs["release"].release_name
    wheel = tmp_path / "w.whl"
    wheel.write_bytes(b"1")
    base = name("six==1\n", [], [wheel], (3, 11))
    assert base == name("six==1\n", [], [wheel], (3, 11))
    others = {
        name("six==2\n", [], [wheel], (3, 11)),
        name("six==1\n", ["idna"], [wheel], (3, 11)),
        name("six==1\n", [], [], (3, 11)),
        name("six==1\n", [], [wheel], (3, 13)),
    }
    wheel.write_bytes(b"2")
    others.add(name("six==1\n", [], [wheel], (3, 11)))
    assert len(others | {base}) == 6


def test_constraints_are_the_lock_without_hashes(programs: dict[str, Any]) -> None:
    lock = (
        "six==1.16.0 ; python_version < '3.11' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    )
    plain = programs["release"].without_hashes(lock + "idna==3.6 \\\n    --hash=sha256:cc\n")
    assert plain == "six==1.16.0 ; python_version < '3.11'\nidna==3.6\n"


def release(folder: Path, name: str) -> None:
    (folder / name / "bin").mkdir(parents=True)
    (folder / name / "bin" / "python").symlink_to(sys.executable)
    (folder / name / "roost-complete").touch()


def test_the_way_back_is_the_same_on_every_run(programs: dict[str, Any], tmp_path: Path) -> None:
    module = programs["release"]
    releases = module.Releases(tmp_path, tmp_path / "c", "", programs["box"].Runner(30))
    old, new = "a" * 12, "b" * 12
    with pytest.raises(programs["box"].StepError, match="no earlier release"):
        module.chosen(releases, new, rollback=True)
    for name in (old, new):
        release(tmp_path, name)
        releases.switch(name)
    for _ in range(3):
        back = module.chosen(releases, new, rollback=True)
        assert back == old
        releases.switch(back)
    assert releases.target("current") == old
    assert releases.target("previous") == new
    assert module.chosen(releases, new, rollback=False) == new


def test_a_release_that_was_not_finished_does_not_count(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    module = programs["release"]
    releases = module.Releases(tmp_path, tmp_path / "c", "", programs["box"].Runner(30))
    name = "c" * 12
    assert not releases.complete(name)
    release(tmp_path, name)
    assert releases.complete(name)
    (tmp_path / name / "bin" / "python").unlink()
    (tmp_path / name / "bin" / "python").symlink_to("/usr/bin/python3.98")
    assert not releases.complete(name)


def test_a_release_that_a_server_runs_from_is_kept(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    module = programs["release"]
    releases = module.Releases(tmp_path, tmp_path / "c", "", programs["box"].Runner(30))
    names = ["d" * 12, "e" * 12, "f" * 12]
    for name in names:
        release(tmp_path, name)
    releases.switch(names[0])
    words = [str(tmp_path / names[1] / "bin" / "python"), "-c", "print(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        # Popen is back before the kernel shows the new command line.
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert [p.name for p in releases.superseded()] == [names[2]]
        child.communicate(b"\n")


def test_credentials_go_by_environment(programs: dict[str, Any]) -> None:
    env = programs["uv_tool"].index_environment(
        [
            {"name": "corp-a", "url": "https://a/simple", "username": "u", "password": "p"},
            {"name": "b", "url": "https://b/simple"},
            {"name": "main", "url": "https://m/simple", "default": True},
        ]
    )
    assert env == {
        "UV_INDEX": "corp-a=https://a/simple b=https://b/simple",
        "UV_DEFAULT_INDEX": "main=https://m/simple",
        "UV_INDEX_CORP_A_USERNAME": "u",
        "UV_INDEX_CORP_A_PASSWORD": "p",
    }


def test_what_a_program_says_is_shown_without_secrets(programs: dict[str, Any]) -> None:
    runner = programs["box"].Runner(30, secrets=["hunter2"])
    with pytest.raises(programs["box"].StepError) as caught:
        runner(
            [
                "sh",
                "-c",
                "echo 'Using Python 3'; echo 'https://u:hunter2@x: 401 Unauthorized' >&2; exit 1",
            ]
        )
    assert str(caught.value) == "https://u:***@x: 401 Unauthorized"
    assert caught.value.fix == "check username and password of the index"


def test_a_program_that_hangs_is_ended(programs: dict[str, Any]) -> None:
    with pytest.raises(programs["box"].StepError, match="did not end within"):
        programs["box"].Runner(0.2)(["sleep", "60"])


def test_environments_of_other_boxes_people_are_left_out(programs: dict[str, Any]) -> None:
    here = programs["provision"].here
    listed = [{"name": "shared"}, {"name": "a", "owner": "ann"}, {"name": "b", "owner": "bob"}]
    assert [e["name"] for e in here(listed, ["ann"])] == ["shared", "a"]
    assert [e["name"] for e in here(listed, [])] == ["shared", "a", "b"]


def test_what_somebody_asked_for_and_not_what_came_along(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, files in {
        "asked-1.0": ["REQUESTED"],
        "came_along-2.0": [],
        "from_a_folder-3.0": ["REQUESTED", "direct_url.json"],
    }.items():
        folder = packages / f"{name}.dist-info"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    assert programs["environments"].requested_packages(tmp_path) == ["asked==1.0"]


def test_a_kernel_spec_is_written_whole_and_only_over_ones_own(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    tool = programs["kernel_tool"]
    spec = tool.render_spec(Path("/opt/e/bin/python"), "E", cwd="/srv/it's", env={"A": "1"})
    assert spec["argv"][:4] == ["/bin/sh", "-c", tool.CHANGE_FOLDER, "/srv/it's"]
    assert tool.interpreter_of(spec) == "/opt/e/bin/python"
    folder = tmp_path / "e"
    assert tool.write_spec(folder, spec, check=True) and not folder.exists()
    assert tool.write_spec(folder, spec)
    assert not tool.write_spec(folder, spec)
    assert json.loads((folder / "kernel.json").read_text()) == spec
    assert oct((folder / "kernel.json").stat().st_mode)[-3:] == "644"
    assert [entry.name for entry in folder.iterdir()] == ["kernel.json"]
    assert tool.is_dangling(spec)
    assert tool.remove_spec(folder) and not tool.remove_spec(folder)

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "kernel.json").write_text('{"argv": ["python3"], "display_name": "x"}')
    with pytest.raises(tool.KernelError, match="somebody else"):
        tool.write_spec(theirs, spec)
    assert not tool.remove_spec(theirs)


@pytest.mark.parametrize(
    ("kernels", "terminals", "policy", "expected"),
    [
        ([], [], "unused", ""),
        (["idle"], [], "unused", "1 kernels (0 busy), 0 terminals"),
        ([], ["1"], "unused", "0 kernels (0 busy), 1 terminals"),
        (["idle", "busy"], [], "idle", "2 kernels (1 busy), 0 terminals"),
        (["idle"], [], "idle", ""),
        (["starting"], [], "idle", "1 kernels (1 busy), 0 terminals"),
        (["busy"], [], "always", ""),
        ([], [], "never", "jupyter_restart is never"),
    ],
)
def test_a_server_is_restarted_only_where_nothing_is_lost(
    programs: dict[str, Any],
    kernels: list[str],
    terminals: list[str],
    policy: str,
    expected: str,
) -> None:
    module = programs["services"]

    class Fake(module.Server):  # type: ignore[misc, name-defined]
        def get(self, path: str) -> Any:
            if path == "/api/kernels":
                return [{"execution_state": state} for state in kernels]
            return terminals

    server = Fake(*([None] * 7))
    assert server.in_use(policy) == expected


def test_the_keeper_goes_where_the_python_is_new_enough(
    programs: dict[str, Any], tmp_path: Path
) -> None:
    with_keeper = programs["release"].with_keeper
    config: dict[str, Any] = {
        "lock": "stock",
        "wheels": ["/a.whl"],
        "keeper": {"wanted": True, "lock": "kept", "wheel": "k.whl", "content": "/wA="},
    }
    notes: list[str] = []
    kept = tmp_path / "k.whl"
    assert with_keeper(config, (3, 11), notes, tmp_path) == ("kept", [Path("/a.whl"), kept])
    assert kept.read_bytes() == b"\xff\x00"
    assert notes == []
    assert with_keeper(config, (3, 10), notes, tmp_path) == ("stock", [Path("/a.whl")])
    assert "needs Python 3.11" in notes[0]
    config["keeper"]["wanted"] = False
    assert with_keeper(config, (3, 13), notes, tmp_path)[0] == "stock"


def test_the_wheel_that_travels_is_the_package() -> None:
    source = ROLES.parent / "packages" / "jupyter-keeper"
    (wheel,) = (ROLES / "jupyter" / "files").glob("jupyter_keeper-*.whl.base64")
    modules = {
        f"jupyter_keeper/{path.relative_to(source / 'src' / 'jupyter_keeper')}": path.read_bytes()
        for path in (source / "src" / "jupyter_keeper").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(wheel.read_bytes()))) as archive:
        packed = {n: archive.read(n) for n in archive.namelist() if n.startswith("jupyter_keeper/")}
        pages = {n: archive.read(n) for n in archive.namelist() if "/labextensions/" in n}
        metadata = next(archive.read(n) for n in archive.namelist() if n.endswith("/METADATA"))
    assert packed == modules, "run tools/keeper_wheel.sh"
    assert pages
    for name, content in pages.items():
        file = source / "labextension" / name.split("/labextensions/jupyter-keeper/")[1]
        assert content == file.read_bytes(), name
    version = re.search(rb"^Version: (.*)$", metadata, re.MULTILINE)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    assert version is not None and version[1].decode() == project["version"]
    assert wheel.stem == f"jupyter_keeper-{project['version']}-py3-none-any.whl"
    variables = (ROLES / "jupyter" / "vars" / "main.yml").read_text()
    assert f"__jupyter_keeper_wheel: {wheel.stem}\n" in variables
