"""A sandbox: a folder that is an ordinary workspace, and the boxes in its inventory."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from roost import process
from roost.errors import UsageError
from roost.paths import Paths
from roost.sandbox import boxes, files, releases
from roost.sandbox.boxes import Private, SandboxBox
from roost.sandbox.engine import Engine, Run, find_engine
from roost.sandbox.image import Images
from roost.sandbox.interrupts import deferred
from roost.sandbox.locks import locked
from roost.sandbox.releases import Release
from roost.workspace import Workspace

DEFAULT_NAME = "default"
DEFAULT_BOX = "box"
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")


class Sandbox:
    """Boxes in containers that belong together, with the workspace that reaches them.

    Args:
        paths: the folders of the user; the workspace is ``<state>/sandbox/<name>``.
        name: the sandbox's own name.
        environ: for ``ROOST_ENGINE`` and the package index; None: that of the process.
        run: what runs programs; another function in tests.
        note: told what takes long.
        engine: the engine to use; None: the one that is found.

    Raises:
        UsageError: the name cannot be one.
    """

    def __init__(
        self,
        paths: Paths,
        name: str = DEFAULT_NAME,
        *,
        environ: Mapping[str, str] | None = None,
        run: Run = process.run,
        note: Callable[[str], None] = lambda text: None,
        engine: Engine | None = None,
    ) -> None:
        self.paths = paths
        self.name = _checked(name)
        self.root = paths.state / "sandbox" / name
        self.environ = os.environ if environ is None else environ
        self.run = run
        self.note = note
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The container engine, looked for when it is needed first.

        Raises:
            SandboxError: there is none that works.
        """
        if self._engine is None:
            self._engine = find_engine(self.environ, self.run)
        return self._engine

    @property
    def workspace(self) -> Workspace:
        """The workspace; it exists while there are boxes."""
        return Workspace(self.root)

    def boxes(self) -> list[SandboxBox]:
        """The boxes of this sandbox, running or not, by name."""
        return boxes.listing(self.engine, str(self.root))

    def up(
        self,
        names: Sequence[str] = (),
        *,
        os: str | None = None,
        groups: Iterable[str] = (),
        private: Private | None = None,
    ) -> list[SandboxBox]:
        """Make or start boxes, and write the workspace that reaches them.

        A box that runs is left as it is. Where a box cannot be started, or on Ctrl-C, what this
        call has made is removed again.

        Args:
            names: the boxes; none: those that there are, or one called ``box``.
            os: what new boxes run, such as ``debian:13``; None: Ubuntu 24.04 where its image
                can be pulled, else a Debian.
            groups: the inventory groups of new boxes.
            private: for new boxes that only their gateway reaches.

        Returns:
            The boxes that were asked for, in that order.

        Raises:
            UsageError: a name or ``os`` cannot be one.
            SandboxError: no engine works, or the image or a box cannot be made.
        """
        release = releases.parse(os) if os else None
        groups = [_checked_group(group) for group in groups]
        wanted = [_checked(name) for name in dict.fromkeys(names)]
        with locked(self._lock), self._undone_on_failure() as made:
            there = {box.name: box for box in self.boxes()}
            wanted = wanted or list(there) or [DEFAULT_BOX]
            # A program that is just being started when Ctrl-C comes would write on after us.
            with deferred():
                space = files.ensure_workspace(self.root, self.run)
            if missing := [name for name in wanted if name not in there]:
                image = self._images().ensure(release)
            for name in missing:
                self.note(f"starting {name} ({image.release})")
                made.append(boxes.container_name(str(self.root), name))
                boxes.create(
                    self.engine, str(self.root), name, image, groups=groups, private=private
                )
            for box in (there[name] for name in wanted if name in there):
                self._start_again(box, release)
            self._write(space, wanted)
        ready = {box.name: box for box in self.boxes()}
        return [ready[name] for name in wanted]

    def down(self, names: Sequence[str] = (), *, purge: bool = False) -> list[str]:
        """Remove boxes, and with the last one the workspace.

        Args:
            names: the boxes; none: all of this sandbox.
            purge: remove the images, too, that roost made and that no container uses.

        Returns:
            What was removed.

        Raises:
            UsageError: there is no box of that name.
            SandboxError: no engine works.
        """
        with locked(self._lock):
            there = {box.name: box for box in self.boxes()}
            for name in names:
                if name not in there:
                    raise UsageError(
                        f"no box of this sandbox is called {name!r}",
                        why=f"there are: {', '.join(there) or 'none'}",
                        fix="roost sandbox list",
                    )
            removed = list(dict.fromkeys(names)) or list(there)
            with deferred():
                files.end_connections(self.workspace, removed, self.run)
                remaining = [box.name for box in there.values() if box.name not in removed]
                if remaining:
                    self.engine.remove([there[name].container for name in removed])
                else:
                    # By their label: with one that is broken among them.
                    self.engine.remove(self.engine.ids(f"{boxes.LABEL}={self.root}"))
                    self._remove_folder()
            if remaining:
                self._write(self.workspace, [n for n in remaining if there[n].running])
            if purge:
                removed += self._images().purge()
        return removed

    @property
    def _lock(self) -> Path:
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return self.paths.runtime / f"sandbox-{digest}.lock"

    def _images(self) -> Images:
        return Images(
            engine=self.engine,
            cache=self.paths.cache / "sandbox",
            # Not in the run-time folder: the engine's images are the same in every login.
            lock=Path(tempfile.gettempdir()) / f"roost-image-{os.getuid()}.lock",
            environ=self.environ,
            note=self.note,
            run=self.run,
        )

    def _start_again(self, box: SandboxBox, release: Release | None) -> None:
        if release and box.release != str(release):
            self.note(f"{box.name} is there and runs {box.release}; it is left as it is")
        if not box.running:
            self.note(f"starting {box.name}")
            self.engine("start", box.container)

    def _write(self, space: Workspace, wanted: Iterable[str]) -> None:
        """Wait for the boxes that are wanted, and write down every one that runs."""
        key = files.public_key(self.root)
        ready = {name: boxes.wait_ready(self.engine, name, str(self.root)) for name in wanted}
        running = [ready.get(box.name, box) for box in self.boxes() if box.running]
        keys = {box.name: boxes.admit(self.engine, box, key) for box in running}
        with deferred():
            files.write_boxes(space, running, keys, self.paths)

    @contextmanager
    def _undone_on_failure(self) -> Iterator[list[str]]:
        """Collects the containers that are made; they go, and a new folder, if the block fails."""
        made: list[str] = []
        new = not self.root.exists()
        try:
            yield made
        except BaseException:
            with deferred():
                if made:
                    self.engine.remove(made)
                if new:
                    self._remove_folder()
            raise

    def _remove_folder(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.parent.is_dir() and not any(self.root.parent.iterdir()):
            self.root.parent.rmdir()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a sandbox or a box cannot be called {name!r}",
            why="it becomes a host name: a letter, then letters (all small), digits and dashes",
            fix="roost sandbox up gpu1",
        )
    return name


def _checked_group(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(
            f"a group cannot be called {name!r}", why="Ansible takes letters, digits and _ alone"
        )
    return name
