"""The file that a job's output goes to."""

import os
import time

from roost.onbox.files import write_all


class Log:
    """The log, with the times at which it grew.

    A full disk does not lose output: the command waits, as at a full pipe, until there is room.
    """

    def __init__(self, folder: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.fd = os.open(os.path.join(folder, "log"), flags, 0o600)
        self.times = os.open(os.path.join(folder, "times"), flags, 0o600)
        self.size = 0
        self.stamped = 0
        self.carry = b""

    def write(self, data: bytes, *, cooked: bool) -> None:
        """Add what came from the terminal.

        Args:
            data: the bytes.
            cooked: the terminal has turned every newline into CR NL: the log has what the
                command wrote.
        """
        data, self.carry = self.carry + data, b""
        if cooked:
            keep = len(data) - 1 if data.endswith(b"\r") else len(data)
            data, self.carry = data[:keep].replace(b"\r\n", b"\n"), data[keep:]
        now = int(time.time())
        if now != self.stamped and data:
            write_all(self.times, b"%d %d\n" % (now, self.size))
            self.stamped = now
        write_all(self.fd, data)
        self.size += len(data)
