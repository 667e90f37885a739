'use strict';
// Termination and Node's async ids. A termination unwinds Node's own JavaScript without letting it
// pop the ids that it has pushed, and Node aborts when it finds them left over. So its checks are
// off from just before a termination until the main thread is back in its event loop.

/** Makes {loosen, settle} for this thread; loosen runs while the code to terminate does. */
function makeUnwinder(internalBinding) {
  const {
    async_hook_fields: fields, clearAsyncIdStack, constants: { kCheck, kTotals },
  } = internalBinding('async_wrap');
  let saved = null;

  function loosen() {
    saved ??= { check: fields[kCheck], totals: fields[kTotals] };
    fields[kCheck] = 0;
    fields[kTotals] = 0;
    clearAsyncIdStack();
  }

  function settle() {
    if (!saved) return;
    clearAsyncIdStack();
    fields[kCheck] = saved.check;
    fields[kTotals] = saved.totals;
    saved = null;
  }

  return { loosen, settle };
}

module.exports = { makeUnwinder };
