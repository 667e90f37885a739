"""Each limit, when hit, is named; the guest or at least the kernel lives on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from _driver import eventually
from driver import Kernel

pytestmark = pytest.mark.e2e

Start = Callable[..., Kernel]


@pytest.fixture
def small(start_kernel: Start) -> Kernel:
    """A kernel with the least that a guest can have."""
    kernel = start_kernel(
        "--CRKernel.memory=256M",
        "--CRKernel.max_processes=64",
        "--CRKernel.file_size=4M",
        "--CRKernel.disk_size=16M",
    )
    kernel.ok("const fs = require('node:fs'), cp = require('node:child_process'); let x = 1")
    return kernel


def test_the_heap(small: Kernel) -> None:
    error = small.fails("x = 2; const all = []; for (;;) all.push(new Array(1e5).fill(1.5))").error
    assert error.startswith("GuestDied: the guest ran out of memory (limit memory = 256 MiB;")
    assert re.search(r"checkpoint 1(\+1)?\) is restored", error)  # or its later state
    assert small.value("x") == 1


def test_buffers(small: Kernel) -> None:
    result = small.fails("x = 2; Buffer.alloc(1 << 30)")
    assert "limit memory = 256 MiB" in result.error
    assert "limit memory" in result.reply["traceback"][-1]
    assert small.value("x") == 2  # an exception like any other


def test_buffers_little_by_little(small: Kernel) -> None:
    error = small.fails("x = 2; const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1))").error
    assert "limit memory = 256 MiB" in error
    assert small.value("x") in (1, 2)


def test_what_the_limit_leaves_is_enough(small: Kernel) -> None:
    assert small.value("Buffer.alloc(100 << 20, 1).length") == 100 << 20
    count = small.ok("const kept = new Array(1e6).fill({ a: 1 }).map((v, i) => ({ i }))").count
    small.rewind(count)
    assert small.value("kept.at(-1).i") == 999_999


def test_processes(small: Kernel) -> None:
    small.ok("const all = []; const errors = [];")
    small.ok(
        "for (let i = 0; i < 70; i++) {"
        " const c = cp.spawn('sleep', ['1000']); c.on('error', (e) => errors.push(e.code));"
        " all.push(c) }"
    )
    small.until("errors.length")
    assert small.value("errors[0]") == "EAGAIN"
    result = small.fails(
        "for (let i = 0; i < 30; i++) all.push(cp.spawn('sleep', ['1000']).on('error', () => {}));"
        "cp.execSync('true')"
    )
    assert "limit max_processes = 64" in result.error
    assert "limit max_processes" in result.reply["traceback"][-1]
    small.rewind(1)
    assert eventually(lambda: small.run("cp.execSync('true')").status == "ok", 10)


def test_a_fresh_guest_where_all_processes_are_in_use(small: Kernel) -> None:
    """Where it does not come of a golden root, as under limits that nobody has had before."""
    small.ok("for (let i = 0; i < 70; i++) cp.spawn('sleep', ['1000']).on('error', () => {}); 0")
    small.ok(f"%config file_size={random.randrange(4 << 20, 1 << 30)}")
    assert "limit max_processes; " in small.fails("%reset").error
    assert small.value("x") == 1
    small.ok("%config max_processes=128")
    small.ok("%reset")
    assert small.value("typeof x") == "undefined"


def test_processes_in_a_callback(small: Kernel) -> None:
    """An error that nobody caught shows as stderr, with the hint."""
    result = small.ok(
        "for (let i = 0; i < 70; i++) cp.spawn('sleep', ['1000']);"
        "await new Promise((r) => setTimeout(r, 500))"
    )
    assert "EAGAIN" in result.stderr
    assert "limit max_processes = 64" in result.stderr


def test_threads_of_workers(start_kernel: Start) -> None:
    """With a memory limit that leaves room for the address space of one more."""
    kernel = start_kernel("--CRKernel.memory=4G", "--CRKernel.max_processes=64")
    sleeper = "require('node:child_process').spawn('sleep', ['1000']).on('error', () => {})"
    result = kernel.fails(
        f"for (let i = 0; i < 70; i++) {sleeper};"
        "const worker = new (require('node:worker_threads').Worker)('', { eval: true });"
        "await new Promise((_, fail) => worker.on('error', fail))"
    )
    assert "limit max_processes = 64" in result.error


def test_what_children_and_libraries_say(small: Kernel) -> None:
    result = small.fails("cp.execSync('head -c 5000000 /dev/zero > big')")
    assert "limit file_size = 4 MiB" in result.error
    fill = "for i in 1 2 3 4 5 6; do head -c 4000000 /dev/zero > f$i || exit; done"
    result = small.fails(f"cp.execSync('{fill}')")
    assert "limit disk_size = 16 MiB" in result.error
    result = small.fails(
        "new (require('node:sqlite').DatabaseSync)('db').exec('create table t (x)')"
    )
    assert "full (limit disk_size = 16 MiB" in result.error


def test_a_fork_bomb(small: Kernel) -> None:
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    small.ok(f"cp.spawn('python3', ['-c', `{bomb}`], {{ stdio: 'ignore' }}); x = 2")
    small.ok("await new Promise((r) => setTimeout(r, 700))", timeout=60)
    small.run("%rewind 1", timeout=90)
    assert small.value("x") == 1
    # The sandbox that was left counts until it has ended, which takes a while with a bomb in it.
    assert eventually(lambda: small.run("cp.execSync('true')").status == "ok", 20)


def test_file_size(small: Kernel) -> None:
    result = small.fails("fs.writeFileSync('big', Buffer.alloc(5 << 20))")
    assert "EFBIG" in result.error
    assert "limit file_size = 4 MiB" in result.error
    assert "limit file_size" in result.reply["traceback"][-1]
    small.ok("fs.writeFileSync('small', Buffer.alloc(3 << 20))")


def test_disk_size(small: Kernel) -> None:
    result = small.fails("for (let i = 0; ; i++) fs.writeFileSync(`f${i}`, Buffer.alloc(3 << 20))")
    assert "ENOSPC" in result.error
    assert "limit disk_size = 16 MiB" in result.error
    small.rewind(1)
    assert small.value("fs.readdirSync('.')") == []
    small.ok("fs.writeFileSync('again', Buffer.alloc(3 << 20))")


def test_empty_files_count_too(small: Kernel) -> None:
    error = small.fails("for (let i = 0; i < 10_000; i++) fs.writeFileSync(`f${i}`, '')").error
    assert "limit disk_size" in error


def test_one_disk_for_all_folders(small: Kernel) -> None:
    error = small.fails(
        "for (let i = 0; ; i++) for (const d of ['/tmp', '/dev/shm', '/home/work'])"
        " fs.writeFileSync(`${d}/f${i}`, Buffer.alloc(1 << 20))"
    ).error
    assert "limit disk_size" in error


def test_a_limit_that_was_raised_holds_after_a_reset(small: Kernel) -> None:
    small.ok("%config file_size=8M")
    small.ok("%reset")
    small.ok("require('node:fs').writeFileSync('big', Buffer.alloc(5 << 20))")


def test_staging_size(start_kernel: Start) -> None:
    """A full staging costs checkpoints, and nothing else."""
    kernel = start_kernel("--CRKernel.staging_size=128M")
    kernel.ok("let x = 1")
    kernel.ok(
        "x = 2; const big = Buffer.alloc(160 << 20);"
        "for (let i = 0; i < big.length; i += 8) big.writeDoubleLE(Math.random(), i)"
    )
    assert "checkpoint 2 could not be taken: staging is full (limit staging_size" in (
        kernel.ok("x = 3").stderr
    )
    assert kernel.value("[x, big.length]") == [3, 160 << 20]
    assert kernel.fails("%rewind 2").error.startswith("NotRestorable")
    kernel.rewind(1)
    assert kernel.value("x") == 1
    count = kernel.ok("x = 4").count
    kernel.ok("x = 5")
    kernel.rewind(count)  # there is room for small ones still
    assert kernel.value("x") == 4


def test_a_checkpoint_waits_for_those_before_it_to_be_made_small(start_kernel: Start) -> None:
    """In a row without a pause they come faster than they get small."""
    kernel = start_kernel("--CRKernel.staging_size=160M")
    for i in range(1, 61):
        assert kernel.ok(f"let x{i} = {i}").stderr == ""
    kernel.rewind("38")
    assert kernel.value("[x1, x38, typeof x39]") == [1, 38, "undefined"]


def test_files_that_fill_staging_leave_nothing_there(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.staging_size=128M")
    kernel.ok("const fs = require('node:fs')")
    kernel.ok(
        "const megabyte = Buffer.alloc(1 << 20, 'not zero'); for (const name of ['a', 'b', 'c'])"
        " for (let i = 0; i < 50; i++) fs.appendFileSync(name, megabyte)"
    )
    assert "staging is full" in kernel.ok("fs.readdirSync('.').map((f) => fs.unlinkSync(f))").stderr
    count = kernel.ok("fs.writeFileSync('small', 'x')").count
    kernel.ok("fs.unlinkSync('small')")
    kernel.rewind(count)
    assert kernel.value("fs.readdirSync('.')") == ["small"]


def test_a_restart_with_a_full_staging(start_kernel: Start) -> None:
    """The past stays, and a guest starts, though its root cannot be kept."""
    kernel = start_kernel("--CRKernel.staging_size=64M", "--CRKernel.memory=1G")
    kernel.ok("globalThis.x = 1")
    kernel.ok("globalThis.a = require('crypto').randomBytes(20 << 20); 0")
    kernel.ok("globalThis.b = require('crypto').randomBytes(40 << 20); 0")
    kernel.ok("x")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    assert kernel.ok("1 + 1").text == "2"
    kernel.ok("%rewind r1.1")
    assert kernel.value("x") == 1


def test_a_refused_state_is_recorded_once(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.staging_size=64M", "--CRKernel.memory=1G")
    kernel.ok("globalThis.a = require('crypto').randomBytes(80 << 20); 0")
    assert "staging is full" in kernel.ok("1").stderr
    assert "for the same reason" in kernel.ok("2").stderr
    assert "+1" not in kernel.ok("%timeline").shown
