'use strict';
// What the runtime offers by a name, and a cell that failed has hidden: `const { display } = await
// import(…)` declares the name before it fails, and nothing is ever assigned to it. In the worker;
// loaded with the first cell that fails.

const objectGroup = 'uncovering';

/** Declares such names of a cell's code anew, as what stands behind them on the global object. */
async function uncover(code, builtins, post) {
  const { names } = await post('Runtime.globalLexicalScopeNames');
  for (const name of names) {
    if (!builtins.has(name) || !code.includes(name)) continue;
    const read = await post('Runtime.evaluate', {
      expression: name, objectGroup, silent: true, throwOnSideEffect: true,
    });
    if (read.exceptionDetails?.exception?.className !== 'ReferenceError') continue;
    for (const how of ['const', 'let']) { // V8 takes the one that the cell has used
      await post('Runtime.evaluate', {
        expression: `${how} ${name} = this.${name}`, objectGroup, replMode: true, silent: true,
      });
    }
  }
  await post('Runtime.releaseObjectGroup', { objectGroup });
}

module.exports = { uncover };
