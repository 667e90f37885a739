'use strict';
// Turns whatever user code threw into the error shape of the wire, with a traceback that holds
// the user's frames only. Nothing in here may throw, whatever the value does when it is looked at.

const path = require('node:path');
const { inspect, types } = require('node:util');
const { typedPosition } = require('./mappings.js');

const HERE = __dirname + path.sep;
const SCRIPT = /cell%20([^\s:()]+):(\d+)(?::(\d+))?/g;
const { apply } = Reflect;
const { replace, includes, startsWith, endsWith, split, trimEnd, slice } = String.prototype;
const { concat, filter } = Array.prototype;
const { isNativeError } = types;
const decode = decodeURIComponent;
const encode = encodeURIComponent;
let arrowSymbol;
let headerOf;
const positions = new Map(); // label of a transformed cell -> its mappings
const { get: mapGet, set: mapSet } = Map.prototype;

/** The script name of a cell: a URL-safe form of `cell 7`, as sourceURL allows no blanks. */
function scriptName(label) {
  return `cell%20${encode(label)}`;
}

/** Remembers how positions of a transformed cell map to what the user typed. */
function setPositions(label, mappings) {
  apply(mapSet, positions, [encode(label), mappings]);
}

function original(label, line, column) {
  const mappings = apply(mapGet, positions, [label]);
  return mappings ? typedPosition(mappings, line, column) : { line, column };
}

/** Writes script positions in the user's terms: `cell%207:3:5` becomes `cell 7:3:5`. */
function rename(text) {
  return apply(replace, text, [SCRIPT, (_, label, line, column) => {
    const typed = original(label, +line, +(column ?? 1));
    const at = `cell ${decode(label)}:${typed.line}`;
    return column === undefined ? at : `${at}:${typed.column}`;
  }]);
}

/** The frames a user should see, as text; everything below the harness's entry is cut. */
function userFrames(sites) {
  const frames = [];
  for (let i = 0; i < sites.length; i++) {
    const site = sites[i];
    const file = site.getFileName() ?? site.getScriptNameOrSourceURL?.() ?? '';
    if (apply(startsWith, file, [HERE])) {
      if (site.getFunctionName() === 'evaluate') break;
      continue;
    }
    if (apply(startsWith, file, ['node:'])) continue;
    frames[frames.length] = rename(`${site}`);
  }
  return frames;
}

/** Stands in for Node's formatter of stacks: Node's own header, then the user's frames. */
function prepareStack(error, sites) {
  let text = headerOf(error);
  const frames = userFrames(sites);
  for (let i = 0; i < frames.length; i++) text += `\n    at ${frames[i]}`;
  return text;
}

/**
 * Makes stacks show the user's frames. `setPrepare` takes the formatter that Node uses as long as
 * the user sets no Error.prepareStackTrace, `prepare` is the one it has used so far; `arrow` is the
 * key of Node's notes on SyntaxErrors.
 */
function install({ setPrepare, prepare, arrow }) {
  headerOf = (error) => prepare(error, []);
  arrowSymbol = arrow;
  setPrepare(prepareStack);
}

/** `read()`, or `fallback` when looking at the value throws. */
function guarded(read, fallback) {
  try {
    return read();
  } catch {
    return fallback;
  }
}

function asText(value, fallback) {
  return typeof value === 'string' ? value : value === undefined ? fallback
    : guarded(() => inspect(value), fallback);
}

function isError(value) {
  return isNativeError(value) || guarded(() => value instanceof Error, false);
}

function nameOf(value, real) {
  if (real) return asText(guarded(() => value.name), 'Error') || 'Error';
  const name = guarded(() => value.constructor.name);
  return typeof name === 'string' && name ? name : 'thrown';
}

/** The lines that show where code did not compile: `cell 7:3:5`, the line, a caret. */
function spotInCell({ lineNumber, columnNumber }, code, label) {
  let { line: row, column } = original(encode(label), lineNumber + 1, columnNumber + 1);
  const lines = apply(split, code, ['\n']);
  if (row > lines.length) {
    // The end of the code came too early, which V8 places behind our own last line.
    row = lines.length;
    column = apply(trimEnd, lines[row - 1], []).length + 1;
  }
  const line = lines[row - 1];
  const indent = apply(replace, apply(slice, line, [0, column - 1]), [/[^\t]/g, ' ']);
  return [`cell ${label}:${row}:${column}`, line, `${indent}^`];
}

/**
 * Where a SyntaxError arose: in the cell itself if nothing had run (then its stack is empty), else
 * in a file that it loaded, as Node notes it on the error.
 */
function spot(value, { details, code, label }) {
  if (details && !apply(includes, value.stack, ['\n    at '])) {
    return spotInCell(details, code, label);
  }
  const arrow = arrowSymbol && value[arrowSymbol];
  return typeof arrow === 'string' ? apply(split, rename(arrow), ['\n']) : [];
}

/**
 * The lines of a traceback. An error without frames loses the brackets that inspect gives it; a
 * stack that the user's own Error.prepareStackTrace made may still show our frames.
 */
function tracebackOf(shown, real) {
  if (!real) return apply(split, `Uncaught ${shown}`, ['\n']);
  const bare = apply(startsWith, shown, ['[']) && apply(endsWith, shown, [']']);
  const lines = apply(split, rename(bare ? apply(slice, shown, [1, -1]) : shown), ['\n']);
  return apply(filter, lines, [(line) => !apply(includes, line, [HERE])]);
}

/**
 * The error shape of the wire for a thrown value. Of an evaluation that failed, `evaluation` holds
 * the inspector's exceptionDetails as `details`, the `code` that was typed and the cell's `label`.
 */
function describe(value, colors, evaluation = {}) {
  const real = isError(value);
  const name = nameOf(value, real);
  const message = real ? asText(guarded(() => value.message), '') : undefined;
  const poor = real ? `${name}: ${message}` : 'a value that cannot be shown';
  const plain = guarded(() => inspect(value), poor);
  const shown = colors ? guarded(() => inspect(value, { colors }), plain) : plain;
  const errorCode = real ? guarded(() => value.code) : undefined;
  const lines = tracebackOf(shown, real);
  const before = name === 'SyntaxError' ? guarded(() => spot(value, evaluation), []) : [];
  return {
    name,
    message: message ?? plain,
    code: typeof errorCode === 'string' || typeof errorCode === 'number' ? errorCode : null,
    traceback: apply(concat, before, [lines]),
    interrupted: false,
  };
}

module.exports = { describe, install, scriptName, setPositions };
