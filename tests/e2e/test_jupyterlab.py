"""JupyterLab and Notebook 7 in Chromium: what a person does there, seen on the screen.

Each test leaves pictures in build/screenshots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat
import pytest
from browser import SCREENSHOTS, Held, Notebook, Server, chromium, connecting, launcher_card, server
from driver import kernel_name, kernel_title
from playwright.sync_api import BrowserContext, Locator, Page, expect
from scenario import SCENARIO

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with chromium() as running:
        yield running.new_context(viewport={"width": 1100, "height": 900})


@pytest.fixture(scope="module")
def page(browser: BrowserContext, jupyter: Server) -> Page:
    """JupyterLab; it takes seconds to load, so that all tests use one."""
    page = browser.new_page()
    page.goto(jupyter.url("lab"))
    return page


@pytest.fixture
def lab(page: Page, jupyter: Server, request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """A new notebook in JupyterLab, from the launcher."""
    card = launcher_card(page)
    expect(card.locator("img")).to_be_visible()
    with connecting(page):
        card.click()
    notebook = Notebook(page)
    yield notebook
    if getattr(request.node, "failed", False):
        notebook.screenshot(f"failed-{request.node.name}")
        page.goto(jupyter.url("lab/workspaces/after-a-failure"))
    else:
        notebook.close()


def shows(cell: Locator, text: str | re.Pattern[str]) -> None:
    """Wait until the outputs of a cell contain a text."""
    expect(cell.locator(".jp-Cell-outputArea")).to_contain_text(text)


def test_the_launcher_starts_a_kernel(lab: Notebook) -> None:
    shows(lab.run("process.version"), re.compile(r"'v24\.[\d.]+'"))
    expect(lab.page.locator(".jp-KernelName")).to_have_text(kernel_title())
    lab.screenshot("launcher")


def test_jupyterlab_runs_what_all_run(lab: Notebook) -> None:
    for code, shown in SCENARIO:
        shows(lab.run(code), shown)
    lab.screenshot("scenario-jupyterlab")


def test_notebook_7_runs_what_all_run(browser: BrowserContext, jupyter: Server) -> None:
    cells = [nbformat.v4.new_code_cell(code) for code, _ in SCENARIO]
    kernelspec = {"name": kernel_name(), "display_name": "", "language": "javascript"}
    content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
    nbformat.write(content, jupyter.folder / "scenario.ipynb")
    page = browser.new_page()
    with connecting(page):
        page.goto(jupyter.url("notebooks/scenario.ipynb"))
    notebook = Notebook(page)
    failing = [i for i, (_, shown) in enumerate(SCENARIO) if "Error" in shown]
    starts = [0, *(i + 1 for i in failing)]  # an error stops what was sent with it
    for start, end in zip(starts, [*starts[1:], len(SCENARIO)], strict=True):
        notebook.cells.nth(start).locator(".cm-content").click()
        notebook.menu("Run", "Run Selected Cell and All Below")
        for i in range(start, end):
            shows(notebook.cells.nth(i), SCENARIO[i][1])
    notebook.screenshot("scenario-notebook")
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
        notebook.menu("Kernel", "Shut Down Kernel")  # else it would live as long as the server
    assert ended.value.ok
    page.close()


def test_a_completion_is_picked(lab: Notebook) -> None:
    lab.run("const basket = { tea: 1, milk: 2, toString() { throw new Error('called') } }")
    cell = lab.write("1 + basket.")
    lab.page.keyboard.press("Tab")
    completer = lab.page.locator(".jp-Completer:visible")
    expect(completer.locator(".jp-Completer-item", has_text="tea")).to_be_visible()
    lab.screenshot("completion")
    completer.locator(".jp-Completer-item", has_text="milk").click()
    expect(cell.locator(".cm-content")).to_have_text("1 + basket.milk")
    lab.page.keyboard.press("Shift+Enter")
    shows(cell, "3")


def test_an_inspection_is_opened(lab: Notebook) -> None:
    lab.run("/** Twice as much. */\nfunction twice(n) { return 2 * n }")
    lab.write("twice")
    lab.page.keyboard.press("Shift+Tab")
    expect(lab.page.locator(".jp-Tooltip:visible")).to_contain_text("twice(n)")
    lab.screenshot("inspection")


def test_stop_ends_a_loop_and_all_is_alive(lab: Notebook) -> None:
    lab.run("let alive = 42; let ticks = 0; setInterval(() => ticks++, 20); 0")
    cell = lab.start("console.log('spinning'); while (true) {}")
    shows(cell, "spinning")
    lab.tool("interrupt")
    shows(cell, "Interrupted")
    lab.screenshot("stopped")
    shows(lab.run("alive"), "42")
    shows(
        lab.run("const seen = ticks; await new Promise(r => setTimeout(r, 200)); ticks > seen"),
        "true",
    )


def test_restart(lab: Notebook) -> None:
    lab.run("globalThis.before = 1")
    lab.tool("restart")
    lab.answer("Restart")
    cell = lab.run("typeof before")
    shows(cell, "'undefined'")
    expect(cell.locator(".jp-InputPrompt")).to_have_text("[1]:")
    lab.run("%rewind r1.1")
    shows(lab.run("before"), "1")
    lab.screenshot("restarted")


def test_a_display_is_updated(lab: Notebook) -> None:
    first = lab.run("display('<b>waiting</b>', { mime: 'text/html', display_id: 'state' })")
    expect(first.locator("b")).to_have_text("waiting")
    lab.run("display('<b>done</b>', { mime: 'text/html', display_id: 'state', update: true })")
    expect(first.locator("b")).to_have_text("done")
    lab.screenshot("updated-display")


def test_a_chart_is_drawn(lab: Notebook) -> None:
    cell = lab.run(
        "const values = [3, 7, 5].map((y, x) => ({ x, y }));\n"
        "display.vega({ data: { values }, mark: 'bar', width: 300, encoding: {\n"
        "  x: { field: 'x', type: 'ordinal' }, y: { field: 'y', type: 'quantitative' } } })"
    )
    chart = cell.locator(".jp-OutputArea-output .vega-embed").locator("canvas, svg.marks")
    expect(chart.first).to_be_visible()
    box = chart.first.bounding_box()
    assert box is not None
    assert box["width"] > 300
    lab.screenshot("chart")


def test_a_rewind(lab: Notebook) -> None:
    lab.run("const basket = ['tea', 'milk']; let visits = 0")
    lab.run("require('fs').writeFileSync('list.txt', basket.join()); basket")
    lab.run("basket.length = 0; require('fs').rmSync('list.txt'); basket")
    shows(lab.run("%rewind 2"), "now at checkpoint 2")
    shows(
        lab.run("[basket, require('fs').readdirSync('.')]"), "[ [ 'tea', 'milk' ], [ 'list.txt' ] ]"
    )
    timeline = lab.run("%timeline")
    expect(timeline.locator("table")).to_contain_text("basket.length = 0")
    expect(timeline.locator("table")).not_to_contain_text("0+1")
    lab.screenshot("rewind")


def test_an_error_is_read(lab: Notebook) -> None:
    lab.run("function parse(text) {\n  return JSON.parse(text)\n}")
    cell = lab.run("parse('{oops}')")
    shows(cell, "SyntaxError")
    lab.screenshot("error")


def test_an_input_is_answered(lab: Notebook) -> None:
    cell = lab.start("const name = await input('who? '); name.toUpperCase()")
    field = cell.locator(".jp-Stdin-input")
    expect(cell.locator(".jp-Stdin-prompt")).to_have_text("who? ")
    field.fill("ada")
    lab.screenshot("input")
    field.press("Enter")
    shows(cell, "'ADA'")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [kernel_name(), "python3"])
@pytest.mark.parametrize("path", ["lab/tree", "notebooks"])
def test_a_cell_that_is_run_before_any_kernel_starts(
    browser: BrowserContext, jupyter: Server, kernel: str, path: str
) -> None:
    """Front ends drop it, whatever the kernel: they never send it. See docs/frontend.md."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    content.metadata.kernelspec = {"name": kernel, "display_name": kernel}
    name = f"early-{kernel}-{path[:3]}.ipynb"
    nbformat.write(content, jupyter.folder / name)
    page = browser.new_page()
    held = Held(page)
    page.goto(jupyter.url(f"{path}/{name}"))
    early = Notebook(page).cells.first
    held.wait()
    early.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_timeout(500)
    with connecting(page):
        held.release()
    page.wait_for_timeout(2000)
    page.screenshot(path=SCREENSHOTS / f"early-{kernel}-{path[:3]}.png")
    assert not held.sent("execute_request")
    expect(early.locator(".jp-InputPrompt")).to_have_text("[ ]:")
    early.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    shows(early, "2")
    assert held.sent("execute_request")
    page.close()
