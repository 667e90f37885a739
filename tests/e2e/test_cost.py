"""What a guest that does nothing costs each checkpoint, in what does not depend on the machine."""

from __future__ import annotations

from statistics import median

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e

THREADS = 4  # the main thread, the worker, V8's one and its clock
COUNTS = """(() => {
    const { readdirSync, readFileSync } = require("node:fs");
    return [readdirSync("/proc/self/task").length,
            readFileSync("/proc/self/maps", "utf8").split("\\n").length];
})()"""


def test_threads_mappings_and_memory_are_few_and_stay_few(fresh_kernel: Kernel) -> None:
    first = fresh_kernel.ok("0").count
    assert megabytes(fresh_kernel, first) < 4
    threads, mappings = fresh_kernel.value(COUNTS)
    assert threads <= THREADS
    assert mappings <= 120

    sizes = []
    for number in range(300):
        last = fresh_kernel.ok(f"{number} + 1").count
        if number % 10 == 9:
            sizes.append(megabytes(fresh_kernel, last))
    # Without twins that took over both heaps had filled their young generations by now: 13 MB.
    assert median(sizes[-10:]) < 8
    threads, mappings = fresh_kernel.value(COUNTS)
    assert threads <= THREADS
    assert mappings <= 140


def megabytes(kernel: Kernel, cell: int) -> float:
    """The size of a checkpoint that was just taken."""
    size = kernel.row(cell).split(" MB")[0].split()[-1]
    return float(size)
