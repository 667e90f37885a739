"""A guest with a big heap is replaced by its twin, and nobody can tell."""

from __future__ import annotations

import re
import time

from driver import Kernel

_SECONDS = 60.0


def test_a_guest_that_grew_is_replaced_by_its_twin(kernel: Kernel) -> None:
    kernel.ok(
        """globalThis.heap = Array.from({ length: 96 }, (_, i) => new Float64Array(131072).fill(i));
        globalThis.server = require("http").createServer((_, response) => response.end("here"));
        await new Promise((resolve) => server.listen(8080, resolve));
        globalThis.child = require("child_process").spawn("cat"); 0"""
    )
    assert _until_swapped(kernel) >= 1
    assert kernel.value("[heap.length, heap[95][7]]") == [96, 95]
    assert kernel.value("(await fetch('http://localhost:8080')).text()") == "here"
    assert (
        kernel.value(
            "new Promise((resolve) => { child.stdout.once('data', (d) => resolve(String(d)));"
            " child.stdin.write('echo'); })"
        )
        == "echo"
    )
    kernel.ok("heap[0][0] = 1")
    kernel.ok("%undo")
    assert kernel.value("heap[0][0]") == 0


def test_a_row_of_cells_without_a_pause_leads_to_twins(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok(
        """globalThis.sum = 0;
        globalThis.server = require("http").createServer((_, response) => response.end("here"));
        await new Promise((resolve) => server.listen(8080, resolve));
        globalThis.begun = performance.now() - Date.now();
        require("fs").writeFileSync("sum", "0");"""
    )
    counts = [kernel.ok(_ADD).count for _ in range(100)]
    while _swaps(kernel) < 2:
        counts += [kernel.ok(_ADD).count for _ in range(20)]
        assert len(counts) < 1000
    found = kernel.value("[sum, Number(require('fs').readFileSync('sum', 'utf8'))]")
    assert found == [len(counts), len(counts)]
    assert kernel.value("(await fetch('http://localhost:8080')).text()") == "here"
    # Time went on as it did for the guests whose place they took.
    assert abs(kernel.value("performance.now() - Date.now() - begun")) < 30
    for cells in (len(counts) - 1, 50):
        kernel.rewind(counts[cells - 1])
        assert kernel.value("sum") == cells


_ADD = "sum += 1; require('fs').writeFileSync('sum', String(sum))"


def _until_swapped(kernel: Kernel) -> int:
    """How often the guest was replaced, once it was."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        time.sleep(2)
        if swaps := _swaps(kernel):
            return swaps
    return 0


def _swaps(kernel: Kernel) -> int:
    (line,) = [x for x in kernel.ok("%status").shown.splitlines() if "twin swaps" in x]
    return int(line.split()[-1])


def test_who_goes_back_at_once_to_a_big_state_gets_a_mapped_guest(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    big = kernel.ok(
        """globalThis.heap = Array.from({ length: 96 }, (_, i) => new Float64Array(131072).fill(i));
        0"""
    ).count
    kernel.ok("heap = 0")
    kernel.rewind(big)
    kernel.ok("heap[95][7] = 1")
    kernel.ok("%checkpoint")
    newest = kernel.ok("%status").shown.partition("newest checkpoints")[2].strip().splitlines()[0]
    held = re.search(r"(\d+)(\.\d)? MB, memory files", newest)
    assert held is not None, newest
    assert int(held[1]) < 24
    assert kernel.value("[...heap[95].slice(6, 9)]") == [95, 1, 95]
