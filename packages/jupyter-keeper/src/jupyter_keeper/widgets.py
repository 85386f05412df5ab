"""Outputs that an ``ipywidgets.Output`` captures.

The widget's model names the request whose outputs it takes (``msg_id``) and holds them
(``outputs``): https://github.com/jupyter-widgets/ipywidgets (packages/schema). JupyterLab's
widget manager does the capturing in the browser; here the server does it for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .outputs import Outputs


class OutputWidget:
    """One ``ipywidgets.Output`` of a kernel."""

    def __init__(self, comm_id: str, outputs: Outputs) -> None:
        self.comm_id = comm_id
        self.outputs = outputs
        self.parent = ""
        """``msg_id`` of the request whose outputs the widget takes; empty: of none."""
        self.parent_header: Mapping[str, Any] = {}

    def state_message(self) -> dict[str, Any]:
        """The content of the ``comm_msg`` that tells the others what the widget shows."""
        state = {"outputs": self.outputs.as_json()}
        data = {"method": "update", "state": state, "buffer_paths": []}
        return {"comm_id": self.comm_id, "data": data}


class OutputWidgets:
    """The output widgets of one kernel, followed through its comm messages."""

    def __init__(self, new_outputs: Callable[[], Outputs]) -> None:
        self._new_outputs = new_outputs
        self._widgets: dict[str, OutputWidget] = {}
        self._news: set[OutputWidget] = set()
        self._unsaved: set[OutputWidget] = set()

    def follow(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take note of a ``comm_open``, ``comm_msg`` or ``comm_close``."""
        comm_id = str(content.get("comm_id"))
        data = content.get("data") or {}
        state = data.get("state") or {}
        if kind == "comm_open" and state.get("_model_name") == "OutputModel":
            self._widgets[comm_id] = OutputWidget(comm_id, self._new_outputs())
        widget = self._widgets.get(comm_id)
        if widget is None:
            return
        if kind == "comm_close":
            del self._widgets[comm_id]
        elif data.get("method", "update") in ("update", "echo_update"):
            if "msg_id" in state:
                widget.parent = state["msg_id"] or ""
            if "outputs" in state and data.get("method") != "echo_update":
                widget.outputs = self._new_outputs()
                for output in state["outputs"]:
                    widget.outputs.apply(output["output_type"], output)

    def capture(
        self, parent_header: Mapping[str, Any], kind: str, content: Mapping[str, Any]
    ) -> bool:
        """Give an output to the widget that takes those of its request, if there is one."""
        parent = parent_header["msg_id"]
        found = [widget for widget in self._widgets.values() if widget.parent == parent]
        if not found:
            return False
        widget = found[-1]
        widget.outputs.apply(kind, content)
        widget.parent_header = parent_header
        self._news.add(widget)
        self._unsaved.add(widget)
        return True

    def take_news(self) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
        """Contents of the messages that browsers have to get, with their parent headers."""
        news, self._news = self._news, set()
        return [(widget.state_message(), widget.parent_header) for widget in news]

    def take_unsaved(self) -> list[dict[str, Any]]:
        """Contents of the messages that the kernel has to get."""
        unsaved, self._unsaved = self._unsaved, set()
        return [widget.state_message() for widget in unsaved]
