"""Much output, a big display, completion: beside ipykernel."""

from __future__ import annotations

import time

from bench.client import BASELINE, OF, OURS, kernels
from bench.table import Table

_CELLS = {
    "10,000 lines in one cell": {
        BASELINE: "for i in range(10_000): print('line', i)",
        OURS: "for (let i = 0; i < 10_000; i++) console.log('line', i)",
    },
    "one display of 10 MB": {
        BASELINE: "display({'text/plain': 'x' * 10_000_000}, raw=True)",
        OURS: "display('x'.repeat(10_000_000), { mime: 'text/plain' })",
    },
}
_COMPLETIONS = {
    "completion of a member": {BASELINE: "str.enc", OURS: "String.raw"},
    "completion of a global": {BASELINE: "prin", OURS: "parseI"},
}


def run(n: int | None) -> list[Table]:
    """n: cells of each kind; completions are three times as many."""
    n = n or 9
    table = Table("Output and completion", "request to idle; completion: request to reply")
    with kernels(OURS, BASELINE) as both:
        for what, codes in _CELLS.items():
            times: dict[str, list[float]] = {OURS: [], BASELINE: []}
            for kernel in both * n:
                time.sleep(0.1)
                times[kernel.name].append(kernel.run(codes[kernel.name]).idle)
            _add(table, what, times)
        for what, codes in _COMPLETIONS.items():
            times = {OURS: [], BASELINE: []}
            for kernel in both * (3 * n):
                times[kernel.name].append(kernel.complete(codes[kernel.name]).reply)
            _add(table, what, times)
    return [table]


def _add(table: Table, what: str, times: dict[str, list[float]]) -> None:
    table.add(what, OF[BASELINE], times[BASELINE])
    table.add(what, OF[OURS], times[OURS], against=times[BASELINE])
