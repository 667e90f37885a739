"""Executes a notebook without a front end, for `crkernel run`."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from crkernel import registration
from crkernel.errors import EngineUnavailable, NoSpace, SandboxDied, UserError
from crkernel.lines import EACH, FOR_NOW

_SHOWN = 60  # characters of a cell's first line
_REASON = 120  # characters of what is wrong with a file
_LANGUAGES = ("javascript", "typescript")  # that the guest can run
_SKIP = "skip-execution"  # the tag of cells that are not run
_MALFORMED = (
    nbformat.ValidationError,
    *(ValueError, AttributeError, TypeError, KeyError, AssertionError),
)
"""What nbformat raises for what is no notebook; it takes much for granted."""


def run_notebook(notebook: Path, output: Path, say: Callable[[str], None]) -> bool:
    """Execute each cell in turn and write the result; False if a cell failed.

    `say` gets a line per cell. There is no time limit: a cell may take what it takes.
    """
    content = _read(notebook)
    name = _kernel_for(content, notebook)
    content.metadata.setdefault(
        "kernelspec", {"name": name, "display_name": name, "language": "javascript"}
    )
    found = registration.find(name)
    assert found is not None  # as _kernel_for has made sure
    found.require_python()
    _make_room(output)
    progress = _Progress(content, say)
    client = _Client(
        content,
        timeout=None,
        kernel_name=name,
        resources={"metadata": {"path": str(notebook.resolve().parent)}},
        skip_cells_with_tag=_SKIP,
        on_cell_execute=progress.started,
        on_cell_executed=progress.executed,
    )
    try:
        asyncio.run(_execute(client, progress))
    except CellExecutionError as error:
        say(f"cell {progress.number} failed: {error.ename}: {error.evalue}")
        for line in error.traceback.splitlines():
            if line.startswith("hint: "):
                say(f"  {line}")
        return False
    except DeadKernelError as error:
        raise SandboxDied(
            f"the kernel died in cell {progress.number}", hint="run: crkernel doctor"
        ) from error
    finally:
        if client.up:  # else nothing has run, and what an earlier run has written stays
            _write(content, output)
            say(f"wrote {output}")
    return True


class _Client(NotebookClient):
    """nbclient's answer to a signal is to end the kernel under whatever waits for it, which then
    fails with anything. Here what waits is cancelled, and then the kernel is shut down. `up` tells
    that there was one."""

    up = False

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        if manager.has_trait("transport_encryption"):  # jupyter_client 8.9; our kernel knows how
            manager.transport_encryption = "auto"
        return manager

    @asynccontextmanager
    async def async_setup_kernel(self, **kwargs: Any) -> AsyncIterator[None]:
        manager = self.km = self.create_kernel_manager()
        cleaned = False
        try:
            try:
                await self.async_start_new_kernel(**kwargs)
                await self.async_start_new_kernel_client()
            except (OSError, RuntimeError) as error:
                cleaned = True  # by nbclient, if there was anything
                raise EngineUnavailable(
                    f"the kernel did not start: {error}", hint="run: crkernel doctor"
                ) from error
            self.up = True
            yield
        finally:
            if self.kc is not None:
                self.kc.stop_channels()
            if manager.has_kernel and not cleaned:
                await manager.shutdown_kernel()


async def _execute(client: NotebookClient, progress: _Progress) -> None:
    """All cells; Ctrl-C, SIGTERM and SIGHUP end it as they end other programs, when the kernel is
    gone."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    came: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        came.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background of a script
            loop.add_signal_handler(number, stop, number)
    ticks = asyncio.create_task(progress.tick())
    try:
        await client.async_execute()
    except (asyncio.CancelledError, DeadKernelError) as error:  # nbclient makes the latter of it
        if not came:
            raise
        end = KeyboardInterrupt() if came[0] == signal.SIGINT else SystemExit(128 + came[0])
        raise end from error
    finally:
        ticks.cancel()


