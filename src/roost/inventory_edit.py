"""Edits of the inventory file that keep every other byte: comments, order, layout.

The file is only looked at by a YAML parser, for the places of its parts; the edit itself inserts
or removes whole lines. What comes out is parsed again and compared with what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from roost.errors import InventoryError

_PLAIN = re.compile(r"[\w~/][\w./~+@-]*")
_INDENT = 2
_NOTHING = re.compile(r"^\s*:(\s*(?:\{\s*\}|~|null)(?=\s|$))?")
_Edit = tuple[int, int, list[str]]  # first line, line after the last, what takes their place


def hosts_file(inventory: Path) -> Path:
    """The YAML file that boxes are written to: the inventory, or ``hosts.yml`` in its folder."""
    if not inventory.is_dir():
        return inventory
    present = [inventory / name for name in ("hosts.yml", "hosts.yaml")]
    return next((path for path in present if path.is_file()), present[0])


def add_host(text: str, name: str, variables: Mapping[str, Any], groups: Sequence[str] = ()) -> str:
    """``text`` with the host ``name``, its variables, and its membership in ``groups``.

    Raises:
        InventoryError: the file is no YAML inventory, or has the host already.
    """
    wanted = dict(variables)
    text = _add_entry(text, ["all", "hosts"], name, wanted or None)
    for group in groups:
        path = _group_path(_root(text), group) or ["all", "children", group]
        text = _add_entry(text, [*path, "hosts"], name, None)
    return text


def set_variable(text: str, name: str, key: str, value: str | int) -> str:
    """``text`` with a further variable for the host ``name``; one that is there stays."""
    for hosts in _all_hosts(_root(text)):
        for host, values in hosts.value:
            if host.value == name and isinstance(values, yaml.MappingNode) and values.value:
                if any(k.value == key for k, _ in values.value):
                    return text
                first = values.value[0][0].start_mark
                if values.flow_style:
                    return _splice_flow(text, values, f"{key}: {_scalar(value)}")
                line = " " * first.column + f"{key}: {_scalar(value)}"
                return _apply(text, [(first.line, first.line, [line])])
    return text


def remove_host(text: str, name: str) -> str:
    """``text`` without the host ``name``, in whatever groups it is.

    Raises:
        InventoryError: the file does not have it in a form that can be edited.
    """
    edits: list[_Edit] = []
    for hosts in _all_hosts(_root(text)):
        for key, value in hosts.value:
            if key.value != name:
                continue
            if hosts.flow_style:
                raise _by_hand(f"{name} stands inside braces, in line {key.start_mark.line + 1}")
            first, last = key.start_mark.line, max(_last_line(value), key.end_mark.line)
            edits.append((first, last + 1, []))
            if len(hosts.value) == 1:
                edits.append(_emptied(text, first))
    if not edits:
        raise _by_hand(f"{name} is not in this file")
    edited = _apply(text, edits)
    if any(key.value == name for hosts in _all_hosts(_root(edited)) for key, _ in hosts.value):
        raise _by_hand(f"{name} is still there after the edit")
    return edited


def _emptied(text: str, first: int) -> _Edit:
    """Give the key above an entry that goes away, the only one, an empty mapping."""
    lines = text.splitlines()
    for number in range(first - 1, -1, -1):
        body = lines[number].split("#")[0].rstrip()
        if body.endswith(":"):
            return number, number + 1, [lines[number].replace(body, body + " {}", 1)]
        if body:
            break
    raise _by_hand(f"the group above line {first + 1} would be empty")


def _add_entry(text: str, path: list[str], name: str, variables: Mapping[str, Any] | None) -> str:
    expected = _plain(_root(text)) or {}
    if not isinstance(expected, dict):
        raise _by_hand("the top of the file is no mapping")
    at = expected
    for step in path:
        at[step] = at.get(step) or {}
        at = at[step]
        if not isinstance(at, dict):
            raise _by_hand(f"{step} is no mapping")
    if name in at:
        if variables is None:
            return text
        raise InventoryError(f"{name} is in the inventory already", fix=f"roost remove {name}")
    at[name] = None if variables is None else {k: _words(v) for k, v in variables.items()}
    edited = _insert(text, _root(text), path, name, variables)
    if _plain(_root(edited)) != expected:
        raise _by_hand("the file is laid out in a way that cannot be edited line by line")
    return edited


def _insert(
    text: str,
    node: yaml.Node | None,
    path: list[str],
    name: str,
    variables: Mapping[str, Any] | None,
) -> str:
    """Walk down as far as the file goes, and write the rest of the way there."""
    column, line = 0, len(text.splitlines())
    left = list(path)
    while left and isinstance(node, yaml.MappingNode) and node.value:
        if node.flow_style:
            break
        column = node.value[0][0].start_mark.column
        line = max(_last_line(v) if _ends(k, v) else k.end_mark.line for k, v in node.value) + 1
        pair = next(((k, v) for k, v in node.value if k.value == left[0]), None)
        if pair is None:
            return _apply(text, [(line, line, _nested(left, name, variables, column))])
        key, node = pair
        left.pop(0)
        if isinstance(node, yaml.MappingNode) and node.value:
            continue
        # ``hosts:`` or ``hosts: {}``: what follows goes below it, a comment after it stays.
        heading = text.splitlines()[key.start_mark.line]
        cut = heading[key.end_mark.column :]
        bare = heading[: key.end_mark.column] + _NOTHING.sub(":", cut)
        lines = _nested(left, name, variables, column + _INDENT)
        start = key.start_mark.line
        return _apply(text, [(start, start + 1, [bare.rstrip(), *lines])])
    if isinstance(node, yaml.MappingNode) and node.value and node.flow_style:
        if left:
            raise _by_hand(f"{path[0]} stands inside braces")
        return _splice_flow(text, node, f"{_scalar(name)}: {_flow(variables)}")
    if isinstance(node, yaml.MappingNode) and node.value and not left:
        column = node.value[0][0].start_mark.column
        line = max(_last_line(v) if _ends(k, v) else k.end_mark.line for k, v in node.value) + 1
    return _apply(text, [(line, line, _nested(left, name, variables, column))])


def _nested(
    path: Sequence[str],
    name: str,
    variables: Mapping[str, Any] | None,
    column: int,
) -> list[str]:
    lines = [" " * (column + _INDENT * i) + f"{step}:" for i, step in enumerate(path)]
    at = column + _INDENT * len(path)
    lines.append(" " * at + f"{_scalar(name)}:" + (" {}" if variables == {} else ""))
    for key, value in (variables or {}).items():
        lines.append(" " * (at + _INDENT) + f"{key}: {_scalar(value)}")
    return lines


def _apply(text: str, edits: Sequence[_Edit]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    for first, after, fresh in sorted(edits, reverse=True):
        if first > 0 and fresh and not lines[first - 1].endswith("\n"):
            lines[first - 1] += newline
        lines[first:after] = [line + newline for line in fresh]
    return "".join(lines)


def _splice_flow(text: str, node: yaml.MappingNode, entry: str) -> str:
    lines = text.splitlines(keepends=True)
    mark = node.start_mark
    line = lines[mark.line]
    lines[mark.line] = f"{line[: mark.column + 1]}{entry}, {line[mark.column + 1 :]}"
    return "".join(lines)


def _flow(variables: Mapping[str, Any] | None) -> str:
    return _scalar(dict(variables or {}))


def _words(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _words(v) for k, v in value.items()}
    return [_words(v) for v in value] if isinstance(value, list) else str(value)


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    text = str(value)
    if isinstance(value, int) or (_PLAIN.fullmatch(text) and yaml.safe_load(text) == text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _root(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise _by_hand(f"the file is not YAML{where}") from error


def _plain(node: yaml.Node | None) -> Any:
    """A node as lists, dicts and words, for comparisons; tags such as ``!vault`` do not matter."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return None
    return node.value


