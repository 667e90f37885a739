'use strict';
// The stacks of errors, on the main thread: Node's header and the user's frames only.

const path = require('node:path');
const { findSourceMap } = require('node:module');
const { inspect, types } = require('node:util');
const { makerAt, rename } = require('./cells.js');

const HERE = __dirname + path.sep;
const IMPORT = 'crkernelImport'; // stands in for a static import, see modules.js
const NAMELESS = / \(:(\d+):(\d+)\)/; // where in a script without a name
const { apply } = Reflect;
const { exec } = RegExp.prototype;
const { replace, startsWith } = String.prototype;
const { includes } = Array.prototype;
const { isArray } = Array;
const { getOwnPropertyDescriptor } = Object;
const { isNativeError } = types;
const framesOf = new WeakMap(); // error -> all its frames
const { get: find, set: keep } = WeakMap.prototype;
let headerOf;
let last = null; // {thrown}: what was told last
let before = null; // and what before that

/** A frame as text. In a TypeScript file that Node transformed it shows what was typed. */
function frameOf(site, file) {
  const text = rename(`${site}`);
  if (!apply(exec, /\.[cm]?ts$/, [file])) return text;
  const line = site.getLineNumber();
  const column = site.getColumnNumber();
  const entry = findSourceMap(file)?.findEntry(line - 1, column - 1);
  if (entry?.originalLine === undefined) return text;
  const typed = `:${entry.originalLine + 1}:${entry.originalColumn + 1}`;
  return apply(replace, text, [/:\d+:\d+(?=\)?$)/, typed]);
}

/**
 * A frame of code that was made of text, as by new Function. V8 has no name for the cell that made it, so
 * it is looked for among those that called it.
 */
function withMaker(frame, sites, own) {
  const nameless = apply(exec, NAMELESS, [frame]);
  if (!nameless) return frame;
  let place = null;
  for (let i = own + 1; i < sites.length && !place; i++) {
    const name = sites[i].getScriptNameOrSourceURL?.() ?? '';
    place = makerAt(name, +nameless[1], +nameless[2]);
  }
  return apply(replace, frame, [NAMELESS, () => (place ? ` (${place})` : '')]);
}

/** The frames a user should see, as text; everything below the harness's entry is cut. */
function userFrames(sites) {
  const frames = [];
  for (let i = 0; i < sites.length; i++) {
    const site = sites[i];
    const file = site.getFileName() ?? site.getScriptNameOrSourceURL?.() ?? '';
    const name = site.getFunctionName();
    if (apply(startsWith, file, [HERE])) {
      if (name === 'evaluate') break;
      continue;
    }
    if (apply(startsWith, file, ['node:']) || name === IMPORT) continue;
    frames[frames.length] = withMaker(frameOf(site, file), sites, i);
  }
  return frames;
}

/** Stands in for Node's formatter of stacks. */
function prepareStack(error, sites) {
  apply(keep, framesOf, [error, sites]);
  let text = headerOf(error);
  const frames = userFrames(sites);
  for (let i = 0; i < frames.length; i++) text += `\n    at ${frames[i]}`;
  return text;
}

/**
 * Makes stacks show the user's frames. `setPrepare` takes the formatter that Node uses as long as
 * the user sets no Error.prepareStackTrace, `prepare` is the one it has used so far.
 */
function install({ setPrepare, prepare }) {
  headerOf = (error) => prepare(error, []);
  setPrepare(prepareStack);
}

/** An error is told; it is the one that whole() is about until the next. */
function note(thrown) {
  before = last;
  last = { thrown };
}

/** It was not told after all. */
function retract() {
  last = before;
}

/** The own property of an error, unless it takes a getter to have it. */
function ownValue(error, name) {
  return getOwnPropertyDescriptor(error, name)?.value;
}

/** Adds the lines of one error with all its frames, Node's and ours too, then those of its causes. */
function addLines(lines, thrown, title, seen) {
  if (!isNativeError(thrown)) {
    lines[lines.length] = `${title}${inspect(thrown)} (no error, so it has no stack)`;
    return;
  }
  if (apply(includes, seen, [thrown])) return;
  seen[seen.length] = thrown;
  const { stack } = thrown; // which makes its frames known
  const sites = apply(find, framesOf, [thrown]);
  if (sites === undefined) {
    lines[lines.length] = `${title}${stack}`;
  } else {
    lines[lines.length] = title + headerOf(thrown);
    for (let i = 0; i < sites.length; i++) {
      const file = sites[i].getFileName() ?? '';
      lines[lines.length] = `    at ${frameOf(sites[i], file)}`;
    }
  }
  const cause = ownValue(thrown, 'cause');
  if (cause !== undefined) addLines(lines, cause, '[cause] ', seen);
  const errors = ownValue(thrown, 'errors');
  for (let i = 0; isArray(errors) && i < errors.length; i++) {
    addLines(lines, errors[i], `[errors ${i}] `, seen);
  }
}

/** The last error in full, as lines; none if there was no error yet. */
function whole() {
  const lines = [];
  if (last) addLines(lines, last.thrown, '', []);
  return lines;
}

module.exports = { HERE, install, note, retract, whole };
