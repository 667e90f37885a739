'use strict';
// What can stand in a string: names of modules, and of files in the working folder.

const fs = require('node:fs');
const path = require('node:path');
const nodeModule = require('node:module');

const builtinModules = new Set(nodeModule.builtinModules
  .map((name) => name.replace(/^node:/, '')).filter((name) => !name.startsWith('_')));
const PREFIXED = ['sea', 'sqlite', 'test', 'test/reporters']; // never without node:
const IMPORTABLE = /\.(?:[cm]?[jt]s|json|node|wasm)$/;
const MANY = 1000; // entries of one folder that are offered

/** Entries of a folder; none if it cannot be read. */
function list(folder) {
  try {
    return fs.readdirSync(folder, { withFileTypes: true }).slice(0, MANY);
  } catch {
    return [];
  }
}

function isFolder(entry, folder) {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  return fs.statSync(path.join(folder, entry.name), { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Files and folders in the folder that `written` names, by what follows its last slash. */
function inFolder(written, wanted) {
  const base = written.slice(written.lastIndexOf('/') + 1);
  const folder = path.resolve(written.slice(0, written.length - base.length) || '.');
  const entries = [];
  for (const found of list(folder)) {
    if (found.name.startsWith('.') && !base.startsWith('.')) continue;
    const inner = isFolder(found, folder);
    if (!inner && !wanted(found.name)) continue;
    entries.push({ text: found.name + (inner ? '/' : ''), type: 'path', rank: inner ? 0 : 1 });
  }
  return { entries, written: base };
}

/** Files and folders, if what is written in a string looks like a path or can be one. */
function paths(written) {
  if (/^[a-z][\w+.-]*:|[\n]/i.test(written)) return { entries: [], written: '' };
  return inFolder(written, () => true);
}

/** The folders named node_modules that a cell's imports are looked up in. */
function moduleFolders() {
  const folders = [];
  for (let folder = process.cwd(); ; folder = path.dirname(folder)) {
    folders.push(path.join(folder, 'node_modules'));
    if (folder === path.dirname(folder)) return folders;
  }
}

/** Installed packages: their names, and those in a scope. */
function packages() {
  const names = [];
  for (const folder of moduleFolders()) {
    for (const { name } of list(folder)) {
      if (name.startsWith('.')) continue;
      if (!name.startsWith('@')) names.push(name);
      else for (const inner of list(path.join(folder, name))) names.push(`${name}/${inner.name}`);
    }
  }
  return names;
}

/** What a package lets be imported below its name, or null if it does not restrict that. */
function exported(folder) {
  const file = path.join(folder, 'package.json');
  const { exports: map } = JSON.parse(fs.readFileSync(file, 'utf8'));
  if (map === undefined) return null;
  if (typeof map !== 'object' || map === null) return [];
  return Object.keys(map).filter((key) => key.startsWith('./') && !key.includes('*'))
    .map((key) => key.slice(2));
}

/** What can follow `name/` in an import from an installed package. */
function subpaths(name, written) {
  for (const modules of moduleFolders()) {
    const folder = path.join(modules, name);
    let keys;
    try {
      keys = exported(folder);
    } catch {
      continue; // it is not there, or its package.json is no JSON
    }
    if (keys === null) return inFolder(`${folder}/${written}`, (file) => IMPORTABLE.test(file));
    return { entries: keys.map((text) => ({ text, type: 'module', rank: 0 })), written };
  }
  return { entries: [], written };
}

/** Modules of Node, installed packages, and files by relative paths. */
function specifiers(written) {
  if (/^\.{0,2}\//.test(written)) return inFolder(written, (name) => IMPORTABLE.test(name));
  const inner = /^((?:@[^/]+\/)?[^@/]+)\/(.*)$/.exec(written);
  const own = [...builtinModules].filter((name) => !PREFIXED.includes(name));
  const entries = [
    ...packages().map((text) => ({ text, type: 'module', rank: 0 })),
    ...own.map((text) => ({ text, type: 'module', rank: 1 })),
    ...[...own, ...PREFIXED].map((text) => ({ text: `node:${text}`, type: 'module', rank: 2 })),
  ].filter(({ text }) => text.startsWith(written));
  if (inner && !entries.length) return subpaths(inner[1], inner[2]);
  return { entries, written };
}

module.exports = { builtinModules, specifiers, paths };
