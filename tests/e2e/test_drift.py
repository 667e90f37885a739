"""What the guest does by itself between a cell and the next one stays reachable, however soon."""

from __future__ import annotations

import os
import signal
import time

import pytest
from _driver import guest_of
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


def _nudge(kernel: Kernel) -> None:
    """Have the guest's threads run for a moment, as work of V8's own does."""
    pid = guest_of(kernel)
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)


def test_time_on_a_processor_alone_makes_no_later_state(kernel: Kernel) -> None:
    cell = kernel.ok("globalThis.far = setTimeout(() => {}, 1e6); 0").count
    _nudge(kernel)
    kernel.ok("clearTimeout(far)")
    assert f"{cell}+1" not in kernel.ok("%timeline").shown


WORK = {
    "an immediate": "setTimeout(() => setImmediate(() => { v = 1 }), 200)",
    "a promise of a file": "setTimeout(() => fs.promises.stat('/tmp').then(() => { v = 1 }), 200)",
    "a thread of libuv's": "setTimeout(() => zlib.gzip('a'.repeat(1e6), () => { v = 1 }), 200)",
    "the end of a child": "cp.spawn('sleep', ['0.2']).on('exit', () => { v = 1 })",
    "a connection": """{
        const server = net.createServer(() => { v = 1 }).listen(0, '127.0.0.1', () =>
            cp.exec(`sleep 0.2; exec 3<>/dev/tcp/127.0.0.1/${server.address().port}`,
                    { shell: '/bin/bash' }, () => server.close()));
    }""",
    "a message of a worker": """new wt.Worker(
        "setTimeout(() => require('node:worker_threads').parentPort.postMessage(1), 200)",
        { eval: true }).on('message', () => { v = 1 })""",
    "a worker": """{
        globalThis.shared = new Int32Array(new SharedArrayBuffer(4));
        new wt.Worker(
            `const { workerData } = require('node:worker_threads');
             setTimeout(() => Atomics.store(workerData, 0, 1), 200);
             setTimeout(() => {}, 1e6);`,
            { eval: true, workerData: shared }).unref();
        Object.defineProperty(globalThis, 'v',
            { configurable: true, get: () => shared[0], set: (x) => { shared[0] = x } });
    }""",
    "a child": """{
        cp.spawn('sh', ['-c', 'sleep 0.2; echo 1 > /tmp/v; sleep 1000']);
        Object.defineProperty(globalThis, 'v', { configurable: true,
            get: () => Number(fs.readFileSync('/tmp/v')),
            set: (x) => fs.writeFileSync('/tmp/v', `${x}`) });
    }""",
    "what a watched file tells": """{
        fs.writeFileSync('/tmp/watched', '');
        fs.watch('/tmp/watched', () => { v = 1 });
        cp.spawn('sh', ['-c', 'sleep 0.2; echo > /tmp/watched']);
    }""",
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_silent_work_between_two_cells_is_kept(kernel: Kernel, work: str) -> None:
    kernel.ok(
        "var [net, fs, cp, wt, zlib] = ['net', 'fs', 'child_process', 'worker_threads',"
        " 'zlib'].map(require); delete globalThis.v; globalThis.v = 0;"
    )
    cell = kernel.ok(f"{work}; 0").count
    time.sleep(1)
    kernel.ok("v = 2")
    kernel.ok("%undo")
    assert kernel.value("v") == 1, kernel.ok("%timeline").shown
    kernel.rewind(cell)


def test_a_guest_that_has_run_nothing_has_no_later_state(fresh_kernel: Kernel) -> None:
    client = fresh_kernel.client  # JupyterLab sends this when it connects
    opened = {"comm_id": "1", "target_name": "jupyter.widget.control", "data": {}}
    client.shell_channel.send(client.session.msg("comm_open", opened))
    _nudge(fresh_kernel)
    fresh_kernel.ok("globalThis.v = 1")
    fresh_kernel.rewind(0)
    _nudge(fresh_kernel)
    fresh_kernel.ok("globalThis.v = 2")
    assert "0+1" not in fresh_kernel.ok("%timeline").shown


def test_what_a_silent_cell_leaves_before_the_first_one_is_kept(fresh_kernel: Kernel) -> None:
    fresh_kernel.client.execute("globalThis.v = 1", silent=True)
    fresh_kernel.client.get_shell_msg(timeout=10)
    fresh_kernel.ok("v = 2")
    fresh_kernel.ok("%undo")
    assert fresh_kernel.value("v") == 1
