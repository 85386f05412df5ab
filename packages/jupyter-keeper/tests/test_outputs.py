"""What the kernel's messages make of the outputs of a cell."""

from __future__ import annotations

from typing import Any

from jupyter_keeper.outputs import Limits, Outputs


def outputs_of(*messages: tuple[str, dict[str, Any]]) -> Outputs:
    outputs = Outputs(Limits())
    for kind, content in messages:
        outputs.apply(kind, content)
    return outputs


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    return "stream", {"name": name, "text": text}


def display(text: str, display_id: str = "") -> tuple[str, dict[str, Any]]:
    transient = {"display_id": display_id} if display_id else {}
    return "display_data", {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


def test_a_stream_is_joined_until_something_else_is_shown() -> None:
    messages = (stream("a"), stream("b\n"), stream("e", "stderr"), stream("c"), stream("d"))
    assert outputs_of(*messages).as_json() == [
        {"output_type": "stream", "name": "stdout", "text": "ab\n"},
        {"output_type": "stream", "name": "stderr", "text": "e"},
        {"output_type": "stream", "name": "stdout", "text": "cd"},
    ]


def test_results_displays_and_errors_in_the_form_of_nbformat() -> None:
    data = {"text/plain": "1", "application/json": {"a": [1, None]}}
    result = {"data": data, "metadata": {"m": 1}, "execution_count": 3, "transient": {}}
    error = {"ename": "E", "evalue": "e", "traceback": ["t"], "status": "error"}
    assert outputs_of(("execute_result", result), ("error", error), display("x")).as_json() == [
        {"output_type": "execute_result", "data": data, "metadata": {"m": 1}, "execution_count": 3},
        {"output_type": "error", "ename": "E", "evalue": "e", "traceback": ["t"]},
        {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}},
    ]


def test_clear_output_at_once_and_with_the_next_output() -> None:
    assert outputs_of(stream("a"), ("clear_output", {"wait": False})).as_json() == []
    outputs = outputs_of(stream("a"), ("clear_output", {"wait": True}))
    assert len(outputs.as_json()) == 1
    outputs.apply(*stream("b"))
    assert [item["text"] for item in outputs.as_json()] == ["b"]


def test_a_display_is_updated_wherever_it_is_shown() -> None:
    outputs = outputs_of(display("1", "one"), display("2"), display("3", "one"))
    assert outputs.update_display("one", {"data": {"text/html": "new"}, "metadata": {"k": 1}})
    assert not outputs.update_display("other", {"data": {}, "metadata": {}})
    assert [item["data"] for item in outputs.as_json()] == [
        {"text/html": "new"}, {"text/plain": "2"}, {"text/html": "new"}
    ]  # fmt: skip
    assert outputs.as_json()[0]["metadata"] == {"k": 1}


def test_text_that_utf8_cannot_say() -> None:
    broken, whole = "\ud800x", "\ud83d\ude00"
    outputs = outputs_of(stream(broken), display(broken), stream(whole))
    shown = str(outputs.as_json())
    assert "x" in shown.encode().decode()
    assert "😀" in shown


def test_many_bytes_are_bounded() -> None:
    outputs = Outputs(Limits(total=10_000))
    for number in range(100):
        outputs.apply(*display(f"{number} {'x' * 1000}"))
    items = outputs.as_json()
    assert len(items) < 15
    assert "c.KeeperExtension.cell_limit = 10000" in items[-2]["data"]["text/plain"]
    assert items[-1]["data"]["text/plain"].startswith("99 ")
