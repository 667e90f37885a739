"""Checkpoints whose memory moved into memory files are the same checkpoints."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import containers
import pytest

from crkernel.engines import Engine, Limits, Sandbox, open_engine
from crkernel.errors import EngineError, RestoreFailed
from crkernel.javascript import JAVASCRIPT

from .test_engine import boot, engine, restored, run, started  # noqa: F401  a fixture among them

MB = 1 << 20
HEAP = "globalThis.heap = Array.from({ length: 64 }, (_, i) => new Float64Array(131072).fill(i)); 0"
HEAPS = {
    "arrays": "Array.from({ length: 96 }, (_, i) => new Float64Array(131072).fill(i + 0.5))",
    "objects": "Array.from({ length: 400000 }, (_, i) => ({ a: i, b: 's' + i, c: [i] }))",
    "strings": "Array.from({ length: 800 }, (_, i) => ('x' + i).repeat(30000))",
    "buffers": "Array.from({ length: 1600 }, (_, i) => Buffer.alloc(65536, i))",
}
DIGEST = """{
    const hash = require("crypto").createHash("sha256");
    for (const x of heap) hash.update(ArrayBuffer.isView(x) ? x : JSON.stringify(x) ?? "-");
    hash.digest("hex")
}"""


async def mapped(engine: Engine, name: str) -> Sandbox:  # noqa: F811
    """A guest with 64 MB in the memory file of a checkpoint."""
    live = await boot(engine)
    await run(live, HEAP)
    await live.dump(name)
    await engine.rebase(name, None)
    await live.end()
    return await restored(engine, name)


@pytest.mark.parametrize("kind", HEAPS)
async def test_a_rebased_checkpoint_is_mapped_and_whole(
    engine: Engine,  # noqa: F811
    kind: str,
) -> None:
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS[kind]}; 0")
    digest = await run(live, DIGEST)
    plain = await live.dump("big")
    before, after = await engine.rebase("big", None)
    assert before > 20 * MB
    assert after < before / 8
    twin = await restored(engine, "big")
    assert (await twin.dump("next")).memory < plain.memory / 8
    assert await run(twin, DIGEST) == digest
    assert await run(live, DIGEST) == digest  # who runs on is untouched
    again = await restored(engine, "next")
    assert await run(again, DIGEST) == digest
    assert await run(again, "heap[0] = heap.length; heap.slice(0, 2).length") == "2"


async def test_what_was_written_since_moves_on(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['buffers']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    twin = await restored(engine, "a")
    await run(
        twin, "for (const x of heap.slice(0, 800)) x.fill(7); heap.push(Buffer.alloc(9e6, 8)); 0"
    )
    digest = await run(twin, DIGEST)
    written = await twin.dump("b")
    assert 50 * MB < written.memory < 80 * MB  # not what was not written
    before, after = await engine.rebase("b", "a")
    assert after < before / 8
    for name in ("b", "a"):
        sandbox = await restored(engine, name)
        same = await run(sandbox, DIGEST) == digest
        assert same is (name == "b")


async def test_a_file_of_which_little_is_shown_is_left(engine: Engine) -> None:  # noqa: F811
    guest = await boot(engine)
    await run(guest, f"globalThis.heap = {HEAPS['buffers']}; 0")
    for cycle in range(6):  # each leaves one more sixth as it was
        await run(guest, f"for (const x of heap.slice({cycle} * 1600 / 6)) x.fill({cycle} + 1); 0")
        digest = await run(guest, DIGEST)
        await guest.dump(f"c{cycle}")
        await engine.rebase(f"c{cycle}", None)
        await guest.end()
        guest = await restored(engine, f"c{cycle}")
        assert await run(guest, DIGEST) == digest
        if cycle:
            await engine.drop([f"c{cycle - 1}"])
    _, own, shared, _ = (await engine.costs(["c5"]))["c5"]
    assert own + shared < 330 * MB  # of 120 that it has; 400 if nothing was left


async def test_a_guest_that_was_not_replaced_shares_its_parents_file(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    used = (await engine.status())["staging used"]
    await run(live, "heap[3][5] = -1; heap[50].fill(0); 0")
    digest = await run(live, DIGEST)
    await live.dump("b")
    await engine.rebase("b", "a")
    assert (await engine.status())["staging used"] < used + 32 * MB  # not all of it again
    assert await run(await restored(engine, "b"), DIGEST) == digest


async def test_small_checkpoints_after_a_rebased_one_are_thinned(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    twin = await restored(engine, "a")
    for step in range(3):
        await run(twin, f"heap[{step}][0] = 99; 0")
        await twin.dump(f"b{step}")
        before, after = await engine.thin(f"b{step}", "a")
        assert after <= before
        again = await restored(engine, f"b{step}")
        assert await run(again, f"heap[{step}][0] + heap[{step + 1}][0]") == str(99 + step + 1.5)
        await again.end()


async def test_children_of_the_same_program_are_rebased_others_left_alone(
    engine: Engine,  # noqa: F811
) -> None:
    live = await boot(engine)
    await run(
        live,
        """globalThis.child = require("child_process").fork("/dev/stdin", [], {
            execArgv: ["-e", `const heap = new Uint8Array(60e6).fill(5);
                process.on("message", (i) => process.send(heap[i]));
                process.send("ready");`] });
        globalThis.ask = (i) => new Promise((resolve) => {
            child.once("message", resolve); if (i !== undefined) child.send(i); });
        globalThis.other = require("child_process").spawn("python3", ["-c",
            "b = bytearray(b'x' * 50000000)\\nwhile True: print(b[int(input())], flush=True)"]);
        globalThis.question = (i) => new Promise((resolve) => {
            other.stdout.once("data", (data) => resolve(String(data).trim()));
            other.stdin.write(i + "\\n"); });
        [await ask(), await question(7)]""",
    )
    await live.dump("two")
    before, after = await engine.rebase("two", None)
    assert before > 110 * MB
    assert 50 * MB < after < 70 * MB  # Python's memory stays in the images
    twin = await restored(engine, "two")
    assert await run(twin, "[await ask(59999999), await question(49999999)]") == "[ 5, '120' ]"


ADDON = r"""
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
typedef void *handle;
int napi_create_function(handle, const char *, unsigned long, handle (*)(handle, handle),
                         void *, handle *);
