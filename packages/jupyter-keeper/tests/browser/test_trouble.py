"""What people see when the notebook, its kernel or its server changes under a running cell."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import PurePath

import pytest
from lab import Lab
from remote import AS_ROOT
from support import TOKEN, Server, is_complete, lines, printing, printing_until

pytestmark = pytest.mark.browser

Open = Callable[..., Lab]


def ask(lab: Lab, method: str, path: str, body: dict[str, str] | None = None) -> None:
    """Do what the file browser of another page does."""
    url = f"{lab.server.url}/api/contents/{path}"
    headers = {"Authorization": f"token {TOKEN}"}
    answer = lab.page.request.fetch(url, method=method, headers=headers, data=body)
    assert answer.ok, answer.text()


def test_edited_on_disk_while_it_runs(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing_until(f"{name}.stop"), "'second'", name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait(lambda: "line 5\n" in server.saved_text(name=name))
    file = server.root / path

    def pulled() -> bool:
        text = file.read_text()
        # A save may come at the same time.
        if text.endswith("}\n") and "changed by git" not in text:
            content = json.loads(text)
            content["cells"][0]["outputs"] = []
            content["cells"][1]["source"] = "'changed by git'"
            file.write_text(json.dumps(content))
        return "changed by git" in lab.cell(1).inner_text()

    lab.wait(pulled)
    lab.wait_prompt("[*]:")
    (server.root / f"{name}.stop").touch()
    lab.wait_prompt("[1]:")
    lab.wait(lambda: is_complete(lab.text()))
    lab.wait(lambda: is_complete(server.saved_text(name=name)))
    lab.wait(lambda: "changed by git" in file.read_text())


def test_renamed_while_it_runs(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing_until(f"{name}.stop"), name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait_text("line 5\n")
    moved = f"moved-{name}"
    ask(lab, "PATCH", path, {"path": moved})
    seen = lab.text()
    lab.wait(lambda: len(lab.text()) > len(seen))
    (server.root / f"{name}.stop").touch()
    lab.wait_prompt("[1]:")
    lab.wait(lambda: is_complete(lab.text()))
    lab.wait(lambda: is_complete(server.saved_text(name=moved)))
    assert not (server.root / path).exists()
    other = open_lab(moved)
    other.wait(lambda: is_complete(other.text()))
    other.wait_prompt("[1]:")


def test_deleted_while_it_runs(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing_until(f"{name}.stop"), name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait_text("line 5\n")
    ask(lab, "DELETE", path)
    seen = lab.text()
    lab.wait(lambda: len(lab.text()) > len(seen))
    (server.root / f"{name}.stop").touch()
    lab.wait_prompt("[1]:")
    lab.wait(lambda: is_complete(lab.text()))
    assert not (server.root / path).exists()


def test_kernel_killed_while_nobody_is_there(server: Server, open_lab: Open, name: str) -> None:
    code = (
        "import os, pathlib, time\nprint('before', flush=True)\n"
        f"while not pathlib.Path('{name}.die').exists():\n    time.sleep(0.1)\n"
        "os.kill(os.getpid(), 9)"
    )
    path = server.notebook(code, "print('again')", name=name)
    first = open_lab(path)
    first.run()
    first.wait_text("before\n")
    first.close()
    (server.root / f"{name}.die").touch()
    second = open_lab(path)
    second.wait_text("The kernel died and was restarted while this cell was running.\n")
    assert second.prompt() != "[*]:"
    second.shot("kernel-died")
    second.run(1)
    second.wait_text("again\n", 1)
    second.wait_prompt("[1]:", 1)


def test_the_server_is_restarted_while_a_cell_runs(
    open_lab: Open, new_server: Callable[..., Server]
) -> None:
    """What was printed until then is kept; the kernel is not, and nothing runs any more."""
    server = new_server("--KeeperExtension.save_interval=1000")
    path = server.notebook(printing(count=100_000, pause=0.02))
    lab = open_lab(path, on=server)
    lab.run()
    lab.wait_text("line 20\n")
    lab.close()
    server.stop()
    kept = server.saved_text()
    assert kept.startswith(lines(20))
    server.start()
    lab = open_lab(path, on=server)
    lab.wait(lambda: lab.text().startswith(lines(20)))
    assert lab.prompt() != "[*]:"
    lab.run()
    lab.wait_prompt("[*]:")
    lab.wait(lambda: lab.text().startswith(lines(5)))


@pytest.fixture
def small_disk() -> Iterator[Callable[[PurePath], None]]:
    """Puts a file system of a few megabytes on a folder."""
    mounted: list[PurePath] = []

    def mount(folder: PurePath) -> None:
        command = [*AS_ROOT, "mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount here, only test_server.py has this: {done.stderr!r}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run([*AS_ROOT, "umount", "--lazy", str(folder)], check=True)


def test_the_disk_is_full_while_a_cell_runs(
    small_disk: Callable[[PurePath], None], new_server: Callable[..., Server], open_lab: Open
) -> None:
    server = new_server("--KeeperExtension.save_interval=0.5")
    small_disk(server.root)
    path = server.notebook(printing_until("stop"))
    lab = open_lab(path, on=server)
    lab.run()
    lab.wait_text("line 5\n")
    filler = server.root / "filler"
    full = server.run("dd", "if=/dev/zero", f"of={filler}", "bs=4096")
    assert "No space left" in full.stderr
    lab.wait(lambda: "No space left" in server.log.read_text())
    seen = lab.text()
    lab.wait(lambda: len(lab.text()) > len(seen))
    lab.shot("disk-full")
    server.run("rm", str(filler))
    (server.root / "stop").touch()
    lab.wait_prompt("[1]:")
    lab.wait(lambda: is_complete(lab.text()))
    lab.wait(lambda: is_complete(server.saved_text()))


def test_a_quiet_time_then_output(open_lab: Open, new_server: Callable[..., Server]) -> None:
    """All clocks of the server brought forward: what takes half an hour takes seconds."""
    server = new_server(
        "--MappingKernelManager.cull_idle_timeout=8", "--MappingKernelManager.cull_interval=1",
        "--ServerApp.websocket_ping_interval=1000", "--YDocExtension.file_poll_interval=0.2",
        "--YDocExtension.document_cleanup_delay=1",
    )  # fmt: skip
    path = server.notebook(printing(count=40, pause=0.1) + "\ntime.sleep(16); print('late')")
    lab = open_lab(path, on=server)
    lab.run()
    lab.wait_text("line 3\n")
    lab.close()
    deadline = time.monotonic() + 90
    while "late" not in server.saved_text():
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        time.sleep(0.2)
    # The kernel may have been stopped meanwhile: now it is idle.
    lab = open_lab(path, on=server, kernel=False)
    lab.wait(lambda: lab.text() == lines(40) + "late\n")
