'use strict';
// Where an error arose, as lines to read: the place, the line of code, a caret. On the main thread,
// after user code; whoever calls it catches.

const fs = require('node:fs');
const { codeOf, original, pointAt } = require('./cells.js');

const PLACE = String.raw`at (?:async )?(?:.*\()?`
  + String.raw`(?:(cell) ([^\s:()]+)|((?:file:\/\/)?\/.+?)):(\d+):(\d+)\)?(?: \{)?$`;
const FRAME = new RegExp(`^ {4}${PLACE}`);
const INNER = new RegExp(`^ {5,}${PLACE}`); // of a cause, or of one of several errors
const IMPORT = /\b(?:from|import|require)\s*\(?\s*(?:'([^'\n]+)'|"([^"\n]+)")/g;
const JSON_FILE = /^(\/[^\n]+?): .*JSON/s;
const NO_EXPORT = /^The requested module '([^'\n]+)' does not provide an export named '([^\n]+)'$/;
const CLAUSE = /\b(?:import|export)\b(?![^]*\b(?:import|export)\b)[^]*$/; // the last one
const WORD = /[\p{ID_Continue}$]+/gu;
const ELSEWHERE = /[\\/]node_modules[\\/]/;
const BIGGEST = 1 << 20; // bytes of a file whose line is shown

const { apply } = Reflect;
const {
  includes, indexOf, lastIndexOf, matchAll, replace, search, slice, split, startsWith, trimEnd,
} = String.prototype;
const { exec } = RegExp.prototype;
const { concat } = Array.prototype;
const { readFileSync, statSync } = fs;
const { parse: parseJson } = JSON;
const decode = decodeURIComponent;

function spot(place, code, line, column) {
  const lines = pointAt(code, line, column);
  return lines.length ? apply(concat, [`${place}:${line}:${column}`], [lines]) : [];
}

/** Where a cell did not compile, of the inspector's details; nothing of it had run then. */
function ofSyntax({ lineNumber, columnNumber }, code, label) {
  let { line, column } = original(label, { line: lineNumber + 1, column: columnNumber + 1 });
  const lines = apply(split, code, ['\n']);
  if (line > lines.length) {
    // The end of the code came too early, which V8 places behind our own last line.
    line = lines.length;
    column = apply(trimEnd, lines[line - 1], []).length + 1;
  }
  return spot(`cell ${label}`, code, line, column);
}

/** The text of a file of the user's; undefined if there is none to show. */
function textOf(place) {
  const file = apply(startsWith, place, ['file://']) ? decode(apply(slice, place, [7])) : place;
  if (apply(exec, ELSEWHERE, [file])) return undefined;
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat?.isFile() && stat.size <= BIGGEST ? readFileSync(file, 'utf8') : undefined;
}

/** The first frame of this kind that lies in the user's own code; packages do not count. */
function ofFrames(lines, kind) {
  for (let i = 0; i < lines.length; i++) {
    const match = apply(exec, kind, [lines[i]]);
    if (!match) continue;
    const code = match[1] ? codeOf(match[2]) : textOf(match[3]);
    const place = match[1] ? `cell ${match[2]}` : match[3];
    if (code !== undefined) return spot(place, code, +match[4], +match[5]);
  }
  return [];
}

/** Where an error arose, of how it is shown; or what it is about, if it has no such frame itself. */
function ofStack(shown) {
  const lines = apply(split, shown, ['\n']);
  const own = ofFrames(lines, FRAME);
  return own.length ? own : ofFrames(lines, INNER);
}

function ofOffset(at, code, label) {
  const before = apply(split, apply(slice, code, [0, at]), ['\n']);
  return spot(`cell ${label}`, code, before.length, at - apply(lastIndexOf, code, ['\n', at - 1]));
}

/** Where a cell names the module that an error without frames is about; the only one, in doubt. */
function ofImport(message, code, label) {
  const found = [...apply(matchAll, code, [IMPORT])];
  for (const match of found) {
    const specifier = match[1] ?? match[2];
    const name = apply(replace, specifier, [/^(?:\.{1,2}\/)+/, '']);
    if (found.length > 1 && !apply(includes, message, [name])) continue;
    return ofOffset(match.index + apply(indexOf, match[0], [specifier]) - 1, code, label);
  }
  return [];
}

/** Where a cell names what a module turned out not to export; of another error nothing. */
function ofExport(message, code, label) {
  const told = apply(exec, NO_EXPORT, [message]);
  if (!told) return [];
  for (const match of apply(matchAll, code, [IMPORT])) {
    if ((match[1] ?? match[2]) !== told[1]) continue;
    const begin = apply(search, apply(slice, code, [0, match.index]), [CLAUSE]);
    if (begin < 0) continue;
    for (const word of apply(matchAll, apply(slice, code, [begin, match.index]), [WORD])) {
      if (word[0] === told[2]) return ofOffset(begin + word.index, code, label);
    }
  }
  return ofImport(message, code, label);
}

/** Whether text is JSON, or may become some when it goes on. */
function beginsJson(text) {
  try {
    parseJson(text);
    return true;
  } catch ({ message }) {
    return apply(includes, message, ['end of JSON input'])
      || apply(includes, message, [`at position ${text.length} `]);
  }
}

/** Where a file of JSON is none. V8 does not always say it: the longest beginning that may be. */
function ofJson({ name, message }) {
  const file = name === 'SyntaxError' && apply(exec, JSON_FILE, [message])?.[1];
  const text = file ? textOf(file) : undefined;
  if (text === undefined) return [];
  let good = 0;
  let bad = text.length + 1;
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1;
    if (beginsJson(apply(slice, text, [0, middle]))) good = middle;
    else bad = middle;
  }
  const before = apply(split, apply(slice, text, [0, good]), ['\n']);
  return spot(file, text, before.length, before[before.length - 1].length + 1);
}

module.exports = { ofExport, ofImport, ofJson, ofStack, ofSyntax };
