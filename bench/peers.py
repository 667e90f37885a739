"""Beside tslab, the other kernel for TypeScript on Node: start, `1+1`, output, completion.

tslab comes from npm into a temporary folder and runs on the machine's Node. Its output arrives
after its idle, or not at all, so lines count until a second has brought nothing. Now and then it
answers no more: then it is started anew, and asked again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from bench.client import OF, OURS, Kernel, SilentError, kernels
from bench.table import Table

_PEER, _PACKAGE = "tslab", "tslab@1.0.22"
_LINES, _SIZE = 10_000, 10_000_000
_PRINT = f"for (let i = 0; i < {_LINES}; i++) console.log('line', i)"
_PRINTED = sum(len(f"line {i}\n") for i in range(_LINES))
_AIM = "<= 1x"
_DISPLAYS = {
    OURS: f"display('x'.repeat({_SIZE}), {{ mime: 'text/html' }})",
    _PEER: f"import * as tslab from 'tslab'; tslab.display.html('x'.repeat({_SIZE}))",
}
_COMPLETIONS = {
    "a global": "parseI",
    "a member": "Math.at",
    "a user's member": "basket.",
}
_BASKET = "const basket = { tea: 1, milk: 2 }"
_TRIES = 3
Values = dict[str, list[float]]


def run(n: int | None) -> list[Table]:
    """n: starts, and cells with much output; the quick ones are ten times as many."""
    table = Table(
        "Beside tslab", "in turns; tslab drops lines that its reader does not take fast enough"
    )
    if shutil.which("npm") is None:
        table.lacks("all", _PACKAGE, "npm is missing: apt-get install npm")
        return [table]
    n = n or 7
    with _installed():
        _start(table, n)
        with kernels(_PEER, OURS) as both:
            _cells(table, both, n)
    return [table]


def _start(table: Table, n: int) -> None:
    ready: Values = {_PEER: [], OURS: []}
    first: Values = {_PEER: [], OURS: []}
    for _ in range(n):
        for name in (_PEER, OURS):
            with kernels(name) as (kernel,):
                ready[name].append(kernel.ready)
                first[name].append(kernel.first)
    _add(table, "start to kernel_info_reply", ready)
    _add(table, "start to the first result", first)


def _cells(table: Table, both: list[Kernel], n: int) -> None:
    silent = Counter[str]()

    def answer(kernel: Kernel, ask: Callable[[Kernel], float]) -> float:
        for _ in range(_TRIES):
            time.sleep(0.1)  # the checkpoint of the last cell is over
            try:
                return ask(kernel)
            except SilentError:
                silent[kernel.name] += 1
                kernel.close()
                kernel.begin()
                kernel.run(_BASKET)
        raise SilentError(f"{kernel.name} is silent, {_TRIES} times in a row")

    def turns(times: int, ask: Callable[[Kernel], float]) -> Values:
        values: Values = {kernel.name: [] for kernel in both}
        for kernel in both * times:
            values[kernel.name].append(answer(kernel, ask))
        return values

    _add(table, "1+1, to the reply", turns(10 * n, lambda kernel: kernel.run("1+1").reply))
    _add(table, "1+1, to idle", turns(10 * n, lambda kernel: kernel.run("1+1").idle))
    for kernel in both:
        kernel.run(_BASKET)
    arrived: Values = {kernel.name: [] for kernel in both}

    def print_lines(kernel: Kernel) -> float:
        done = kernel.run(_PRINT, quiet=1.0)
        arrived[kernel.name].append(100 * done.printed / _PRINTED)
        return max(done.reply, done.shown)

    _add(table, f"{_LINES:,} lines", turns(n, print_lines))
    for name, shares in arrived.items():
        table.add("  of them arrived", OF.get(name, name), shares, "%")
    display = turns(n, lambda kernel: kernel.run(_DISPLAYS[kernel.name]).shown)
    _add(table, f"one display of {_SIZE // 10**6} MB", display)
    cells = count()

    def again(kernel: Kernel, code: str) -> float:
        return kernel.complete(code).reply

    def after_a_cell(kernel: Kernel, code: str) -> float:
        kernel.run(f"const seen{next(cells)} = 1")
        time.sleep(0.1)
        return again(kernel, code)

    for what, code in _COMPLETIONS.items():
        values = turns(n, partial(after_a_cell, code=code))
        _add(table, f"completion of {what}, the first after a cell", values)
        values = turns(3 * n, partial(again, code=code))
        _add(table, f"completion of {what}, the same again", values)
    for kernel in both:
        table.add(
            "times it fell silent", OF.get(kernel.name, kernel.name), [silent[kernel.name]], ""
        )


def _add(table: Table, what: str, values: Values) -> None:
    table.add(what, _PEER, values[_PEER])
    table.add(what, OF[OURS], values[OURS], against=values[_PEER], aim=_AIM)


@contextmanager
def _installed() -> Iterator[None]:
    """tslab from npm, and a kernelspec for it that is found for the time of a block."""
    with tempfile.TemporaryDirectory(prefix="crkernel-bench-") as name:
        folder = Path(name)
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", _PACKAGE]
        subprocess.run(install, cwd=folder, check=True)
        program = folder / "node_modules" / "tslab" / "bin" / "tslab"
        spec = {
            "argv": [str(program), "kernel", "--config-path", "{connection_file}"],
            "display_name": _PEER,
            "language": "typescript",
        }
        place = folder / "kernels" / _PEER
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
        # tslab looks for the types of Node's globals in the working folder.
        with chdir(folder), _environment("JUPYTER_PATH", name):
            yield


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
