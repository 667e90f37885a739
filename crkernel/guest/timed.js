'use strict';
// Code for %timeit, as a function that the main thread can call.

const vm = require('node:vm');
const { edit } = require('./mappings.js');

function compiles(code) {
  try {
    new vm.Script(`async () => ${code}`);
    return true;
  } catch {
    return false;
  }
}

/** The request to execute a function that runs the code. */
function prepare(request) {
  const { code, measure } = request;
  if (measure.kind !== 'timeit') return request;
  const awaits = /\bawait\b/.test(code);
  const isExpression = compiles(`(${code}\n)`);
  const head = `${awaits ? 'async' : ''}()=>${isExpression ? '(' : '{'}`;
  // The head stands where the magic stood, which the code has as blanks.
  const [{ length: blanks }] = /^ */.exec(code);
  const { code: begun, layer } = edit(code, [{ start: 0, end: blanks, text: head }]);
  return {
    ...request,
    code: `${begun}\n${isExpression ? ')' : '}'}`,
    typed: code,
    layers: [layer],
    measure: { ...measure, awaits },
  };
}

module.exports = { prepare };
