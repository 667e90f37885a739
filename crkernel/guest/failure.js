'use strict';
// Turns whatever user code threw into the error shape of the wire, with a traceback that holds
// the user's frames only. Nothing in here may throw, whatever the value does when it is looked at.

const { inspect, stripVTControlCharacters, types } = require('node:util');
const { rename } = require('./cells.js');
const { wordsForLine } = require('./foreign.js');
const { hintFor } = require('./hints.js');
const spots = require('./spots.js');
const { HERE } = require('./stacks.js');

const FRAMED = /\n {4}at (?!\S+ \(<anonymous>\))/; // those of JSON.parse and the like say nothing
const FROM_CELL = /\n {4}at (?:.*\()?(?:async )?cell /;
const OF_FILE = /^(?:file:\/\/)?\//;
const EXCERPT = /^\[?(?:file:\/\/)?\/.*:\d+\n(.*)\n(\s*)\^/m; // of a file, as Node writes it
const DEPTH = 10; // of causes that are shown in full
// V8 notes for an Error where it was made, and for nothing where it was thrown.
const NO_PLACE = 'hint: only an Error tells where it comes from: throw new Error(…)';
const { Error } = globalThis;
const { apply } = Reflect;
const { includes, split, trimEnd } = String.prototype;
const { concat, filter, join, slice } = Array.prototype;
const { exec } = RegExp.prototype;
const { isArray } = Array;
const { max } = Math;
const { isNativeError } = types;
let arrowSymbol;

/** Takes the key of Node's notes on SyntaxErrors in files. */
function install(arrow) {
  arrowSymbol = arrow;
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

/** How deep to look to show the causes of an error, and the errors of an aggregate. */
function depthOf(value, left = DEPTH) {
  if (left <= 0 || !isError(value)) return 0;
  let depth = 1 + depthOf(guarded(() => value.cause), left - 1);
  const errors = guarded(() => value.errors);
  for (let i = 0; isArray(errors) && i < errors.length && i < DEPTH; i++) {
    const below = 2 + depthOf(guarded(() => errors[i]), left - 2);
    if (below > depth) depth = below;
  }
  return depth;
}

/** What Node has noted of a file that did not load: the place, the line, carets. */
function arrowOf(value) {
  const arrow = arrowSymbol && value[arrowSymbol];
  return typeof arrow === 'string' ? apply(split, apply(trimEnd, rename(arrow), []), ['\n']) : [];
}

/** The lines before a traceback that show where it arose; spots.js finds the place. */
function spotOf(value, plain, arrow, { details, refused, code, label }) {
  if (refused) return spots.ofSyntax(details, code, label);
  if (arrow.length) return arrow;
  const json = spots.ofJson(value);
  if (json.length) return json;
  const unexported = code === undefined ? [] : spots.ofExport(value.message, code, label);
  if (unexported.length) return unexported;
  const found = spots.ofStack(plain);
  if (found.length || code === undefined || apply(exec, FRAMED, [plain])) return found;
  return spots.ofImport(value.message, code, label);
}

/** The frame of the import in a cell that a SyntaxError in a file has come by, if V8 noted none. */
function importing({ name }, plain, before, { code, label }) {
  const inFile = name === 'SyntaxError' && apply(exec, OF_FILE, [before[0]]);
  if (!inFile || code === undefined || apply(exec, FROM_CELL, [plain])) return [];
  const spot = spots.ofImport(before[0], code, label);
  return spot.length ? [`    at ${spot[0]}`] : [];
}

/** What is to be said of the line of a file that does not compile, or null. */
function hintOnLine({ name }, before, plain) {
  if (name !== 'SyntaxError') return null;
  const shown = apply(exec, EXCERPT, [`${apply(join, before, ['\n'])}\n${plain}`]);
  return shown && wordsForLine(shown[1], shown[2].length);
}

/**
 * The lines of a traceback. An error without frames loses the brackets that inspect gives it; a
 * stack that the user's own Error.prepareStackTrace made may still show our frames.
 */
function linesOf(shown) {
  const bare = apply(exec, /^\[([^]*?)\]( \{\s[^]*)?$/, [shown]);
  const lines = apply(split, rename(bare ? bare[1] + (bare[2] ?? '') : shown), ['\n']);
  return apply(filter, lines, [(line) => !apply(includes, line, [HERE])]);
}

/** Lines that may begin with an excerpt that stands before them already. */
function without(excerpt, lines) {
  let { length } = excerpt;
  for (let i = 0; i < length; i++) if (lines[i] !== excerpt[i]) return lines;
  if (length && lines[length] === '') length += 1;
  return apply(slice, lines, [length]);
}

function tracebackOf(value, real, plain, shown, evaluation) {
  if (!real) return apply(concat, apply(split, `Uncaught ${shown}`, ['\n']), [NO_PLACE]);
  const arrow = guarded(() => arrowOf(value), []);
  const before = guarded(() => spotOf(value, plain, arrow, evaluation), []);
  const lines = without(arrow, linesOf(shown));
  const from = guarded(() => importing(value, plain, before, evaluation), []);
  const hint = guarded(() => hintFor(value) ?? hintOnLine(value, before, plain), null);
  return apply(concat, before, [lines, from, hint ? [`hint: ${hint}`] : []]);
}

/**
 * The error shape of the wire for a thrown value. Of an evaluation that failed, `evaluation` holds
 * the inspector's exceptionDetails as `details`, whether V8 has `refused` to begin it, the `code`
 * that was typed and the cell's `label`.
 */
function describe(value, colors, evaluation = {}) {
  const real = isError(value);
  const name = nameOf(value, real);
  const message = real ? asText(guarded(() => value.message), '') : undefined;
  const poor = real ? `${name}: ${message}` : 'a value that cannot be shown';
  const depth = max(2, guarded(() => depthOf(value), 0));
  const plain = guarded(() => inspect(value, { depth }), poor);
  const shown = colors ? guarded(() => inspect(value, { colors, depth }), plain) : plain;
  const errorCode = real ? guarded(() => value.code) : undefined;
  return {
    name,
    message: stripVTControlCharacters(message ?? plain), // assert colours what it compares
    code: typeof errorCode === 'string' || typeof errorCode === 'number' ? errorCode : null,
    traceback: tracebackOf(value, real, rename(plain), shown, evaluation),
    interrupted: false,
  };
}

module.exports = { describe, install };
