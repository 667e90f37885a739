'use strict';
// Node's own copy of TypeScript's parser, in the worker. Called directly it tells where it stopped,
// and it can be loaded anew: code that is nested too deeply for its stack leaves it damaged, and then
// it refuses all that follows. Loaded with the first cell that needs it.

const { Session } = require('node:inspector');
const { Carrier } = require('./internals.js');

const AMARO = 'internal/deps/amaro/dist/index';
const TAB = 4; // columns, as the parser counts them
const WIDE = new RegExp('[\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\uac00-\\ud7a3\\uf900-\\ufaff'
  + '\\ufe30-\\ufe6f\\uff01-\\uff60\\uffe0-\\uffe6\\u{1f300}-\\u{1faff}\\u{20000}-\\u{3fffd}]', 'u');

const session = new Session();
session.connect();
const carrier = new Carrier(session);
const parser = carrier.variable(process.getBuiltinModule, 'BuiltinModule').map.get(AMARO);
session.disconnect();

/** The place behind the last token or comment of code. */
function endOf(code) {
  const lines = code.trimEnd().split('\n');
  return { line: lines.length, column: lines.at(-1).length + 1 };
}

/** The UTF-16 unit of a line, 0-based, at a column of a terminal. */
function unitAt(line, column) {
  let unit = 0;
  let width = 0;
  for (const character of line) {
    if (width >= column) break;
    unit += character.length;
    width += character === '\t' ? TAB : character.length + WIDE.test(character);
  }
  return unit;
}

/** What the parser said, and where in the code: {message, line, column, unsupported, atEnd}. */
function complaint(code, { message, code: kind, startLine: line, startColumn }) {
  const column = unitAt(code.split('\n')[line - 1] ?? '', startColumn) + 1;
  const end = endOf(code);
  const atEnd = line > end.line || (line === end.line && column >= end.column);
  const place = atEnd ? end : { line, column };
  return { message, ...place, unsupported: kind === 'UnsupportedSyntax', atEnd };
}

/** The same of code that was too much for the parser, which is loaded anew for what follows. */
function failure(error) {
  Object.assign(parser, { loaded: false, loading: false, exports: {} });
  const text = `Node's TypeScript parser gave up (${error.message ?? error}): is this nested very deeply?`;
  return { message: text, line: 1, column: 1, unsupported: true, atEnd: false };
}

/**
 * Code without types, as {text}; with `transforms` in JavaScript what is more than types, and
 * `mappings` of its positions, as in a source map. Else {error}, see complaint().
 */
function strip(code, transforms = false) {
  const mode = transforms ? 'transform' : 'strip-only';
  try {
    const { transformSync } = parser.compileForInternalLoader();
    const { code: text, map } = transformSync(code, { mode, sourceMap: transforms });
    return { text, mappings: transforms ? JSON.parse(map).mappings : undefined };
  } catch (error) {
    return { error: error?.startLine ? complaint(code, error) : failure(error) };
  }
}

module.exports = { strip };