class _Progress:
    """Says which cell runs and how long it took."""

    def __init__(self, content: Any, say: Callable[[str], None]) -> None:
        self.say = say
        self.number = 0
        self.total = sum(map(_runs, content.cells))
        self.began = 0.0
        self.first = ""  # line of the cell that runs

    def started(self, cell: Any, **_: object) -> None:
        self.number += 1
        self.began = time.monotonic()
        first = cell.source.strip().partition("\n")[0][:_SHOWN]
        self.first = "".join(c if c.isprintable() else " " for c in first).rstrip()
        self._for_now()

    def executed(self, cell: Any, execute_reply: Any, **_: object) -> None:
        # nbclient counts by itself; the numbers of our checkpoints are the kernel's.
        cell.execution_count = execute_reply["content"].get("execution_count")
        took = time.monotonic() - self.began
        self.say(f"[{self.number}/{self.total}] {took:7.3f} s  {self.first}")
        self.first = ""

    async def tick(self) -> None:
        """As time goes by."""
        while True:
            await asyncio.sleep(EACH)
            if self.first:
                self._for_now()

    def _for_now(self) -> None:
        took = time.monotonic() - self.began
        self.say(f"[{self.number}/{self.total}] {took:3.0f}     s  {self.first}{FOR_NOW}")


def _runs(cell: Any) -> bool:
    """Whether nbclient has the kernel execute a cell."""
    skipped = _SKIP in cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and not skipped


def _read(notebook: Path) -> Any:
    try:
        content = nbformat.read(notebook, as_version=4)
        for cell in content.cells:  # nbformat lets all of this pass
            _runs(cell)
        for name in ("kernelspec", "language_info"):
            content.metadata.get(name, {}).get("name")
    except OSError as error:
        raise UserError(
            f"cannot read {notebook}: {error.strerror}", hint="give the path of a notebook"
        ) from error
    except _MALFORMED as error:
        told = isinstance(error, (nbformat.ValidationError, nbformat.NBFormatError))
        why = f": {str(error).splitlines()[0][:_REASON]}" if told else ""
        raise UserError(
            f"{notebook} is not a notebook{why}", hint="notebooks are .ipynb files"
        ) from error
    return content


def _make_room(output: Path) -> None:
    """Make sure, before anything runs, that the result can be written; `UserError` if not."""
    try:
        if output.is_dir():
            raise UserError(f"{output} is a folder", hint=f"give a file: -o {output / 'out.ipynb'}")
        output.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(output):
            output.open("xb").close()
            output.unlink()  # or a run that is killed leaves an empty notebook
        elif output.is_file():  # to open a pipe would wait
            output.open("ab").close()
    except OSError as error:
        raise _unwritable(output, error) from error


def _write(content: Any, output: Path) -> None:
    """Whole or not at all, unless it is no file that another one could take the place of."""
    text = nbformat.writes(content) + "\n"
    try:
        target = output.resolve()
        replaceable = target.is_file() or not target.exists()
        if not (replaceable and os.access(target.parent, os.W_OK) and _replace(target, text)):
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(output, error) from error


def _replace(target: Path, text: str) -> bool:
    """By a file beside it; False for one that has to stay: a mount, another user's in /tmp."""
    beside = target.with_name(f".{os.getpid()}.crkernel")
    try:
        beside.write_text(text, encoding="utf-8")
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EPERM):
            return False
        raise
    finally:
        beside.unlink(missing_ok=True)
    return True


def _unwritable(output: Path, error: OSError) -> NoSpace | UserError:
    message = f"cannot write {output}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(message, hint="free some space there, or choose another place: -o PATH")
    return UserError(message, hint="choose another place: -o PATH")


def _kernel_for(content: Any, notebook: Path) -> str:
    """The notebook's own kernel if that is a crkernel, else the one of the usual name.

    `UserError` if there is none, or if the notebook is of a language that it does not speak.
    """
    spec = content.metadata.get("kernelspec", {})
    named = str(spec.get("name", registration.DEFAULT_NAME))
    if registration.find(named):
        return named
    language = (
        spec.get("language")
        or content.metadata.get("language_info", {}).get("name")
        or registration.language(named)
        or _LANGUAGES[0]
    )
    if str(language).lower() not in _LANGUAGES:
        raise UserError(
            f"{notebook} is a notebook of {language}, crkernel runs JavaScript and TypeScript",
            hint=f"run: jupyter nbconvert --execute --to notebook {shlex.quote(str(notebook))}",
        )
    if registration.find():
        return registration.DEFAULT_NAME
    raise UserError("the kernel is not registered with Jupyter", hint="run: crkernel install")
