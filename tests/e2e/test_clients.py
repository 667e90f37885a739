"""Front ends as people use them: nbconvert, crkernel run, nbclient, a console in a terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pexpect
import pytest
from _driver import descendants, eventually, statuses
from driver import kernel_name
from nbclient import NotebookClient
from scenario import SCENARIO

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
SECONDS = 120


def notebook(*cells: str) -> Any:
    """A notebook of code cells for the installed kernel."""
    new = nbformat.v4
    metadata = {
        "kernelspec": {"name": kernel_name(), "display_name": "crkernel", "language": "javascript"}
    }
    return new.new_notebook(cells=[new.new_code_cell(cell) for cell in cells], metadata=metadata)


TOUR = (
    "let x = 1",
    "x = 2; console.log('x is', x); display('<b>2</b>', { mime: 'text/html' }); x",
    "%rewind 1",
    "x",
    "%timeline",
)


def texts(cell: Any) -> list[str]:
    """What a cell put out, as text."""
    return [
        output["text"] if output.output_type == "stream" else output["data"]["text/plain"]
        for output in cell.outputs
        if output.output_type == "stream" or "text/plain" in output["data"]
    ]


def check_tour(path: Path) -> None:
    """The executed TOUR has all of its outputs."""
    done = nbformat.read(path, as_version=4)
    cells = done.cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5]
    assert texts(cells[1]) == ["x is 2\n", "<HTML>", "2"]
    assert cells[1].outputs[1]["data"]["text/html"] == "<b>2</b>"
    assert "checkpoint 1: let x = 1" in texts(cells[2])[0]
    assert texts(cells[3]) == ["1"]
    assert "├─●" in texts(cells[4])[0]
    assert done.metadata.language_info.name == "javascript"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment to its end."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [str(BIN / program), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_nbconvert(tmp_path: Path) -> None:
    nbformat.write(notebook(*TOUR), tmp_path / "tour.ipynb")
    ended = run(
        "jupyter", "nbconvert", "--to", "notebook", "--execute", "tour.ipynb",
        "--output", "done.ipynb", cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    check_tour(tmp_path / "done.ipynb")


def test_crkernel_run(tmp_path: Path) -> None:
    nbformat.write(notebook(*TOUR), tmp_path / "tour.ipynb")
    ended = run("crkernel", "run", "tour.ipynb", "-o", "out/done.ipynb", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    check_tour(tmp_path / "out" / "done.ipynb")
    assert "Traceback" not in ended.stderr


def test_crkernel_run_stops_at_an_error(tmp_path: Path) -> None:
    nbformat.write(notebook("1", "throw new Error('enough')", "2"), tmp_path / "bad.ipynb")
    ended = run("crkernel", "run", "bad.ipynb", cwd=tmp_path)
    assert ended.returncode == 1
    assert "Error: enough" in ended.stderr
    done = nbformat.read(tmp_path / "bad.executed.ipynb", as_version=4)
    assert texts(done.cells[0]) == ["1"]
    assert done.cells[1].outputs[0].output_type == "error"
    assert done.cells[2].execution_count is None


@pytest.mark.parametrize("name", ["missing.ipynb", "text.ipynb"])
def test_crkernel_run_on_what_is_no_notebook(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.ipynb").write_text("this is no notebook")
    ended = run("crkernel", "run", name, cwd=tmp_path)
    assert ended.returncode == 2
    assert name in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 2


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGINT has an effect in processes that are started now; one that runs in the background of a
    script would hand down that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "\ncrkernel: stopped\n"), (signal.SIGTERM, 143, "")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_crkernel_run_can_be_stopped(
    tmp_path: Path, number: signal.Signals, code: int, said: str
) -> None:
    """In the middle of a cell: what was executed is written, and no kernel is left."""
    nbformat.write(notebook("1", "await new Promise(() => {})"), tmp_path / "long.ipynb")
    command = [BIN / "crkernel", "run", "long.ipynb"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("[1/2]")
        time.sleep(0.5)
        below = descendants(process.pid)
        assert below
        process.send_signal(number)
        assert process.stderr.read() == f"wrote long.executed.ipynb\n{said}"
    assert process.returncode == code
    assert eventually(lambda: not statuses(below), 5)
    done = nbformat.read(tmp_path / "long.executed.ipynb", as_version=4)
    assert texts(done.cells[0]) == ["1"]


def test_nbclient_goes_on_after_errors() -> None:
    content = notebook(
        "let a = 1; missing",
        "a",
        "process.exit(2)",
        "a + 1",
        "%rewind nowhere",
        "setTimeout(() => console.log('late'), 100); await new Promise((r) => setTimeout(r, 200))",
    )
    NotebookClient(content, kernel_name=kernel_name(), allow_errors=True, timeout=SECONDS).execute()
    failures = [
        output.ename
        for cell in content.cells
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert failures == ["ReferenceError", "GuestDied", "UnknownCheckpoint"]
    assert texts(content.cells[3]) == ["2"]
    assert texts(content.cells[5]) == ["late\n"]


# -- a console ---------------------------------------------------------------------------------

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][AB012]|[=>78])")


class Console:
    """`jupyter console` in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "IPYTHONDIR": str(folder),
            "JUPYTER_CONFIG_DIR": str(folder),
        }
        self.child = pexpect.spawn(
            str(BIN / "jupyter"),
            [
                "console",
                "--kernel",
                kernel_name(),
                "--ZMQTerminalInteractiveShell.true_color=False",
                # After it the console takes a line for one that goes on.
                f"--ZMQTerminalInteractiveShell.kernel_is_complete_timeout={SECONDS}",
            ],
            env=environment,
            cwd=str(folder),
            timeout=SECONDS,
            encoding="utf-8",
            dimensions=(40, 120),
        )
        self.screen = ""  # what came and was not waited for yet
        self.raw = ""  # all that came, with its colours

    def wait(self, pattern: str) -> str:
        """Wait for text on the screen, colours taken away; what came until then."""
        while not (match := re.search(pattern, self.screen)):
            try:
                text = self.child.read_nonblocking(4096, timeout=SECONDS)
            except (pexpect.TIMEOUT, pexpect.EOF) as error:
                raise AssertionError(f"{pattern!r} did not come:\n{self.screen}") from error
            self.raw += text
            self.screen = _ESCAPES.sub("", self.screen + text)
        seen, self.screen = self.screen[: match.end()], self.screen[match.end() :]
        return seen

    def prompt(self, number: int) -> None:
        """Wait for an input prompt."""
        self.wait(rf"In \[{number}\]:")

    def type(self, text: str) -> None:
        """Type a line and Enter."""
        self.child.send(text + "\r")

    def leave(self) -> None:
        """Ctrl-D; the console must end well."""
        self.child.sendeof()
        if self.child.expect([r"\[y\]", pexpect.EOF]) == 0:
            self.type("y")
            self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0


