"""What people see in JupyterLab, in real Chromium, while links and browsers come and go."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest
from lab import Lab
from playwright.sync_api import Browser, expect
from relay import Link
from support import Server, flooding, is_complete, lines, printing, printing_until

pytestmark = pytest.mark.browser

Open = Callable[..., Lab]


def newcomer(open_lab: Open, path: str) -> Lab:
    """A page of a notebook whose first cell was started by another page, gone by now."""
    first = open_lab(path)
    first.run()
    first.wait_text("line 3\n")
    first.close()
    second = open_lab(path)
    second.wait_prompt("[*]:")
    return second


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_page_stays_open_through_a_bad_link(
    server: Server, link: Link, open_lab: Open, name: str, how: str
) -> None:
    path = server.notebook(printing_until(f"{name}.stop"), name=name)
    lab = open_lab(path, link.port)
    lab.run()
    lab.wait_text("line 5\n")
    getattr(link, how)()
    lab.page.wait_for_timeout(5_000)
    seen = lab.text()
    lab.page.wait_for_timeout(1_000)
    assert lab.text() == seen
    if how == "stall":
        link.cut()  # the tunnel notices, and is made again
    link.mend()
    lab.wait(lambda: len(lab.text()) > len(seen))
    (server.root / f"{name}.stop").touch()
    lab.wait_prompt("[1]:")
    lab.wait(lambda: is_complete(lab.text()))
    lab.wait(lambda: is_complete(server.saved_text(name=name)))
    lab.shot(f"bad-link-{how}")


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_browser_gone_and_a_new_one(
    server: Server, open_lab: Open, launch: Callable[[], Browser], name: str, how: str
) -> None:
    path = server.notebook(printing_until(f"{name}.stop"), name=name)
    before = psutil.Process().children(recursive=True)
    browser = launch()
    started = set(psutil.Process().children(recursive=True)).difference(before)
    first = Lab(browser, server, path, server.port).open()
    first.run()
    first.wait_text("line 5\n")
    if how == "killed":
        for process in started:
            process.kill()
    browser.close()
    second = open_lab(path)
    seen = second.text()
    second.wait(lambda: len(second.text()) > len(seen))
    assert second.prompt() == "[*]:"
    second.shot("newcomer-streaming")
    second.close()
    (server.root / f"{name}.stop").touch()
    third = open_lab(path)
    third.wait_prompt("[1]:")
    third.wait(lambda: is_complete(third.text()))
    third.wait(lambda: is_complete(server.saved_text(name=name)))


def test_run_all_with_the_browser_closed_and_an_error(
    server: Server, open_lab: Open, name: str
) -> None:
    sources = ("import time; time.sleep(4); print('one')", "print('two'); 1 / 0", "print('three')")
    path = server.notebook(*sources, name=name)
    first = open_lab(path)
    first.menu("Run", "Run All Cells")
    first.wait_prompt("[*]:", 2)
    first.close()
    second = open_lab(path)
    second.wait_prompt("[2]:", 1)
    second.wait_prompt("[ ]:", 2)
    second.shot("run-all-error")
    second.wait(lambda: second.text(0) == "one\n")
    second.wait_text("two", 1)
    second.wait_text("ZeroDivisionError", 1)
    assert second.text(2) == ""


RICH = """
import sys
from IPython.display import HTML, display
from tqdm import tqdm
import matplotlib.pyplot as plt
import time
for number in tqdm(range(20), desc="bar"):
    time.sleep(0.15)
print("\\033[31mred\\033[0m plain", flush=True)
print("to stderr", file=sys.stderr, flush=True)
display(HTML("<b id=bold>bold</b>"))
handle = display("before", display_id=True)
plt.plot([1, 2, 3])
plt.show()
handle.update("after")
"""


def test_progress_plots_html_and_colours(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook("%matplotlib inline\n" + RICH, name=name)
    first = open_lab(path)
    first.run()
    first.wait_text("bar:")
    first.close()
    for visit in range(2):
        lab = open_lab(path)
        lab.wait_prompt("[1]:")
        cell = lab.cell()
        expect(cell.locator("img")).to_be_visible()
        expect(cell.locator("#bold")).to_have_text("bold")
        expect(cell.locator(".ansi-red-fg")).to_have_text("red")
        stderr = "[data-mime-type='application/vnd.jupyter.stderr']"
        expect(cell.locator(stderr, has_text="to stderr")).to_be_visible()
        text = lab.text()
        assert "bar: 100%|██████████| 20/20" in text
        assert text.count("bar:") == 1
        assert "'after'" in text
        assert "'before'" not in text
        lab.shot(f"rich-{visit}")
        lab.close()


def test_updates_are_drawn_in_an_open_page(server: Server, open_lab: Open, name: str) -> None:
    """Each kind of change as it comes, not as a page that is opened later reads it."""
    frames = (
        "from IPython.display import clear_output\n"
        "for i in range(5):\n    clear_output(wait=True)\n    print('frame', i)"
    )
    sources = (RICH.replace("plt.plot", "# "), "handle.update('again')", frames)
    path = server.notebook(*sources, name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait_prompt("[1]:")
    lab.wait_text("'after'")
    assert lab.text().count("bar:") == 1
    lab.run(1)
    lab.wait_text("'again'")
    live = lab.text()
    lab.run(2)
    lab.wait_prompt("[3]:", 2)
    lab.wait(lambda: lab.text(2) == "frame 4\n")
    lab.shot("updates-live")
    other = open_lab(path)
    other.wait(lambda: other.text() == live)


@pytest.mark.parametrize("when", ["connected", "away", "stalled"])
def test_input(server: Server, link: Link, open_lab: Open, name: str, when: str) -> None:
    code = f"import time; time.sleep({0 if when == 'connected' else 4})\n"
    path = server.notebook(code + "print('hello', input('your name?'))", name=name)
    lab = open_lab(path, link.port)
    lab.run()
    lab.wait_prompt("[*]:")
    if when == "away":
        lab.close()
        lab = open_lab(path)
    elif when == "stalled":
        link.stall()
        lab.page.wait_for_timeout(6_000)
        link.cut()
        link.mend()
    expect(lab.question()).to_have_count(1)
    lab.shot(f"input-{when}")
    lab.answer("ann")
    lab.wait_prompt("[1]:")
    expect(lab.question()).to_have_count(0)
    lab.wait(lambda: lab.text().replace("  ", " ") == "your name? ann\nhello ann\n")


def test_input_answered_elsewhere(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook("print('hello', input('your name?'))", name=name)
    one, other = open_lab(path), open_lab(path)
    one.run()
    for lab in (one, other):
        expect(lab.question()).to_have_count(1)
    other.answer("bob")
    for lab in (one, other):
        lab.wait_text("hello bob")
        expect(lab.question()).to_have_count(0)


WIDGETS = """
import time
import ipywidgets as widgets
from IPython.display import display
bar = widgets.IntProgress(max=30, description="bar")
out = widgets.Output()
display(bar, out)
for number in range(30):
    bar.value = number + 1
    with out:
        print("captured", number)
    time.sleep(0.2)
