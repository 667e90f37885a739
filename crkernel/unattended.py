"""Executes a notebook without a front end, for `crkernel run`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from crkernel import registration
from crkernel.errors import SandboxDied, UserError

_SHOWN = 60  # characters of a cell's first line


def run_notebook(notebook: Path, output: Path, say: Callable[[str], None]) -> bool:
    """Execute each cell in turn and write the result; False if a cell failed.

    `say` gets a line per cell. There is no time limit: a cell may take what it takes.
    """
    content = _read(notebook)
    name = _kernel_for(content)
    content.metadata.setdefault(
        "kernelspec", {"name": name, "display_name": name, "language": "javascript"}
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    progress = _Progress(content, say)
    client = NotebookClient(
        content,
        timeout=None,
        kernel_name=name,
        resources={"metadata": {"path": str(notebook.resolve().parent)}},
        on_cell_start=progress.started,
        on_cell_executed=progress.executed,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        say(f"cell {progress.number} failed: {error.ename}: {error.evalue}")
        return False
    except DeadKernelError as error:
        raise SandboxDied(
            f"the kernel died in cell {progress.number}", hint="run: crkernel doctor"
        ) from error
    finally:
        nbformat.write(content, output)
        say(f"wrote {output}")
    return True


class _Progress:
    """Says which cell runs and how long it took."""

    def __init__(self, content: Any, say: Callable[[str], None]) -> None:
        self.say = say
        self.number = 0
        self.total = sum(cell.cell_type == "code" and bool(cell.source) for cell in content.cells)
        self.began = 0.0

    def started(self, cell: Any, **_: object) -> None:
        if cell.cell_type == "code":
            self.number += 1
            self.began = time.monotonic()

    def executed(self, cell: Any, execute_reply: Any, **_: object) -> None:
        # nbclient counts by itself; the numbers of our checkpoints are the kernel's.
        cell.execution_count = execute_reply["content"].get("execution_count")
        first = cell.source.strip().partition("\n")[0]
        took = time.monotonic() - self.began
        self.say(f"[{self.number}/{self.total}] {took:7.3f} s  {first[:_SHOWN]}")


def _read(notebook: Path) -> Any:
    try:
        return nbformat.read(notebook, as_version=4)
    except OSError as error:
        raise UserError(
            f"cannot read {notebook}: {error.strerror}", hint="give the path of a notebook"
        ) from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise UserError(
            f"{notebook} is not a notebook", hint="notebooks are .ipynb files"
        ) from error


def _kernel_for(content: Any) -> str:
    """The notebook's own kernel if that is a crkernel, else the one of the usual name."""
    named = content.metadata.get("kernelspec", {}).get("name", registration.DEFAULT_NAME)
    for name in (named, registration.DEFAULT_NAME):
        if registration.find(name):
            return str(name)
    raise UserError("the kernel is not registered with Jupyter", hint="run: crkernel install")
