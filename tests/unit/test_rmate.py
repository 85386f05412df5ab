"""The command rmate against an editor on a socket: open, save, close, and what goes wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmate_editor import Editor

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "rmate" / "files" / "rmate.py"


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(20)
        yield Editor(listener)


def start(
    tmp_path: Path, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    where = {"HOME": str(tmp_path), "RMATE_SOCKET": str(tmp_path / "s"), "RMATE_PORT": "1"}
    env = {**os.environ, **where, **(env or {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, str(PROGRAM), *words], env=env, **pipes)  # type: ignore[call-overload]
    if stdin is not None:
        child.stdin.write(stdin)
        child.stdin.close()
    return child  # type: ignore[no-any-return]


def test_a_file_is_opened_saved_and_closed(editor: Editor, tmp_path: Path) -> None:
    file = tmp_path / "ä b.txt"
    file.write_bytes(b"old\n")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    with start(tmp_path, "--wait", "--line", "7", str(link)) as child:
        editor.accept()
        fields, data = editor.opened[0]
        assert data == b"old\n"
        assert fields["real-path"] == fields["token"] == str(file)
        assert fields["selection"] == "7"
        assert fields["data-on-save"] == "yes"
        assert fields["display-name"] == f"{socket.gethostname()}:{link}"
        editor.save(str(file), b"save\ntoken: x\n\nclose\n")  # a text like the protocol's own
        editor.save(str(file), b"new\n")
        editor.close(str(file))
        assert child.wait(20) == 0
    assert file.read_bytes() == b"new\n"
    assert link.is_symlink()
    assert oct(file.stat().st_mode)[-3:] == "640"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "s", "ä b.txt"]


def test_a_file_with_two_names_keeps_both(editor: Editor, tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("old")
    other.hardlink_to(file)
    with start(tmp_path, "-w", str(file)) as child:
        editor.accept()
        editor.save(str(file), b"new")
        editor.close(str(file))
        assert child.wait(20) == 0
    assert other.read_text() == "new"
    assert not (tmp_path / "a~").exists()


def test_two_files_and_a_new_one(editor: Editor, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"\0\xff")
    with start(tmp_path, "-w", str(first), str(second)) as child:
        editor.accept()
        assert [data for _, data in editor.opened] == [b"\0\xff", b""]
        editor.close(str(first))
        editor.save(str(second), b"made")
        editor.close(str(second))
        assert child.wait(20) == 0
    assert second.read_bytes() == b"made"


def test_the_prompt_comes_back_and_the_editor_goes_on(editor: Editor, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    with start(tmp_path, str(file)) as child:
        editor.accept()
        assert child.wait(20) == 0
        assert child.stdout is not None
        assert child.stdout.read() == b""  # nobody holds the terminal any more
    editor.save(str(file), b"new")
    editor.close(str(file))
    assert editor.stream.read() == b""  # it has ended
    assert file.read_text() == "new"


def test_a_pipe_goes_through_the_editor(editor: Editor, tmp_path: Path) -> None:
    with start(tmp_path, "-", stdin=b"in") as child:
        editor.accept()
        assert editor.opened[0][1] == b"in"
        editor.save("-", b"out")
        editor.close("-")
        assert child.stdout is not None
        assert child.stdout.read() == b"out"


def test_half_a_file_is_never_saved(editor: Editor, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    with start(tmp_path, "-w", str(file)) as child:
        editor.accept()
        editor.say(b"save\ntoken: %s\ndata: 100\nhalf" % str(file).encode())
        editor.stream.close()
        editor.link.shutdown(socket.SHUT_RDWR)
        assert child.wait(20) == 0
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "said"),
    [("f", "no editor answers"), (".", "is a folder"), ("missing/f", "cannot be written")],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "f").touch()
    if name == "missing/f":
        (tmp_path / "missing").touch()
    with start(tmp_path, str(tmp_path / name)) as child:
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (1, b"")
    assert err.decode().startswith("rmate: ") and said in err.decode()
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("stranger", [False, True])
def test_the_editor_of_somebody_else_is_sent_nothing(tmp_path: Path, *, stranger: bool) -> None:
    """A port belongs to whoever listens there first; a person's own is taken."""
    (tmp_path / "f").write_text("private")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            # Accepted with the rights of a user, as the sshd of a login does.
            if stranger:
                os.seteuid(65534)
            link, _ = listener.accept()
            link.sendall(b"An Editor 1.0\n")
            link.settimeout(20)
            os._exit(1 if link.recv(1) else 0)
        port = listener.getsockname()[1]
        env = {**os.environ, "HOME": str(tmp_path), "RMATE_PORT": str(port)}
        argv = [sys.executable, str(PROGRAM), "-w", str(tmp_path / "f")]
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, check=False, timeout=30
        )
        _, status = os.waitpid(child, 0)
    assert (os.waitstatus_to_exitcode(status) == 1) is not stranger
    assert ("somebody else (user 65534)" in done.stderr) is stranger


def test_a_socket_that_leads_nowhere_is_passed_over(tmp_path: Path) -> None:
    file, left_over = tmp_path / "f", tmp_path / "s"
    file.write_text("old")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left_over))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        editor = Editor(listener)
        env = {"RMATE_PORT": str(listener.getsockname()[1])}
        with start(tmp_path, "-w", str(file), env=env) as child:
            editor.accept()
            editor.save(str(file), b"new")
            editor.close(str(file))
            assert child.wait(20) == 0
    assert file.read_text() == "new"
