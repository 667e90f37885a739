"""Guests that die and states that cannot be taken: what is told, and what is there afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from _driver import eventually, guest_of
from driver import Kernel, Result

pytestmark = pytest.mark.e2e

Start = Callable[..., Kernel]


# -- the guest dies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("process.exit()", "exited with code 0"),
        ("process.exit(3)", "exited with code 3"),
        ("process.exitCode = 9; process.reallyExit(9)", "exited with code 9"),
        ("process.abort()", "SIGABRT"),
        ("process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})", "SIGKILL"),
        ("process.kill(process.pid, 'SIGSEGV'); await new Promise(() => {})", "SIGSEGV"),
        ("setTimeout(() => process.exit(4), 50); await new Promise(() => {})", "code 4"),
    ],
)
def test_the_guest_may_die(kernel: Kernel, code: str, how: str) -> None:
    state = kernel.ok("globalThis.alive = 1; require('fs').writeFileSync('f', 'before'); 0")
    result = kernel.fails(f"alive = 2; require('fs').writeFileSync('f', 'in'); {code}")
    assert result.reply["ename"] == "GuestDied"
    assert how in result.reply["evalue"]
    assert f"checkpoint {state.count}) is restored" in result.reply["evalue"]
    assert "debugger" not in result.stderr, result.stderr
    assert kernel.value("[alive, require('fs').readFileSync('f', 'utf8')]") == [1, "before"]
    assert "✗" in kernel.row(result.count)
    assert kernel.fails(f"%rewind {result.count}").reply["ename"] == "NotRestorable"
    assert kernel.value("alive") == 1


def test_output_before_death_is_shown(kernel: Kernel) -> None:
    result = kernel.fails("console.log('last words'); process.exit(1)")
    assert result.stdout == "last words\n"


def test_the_guest_runs_out_of_memory(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.memory=300M")
    kernel.ok("globalThis.alive = 1")
    result = kernel.fails(
        "const hoard = []; for (;;) hoard.push(new Array(1000).fill(hoard.length))"
    )
    assert result.reply["ename"] == "GuestDied"
    assert "ran out of memory (limit memory = 300 MiB" in result.reply["evalue"]
    assert kernel.value("alive") == 1


def test_the_second_interrupt_ends_a_guest_that_stands_still(kernel: Kernel) -> None:
    kernel.ok("globalThis.timer = setInterval(() => {}, 10); 0")  # no twin takes its place
    kernel.ok("%timeline")  # by then the checkpoint is taken
    guest = guest_of(kernel)
    os.kill(guest, signal.SIGSTOP)
    asking = kernel.submit("%whos")
    assert eventually(lambda: kernel.interrupt() and not psutil.pid_exists(guest), 20)
    assert "SIGKILL" in kernel.finish(asking).error
    kernel.ok("clearInterval(timer)")


def test_the_guest_dies_between_cells(kernel: Kernel) -> None:
    cell = kernel.ok("globalThis.left = 'all right'; setInterval(() => {}, 10); 0")  # see above
    kernel.ok("%timeline")
    os.kill(guest_of(kernel), signal.SIGKILL)
    kernel.messages_until(cell, "stream", "between cells the guest was ended by SIGKILL")
    assert kernel.ok("left").text == "'all right'"


def test_a_deadly_timer_does_not_kill_for_ever(kernel: Kernel) -> None:
    """It is part of the state that comes back and strikes again: then it must be left behind."""
    before = kernel.ok("globalThis.left = 'all right'").count
    cell = kernel.ok("setTimeout(() => process.exit(5), 150); 0")
    kernel.messages_until(cell, "stream", "between cells the guest exited with code 5")
    kernel.messages_until(cell, "stream", f"checkpoint {before}) is restored")
    deaths = cell.stderr.count("exited with code 5")
    assert deaths <= 3, cell.stderr
    assert kernel.ok("left").text == "'all right'"
    quiet = kernel.ok("await new Promise((r) => setTimeout(r, 600))")
    assert "exited" not in quiet.stderr
    assert cell.stderr.count("exited with code 5") == deaths


@pytest.mark.parametrize("cell", ["%reset", "%rewind here", "%undo", "%rerun here", "%checkpoint"])
def test_a_death_during_a_magic(kernel: Kernel, cell: str) -> None:
    """However the two fall together, the kernel goes on, and its present is what it says."""
    kernel.ok("globalThis.n = 1")
    kernel.ok("%checkpoint here")
    for pause in (0.0, 0.02, 0.06, 0.1):
        kernel.rewind("here")
        kernel.ok("n = 2")
        running = kernel.submit(cell)
        time.sleep(pause)
        kernel.kill_guest()
        kernel.finish(running)
        kernel.run("0")  # may fall into the same death
        kernel.ok("globalThis.n = 40")
        assert kernel.ok("n + 2").text == "42"
        kernel.ok("%undo")
        assert kernel.ok("n").text == "40"


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.usefixtures("steps")
def test_an_unknown_checkpoint_changes_nothing(kernel: Kernel) -> None:
    for cell in (
        "%rewind 99999",
        "%rewind nowhere",
        "%rerun 99999",
        "%recall 99999",
        "%rewind 1+7",
    ):
        result = kernel.fails(cell)
        assert result.reply["ename"] == "UnknownCheckpoint", cell
        assert len(result.reply["traceback"]) <= 2
    assert kernel.value("x") == 3


def _unrestorable(kernel: Kernel) -> Result:
    """A cell whose state CRIU refuses: a deleted file that is open and bigger than 64 MiB."""
    return kernel.ok(
        "globalThis.fs = require('node:fs'); globalThis.f = fs.openSync('huge', 'w+');"
        "fs.unlinkSync('huge');"
        "for (let i = 0; i < 70; i++) fs.writeSync(f, Buffer.alloc(1 << 20, 1));"
        "'the result stands'"
    )


def test_a_state_that_cannot_be_taken(kernel: Kernel) -> None:
    good = kernel.ok("globalThis.y = 'good'").count
    bad = _unrestorable(kernel)
    assert bad.text == "'the result stands'"
    follower = kernel.ok("y = 'still runs'")
    told = bad.stderr + follower.stderr
    assert f"checkpoint {bad.count} could not be taken" in told
    assert "deleted file" in told
    assert "✗" in kernel.row(bad.count)
    refused = kernel.fails(f"%rewind {bad.count}")
    assert refused.reply["ename"] == "NotRestorable"
    assert "deleted file" in refused.traceback
    assert kernel.value("y") == "still runs", "the refusal changed nothing"
    healed = kernel.ok("fs.closeSync(f); y = 'healed'").count
    kernel.ok("y = 'later'")
    kernel.rewind(healed)
    assert kernel.value("y") == "healed"
    kernel.rewind(good)
    assert kernel.value("y") == "good"


def test_the_warning_comes_even_if_no_cell_follows(kernel: Kernel) -> None:
    bad = _unrestorable(kernel)
    kernel.messages_until(bad, "stream", "could not be taken")


def test_a_death_in_an_unrestorable_state_goes_back_further(kernel: Kernel) -> None:
    good = kernel.ok("globalThis.y = 'good'").count
    _unrestorable(kernel)
    result = kernel.fails("process.exit(1)")
    assert f"checkpoint {good}) is restored" in result.reply["evalue"]
    assert kernel.value("y") == "good"


def test_a_full_staging_says_so(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.staging_size=128M")
    kernel.ok("globalThis.n = 0; const hoard = []")
    told = ""
    for _ in range(20):
        told += kernel.ok("n++; hoard.push(Buffer.alloc(12 << 20, n)); 0").stderr
        if told:
            break
    assert "staging_size" in told
    assert kernel.value("n") > 0
