'use strict';
// What the main thread knows of the cells it ran: the code as it was typed and how positions of
// what was evaluated lead back to it. User code may have patched every prototype meanwhile.

const { typedPosition } = require('./mappings.js');

const SCRIPT = /cell%20([^\s:()]+):(\d+)(?::(\d+))?/g;
const NAME = /^cell%20([^\s:()]+)$/;
const MAKER = /^(?:new\b|eval\b|\w*Function\b|\()/;
const KEPT = 1000; // cells, the newest ones
const WIDTH = 160; // of a line of code that is shown; of a longer one the part around the spot
const BEFORE = 5000; // units of code before a function, in which a comment on it may be
const BLANK = /\s/;
const HEAD = /^\S+/;
const NAMED = /^(?:async\s+)?(?:(?:function\b\s*\*?|class\b)\s*)?[\p{ID_Start}$_][\p{ID_Continue}$]*/u;
// What a function does not begin behind: the rest of a name, the words that its source begins with.
const WITHIN = /[\p{ID_Continue}$.#]$|\b(?:async|function|get|new|set)\s*\*?\s*$/u;

const { apply } = Reflect;
const { replace, split, slice } = String.prototype;
const decode = decodeURIComponent;
const encode = encodeURIComponent;
const cells = new Map(); // label, encoded -> {code, layers}
const { get, set, delete: remove, keys, forEach } = Map.prototype;
const { charCodeAt, indexOf } = String.prototype;
const { exec } = RegExp.prototype;
const { next } = Object.getPrototypeOf(cells.keys());
const size = Object.getOwnPropertyDescriptor(Map.prototype, 'size').get;

/** The script name of a cell: a URL-safe form of `cell 7`, as sourceURL allows no blanks. */
function scriptName(label) {
  return `cell%20${encode(label)}`;
}

/** Keeps what a cell was typed as; `layers` if something else is evaluated for it. */
function remember(label, code, layers) {
  const key = encode(label);
  apply(remove, cells, [key]);
  apply(set, cells, [key, { code, layers }]);
  if (apply(size, cells, []) <= KEPT) return;
  const oldest = apply(next, apply(keys, cells, []), []).value;
  apply(remove, cells, [oldest]);
}

function typed(key, position) {
  const layers = apply(get, cells, [key])?.layers;
  return layers ? typedPosition(layers, position) : position;
}

/** The typed position of one in the code that was evaluated for a cell. */
function original(label, position) {
  return typed(encode(label), position);
}

/** Writes script positions in the user's terms: `cell%207:3:5` becomes `cell 7:3:5`. */
function rename(text) {
  return apply(replace, text, [SCRIPT, (_, key, line, column) => {
    const at = typed(key, { line: +line, column: +(column ?? 1) });
    const place = `cell ${decode(key)}:${at.line}`;
    return column === undefined ? place : `${place}:${at.column}`;
  }]);
}

/** Where a cell makes code of text, of a script's name and a position in it; null if it does not there. */
function makerAt(name, line, column) {
  const key = apply(exec, NAME, [name])?.[1];
  const code = key && apply(get, cells, [key])?.code;
  if (!code) return null;
  const at = typed(key, { line, column });
  const text = apply(split, code, ['\n'])[at.line - 1] ?? '';
  if (!apply(exec, MAKER, [apply(slice, text, [at.column - 1])])) return null;
  return `cell ${decode(key)}:${at.line}:${at.column}`;
}

/** The code of a cell as it was typed; undefined if it is not kept. */
function codeOf(label) {
  return apply(get, cells, [encode(label)])?.code;
}

/** Whether code has, at some place, the text of a source; what became blanks in that may be anything. */
function agrees(code, at, source) {
  if (at + source.length > code.length) return false;
  for (let i = 0; i < source.length; i++) {
    const unit = apply(charCodeAt, source, [i]);
    if (unit !== apply(charCodeAt, code, [at + i]) && !apply(exec, BLANK, [source[i]])) return false;
  }
  return true;
}

/** Where a function of this source begins in a cell's code, or -1. */
function placeOf(code, source) {
  const head = apply(exec, HEAD, [source])?.[0];
  if (head === undefined) return -1;
  for (let at = 0; (at = apply(indexOf, code, [head, at])) >= 0; at++) {
    const before = apply(slice, code, [at > 20 ? at - 20 : 0, at]);
    if (!apply(exec, WITHIN, [before]) && agrees(code, at, source)) return at;
  }
  return -1;
}

/**
 * How a function of this source was typed, as the newest cell has it: {before, text}, the code that
 * stands before it and its own, with the types that a source has not. In a cell that was rewritten
 * it may be recognised by its name alone, and `text` is null. Null if no cell has it.
 */
function typedAs(source) {
  const all = [];
  apply(forEach, cells, [(cell) => (all[all.length] = cell)]);
  const name = apply(exec, NAMED, [source])?.[0];
  for (let i = all.length - 1; i >= 0; i--) {
    const { code, layers } = all[i];
    const whole = placeOf(code, source);
    const at = whole < 0 && name && layers?.length ? placeOf(code, name) : whole;
    if (at < 0) continue;
    return {
      before: apply(slice, code, [at > BEFORE ? at - BEFORE : 0, at]),
      text: whole < 0 ? null : apply(slice, code, [at, at + source.length]),
    };
  }
  return null;
}

/** The names of types that cells declare, as far as they are kept. */
function typeNames() {
  const names = [];
  apply(forEach, cells, [({ code }) => {
    const pattern = /\b(?:type|interface|enum|class)\s+([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*[=<{]/gu;
    for (let found; (found = apply(exec, pattern, [code]));) names[names.length] = found[1];
  }]);
  return names;
}

/** A line of code and a caret below the column, 1-based. */
function pointAt(code, line, column) {
  let text = apply(split, code, ['\n'])[line - 1];
  if (text === undefined) return [];
  let at = column - 1;
  if (text.length > WIDTH) {
    const start = at > WIDTH / 2 ? at - WIDTH / 2 : 0;
    const end = start + WIDTH;
    text = `${start ? '…' : ''}${apply(slice, text, [start, end])}${end < text.length ? '…' : ''}`;
    at -= start - (start ? 1 : 0);
  }
  const indent = apply(replace, apply(slice, text, [0, at]), [/[^\t]/g, ' ']);
  return [text, `${indent}^`];
}

module.exports = {
  codeOf, makerAt, original, pointAt, remember, rename, scriptName, typedAs, typeNames,
};