def test_a_console(tmp_path: Path) -> None:
    console = Console(tmp_path)
    console.prompt(1)
    console.type("let x = 20 + 1")
    console.prompt(2)
    console.type("x * 2")
    console.wait(r"Out\[2\]:\s*42")
    assert "\x1b[33m42\x1b[39m" in console.raw
    console.prompt(3)
    console.type("function twice(n) {")
    console.wait(r"\.\.\.:")
    console.type("return n * 2 }")
    console.prompt(4)
    console.type("twice(50)")
    console.wait(r"Out\[4\]:\s*100")
    console.prompt(5)
    console.type("x = 5; nowhere")
    console.wait("ReferenceError: nowhere is not defined")
    console.prompt(6)
    console.type("%rewind 4")
    console.wait("now at checkpoint 4")
    console.prompt(7)
    console.type("x")
    console.wait(r"Out\[7\]:\s*21")
    console.prompt(8)
    console.type("%timeline")
    console.wait(r"→\s+● 7")
    console.prompt(9)
    console.type("while (true) {}")
    console.wait("while")
    time.sleep(1)  # until the kernel has it, which nothing on the screen tells
    console.child.sendintr()
    console.prompt(10)
    console.type("console.log(require('util').styleText('cyan', 'sea'))")
    console.wait(r"\nsea\s")
    assert "\x1b[36msea\x1b[39m" in console.raw
    console.prompt(11)
    console.leave()


def test_a_console_runs_what_notebooks_run(tmp_path: Path) -> None:
    console = Console(tmp_path)
    for number, (code, shown) in enumerate(SCENARIO, 1):
        console.prompt(number)
        console.type(code)
        for line in shown.splitlines():
            console.wait(re.escape(line))
    console.prompt(len(SCENARIO) + 1)
    console.leave()
