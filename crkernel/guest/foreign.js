'use strict';
// What other tools understand and Node does not, in words that help. For the worker, of cells, and
// the main thread, of files, where user code may have patched every prototype.

const { apply } = Reflect;
const { exec } = RegExp.prototype;
const { slice } = String.prototype;

/** What stands before and behind the place at which V8 or a parser gave up. */
const FOREIGN = [
  { behind: /^@[\w$(]/,
    message: 'decorators are not supported by Node; call the decorator: C = decorate(C)' },
  { before: /\baccessor\s+$/,
    message: 'accessor fields are not supported by Node; write a getter and a setter' },
  { before: /\bimport\s+defer\s+$/,
    message: 'import defer is not supported by Node; await import() the module where it is needed' },
  { before: /\bimport\s+source\s+$/,
    message: 'import source is not supported in cells; WebAssembly.compile() the bytes of the file' },
  { behind: /^<[A-Za-z>][^]*(?:<\/|\/>)/,
    message: 'JSX is not supported by Node; call what makes the elements, '
      + 'as in createElement("p", null)' },
];
// What stands before such a thing in a line of which something else was complained about.
const BEFORE = {
  __proto__: null,
  '@': /^\s*(?:export\s+(?:default\s+)?)?$/,
  '<': /(?:[=(,?:]|\breturn\b|^)\s*$/,
};

/** What is to be said of it; null if it is nothing of the kind. */
function wordsFor(before, behind) {
  for (let i = 0; i < FOREIGN.length; i++) {
    const { before: head, behind: tail, message } = FOREIGN[i];
    if (head ? apply(exec, head, [before]) : apply(exec, tail, [behind])) return message;
  }
  return null;
}

/** The same of a whole line of a file, with the column, 0-based, that was complained about. */
function wordsForLine(line, column) {
  const words = wordsFor(apply(slice, line, [0, column]), apply(slice, line, [column]));
  if (words) return words;
  for (let i = 0; i < line.length; i++) {
    const kind = BEFORE[line[i]];
    if (!kind || !apply(exec, kind, [apply(slice, line, [0, i])])) continue;
    const found = wordsFor('', apply(slice, line, [i]));
    if (found) return found;
  }
  return null;
}

module.exports = { wordsFor, wordsForLine };
