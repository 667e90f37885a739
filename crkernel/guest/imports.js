'use strict';
// What cells import and require, on the main thread: import() in code that the inspector evaluates,
// import.meta, TypeScript in files, and a changed file loaded afresh. Set up by the first cell that
// says import or require.

const fs = require('node:fs');
const vm = require('node:vm');
const Module = require('node:module');
const { fileURLToPath, pathToFileURL } = require('node:url');
const { define } = require('./define.js');
const { ask, nodeRequire } = require('./internals.js');

const META = 'import_meta'; // what modules.js writes for import.meta
const DECLARE = 'import_const'; // what modules.js calls for the names of `export *`
const VALUE = 'import_value'; // what such a name gets
const FILE = /^(?:\.{0,2}\/|file:)/; // what is said of a file, not of a package
const PACKAGE = /^(.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+)[\\/]/s;

const realm = globalThis;
const { Map, Set } = realm;
const { apply } = Reflect;
const { includes, startsWith } = String.prototype;
const { add, has } = Set.prototype;
const { exec } = RegExp.prototype;
const { assign, defineProperty, keys } = Object;
const { delete: remove, forEach, get, set } = Map.prototype;
const { isArray } = Array;
const { statSync } = fs;
const { cwd } = process;
const OPTIONS = {
  __proto__: null,
  '--experimental-transform-types': true, // enums and the like in files too, as in cells
  '--enable-source-maps': true, // so that what was transformed can be traced back
  '--disable-warning': ['ExperimentalWarning'], // of all this: nobody could act on that
};

let loader = null; // Node's loader of ES modules
let inspector = null; // a session of this thread
let metaOf = null; // the directory that import.meta is for
const witnesses = new Map(); // file that was loaded -> the file whose change makes it stale
const stamps = new Map(); // that file -> what it was like

/** What tells that a file has changed. */
function stampOf(file) {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat ? `${stat.mtimeNs} ${stat.size} ${stat.ino}` : 'none';
}

/** Notes a file that is about to be loaded. Those of a package change when its package.json does. */
function note(file) {
  const folder = apply(exec, PACKAGE, [file])?.[1];
  const witness = folder ? `${folder}/package.json` : file;
  apply(set, witnesses, [file, witness]);
  if (!folder || apply(get, stamps, [witness]) === undefined) {
    apply(set, stamps, [witness, stampOf(witness)]);
  }
}

function fileOf(url) {
  return apply(startsWith, url, ['file:']) ? fileURLToPath(url) : null;
}

/** file -> the files that import or require it, of all that are loaded. */
function importersByFile() {
  const importers = new Map();
  const link = (importer, file) => {
    const list = apply(get, importers, [file]) ?? [];
    list[list.length] = importer;
    apply(set, importers, [file, list]);
  };
  apply(forEach, loader.loadCache, [(jobs, url) => {
    const names = keys(jobs);
    for (let i = 0; i < names.length; i++) {
      const linked = jobs[names[i]]?.linked;
      for (let j = 0; isArray(linked) && j < linked.length; j++) {
        link(fileOf(url), fileOf(linked[j].url));
      }
    }
  }]);
  const files = keys(Module._cache);
  for (let i = 0; i < files.length; i++) {
    const { children } = Module._cache[files[i]]; // JSON that was imported has none
    for (let j = 0; isArray(children) && j < children.length; j++) {
      link(files[i], children[j].filename);
    }
  }
  return importers;
}

/** Files of which what is loaded is out of date, because they or what they import have changed. */
function staleFiles() {
  const changed = new Set();
  apply(forEach, stamps, [(stamp, witness) => {
    if (stampOf(witness) === stamp) return;
    apply(add, changed, [witness]);
    apply(remove, stamps, [witness]);
  }]);
  const stale = new Set();
  if (!changed.size) return stale;
  const importers = importersByFile();
  const spread = (file) => {
    if (apply(has, stale, [file])) return;
    apply(add, stale, [file]);
    const list = apply(get, importers, [file]) ?? [];
    for (let i = 0; i < list.length; i++) spread(list[i]);
  };
  apply(forEach, witnesses, [(witness, file) => {
    if (apply(has, changed, [witness])) spread(file);
  }]);
  return stale;
}

