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
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

SECONDS = 30.0
"""How long a test waits for anything that a person would see at once."""

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
_SETTINGS = {
    # What would cover a page, or ask the network for something.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "apputils-extension/themes": {"theme-scrollbars": False},
}


class Server:
    """A running Jupyter server with JupyterLab and Notebook 7, its files in `folder`."""

    def __init__(self, folder: Path, log: Path, url: str, token: str) -> None:
        self.folder = folder
        self._log = log
        self._url = url
        self._token = token

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"{self._url}{path}?token={self._token}"

    def end_kernels(self) -> None:
        """Shut down all kernels, so that a test leaves none behind."""
        for kernel in json.loads(self._ask("GET", "api/kernels")):
            self._ask("DELETE", f"api/kernels/{kernel['id']}")

    def _ask(self, method: str, path: str) -> bytes:
        headers = {"Authorization": f"token {self._token}"}
        try:
            with urlopen(Request(self._url + path, method=method, headers=headers)) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            log = self._log.read_text(errors="replace")[-3000:]
            raise AssertionError(f"{method} {path}: {error}\n{log}") from None


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
            deadline = time.monotonic() + SECONDS
            while not (found := list(runtime.glob("jpserver-*.json"))):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            info = json.loads(found[0].read_text())
            running = Server(files, log, info["url"], info["token"])
            yield running
            running.end_kernels()
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


@contextmanager
def connecting(page: Page) -> Iterator[None]:
    """A block in which a page connects to a kernel.

    It shows an idle one before it has any, and silently drops what is run then.
    """
    with page.expect_websocket(lambda socket: "/channels" in socket.url, timeout=1e3 * SECONDS):
        yield


def screenshot(page: Page, name: str) -> None:
    """Keep what is seen now."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


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

    def accept(self) -> None:
        """Say yes in a dialog."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def screenshot(self, name: str) -> None:
        """Keep what is seen now."""
        screenshot(self.page, name)
