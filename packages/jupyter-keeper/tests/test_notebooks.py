"""What needs no server to be tried of the shared notebooks."""

from __future__ import annotations

import asyncio
import threading

from anyio import to_thread

from jupyter_keeper.notebooks import end_threads


def test_a_thread_that_is_told_to_end_again_and_again_ends() -> None:
    """A server that is stopped while a slow disk is written tells it more than once."""
    threads: list[threading.Thread] = []
    started, release = threading.Event(), threading.Event()

    def write_slowly() -> None:
        threads.append(threading.current_thread())
        started.set()
        release.wait(60)

    async def main() -> None:
        writing = asyncio.create_task(to_thread.run_sync(write_slowly))
        await asyncio.to_thread(started.wait, 60)
        for _ in range(4):
            end_threads()
        release.set()
        await writing

    asyncio.run(main())
    threads[0].join(60)
    assert not threads[0].is_alive()
