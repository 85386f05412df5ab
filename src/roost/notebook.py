"""A small client of a Jupyter server: is it there, start a kernel, compute, read the outputs.

Sources: the REST API of jupyter-server 2 and the kernel messaging protocol 5.3, as it travels
over the server's WebSocket (one JSON text frame per message, with its channel).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from roost.errors import RoostError

REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class NotebookError(RoostError):
    """A Jupyter server does not answer, refuses the token, or a kernel fails to run."""


@dataclass(frozen=True)
class Execution:
    """What one piece of code produced.

    Attributes:
        outputs: the outputs in the order they came, each as nbformat 4 stores it.
        count: the number in ``In [n]``; None where the kernel gave none.
    """

    outputs: tuple[Mapping[str, Any], ...] = ()
    count: int | None = None

    @property
    def text(self) -> str:
        """All that was printed to standard output and standard error."""
        return "".join(o["text"] for o in self.outputs if o["output_type"] == "stream")

    @property
    def result(self) -> str:
        """The value of the last expression as plain text, else empty."""
        results = [o for o in self.outputs if o["output_type"] == "execute_result"]
        return str(results[-1]["data"].get("text/plain", "")) if results else ""

    @property
    def error(self) -> str | None:
        """``NameError: …`` where the code raised, else None."""
        for output in self.outputs:
            if output["output_type"] == "error":
                return f"{output['ename']}: {output['evalue']}"
        return None


class NotebookServer:
    """A Jupyter server behind a local address, usually the near end of a tunnel.

    Args:
        base_url: ``http://127.0.0.1:PORT``, with or without a path.
        token: the server's token; it travels in a header, never in an address.
        timeout: seconds that one request may take.
    """

    def __init__(self, base_url: str, token: str, *, timeout: float = 10.0) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._headers = {"Authorization": f"token {token}"}
        # A tunnel's end is local: a proxy of the environment would never find it.
        self._opener: OpenerDirector = build_opener(ProxyHandler({}))

    def status(self) -> dict[str, Any]:
        """``/api/status``: kernels, connections, last activity.

        Raises:
            NotebookError: nothing answers there, or the token is not the server's.
        """
        return dict(self._request("GET", "/api/status"))

    def wait_until_ready(self, *, timeout: float, interval: float = 0.2) -> dict[str, Any]:
        """``status()`` as soon as the server answers, within ``timeout`` seconds.

        Raises:
            NotebookError: it did not answer in time; a refused token is said at once.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.status()
            except NotebookError as error:
                if isinstance(error, TokenRefusedError) or time.monotonic() >= deadline:
                    raise
                time.sleep(interval)

    def kernelspecs(self) -> dict[str, str]:
        """The kernels that the server offers: name to display name.

        Raises:
            NotebookError: the server does not answer.
        """
        specs = self._request("GET", "/api/kernelspecs")["kernelspecs"]
        return {name: spec["spec"]["display_name"] for name, spec in specs.items()}

    def running_kernels(self) -> list[dict[str, Any]]:
        """The kernels that run now, with their ``execution_state``.

        Raises:
            NotebookError: the server does not answer.
        """
        return list(self._request("GET", "/api/kernels"))

    @contextmanager
    def kernel(self, name: str = "python3", *, path: str | None = None) -> Iterator[Kernel]:
        """Start a kernel, and delete it when the block ends.

        Args:
            name: a name from ``kernelspecs()``.
            path: the folder that it works in, relative to the server's root.

        Raises:
            NotebookError: the server does not answer, or it has no such kernel.
        """
        body = {"name": name} if path is None else {"name": name, "path": path}
        if name not in (known := self.kernelspecs()):
            raise NotebookError(f"the box has no kernel {name!r}", why=f"it has {sorted(known)}")
        made = self._request("POST", "/api/kernels", body)
        try:
            yield Kernel(self, made["id"])
        finally:
            self._delete(f"/api/kernels/{quote(made['id'])}")

    def connect(self, kernel_id: str, session: str, *, timeout: float = 60.0) -> ClientConnection:
        """Open the WebSocket of a kernel's channels.

        Args:
            kernel_id: the kernel, as ``running_kernels`` names it.
            session: any text that is this client's own.
            timeout: seconds; the server answers when the kernel has started.

        Raises:
            NotebookError: the server does not answer, or there is no such kernel.
        """
        scheme = "wss" if urlsplit(self.base_url).scheme == "https" else "ws"
        where = self.base_url.split("://", 1)[-1]
        url = f"{scheme}://{where}/api/kernels/{quote(kernel_id)}/channels?session_id={session}"
        try:
            return connect(
                url,
                additional_headers=self._headers,
                open_timeout=timeout,
                max_size=None,
                proxy=None,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise NotebookError("the kernel's channels did not open", why=str(error)) from error

    def _delete(self, path: str) -> None:
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                self._request("DELETE", path)
            except NotebookError as error:
                cause = error.__cause__
                if isinstance(cause, HTTPError) and cause.code == HTTPStatus.NOT_FOUND:
                    return
                # A kernel that died is being restarted: the server cannot delete it just then.
                if not isinstance(cause, HTTPError) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(  # noqa: S310 - the address is our own tunnel's
            self.base_url + path, data=data, method=method, headers=self._headers
        )
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                text = response.read()
        except HTTPError as error:
            raise self._refused(method, path, error) from error
        except (URLError, OSError, HTTPException) as error:
            raise NotebookError(
                f"no Jupyter server answers at {self.base_url}",
                why=str(getattr(error, "reason", error)) or type(error).__name__,
            ) from error
        try:
            return json.loads(text) if text else {}
        except ValueError as error:
            raise NotebookError(
                f"what answers at {self.base_url} is not a Jupyter server",
                why=f"{path} is not JSON",
            ) from error

    def _refused(self, method: str, path: str, error: HTTPError) -> NotebookError:
        if error.code in REFUSED:
            return TokenRefusedError(
                f"the Jupyter server at {self.base_url} does not accept the token",
                why="the token is made anew when its file is removed, and another server may "
                "listen on this port",
            )
        return NotebookError(
            f"the Jupyter server refused {method} {path}", why=f"{error.code} {_message(error)}"
        )


class TokenRefusedError(NotebookError):
    """The server answers, and the token is not its own."""


@dataclass(frozen=True)
class Kernel:
    """A running kernel of a server."""

    server: NotebookServer
    id: str

    def execute(self, code: str, *, timeout: float = 60.0) -> Execution:
        """Run ``code`` to its end and return its outputs.

        An exception in the code is an output (``Execution.error``), not a failure here.

        Args:
            code: what one would type into a cell.
            timeout: seconds until the kernel has to be idle again.

        Raises:
            NotebookError: the kernel did not finish in time, died, or the connection broke.
        """
        session = uuid.uuid4().hex
        request = _execute_request(code, session)
        deadline = time.monotonic() + timeout
        with self.server.connect(self.id, session, timeout=timeout) as socket:
            try:
                socket.send(json.dumps(request))
                return _collect(socket, request["header"]["msg_id"], deadline)
            except TimeoutError as error:
                raise NotebookError(f"the kernel did not finish within {timeout:g} s") from error
            except (OSError, WebSocketException) as error:
                raise NotebookError("the connection to the kernel broke", why=str(error)) from error


def _execute_request(code: str, session: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": session,
        "username": "roost",
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }


def _collect(socket: ClientConnection, msg_id: str, deadline: float) -> Execution:
    """Read messages until the request is answered and the kernel is idle after it."""
    outputs: list[Mapping[str, Any]] = []
    count: int | None = None
    replied = idle = False
    while not (replied and idle):
        frame = socket.recv(timeout=max(0.0, deadline - time.monotonic()))
        if isinstance(frame, bytes):  # carries buffers: widgets, which no caller asks for
            continue
        message = json.loads(frame)
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] in {"dead", "restarting"}:
            raise NotebookError("the kernel died while it ran the code")
        if message.get("parent_header", {}).get("msg_id") != msg_id:
            continue
        if kind == "execute_reply":
            replied, count = True, content.get("execution_count")
        elif kind == "status":
            idle = idle or content["execution_state"] == "idle"
        elif kind in _OUTPUTS:
            outputs.append({"output_type": kind} | {k: content[k] for k in _OUTPUTS[kind]})
    return Execution(tuple(outputs), count)


_OUTPUTS: Mapping[str, Sequence[str]] = {
    "stream": ("name", "text"),
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}


def _message(error: HTTPError) -> str:
    """The server's own words, where it gave some as JSON."""
    try:
        return str(json.loads(error.read()).get("message") or error.reason)
    except (ValueError, OSError, AttributeError):
        return str(error.reason)
