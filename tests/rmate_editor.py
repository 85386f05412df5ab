"""An editor that speaks the protocol of rmate, as a test plays it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field


@dataclass
class Editor:
    """The near side: takes one connection and speaks the protocol."""

    listener: socket.socket
    opened: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def accept(self) -> None:
        self.link, _ = self.listener.accept()
        self.link.settimeout(20)
        self.stream = self.link.makefile("rwb")
        self.say(b"An Editor 1.0\n")
        while (line := self.stream.readline()) != b".\n":
            assert line == b"open\n"
            fields = {}
            while not (line := self.stream.readline()).startswith(b"data: "):
                key, _, value = line.decode().strip().partition(": ")
                fields[key] = value
            self.opened.append((fields, self.stream.read(int(line.split()[1]))))
            assert self.stream.readline() == self.stream.readline() == b"\n"

    def say(self, text: bytes) -> None:
        self.stream.write(text)
        self.stream.flush()

    def save(self, token: str, data: bytes) -> None:
        self.say(b"save\ntoken: %s\ndata: %d\n%s\n\n" % (token.encode(), len(data), data))

    def close(self, token: str) -> None:
        self.say(b"close\ntoken: %s\n\n" % token.encode())
