#!/usr/bin/python3
"""rmate: edit files of this box in the editor on the near side of the ssh connection.

The editor (TextMate, VS Code or Sublime Text with their remote extensions) listens there, and ssh
forwards a socket or a port of the box to it. Source of the protocol: what those editors speak,
lines of `name: value` with the file's bytes after `data: LENGTH`.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

SETTINGS = ("/etc/rmate.rc", "~/.rmate.rc")
DEFAULTS = {"socket": "~/.rmate.sock", "host": "localhost", "port": "52698"}
LARGEST = 100 * 1024 * 1024


class RmateError(Exception):
    """A file cannot be edited, or no editor answers."""


def settings() -> dict[str, str]:
    """Where the editor is: the files of the box and of the person, then the environment."""
    found = dict(DEFAULTS)
    for name in SETTINGS:
        path = Path(name).expanduser()
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            key, colon, value = line.partition(":")
            if colon and not key.lstrip().startswith("#"):
                found[key.strip()] = value.strip()
    for key in DEFAULTS:
        found[key] = os.environ.get(f"RMATE_{key.upper()}", found[key])
    return found


def connect(where: dict[str, str]) -> socket.socket:
    """Connect to the editor: by the person's own socket where it leads on, else by the port.

    sshd leaves the file of a socket behind when the connection that it belonged to has ended.

    Raises:
        RmateError: nobody answers.
    """
    path = Path(where["socket"]).expanduser()
    try:
        if path.is_socket():
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.connect(str(path))
                return link
            except ConnectionRefusedError:
                link.close()
        return socket.create_connection((where["host"], int(where["port"])), timeout=10)
    except (OSError, ValueError) as error:
        raise RmateError(
            f"no editor answers at {path} or {where['host']}:{where['port']} ({error}). On your "
            "own machine, start its rmate server, and: roost tunnel open BOX rmate"
        ) from None


def refuse_strangers(link: socket.socket) -> None:
    """See that nobody else's editor is at the port: whoever comes first can listen there.

    Called when the other end has said something: before that, the kernel names no owner.

    Raises:
        RmateError: another user of this box holds the other end.
    """
    owner = None if link.family == socket.AF_UNIX else user_behind(link)
    if owner not in (None, os.getuid()):
        raise RmateError(
            f"port {link.getpeername()[1]} leads to the editor of somebody else (user {owner}). "
            "For a way of your own, on your own machine: roost tunnel open BOX rmate"
        )


def user_behind(link: socket.socket) -> int | None:
    """The user id that holds the other end of a TCP connection; None on another machine.

    Source: proc(5), /proc/net/tcp.
    """
    ports = [link.getpeername()[1], link.getsockname()[1]]
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            words = line.split()
            if [int(end.rpartition(":")[2], 16) for end in words[1:3]] == ports:
                return int(words[7])
    return None


class Document:
    """One file that is open in the editor.

    Args:
        name: the path as given; ``-`` for the standard input.
        shown: the name that the editor shows.
    """

    def __init__(self, name: str, shown: str = "") -> None:
        self.pipe = name == "-"
        self.path = Path("untitled (stdin)" if self.pipe else os.path.realpath(name))
        self.shown = shown or f"{socket.gethostname()}:{'stdin' if self.pipe else name}"
        self.token = name if self.pipe else str(self.path)
        self.data = self._read()

    def _read(self) -> bytes:
        if self.pipe:
            return sys.stdin.buffer.read()
        if self.path.is_dir():
            raise RmateError(f"{self.path} is a folder; rmate opens files")
        if not self.path.exists():
            return b""
        if self.path.stat().st_size > LARGEST:
            raise RmateError(f"{self.path} is larger than {LARGEST >> 20} MB")
        return self.path.read_bytes()

    def writable(self) -> bool:
        """Whether the file can be written, or made."""
        if self.path.exists():
            return os.access(self.path, os.W_OK)
        return self.path.parent.is_dir() and os.access(self.path.parent, os.W_OK)

    def request(self, options: dict[str, str]) -> bytes:
        """What asks the editor to open it."""
        fields = {
            "display-name": self.shown,
            "real-path": str(self.path),
            "data-on-save": "yes",
            "re-activate": "yes",
            "token": self.token,
            **options,
            "data": str(len(self.data)),
        }
        head = "".join(f"{key}: {value}\n" for key, value in fields.items())
        return b"open\n" + head.encode() + self.data + b"\n\n"

    def save(self, data: bytes) -> None:
        """Write what the editor sends: the file is the old or the new one, never half of it."""
        if self.pipe:
            self.data = data
            return
        now = self.path.stat() if self.path.exists() else None
        if now and (now.st_nlink > 1 or now.st_uid != os.getuid()):
            # A new file in its place would lose its other names, or its owner.
            backup = self.path.with_name(self.path.name + "~")
            shutil.copy2(self.path, backup)
            self.path.write_bytes(data)
            backup.unlink()
            return
        handle, new = tempfile.mkstemp(prefix=".rmate-", dir=self.path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(handle)
        if now:
            shutil.copystat(self.path, new)
            os.utime(new)
        else:
            umask = os.umask(0)
            os.umask(umask)
            Path(new).chmod(0o666 & ~umask)
        Path(new).replace(self.path)


def serve(stream: io.BufferedIOBase, documents: dict[str, Document]) -> None:
    """Do what the editor says until it has closed all documents, or is gone."""
    while documents:
        command = stream.readline()
        if not command:
            return
        fields, data = read_fields(stream)
        document = documents.get(fields.get("token", ""))
        if document is None:
            continue
        if command.strip() == b"save":
            try:
                document.save(data)
            except OSError as error:
                print(f"rmate: {document.path} is not saved: {error}", file=sys.stderr)
        elif command.strip() == b"close":
            del documents[document.token]


def read_fields(stream: io.BufferedIOBase) -> tuple[dict[str, str], bytes]:
    """Read the lines of one command, up to the empty one, and the bytes that they announce."""
    fields: dict[str, str] = {}
    data = b""
    while line := stream.readline().strip():
        key, _, value = line.decode(errors="replace").partition(":")
        fields[key.strip()] = value.strip()
        if key.strip() == "data":
            data = stream.read(int(value))
            if len(data) < int(value):  # the connection broke: half a file is not saved
                return {}, b""
            stream.readline()
    return fields, data


def go_to_background() -> None:
    """Give the shell its prompt back, and go on without its terminal."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="rmate", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="- for the standard input")
    parser.add_argument("-w", "--wait", action="store_true", help="return when it is closed")
    parser.add_argument("-l", "--line", help="go to this line")
    parser.add_argument("-m", "--name", default="", help="the name that the editor shows")
    parser.add_argument("-t", "--type", help="treat the file as of this type")
    parser.add_argument("-n", "--new", action="store_true", help="open it in a new window")
    parser.add_argument("-f", "--force", action="store_true", help="also where it is read-only")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Open the files; without ``--wait`` go on in the background until they are closed."""
    args = parse(argv)
    options = {"selection": args.line, "file-type": args.type, "new": "yes" if args.new else None}
    given = {key: value for key, value in options.items() if value}
    try:
        documents = {d.token: d for d in (Document(name, args.name) for name in args.files)}
        for document in documents.values():
            if not (document.pipe or args.force or document.writable()):
                raise RmateError(f"{document.path} cannot be written (--force opens it anyway)")
        link = connect(settings())
        link.settimeout(None)
        stream = link.makefile("rwb")
        stream.readline()  # the editor's greeting
        refuse_strangers(link)
    except (RmateError, OSError) as error:
        print(f"rmate: {error}", file=sys.stderr)
        return 1
    for document in documents.values():
        stream.write(document.request(given))
    stream.write(b".\n")
    stream.flush()
    pipes = [document for document in documents.values() if document.pipe]
    if not (args.wait or pipes):
        go_to_background()
    serve(stream, documents)
    for document in pipes:
        sys.stdout.buffer.write(document.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