"""


def test_widgets(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(WIDGETS, name=name)
    first = open_lab(path)
    first.run()
    first.wait_text("captured 2\n")
    first.close()
    second = open_lab(path)
    second.wait_prompt("[1]:")
    second.wait(lambda: second.cell().locator(".widget-hprogress .progress-bar").count() == 1)
    second.wait_text("captured 29\n")
    second.shot("widgets")
    bar = second.cell().locator(".progress-bar")
    second.wait(lambda: "100%" in (bar.get_attribute("style") or ""))
    captured = second.cell().locator(".widget-output").inner_text()
    assert captured.strip().split("\n") == [f"captured {number}" for number in range(30)]


def test_interrupt_from_the_new_browser(server: Server, open_lab: Open, name: str) -> None:
    second = newcomer(open_lab, server.notebook(printing(count=500, pause=0.1), name=name))
    second.menu("Kernel", "Interrupt Kernel")
    second.wait_prompt("[1]:")
    second.wait_text("KeyboardInterrupt")
    second.shot("interrupted")


def test_output_cleared_in_the_middle(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing(count=40, pause=0.1), name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait_text("line 5\n")
    lab.menu("Edit", "Clear Cell Output")
    lab.wait(lambda: "line 5\n" not in lab.text())
    lab.wait_prompt("[1]:")
    lab.wait_text("line 39\n")
    assert lines(40).endswith(lab.text())
    lab.wait(lambda: lines(40).endswith(server.saved_text(name=name)))


def test_two_browsers_see_the_same(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing(count=20, pause=0.1), "print('second')", name=name)
    one, other = open_lab(path), open_lab(path)
    one.run(0)
    other.wait_prompt("[*]:")
    other.wait_text("line 5\n")
    other.run(1)
    for lab in (one, other):
        lab.wait_prompt("[2]:", 1)
        lab.wait_text("second\n", 1)
        lab.wait(lambda lab=lab: lab.text(0) == lines(20))


def test_kernel_restarted_from_the_new_browser(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(printing(count=500, pause=0.1), "print('ok')", name=name)
    second = newcomer(open_lab, path)
    second.menu("Kernel", "Restart Kernel")
    second.page.locator(".jp-Dialog button", has_text="Restart").click()
    second.wait(lambda: second.prompt() != "[*]:")
    second.run(1)
    second.wait_prompt("[1]:", 1)
    second.wait_text("ok\n", 1)


def test_a_flood_of_output_is_bounded(server: Server, open_lab: Open, name: str) -> None:
    path = server.notebook(flooding(2_000_000), name=name)
    first = open_lab(path)
    first.run()
    first.wait_prompt("[*]:")
    first.close()
    second = open_lab(path)
    second.wait_prompt("[1]:", timeout=200)
    second.wait(lambda: server.saved_text(name=name).endswith(f"1999999 {'x' * 92}\n"))
    text = server.saved_text(name=name)
    assert "[jupyter-keeper left out" in text
    assert len(text) < 1_100_000


def test_thousands_of_small_outputs(server: Server, open_lab: Open, name: str) -> None:
    code = "from IPython.display import display\nfor i in range(10_000):\n    display(i)"
    path = server.notebook(code, name=name)
    lab = open_lab(path)
    lab.run()
    lab.wait_prompt("[1]:", timeout=200)
    lab.wait(lambda: len(server.saved(name)[0]) == 10_000)
    lab.wait(lambda: lab.text().startswith("0\n1\n2\n"))
