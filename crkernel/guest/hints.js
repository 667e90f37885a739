'use strict';
// What to do about errors of modules, and of names of elsewhere: one line, or none. On the main
// thread, after user code; whoever calls it catches.

const fs = require('node:fs');
const path = require('node:path');
const { builtinModules } = require('node:module');

const ENDINGS = ['.js', '.mjs', '.cjs', '.ts', '.mts', '.json', '.wasm', '/index.js', '/index.mjs'];
const INSTALLED = /^(.*\/node_modules\/((?:@[^/]+\/)?[^/]+))\//s;
const RESULT = /^_(\d+)$/; // see results.js
const LISTED = 5; // files of a folder that are named
const NO_PAGE = 'this is Node, without a web page; display.html(…) shows HTML';
const NO_MODULE = 'a cell is no module: what it declares is there in all cells';
const ELSEWHERE = { // names of files, of browsers, of Deno and of ijavascript
  __proto__: null,
  __filename: 'a cell is no file; __dirname is the working directory',
  document: NO_PAGE,
  window: NO_PAGE,
  module: NO_MODULE,
  exports: NO_MODULE,
  Deno: "this is Node: import fs from 'node:fs', await fs.promises.readFile(…) and the like",
  $$: 'display(…) shows values, await waits for promises, input(…) asks',
};
const NO_JSR = 'Node knows nothing of JSR: what is on npm, too, can be had by %npm install';

const { apply } = Reflect;
const { exec } = RegExp.prototype;
const { replace, startsWith } = String.prototype;
const { filter, includes, join, slice } = Array.prototype;
const { readdirSync, statSync } = fs;
const { basename, dirname, relative, resolve } = path;
const { cwd } = process;

function isFile(file) {
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

/** The package of a bare specifier: its name without what follows in the package. */
function packageOf(specifier) {
  return apply(exec, /^(?:@[^/]+\/)?[^/]+/, [specifier])?.[0] ?? specifier;
}

function ofPackage(given) {
  if (apply(startsWith, given, ['jsr:'])) return NO_JSR;
  const specifier = apply(replace, given, [/^npm:/, '']);
  const builtin = `node:${specifier}`;
  if (apply(includes, builtinModules, [builtin])) return `did you mean ${builtin}?`;
  const tried = [];
  for (let folder = cwd(); ; folder = dirname(folder)) {
    tried[tried.length] = folder === '/' ? '/node_modules' : `${folder}/node_modules`;
    if (folder === '/') break;
  }
  return `%npm install ${packageOf(specifier)} (looked in ${apply(join, tried, [', '])})`;
}

function shownAs(file) {
  const short = relative(cwd(), file);
  return apply(startsWith, short, ['..']) ? file : `./${short}`;
}

function stemOf(name) {
  return apply(replace, name, [/\.\w+$/, '']);
}

function ofFile(file) {
  const near = apply(filter, ENDINGS, [(ending) => isFile(file + ending)]);
  if (near.length) return `did you mean '${shownAs(file + near[0])}'?`;
  const folder = dirname(file);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    return `there is no folder ${folder}`;
  }
  const stem = stemOf(basename(file));
  const names = readdirSync(folder);
  const same = apply(filter, names, [(name) => stemOf(name) === stem]);
  if (same.length) return `did you mean '${shownAs(resolve(folder, same[0]))}'?`;
  const some = apply(join, apply(slice, names, [0, LISTED]), [', ']);
  const more = names.length > LISTED ? ', …' : '';
  return names.length ? `${folder} holds ${some}${more}` : `${folder} is empty`;
}

function ofMissing({ message, requireStack }) {
  const specifier = apply(exec, /^Cannot find (?:package|module) '([^'\n]+)'/, [message])?.[1];
  if (specifier === undefined) return null;
  if (!apply(exec, /^(?:\.{0,2}\/|\.{1,2}$)/, [specifier])) return ofPackage(specifier);
  const from = requireStack?.[0];
  return ofFile(resolve(typeof from === 'string' ? dirname(from) : cwd(), specifier));
}

/** What to do about a file of a package that is gone, while Node still knows where it was. */
function ofGone({ path: file }) {
  const found = typeof file === 'string' && apply(exec, INSTALLED, [file]);
  return found && !statSync(found[1], { throwIfNoEntry: false }) ? ofPackage(found[2]) : null;
}

const HINTS = {
  __proto__: null,
  ENOENT: ofGone,
  ERR_MODULE_NOT_FOUND: ofMissing,
  MODULE_NOT_FOUND: ofMissing,
  ERR_UNSUPPORTED_DIR_IMPORT: () => 'name the file to import, as in ./folder/index.js',
  ERR_IMPORT_ATTRIBUTE_MISSING: () => "write: import data from './data.json' with { type: 'json' }",
  ERR_UNKNOWN_FILE_EXTENSION: () => 'Node imports .js, .mjs, .cjs, .ts, .mts, .cts, .json and .wasm; '
    + 'read other files with fs.readFileSync()',
  ERR_UNSUPPORTED_ESM_URL_SCHEME: ({ message }) => {
    const scheme = apply(exec, /'(npm|jsr):'/, [message])?.[1];
    return scheme === 'npm' ? 'name the package without npm: in front, after a %npm install of it'
      : scheme ? NO_JSR
      : 'Node imports files and packages only: %npm install the package';
  },
};

/** What to do about a name that nothing has declared, or null. */
function ofUnknown(name) {
  if (ELSEWHERE[name]) return ELSEWHERE[name];
  const cell = apply(exec, RESULT, [name])?.[1];
  if (cell) return `cell ${cell} has left no result, or it was muted, or is too long ago`;
  const builtin = `node:${name}`;
  const known = apply(includes, builtinModules, [name]) || apply(includes, builtinModules, [builtin]);
  return known && !apply(startsWith, name, ['_']) ? `import ${name} from '${builtin}'` : null;
}

/** One line of advice for an error, or null. */
function hintFor(error) {
  const remedy = HINTS[error.code];
  if (remedy) return remedy(error);
  const unknown = apply(exec, /^(\S+) is not defined$/, [`${error.message}`])?.[1];
  if (unknown) return ofUnknown(unknown);
  const untold = apply(exec, /^Export '(.+)' is not defined in module$/, [`${error.message}`])?.[1];
  if (untold) return `if ${untold} is a type, write: export type { ${untold} }`;
  const missing = apply(exec, /'([^'\n]+\.[mc]?ts)' does not provide an export named '(\w+)'/,
    [`${error.message}`]);
  return missing ? `if ${missing[2]} is a type, write: import type { ${missing[2]} } from …` : null;
}

module.exports = { hintFor };
