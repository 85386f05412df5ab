"""Throwaway boxes in containers: they emit an ordinary workspace, and nothing else knows them.

``Sandbox(paths, name).up(["gpu1"])`` returns boxes that answer over real ssh;
``Sandbox(paths, name).down()`` removes what it made.
"""

from roost.sandbox.boxes import Private, SandboxBox
from roost.sandbox.sandbox import Sandbox

__all__ = ["Private", "Sandbox", "SandboxBox"]
