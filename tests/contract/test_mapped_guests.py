"""A guest on memory files does what one that was never checkpointed does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from crkernel.engines import Engine, Sandbox
from crkernel.errors import SandboxDied
from crkernel.javascript import JAVASCRIPT

from .test_engine import boot, engine, restored, run  # noqa: F401  a fixture among them

pytestmark = pytest.mark.real("is about memory files")

MB = 1 << 20
HEAP = """
    globalThis.objects = Array.from({ length: 200000 }, (_, i) => ({ a: i, b: "s" + i, c: [i] }));
    globalThis.arrays = Array.from({ length: 48 }, (_, i) => new Float64Array(131072).fill(i)); 0"""

COLLECT = """{ require("v8").setFlagsFromString("--expose-gc");
    const gc = require("vm").runInNewContext("gc");
    gc(); gc(); }"""


async def mapped(engine: Engine, live: Sandbox, name: str = "a") -> Sandbox:  # noqa: F811
    """The twin of a guest, which ends."""
    await live.dump(name)
    before, after = await engine.rebase(name, None)
    assert after < before / 2
    await live.end()
    return await restored(engine, name)


async def _json(sandbox: Sandbox, expression: str) -> Any:
    text = await run(sandbox, f"JSON.stringify(await ({expression}))")
    return json.loads(text[1:-1].replace('\\"', '"'))


async def test_memory_usage(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, HEAP)
    await run(live, COLLECT)
    before = await _json(live, "process.memoryUsage()")
    usage = "process.memoryUsage()"
    after = await _json(twin := await mapped(engine, live), usage)
    for name in ("heapTotal", "heapUsed", "external", "arrayBuffers"):
        assert after[name] == pytest.approx(before[name], rel=0.1, abs=2 * MB), name
    assert 0 < after["rss"] < before["rss"]  # only what was touched since
    await run(twin, "for (const x of arrays) x.reduce((a, b) => a + b); 0")
    assert (await _json(twin, usage))["rss"] > after["rss"] + 40 * MB


async def test_heap_snapshots(engine: Engine) -> None:  # noqa: F811
    count = """(async () => {
        const v8 = require("v8"), fs = require("fs");
        v8.writeHeapSnapshot("/tmp/one.heapsnapshot");
        const chunks = []; for await (const chunk of v8.getHeapSnapshot()) chunks.push(chunk);
        const texts = [fs.readFileSync("/tmp/one.heapsnapshot"), Buffer.concat(chunks)];
        return texts.map((text) => JSON.parse(text).snapshot.node_count); })()"""
    live = await boot(engine)
    await run(live, "globalThis.marked = Array.from({ length: 150000 }, (_, i) => ({ i })); 0")
    await run(live, "globalThis.array = new Uint8Array(40e6).fill(1); 0")
    before = await _json(live, count)
    after = await _json(await mapped(engine, live), count)
    assert min(before) > 150000
    assert after == pytest.approx(before, rel=0.02)


async def test_the_limit_of_the_heap_holds_and_is_named(engine: Engine) -> None:  # noqa: F811
    fill = """globalThis.hoard = [];
        for (;;) { for (let i = 0; i < 20000; i++) hoard.push({ i, s: [i] });
            if (hoard.length % 100000 === 0) console.log(hoard.length); }"""
    reached = []
    for twin in (False, True):
        sandbox = await _small(engine)
        await run(sandbox, "globalThis.heap = Array.from({ length: 6e5 }, (_, i) => [i]); 0")
        if twin:
            sandbox = await mapped(engine, sandbox)
        said: list[str] = []
        sandbox.on_event = lambda event, said=said: said.append(str(event.get("text", "")))
        with pytest.raises(SandboxDied):
            await run(sandbox, fill)
        words = "".join(said)
        assert JAVASCRIPT.out_of_memory.search(words), words[-500:]
        reached.append(int(words[: words.index("<---")].split()[-1]))
    assert reached[1] == pytest.approx(reached[0], rel=0.1)


async def _small(engine: Engine) -> Sandbox:  # noqa: F811
    sandbox = await engine.sandbox()
    node, *rest = JAVASCRIPT.command(engine.limits)
    rest = [word for word in rest if "old-space" not in word]
    command = [node, "--max-old-space-size=120", *rest]
    await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)
    return sandbox


async def test_workers_and_shared_memory(engine: Engine) -> None:  # noqa: F811
    start = """(shared) => new Promise((resolve) => {
        const worker = new (require("worker_threads").Worker)(`
            const { workerData, parentPort } = require("worker_threads");
            const heap = new Uint8Array(30e6).fill(7), ints = new Int32Array(workerData);
            const list = Array.from({ length: 1e5 }, (_, i) => ({ i }));
            parentPort.on("message", (i) => {
                Atomics.add(ints, 0, i); parentPort.postMessage([heap[i], list[i].i, ints[1]]); });
            parentPort.postMessage("ready");`, { eval: true, workerData: shared });
        worker.once("message", () => resolve(worker)); })"""
    engine.limits = replace(engine.limits, memory=6 << 30)  # V8 reserves much for each worker
    live = await boot(engine)
    await run(
        live,
        f"""globalThis.start = {start};
        globalThis.shared = new SharedArrayBuffer(20e6);
        globalThis.ints = new Int32Array(shared).fill(3);
        globalThis.worker = await start(shared);
        globalThis.ask = (worker, i) => new Promise((resolve) => {{
            worker.once("message", resolve); worker.postMessage(i); }}); 0""",
    )
    twin = await mapped(engine, live)
    assert await run(twin, "await ask(worker, 5)") == "[ 7, 5, 3 ]"
    assert await run(twin, "ints[1] = 9; [ints[0], ...(await ask(worker, 99999))]") == (
        "[ 8, 7, 99999, 9 ]"
    )
    assert await run(twin, "globalThis.other = await start(shared); await ask(other, 1)") == (
        "[ 7, 1, 9 ]"
    )
    assert (
        await run(twin, "[ints[0], ints[4999999], await worker.terminate()]") == "[ 100008, 3, 1 ]"
    )


async def test_webassembly_memory_grows(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(
        live,
        """globalThis.memory = new WebAssembly.Memory({ initial: 600, maximum: 4000 });
        new Uint8Array(memory.buffer).fill(5); 0""",
    )
    twin = await mapped(engine, live)
    for _ in range(2):
        grown = """memory.grow(500); globalThis.bytes = new Uint8Array(memory.buffer);
            const old = bytes.length - 500 * 65536;
            [bytes.subarray(0, old).every((x) => x === 5),
             bytes.subarray(old).every((x) => x === 0), bytes.fill(5).length]"""
        assert (await run(twin, grown)).startswith("[ true, true, ")
    twin = await mapped(engine, twin, "b")
    assert await run(twin, "new Uint8Array(memory.buffer).every((x) => x === 5)") == "true"


async def test_buffers_that_shrink_and_grow_read_as_zeros(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(
        live,
        """globalThis.buffer = new ArrayBuffer(40e6, { maxByteLength: 80e6 });
        new Uint8Array(buffer).fill(5); 0""",
    )
    twin = await mapped(engine, live)
    again = """buffer.resize(1000); buffer.resize(60e6);
        const bytes = new Uint8Array(buffer);
        const found = [bytes.subarray(0, 1000).every((x) => x === 5),
            bytes.subarray(1000).findIndex((x) => x !== 0)];
        bytes.fill(5); found"""
    for _ in range(2):
        assert await run(twin, again) == "[ true, -1 ]"
