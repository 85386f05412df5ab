"""What every command is given: folders, environment, the workspace, and where to print."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from roost.paths import Paths
from roost.report import Reporter

if TYPE_CHECKING:
    import argparse

    from roost.model import Fleet
    from roost.workspace import Workspace

    # Where a group of verbs adds its parsers.
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


class Context:
    """One call of the command line.

    Not a dataclass, whose module takes as long to import as the rest of ``roost --help``.

    Args:
        environ: the environment of the call.
        cwd: the folder that it was made in.
        workspace_flag: what ``-w`` says.
        verbose: how often ``-v`` was given.
        out: where to print.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        cwd: Path,
        workspace_flag: str | None = None,
        verbose: int = 0,
        out: Reporter | None = None,
    ) -> None:
        self.environ = environ
        self.cwd = cwd
        self.workspace_flag = workspace_flag
        self.verbose = verbose
        self.out = out or Reporter()

    def but(self, *, workspace_flag: str | None = None, out: Reporter | None = None) -> Context:
        """The same call with another workspace, or printed elsewhere."""
        flag = workspace_flag or self.workspace_flag
        return Context(self.environ, self.cwd, flag, self.verbose, out or self.out)

    @cached_property
    def paths(self) -> Paths:
        """The folders of the user."""
        return Paths.from_environment(self.environ)

    def workspace(self) -> Workspace:
        """The workspace that this call is about.

        Raises:
            UsageError: there is none.
        """
        return self._workspace

    @cached_property
    def _workspace(self) -> Workspace:
        from roost import workspace

        return workspace.find(
            flag=self.workspace_flag, environ=self.environ, start=self.cwd, paths=self.paths
        )

    def fleet(self) -> Fleet:
        """The boxes and people of the workspace.

        Raises:
            UsageError: there is no workspace.
            InventoryError: its inventory cannot be read.
        """
        return self._fleet

    @cached_property
    def _fleet(self) -> Fleet:
        from roost import inventory

        return inventory.load(self.workspace(), paths=self.paths, environ=self.environ)