int napi_create_double(handle, double, handle *);
static unsigned char *area; static unsigned long size = 8 << 20;
static unsigned long dirty(unsigned char *from, unsigned long length) {
    unsigned long count = 0;
    for (unsigned long i = 0; i < length; i++) count += from[i] != 0;
    return count;
}
static handle step(handle env, handle info) {
    handle result; double answer = 0;
    if (!area) {
        area = mmap(0, size, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(area, 0xab, size);
    } else {
        /* as jemalloc and mimalloc do: give back, and count on zeros afterwards */
        answer += madvise(area, size / 2, MADV_DONTNEED) ? 1e9 : 0;
        answer += dirty(area, size / 2);
        answer += dirty(area + size / 2, size / 2) == size / 2 ? 0 : 1e8;
        answer += madvise(area + size / 2, 4096, MADV_FREE) ? 1e7 : 0;
        unsigned char *grown = mremap(area, size, 2 * size, MREMAP_MAYMOVE);
        if (grown != MAP_FAILED) { answer += dirty(grown + size, size); area = grown; }
        else answer += 0.5; /* several mappings: refused, as for any that was split */
    }
    napi_create_double(env, answer, &result);
    return result;
}
__attribute__((visibility("default"))) handle napi_register_module_v1(handle env, handle exports) {
    handle function; napi_create_function(env, "step", 4, step, 0, &function); return function;
}
"""


async def test_given_back_and_grown_memory_reads_as_zeros(
    engine: Engine,  # noqa: F811
    tmp_path: Path,
) -> None:
    source, addon = tmp_path / "addon.c", tmp_path / "addon.node"
    source.write_text(ADDON)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-w", "-o", addon, source], check=True)
    data = base64.b64encode(addon.read_bytes()).decode()
    live = await boot(engine)
    write = f"require('fs').writeFileSync('/tmp/addon.node', Buffer.from('{data}', 'base64'))"
    await run(live, write)
    await run(
        live,
        "globalThis.step = require('/tmp/addon.node'); globalThis.big = Buffer.alloc(3e7, 1); 0",
    )
    assert await run(live, "step()") == "0"
    await live.dump("a")
    await engine.rebase("a", None)
    for _ in range(2):
        twin = await restored(engine, "a")
        assert float(await run(twin, "step()")) in (0, 0.5)
        await twin.end()
    assert float(await run(live, "step()")) in (0, 0.5)  # without a memory file


async def test_a_lost_memory_file_is_noticed(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    inside(engine, "cp /memory/a /memory/b; mv -f /memory/b /memory/a")
    with pytest.raises(RestoreFailed, match="memory file"):
        await restored(engine, "a")
    inside(engine, "rm /memory/a")
    with pytest.raises(RestoreFailed, match="memory file"):
        await restored(engine, "a")
    assert await run(live, "heap[3][0]") == "3.5"


def inside(running: Engine, command: str) -> None:
    """Run a command where the nest runs."""
    nest = str(containers.nest_of(running).pid)
    # An ordinary user is root in there already; root, whose nests have another user id, is not.
    become = ["-S", "0", "-G", "0"] if os.geteuid() == 0 else ["--preserve-credentials"]
    enter = ["nsenter", "-t", nest, "-U", "-m", *become]
    subprocess.run([*enter, "/bin/sh", "-c", command], check=True)


async def test_guests_reach_no_memory_files(engine: Engine) -> None:  # noqa: F811
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    for attempt in (
        "readFileSync('/memory/a')",
        "readdirSync('/memory')",
        "chmodSync('/memory', 0o777)",
        "writeFileSync('/memory/a', '')",
        "unlinkSync('/memory/a')",
        "chmodSync('/memory/a', 0o666)",
        "truncateSync('/memory/a')",
    ):
        code = f"try {{ require('fs').{attempt}; 'done' }} catch (error) {{ error.code }}"
        assert await run(live, code) in ("'EROFS'", "'EACCES'")


async def test_without_room_a_checkpoint_stays_as_it_is() -> None:
    async with started(replace(Limits.default(), staging_size=160 * MB)) as small:
        live = await boot(small)
        await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
        digest = await run(live, DIGEST)
        await live.dump("a")
        with pytest.raises(EngineError, match="room"):
            await small.rebase("a", None)
        assert await run(await restored(small, "a"), DIGEST) == digest


@pytest.mark.parametrize("op", ["rebase", "thin"])
async def test_a_process_that_is_ended_at_it_leaves_nothing(
    engine: Engine,  # noqa: F811
    op: str,
) -> None:
    live = await boot(engine)
    await live.dump("base")
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    digest = await run(live, DIGEST)
    await live.dump("a")
    used = (await engine.status())["staging used"]
    nest = containers.nest_of(engine)
    before = {child.pid for child in nest.children()}
    work = asyncio.create_task(getattr(engine, op)("a", "base"))
    while not (found := [c for c in nest.children() if c.pid not in before]):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    found[0].kill()
    with pytest.raises(EngineError, match=f"{op}: its process was ended"):
        await work
    assert (await engine.status())["staging used"] <= used
    assert await run(await restored(engine, "a"), DIGEST) == digest


async def test_one_budget(engine: Engine) -> None:  # noqa: F811
    size = (await engine.status())["staging size"]
    live = await boot(engine)
    await run(live, f"globalThis.heap = {HEAPS['arrays']}; 0")
    await live.dump("a")
    await engine.rebase("a", None)
    status = await engine.status()
    assert status["staging size"] == size
    assert 96 * MB < status["staging used"] < 160 * MB


TORTURE = r"""
seed = SEED; rnd = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;
st = { m: new Map(), a: [], s: '', b: [], w: new WebAssembly.Memory({ initial: 1, maximum: 2000 }),
       shared: new SharedArrayBuffer(1 << 20) };
step = () => {
  for (let i = 0; i < 2000; i++) {
    const r = rnd(), at = (list) => Math.floor(rnd() * list.length);
    if (r < .2) st.m.set(Math.floor(rnd() * 5000), { v: rnd(), t: 'k' + i, n: [i, rnd()] });
    else if (r < .3) st.m.delete(Math.floor(rnd() * 5000));
    else if (r < .5) st.a.push(new Float64Array(1 + Math.floor(rnd() * 2000)).fill(rnd()));
    else if (r < .6 && st.a.length) st.a.splice(at(st.a), 1 + Math.floor(rnd() * 5));
    else if (r < .7) st.b.push(Buffer.alloc(Math.floor(rnd() * 70000)));
    else if (r < .72) st.b.push(Buffer.alloc(200000 + Math.floor(rnd() * 3000000)));
    else if (r < .8 && st.b.length) st.b.splice(at(st.b), 3);
    else if (r < .9) { const q = st.b[at(st.b)];
      if (q && q.length) q[at(q)] = Math.floor(rnd() * 256); }
    else if (r < .905) { if (st.w.buffer.byteLength < 6e7) st.w.grow(3);
      const memory = new Uint8Array(st.w.buffer); memory[at(memory)] = i; }
    else if (r < .92) { const shared = new Uint8Array(st.shared); shared[at(shared)] = i; }
    else st.s = (st.s + String.fromCharCode(97 + i % 26).repeat(30)).slice(-200000);
  }
  if (st.a.length > 3000) st.a.length = 500;
  if (st.b.length > 300) st.b = st.b.slice(-50);
  if (rnd() < .3) gc();
};
digest = () => { const h = require('crypto').createHash('sha1');
  for (const [k, v] of st.m) h.update(k + ':' + v.v + v.t + v.n);
  for (const x of st.a) h.update(x);
  for (const x of st.b) h.update(x);
  h.update(new Uint8Array(st.w.buffer)); h.update(new Uint8Array(st.shared));
  h.update(st.s); return h.digest('hex'); };
zero = () => { for (let i = 0; i < 60; i++) { const n = 1000 + i * 14096;
    for (const z of [new Uint8Array(n), Buffer.alloc(n)])
      for (let j = 0; j < n; j += 64) if (z[j]) return `dirty: ${n} ${j}`; }
  return 'zero'; };
1
"""
_CYCLES = int(os.environ.get("CRKERNEL_TORTURE", "10"))
"""Cycles for each seed; 200 and more before a release: make torture."""
_KEPT = 4
"""Checkpoints that lie in staging at a time."""
_SEEDS = [int(seed) for seed in os.environ.get("CRKERNEL_SEEDS", "1,2").split(",")]


@pytest.fixture
async def plain(limits: Limits) -> AsyncIterator[Engine]:
    """An engine for guests that are never checkpointed."""
    async with started(limits) as engine:  # noqa: F811
        yield engine


async def _tortured(engine: Engine, flags: list[str]) -> Sandbox:  # noqa: F811
    sandbox = await engine.sandbox()
    node, *rest = JAVASCRIPT.command(engine.limits)
    command = [node, "--expose-gc", *flags, *rest]
    await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)
    return sandbox


@pytest.mark.parametrize("seed", _SEEDS)
async def test_torture(limits: Limits, plain: Engine, seed: int) -> None:
    """A guest that is checkpointed, rebased, thinned, restored and its checkpoints dropped all the
    time holds the same as one that never was, and fresh memory is zero."""
    engine = open_engine("local", replace(limits, staging_size=6 << 30))  # noqa: F811
    await engine.start()
    try:
        await _torture(engine, plain, seed)
    finally:
        await engine.close()


async def _torture(engine: Engine, plain: Engine, seed: int) -> None:  # noqa: F811
    chance = random.Random(seed)
    flags = ["--gc-interval=3000"] if seed % 2 else ["--stress-compaction-random"]
    control, guest = await _tortured(plain, flags), await _tortured(engine, flags)
    code = TORTURE.replace("SEED", str(seed))
    for sandbox in (control, guest):
        await run(sandbox, code)
    near, base = None, None
    kept: list[str] = []
    for cycle in range(_CYCLES):
        wanted, got = await asyncio.gather(
            run(control, "step(); digest()"), run(guest, "step(); digest()")
        )
        assert got == wanted, f"cycle {cycle}"
        assert await run(guest, "zero()") == "'zero'", f"cycle {cycle}"
        name = f"c{cycle}"
        await guest.dump(name)
        kept.append(name)
        kind: Any = chance.choice(["rebase", "rebase", "thin", "plain"])
        if kind == "rebase":
            await engine.rebase(name, chance.choice([near, None]))
            near, base = name, name
        elif kind == "thin" and base is not None:
            await engine.thin(name, base)
        if chance.random() < 0.7:
            await guest.end()
            guest = await restored(engine, name)
            assert await run(guest, "digest()") == wanted, f"cycle {cycle} after {kind}"
        if len(kept) > _KEPT:  # all but the newest, on which the guest runs, in whatever order
            dropped = kept.pop(chance.randrange(len(kept) - 1))
            await engine.drop([dropped])
            near, base = (None if known == dropped else known for known in (near, base))
    used = (await engine.status())["staging used"] >> 20
    print(f"seed {seed}: {_CYCLES} cycles, digests equal at each; {used} MiB in staging")
