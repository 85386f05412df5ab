"""The role python on real boxes: environments, kernels, and what goes wrong with either."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli import ROOST, roost
from roles import Outcome, wait_for
from test_howto import steps
from workbench import as_person, play, provision, root, small_disk, tunnel

from boxes import LiveBox, exec_in
from roost import process
from roost.content import role_defaults

pytestmark = [pytest.mark.box]

ENVS = "/opt/roost/envs"
KERNELS = "/usr/local/share/jupyter/kernels"
UV = "/opt/roost/uv/bin/uv"
# What the role base sets for everybody: the box's own trust store.
TRUST = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def bench(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("kernels-debian-12", provision, os="debian:12")


@pytest.fixture
def bare(shared_box: Callable[..., LiveBox]) -> LiveBox:
    return shared_box("bare-debian-13", give_python, os="debian:13")


def give_python(box: LiveBox) -> None:
    get = "apt-get update -q && apt-get install -q -y python3 python3-apt"
    root(box, get, timeout=300)


def want(box: LiveBox, *environments: dict[str, Any], words: tuple[str, ...] = ()) -> Outcome:
    """Run the role with these environments; those of other tests stay as they are."""
    return play(box, ["python"], *words, python_environments=list(environments))


def installed(box: LiveBox, path: str) -> dict[str, str]:
    text = root(box, f"{UV} pip list --quiet --format json --python {path}/bin/python")
    return {package["name"]: package["version"] for package in json.loads(text)}


def kernel(box: LiveBox, folder: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(root(box, f"cat {folder}/kernel.json"))
    return spec


def test_second_run_and_check_find_nothing_to_do(bench: LiveBox) -> None:
    twin = {"name": "twin", "requirements": ["six"], "exact": True}
    mine = {"name": "mine", "owner": "ann", "requirements": ["six>=1.16"]}
    foretold = want(bench, twin, mine, words=("--check",))
    assert foretold.returncode == 0, foretold.text
    assert foretold.changed == ["Bring uv, the environments and their kernels in order"]
    assert "twin" not in root(bench, f"ls {ENVS}")
    assert want(bench, twin, mine).returncode == 0
    for again in (want(bench, twin, mine), want(bench, twin, mine, words=("--check",))):
        assert (again.returncode, again.changed) == (0, []), again.text
    owner = root(
        bench, "stat -c %U /home/ann/.venvs/mine /home/ann/.local/share/jupyter/kernels/mine"
    )
    assert owner.split() == ["ann", "ann"]


def test_one_error_for_each_environment_and_the_others_done(bench: LiveBox) -> None:
    root(bench, "mkdir -p /opt/roost/envs/occupied && touch /opt/roost/envs/occupied/thesis")
    done = want(
        bench,
        {"name": "unsolvable", "requirements": ["six==99"]},
        {"name": "unknown", "requirements": ["no-such-package-of-anybody"]},
        {"name": "ancient", "python": "3.99"},
        {"name": "indexless", "requirements": ["idna"], "indexes": [
            {"name": "down", "url": "http://127.0.0.1:9/simple"}]},
        {"name": "occupied"},
        {"name": "whose", "owner": "nobody-we-know"},
        {"name": "projectless", "project": {"path": "/srv/nothing"}},
        {"name": "fine", "requirements": ["six"]},
    )  # fmt: skip
    assert done.returncode == 2
    errors = {text.split(":", 1)[0]: text for text in ast.literal_eval(done.failed[0])}
    assert list(errors) == [
        "unsolvable", "unknown", "ancient", "indexless", "occupied", "whose", "projectless"
    ]  # fmt: skip
    assert "six==99" in errors["unsolvable"] and "correct `requirements`" in errors["unsolvable"]
    assert "no-such-package-of-anybody" in errors["unknown"]
    assert "Python 3.99 cannot be had" in errors["ancient"]
    assert "the package archive has no python3.99" in errors["ancient"]
    assert "127.0.0.1:9" in errors["indexless"] and "--" in errors["indexless"]
    assert "not a virtual environment" in errors["occupied"]
    assert "no user nobody-we-know" in errors["whose"]
    assert "no pyproject.toml" in errors["projectless"]
    assert "Traceback" not in done.text
    assert "six" in installed(bench, f"{ENVS}/fine")
    assert root(bench, "ls /opt/roost/envs/occupied") == "thesis\n"
    # The inventory is corrected: the next run finishes the job.
    rest = want(bench, {"name": "unsolvable", "requirements": ["six"]})
    assert rest.returncode == 0, rest.text
    assert "six" in installed(bench, f"{ENVS}/unsolvable")


def test_a_full_disk_is_said_and_the_next_run_finishes(bench: LiveBox) -> None:
    big = {"name": "big", "owner": "bob", "requirements": ["idna"]}
    with small_disk(bench, "/home/bob/.venvs", "300k"):
        root(bench, "chown bob: /home/bob/.venvs")
        done = want(bench, big)
        assert done.returncode == 2
        assert "free some space" in done.text
    root(bench, "chown bob: /home/bob/.venvs")
    assert want(bench, big).returncode == 0
    assert "idna" in installed(bench, "/home/bob/.venvs/big")


def test_what_a_person_added_stays_unless_exact(bench: LiveBox) -> None:
    mine = {"name": "handmade", "owner": "ann", "requirements": ["six"]}
    assert want(bench, mine).returncode == 0
    add = f"{UV} pip install -q --python ~/.venvs/handmade/bin/python idna"
    as_person(bench, "ann", f"{TRUST} {add}")
    assert want(bench, mine).changed == []
    assert "idna" in installed(bench, "/home/ann/.venvs/handmade")
    exact = want(bench, mine | {"exact": True})
    assert exact.changed == ["Bring uv, the environments and their kernels in order"]
    left = installed(bench, "/home/ann/.venvs/handmade")
    assert "idna" not in left and {"six", "ipykernel"} <= set(left)


@pytest.mark.parametrize(
    "damage",
    ["ln -sfn /usr/bin/python3.98 {0}/bin/python", "mv {0}/lib/python3* {0}/lib/python3.98"],
    ids=["interpreter gone", "made for another version"],
)
def test_a_venv_that_an_upgrade_broke_is_rebuilt(bench: LiveBox, damage: str) -> None:
    path = "/home/bob/.venvs/broken"
    mine = {"name": "broken", "owner": "bob", "requirements": ["six"]}
    assert want(bench, mine).returncode == 0
    add = f"{UV} pip install -q --python {path}/bin/python idna==3.7"
    as_person(bench, "bob", f"{TRUST} {add}")
    as_person(bench, "bob", damage.format(path))

    done = want(bench, mine)
    assert done.returncode == 0, done.text
    assert "broken: rebuilt" in done.text
    packages = installed(bench, path)
    assert {"six", "ipykernel"} <= set(packages)
    assert packages["idna"] == "3.7"  # what its owner had added is back too
    assert want(bench, mine).changed == []
    assert root(bench, "ls -A /home/bob/.venvs | grep before", check=False) == ""


# An index that asks for a password, and has one package.
INDEX = """
import base64, http.server, pathlib, sys, zipfile
wheel = pathlib.Path("/srv/index/kept_secret-1.0-py3-none-any.whl")
wheel.parent.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(wheel, "w") as z:
    z.writestr("kept_secret.py", "value = 1")
    info = "kept_secret-1.0.dist-info"
    z.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: kept-secret\\nVersion: 1.0\\n")
    z.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    z.writestr(info + "/RECORD", "")
