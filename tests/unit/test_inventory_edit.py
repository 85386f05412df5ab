"""Edits of the inventory: what was meant is there, and every other byte is as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from roost import content
from roost.errors import InventoryError
from roost.inventory import load
from roost.inventory_edit import add_host, hosts_file, remove_host, set_variable
from roost.paths import Paths
from roost.workspace import Workspace

GPU = {"ansible_host": "203.0.113.7", "ansible_port": 2222, "roost_identity": "~/.ssh/it's mine"}

# Layouts that people write, each with a comment that must stay.
LAYOUTS = {
    "empty": "",
    "comment": "# nothing yet\n",
    "document": "---\n",
    "all": "all:\n",
    "hosts": "all:\n  hosts:  # here\n",
    "braces": "all:\n  hosts: {}  # here\n  vars:\n    a: 1\n",
    "null": "all:\n  hosts: ~\n",
    "four": "all:\n    hosts:\n        a:\n            ansible_host: h  # here\n\n# end\n",
    "no-newline": "all:\n  hosts:\n    a: {}",
    "crlf": "all:\r\n  hosts:\r\n    a:\r\n  vars:\r\n    x: 1\r\n",
    "groups": "all:\n  children:\n    # here\n    web:\n      hosts:\n        a:\n"
    "other:\n  hosts:\n    b:\n",
    "anchors": "all:\n  hosts:\n    a: &a\n      k: 1\n    b: *a\n  children: {}\n",
    "block": "all:\n  hosts:\n    a:\n      text: |\n        one\n\n        two\n\n    # end\n",
    "list": "all:\n  hosts:\n    a:\n      roost_forwards:\n      - 1:localhost:1\n  # end\n",
    "vault": "all:\n  hosts:\n    a:\n      secret: !vault |\n"
    "        $ANSIBLE_VAULT;1.1;AES256\n        61\n",
}  # fmt: skip


class Tolerant(yaml.SafeLoader):
    """Reads ``!vault`` as text."""


Tolerant.add_constructor("!vault", lambda loader, node: loader.construct_scalar(node))


def parsed(text: str) -> dict:  # type: ignore[type-arg]
    return yaml.load(text, Loader=Tolerant) or {}  # noqa: S506 - a subclass of SafeLoader


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() not in {"---", ""}]


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_a_host_goes_in_and_out_of_every_layout(text: str) -> None:
    there = add_host(text, "gpu1", GPU, ["web"])
    assert parsed(there)["all"]["hosts"]["gpu1"] == GPU
    assert "gpu1" in parsed(there)["all"]["children"]["web"]["hosts"]
    headings = ("all:", "hosts:", "children:")
    kept = [line for line in lines_of(text) if not line.strip().startswith(headings)]
    assert [line for line in lines_of(there) if line in kept] == kept
    assert ("\r\n" in there) == ("\r\n" in text)
    assert "# here" not in text or "# here" in there

    twice = add_host(there, "gpu2", GPU, ["web"])
    assert remove_host(twice, "gpu2") == there
    gone = remove_host(there, "gpu1")
    # Empty groups stay behind, empty; nothing else does.
    before = parsed(text)
    after = parsed(gone)
    hosts_before = (before.get("all") or {}).get("hosts") or {}
    assert (after["all"].get("hosts") or {}) == hosts_before
    assert "gpu1" not in gone
    assert [line for line in lines_of(gone) if line in kept] == kept


_words = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029\ufeff"),
    min_size=1,
)


_awkward = (
    "yes", "1e3", "0x1f", "1_000", "~", "null", "- a", "a: b", "#x", "'", '"', "{{ x }}", "*a",
    "&a", "!t", "@x", "%x", "22:22", "1.2.3.4", "2026-01-01", "=", "<<",
)  # fmt: skip


@given(value=st.one_of(_words, st.sampled_from(_awkward)))
def test_any_value_comes_back_as_it_was(value: str) -> None:
    variables = {"ansible_user": value, "roost_ssh_options": {"SetEnv": [value, "b"]}}
    there = add_host(content.inventory_template().joinpath("hosts.yml").read_text(), "a", variables)
    assert parsed(there)["all"]["hosts"]["a"] == variables


def test_the_template_of_init_ends_byte_for_byte(workspace: Workspace) -> None:
    text = (workspace.inventory / "hosts.yml").read_text()
    there = add_host(text, "gpu1", GPU, ["gateways"])
    assert remove_host(add_host(there, "gpu2", {}, ["gateways"]), "gpu2") == there
    assert remove_host(there, "gpu1") == text


def test_ansible_reads_what_was_written(workspace: Workspace, paths: Paths) -> None:
    path = hosts_file(workspace.inventory)
    path.write_text(add_host(path.read_text(), "gpu1", {**GPU, "ansible_user": "1e3"}, ["new"]))
    fleet = load(workspace, paths=paths, environ=os.environ)
    box = fleet.box("gpu1")
    assert (box.host, box.port, box.user) == ("203.0.113.7", 2222, "1e3")
    assert box.identity == "~/.ssh/it's mine"
    assert "new" in box.groups


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n", "no mapping"),
        ("all: [\n", "not YAML"),
        ("[web]\ngpu1\n", "not YAML"),
        ("all:\n  hosts:\n    gpu1:\n", "already"),
        ("all: {hosts: {a: {}}}\n", "braces"),
        ("all:\n  hosts: text\n", "no mapping"),
        # Written twice, the last one counts, and an edit of the first would be lost.
        ("all:\n  hosts:\n    a:\nall:\n  hosts:\n    b:\n", "laid out"),
    ],
)
def test_what_cannot_be_edited_is_said(text: str, why: str) -> None:
    with pytest.raises(InventoryError) as caught:
        add_host(text, "gpu1", GPU)
    assert why in f"{caught.value.what} {caught.value.why}"


def test_a_variable_is_added_once() -> None:
    text = "all:\n  hosts:\n    a:\n      ansible_host: h  # here\n    b: {ansible_host: i}\n"
    there = set_variable(set_variable(text, "a", "k", "v"), "b", "k", "v")
    assert parsed(there)["all"]["hosts"] == {
        "a": {"ansible_host": "h", "k": "v"},
        "b": {"ansible_host": "i", "k": "v"},
    }
    assert set_variable(there, "a", "k", "other") == there
    assert "# here" in there


def test_the_file_that_is_edited(tmp_path: Path) -> None:
    assert hosts_file(tmp_path) == tmp_path / "hosts.yml"
    (tmp_path / "hosts.yaml").touch()
    assert hosts_file(tmp_path) == tmp_path / "hosts.yaml"
    assert hosts_file(tmp_path / "hosts.yaml") == tmp_path / "hosts.yaml"
