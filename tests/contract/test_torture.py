"""A guest that is checkpointed all the time, and one that never is, hold the same: for a moment
here, for hours with `make torture`."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from crkernel.engines import Engine, Limits, Sandbox, open_engine
from crkernel.javascript import JAVASCRIPT

from .test_engine import boot, restored, run, started

pytestmark = pytest.mark.real("is about memory files")

TORTURE = r"""
seed = SEED; rnd = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;
st = { m: new Map(), a: [], s: '', b: [], w: new WebAssembly.Memory({ initial: 1, maximum: 2000 }),
       shared: new SharedArrayBuffer(1 << 20),
       r: Array.from({ length: 8 }, () => new ArrayBuffer(0, { maxByteLength: 3e6 })) };
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
    else if (r < .91) { const q = st.r[at(st.r)]; q.resize(Math.floor(rnd() * 3e6));
      const bytes = new Uint8Array(q); bytes.fill(i, at(bytes)); }
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
  for (const x of st.r) h.update(new Uint8Array(x));
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
    async with started(limits) as engine:
        yield engine


async def _tortured(engine: Engine, flags: list[str]) -> Sandbox:
    sandbox = await engine.sandbox()
    node, *rest = JAVASCRIPT.command(engine.limits)
    command = [node, "--expose-gc", *flags, *rest]
    await sandbox.boot(command, dict(JAVASCRIPT.environment), engine.limits)
    return sandbox


@pytest.mark.parametrize("seed", _SEEDS)
async def test_torture(limits: Limits, plain: Engine, seed: int) -> None:
    """A guest that is checkpointed, rebased, thinned, restored and its checkpoints dropped all the
    time holds the same as one that never was, and fresh memory is zero."""
    engine = open_engine("local", replace(limits, staging_size=6 << 30))
    await engine.start()
    try:
        await _torture(engine, plain, seed)
    finally:
        await engine.close()


async def _torture(engine: Engine, plain: Engine, seed: int) -> None:
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


WORKING = r"""
const { parentPort } = require("worker_threads");
require("v8").setFlagsFromString("--expose-gc");
const gc = require("vm").runInNewContext("gc");
const zeros = Buffer.alloc(2e6), is = (bytes, value) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).equals(
    value ? Buffer.alloc(bytes.length, value) : zeros.subarray(0, bytes.length));
let rounds = 0, wrong = 0, until = 0;
const sized = Array.from({ length: 4 }, () => new ArrayBuffer(2e6, { maxByteLength: 3e6 }));
const held = Array.from({ length: 40 }, () => Buffer.alloc(0));
let list = [];
// What was written is there, what is new is zero; and there is always something on the way.
const work = () => {
  const value = 1 + rounds++ % 255, at = rounds % held.length, old = held[at];
  for (const buffer of sized) {
    const bytes = new Uint8Array(buffer);
    if (rounds > 1 && !is(bytes, value - 1 || 255)) wrong++;
    buffer.resize(5000); buffer.resize(2e6);
    if (!is(bytes.subarray(5000), 0)) wrong++;
    bytes.fill(value);
  }
  if (old.length && !is(old, old[0])) wrong++;
  const fresh = Buffer.alloc(1000 + rounds * 7919 % 300000);
  if (!is(fresh, 0)) wrong++;
  held[at] = fresh.fill(value);
  list.push(Array.from({ length: 500 }, (_, i) => ({ i, value })));
  if (list.some((part) => part.some((x, i) => x.i !== i || x.value !== part[0].value))) wrong++;
  if (rounds % 10 === 0) { list = list.slice(-20); gc(); }
  if (rounds === until) (parentPort ? parentPort.postMessage(wrong) : process.send(wrong));
  setImmediate(work);
};
work();
(parentPort ?? process).on("message", () => { until = rounds + 5; });
"""


async def test_checkpoints_in_the_midst_of_work(limits: Limits) -> None:
    """A worker and a child are checkpointed wherever they are, and find all as it has to be."""
    async with started(replace(limits, memory=6 << 30)) as engine:
        guest = await boot(engine)
        await run(
            guest,
            f"""globalThis.code = {json.dumps(WORKING)};
            globalThis.both = [new (require("worker_threads").Worker)(code, {{ eval: true }}),
                require("child_process").fork("/dev/stdin", [], {{ execArgv: ["-e", code] }})];
            globalThis.ask = async () => JSON.stringify(await Promise.all(both.map((one) =>
                new Promise((resolve) => {{
                    one.once("message", resolve);
                    (one.postMessage ?? one.send).call(one, 0); }}))));
            await ask()""",
        )
        for cycle in range(3):
            await guest.dump(f"c{cycle}")
            await engine.rebase(f"c{cycle}", None)
            await guest.end()
            guest = await restored(engine, f"c{cycle}")
            assert await run(guest, "await ask()") == "'[0,0]'", f"cycle {cycle}"
