"""Runs written into a shared notebook, read back the way JupyterLab reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_ydoc import YNotebook
from pycrdt import Doc, Map, Text

from jupyter_keeper.mirror import Mirror
from jupyter_keeper.outputs import Limits, Outputs


def notebook(cells: int = 2) -> YNotebook:
    document = YNotebook(Doc())
    document.source = {
        "cells": [
            {"cell_type": "code", "id": f"cell{number}", "source": "", "metadata": {},
             "outputs": [{"output_type": "stream", "name": "stdout", "text": "old"}],
             "execution_count": 7}
            for number in range(cells)
        ],
        "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    return document


class Page:
    """Applies remote changes as JupyterLab's ``CodeCellModel`` does.

    Only the end of the last stream is followed, inserted outputs are appended, and a stream
    after one of the same name is joined to it.
    """

    def __init__(self, document: YNotebook, index: int) -> None:
        self.cell = document.ycells[index]
        self.outputs: list[dict[str, Any]] = self.cell["outputs"].to_py()
        self.last_name = ""
        self.subscription = self.cell.observe_deep(self._changed)

    def _changed(self, events: list[Any]) -> None:
        streams = [e for e in events if len(e.path) == 3 and e.path[0] == "outputs"]
        for change in streams[0].delta if streams else []:
            last = self.outputs[-1]
            if "delete" in change:
                last["text"] = last["text"].encode()[: -change["delete"]].decode()
            if "insert" in change:
                last["text"] += change["insert"]
        for event in events:
            if event.path == ["outputs"]:
                self._apply(event.delta)

    def _apply(self, delta: list[dict[str, Any]]) -> None:
        at = 0
        for change in delta:
            at += change.get("retain", 0)
            for _ in range(change.get("delete", 0)):
                del self.outputs[at]
            for item in change.get("insert", []):
                self._add(item.to_py())

    def _add(self, output: dict[str, Any]) -> None:
        name = output.get("name", "")
        if name and name == self.last_name and self.outputs:
            self.outputs[-1]["text"] += output["text"]
        else:
            self.outputs.append(output)
        self.last_name = name


def message(kind: str, **content: Any) -> tuple[str, dict[str, Any]]:
    return kind, content


def display(text: str, display_id: str | None = None) -> tuple[str, dict[str, Any]]:
    transient = {"display_id": display_id} if display_id else {}
    return "display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


MESSAGES = st.one_of(
    st.builds(lambda n, t: message("stream", name=n, text=t), st.sampled_from(["stdout", "stderr"]),
              st.text("ab é█\r\b\n", max_size=8)),
    st.builds(display, st.text("xyz", max_size=3), st.sampled_from([None, "one", "two"])),
    st.builds(lambda i, t: ("update_display_data", {**display(t)[1], "id": i}),
              st.sampled_from(["one", "two"]), st.text("uvw", max_size=3)),
    st.builds(lambda w: message("clear_output", wait=w), st.booleans()),
    st.just(message("error", ename="E", evalue="é\ud800", traceback=["E: é"])),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(MESSAGES, max_size=5), max_size=8), st.integers(2, 30))
def test_page_and_document_show_the_outputs(flushes: list[list[Any]], count: int) -> None:
    document = notebook()
    page = Page(document, 1)
    outputs = Outputs(Limits(stream=200, count=count))
    mirror = Mirror(document, "cell1", outputs)
    mirror.start()
    for flush in flushes:
        for kind, content in flush:
            if kind == "update_display_data":
                outputs.update_display(content["id"], content)
            else:
                outputs.apply(kind, content)
        assert mirror.sync()
        saved = document.ycells[1]["outputs"].to_py()
        assert saved == outputs.as_json()
        assert [o for o in page.outputs if o.get("text") != ""] == [
            o for o in saved if o.get("text") != ""
        ]
    assert document.ycells[0]["outputs"].to_py() == notebook().ycells[0]["outputs"].to_py()


@pytest.fixture
def run() -> tuple[YNotebook, Outputs, Mirror]:
    document = notebook()
    outputs = Outputs(Limits())
    mirror = Mirror(document, "cell0", outputs)
    mirror.start()
    return document, outputs, mirror


def write(outputs: Outputs, text: str, name: str = "stdout") -> None:
    outputs.apply("stream", {"name": name, "text": text})


def texts(document: YNotebook, index: int = 0) -> list[str]:
    outputs = document.ycells[index]["outputs"].to_py()
    return [o.get("text") or o.get("data", {}).get("text/plain") for o in outputs]


def test_states_and_numbers(run: tuple[YNotebook, Outputs, Mirror]) -> None:
    document, outputs, mirror = run
    cell = document.ycells[0]
    assert (cell["execution_state"], cell["execution_count"]) == ("running", None)
    cell["execution_state"] = "idle"  # a browser that left said so
    write(outputs, "a")
    mirror.sync()
    assert cell["execution_state"] == "running"
    mirror.finish(3)
    assert (cell["execution_state"], cell["execution_count"]) == ("idle", 3)
    write(outputs, "late")
    mirror.sync()
    assert cell["execution_state"] == "idle"
    assert texts(document) == ["alate"]


def test_cleared_by_a_person_in_the_middle(run: tuple[YNotebook, Outputs, Mirror]) -> None:
    document, outputs, mirror = run
    write(outputs, "one\n")
    outputs.apply(*display("plot"))
    write(outputs, "two\n")
    mirror.sync()
    document.ycells[0]["outputs"].clear()
    write(outputs, "three\n")
    mirror.sync()
    write(outputs, "four\n")
    mirror.sync()
    assert texts(document) == ["three\nfour\n"]


def test_cleared_while_the_next_output_was_on_its_way(
    run: tuple[YNotebook, Outputs, Mirror],
) -> None:
    document, outputs, mirror = run
    write(outputs, "one\n")
    outputs.apply(*display("plot"))
    mirror.sync()
    del document.ycells[0]["outputs"][0:1]
    write(outputs, "two\n")
    mirror.sync()
    assert texts(document) == ["plot", "two\n"]


@pytest.mark.parametrize("before", [["on"], ["one\n"], ["quite", "another", "state"]])
def test_replaced_by_another_state_from_disk(
    run: tuple[YNotebook, Outputs, Mirror], before: list[str]
) -> None:
    document, outputs, mirror = run
    write(outputs, "one\n")
    outputs.apply(*display("plot"))
    mirror.sync()
    old = notebook().get_cell(0)
    old["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text} for text in before]
    document.set_cell(0, old)
    write(outputs, "two\n")
    mirror.sync()
    mirror.sync()
    assert texts(document) == ["one\n", "plot", "two\n"]


def test_moved_removed_and_brought_back(run: tuple[YNotebook, Outputs, Mirror]) -> None:
    document, outputs, mirror = run
    write(outputs, "one\n")
    mirror.sync()
    cell = document.get_cell(0)
    del document.ycells[0]
    write(outputs, "two\n")
    assert not mirror.sync()
    document.append_cell(cell)
    write(outputs, "three\n")
    assert mirror.sync()
    assert texts(document, 1) == ["one\ntwo\nthree\n"]


@pytest.mark.parametrize("text", ["Hello", "\rHello"])
def test_an_answer_appended_by_the_browser_keeps_its_place(
    run: tuple[YNotebook, Outputs, Mirror], text: str
) -> None:
    document, outputs, mirror = run
    write(outputs, "Name?")
    mirror.sync()
    assert not mirror.has_echo()
    echo = Map({"output_type": "stream", "name": "stdin", "text": Text("ann\n")})
    document.ycells[0]["outputs"].append(echo)
    assert mirror.has_echo()
    write(outputs, text)
    mirror.sync()
    write(outputs, "!\n")
    mirror.sync()
    assert texts(document) == ["Name?", "ann\n", "Hello!\n"]


def test_too_many_outputs_are_bounded_and_say_so() -> None:
    document = notebook()
    outputs = Outputs(Limits(count=10))
    mirror = Mirror(document, "cell0", outputs)
    mirror.start()
    for number in range(1000):
        outputs.apply(*display(f"plot {number}"))
        if number % 100 == 0:
            mirror.sync()
    mirror.sync()
    shown = texts(document)
    assert shown[:10] == [f"plot {number}" for number in range(10)]
    assert shown[-1] == "plot 999"
    assert "989 are left out" in shown[-2]
    assert len(shown) == 12
