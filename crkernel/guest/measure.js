'use strict';
// Measures cells for %time, and functions for %timeit.

const { apply } = Reflect;
const { hrtime, cpuUsage, memoryUsage } = process;
const { bigint } = hrtime;
const { push } = Array.prototype;
const toNumber = Number;

const ENOUGH = 1e8; // ns that a batch of calls should take
const MOST = 1e9; // calls in a batch
const STEPS = [1, 2, 5];

let kept; // results go here, or an optimizer could leave the calls out

/** Heap in use, buffers included, in bytes. */
function heap() {
  const { heapUsed, external } = memoryUsage();
  return heapUsed + external;
}

/** Starts measuring; the function it returns gives {wall, user, system} in ns and [heap, heap]. */
function begin() {
  const before = heap();
  const cpu = cpuUsage();
  const start = bigint();
  return () => {
    const wall = toNumber(bigint() - start);
    const { user, system } = cpuUsage(cpu);
    return { wall, user: user * 1e3, system: system * 1e3, heap: [before, heap()] };
  };
}

function batch(f, loops) {
  const start = bigint();
  for (let i = 0; i < loops; i++) kept = f();
  return toNumber(bigint() - start);
}

async function awaitedBatch(f, loops) {
  const start = bigint();
  for (let i = 0; i < loops; i++) kept = await f();
  return toNumber(bigint() - start);
}

/** The first number of calls in 1, 2, 5, 10, … that takes long enough to be measured. */
async function enoughLoops(run) {
  for (let unit = 1; ; unit *= 10) {
    for (let i = 0; i < STEPS.length; i++) {
      const loops = STEPS[i] * unit;
      if (loops >= MOST || await run(loops) >= ENOUGH) return loops;
    }
  }
}

/** Calls f in batches: {loops: calls in each, times: ns per call of each batch}. */
async function timeit(f, { loops = null, repeats, awaits }) {
  const run = (n) => (awaits ? awaitedBatch(f, n) : batch(f, n));
  const n = loops ?? await enoughLoops(run);
  const times = [];
  for (let i = 0; i < repeats; i++) apply(push, times, [await run(n) / n]);
  kept = undefined;
  return { loops: n, times };
}

module.exports = { begin, timeit };
