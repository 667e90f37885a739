"""The spare that is made ready for an undo: what comes out is what any other rewind gives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _driver import await_ready, descendants, eventually, nest_of, ready_for
from containers import restorers
from driver import Kernel

pytestmark = pytest.mark.e2e

_FS = "process.getBuiltinModule('fs')"
_SECONDS = 20.0


def _waiting(kernel: Kernel) -> list[int]:
    """The CRIUs that wait with a restore, and what they have made."""
    return restorers(descendants(nest_of(kernel)))


def test_undo_gives_back_the_state_and_its_files(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok(f"let x = 1; {_FS}.writeFileSync('f', 'one'); {_FS}.mkdirSync('d')")
    kernel.ok(f"x = 2; {_FS}.writeFileSync('f', 'two'); {_FS}.rmdirSync('d')")
    for value in (3, 4):  # what is ready is for one undo; the next one gets its own
        await_ready(kernel, "1")
        kernel.ok("%undo")
        assert kernel.value(f"[x, {_FS}.readFileSync('f', 'utf8'), {_FS}.existsSync('d')]") == [
            1,
            "one",
            True,
        ]
        kernel.rewind("1")
        kernel.ok(f"x = {value}; {_FS}.writeFileSync('f', 'other'); {_FS}.rmdirSync('d')")
        kernel.ok("%undo")
        kernel.ok(f"x = {value}; {_FS}.writeFileSync('f', 'other'); {_FS}.rmdirSync('d')")


def test_timers_do_not_see_how_long_it_was_ready(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok(
        "let fired = false, began = performance.now();"
        " globalThis.timer = setTimeout(() => { fired = true; }, 8000); 0"
    )
    kernel.ok("clearTimeout(timer); 1")
    time.sleep(3.0)  # it gets ready early in this time, and waits
    assert _waiting(kernel)
    time.sleep(6.0)
    kernel.ok("%undo")
    fired, passed = kernel.value("[fired, performance.now() - began]")
    assert not fired
    assert passed < 4000
    kernel.until("fired")


def test_another_target_gets_its_own(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok(f"let x = 1; {_FS}.writeFileSync('f', '1'); {_FS}.writeFileSync('g', 'same')")
    kernel.ok(f"x = 2; {_FS}.writeFileSync('f', '2'); {_FS}.writeFileSync('h', 'late')")
    kernel.ok(f"x = 3; {_FS}.rmSync('f')")
    await_ready(kernel, "2")
    kernel.rewind("1")
    assert kernel.value(f"[x, {_FS}.readFileSync('f', 'utf8'), {_FS}.existsSync('h')]") == [
        1,
        "1",
        False,
    ]
    assert kernel.value(f"{_FS}.readFileSync('g', 'utf8')") == "same"


def test_a_killed_one_is_made_up_for(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("let x = 1")
    kernel.ok("x = 2")
    await_ready(kernel, "1")
    assert eventually(lambda: len(_waiting(kernel)) == 2, _SECONDS)
    for process in _waiting(kernel):
        os.kill(process, signal.SIGKILL)
    kernel.ok("%undo")
    assert kernel.value("x") == 1


def test_without_memory_for_its_files_none_is_ready(fresh_kernel: Kernel) -> None:
    """They would be there twice. An eighth of what is free is far more than a sparse file takes,
    but its size is what counts."""
    kernel = fresh_kernel
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = (int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    size = 2 << 30
    kernel.ok(
        f"for (let i = 0; i < {free // 8 // size + 2}; i++) {{"
        f" {_FS}.writeFileSync(`big${{i}}`, ''); {_FS}.truncateSync(`big${{i}}`, {size}); }}"
        " let x = 1"
    )
    kernel.ok("x = 2")
    time.sleep(3.0)
    assert ready_for(kernel) == "no checkpoint"
    kernel.ok("%undo")
    assert kernel.value(f"[x, {_FS}.statSync('big1').size]") == [1, size]


def test_nothing_is_left_behind(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.ok("let x = 1")
    kernel.ok("x = 2")
    await_ready(kernel, "1")
    assert eventually(lambda: len(_waiting(kernel)) == 2, _SECONDS)
    waiting = _waiting(kernel)
    kernel.close()
    for process in waiting:
        assert eventually(lambda: not Path(f"/proc/{process}").exists(), _SECONDS)  # noqa: B023
