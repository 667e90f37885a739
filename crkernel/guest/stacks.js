'use strict';
// The stacks of errors, on the main thread: Node's header and the user's frames only.

const path = require('node:path');
const { findSourceMap } = require('node:module');
const { rename } = require('./cells.js');

const HERE = __dirname + path.sep;
const IMPORT = 'crkernelImport'; // stands in for a static import, see modules.js
const { apply } = Reflect;
const { exec } = RegExp.prototype;
const { replace, startsWith } = String.prototype;
let headerOf;

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
    frames[frames.length] = frameOf(site, file);
  }
  return frames;
}

/** Stands in for Node's formatter of stacks. */
function prepareStack(error, sites) {
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

module.exports = { HERE, install };
