'use strict';
// Code for %timeit, as a function that the main thread can call.

const vm = require('node:vm');

function compiles(code) {
  try {
    new vm.Script(`async () => ${code}`);
    return true;
  } catch {
    return false;
  }
}

/** The request to execute a function that runs the code; positions in it stay as typed. */
function prepare(request) {
  const { code, measure } = request;
  if (measure.kind !== 'timeit') return request;
  const awaits = /\bawait\b/.test(code);
  const isExpression = compiles(`(${code}\n)`);
  const head = `${awaits ? 'async' : ''}()=>${isExpression ? '(' : '{'}`;
  // The head stands where the magic stood, which the code has as blanks.
  const blanks = /^ */.exec(code)[0].length;
  const rest = code.slice(Math.min(blanks, head.length));
  const text = `${head}${rest}\n${isExpression ? ')' : '}'}`;
  return { ...request, code: text, typed: code, measure: { ...measure, awaits } };
}

module.exports = { prepare };
