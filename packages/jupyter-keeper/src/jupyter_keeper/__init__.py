"""JupyterLab notebooks that lose no output."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .app import KeeperExtension

    return [{"module": "jupyter_keeper", "app": KeeperExtension}]
