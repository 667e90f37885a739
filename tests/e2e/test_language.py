"""The language of cells: what the kernel understands, and what it says about what it does not."""

from __future__ import annotations

import time

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


# -- interrupts --------------------------------------------------------------------------------


@pytest.mark.parametrize("open_first", [False, True], ids=["open", "read"])
def test_an_interrupt_ends_the_wait_for_a_silent_fifo(kernel: Kernel, open_first: bool) -> None:
    kernel.ok("var kept = 42, fs = require('node:fs')")
    kernel.ok("require('node:child_process').execSync('mkfifo silent')")
    if open_first:
        kernel.ok("var silent = fs.openSync('silent', fs.constants.O_RDWR)")
    cell = kernel.submit("fs.readFileSync('silent')")
    time.sleep(0.3)
    kernel.interrupt()
    assert kernel.finish(cell).reply["ename"] == "Interrupted"
    assert kernel.value("kept") == 42, "nothing was lost"
