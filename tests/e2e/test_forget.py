"""`%forget` frees what checkpoints take, and says which states are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from _driver import await_ready, nest_of, ready_for
from driver import Kernel

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def _no_children(pid: int) -> Iterator[None]:
    """Kill each child that a process forks meanwhile, at once."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    known = set(path.read_text().split())
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for child in set(path.read_text().split()) - known:
                os.kill(int(child), signal.SIGKILL)
                known.add(child)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _staging(kernel: Kernel) -> int:
    """MiB in use."""
    (line,) = [x for x in kernel.ok("%status").shown.splitlines() if "staging" in x]
    return int(line.split()[1])


def test_dropped_checkpoints_free_staging(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1")
    kernel.ok("globalThis.big = new Uint8Array(80e6).fill(7); 0")
    kernel.ok("big = 0; require('fs').writeFileSync('/tmp/f', Buffer.alloc(40e6)); 0")
    kernel.ok("require('fs').unlinkSync('/tmp/f'); x = 4")
    before = _staging(kernel)
    shown = kernel.ok("%forget 2..3").shown
    assert int(shown.split()[0]) >= 2  # or more, where garbage was collected meanwhile
    # At least the file: garbage of the array may be in checkpoint 4 as well, and shared with it.
    assert int(shown.split("dropped, ")[1].split()[0]) > 35
    assert _staging(kernel) < before - 35
    refused = kernel.fails("%rewind 3")
    assert "dropped by %forget" in refused.reply["evalue"]
    assert "nearest state before it is 1" in refused.traceback
    kernel.rewind("1")
    assert kernel.value("x") == 1
    kernel.rewind("4")
    assert kernel.value("x") == 4
    kernel.ok("%recall 3")
    assert "✗" in kernel.ok("%timeline").shown


def test_the_spare_that_was_ready_for_it_keeps_nothing(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1")
    kernel.ok("globalThis.big = require('crypto').randomBytes(18e6); 0")
    kernel.ok("require('crypto').randomFillSync(big); x = 3")  # no difference to 2: too much is new
    await_ready(kernel, "2")
    before = _staging(kernel)
    assert int(kernel.ok("%forget 2").shown.split("dropped, ")[1].split()[0]) >= 18
    assert _staging(kernel) < before - 15
    assert ready_for(kernel) == "no checkpoint"
    assert "nearest state before it is 1" in kernel.fails("%undo").traceback
    assert kernel.value("x") == 3


def test_where_the_guest_would_come_back_to_stays(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    for n in (1, 2, 3):
        kernel.ok(f"globalThis.x = {n}")
    result = kernel.fails("%forget 1..3")
    assert "checkpoint 3 stays" in result.reply["evalue"]
    assert kernel.ok("%forget 1..2").shown.startswith("2 checkpoints")
    again = kernel.ok("%forget 1..2").shown
    assert again.startswith("0 checkpoints")
    assert "not dropped: 1, 2 (it was dropped by %forget)" in again
    kernel.fails("process.exit(3)")
    assert kernel.value("x") == 3
    turned = kernel.fails("%forget 3..2")
    assert "2 comes before 3" in turned.error
    assert "2..3" in turned.traceback


def test_a_branch_goes_without_the_other(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1; require('fs').writeFileSync('/tmp/f', Buffer.alloc(20e6, 1)); 0")
    kernel.ok("x = 2")
    kernel.ok("x = 3; require('fs').appendFileSync('/tmp/f', 'more')")
    kernel.rewind(1)
    there = kernel.ok("x = 4").count
    assert kernel.ok("%forget 2..3").shown.startswith("2 checkpoints")
    assert "nearest state before it is 1" in kernel.fails("%rewind 3").traceback
    last = kernel.ok("x = 5").count
    assert kernel.ok("%forget 1").shown.startswith("1 checkpoint")
    kernel.rewind(there)  # with the contents that 1 had brought
    assert kernel.value("[x, require('fs').statSync('/tmp/f').size]") == [4, 20_000_000]
    kernel.rewind(last)
    assert kernel.value("x") == 5


def test_one_that_was_killed_halfway_is_done_the_next_time(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1")
    kernel.ok(
        "const fs = require('fs'); fs.mkdirSync('/tmp/many');"
        "for (let n = 0; n < 8000; n++) fs.writeFileSync(`/tmp/many/${n}`, 'x'.repeat(5000)); 0"
    )
    kernel.ok("fs.rmSync('/tmp/many', { recursive: true }); x = 3")
    staging = _staging(kernel)
    with _no_children(nest_of(kernel)):
        forgetting = kernel.run("%forget 2")  # which takes its process some 100 ms
    assert "its process was ended" in forgetting.error
    assert "dropped by %forget" in kernel.fails("%rewind 2").reply["evalue"]
    kernel.ok("%forget 2")
    assert _staging(kernel) < staging - 20
    kernel.rewind(1)
    assert kernel.value("x") == 1
    kernel.rewind(3)
    assert kernel.value("x") == 3


def test_the_root_of_all_kernels_is_not_dropped(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.x = 1")
    shown = fresh_kernel.ok("%forget root").shown
    assert shown.startswith("0 checkpoints")
    assert "not dropped: 0 (kernels start from it)" in shown
    fresh_kernel.rewind("root")
    assert fresh_kernel.value("typeof x") == "undefined"


def test_status_tells_what_each_takes(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.x = 1")
    shown = fresh_kernel.ok("%status").shown
    (row,) = [line for line in shown.splitlines() if "of its own" in line]
    assert row.split()[0] == "1"
    assert "MB" in row
    assert "files" in row
