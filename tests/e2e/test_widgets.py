"""A widget of ipywidgets in JupyterLab, driven by a JavaScript cell.

Leaves a picture in build/screenshots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Notebook, chromium, connecting, launcher_card, server
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

SLIDER = Path(__file__).with_name("slider.js").read_text(encoding="utf-8")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Notebook]:
    """A notebook in JupyterLab."""
    with server(tmp_path) as jupyter, chromium() as browser:
        page = browser.new_context(viewport={"width": 1100, "height": 900}).new_page()
        page.goto(jupyter.url("lab"))
        with connecting(page):
            launcher_card(page).click()
        notebook = Notebook(page)
        yield notebook
        notebook.close()


def test_a_slider_and_its_cell_follow_each_other(lab: Notebook) -> None:
    lab.run(SLIDER)
    shown = lab.run(
        "const seen = []; const s = slider({ value: 3, max: 10, description: 'speed' });"
        " const said = display('at 3'); s.onChange((value) => { seen.push(value);"
        " said.update(`at ${value}`) }); s"
    )
    readout = shown.locator(".widget-readout")
    expect(readout).to_have_text("3")
    shown.locator(".noUi-handle").click()
    for _ in range(4):
        lab.page.keyboard.press("ArrowRight")
    expect(readout).to_have_text("7")
    expect(shown.locator(".jp-OutputArea-output").first).to_have_text(re.compile("at 7"))
    lab.cells.last.locator(".cm-content").click()  # the cell of the slider has the cursor
    cell = lab.run("while (s.value < 7) await new Promise((r) => setTimeout(r, 10)); seen.at(-1)")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text(re.compile(r"^\s*7\s*$"))
    lab.run("s.value = 9")
    expect(readout).to_have_text("9")
    lab.screenshot("widget")
