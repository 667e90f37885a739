"""Going back, as a front end sees it: `%undo`, a new run of the newest cell, and `%rewind`, at
several sizes and kinds of heap; plain CRIU is a rewind to a checkpoint that is not rebased yet."""

from __future__ import annotations

import re
import statistics
import time

from bench import processes
from bench.client import OURS, Kernel
from bench.heaps import BIGGEST, COLLECTOR, HEAPS, IDLE
from bench.table import Table
from crkernel.errors import EngineError

_STAGING = 10 << 30
"""Of the biggest heap: its images, and the file that is made of them."""
_GUESTS = 5 << 30
_PATIENCE_SECONDS = 120.0
_REST_SECONDS = 1.0


def run(n: int | None) -> list[Table]:
    """n: how often each way is gone."""
    table = Table("Going back", "request to idle; baseline of %rewind: the idle guest")
    idle: list[float] = []
    for words, code in HEAPS.items():
        if words == BIGGEST and processes.available() < _STAGING + _GUESTS:
            table.lacks(words, OURS, f"{(_STAGING + _GUESTS) >> 30} GiB of memory are not free")
            continue
        kernel = Kernel(OURS, arguments=[f"--CRKernel.staging_size={_STAGING}"])
        try:
            idle = _of_one(kernel, table, words, code, n or 7, idle)
        finally:
            kernel.close()
    return [table]


def _of_one(
    kernel: Kernel, table: Table, words: str, code: str, n: int, idle: list[float]
) -> list[float]:
    """Append the rows of one heap; the times of `%rewind`."""
    # What V8 collects later is another state, with a checkpoint as big: here it is no difference.
    heap = _cell(kernel, f"globalThis.heap = {code}; ({COLLECTOR})(); 0")
    plain = None
    if words not in (IDLE, BIGGEST):
        kernel.run("%checkpoint")  # once it is taken
        plain = kernel.run(f"%rewind {heap}").idle
    if words != IDLE:
        _cell(kernel, "0")
        _await_ready(kernel, heap)  # for that its memory has to be in a memory file
        kernel.run(f"%rewind {heap}")
    undos, reruns, rewinds, cells = [], [], [], []
    for i in range(n):
        before = _cell(kernel, f"globalThis.x = {i}")
        _cell(kernel, "globalThis.x++")
        _await_ready(kernel, before)
        undos.append(kernel.run("%undo").idle)
        newest = _cell(kernel, "globalThis.x++")
        _await_ready(kernel, before)
        reruns.append(kernel.run(f"%rerun {newest}").idle)
        time.sleep(_REST_SECONDS)
        cells.append(kernel.run("globalThis.x++").idle)
        _await_ready(kernel, None)
        rewinds.append(kernel.run(f"%rewind {heap}").idle)
        time.sleep(_REST_SECONDS)
    own = statistics.median(cells)
    table.add(f"%undo, {words}", OURS, undos, aim="<= 25 ms")
    table.add(f"%rerun less its cell, {words}", OURS, [t - own for t in reruns], aim="<= 25 ms")
    aim = "<= 80 ms, <= 3x" if words.startswith("1 GB") else ""
    table.add(f"%rewind, {words}", OURS, rewinds, against=idle, aim=aim)
    if plain is not None:
        table.add(f"%rewind, {words}", "plain CRIU", [plain], against=idle)
    return idle or rewinds


def _cell(kernel: Kernel, code: str) -> str:
    """Run it; the key of its checkpoint."""
    return str(kernel.run(code).content["execution_count"])


def _await_ready(kernel: Kernel, key: str | None) -> None:
    """Until the spare is ready for the state before the newest cell, `key` if it is known. To ask
    is to disturb the pause in which it gets so."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_REST_SECONDS)
        status = " ".join(kernel.run("%status").texts)
        if re.search(rf"spare is ready for\s+{key or '[0-9]'}", status):
            return
    raise EngineError(f"no spare was ready for an undo in {_PATIENCE_SECONDS:.0f} s")