def _all_hosts(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Every non-empty ``hosts`` mapping of the inventory, in groups at any depth."""
    groups = [value for _, value in root.value] if isinstance(root, yaml.MappingNode) else []
    while groups:
        group = groups.pop(0)
        for key, value in group.value if isinstance(group, yaml.MappingNode) else ():
            if isinstance(value, yaml.MappingNode) and key.value == "hosts":
                yield value
            elif isinstance(value, yaml.MappingNode) and key.value == "children":
                groups += [child for _, child in value.value]


def _group_path(root: yaml.Node | None, wanted: str) -> list[str] | None:
    """The keys that lead to a group that the file has."""
    start = root.value if isinstance(root, yaml.MappingNode) else []
    queue = [([key.value], value) for key, value in start]
    while queue:
        path, group = queue.pop(0)
        if path[-1] == wanted:
            return path
        for key, value in group.value if isinstance(group, yaml.MappingNode) else ():
            if key.value == "children" and isinstance(value, yaml.MappingNode):
                queue += [([*path, "children", k.value], v) for k, v in value.value]
    return None


def _ends(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether the value stands behind its key, and not at the anchor that an alias names."""
    return bool(value.start_mark.index >= key.end_mark.index)


def _last_line(node: yaml.Node) -> int:
    """The line of the last thing in ``node``: a block's own end mark is after what follows it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        if isinstance(last, tuple):
            key, value = last
            return _last_line(value) if _ends(key, value) else int(key.end_mark.line)
        return _last_line(last)
    mark = node.end_mark
    return int(mark.line) - (1 if mark.column == 0 and mark.line > node.start_mark.line else 0)


def _by_hand(why: str) -> InventoryError:
    return InventoryError(
        "the inventory cannot be edited", why=why, fix="edit it by hand; see roost add --dry-run"
    )
