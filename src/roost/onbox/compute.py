"""Have every kernel of the person compute a cell; runs in the box's JupyterLab.

Prints one JSON object: for each kernel what went wrong, empty where it computed. The kernels
listen on sockets in a private folder, not on ports, and are ended in any case.
"""

import concurrent.futures
import json
import subprocess
import tempfile
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

READY = 60
AT_ONCE = 2
# Languages in which the cell is an expression; of others it is enough that the kernel answers.
CELL, ANSWER = "6 * 7", "42"
KNOWN = ("python", "R", "julia")


def compute(name: str, folder: str) -> str:
    """What went wrong, or nothing."""
    manager = KernelManager(
        kernel_name=name, transport="ipc", connection_file=f"{folder}/{name}.json"
    )
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        said.append(str(content.get("data", {}).get("text/plain", content.get("text", ""))))

    try:
        manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=READY)
        if manager.kernel_spec.language not in KNOWN:
            return ""
        reply = client.execute_interactive(CELL, timeout=READY, output_hook=hear)["content"]
        if reply["status"] != "ok":
            return f"{reply.get('ename')}: {reply.get('evalue')}"
        return "" if any(ANSWER in text for text in said) else f"{CELL} gave {said}"
    except Exception as error:  # whatever a kernel does is an answer about that kernel
        return f"{type(error).__name__}: {error}"
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


def main() -> None:
    """Ask each of them."""
    names = sorted(KernelSpecManager().find_kernel_specs())
    with (
        tempfile.TemporaryDirectory(prefix="roost-doctor-") as folder,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        answers = pool.map(lambda name: compute(name, folder), names)
        print(json.dumps(dict(zip(names, answers, strict=True))))  # noqa: T201 - the answer


main()
