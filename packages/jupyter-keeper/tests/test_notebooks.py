"""What needs no server to be tried of the shared notebooks."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from jupyter_keeper.keeper import Keeper
from jupyter_keeper.notebooks import Notebook
from jupyter_keeper.outputs import Limits

ENDS = """
import asyncio
from anyio import to_thread
from jupyter_keeper.notebooks import end_threads_with_main

async def keep_a_thread(started):
    await to_thread.run_sync(print, "used")
    started.set()
    await asyncio.Event().wait()

async def main():
    started = asyncio.Event()
    tasks.append(asyncio.create_task(keep_a_thread(started)))
    await started.wait()
    loop.stop()

tasks = []
end_threads_with_main()
loop = asyncio.new_event_loop()
loop.create_task(main())
loop.run_forever()
print("stopped", flush=True)
"""


def test_a_process_ends_though_a_task_keeps_a_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "used\nstopped\n"), done.stderr


def test_what_comes_while_a_save_goes_on_is_saved_before_the_end() -> None:
    file: list[str] = []
    room = SimpleNamespace(
        text="first", awareness=SimpleNamespace(states={}), _file=SimpleNamespace(path="nb.ipynb")
    )

    async def main() -> None:
        writes, written = asyncio.Event(), asyncio.Event()

        async def save(task: Any, save_now: bool) -> None:
            text = room.text
            writes.set()
            await written.wait()
            file.append(text)

        room._maybe_save_document = save
        log = logging.getLogger()
        book = Notebook(room, log)
        keeper: Any = Keeper([book], Limits(), flush_interval=1, save_interval=5, log=log)
        book.touched()
        keeper.tick()
        await writes.wait()
        room.text = "last"
        book.touched()
        asyncio.get_running_loop().call_later(0.1, written.set)
        await keeper.save_all()

    asyncio.run(main())
    assert file == ["first", "last"]
