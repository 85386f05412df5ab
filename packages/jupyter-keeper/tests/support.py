"""A real server, and a client that does what a JupyterLab page does, without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from jupyter_ydoc import YNotebook
from pycrdt import Doc, create_sync_message, create_update_message, handle_sync_message
from relay import Link, Relay
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

TOKEN = secrets.token_hex(16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lines(count: int) -> str:
    """What a cell with ``printing(count)`` prints."""
    return "".join(f"line {number}\n" for number in range(count))


def printing(count: int, pause: float) -> str:
    """Code that prints lines, with a pause of so many seconds after each."""
    return (
        f"import time\nfor i in range({count}):\n"
        f"    print('line', i, flush=True)\n    time.sleep({pause})"
    )


def printing_until(flag: str) -> str:
    """Code that prints lines until the file ``flag`` is there, then how many they were."""
    return (
        "import itertools, pathlib, time\nfor i in itertools.count():\n"
        "    print('line', i, flush=True)\n    time.sleep(0.1)\n"
        f"    if pathlib.Path({flag!r}).exists():\n        break\nprint('total', i + 1)"
    )


def flooding(count: int) -> str:
    """Code that prints ``count`` numbered lines of about 100 bytes as fast as it can."""
    return (
        f"for first in range(0, {count}, 1000):\n"
        "    print('\\n'.join(f'{i} ' + 'x' * 92 for i in range(first, first + 1000)))"
    )


def is_complete(text: str) -> bool:
    """Whether that is all that ``printing_until`` prints, each line once and in order."""
    *shown, total = text.rstrip("\n").split("\n")
    expected = [f"line {number}" for number in range(len(shown))]
    return shown == expected and total == f"total {len(shown)}"


class Server:
    """A JupyterLab server in ``folder``, with nothing of the user's configuration.

    ``place`` is what its files lie in where that is on another machine, as a path there.
    """

    token = TOKEN
    python = sys.executable

    def __init__(self, folder: Path, *options: str, keeper: bool = True, place: Any = None) -> None:
        self.folder = place or folder
        self.root = self.folder / "notebooks"
        self.root.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = folder / "server.log"
        self._options = [
            f"--ServerApp.jpserver_extensions={{'jupyter_keeper': {keeper}}}",
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        settings = {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_TOKEN": TOKEN,
        }
        command = [
            self.python, "-m", "jupyterlab", "--no-browser",
            f"--ServerApp.root_dir={self.root}",
            f"--SQLiteYStore.db_path={home / 'store.db'}",
            "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            *self._options,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = self._launch(command, settings, log)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api", timeout=10).close()
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise AssertionError(self.log.read_text()) from None
                time.sleep(0.05)

    def _launch(
        self, command: list[str], settings: dict[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        inherited = {n: value for n, value in os.environ.items() if not n.startswith("JUPYTER")}
        path = f"{Path(self.python).parent}:{os.environ['PATH']}"
        listen = [f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--allow-root"]
        return subprocess.Popen(
            [*command, *listen], cwd=self.folder, env=inherited | settings | {"PATH": path},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        process.send_signal(number)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            process.wait(60)
            raise AssertionError(f"does not stop: {self.log.read_text()[-4000:]}") from None

    def close(self) -> None:
        """Stop it, for good."""
        self.stop()

    def link(self) -> Link:
        """Another way to the server, which can be broken."""
        return Relay(self.port)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the server's machine."""
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def notebook(self, *sources: str, name: str = "nb.ipynb") -> str:
        """Write a notebook with these code cells; its path for the API."""
        stem = name.split(".", maxsplit=1)[0]
        cells = [
            {"cell_type": "code", "id": f"c{number}-{stem}", "source": source,
             "metadata": {}, "outputs": [], "execution_count": None}
            for number, source in enumerate(sources)
        ]  # fmt: skip
        content = {"cells": cells, "nbformat": 4, "nbformat_minor": 5,
                   "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3",
                                               "language": "python"}}}  # fmt: skip
        (self.root / name).write_text(json.dumps(content))
        return name

    def saved(self, name: str = "nb.ipynb") -> list[list[dict[str, Any]]]:
        """The outputs of each cell as they are on disk."""
        cells = json.loads((self.root / name).read_text())["cells"]
        return [cell["outputs"] for cell in cells]

    def saved_text(self, index: int = 0, name: str = "nb.ipynb") -> str:
        """What a person would read in a cell on disk; nothing while the file is written."""
        try:
            return as_text(self.saved(name)[index])
        except json.JSONDecodeError:
            return ""

    def end_kernels(self) -> None:
        """End all kernels, as "Shut Down All" does."""
        headers = {"Authorization": f"token {self.token}"}

        def ask(method: str, path: str) -> Any:
            request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")

        for kernel in ask("GET", "/api/kernels"):
            # One that died may be on its way back.
            with contextlib.suppress(urllib.error.HTTPError):
                ask("DELETE", f"/api/kernels/{kernel['id']}")

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"token {TOKEN}"}
        data = None if body is None else json.dumps(body)
        request = HTTPRequest(
            f"{self.url}{path}", method, headers, data, allow_nonstandard_methods=True
        )
        response = await AsyncHTTPClient().fetch(request)
        return json.loads(response.body) if response.body else None