/** Forgets what is out of date, so that importing it loads it again. */
function refresh() {
  const stale = staleFiles();
  if (!stale.size) return;
  apply(forEach, loader.loadCache, [(_, url) => {
    if (apply(has, stale, [fileOf(url)])) apply(remove, loader.loadCache, [url]);
  }]);
  for (const file of keys(Module._cache)) {
    if (apply(has, stale, [file])) delete Module._cache[file];
  }
  for (const request of keys(Module._pathCache)) {
    if (apply(has, stale, [Module._pathCache[request]])) delete Module._pathCache[request];
  }
}

/** Has every file noted that is loaded from now on. */
function watch() {
  const { loadCache } = loader;
  const { set: keep } = loadCache;
  loadCache.set = function set(url, ...rest) {
    const file = fileOf(url);
    if (file) note(file);
    return apply(keep, this, [url, ...rest]);
  };
  const { load } = Module.prototype;
  Module.prototype.load = function loadNoted(file) {
    note(file);
    return apply(load, this, [file]);
  };
}

/** Looks for changes as a cell imports or requires a file, which it may just have written itself. */
function keepFresh() {
  const { import: importModule } = loader;
  loader.import = function importFresh(specifier, parent, ...rest) {
    if (parent === undefined && apply(exec, FILE, [specifier])) refresh(); // no file imports it
    return apply(importModule, this, [specifier, parent, ...rest]);
  };
  const { _load: load } = Module;
  Module._load = function loadFresh(request, parent, ...rest) {
    if (parent?.filename === `${cwd()}/cell.js` && apply(exec, FILE, [request])) refresh();
    return apply(load, this, [request, parent, ...rest]);
  };
}

/**
 * Lets import() work in code that the inspector evaluates. Node offers that only to vm.Script; for
 * all other scripts it asks a private property of the global object, which the public API sets for
 * the contexts of vm.createContext alone.
 */
function enableImports(symbols) {
  const importModuleDynamically = vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  realm[symbols.host_defined_option_symbol] = importModuleDynamically;
  new vm.Script('import("node:fs")', { importModuleDynamically }).runInThisContext();
}

function defineMeta() {
  const directory = cwd();
  if (metaOf === directory) return;
  metaOf = directory;
  const url = `${pathToFileURL(`${directory}/cell.js`)}`;
  define(META, loader.importMetaInitialize({ __proto__: null }, { url }));
}

/**
 * Declares a const of an earlier cell anew, while a cell runs; true if V8 takes it, which then has asked
 * for the value. It tells the rest only after this cell.
 */
function declare(name, value) {
  let asked = false;
  const get = () => {
    asked = true;
    return value;
  };
  defineProperty(realm, VALUE, { __proto__: null, configurable: true, get });
  const expression = `const ${name} = ${VALUE}`;
  ask(inspector, 'Runtime.evaluate', { expression, replMode: true, silent: true });
  delete realm[VALUE];
  return asked;
}

function setUp({ session, carrier, symbols, restack }) {
  inspector = session;
  const require = nodeRequire(carrier, Module);
  const { getOptionValue } = require('internal/options');
  assign(carrier.variable(getOptionValue, 'optionsDict'), OPTIONS);
  Module.setSourceMapsSupport(true, { nodeModules: false, generatedCode: false });
  restack(); // the line above has put another formatter of stacks in place
  loader = require('internal/modules/esm/loader').getOrInitializeCascadedLoader();
  enableImports(symbols);
  watch();
  keepFresh();
}

/** Called before a cell runs: makes its imports work, and those of changed files fresh. */
function prepare(code, tools) {
  if (!apply(includes, code, ['import']) && !apply(includes, code, ['require'])) return;
  if (loader === null) setUp(tools);
  refresh();
  if (apply(includes, code, [META])) defineMeta();
  if (apply(includes, code, [DECLARE])) define(DECLARE, declare);
}

module.exports = { prepare };
