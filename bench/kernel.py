"""The kernel as front ends see it, beside ipykernel: start, round trips, many cells, memory."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from bench import processes
from bench.client import BASELINE, OF, OURS, Kernel, kernels
from bench.table import Table

_CELLS = 1000
_AIMS = {"ready": "", "first": "<= 1.2x", "reply": "<= 1x", "idle": "<= 1x"}
Values = dict[str, dict[str, list[float]]]


def run(n: int | None) -> list[Table]:
    """n: starts and Run Alls; round trips are ten times as many."""
    n = n or 5
    return [_start(n), _round_trips(10 * n), _run_all(n), _in_a_row(), _memory()]


def _start(n: int) -> Table:
    values: Values = {"ready": {OURS: [], BASELINE: []}, "first": {OURS: [], BASELINE: []}}
    for _ in range(n):
        for name in (BASELINE, OURS):
            with kernels(name) as (kernel,):
                values["ready"][name].append(kernel.ready)
                values["first"][name].append(kernel.first)
    table = Table("Start of a kernel", "from the start of its process")
    words = {"ready": "to kernel_info_reply", "first": "to the first result"}
    _add(table, values, words)
    return table


def _round_trips(n: int) -> Table:
    values: Values = {"reply": {OURS: [], BASELINE: []}, "idle": {OURS: [], BASELINE: []}}
    with kernels(OURS, BASELINE) as both:
        for kernel in both * n:
            time.sleep(0.05)  # a person's pause: the checkpoint of the last cell is over
            run = kernel.run("1+1")
            values["reply"][kernel.name].append(run.reply)
            values["idle"][kernel.name].append(run.idle)
    table = Table("Round trip of 1+1", "with a pause of 50 ms before each request")
    _add(table, values, {"reply": "request to reply", "idle": "request to idle"})
    return table


def _run_all(n: int) -> Table:
    cells = [f"{i}+1" for i in range(100)]
    times: dict[str, list[float]] = {OURS: [], BASELINE: []}
    for _ in range(n):
        for name in (BASELINE, OURS):
            with kernels(name) as (kernel,):
                time.sleep(1.0)  # the spare is warm
                times[name].append(kernel.run_all(cells)[-1].idle / 1e3)
    base = times[BASELINE]
    table = Table("Run All", "100 cells sent at once, to the last idle; each is checkpointed")
    table.add("100 trivial cells", OF[BASELINE], base, "s")
    table.add("100 trivial cells", OF[OURS], times[OURS], "s", against=base, aim="<= 2.5 s")
    return table


def _in_a_row() -> Table:
    note = "each sent when the last was idle; ratio to the first 100"
    table = Table(f"{_CELLS} cells in a row", note)
    for name in (BASELINE, OURS):
        with kernels(name) as (kernel,):
            times = [kernel.run(f"{i}+1").idle for i in range(_CELLS)]
            first, aim = times[:100], "<= 1x" if name == OURS else ""
            middle = _CELLS // 2 - 50
            table.add("time per cell, first 100", OF[name], first)
            part = times[middle : middle + 100]
            table.add("time per cell, middle 100", OF[name], part, against=first, aim=aim)
            part = times[-100:]
            table.add("time per cell, last 100", OF[name], part, against=first, aim=aim)
            if name == OURS:
                table.add("staging afterwards", OF[name], [_staging(kernel)], "MB")
                refused = "".join(kernel.run("%timeline").texts).count("✗")
                table.add("checkpoints that were refused", OF[name], [refused], "")
    return table


def _staging(kernel: Kernel) -> float:
    """Megabytes of checkpoints in memory, as %status says it."""
    text = "".join(kernel.run("%status").texts)
    found = re.search(r"staging\W+(\d+) of", text)
    return float(found[1]) * 1.048576 if found else float("nan")


def _memory() -> Table:
    table = Table("Memory of an idle kernel", "PSS of all its processes, after one cell")
    base: list[float] = []
    with kernels(BASELINE, OURS) as both:
        time.sleep(1.5)  # the spare is warm
        for kernel in both:
            try:
                parts = {pid: processes.pss(pid) for pid in processes.tree(kernel.pid)}
            except PermissionError as error:
                table.lacks(
                    "all processes", OF[kernel.name], f"not allowed to read {error.filename}"
                )
                continue
            total = [sum(parts.values())]
            aim = "<= 180 MB" if kernel.name == OURS else ""
            table.add("all processes", OF[kernel.name], total, "MB", against=base, aim=aim)
            base = base or total
            if len(parts) > 1:
                _by_program(table, kernel, parts)
                table.add("  beside it: staging", OF[OURS], [_staging(kernel)], "MB")
    return table


def _by_program(table: Table, kernel: Kernel, parts: dict[int, float]) -> None:
    sums: dict[str, float] = {}
    for pid, size in parts.items():
        # The image's python3 is the nest and the supervisors, which it forked.
        program = "the kernel itself" if pid == kernel.pid else processes.name(pid)
        sums[program] = sums.get(program, 0.0) + size
    for program, size in sums.items():
        table.add(f"  of it: {program}", OF[kernel.name], [size], "MB")


def _add(table: Table, values: Values, words: dict[str, str]) -> None:
    for key, by_name in values.items():
        base: Sequence[float] = by_name[BASELINE]
        table.add(words[key], OF[BASELINE], base)
        table.add(words[key], OF[OURS], by_name[OURS], against=base, aim=_AIMS[key])
