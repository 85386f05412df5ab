"""Key pairs on this side, and the public key on the box."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roost import process, ssh
from roost.errors import ProcessError, RoostError, UnreachableError, UsageError
from roost.model import Box, Fleet
from roost.ssh_failure import RefusedKeyError, explain_failure

# The order in which a new box gets a key that is there already; ssh's own names for them.
DEFAULT_NAMES = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")

_BATCH = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={ssh.CONNECT_SECONDS}"]
_ALONE = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]

# Reads one public key and appends it once. The key goes through standard input: what a box's
# process list shows is public, and its login shell may be any. A file without a final line
# feed would swallow the key.
_INSTALL = """\
umask 077
IFS= read -r key || exit 3
blob=$(printf '%s' "$key" | cut -d' ' -f2)
folder=$HOME/.ssh file=$HOME/.ssh/authorized_keys
mkdir -p "$folder" || exit 4
touch "$file" || exit 4
if ! grep -v '^[[:space:]]*#' "$file" | grep -qF -- "$blob"; then
    if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then echo >>"$file" || exit 4; fi
    printf '%s\\n' "$key" >>"$file" || exit 4
fi
chmod go-w "$folder" "$file"
if command -v restorecon >/dev/null 2>&1; then restorecon -F "$folder" "$file" 2>/dev/null; fi
exit 0
"""

# Says how many lines it took out; a symbolic link stays one, and a full disk changes nothing.
_TAKE_AWAY = """\
set -eu
IFS= read -r key
blob=$(printf '%s' "$key" | cut -d' ' -f2)
file=$HOME/.ssh/authorized_keys
[ -f "$file" ] || { echo 0; exit 0; }
file=$(readlink -f "$file")
umask 077
rest=$(mktemp "$file.XXXXXX")
trap 'rm -f "$rest"' EXIT
cp -p "$file" "$rest"
awk -v blob="$blob" '
    { for (n = 1; n <= NF && $1 !~ /^#/; n++) if ($n == blob) next; print }' "$file" >"$rest"
there=$(awk 'END { print NR }' "$file") left=$(awk 'END { print NR }' "$rest")
[ "$there" = "$left" ] || mv "$rest" "$file"
echo $((there - left))
"""


@dataclass(frozen=True)
class Identity:
    """The key that a box is to accept.

    Attributes:
        file: for ``roost_identity``, with ``~``; empty for a key that only the agent has.
        public: the public key, one line; empty where it has still to be made.
    """

    file: str
    public: str


def choose(folder: Path, environ: Mapping[str, str], wanted: str | None = None) -> Identity | None:
    """The key for a new box: the one that is named, else the best that is there.

    Args:
        folder: the user's ``.ssh``.
        environ: for the agent's socket.
        wanted: a private or public key file, as the user names it; ``~`` is the user's home.

    Returns:
        None where there is no key at all.

    Raises:
        UsageError: the named file is no key, or only the user can say which key of the agent.
    """
    home = folder.parent
    if wanted:
        path = home / wanted[2:] if wanted.startswith("~/") else Path(wanted).absolute()
        if not path.is_file():
            raise UsageError(
                f"there is no key file {wanted}",
                fix=f"make one: ssh-keygen -t ed25519 -f {wanted}",
            )
        return Identity(tilde(path, home), public_key(path))
    for name in DEFAULT_NAMES:
        if (folder / name).is_file():
            return Identity(tilde(folder / name, home), public_key(folder / name))
    offered = agent_keys(environ)
    if len(offered) > 1:
        raise UsageError(
            f"the agent offers {len(offered)} keys, and {folder} has none",
            why="a server cuts off who tries too many",
            fix="save the public key that you want, and name the file: --identity FILE.pub",
        )
    return Identity("", offered[0]) if offered else None


def agent_keys(environ: Mapping[str, str]) -> list[str]:
    """The public keys that the agent holds; none where there is no agent."""
    if not environ.get("SSH_AUTH_SOCK"):
        return []
    try:
        done = process.run(["ssh-add", "-L"], check=False, timeout=10, env=environ)
    except ProcessError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def public_key(path: Path) -> str:
    """The public half of the key in ``path``, one line.

    Raises:
        UsageError: it is no key, or it is locked and its ``.pub`` is missing.
    """
    beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    if beside.is_file():
        text = beside.read_text("utf-8", "replace").strip()
    else:
        done = process.run(["ssh-keygen", "-y", "-P", "", "-f", path], check=False, timeout=10)
        text = done.stdout.strip()
        if done.returncode != 0:
            raise UsageError(
                f"the public key of {path} cannot be read",
                why=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else None,
                fix=f"write it beside the private one: ssh-keygen -y -f {path} > {beside}",
            )
    check = process.run(["ssh-keygen", "-l", "-f", "-"], input=text + "\n", check=False, timeout=10)
    if check.returncode != 0 or "\n" in text:
        raise UsageError(f"{beside} is no public key")
    return text


def make(folder: Path, comment: str, *, ask: bool) -> Identity:
    """Make an ed25519 key pair in ``folder``.

    Args:
        folder: the user's ``.ssh``, made with mode 0700 where it is missing.
        comment: what the public key says at its end.
        ask: let ssh-keygen ask for a passphrase on the terminal; else there is none.

    Raises:
        RoostError: it cannot be made.
    """
    path = folder / "id_ed25519"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RoostError(f"{folder} cannot be made: {error.strerror}") from error
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-C", comment, "-f", str(path)]
    if ask:
        code = process.interactive(argv)
    else:
        code = process.run([*argv, "-N", ""], check=False).returncode
    if code != 0 or not path.is_file():
        raise RoostError("no key pair was made", fix=process.display(argv))
    if ask and sys.platform == "darwin":
        # The keychain asks for the passphrase from now on, not ssh.
        process.interactive(["ssh-add", "--apple-use-keychain", str(path)])
    return Identity(tilde(path, folder.parent), public_key(path))


def accepted(config: Path, box: Box, fleet: Fleet, *, any_key: bool = False) -> bool:
    """Whether the box lets us in without a question.

    Args:
        config: an ssh config that has the box, its host key pinned.
        box: the box.
        fleet: for its gateways.
        any_key: try the agent's other keys, too.

    Raises:
        UnreachableError: the box does not answer at all, or shows another host key.
    """
    options = [*_BATCH, "-o", "IdentitiesOnly=no"] if any_key else _BATCH
    options = [*options, *_ALONE]
    done = process.run(ssh.command(config, box.name, "exit 0", options=options), check=False)
    if done.returncode != ssh.TRANSPORT_FAILED:
        return True
    error = explain_failure(box, done.stderr, fleet)
    if isinstance(error, RefusedKeyError) and error.box == box.name:
        return False
    raise error


def install(config: Path, box: Box, public: str, fleet: Fleet, environ: Mapping[str, str]) -> None:
    """Put ``public`` into ``authorized_keys`` on the box, where it is not there yet.

    Another key that the box accepts opens it, else the password: ssh itself asks for it, on the
    terminal or by the user's askpass program, so that it never passes through roost.

    Raises:
        UnreachableError: the box does not let us in.
        RoostError: the key could not be written.
    """
    other_key = accepted(config, box, fleet, any_key=True)
    by_key = [*_BATCH, "-o", "IdentitiesOnly=no"]
    by_password = ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=3"]
    options = [*_ALONE, *(by_key if other_key else by_password)]
    argv = ssh.command(config, box.name, ssh.remote_sh(_INSTALL), options=options)
    # No time limit: a person types.
    with process.start(argv, stdin=subprocess.PIPE, stderr=None, env=environ) as child:
        child.communicate(public + "\n")
    if child.returncode == ssh.TRANSPORT_FAILED:
        raise UnreachableError(
            f"{box.name} lets nobody in without a key that it knows",
            why="ssh's own message stands above",
            fix="put this line into ~/.ssh/authorized_keys there, by the provider's console, and "
            f"add the box with --key-installed: {public}",
        )
    if child.returncode != 0:
        raise RoostError(
            f"the key could not be written on {box.name} (exit code {child.returncode})",
            fix="see to ~/.ssh/authorized_keys there: its owner, its modes, a full disk",
        )


def take_away(config: Path, box: Box, public: str, fleet: Fleet) -> bool:
    """Take ``public`` out of ``authorized_keys`` on the box, and return whether it was there.

    Raises:
        UnreachableError: the box does not let us in.
        ProcessError: the file could not be written.
    """
    done = ssh.run(config, box, _TAKE_AWAY, fleet=fleet, input=public + "\n")
    return done.stdout.strip() != "0"


def tilde(path: Path, home: Path) -> str:
    """``path`` with ``~`` for the home: a team shares the inventory, not the home."""
    try:
        return "~/" + str(path.relative_to(home))
    except ValueError:
        return str(path)
