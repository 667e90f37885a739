'use strict';
// What the main thread knows of the cells it ran: the code as it was typed and how positions of
// what was evaluated lead back to it. User code may have patched every prototype meanwhile.

const { typedPosition } = require('./mappings.js');

const SCRIPT = /cell%20([^\s:()]+):(\d+)(?::(\d+))?/g;
const KEPT = 1000; // cells, the newest ones
const WIDTH = 160; // of a line of code that is shown; of a longer one the part around the spot

const { apply } = Reflect;
const { replace, split, slice } = String.prototype;
const decode = decodeURIComponent;
const encode = encodeURIComponent;
const cells = new Map(); // label, encoded -> {code, layers}
const { get, set, delete: remove, keys } = Map.prototype;
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

/** The code of a cell as it was typed; undefined if it is not kept. */
function codeOf(label) {
  return apply(get, cells, [encode(label)])?.code;
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

module.exports = { codeOf, original, pointAt, remember, rename, scriptName };
