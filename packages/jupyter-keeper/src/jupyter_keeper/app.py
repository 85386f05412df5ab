"""The server extension: decides whether to work, sets up the keeper, answers how it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.ioloop import PeriodicCallback
from tornado.web import authenticated
from traitlets import Bool, Dict, Float, Int, Unicode

from .outputs import Limits
from .versions import findings

KERNEL_EVENTS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"
COLLABORATION_EVENTS = "https://schema.jupyter.org/jupyter_collaboration/session/v1"
COLLABORATION = "jupyter_server_ydoc"

SAVE_TIME = 10.0
"""Seconds that a server which stops waits for its notebooks to be saved."""


class StatusHandler(APIHandler):
    """``GET /api/keeper``: whether the keeper works here, and why not."""

    auth_resource = "server"

    @authenticated
    def get(self) -> None:
        self.finish(json.dumps(self.settings["jupyter_keeper_status"]()))


class KeeperExtension(ExtensionApp):
    """Writes what cells print into their notebooks, whether a browser is there or not."""

    name = "jupyter_keeper"
    app_name = "jupyter-keeper"
    description = "Notebooks that lose no output"

    enabled = Bool(True, config=True, help="Whether to do anything at all.")
    flush_interval = Float(
        0.15, config=True, help="Seconds between two updates of a notebook that is looked at."
    )
    save_interval = Float(
        5.0,
        config=True,
        help="Seconds between two saves while output arrives; less often for large notebooks.",
    )
    stream_limit = Int(
        1_000_000, config=True, help="Bytes of one stream output that are kept from its start."
    )
    output_limit = Int(20_000, config=True, help="Outputs that one cell may have.")
    cell_limit = Int(50_000_000, config=True, help="Bytes of all outputs of one cell, roughly.")
    pretend = Dict(
        {}, config=True, help="Releases to take for installed ones, for tests of the fall-back."
    )
    reason = Unicode("", help="Why the keeper does not work here; empty if it does.")

    def initialize_settings(self) -> None:
        """Start to keep, or say in one line why not."""
        self._keeper: Any = None
        self.reason = self._obstacle()
        self.settings["jupyter_keeper_status"] = self.status
        if self.reason:
            self.log.warning("jupyter-keeper is off, notebooks work as without it: %s", self.reason)
            return
        # Imported only now: with unknown releases even the import may fail.
        from .connection import KeeperConnection
        from .keeper import Keeper
        from .notebooks import Notebooks, end_threads_with_main

        collaboration = self._collaboration()
        if "document_cleanup_delay" not in collaboration.config[type(collaboration).__name__]:
            collaboration.document_cleanup_delay = None
        notebooks = Notebooks(collaboration, self.serverapp.session_manager, self.log)
        limits = Limits(self.stream_limit, self.output_limit, self.cell_limit)
        self._keeper = Keeper(
            notebooks,
            limits,
            flush_interval=self.flush_interval,
            save_interval=self.save_interval,
            log=self.log,
        )
        end_threads_with_main()
        self.settings["jupyter_keeper"] = self._keeper
        self.settings["kernel_websocket_connection_class"] = KeeperConnection
        self.serverapp.kernel_websocket_connection_class = KeeperConnection
        self.serverapp.event_logger.add_listener(
            schema_id=KERNEL_EVENTS, listener=self._on_kernel_event
        )
        self.serverapp.event_logger.add_listener(
            schema_id=COLLABORATION_EVENTS, listener=self._on_document_event
        )
        self._ticker = PeriodicCallback(self._tick, 1000)
        self.serverapp.io_loop.add_callback(self._ticker.start)
        self.log.info("jupyter-keeper keeps the outputs of notebooks")

    def initialize_handlers(self) -> None:
        self.handlers.append((r"/api/keeper", StatusHandler))

    async def stop_extension(self) -> None:
        """Write and save what there is before the kernels are stopped."""
        if self._keeper is not None:
            self._ticker.stop()
            try:
                async with asyncio.timeout(SAVE_TIME):
                    await self._keeper.save_all()
            except Exception:
                # An error would leave the server running, deaf: it stops only after this.
                self.log.exception("jupyter-keeper could not save everything")

    def status(self) -> dict[str, Any]:
        """What ``GET /api/keeper`` says."""
        listeners = list(self._keeper.listeners.values()) if self._keeper else []
        return {
            "active": not self.reason,
            "reason": self.reason or None,
            "versions": {
                found.name: {"installed": found.installed, "supported": found.supported}
                for found in findings(self.pretend)
            },
            "kernels": len(listeners),
            "running_cells": sum(len(listener.unfinished()) for listener in listeners),
            "open_notebooks": len(list(self._keeper.notebooks)) if self._keeper else 0,
        }

    def _obstacle(self) -> str:
        if not self.enabled:
            return "c.KeeperExtension.enabled is False"
        unknown = [str(found) for found in findings(self.pretend) if not found.fine]
        if unknown:
            return "not tried with " + ", ".join(unknown)
        configured = self.serverapp.kernel_websocket_connection_class
        if configured is not ZMQChannelsWebsocketConnection:
            return f"kernel_websocket_connection_class is {configured.__name__}"
        collaboration = self._collaboration()
        if collaboration is None:
            return "jupyter-collaboration is not enabled"
        if collaboration.disable_rtc:
            return "c.YDocExtension.disable_rtc is True"
        return ""

    def _collaboration(self) -> Any:
        manager = self.serverapp.extension_manager
        package = manager.extensions.get(COLLABORATION)
        if package is None or not package.enabled:
            return None
        return next(iter(manager.extension_apps[COLLABORATION]), None)

    def _tick(self) -> None:
        try:
            self._keeper.tick()
        except Exception:
            self.log.exception("jupyter-keeper had a problem")

    async def _on_kernel_event(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        listener = self._keeper.listeners.get(data.get("kernel_id", ""))
        if listener is not None and data["action"] == "restart" and data["status"] == "success":
            listener.restarted()

    async def _on_document_event(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        book = self._keeper.notebooks.of_room(data.get("room", ""))
        if book is not None and data.get("action") == "save":
            book.saved()
        elif book is not None and data.get("level") == "ERROR":
            book.failed()
        if data.get("action") == "overwrite":
            self._keeper.overwritten(data["room"])
        elif data.get("action") == "initialize":
            self._keeper.notebooks.take_note()
