'use strict';
// Completion and inspection, as the worker answers them: with what the probe (probe.js) sees on the
// main thread, or, while that waits in the kernel, with what is the same in every Node.

const { blockedAt } = require('./blocked.js');
const { propertiesOf } = require('./probe.js');

const GLANCE = 20; // ms after which it is looked what the main thread does, and again
const LATEST = 1000; // ms after which a main thread that gets no processor is not waited for any longer
const LATE = Symbol('late');

let lexical = []; // names of the script's scope as last seen

/** What `promise` gives within so many ms, else LATE. */
async function within(milliseconds, promise) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, milliseconds, LATE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Makes the function that asks the probe: (operation, ...arguments) -> its answer. */
function asking(post, objectId) {
  return async (operation, ...rest) => {
    const { result, exceptionDetails } = await post('Runtime.callFunctionOn', {
      objectId,
      functionDeclaration: 'function (...request) { return this(...request); }',
      arguments: [operation, ...rest].map((value) => ({ value })),
      returnByValue: true,
      silent: true,
    });
    if (exceptionDetails) throw new Error(`the probe failed: ${result.description}`);
    if (operation === 'scope') lexical = result.value.names;
    return result.value;
  };
}

/** Reads off this thread what the main thread has as well, unless the user changed it. */
const alike = {
  __proto__: null,
  properties(chain, prefix) {
    let value = globalThis;
    for (const name of chain) {
      const owner = Object(value);
      value = Object.getOwnPropertyDescriptor(owner, name)?.value;
      if (value === undefined) return null;
    }
    return propertiesOf(value, prefix);
  },
  scope(prefix) {
    const rows = propertiesOf(globalThis, prefix).map(([...row]) => [...row, true]);
    return { names: lexical, rows, types: [] };
  },
};

/**
 * What `answer(probe, request)` gives, or what this thread knows where the main thread is late;
 * `isEmpty` tells answers that are not worth having. One that waits in the kernel at the same place
 * for a second glance is not waited for; after a checkpoint, in which both threads stood still, it
 * has moved on by then.
 */
async function look({ answer, isEmpty }, post, objectId, request) {
  const asked = answer(asking(post, objectId), request);
  const soon = await within(GLANCE, asked);
  if (soon !== LATE) return soon;
  const before = blockedAt();
  const given = await within(GLANCE, asked);
  if (given !== LATE) return given;
  const own = await answer(async (operation, ...rest) => alike[operation]?.(...rest) ?? null, request);
  if (!isEmpty(own) || (before !== null && before === blockedAt())) return own;
  const late = await within(LATEST - 2 * GLANCE, asked);
  return late === LATE ? own : late;
}

module.exports = { look };
