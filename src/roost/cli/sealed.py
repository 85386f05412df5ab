"""What ``roost up`` and ``roost check`` have in common: the seals of the boxes (docs/seal.md)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roost.cli.context import Context
    from roost.events import Outcome
    from roost.job_stream import Remote
    from roost.seal_basis import Basis
    from roost.seals import Look, Record, Sealed


class Session:
    """One run, or one look, as far as seals are concerned.

    Args:
        ctx: the call.
        names: boxes and groups; none: every box.
    """

    def __init__(self, ctx: Context, names: Sequence[str]) -> None:
        import os

        from roost.cli.boxes import remotes

        self._ctx = ctx
        self.run = os.urandom(8).hex()
        self.ways = remotes(ctx, names)
        self._unpinned: dict[str, str] = {}
        self._unbegun: set[str] = set()

    @property
    def boxes(self) -> list[str]:
        """The boxes that it is about, by their names."""
        return [way.box.name for way in self.ways]

    @cached_property
    def _basis(self) -> Basis | None:
        from roost.seal_basis import Basis, NotSealableError

        today = time.strftime("%Y-%m-%d", time.gmtime())
        try:
            return Basis(self._ctx.workspace(), self._ctx.fleet(), self._ctx.environ, today)
        except NotSealableError as error:
            self._unpinned = dict.fromkeys(self.boxes, error.what)
            return None

    @property
    def together(self) -> bool:
        """Whether all boxes have to run where one is not in order."""
        return self._basis is None or self._basis.together

    @cached_property
    def _bases(self) -> dict[str, str]:
        """The fingerprint of each box, of before the run; empty where there is none."""
        from roost.seal_basis import NotSealableError

        found = dict.fromkeys(self.boxes, "")
        if self._basis:
            for way in self.ways:
                try:
                    found[way.box.name] = self._basis.of(way.box)
                except NotSealableError as error:
                    self._unpinned[way.box.name] = error.what
        return found

    def look(self, *, for_run: bool) -> list[Look]:
        """Look at all seals at once.

        Args:
            for_run: a run follows on the boxes that are not in order: their seals are taken away.
        """
        from roost import seals
        from roost.cli.boxes import on_each

        run = self.run if for_run else None

        def basis(name: str) -> str:
            with lock:  # the logins are under way meanwhile
                return self._bases[name]

        def work(way: Remote) -> Look:
            return seals.look(way, partial(basis, way.box.name), run=run)

        lock = threading.Lock()
        found, _ = on_each(self._ctx, self.ways, work)
        self._unbegun = {one.box for one in found if one.state in ("unknown", "unreachable")}
        return found

    def begin(self, *, whole: bool = True) -> None:
        """Take the seals away, whatever they say.

        Args:
            whole: the run is one that seals the boxes in the end.
        """
        from roost import seals
        from roost.cli.boxes import on_each

        # Now: what is edited while the run goes on is not what it was made from.
        _ = self._bases
        whys, _ = on_each(self._ctx, self.ways, partial(seals.begin, run=self.run if whole else ""))
        self._unbegun = {w.box.name for w, why in zip(self.ways, whys, strict=True) if why}

    def seal(self, outcome: Outcome) -> None:
        """Seal the boxes that came well out of the run, and say which cannot be sealed, and why."""
        from roost import seals
        from roost.cli.boxes import on_each

        try:
            record = seals.Record.read(outcome.record)
        except ValueError:
            record = seals.Record()
        obstacles: dict[str, list[str]] = {}
        ready = []
        for way in self.ways:
            box = outcome.boxes.get(way.box.name)
            if box is None or box.state in ("failed", "unreachable"):
                continue
            unpinned = self._unpinned.get(way.box.name)
            found = [unpinned] if unpinned else record.obstacles(way.box.name)
            if found:
                obstacles[way.box.name] = found
            else:
                ready.append(way)
        if ready:
            done, _ = on_each(self._ctx, ready, partial(self._seal, record))
            for way, one in zip(ready, done, strict=True):
                if one.refused:
                    obstacles[way.box.name] = [one.refused]
                for thing, what in one.unmended:
                    said = f"{way.box.name}: the run left {thing} as it was: {', '.join(what)}"
                    self._ctx.out.note(said)
        self._say(obstacles)

    def _seal(self, record: Record, way: Remote) -> Sealed:
        from roost import seals

        name = way.box.name
        basis, unbegun = self._bases[name], name in self._unbegun
        return seals.seal(way, record, run=self.run, basis=basis, unbegun=unbegun)

    def _say(self, obstacles: dict[str, list[str]]) -> None:
        import textwrap

        alike: dict[tuple[str, ...], list[str]] = {}
        for name, found in obstacles.items():
            alike.setdefault(tuple(found), []).append(name)
        for whys, names in alike.items():
            shown = whys if self._ctx.verbose else whys[:1]
            more = f" (and {len(whys) - 1} more: -v)" if len(whys) > len(shown) else ""
            said = f"{', '.join(names)}: not sealed: {'; '.join(shown)}{more}"
            self._ctx.out.note(textwrap.fill(said, 79, subsequent_indent="  "))


def narrow(ctx: Context, session: Session, begun: float) -> bool:
    """Look at the seals before a run, say what differs, and what was verified.

    Args:
        ctx: the call.
        session: the run.
        begun: when the call began (``time.monotonic``).

    Returns:
        Whether a run has to follow; the session is then about the boxes that need it.
    """
    looks = session.look(for_run=True)
    fine = [one for one in looks if one.state == "in order"]
    if fine and len(fine) < len(looks) and session.together:
        # What becomes of one of them may depend on the others: all of them run.
        session.begin()
        fine = []
    say_differences(ctx, looks)
    if fine:
        ctx.out.note(verified(fine, begun))
    done = {one.box for one in fine}
    session.ways = [way for way in session.ways if way.box.name not in done]
    return bool(session.ways)


def say_differences(ctx: Context, looks: Sequence[Look]) -> None:
    """Name on standard error what is not as it was when a box was sealed."""
    for one in looks:
        for thing, what in one.differs:
            ctx.out.note(f"{one.box}: {thing}: {', '.join(what)}")


def verified(fine: Sequence[Look], begun: float) -> str:
    """``12 boxes in order, 61 things verified on each, 0.6 s``."""
    counts = sorted({one.count for one in fine})
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    boxes = f"{len(fine)} box" + ("es" if len(fine) != 1 else "")
    each = " on each" if len(fine) > 1 else ""
    took = f"{time.monotonic() - begun:.1f} s"
    things = "thing" if counts == [1] else "things"
    return f"{boxes} in order, {many} {things} verified{each}, {took}"
