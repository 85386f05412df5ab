"""A browser's WebSocket to a kernel.

Requests, comms, ``input()`` and states go the stock way. What differs: executions of cells of
shared notebooks are announced to the kernel's listener, and the outputs that the listener
writes into the notebook are not sent a second time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import zmq
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.websocket import WebSocketClosedError

from .keeper import Keeper
from .kernel import KernelListener

BUFFERED = 10_000
"""Messages that wait for a page that left, beside outputs: the stock server has no limit."""

V1 = "v1.kernel.websocket.jupyter.org"


class KeeperConnection(ZMQChannelsWebsocketConnection):
    """The stock connection, with the outputs of shared notebooks left to the keeper."""

    if TYPE_CHECKING:
        channels: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._held: list[Any] = []
        self._protocol: str | None = None

    @property
    def subprotocol(self) -> str | None:
        """What the page speaks; known also when it has left and messages of it are still held."""
        if self._protocol is None:
            self._protocol = super().subprotocol
        return self._protocol

    @property
    def _keeper(self) -> Keeper:
        keeper: Keeper = self.websocket_handler.settings["jupyter_keeper"]
        return keeper

    @property
    def _listener(self) -> KernelListener:
        listeners = self._keeper.listeners
        if self.kernel_id not in listeners:
            listeners[self.kernel_id] = KernelListener(self._keeper, self.kernel_manager)
        listener: KernelListener = listeners[self.kernel_id]
        return listener

    async def prepare(self) -> None:
        """Listen to the kernel before the browser can run anything in it."""
        await super().prepare()
        if self.kernel_id in self.multi_kernel_manager:
            _ = self._listener

    def create_stream(self) -> None:
        """Open the channels; the stdin socket may have been kept for us."""
        kept = self._listener.questions.claim(self.session_id)
        for channel in ("iopub", "shell", "control", "stdin"):
            if channel == "stdin" and kept is not None:
                stream = kept
            else:
                connect = getattr(self.kernel_manager, f"connect_{channel}")
                stream = connect(identity=self.session.bsession)
            stream.channel = channel
            self.channels[channel] = stream

    def connect(self) -> Any:
        """Connect; a newcomer is told that the kernel is busy and what it asks."""
        connected = super().connect()
        if connected is None:
            return None
        if "stdin" not in self.channels:
            kept = self._listener.questions.claim(self.session_id)
            if kept is None:
                kept = self.kernel_manager.connect_stdin(identity=self.session.bsession)
            kept.channel = "stdin"
            self.channels["stdin"] = kept
        connected.add_done_callback(self._welcome)
        return connected

    def disconnect(self) -> None:
        """Leave; outputs that the keeper has are not buffered, and questions are still heard."""
        listener = self._keeper.listeners.get(self.kernel_id)
        if listener is not None and self._held:
            # What waits for a kernel that starts would be lost with the connection.
            self._release(leaving=True)
            self._leave_shell_to(listener)
        for stream in self.channels.values():
            if not stream.closed():
                # What came together with the farewell waits for the loop's next turn.
                stream.flush(zmq.POLLOUT)
        channels = self.channels
        if listener is not None:
            listener.connections.discard(self)
            asking = any(run.session == self.session_id for run in listener.unfinished())
            stdin = channels.get("stdin")
            if asking and stdin is not None and not stdin.closed():
                self.channels = {name: s for name, s in channels.items() if name != "stdin"}
                listener.questions.keep(self.session_id, stdin)
        super().disconnect()
        buffered = self.multi_kernel_manager._kernel_buffers.get(self.kernel_id)
        if listener is not None and buffered and "iopub" in buffered["channels"]:
            buffer = buffered["buffer"]

            def filtered(frames: list[Any]) -> None:
                if not self._is_kept(frames):
                    buffer.append(("iopub", frames))
                    # Of a widget that is updated for days the latest states matter.
                    del buffer[: max(0, len(buffer) - BUFFERED)]

            buffered["channels"]["iopub"].on_recv(filtered)

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Announce executions and answers, then pass the message on."""
        if self._held:
            self._held.append(incoming_msg)
            return
        run = self._try_run(incoming_msg)
        if run is not None and not self._listener.live:
            self._held.append(incoming_msg)
            self._listener.when_live(self._release)
            return
        if run is not None:
            self._listener.begin(run[0], self.session_id, run[1])
        super().handle_incoming_message(incoming_msg)

    def _release(self, *, leaving: bool = False) -> None:
        """Pass on what was held; nobody but us takes the outputs for a page that leaves."""
        held, self._held = self._held, []
        for message in held:
            run = self._try_run(message)
            if run is not None and (leaving or self._listener.live):
                self._listener.begin(run[0], self.session_id, run[1])
            super().handle_incoming_message(message)

    def _leave_shell_to(self, listener: KernelListener) -> None:
        """Have the socket closed when the kernel is there: a closed one forgets what it holds."""
        shell = self.channels.get("shell")
        if shell is None:
            return
        shell.flush()
        # The last page's sockets stay open as they are: the server buffers for its return.
        kernels = self.multi_kernel_manager
        if self.kernel_id in kernels and kernels.kernel_model(self.kernel_id)["connections"] > 1:
            del self.channels["shell"]
            shell.on_recv(None)
            listener.when_live(shell.close)

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Pass the message on unless the browser sees it as a change of the notebook."""
        channel = stream if isinstance(stream, str) else getattr(stream, "channel", None)
        if channel == "iopub" and self._is_kept(outgoing_msg):
            return
        if channel == "stdin":
            self._listener.questions.ask(list(outgoing_msg), self.session_id, delivered=True)
        super().handle_outgoing_message(stream, outgoing_msg)

    def deliver_question(self, frames: list[Any]) -> None:
        """Send the kernel's question that waited for this page."""
        super().handle_outgoing_message(self.channels["stdin"], list(frames))

    def send_as_kernel(
        self, kind: str, content: Mapping[str, Any], parent: Mapping[str, Any]
    ) -> None:
        """Send a message on IOPub in the kernel's name: pages drop those of another session."""
        message = self.session.msg(kind, dict(content), parent=dict(parent) or None)
        message["header"]["session"] = self._listener.kernel_session or self.session_id
        try:
            if self.subprotocol == V1:
                frames = serialize_msg_to_ws_v1(message, "iopub", self.session.pack)
                self.write_message(frames, binary=True)
            else:
                message["channel"] = "iopub"
                self.write_message(json.dumps(message, default=str))
        except WebSocketClosedError:
            self.log.debug("jupyter-keeper: a page left before it was told of %s", kind)

    def _welcome(self, _connected: Any) -> None:
        if not self.channels:
            return
        self._listener.connections.add(self)
        self._listener.correct_state()
        if self.kernel_manager.execution_state == "busy":
            self.send_as_kernel("status", {"execution_state": "busy"}, {})
        self._listener.questions.put_to(self)

    def _is_kept(self, frames: list[Any]) -> bool:
        listener = self._keeper.listeners.get(self.kernel_id)
        if listener is None:
            return False
        _, parts = self.session.feed_identities(frames)
        kind = self.session.unpack(parts[1])["msg_type"]
        parent = self.session.unpack(parts[2]).get("msg_id", "")
        owned: bool = listener.owns(kind, parent)
        return owned

    def _try_run(self, message: Any) -> tuple[str, str] | None:
        try:
            return self._read_run(message)
        except Exception:
            self.log.exception("jupyter-keeper could not read a message of a browser")
            return None

    def _read_run(self, message: Any) -> tuple[str, str] | None:
        """Message and cell id if a cell is to be run; takes note of answers to questions."""
        if self.subprotocol == V1:
            channel, parts = deserialize_msg_from_ws_v1(message)
            header = self.session.unpack(parts[0])
            metadata, content = parts[2:4]
        else:
            if isinstance(message, bytes):
                loaded = deserialize_binary_message(message)
            else:
                loaded = json.loads(message)
            channel, header = loaded.get("channel"), loaded["header"]
            metadata, content = loaded.get("metadata"), loaded["content"]
        if channel == "stdin" and header["msg_type"] == "input_reply":
            self._listener.answered()
        if channel != "shell" or header["msg_type"] != "execute_request":
            return None
        if self.subprotocol == V1:
            metadata, content = self.session.unpack(metadata), self.session.unpack(content)
        cell_id = (metadata or {}).get("cellId")
        if cell_id and not content.get("silent") and content.get("code", "").strip():
            return header["msg_id"], cell_id
        return None