wanted = "Basic " + base64.b64encode(b"reader:" + sys.argv[1].encode()).decode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path.endswith(".whl") or self.path == "/simple/kept-secret/"
        code = 401 if self.headers.get("Authorization") != wanted else 200 if known else 404
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if code == 200:
            page = b'<a href="/files/%s">w</a>' % wheel.name.encode()
            self.wfile.write(wheel.read_bytes() if self.path.endswith(".whl") else page)
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8765), Handler).serve_forever()
"""


def test_the_password_of_an_index_lands_nowhere(bench: LiveBox) -> None:
    password = "cuckoo" + "clock"  # as one word it is nowhere but in the variable
    exec_in(bench, ["tee", "/srv/index.py"], input=INDEX)
    unit = ["systemd-run", "--quiet", "--collect", "--unit=test-index"]
    exec_in(bench, ["systemctl", "stop", "test-index"], check=False)
    exec_in(bench, [*unit, "python3", "/srv/index.py", password])
    knock = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8765"]
    wait_for(lambda: exec_in(bench, knock, check=False).returncode == 0, "the index")
    index = {"name": "corp", "url": "http://127.0.0.1:8765/simple", "username": "reader"}
    mine = {"name": "secretive", "requirements": ["kept-secret"], "owner": "ann"}

    refused = want(bench, mine | {"indexes": [index | {"password": "wrong" + password}]})
    assert refused.returncode == 2
    assert "check username and password" in refused.text

    done = want(bench, mine | {"indexes": [index | {"password": password}]}, words=("-vvv",))
    assert done.returncode == 0, done.text
    assert "kept-secret" in installed(bench, "/home/ann/.venvs/secretive")
    assert password not in done.text + refused.text
    exec_in(bench, ["systemctl", "stop", "test-index"])
    # The index's own command line is in the journal, as that of systemd-run; nothing else is.
    places = "/opt/roost /home /root /var/log /var/cache /etc /tmp /run/roost-jupyter"
    found = root(bench, f"grep -rl --exclude-dir=journal {password} {places} || true", timeout=120)
    assert found == ""
    assert password not in root(
        bench, "journalctl --no-pager -t python3 -t sudo -t sshd -t ansible"
    )


def test_an_address_with_a_password_is_refused_before_anything_runs(bench: LiveBox) -> None:
    index = {"name": "corp", "url": "https://reader:letmein@example.invalid/simple"}
    done = want(bench, {"name": "careless", "indexes": [index]})
    assert done.returncode == 2
    assert "beside url" in done.text


def test_kernels_say_their_name_folder_and_variables(bench: LiveBox) -> None:
    root(bench, "mkdir -p /srv/data")
    settings = {
        "name": "nlp-gpu",
        "display_name": "NLP (GPU 1)",
        "cwd": "/srv/data",
        "env": {"CUDA_VISIBLE_DEVICES": "1"},
    }
    assert want(bench, {"name": "nlp", "kernel": settings}).returncode == 0
    with tunnel(bench, "bob") as server:
        assert server.kernelspecs()["nlp-gpu"] == "NLP (GPU 1)"
        with server.kernel("nlp-gpu") as running:
            code = (
                "import os, sys; print(sys.prefix, os.getcwd(), os.environ['CUDA_VISIBLE_DEVICES'])"
            )
            assert running.execute(code).text == f"{ENVS}/nlp /srv/data 1\n"
            # What a cell calls is the environment's own.
            assert running.execute("!python -c 'import sys; print(sys.prefix)'").text.split() == [
                f"{ENVS}/nlp"
            ]
    renamed = want(bench, {"name": "nlp", "kernel": {"name": "nlp-cpu"}})
    assert renamed.returncode == 0
    assert root(bench, f"ls {KERNELS}").split().count("nlp-cpu") == 1
    assert "nlp-gpu" not in root(bench, f"ls {KERNELS}")
    gone = want(bench, {"name": "nlp", "state": "absent"})
    assert gone.returncode == 0
    assert "nlp" not in root(bench, f"ls {KERNELS} {ENVS}")
    assert want(bench, {"name": "nlp", "state": "absent"}).changed == []


def test_somebody_elses_kernel_is_left_alone_and_dangling_ones_are_reported(
    bench: LiveBox,
) -> None:
    theirs = '{"argv": ["/srv/gone/bin/python"], "display_name": "Theirs", "language": "python"}'
    root(bench, f"mkdir -p {KERNELS}/theirs && echo '{theirs}' >{KERNELS}/theirs/kernel.json")
    done = want(bench, {"name": "theirs"})
    assert done.returncode == 2
    assert "somebody else" in done.text
    assert kernel(bench, f"{KERNELS}/theirs")["display_name"] == "Theirs"
    reported = want(bench, {"name": "default", "kernel": {
        "name": "python3", "display_name": "Python 3 (roost)"}})  # fmt: skip
    assert reported.returncode == 0
    assert "theirs is dangling: /srv/gone/bin/python is gone" in reported.text
    root(bench, f"rm -r {KERNELS}/theirs {ENVS}/theirs")


def test_one_command_registers_an_environment_made_by_hand(bench: LiveBox) -> None:
    as_person(
        bench,
        "bob",
        f"{TRUST} uv venv -q --clear ~/papers/paper && mkdir -p ~/papers/paper/conda-meta",
    )
    registered = as_person(
        bench, "bob", f"{TRUST} roost-kernel add ~/papers/paper --display-name Paper"
    )
    assert "ipykernel was missing there" in registered.stdout
    with tunnel(bench, "bob") as server:
        assert server.kernelspecs()["paper"] == "Paper"
        with server.kernel("paper") as running:
            code = "import os; print(os.environ['CONDA_PREFIX'])"
            assert running.execute(code).text == "/home/bob/papers/paper\n"
    listed = json.loads(as_person(bench, "bob", "roost-kernel list --json").stdout)
    assert [k["dangling"] for k in listed if k["name"] == "paper"] == [False]

    as_person(bench, "bob", "rm -r ~/papers/paper")
    assert "DANGLING" in as_person(bench, "bob", "roost-kernel list").stdout
    assert as_person(bench, "bob", "roost-kernel remove paper").returncode == 0
    for wrong in (
        "roost-kernel remove paper",
        "roost-kernel add /etc",
        "roost-kernel add ~/nothing",
    ):
        refused = as_person(bench, "bob", wrong, check=False)
        assert refused.returncode == 1
        assert re.match(r"roost-kernel: \S+ .*", refused.stderr)
    assert as_person(bench, "bob", "roost-kernel add --everybody ~/x", check=False).returncode == 1


def test_the_near_side_registers_lists_and_removes_a_kernel(bench: LiveBox) -> None:
    as_person(bench, "debian", f"{TRUST} uv venv -q --clear ~/papers/near")
    add = ("kernel", "add", bench.name, "~/papers/near", "--display-name", "Near side")
    refused = roost(bench, *add, "--no-install")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/home/debian/papers/near/bin/python has no ipykernel" in refused.stderr
    (fix,) = re.findall(r"fix: on box: install it: (.*)", refused.stderr)
    as_person(bench, "debian", f"{TRUST} {fix}")
    added = roost(bench, *add, "--no-install", "--cwd", "/srv", "--env", "TITLE=a b")
    assert added.returncode == 0, added.stderr
    with tunnel(bench, "debian") as server:
        assert server.kernelspecs()["near"] == "Near side"
        with server.kernel("near") as running:
            code = "import os, sys; print(sys.prefix, os.getcwd(), os.environ['TITLE'])"
            assert running.execute(code).text == "/home/debian/papers/near /srv a b\n"

    shared = roost(bench, *add, "--everybody", "--name", "for-all")
    assert shared.returncode == 0, shared.stderr
    assert kernel(bench, f"{KERNELS}/for-all")["display_name"] == "Near side"
    listed = json.loads(roost(bench, "kernel", "list", bench.name, "--json").stdout)
    names = {k["name"]: k for k in listed}
    assert names["near"]["roost"] and not names["near"]["dangling"]
    as_person(bench, "debian", "rm -r ~/papers/near")
    table = roost(bench, "kernel", "list", bench.name).stdout.splitlines()
    assert [line.split()[0] for line in table if "dangling" in line] == ["near", "for-all"]
    for words in (("near",), ("for-all", "--everybody")):
        gone = roost(bench, "kernel", "remove", bench.name, *words)
        assert gone.returncode == 0, gone.stderr
        assert roost(bench, "kernel", "remove", bench.name, *words).returncode == 1
    nowhere = roost(bench, *add)
    assert nowhere.returncode == 1 and "there is no /home/debian/papers/near" in nowhere.stderr


def test_conda_environments_are_found_where_they_are_noted(bench: LiveBox) -> None:
    made = (
        "for n in one two; do uv venv -q --clear ~/conda/$n && mkdir -p ~/conda/$n/conda-meta; done"
    )
    noted = "printf '%s\\n' ~/conda/one ~/conda/two ~/conda/gone >~/.conda/environments.txt"
    as_person(bench, "debian", f"export {TRUST}; {made}; mkdir -p ~/.conda; {noted}")
    added = roost(bench, "kernel", "add", bench.name, "--conda")
    assert added.returncode == 0, added.stderr
    assert [line.split(":")[0] for line in added.stdout.splitlines()] == [
        "kernel one",
        "kernel two",
    ]
    with tunnel(bench, "debian") as server, server.kernel("two") as running:
        code = "import os, sys; print(sys.prefix, os.environ['CONDA_PREFIX'])"
        assert running.execute(code).text.split() == ["/home/debian/conda/two"] * 2
    # Those that cannot be registered are named; they keep none of the others from it.
    as_person(
        bench,
        "debian",
        f"export {TRUST}; uv venv -q --clear ~/more/two; uv venv -q --clear ~/conda/three; "
        "printf '%s\\n' ~/more/two ~/conda/three >>~/.conda/environments.txt",
    )
    partly = roost(bench, "kernel", "add", bench.name, "--conda")
    assert partly.returncode == 1
    assert "1 of 4 conda environments could not be registered" in partly.stderr
    taken = "the kernel two is {0}/conda/two/bin/python, not {0}/more/two/bin/python"
    assert taken.format("/home/debian") in partly.stderr
    as_person(bench, "debian", "roost-kernel add ~/more/two --name another-two")
    found = json.loads(roost(bench, "kernel", "list", bench.name, "--json").stdout)
    ours = {k["name"]: k["interpreter"].removeprefix("/home/debian/") for k in found}
    wanted = {"two": "conda/two", "three": "conda/three", "another-two": "more/two"}
    assert {name: ours[name] for name in wanted} == {n: f"{wanted[n]}/bin/python" for n in wanted}
    for name in ("one", "two", "three", "another-two"):
        assert roost(bench, "kernel", "remove", bench.name, name).returncode == 0
    as_person(bench, "debian", "rm -r ~/conda ~/more ~/.conda")
    assert "no conda environment" in roost(bench, "kernel", "add", bench.name, "--conda").stderr


def test_the_how_to_page_can_be_followed(bench: LiveBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(ROOST).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ROOST_WORKSPACE", str(bench.workspace.root))
    for step in steps("howto/notebooks.md"):
        for line in step.text.splitlines():
            done = process.run(
                ["bash", "-c", line.replace("gpu1", bench.name)], check=False, timeout=120
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_a_box_without_the_role_is_told_which_command_brings_it(bench: LiveBox) -> None:
    root(bench, "mv /usr/local/bin/roost-kernel /usr/local/bin/aside")
    try:
        refused = roost(bench, "kernel", "list", bench.name)
    finally:
        root(bench, "mv /usr/local/bin/aside /usr/local/bin/roost-kernel")
    assert refused.returncode == 1
    assert "roost-kernel is not on box" in refused.stderr
    assert "fix: roost up box --tags python" in refused.stderr


PROJECT = """
[project]
name = "thesis"
version = "1"
requires-python = ">=3.10"
dependencies = ["six"]
[project.optional-dependencies]
plots = ["idna"]
[dependency-groups]
dev = ["iniconfig"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


def test_a_checkout_with_and_without_a_lock_file(bench: LiveBox) -> None:
    for name in ("locked", "loose"):
        as_person(
            bench, "ann", f"mkdir -p ~/src/{name}/thesis; touch ~/src/{name}/thesis/__init__.py"
        )
        exec_in(bench, ["tee", f"/home/ann/src/{name}/pyproject.toml"], input=PROJECT)
        root(bench, f"chown -R ann: /home/ann/src/{name}")
    pin = "uv lock -q --upgrade-package six==1.16.0 --upgrade-package idna==3.6"
    as_person(bench, "ann", f"cd ~/src/locked && {TRUST} {pin}")
    projects = [
        {"name": name, "owner": "ann", "project": {
            "path": f"~/src/{name}", "extras": ["plots"], "groups": ["dev"]}}
        for name in ("locked", "loose")
    ]  # fmt: skip
    done = want(bench, *projects)
    assert done.returncode == 0, done.text
    locked, loose = (installed(bench, f"/home/ann/.venvs/{n}") for n in ("locked", "loose"))
    assert (locked["six"], locked["idna"]) == ("1.16.0", "3.6")
    for found in (locked, loose):
        assert {"thesis", "six", "idna", "iniconfig", "ipykernel"} <= set(found)
    for name in ("locked", "loose"):
        said = as_person(
            bench, "ann", f"~/.venvs/{name}/bin/python -c 'import thesis as t; print(t.__file__)'"
        )
        assert said.stdout == f"/home/ann/src/{name}/thesis/__init__.py\n"
    assert want(bench, *projects).changed == []


def test_a_lock_file_of_the_controlling_side(bench: LiveBox) -> None:
    lock = bench.workspace.root / "env.lock"
    compiling = f"{TRUST} uv pip compile --quiet --generate-hashes --no-header -"
    made = as_person(bench, "ann", f"echo six==1.16.0 | {compiling}")
    lock.write_text(made.stdout)
    done = want(bench, {"name": "pinned", "lock": str(lock)})
    assert done.returncode == 0, done.text
    assert installed(bench, f"{ENVS}/pinned")["six"] == "1.16.0"
    lock.write_text(re.sub("sha256:....", "sha256:0000", made.stdout))
    forged = want(bench, {"name": "forged", "lock": str(lock)})
    assert forged.returncode == 2
    assert "hash" in forged.text.lower()


REPOSITORY = """
set -eu
git init -q -b main ~/made && cd ~/made
git config user.name Ann && git config user.email ann@example.invalid
mkdir thesis && touch thesis/__init__.py && cp ~/pyproject.toml .
git add . && git commit -q -m first && git tag v1
sed -i 's/"six"/"six", "idna"/' pyproject.toml && git commit -q -a -m second
"""


def test_a_repository_is_cloned_where_its_checkout_is_missing(bench: LiveBox) -> None:
    exec_in(bench, ["tee", "/home/ann/pyproject.toml"], input=PROJECT)
    as_person(bench, "ann", REPOSITORY)
    project = {"path": "~/clones/v1", "git": "file:///home/ann/made", "version": "v1"}
    first = {"name": "cloned", "owner": "ann", "project": project}
    foretold = want(bench, first, words=("--check",))
    assert (foretold.returncode, len(foretold.changed)) == (0, 1), foretold.text
    assert root(bench, "ls /home/ann/clones", check=False) == ""
    done = want(bench, first)
    assert done.returncode == 0, done.text
    packages = installed(bench, "/home/ann/.venvs/cloned")
    assert {"thesis", "six"} <= set(packages) and "idna" not in packages
    # From then on it is its owner's: neither their work nor the version is touched.
    as_person(bench, "ann", "cd ~/clones/v1 && git checkout -q main && echo mine >notes")
    assert want(bench, first).returncode == 0
    assert as_person(bench, "ann", "cat ~/clones/v1/notes").stdout == "mine\n"
    assert want(bench, first).changed == []

    lost = {"path": "~/clones/lost", "git": "file:///home/ann/nowhere"}
    failed = want(bench, {"name": "lost", "owner": "ann", "project": lost})
    assert failed.returncode == 2
    assert "file:///home/ann/nowhere cannot be cloned" in failed.text
    assert "see that ann may read it from the box" in failed.text
    open_secret = lost | {"git": "https://ann:letmein@example.invalid/x.git"}
    refused = want(bench, {"name": "lost", "owner": "ann", "project": open_secret})
    assert refused.returncode == 2 and "credential helper" in refused.text


def test_uv_comes_in_a_wheel_where_no_index_is_reached(bench: LiveBox) -> None:
    defaults = role_defaults("python")
    folder = bench.workspace.root / "wheels"
    fetch = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    process.run([sys.executable, *fetch, f"uv=={defaults['python_uv_version']}"], timeout=300)
    (wheel,) = folder.glob("uv-*.whl")
    root(bench, "rm -r /opt/roost/uv")
    offline = {"python_index_url": "http://127.0.0.1:9/simple", "python_environments": []}
    failed = play(bench, ["python"], **offline)
    assert failed.returncode == 2 and "uv: " in failed.failed[0], failed.text
    done = play(bench, ["python"], **offline, python_uv_wheel=str(wheel))
    assert done.returncode == 0, done.text
    assert root(bench, f"{UV} --version").split()[1] == defaults["python_uv_version"]
    assert play(bench, ["python"], **offline, python_uv_wheel=str(wheel)).changed == []


def test_undo_keeps_environments_and_kernels(bare: LiveBox) -> None:
    box = bare
    check = play(box, ["python"], "--check")
    assert check.returncode == 0, check.text
    assert root(box, "ls -A /opt /usr/local/bin") == "/opt:\n\n/usr/local/bin:\n"
    with small_disk(box, "/opt/roost", "1M"):
        full = play(box, ["python"])
    assert full.returncode == 2 and "free some space" in full.text, full.text
    assert play(box, ["python"]).returncode == 0
    assert play(box, ["python"]).changed == []
    undone = play(box, ["python"], python_state="absent")
    assert undone.returncode == 0, undone.text
    assert play(box, ["python"], python_state="absent").changed == []
    left = root(box, "ls -A /opt/roost /usr/local/bin; ls /usr/local/share/jupyter/kernels")
    assert left.split() == [
        "/opt/roost:", "bin", "envs", "/usr/local/bin:", "python3"
    ]  # fmt: skip


# Where the packages of the release before the box's own come from.
OLDER_SOURCES = """
older_sources() {
    if [ -s /etc/apt/sources.list ]; then
        sed 's/trixie/bookworm/g' /etc/apt/sources.list >"$1/older.list"
    else
        sed 's/trixie/bookworm/g' /etc/apt/sources.list.d/debian.sources >"$1/older.sources"
    fi
}
"""

# A Python that neither the box nor its archive has, in the form in which uv downloads one: that of
# the release before, which runs from any folder. The box's own apt learns nothing of it.
PACK = f"""
set -eu
{OLDER_SOURCES}
mkdir -p /srv/pythons/web /srv/pythons/sources /srv/pythons/lists/partial /srv/pythons/tree
cd /srv/pythons
older_sources sources
apt="apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/sources"
apt="$apt -o Dir::State::lists=$PWD/lists"
$apt update
$apt download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
for package in *.deb; do dpkg-deb --extract "$package" tree; done
rm tree/usr/lib/python3.11/sitecustomize.py
mkdir python && mv tree/usr/bin tree/usr/lib python
tar -czf web/python.tar.gz python
sha256sum web/python.tar.gz
"""


def listed(box: LiveBox, digest: str) -> str:
    """A list in the form of uv's own, with the packed Python alone."""
    machine = root(box, "uname -m").strip()
    return json.dumps({f"cpython-3.11.2-linux-{machine}-gnu": {
        "name": "cpython", "arch": {"family": machine, "variant": None}, "os": "linux",
        "libc": "gnu", "major": 3, "minor": 11, "patch": 2, "prerelease": "", "variant": None,
        "build": None, "url": "http://127.0.0.1:8766/python.tar.gz", "sha256": digest,
    }})  # fmt: skip


# A cell, computed without any JupyterLab, by who owns the kernel.
CELL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="offline")
shown = []
client.execute_interactive(
    "import sys; print(*sys.version_info[:2], sys.base_prefix)",
    output_hook=lambda message: shown.append(message["content"].get("text", "")), timeout=60)
