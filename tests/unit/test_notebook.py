"""The client of a Jupyter server: what it makes of messages, and of servers that are not right."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from roost import notebook
from roost.notebook import Execution, NotebookError, NotebookServer, TokenRefusedError


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the server's ``answers`` for its path."""

    def do_GET(self) -> None:
        code, body = self.server.answers[self.path]  # type: ignore[attr-defined]
        self.server.seen.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.seen = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Socket:
    """A WebSocket that has these messages to give, and then stays silent."""

    def __init__(self, *messages: dict[str, Any] | bytes) -> None:
        self.frames = [m if isinstance(m, bytes) else json.dumps(m) for m in messages]

    def recv(self, timeout: float) -> str | bytes:
        if not self.frames:
            raise TimeoutError
        return self.frames.pop(0)


def message(kind: str, parent: str = "mine", **content: Any) -> dict[str, Any]:
    return {
        "header": {"msg_type": kind},
        "parent_header": {"msg_id": parent},
        "content": content,
    }


IDLE = message("status", execution_state="idle")
REPLY = message("execute_reply", execution_count=3, status="ok")


def collect(*messages: dict[str, Any] | bytes) -> Execution:
    return notebook._collect(Socket(*messages), "mine", deadline=0)  # type: ignore[arg-type]


def test_outputs_arrive_in_order_and_as_nbformat_stores_them() -> None:
    done = collect(
        message("status", execution_state="busy"),
        message("stream", name="stdout", text="a\n"),
        message("stream", name="stderr", text="b\n"),
        message("execute_result", data={"text/plain": "5"}, metadata={}, execution_count=3),
        REPLY,
        IDLE,
    )
    assert done.text == "a\nb\n"
    assert done.result == "5"
    assert done.error is None
    assert done.count == 3
    assert done.outputs[0] == {"output_type": "stream", "name": "stdout", "text": "a\n"}


@pytest.mark.parametrize("order", [(REPLY, IDLE), (IDLE, REPLY)])
def test_it_waits_for_the_reply_and_for_idle_in_either_order(order: tuple[Any, Any]) -> None:
    late = message("stream", name="stdout", text="late")
    assert collect(order[0], late, order[1]).text == "late"


def test_messages_of_other_requests_and_binary_frames_are_passed_over() -> None:
    other = message("stream", parent="other", name="stdout", text="not mine")
    other_idle = message("status", parent="other", execution_state="idle")
    mine = message("stream", name="stdout", text="mine")
    assert collect(other, other_idle, b"\0\0", mine, REPLY, IDLE).text == "mine"


def test_an_exception_in_the_code_is_an_output() -> None:
    done = collect(
        message("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[]),
        REPLY,
        IDLE,
    )
    assert done.error == "ZeroDivisionError: division by zero"
    assert done.result == ""


def test_a_kernel_that_dies_is_said_at_once() -> None:
    died = message("status", parent="", execution_state="restarting")
    with pytest.raises(NotebookError, match="died"):
        collect(died)


def test_a_kernel_that_never_answers_runs_into_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        collect(REPLY)


def test_nothing_listens() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as unused:
        port = unused.server_port
    with pytest.raises(NotebookError, match="no Jupyter server answers") as caught:
        NotebookServer(f"http://127.0.0.1:{port}", "t").wait_until_ready(timeout=0)
    assert "refused" in str(caught.value.why)


def test_the_token_is_in_a_header_and_a_refusal_is_not_waited_for(http: Any) -> None:
    http.answers["/api/status"] = (403, b'{"message": "Forbidden"}')
    with pytest.raises(TokenRefusedError):
        NotebookServer(http.url, "secret").wait_until_ready(timeout=60)
    assert http.seen == ["token secret"]


def test_another_program_on_the_port(http: Any) -> None:
    http.answers["/api/status"] = (200, b"<html>hello</html>")
    with pytest.raises(NotebookError, match="not a Jupyter server"):
        NotebookServer(http.url, "t").status()


def test_a_proxy_of_the_environment_is_not_asked(
    http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    http.answers["/api/status"] = (200, b'{"kernels": 0}')
    assert NotebookServer(http.url, "t").status() == {"kernels": 0}


def test_a_kernel_that_the_server_does_not_have(http: Any) -> None:
    specs = {"kernelspecs": {"python3": {"spec": {"display_name": "Python 3"}}}}
    http.answers["/api/kernelspecs"] = (200, json.dumps(specs).encode())
    with (
        pytest.raises(NotebookError, match="no kernel 'julia'") as caught,
        NotebookServer(http.url, "t").kernel("julia"),
    ):
        pass
    assert caught.value.why == "it has ['python3']"


def test_the_servers_own_words_are_passed_on(http: Any) -> None:
    specs = {"kernelspecs": {"python3": {"spec": {"display_name": "Python 3"}}}}
    http.answers["/api/kernelspecs"] = (200, json.dumps(specs).encode())
    http.answers["/api/kernels"] = (500, b'{"message": "no space left on device"}')
    with (
        pytest.raises(NotebookError) as caught,
        NotebookServer(http.url, "t").kernel(),
    ):
        pass
    assert caught.value.why == "500 no space left on device"


def test_a_kernel_gone_before_it_is_deleted_is_no_failure(http: Any) -> None:
    specs = {"kernelspecs": {"python3": {"spec": {"display_name": "Python 3"}}}}
    http.answers["/api/kernelspecs"] = (200, json.dumps(specs).encode())
    http.answers["/api/kernels"] = (201, b'{"id": "k1"}')
    http.answers["/api/kernels/k1"] = (404, b"{}")
    with NotebookServer(http.url, "t").kernel() as kernel:
        assert kernel.id == "k1"
