"""Find or start a workspace: an ordinary Ansible project that plain Ansible runs in too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roost import content
from roost.errors import RoostError, UsageError
from roost.paths import Paths

ENVIRONMENT_VARIABLE = "ROOST_WORKSPACE"

ANSIBLE_CFG = """\
# An ordinary Ansible project: ansible-playbook playbooks/site.yml works in this folder.
[defaults]
inventory = inventory
# The roles that travel with roost; .roost is made again on every machine, and never committed.
collections_path = .roost/collections:~/.ansible/collections:/usr/share/ansible/collections
host_key_checking = True
# The system's own, which has apt's bindings, whatever else a box has; nothing to look for.
interpreter_python = /usr/bin/python3
forks = 20
# Seconds to wait for a login, and for sudo: a busy box takes more than the default of 10.
timeout = 30

[inventory]
# A file that cannot be read stops the run; it is not left out in silence.
any_unparsed_is_failed = True

[ssh_connection]
pipelining = True
# No ControlMaster of Ansible's own: the ssh config has one, so that a run and `ssh NAME` share
# a connection, and the path of its socket is short enough.
ssh_args = -C
"""

SITE_YML = """\
---
# Everything that roost provisions. Add plays of your own above or below.
- name: Provision the boxes
  import_playbook: roost.box.site
"""

GITIGNORE = """\
# Machine-local: the ssh config that roost renders, and the link to its roles.
/.roost/
"""


@dataclass(frozen=True)
class Workspace:
    """One workspace, by its top folder."""

    root: Path

    @property
    def ansible_cfg(self) -> Path:
        """The settings that every Ansible program in this workspace reads."""
        return self.root / "ansible.cfg"

    @property
    def inventory(self) -> Path:
        """The folder (or file) that Ansible reads the boxes from."""
        return self.root / "inventory"

    @property
    def known_hosts(self) -> Path:
        """The pinned host keys; a team keeps them in git beside the inventory."""
        return self.root / "known_hosts"

    @property
    def generated(self) -> Path:
        """What roost makes on this machine alone, and can make again."""
        return self.root / ".roost"

    @property
    def ssh_config(self) -> Path:
        """The rendered ssh config that ssh, roost and Ansible all connect through."""
        return self.generated / "ssh_config"

    def playbook(self, name: str) -> str:
        """The playbook called ``name``: the workspace's own, else the one that travels along.

        That one goes by its full name: by its path, Ansible would not find the roles beside it.
        """
        own = self.root / "playbooks" / f"{name}.yml"
        return str(own) if own.is_file() else f"{content.COLLECTION}.{name}"

    def ensure_generated(self) -> None:
        """Make ``.roost`` and the link to the roles; may be called any number of times.

        Raises:
            RoostError: the folder cannot be written.
        """
        link = self.generated / "collections" / content.NAMESPACE
        target = content.collection_root()
        try:
            self.generated.mkdir(mode=0o700, exist_ok=True)
            if link.is_symlink() and link.readlink() == target:
                return
            import tempfile

            link.parent.mkdir(parents=True, exist_ok=True)
            # Renamed into place, so that a run in another terminal never sees it missing.
            with tempfile.TemporaryDirectory(dir=link.parent) as folder:
                fresh = Path(folder) / link.name
                fresh.symlink_to(target)
                fresh.replace(link)
        except OSError as error:
            raise RoostError(
                f"{self.generated} cannot be written: {error.strerror}",
                fix="work in a copy of the workspace that belongs to you",
            ) from error


def find(*, flag: str | None, environ: Mapping[str, str], start: Path, paths: Paths) -> Workspace:
    """Find the workspace as git finds its repository.

    Args:
        flag: what ``-w`` says, or None.
        environ: for ``ROOST_WORKSPACE``.
        start: the folder from which the parents are searched.
        paths: for the workspace that is used where no other is found.

    Raises:
        UsageError: there is none, or the one that was named is not one.
    """
    for source, named in (("-w", flag), (ENVIRONMENT_VARIABLE, environ.get(ENVIRONMENT_VARIABLE))):
        if named:
            root = Path(named).expanduser().absolute()
            if not is_workspace(root):
                raise UsageError(
                    f"{named} is not a workspace (from {source})",
                    why="a workspace is a folder with ansible.cfg and inventory/",
                    fix=f"roost init {named}",
                )
            return Workspace(root)
    start = start.absolute()
    for folder in (start, *start.parents, paths.config):
        if is_workspace(folder):
            return Workspace(folder)
    raise UsageError(
        "there is no workspace here",
        why=f"neither {paths.display(start)}, nor a folder above it, nor "
        f"{paths.display(paths.config)} holds ansible.cfg and inventory/",
        fix="start one here: roost init",
    )


def is_workspace(folder: Path) -> bool:
    """Whether ``folder`` has what makes a workspace: ``ansible.cfg`` and ``inventory``."""
    return (folder / "ansible.cfg").is_file() and (folder / "inventory").exists()


def init(root: Path) -> list[Path]:
    """Start a workspace in ``root`` and return the files that were written.

    A file that is there already is left as it is, so that a second call adds only what is
    missing. The folder is complete or, where writing failed, as it was.

    Raises:
        RoostError: the folder cannot be written.
    """
    template = content.inventory_template()
    wanted = {
        Path("ansible.cfg"): ANSIBLE_CFG,
        Path("playbooks/site.yml"): SITE_YML,
        Path(".gitignore"): GITIGNORE,
        Path("known_hosts"): "",
    }
    for file in sorted(template.rglob("*.yml")):
        wanted[Path("inventory") / file.relative_to(template)] = file.read_text("utf-8")
    written: list[Path] = []
    folders: list[Path] = []
    try:
        for name, text in wanted.items():
            path = root / name
            if not path.exists():
                missing = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
                path.parent.mkdir(parents=True, exist_ok=True)
                folders += reversed(missing)
                written.append(path)
                path.write_text(text, "utf-8")
        Workspace(root).ensure_generated()
    except (OSError, RoostError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()
        if isinstance(error, RoostError):
            raise
        raise RoostError(f"{root} cannot be written: {error.strerror}") from error
    return written