client.stop_channels()
manager.shutdown_kernel(now=True)
print("".join(shown), end="")
"""


def test_uv_downloads_an_interpreter_that_a_list_of_ones_own_names(bare: LiveBox) -> None:
    box = bare
    digest = root(box, PACK, timeout=300).splitlines()[-1].split()[0]
    exec_in(box, ["systemd-run", "--quiet", "--collect", "--unit=test-pythons", "python3", "-m",
                  "http.server", "8766", "--bind", "127.0.0.1", "--directory",
                  "/srv/pythons/web"])  # fmt: skip
    knock = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8766"]
    wait_for(lambda: exec_in(box, knock, check=False).returncode == 0, "the server")

    mine = {"name": "offline", "owner": "debian", "python": "3.11"}
    wanted: dict[str, Any] = {"python_downloads_list": "http://127.0.0.1:8766/list.json"}
    place = ["tee", "/srv/pythons/web/list.json"]
    exec_in(box, place, input=listed(box, "0" * 64))
    failed = play(box, ["python"], **wanted, python_environments=[mine, {"name": "plain"}])
    assert failed.returncode == 2
    (error,) = ast.literal_eval(failed.failed[0])
    assert error.startswith("offline: Python 3.11 cannot be had: ")
    assert "Hash mismatch" in error and f"Computed: {digest}" in error
    assert "python_downloads_list" in error
    assert root(box, f"{ENVS}/plain/bin/python -c 'import ipykernel; print(1)'") == "1\n"

    exec_in(box, place, input=listed(box, digest))
    done = play(box, ["python"], **wanted, python_environments=[mine])
    assert done.returncode == 0, done.text
    exec_in(box, ["tee", "/srv/pythons/cell.py"], input=CELL)
    said = as_person(box, "debian", "~/.venvs/offline/bin/python /srv/pythons/cell.py").stdout
    assert re.fullmatch(r"3 11 /opt/roost/python/cpython-3\.11\S*\n", said), said

    # What is there already needs no server; what is not says which one was asked.
    exec_in(box, ["systemctl", "stop", "test-pythons"])
    more = [mine, {"name": "another", "python": "3.11"}, {"name": "other", "python": "3.10"}]
    unreached = play(box, ["python"], **wanted, python_environments=more)
    (error,) = ast.literal_eval(unreached.failed[0])
    assert error.startswith("other: ") and "http://127.0.0.1:8766/list.json" in error
    code = "import sys; print(*sys.version_info[:2])"
    assert root(box, f"{ENVS}/another/bin/python -c '{code}'") == "3 11\n"
    root(box, f"rm -r /opt/roost/python /srv/pythons {ENVS}/another {KERNELS}/another")


# A second release of the archive beside the box's own, as people add one for an older Python.
OLDER_ARCHIVE = f"""
set -eu
{OLDER_SOURCES}
older_sources /etc/apt/sources.list.d
apt-get update -q
"""


def test_an_interpreter_comes_from_the_archive_or_the_error_says_what_was_tried(
    bare: LiveBox,
) -> None:
    box = bare
    older = {"name": "older", "python": "3.11"}
    without: dict[str, Any] = {"python_downloads": False, "python_environments": [older]}
    failed = play(box, ["python"], **without)
    assert failed.returncode == 2
    assert "the package archive has no python3.11" in failed.text
    assert "downloads are off (python_downloads)" in failed.text
    down = {"python_downloads": True, "python_install_mirror": "http://127.0.0.1:9"}
    unreached = play(box, ["python"], **(without | down))
    assert unreached.returncode == 2 and "127.0.0.1:9" in unreached.text

    # The archive comes before a download, which is not even tried then.
    root(box, f"rm -r /opt/roost/python; {OLDER_ARCHIVE}", timeout=300)
    done = play(box, ["python"], **(without | down))
    assert done.returncode == 0, done.text
    assert root(box, "ls -d /opt/roost/python || true") == ""
    code = "import ipykernel, sys; print(*sys.version_info[:2], sys.base_prefix)"
    assert root(box, f"{ENVS}/older/bin/python -c '{code}'") == "3 11 /usr\n"
    assert kernel(box, f"{KERNELS}/older")["argv"][0] == f"{ENVS}/older/bin/python"
    assert play(box, ["python"], **without).changed == []
