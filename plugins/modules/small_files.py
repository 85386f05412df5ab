#!/usr/bin/python
"""Ansible module: put many small files in order in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: small_files
short_description: Put many small files in order in one execution
description:
  - Does what a loop over M(ansible.builtin.copy) and M(ansible.builtin.file) does, in the time of
    one module execution.
  - A file is written to a temporary file in its own folder, flushed to the disk and renamed, so
    that nobody ever reads half of it and a crash leaves the old or the new one.
  - Symbolic links are replaced, never written through, unless O(files[].follow) is set.
options:
  files:
    description: What is wanted, in order. Missing parent folders are made with mode 0755.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      state:
        description: What it is to be. V(absent) removes files, links and empty folders.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: The whole content of a V(file).
        type: str
        default: ""
      target:
        description: Where a V(link) points to.
        type: str
        default: ""
      mode:
        description: The permissions, in octal; 0644 for files and 0755 for folders by default.
        type: str
        default: ""
      owner:
        description: The owning user.
        type: str
        default: root
      group:
        description: The owning group.
        type: str
        default: root
      follow:
        description: Write to what a symbolic link points to, instead of replacing the link.
        type: bool
        default: false
      ours:
        description:
          - A text that only our own file holds. Somebody else's file at the path is then kept
            beside it with the ending C(.before-roost), put back by V(absent), and never removed.
        type: str
        default: ""
      validate:
        description: A command that must accept a new file before it is placed; C(%s) is its path.
        type: str
        default: ""
      then:
        description:
          - A command that is run once the path was changed. A handler would be lost in a run that
            is cut off before it.
        type: str
        default: ""
author: The roost authors
"""

EXAMPLES = r"""
- name: Place the configuration
  small_files:
    files:
      - {path: /etc/example.d, state: directory}
      - {path: /etc/example.d/a.conf, content: "a = 1\n", mode: "0640"}
      - {path: /etc/example.d/old.conf, state: absent}
"""

RETURN = r"""
changed_paths:
  description: The paths that differed, in the order of O(files).
  type: list
  elements: str
  returned: always
"""

import grp  # noqa: E402 - Ansible wants the documentation first
import os  # noqa: E402
import pwd  # noqa: E402
import shlex  # noqa: E402
import stat  # noqa: E402
import tempfile  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

Spec = dict
KEPT = ".before-roost"
DEFAULT_MODES = {"file": "0644", "directory": "0755"}


def ids(spec: Spec) -> tuple[int, int]:
    return pwd.getpwnam(spec["owner"]).pw_uid, grp.getgrnam(spec["group"]).gr_gid


def wanted_mode(spec: Spec) -> int:
    return int(spec["mode"] or DEFAULT_MODES[spec["state"]], 8)


def describe(path: str) -> str:
    """What is at ``path``, in a few words and without its content."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return "absent"
    if stat.S_ISLNK(st.st_mode):
        return f"link to {os.readlink(path)}"
    kind = "directory" if stat.S_ISDIR(st.st_mode) else "file"
    return f"{kind} {stat.S_IMODE(st.st_mode):04o} {st.st_uid}:{st.st_gid}"


def describe_wanted(spec: Spec) -> str:
    if spec["state"] == "absent":
        return "absent"
    if spec["state"] == "link":
        return f"link to {spec['target']}"
    try:
        uid, gid = ids(spec)
    except KeyError:
        # In check mode the account may be one that the run itself would have made.
        return f"{spec['state']} {wanted_mode(spec):04o} {spec['owner']}:{spec['group']}"
    return f"{spec['state']} {wanted_mode(spec):04o} {uid}:{gid}"


def read(path: str) -> str:
    if os.path.islink(path) or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read()


def validate(module: AnsibleModule, spec: Spec, candidate: str) -> None:
    if not spec["validate"]:
        return
    words = [w.replace("%s", candidate) for w in shlex.split(spec["validate"])]
    code, out, err = module.run_command(words)
    if code != 0:
        os.unlink(candidate)
        said = (err or out).strip()
        module.fail_json(msg=f"{spec['path']} is refused by {words[0]}: {said}; it stays as it was")


def write(module: AnsibleModule, spec: Spec) -> None:
    folder = os.path.dirname(spec["path"])
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".roost-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(spec["content"])
            os.fchown(handle, *ids(spec))
            os.fchmod(handle, wanted_mode(spec))
            stream.flush()
            os.fsync(handle)
        validate(module, spec, temporary)
        os.rename(temporary, spec["path"])
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def foreign(spec: Spec) -> bool:
    """Whether the file at the path is somebody else's, as far as ``ours`` tells."""
    path = spec["path"]
    return bool(spec["ours"]) and os.path.lexists(path) and spec["ours"] not in read(path)


def apply(module: AnsibleModule, spec: Spec) -> None:
    path, state = spec["path"], spec["state"]
    kept = path + KEPT
    if state == "file":
        if foreign(spec):
            os.rename(path, kept)
        write(module, spec)
    elif state == "absent":
        remove(path)
        if spec["ours"] and os.path.lexists(kept):
            os.rename(kept, path)
    elif state == "link":
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        temporary = tempfile.mktemp(prefix=".roost-", dir=os.path.dirname(path))  # noqa: S306
        os.symlink(spec["target"], temporary)
        os.rename(temporary, path)
    else:
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chown(path, *ids(spec))
        os.chmod(path, wanted_mode(spec))


def in_order(module: AnsibleModule, spec: Spec) -> dict | None:
    """Put one path in order; return its diff, or None where nothing differed."""
    path, state = spec["path"], spec["state"]
    if spec["follow"]:
        path = spec["path"] = os.path.realpath(path)
    if state == "absent" and (foreign(spec) or (os.path.isdir(path) and os.listdir(path))):
        return None  # it is, or holds, somebody else's
    before, after = describe(path), describe_wanted(spec)
    old = read(path) if state in {"file", "absent"} else ""
    new = spec["content"] if state == "file" else ""
    if before == after and old == new:
        return None
    if not module.check_mode:
        apply(module, spec)
        if spec["then"]:
            module.run_command(shlex.split(spec["then"]), check_rc=True)
    header = f"{path} ({{}})"
    return {
        "before_header": header.format(before),
        "after_header": header.format(after),
        "before": old if old != new else before + "\n",
        "after": new if old != new else after + "\n",
    }


def main() -> None:
    suboptions = {
        "path": {"type": "path", "required": True},
        "state": {"choices": ["file", "directory", "link", "absent"], "default": "file"},
        "content": {"type": "str", "default": ""},
        "target": {"type": "str", "default": ""},
        "mode": {"type": "str", "default": ""},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "follow": {"type": "bool", "default": False},
        "ours": {"type": "str", "default": ""},
        "validate": {"type": "str", "default": ""},
        "then": {"type": "str", "default": ""},
    }
    files = {"type": "list", "elements": "dict", "required": True, "options": suboptions}
    module = AnsibleModule(argument_spec={"files": files}, supports_check_mode=True)
    changed: list[str] = []
    diffs = []
    for spec in module.params["files"]:
        try:
            diff = in_order(module, spec)
        except (OSError, KeyError) as error:
            module.fail_json(
                msg=f"{spec['path']} cannot be put in order: {error}", changed_paths=changed
            )
        if diff is not None:
            changed.append(spec["path"])
            diffs.append(diff)
    module.exit_json(changed=bool(changed), changed_paths=changed, diff=diffs)


if __name__ == "__main__":
    main()
