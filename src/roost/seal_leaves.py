"""What a task of Ansible's leaves behind on a box, from its module, its arguments and its result.

Imported by the callback that records a run, inside of ``ansible-playbook``: nothing heavy here.
A leaf is something that ``roost.onbox.observe`` can look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Leaf = dict[str, Any]
Values = Mapping[str, Any]
# Modules of these collections are known by their short names.
PREFIXES = ("ansible.builtin.", "ansible.legacy.", "roost.box.")
# The name under which a task's `vars`, or a module's result, tells what it leaves behind.
DECLARED = "roost_leaves"

# They say or decide something, and change nothing on a box.
WITHOUT_OUTCOME = frozenset({
    "add_host", "assert", "debug", "fail", "group_by", "import_role", "import_tasks",
    "include_role", "include_tasks", "include_vars", "meta", "pause", "ping", "set_fact",
    "validate_argument_spec", "wait_for", "wait_for_connection",
})  # fmt: skip
COMMANDS = frozenset({"command", "raw", "script", "shell"})
# What these facts depend on is the installed release.
FACTS_OF_THE_RELEASE = {"!all", "!min", "distribution", "platform"}


class UncoveredError(Exception):
    """Nobody can tell what the task leaves behind; the message says why."""


@dataclass(frozen=True)
class Task:
    """One task that ended well on one box.

    Attributes:
        action: its module, by whichever name.
        changes_nothing: the playbook says ``changed_when: false``.
        answers: its result is kept under a name, so that something may depend on it.
        elsewhere: it ran on another machine than the box.
        in_background: nobody waited for it.
        declared: what it declares itself; None where it declares nothing.
    """

    action: str
    changes_nothing: bool = False
    answers: bool = False
    elsewhere: bool = False
    in_background: bool = False
    declared: list[Leaf] | None = None

    @property
    def module(self) -> str:
        """The short name of its module."""
        for prefix in PREFIXES:
            if self.action.startswith(prefix):
                return self.action.removeprefix(prefix)
        return self.action


def leaves(task: Task, result: Values) -> list[Leaf]:
    """What ``task`` left behind, or looked at and relied upon.

    Args:
        task: the task.
        result: what its module answered, as a callback is given it.

    Raises:
        UncoveredError: that cannot be told.
    """
    if task.declared is not None:
        return task.declared
    if task.module in WITHOUT_OUTCOME:
        return []
    if task.changes_nothing and not task.answers:
        return []
    if task.elsewhere:
        raise UncoveredError("it works on another machine")
    if task.in_background:
        raise UncoveredError("it runs in the background")
    if "censored" in result:
        raise UncoveredError("no_log hides what it does")
    found: list[Leaf] = []
    for one in result["results"] if isinstance(result.get("results"), list) else [result]:
        if not one.get("skipped"):
            found += _of_one(task.module, one)
    return found


def _of_one(module: str, result: Values) -> list[Leaf]:
    if isinstance(result.get(DECLARED), list):
        return list(result[DECLARED])
    args = (result.get("invocation") or {}).get("module_args") or {}
    if module in COMMANDS:
        made = args.get("creates") or args.get("removes")
        if made:
            return [{"path": str(made), "only": ["type"]}]
        raise UncoveredError(f"what a {module} does is unknown")
    if module not in MODULES:
        raise UncoveredError(f"there is no observer for the module {module}")
    return MODULES[module](args, result)


def _file(args: Values, result: Values) -> list[Leaf]:
    path = result.get("dest") or result.get("path") or args.get("dest") or args.get("path")
    if not path:
        raise UncoveredError("it does not say which file it is")
    return [{"tree" if args.get("recurse") else "path": str(path)}]


def _copy(args: Values, result: Values) -> list[Leaf]:
    # Of a folder neither the result nor the fingerprint tells what is in it.
    if "checksum" not in result:
        raise UncoveredError("it copies a folder")
    return _file(args, result)


def _small_files(args: Values, result: Values) -> list[Leaf]:
    return [_small_file(spec) for spec in args["files"]]


def _small_file(spec: Values) -> Leaf:
    leaf: Leaf = {"path": spec["path"], "follow": bool(spec.get("follow"))}
    if spec.get("state", "file") == "file":
        content = str(spec.get("content") or "").encode("utf-8", "surrogateescape")
        leaf["expect"] = {"content": hashlib.sha256(content).hexdigest()}
    return leaf


def _stat(args: Values, result: Values) -> list[Leaf]:
    return [{"path": str(args["path"]), "follow": bool(args.get("follow"))}]


def _slurp(args: Values, result: Values) -> list[Leaf]:
    return [{"path": str(args["src"]), "follow": True}]


def _apt(args: Values, result: Values) -> list[Leaf]:
    state = args.get("state") or "present"
    if args.get("deb") or args.get("upgrade") not in (None, "no", "False", False):
        raise UncoveredError("what it installs depends on the archive")
    if state not in ("present", "absent"):
        raise UncoveredError(f"with state: {state} it depends on the archive")
    names = [str(name).partition("=")[0] for name in args.get("package") or args.get("name") or []]
    if any("*" in name or ":" in name for name in names):
        raise UncoveredError("it names packages by a pattern")
    expected = {"expect": {"status": "installed"}} if state == "present" else {}
    return [{"package": name, **expected} for name in names]


def _user(args: Values, result: Values) -> list[Leaf]:
    if args.get("generate_ssh_key"):
        raise UncoveredError("it makes a key")
    groups = args.get("groups") or []
    listed = groups.split(",") if isinstance(groups, str) else groups
    return [{"user": str(args["name"])}, *({"group": str(name)} for name in listed)]


def _group(args: Values, result: Values) -> list[Leaf]:
    return [{"group": str(args["name"])}]


def _unit(args: Values, result: Values) -> list[Leaf]:
    if args.get("scope") not in (None, "system"):
        raise UncoveredError("it is about units of a person")
    name = args.get("name")
    if not name:
        return []
    return [{"unit": str(name) if "." in str(name) else f"{name}.service"}]


def _setup(args: Values, result: Values) -> list[Leaf]:
    subset = set(args.get("gather_subset") or ["all"])
    if not {"!all", "!min"} <= subset <= FACTS_OF_THE_RELEASE:
        raise UncoveredError("facts may be anything; gather_subset names the few that are needed")
    # Its architecture a machine keeps as long as the disk that the seal is on.
    return [{"path": "/etc/os-release", "follow": True}]


MODULES: dict[str, Callable[[Values, Values], list[Leaf]]] = {
    "apt": _apt,
    "blockinfile": _file,
    "copy": _copy,
    "file": _file,
    "get_url": _file,
    "group": _group,
    "lineinfile": _file,
    "replace": _file,
    "service": _unit,
    "setup": _setup,
    "gather_facts": _setup,
    "slurp": _slurp,
    "small_files": _small_files,
    "stat": _stat,
    "systemd": _unit,
    "systemd_service": _unit,
    "template": _copy,
    "user": _user,
}
