'use strict';
// Turns whatever user code threw into the error shape of the wire, with a traceback that holds
// the user's frames only. Nothing in here may throw, whatever the value does when it is looked at.

const { inspect, stripVTControlCharacters, types } = require('node:util');
const { rename } = require('./cells.js');
const { hintFor } = require('./hints.js');
const spots = require('./spots.js');
const { HERE } = require('./stacks.js');

const FRAMED = /\n {4}at /;
const DEPTH = 10; // of causes that are shown in full
// V8 notes for an Error where it was made, and for nothing where it was thrown.
const NO_PLACE = 'hint: only an Error tells where it comes from: throw new Error(…)';
const { Error } = globalThis;
const { apply } = Reflect;
const { includes, split, trimEnd } = String.prototype;
const { concat, filter } = Array.prototype;
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

/** The lines before a traceback that show where it arose; spots.js finds the place. */
function spotOf(value, plain, { details, refused, code, label }) {
  if (refused) return spots.ofSyntax(details, code, label);
  const arrow = arrowSymbol && value[arrowSymbol];
  if (typeof arrow === 'string') return apply(split, apply(trimEnd, rename(arrow), []), ['\n']);
  const found = spots.ofStack(plain);
  if (found.length || code === undefined || apply(exec, FRAMED, [plain])) return found;
  return spots.ofImport(value.message, code, label);
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

function tracebackOf(value, real, plain, shown, evaluation) {
  if (!real) return apply(concat, apply(split, `Uncaught ${shown}`, ['\n']), [NO_PLACE]);
  const before = guarded(() => spotOf(value, plain, evaluation), []);
  const hint = guarded(() => hintFor(value), null);
  return apply(concat, before, [linesOf(shown), hint ? [`hint: ${hint}`] : []]);
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
