"""``python -m roost.supervisor RUNTIME STATE``: how a client starts it."""

import sys

# asyncio offers TLS where it can; no TLS is spoken here, and it costs four megabytes.
sys.modules["ssl"] = None  # type: ignore[assignment]

from pathlib import Path  # noqa: E402

from roost.errors import RoostError  # noqa: E402
from roost.supervisor.daemon import run  # noqa: E402
from roost.supervisor.protocol import places  # noqa: E402

if __name__ == "__main__":
    try:
        sys.exit(run(places(Path(sys.argv[1]), Path(sys.argv[2]))))
    except RoostError as error:
        sys.exit(f"{error.what}: {error.why or error.fix}")
