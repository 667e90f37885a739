"""Notebooks in a real browser: a Jupyter server, Debian's Chromium, what a person sees and does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driver import kernel_title
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

SECONDS = 30.0
"""How long a test waits for anything that a person would see at once."""

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
_SETTINGS = {
    # Nothing covers a page or asks the network; a notebook that is closed leaves no kernel behind.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"kernelShutdown": True},
}


class Server:
    """A running Jupyter server with JupyterLab and Notebook 7, its files in `folder`."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        self._url = url
        self._token = token

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"{self._url}{path}?token={self._token}"


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server on a free port, with settings of its own, in `folder`."""
    files, runtime, settings = (folder / name for name in ("files", "runtime", "settings"))
    for path in (files, runtime):
        path.mkdir()
    for name, values in _SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    command = [
        Path(sys.executable).parent / "jupyter-lab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={files}",
        "--LabApp.extension_manager=readonly",
    ]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 3 * SECONDS  # it loads hundreds of modules first
            while not (found := list(runtime.glob("jpserver-*.json"))):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            info = json.loads(found[0].read_text())
            yield Server(files, info["url"], info["token"])
        finally:
            process.terminate()
            process.wait(SECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a screen."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed: run make browser"
    expect.set_options(timeout=1e3 * SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=os.geteuid() != 0,
            args=["--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


def launcher_card(page: Page) -> Locator:
    """What in JupyterLab's launcher starts a notebook with our kernel."""
    title = page.get_by_text(kernel_title(), exact=True)
    return page.locator('.jp-LauncherCard[data-category="Notebook"]:visible').filter(has=title)


@contextmanager
def connecting(page: Page) -> Iterator[None]:
    """A block in which a page connects to a kernel; it ends when the kernel has answered.

    Until then the page shows an idle kernel all the same, and drops what is run.
    """
    answered = False

    def take(frame: str | bytes) -> None:
        nonlocal answered
        raw = frame.encode() if isinstance(frame, str) else frame
        answered = answered or b"kernel_info_reply" in raw

    page.on("websocket", lambda socket: socket.on("framereceived", take))
    yield
    deadline = time.monotonic() + SECONDS
    while not answered:
        assert time.monotonic() < deadline, "the page has no kernel"
        page.wait_for_timeout(20)


class Held:
    """A page whose kernels do not start until `release`, and what it sends to them."""

    def __init__(self, page: Page) -> None:
        self.requests: list[Route] = []
        self._page = page
        self._frames: list[bytes] = []
        page.route(re.compile(r"/api/sessions\b"), self._take)
        page.on("websocket", lambda socket: socket.on("framesent", self._note))

    def _take(self, route: Route) -> None:
        if route.request.method == "POST":
            self.requests.append(route)
        else:
            route.continue_()

    def _note(self, frame: str | bytes) -> None:
        self._frames.append(frame.encode() if isinstance(frame, str) else frame)

    def sent(self, kind: str) -> bool:
        """Whether the page has sent a message of that type."""
        return any(f'"{kind}"'.encode() in frame for frame in self._frames)

    def wait(self) -> None:
        """Until it has asked for a kernel."""
        deadline = time.monotonic() + SECONDS
        while not self.requests:
            assert time.monotonic() < deadline, "the page wants no kernel"
            self._page.wait_for_timeout(20)

    def release(self) -> None:
        """Let what is held start."""
        for route in self.requests:
            route.continue_()


class Notebook:
    """The notebook that a page shows, in JupyterLab or in Notebook 7."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.panel = page.locator(".jp-NotebookPanel:visible")
        self.cells = self.panel.locator(".jp-CodeCell")
        expect(self.current).to_be_visible()

    # -- cells

    @property
    def current(self) -> Locator:
        """The cell with the cursor."""
        return self.panel.locator(".jp-CodeCell.jp-mod-active")

    def write(self, code: str) -> Locator:
        """Put code into the current cell, the cursor behind it; the cell."""
        cell = self.cells.nth(self._position())
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        return cell

    def start(self, code: str) -> Locator:
        """Run code in the current cell, which must be empty, without waiting; the cell."""
        cell = self.write(code)
        self.page.keyboard.press("Shift+Enter")
        return cell

    def run(self, code: str) -> Locator:
        """Run code in the current cell and wait until it is over; the cell."""
        cell = self.start(code)
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
        return cell

    def _position(self) -> int:
        active: int = self.current.evaluate(
            "(cell) => [...cell.closest('.jp-Notebook').querySelectorAll('.jp-CodeCell')]"
            ".indexOf(cell)"
        )
        return active

    # -- what stands above and around

    def tool(self, name: str) -> None:
        """Press a button of the notebook's toolbar."""
        self.panel.locator(f'[data-jp-item-name="{name}"] jp-button').click()

    def menu(self, *path: str) -> None:
        """Choose from the menu bar."""
        bar, *items = path
        self.page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{bar}$")).click()
        for item in items:
            label = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$"))
            label.click()

    def answer(self, button: str) -> None:
        """Press a button of a dialog and wait until it is gone."""
        dialog = self.page.locator(".jp-Dialog")
        dialog.locator("button", has_text=button).click()
        expect(dialog).to_have_count(0)

    def close(self) -> None:
        """Close it, its changes and its kernel with it."""
        self.menu("File", "Close Tab")
        self.answer("Discard")

    def screenshot(self, name: str) -> None:
        """Keep what is seen now."""
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
