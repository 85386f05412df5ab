"""One kernel as the server itself listens to it, for as long as the kernel lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_client.session import Session

from .keeper import ECHO_WAIT, Keeper, Run
from .notebooks import Notebook
from .outputs import OUTPUT_TYPES
from .questions import Questions
from .widgets import OutputWidgets

RECEIVE_QUEUE = 100_000
"""Messages that may wait for us; the default of 1,000 loses bursts of displays."""

LIVE_WAIT = 30.0
"""Seconds that an execution waits for our subscription, which a kernel that starts on a busy
machine takes; then its outputs go the stock way."""

WIDGET_INTERVAL = 0.2
"""Seconds that output captured by widgets is gathered: each update sends all of it."""


class KernelListener:
    """Follows a kernel's IOPub channel and writes what belongs to the keeper's runs.

    Args:
        keeper: the server's.
        manager: the kernel's ``ServerKernelManager``.
    """

    def __init__(self, keeper: Keeper, manager: Any) -> None:
        self._keeper = keeper
        self._manager = manager
        self._runs: dict[str, Run] = {}
        self._current: dict[tuple[Notebook, str], Run] = {}
        self._executing: set[str] = set()
        self._corrected = False
        self._widgets = OutputWidgets(keeper.new_outputs)
        self._widget_timer: asyncio.TimerHandle | None = None
        self._shell: Any = None
        self._waiting: list[Callable[[], None]] = []
        self._patience: asyncio.TimerHandle | None = None
        self._nudging: asyncio.TimerHandle | None = None
        self.kernel_id: str = manager.kernel_id
        self.connections: set[Any] = set()
        self.kernel_session = ""
        self.questions = Questions(self)
        manager.add_restart_callback(self._on_died, "restart")
        manager.add_restart_callback(self._on_dead, "dead")
        self._subscribe()

    @property
    def live(self) -> bool:
        """Whether messages have arrived from the kernel that runs now."""
        return bool(self.kernel_session)

    def unfinished(self) -> list[Run]:
        """The runs that are queued or running."""
        return [run for run in self._runs.values() if not run.done]

    def latest(self) -> list[Run]:
        """The latest run of each cell."""
        return list(self._current.values())

    def when_live(self, callback: Callable[[], None]) -> None:
        """Call back once messages arrive, or after some seconds without any."""
        self._waiting.append(callback)
        if self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(LIVE_WAIT, self._stop_waiting)

    def begin(self, msg_id: str, session: str, cell_id: str) -> None:
        """Take over the outputs of an execution, if an open notebook has that cell."""
        run = self._keeper.begin(msg_id, session, cell_id, self.kernel_id)
        if run is None:
            return
        old = self._current.get((run.notebook, cell_id))
        if old is not None:
            # As in the browser: a cell that runs again shows nothing of its former run.
            self._keeper.drop(old)
            self._runs.pop(old.msg_id, None)
        self._runs[msg_id] = self._current[run.notebook, cell_id] = run

    def owns(self, kind: str, parent: str) -> bool:
        """Whether the browsers see such a message as a change of the notebook instead."""
        return kind in OUTPUT_TYPES and parent in self._runs

    def run_of(self, parent: str) -> Run | None:
        """The run that the request ``parent`` started."""
        return self._runs.get(parent)

    def answered(self) -> None:
        """A browser has answered ``input()``: it will append the answer to the outputs."""
        run = self._runs.get(self.questions.settle())
        if run is not None:
            run.echo_until = time.monotonic() + ECHO_WAIT

    def correct_state(self) -> None:
        """Have the server know a kernel as busy while it executes.

        To the server it is idle as soon as the kernel has answered anything beside that: what a
        page asks of it on the control channel or in a subshell, as the sidebar that shows a
        kernel's memory does. A kernel that counts as idle may be culled.
        """
        if self._executing and self._manager.execution_state != "busy":
            self._manager.execution_state = "busy"
            self._corrected = True

    def look_after(self) -> None:
        """Follow the kernel when it moved to other ports, leave it when it is gone."""
        self.correct_state()
        if self.kernel_id not in self._manager.parent:
            self._end_all("The kernel was shut down")
            self.close()
        elif self._address != self._get_address():
            self._renew()
        else:
            self.questions.repeat()

    def close(self) -> None:
        """Stop listening."""
        self._unsubscribe()
        self._manager.remove_restart_callback(self._on_died, "restart")
        self._manager.remove_restart_callback(self._on_dead, "dead")
        self._keeper.listeners.pop(self.kernel_id, None)

    def read(self, frames: list[Any]) -> dict[str, Any]:
        """The message in ``frames`` as they came from a socket of the kernel."""
        _, parts = self._session.feed_identities(frames)
        message: dict[str, Any] = self._session.deserialize(parts)
        return message

    def publish(self, kind: str, content: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
        """Send a message of ours to all browsers, as if the kernel had published it."""
        for connection in list(self.connections):
            connection.send_as_kernel(kind, content, parent)

    def _get_address(self) -> tuple[Any, ...]:
        manager = self._manager
        return (manager.transport, manager.ip, manager.iopub_port)

    def _subscribe(self) -> None:
        self._address = self._get_address()
        self._session = Session(config=self._manager.session.config, key=self._manager.session.key)
        self._stream = self._manager.connect_iopub()
        endpoint = self._stream.socket.last_endpoint
        # The size of the queue holds for connections made after it is set.
        self._stream.socket.disconnect(endpoint)
        self._stream.socket.rcvhwm = RECEIVE_QUEUE
        self._stream.socket.connect(endpoint)
        self._stream.on_recv(self._on_frames)
        self._control = self._manager.connect_control()
        self._control.on_recv(lambda frames: None)
        self._nudge()

    def _nudge(self) -> None:
        """Ask the kernel for a sign of life until there is one; it answers while busy, too."""
        if not self.live and not self._control.closed():
            self._session.send(self._control, "kernel_info_request")
            self._nudging = asyncio.get_running_loop().call_later(0.3, self._nudge)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def _unsubscribe(self) -> None:
        self.kernel_session = ""
        self._executing.clear()
        self.questions.forget()
        if self._nudging is not None:
            self._nudging.cancel()
        for stream in (self._stream, self._control, self._shell):
            if stream is not None and not stream.closed():
                stream.on_recv(None)
                stream.close()
        self._shell = None

    def _on_frames(self, frames: list[Any]) -> None:
        try:
            self._on_message(self.read(frames))
        except Exception:
            self._keeper.log.exception("jupyter-keeper could not use a message of a kernel")

    def _on_message(self, message: Mapping[str, Any]) -> None:
        header, content = message["header"], message["content"]
        parent = message["parent_header"].get("msg_id", "")
        kind = header["msg_type"]
        self.kernel_session = header["session"]
        self._stop_waiting()
        run = self._runs.get(parent)
        if kind == "status" and message["parent_header"].get("msg_type") == "execute_request":
            self._on_execution(parent, busy=content["execution_state"] == "busy")
        if kind in OUTPUT_TYPES:
            self._on_output(kind, content, run, message["parent_header"])
        elif kind.startswith("comm_"):
            self._widgets.follow(kind, content)
        elif run is not None and kind == "execute_input":
            run.count = content["execution_count"]
        elif run is not None and kind == "status" and content["execution_state"] == "idle":
            if not run.done:
                self._keeper.end(run)
            self.questions.forget(parent)
            self._send_widgets()
            self._save_widgets()

    def _on_execution(self, parent: str, *, busy: bool) -> None:
        if busy:
            self._executing.add(parent)
            return
        self._executing.discard(parent)
        if self._corrected and not self._executing:
            # The server may have heard of the end before we corrected it.
            self._manager.execution_state = "idle"
            self._corrected = False

    def _on_output(
        self,
        kind: str,
        content: Mapping[str, Any],
        run: Run | None,
        parent_header: Mapping[str, Any],
    ) -> None:
        if kind == "update_display_data":
            display_id = (content.get("transient") or {}).get("display_id")
            for other in self._current.values():
                if display_id and other.outputs.update_display(display_id, content):
                    self._keeper.schedule(other)
            return
        if run is None:
            return
        if kind == "error" and not self._manager.parent.allow_tracebacks:
            message = self._manager.traceback_replacement_message
            content = {"ename": "ExecutionError", "evalue": "Execution error"}
            content["traceback"] = [message]
        if self._widgets.capture(parent_header, kind, content):
            if self._widget_timer is None:
                loop = asyncio.get_running_loop()
                self._widget_timer = loop.call_later(WIDGET_INTERVAL, self._send_widgets)
        else:
            run.outputs.apply(kind, content)
            self._keeper.schedule(run)

    def _send_widgets(self) -> None:
        """Show in the browsers what output widgets captured."""
        if self._widget_timer is not None:
            self._widget_timer.cancel()
            self._widget_timer = None
        for message, parent in self._widgets.take_news():
            self.publish("comm_msg", message, parent)

    def _save_widgets(self) -> None:
        """Tell the kernel, which browsers to come ask for the state of widgets."""
        for message in self._widgets.take_unsaved():
            if self._shell is None:
                self._shell = self._manager.connect_shell()
            self._session.send(self._shell, "comm_msg", message)

    def restarted(self) -> None:
        """The kernel was restarted on demand: what was asked of it before is forgotten."""
        self._end_all("")
        self._renew()

    def _renew(self) -> None:
        """Listen to the process that takes over the kernel's ports.

        The old subscription reaches it some time after it has begun to work, and until then what
        it prints is lost: executions have to wait for a new one.
        """
        self._unsubscribe()
        self._subscribe()

    def _end_all(self, note: str) -> None:
        """The kernel is another one now, or none."""
        self.questions.forget()
        self._executing.clear()
        for run in self.unfinished():
            if note:
                text = f"{note} while this cell was running.\n"
                run.outputs.apply("stream", {"name": "stderr", "text": text})
            run.count = None
            self._keeper.end(run)

    def _on_died(self) -> None:
        self._end_all("The kernel died and was restarted")
        self._renew()

    def _on_dead(self) -> None:
        self._end_all("The kernel died")
