"""``input()`` asked while the browser that ran the cell is away.

A kernel sends its question to the ZMQ identity that asked for the execution, and drops it when
nobody has that identity. So the stdin socket of a browser that leaves is kept while its cells
run, and an open question is put to every browser that is there or comes: as the stock message
where it never reached the page that ran the cell, and as a message of our own
(``keeper_input`` on IOPub) that the package's JupyterLab plugin understands everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kernel import KernelListener

MESSAGE = "keeper_input"


@dataclass
class Question:
    """An ``input_request`` that nobody has answered.

    Attributes:
        frames: the message as it came.
        session: the client session that it was sent to.
        delivered: whether it was written to a connection of that session.
    """

    frames: list[Any]
    session: str
    parent: Mapping[str, Any]
    content: Mapping[str, Any]
    msg_id: str
    delivered: bool


class Questions:
    """The stdin sockets and open questions of one kernel."""

    def __init__(self, listener: KernelListener) -> None:
        self._listener = listener
        self._kept: dict[str, Any] = {}
        self._open: Question | None = None

    def keep(self, session: str, stream: Any) -> None:
        """Listen on the stdin socket of a browser that left."""
        self._kept[session] = stream
        stream.on_recv(lambda frames: self.ask(frames, session, delivered=False))

    def claim(self, session: str) -> Any | None:
        """Give the socket back to the browser that came back."""
        stream = self._kept.pop(session, None)
        if stream is None or stream.closed():
            return None
        stream.on_recv(None)
        return stream

    def ask(self, frames: list[Any], session: str, *, delivered: bool) -> None:
        """The kernel asks; ``delivered`` if the browser that ran the cell is there."""
        message = self._listener.read(frames)
        if message["header"]["msg_type"] != "input_request":
            return
        self._open = Question(
            frames,
            session,
            message["parent_header"],
            message["content"],
            message["header"]["msg_id"],
            delivered,
        )
        for connection in list(self._listener.connections):
            if connection.session_id != session or not delivered:
                self._put(self._open, connection)

    def put_to(self, connection: Any) -> None:
        """A browser has come: put the open question to it."""
        if self._open is not None:
            self._put(self._open, connection)

    def repeat(self) -> None:
        """Put the open question again: a message to a link that was silent is lost."""
        for connection in list(self._listener.connections):
            self.put_to(connection)

    def settle(self) -> str:
        """Somebody has answered: the others need not. Tells whose question it was."""
        if self._open is None:
            return ""
        parent, self._open = self._open.parent, None
        self._listener.publish(MESSAGE, {"open": False, "cell_id": self._cell(parent)}, {})
        return str(parent.get("msg_id", ""))

    def forget(self, parent: str | None = None) -> None:
        """The request is over, or (``None``) the kernel is: so are its questions and sockets."""
        if self._open is not None and parent in (None, self._open.parent.get("msg_id")):
            self.settle()
        asking = {run.session for run in self._listener.unfinished()}
        for session in list(self._kept):
            if parent is None or session not in asking:
                stream = self._kept.pop(session)
                if not stream.closed():
                    stream.on_recv(None)
                    stream.close()

    def _put(self, question: Question, connection: Any) -> None:
        if connection.session_id == question.session and not question.delivered:
            question.delivered = True
            connection.deliver_question(question.frames)
            return
        cell_id = self._cell(question.parent)
        if cell_id:
            content = {**question.content, "open": True, "cell_id": cell_id}
            content |= {"id": question.msg_id, "parent_header": _plain(question.parent)}
            connection.send_as_kernel(MESSAGE, content, {})

    def _cell(self, parent: Mapping[str, Any]) -> str:
        run = self._listener.run_of(parent.get("msg_id", ""))
        return run.mirror.cell_id if run is not None else ""


def _plain(header: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in header.items() if isinstance(value, str)}
