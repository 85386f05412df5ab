"""``python -m jupyter_keeper``: whether the keeper works with what is installed here.

Prints JSON. Exit code 0: it does; 1: the server would run as without it.
"""

from __future__ import annotations

import json
import sys

from .versions import findings


def main() -> int:
    found = findings()
    report = {
        "fine": all(finding.fine for finding in found),
        "versions": {
            finding.name: {"installed": finding.installed, "supported": finding.supported}
            for finding in found
        },
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if report["fine"] else 1


if __name__ == "__main__":
    sys.exit(main())
