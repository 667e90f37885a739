"""What the guest does by itself between a cell and the next one stays reachable, however soon."""

from __future__ import annotations

import time

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("delay", [1, 4, 8, 12, 16, 20, 28, 40])
def test_a_timer_soon_after_the_cell_is_kept(kernel: Kernel, delay: int) -> None:
    cell = kernel.ok(f"globalThis.v = 0; setTimeout(() => {{ v = 1 }}, {delay}); 0").count
    time.sleep(0.3)
    kernel.ok("v = 2")
    kernel.ok("%undo")
    assert kernel.value("v") == 1
    kernel.rewind(cell)
    assert kernel.value("v") in (0, 1)  # it may have fired before the guest was frozen


def test_a_guest_at_rest_gets_no_later_state(kernel: Kernel) -> None:
    cell = kernel.ok("globalThis.v = 0").count
    for _ in range(3):
        time.sleep(0.2)
        kernel.client.complete("v.to", 4)
        kernel.client.get_shell_msg(timeout=10)
        kernel.ok("%timeline")
    kernel.ok("v")
    assert f"{cell}+1" not in kernel.ok("%timeline").shown
