"""Run a program on a terminal of its own, and answer its questions: for a box without pexpect.

``python3 terminal_driver.py '[["question", "answer"], ...]' PROGRAM ARG…``: every question is
waited for in its turn (a regular expression), and its answer typed. All that the program showed
goes to standard output; the exit code is the program's.
"""

import json
import os
import pty
import re
import select
import sys
import time

SECONDS = 120


def main():
    script = json.loads(sys.argv[1])
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606
    seen, fresh, deadline = b"", b"", time.monotonic() + SECONDS
    while True:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
        try:
            ready = select.select([terminal], [], [], 1)[0]
            chunk = os.read(terminal, 4096) if ready else None
        except OSError:
            break
        if chunk == b"":
            break
        seen, fresh = seen + (chunk or b""), fresh + (chunk or b"")
        if script and re.search(script[0][0].encode(), fresh):
            fresh = b""
            os.write(terminal, script.pop(0)[1].encode() + b"\n")
    sys.stdout.buffer.write(seen)
    _, status = os.waitpid(pid, 0)
    if script:
        sys.stdout.write(f"\nnever asked: {script}\n")
        sys.exit(99)
    sys.exit(os.waitstatus_to_exitcode(status))


main()