def as_text(outputs: list[dict[str, Any]]) -> str:
    """What a person reads in the outputs of a cell."""
    parts = []
    for output in outputs:
        if output["output_type"] == "stream":
            parts.append("".join(output["text"]))
        elif output["output_type"] == "error":
            parts.append(f"{output['ename']}: {output['evalue']}")
        else:
            text = output["data"].get("text/plain", "")
            parts.append("".join(text) + "\n")
    return "".join(parts)


class Page:
    """One browser page with one notebook open.

    Args:
        server: to use.
        path: of the notebook.
        port: another way to the server, for example through a relay.
        session: of an earlier page, to come back as the same one.
    """

    def __init__(
        self, server: Server, path: str, *, port: int = 0, session: str = "", protocol: bool = True
    ) -> None:
        self.server = server
        self.path = path
        self.session = session or uuid.uuid4().hex
        self.messages: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self._base = f"127.0.0.1:{port or server.port}"
        self._protocol = protocol
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.kernel_id = ""
        self.document = YNotebook(Doc())

    async def open(self, *, kernel: bool = True) -> Page:
        body = {"path": self.path, "type": "notebook", "name": self.path,
                "kernel": {"name": "python3"}}  # fmt: skip
        if kernel:
            model = await self.server.request("POST", "/api/sessions", body)
            self.kernel_id = model["kernel"]["id"]
        room = await self.server.request(
            "PUT", f"/api/collaboration/session/{self.path}", {"format": "json", "type": "notebook"}
        )
        name = f"{room['format']}:{room['type']}:{room['fileId']}"
        self._room = await self._socket(
            f"/api/collaboration/room/{name}?sessionId={room['sessionId']}"
        )
        await self._room.write_message(create_sync_message(self.document.ydoc), binary=True)
        self._tasks.append(asyncio.create_task(self._follow_room()))
        await self.until(lambda: self.document.cell_number > 0)
        self._subscription = self.document.ydoc.observe(self._on_own_change)
        if kernel:
            await self.connect()
        return self

    async def connect(self) -> None:
        """Open the kernel's WebSocket."""
        protocols = ["v1.kernel.websocket.jupyter.org"] if self._protocol else []
        self._kernel = await self._socket(
            f"/api/kernels/{self.kernel_id}/channels?session_id={self.session}", protocols
        )
        self._tasks.append(asyncio.create_task(self._follow_kernel(self._kernel)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in (self._room, getattr(self, "_kernel", None)):
            if connection is not None:
                connection.close()
        await asyncio.sleep(0)

    def run(self, index: int, **content: Any) -> str:
        """Run a cell as JupyterLab does: empty it, mark it, send the request."""
        cell = self.document.ycells[index]
        with self.document.ydoc.transaction():
            cell["outputs"].clear()
            cell["execution_count"] = None
            cell["execution_state"] = "running"
        return self.execute(str(cell["source"]), {"cellId": cell["id"]}, **content)

    def execute(self, code: str, metadata: dict[str, Any] | None = None, **content: Any) -> str:
        defaults = {"code": code, "silent": False, "store_history": True, "allow_stdin": True,
                    "user_expressions": {}, "stop_on_error": True}  # fmt: skip
        return self.send("shell", "execute_request", defaults | content, metadata)

    def send(
        self, channel: str, kind: str, content: dict[str, Any],
        metadata: dict[str, Any] | None = None, parent: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        header = {"msg_id": uuid.uuid4().hex, "session": self.session, "username": "",
                  "msg_type": kind, "version": "5.3", "date": "2026-01-01T00:00:00Z"}  # fmt: skip
        message = {"channel": channel, "header": header, "parent_header": parent or {},
                   "metadata": metadata or {}, "content": content}  # fmt: skip
        data: str | bytes = json.dumps(message | {"buffers": []})
        if self._protocol:
            parts = [json.dumps(message[part]).encode()
                     for part in ("header", "parent_header", "metadata", "content")]  # fmt: skip
            name = channel.encode()
            offsets = [8 * (len(parts) + 3)]
            for part in (name, *parts):
                offsets.append(offsets[-1] + len(part))
            numbers = [len(offsets), *offsets]
            data = b"".join([*(n.to_bytes(8, "little") for n in numbers), name, *parts])
        self._write(self._kernel, data, binary=self._protocol)
        return str(header["msg_id"])

    def answer(self, value: str) -> None:
        self.send("stdin", "input_reply", {"value": value})

    def outputs(self, index: int = 0) -> list[dict[str, Any]]:
        outputs: list[dict[str, Any]] = self.document.ycells[index]["outputs"].to_py()
        return outputs

    def text(self, index: int = 0) -> str:
        return as_text(self.outputs(index))

    def state(self, index: int = 0) -> tuple[str, int | None]:
        cell = self.document.ycells[index]
        count = cell.get("execution_count")
        return cell["execution_state"], None if count is None else int(count)

    def got(self, kind: str) -> list[dict[str, Any]]:
        """Contents of the kernel messages of a type that were received."""
        return [m["content"] for m in self.messages if m["header"]["msg_type"] == kind]

    async def idle(self, *, index: int = 0, timeout: float = 40) -> None:
        await self.until(lambda: self.state(index)[0] == "idle", timeout)

    async def until(self, condition: Callable[[], Any], timeout: float = 40) -> None:
        """Wait for something that changes with messages, the document or a file."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                shown = [self.outputs(i) for i in range(self.document.cell_number)]
                states = [self.state(i) for i in range(self.document.cell_number)]
                raise AssertionError(
                    f"not within {timeout} s: {str(shown)[-3000:]} {states}\n"
                    f"{self.server.log.read_text()[-4000:]}"
                )
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.1)

    async def _socket(
        self, path: str, protocols: list[str] | None = None
    ) -> WebSocketClientConnection:
        request = HTTPRequest(
            f"ws://{self._base}{path}", headers={"Authorization": f"token {TOKEN}"}
        )
        return await websocket_connect(
            request, subprotocols=protocols or None, max_message_size=2**30
        )

    def _write(self, connection: WebSocketClientConnection, data: Any, *, binary: bool) -> None:
        future = connection.write_message(data, binary=binary)
        future.add_done_callback(lambda done: done.exception())

    def _on_own_change(self, event: Any) -> None:
        if not self._receiving:
            self._write(self._room, create_update_message(event.update), binary=True)

    _receiving = False

    async def _follow_room(self) -> None:
        while (message := await self._room.read_message()) is not None:
            if isinstance(message, bytes) and message[0] == 0:
                self._receiving = True
                reply = handle_sync_message(message[1:], self.document.ydoc)
                self._receiving = False
                if reply is not None:
                    self._write(self._room, reply, binary=True)
                self._changed.set()

    async def _follow_kernel(self, connection: WebSocketClientConnection) -> None:
        while (data := await connection.read_message()) is not None:
            if isinstance(data, bytes) and self._protocol:
                count = int.from_bytes(data[:8], "little")
                at = [
                    int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)
                ]
                parts = [data[a:b] for a, b in zip(at, [*at[1:], None], strict=True)]
                names = ("header", "parent_header", "metadata", "content")
                message = dict(zip(names, map(json.loads, parts[1:5]), strict=True))
                message["channel"] = parts[0].decode()
            else:
                message = json.loads(data)
            self.messages.append(message)
            self._changed.set()
