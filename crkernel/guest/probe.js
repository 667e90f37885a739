'use strict';
// Looks at the user's values for completion and inspection, on the main thread, where they are. The
// worker calls it by its own inspector session, also between two steps of a running cell. Nothing of
// the user's runs in here: values are found by chains of names and read off descriptors, proxies and
// the user's accessors are left alone, and whatever is called was captured when the guest came up.

const { types } = require('node:util');
const { typedAs, typeNames } = require('./cells.js');
const { holderOf, isObject, nextHolder, own, propertyOf } = require('./descriptors.js');
const { ask } = require('./internals.js');
const { kindOf, makePreview } = require('./preview.js');

const realm = globalThis;
const { apply } = Reflect;
const {
  getOwnPropertyNames, getOwnPropertyDescriptor, getPrototypeOf, create, hasOwn,
} = Object;
const { isArray } = Array;
const { isView } = ArrayBuffer;
const { isProxy } = types;
const { startsWith, slice } = String.prototype;
const { toString: sourceOf } = Function.prototype;
const { forEach } = Map.prototype;
const { add, has } = Set.prototype;
const { exec } = RegExp.prototype;
const { includes, slice: sliceArray } = Array.prototype;
const ErrorClass = Error;
const SetOfGetters = Set;
const { prepareStackTrace: formatter } = Error;
const { eval: valueOfName } = globalThis; // called by another name, it sees what all cells see

const MANY = 1000; // elements from which on an array's indices are left out; rows of an answer
const HEAD = 300; // UTF-16 units of a function's source that hold its parameters
const SOURCE = 10_000; // units of source that an inspection shows
const NATIVE = /^function get (\S+)\(\) \{ \[native code\] \}$/; // no function of the user's is written so
const NO_NATIVE = 'flags'; // of a RegExp: reads other properties, which may be the user's
const URLS = [URL.prototype, URLSearchParams.prototype];

/** Whether errors, such as that of a getter that is refused, are formatted by code of the user's. */
function formatsErrors() {
  const found = getOwnPropertyDescriptor(ErrorClass, 'prepareStackTrace');
  return found !== undefined && found.value !== formatter;
}

/** Whether a proxy is among an object and those that it inherits from. */
function meetsProxy(object) {
  let at = object;
  while (at !== null && !isProxy(at)) at = getPrototypeOf(at);
  return at !== null;
}

function namesOf(object) {
  if (isView(object) || (isArray(object) && object.length > MANY)) return ['length'];
  return getOwnPropertyNames(object);
}

/** The beginning of a function's source; null for what is no function. */
function source(value, length) {
  if (typeof value !== 'function') return null;
  return apply(slice, apply(sourceOf, value, []), [0, length]);
}

/** Rows of what begins with `prefix`: name, source if it is a function, how far up it was found. */
function propertiesOf(value, prefix) {
  const rows = [];
  const seen = create(null);
  let depth = 0;
  for (let object = holderOf(value); object !== null; object = nextHolder(object)) {
    const names = namesOf(object);
    for (let i = 0; i < names.length && rows.length < MANY; i++) {
      const name = names[i];
      if (seen[name] || !apply(startsWith, name, [prefix])) continue;
      seen[name] = true;
      rows[rows.length] = [name, source(own(object, name), HEAD), depth];
    }
    depth += 1;
  }
  return rows;
}

/** Gives the own accessors of an object. */
function eachGetter(object, visit) {
  if (!isObject(object)) return;
  const names = getOwnPropertyNames(object);
  for (let i = 0; i < names.length; i++) {
    const { get } = getOwnPropertyDescriptor(object, names[i]);
    if (get) visit(get);
  }
}

/** Whether a getter is one of V8's or Node's in C++, and reads nothing that may be the user's. */
function isNative(getter) {
  const name = apply(exec, NATIVE, [apply(sourceOf, getter, [])])?.[1];
  return name !== undefined && name !== NO_NATIVE;
}

/**
 * Makes the function that the worker calls, (operation, ...arguments) -> what can go over the wire.
 * `builtins` is Node's own table of its modules, `promiseDetails` its own look into a promise.
 */
function makeProbe(session, carrier, builtins, promiseDetails) {
  const previewOf = makePreview(promiseDetails);
  const globals = getOwnPropertyNames(realm);
  const values = [];
  const isBuiltin = create(null);
  const natives = new SetOfGetters(); // getters that are Node's, in JavaScript
  for (let i = 0; i < globals.length; i++) {
    const name = globals[i];
    // These two are behind accessors; the others that are come with the module that makes them.
    const known = name === 'process' || name === 'Buffer';
    values[i] = known ? realm[name] : own(realm, name);
    isBuiltin[name] = true;
  }

  /** Calls visit(object, key) for each public module of Node that is loaded. */
  function eachModule(visit) {
    apply(forEach, builtins, [(module, id) => {
      if (!module.loaded) return;
      if (!apply(startsWith, id, ['internal/'])) visit(module.exports, `node:${id}`);
      // It is there as fs.promises before anyone has asked for it by its own name.
      if (id === 'internal/fs/promises') visit(module.exports.exports, 'node:fs/promises');
    }]);
  }

  /**
   * Notes getters of Node's own that are no native code: those of the global object, of modules and of
   * URLs. To look through all classes would cost each guest some megabytes.
   */
  function noteGetters() {
    const note = (get) => apply(add, natives, [get]);
    eachGetter(realm, note);
    for (let i = 0; i < URLS.length; i++) eachGetter(URLS[i], note);
    eachModule((exported) => eachGetter(exported, note));
  }
  noteGetters();

  /** What a property of a value is: {value}, {accessor}; null if there is none to be read. */
  function read(value, name) {
    const found = propertyOf(value, name);
    if (!found) return null;
    if (hasOwn(found, 'value')) return found;
    const native = found.get && (isNative(found.get) || apply(has, natives, [found.get]));
    if (!native) return { accessor: found };
    return formatsErrors() ? null : carrier.read(found.get, value);
  }

  /** What a bare name is, likewise. A declared one hides the property of the global object. */
  function readName(name) {
    const found = propertyOf(realm, name);
    const plain = found ? hasOwn(found, 'value') : !meetsProxy(realm);
    const isDeclared = () => {
      const declared = ask(session, 'Runtime.globalLexicalScopeNames')?.names ?? [];
      return apply(includes, declared, [name]);
    };
    return plain || isDeclared() ? { value: valueOfName(name) } : read(realm, name);
  }

  /** The key that a step means: its own, or what the name in its brackets holds; null if none. */
  function keyOf(step) {
    if (typeof step === 'string') return step;
    const value = readName(step.name)?.value;
    if (typeof value === 'symbol') return value;
    return typeof value === 'string' || typeof value === 'number' ? `${value}` : null;
  }

  /** What a chain of names leads to: {value}; {accessor} if it ends at one of the user's; else null. */
  function follow(steps) {
    try {
      let found = readName(steps[0]);
      for (let i = 1; i < steps.length && found; i++) {
        const key = found.accessor ? null : keyOf(steps[i]);
        found = key === null ? null : read(found.value, key);
      }
      return found;
    } catch {
      return null; // a name that is not initialized yet, or no name after all
    }
  }

  /** The same, for what is no accessor. */
  function valueAt(steps) {
    const found = follow(steps);
    return found && !found.accessor ? found : null;
  }

  /** The names under which Node or the language offer a value, like "Array.prototype.map". */
  function originsOf(value) {
    const keys = [];
    const found = (key) => (keys[keys.length] = key);
    const search = (object, key, deep) => {
      if (object === value) found(key);
      if (!isObject(object) || isProxy(object) || object === realm) return;
      const names = namesOf(object);
      for (let i = 0; i < names.length; i++) {
        const member = own(object, names[i]);
        if (member === value) found(`${key}.${names[i]}`);
        else if (deep && typeof member === 'function') {
          search(own(member, 'prototype'), `${key}.${names[i]}.prototype`, false);
        }
      }
    };
    for (let i = 0; i < globals.length; i++) {
      search(values[i], globals[i], false);
      if (typeof values[i] === 'function') {
        search(own(values[i], 'prototype'), `${globals[i]}.prototype`, false);
      }
    }
    eachModule((exported, key) => search(exported, key, true));
    return keys;
  }

  /** The value that has `name` as its own property, on the way up from `value`. */
  function ownerOf(value, name) {
    for (let object = holderOf(value); object !== null; object = nextHolder(object)) {
      if (getOwnPropertyDescriptor(object, name)) return object;
    }
    return null;
  }

  const operations = {
    __proto__: null,

    /** Rows of properties of what a chain leads to; null if it cannot be had. */
    properties(steps, prefix) {
      const found = valueAt(steps);
      return found && propertiesOf(found.value, prefix);
    },

    /** Rows of what a module of Node exports; null if it is not loaded. */
    exports(id, prefix) {
      let rows = null;
      eachModule((exported, key) => {
        if (key === id) rows = propertiesOf(exported, prefix);
      });
      return rows;
    },

    /** What a bare name can mean: names of the script's scope, rows of the global object's, types. */
    scope(prefix, wantsType) {
      const rows = propertiesOf(realm, prefix);
      for (let i = 0; i < rows.length; i++) rows[i][3] = isBuiltin[rows[i][0]] === true;
      const types = wantsType ? typeNames() : [];
      return { names: ask(session, 'Runtime.globalLexicalScopeNames')?.names ?? [], rows, types };
    },

    /**
     * What there is to tell of what a chain leads to: its kind, a preview, a function's source or
     * that of an accessor, as it was typed too, the names it goes by, and what kind its holder is.
     */
    describe(steps) {
      const found = follow(steps);
      const container = steps.length > 1 ? valueAt(apply(sliceArray, steps, [0, -1])) : null;
      if (!found && !container) return null;
      const { value, accessor } = found ?? {};
      const last = container ? keyOf(steps[steps.length - 1]) : null;
      const owner = container && last !== null ? ownerOf(container.value, last) : null;
      const origins = isObject(value) ? originsOf(value) : [];
      const owners = owner && typeof last === 'string' ? originsOf(owner) : [];
      for (let i = 0; i < owners.length; i++) origins[origins.length] = `${owners[i]}.${last}`;
      const written = source(accessor ? accessor.get ?? accessor.set : value, SOURCE);
      return {
        kind: accessor ? 'accessor' : found && kindOf(value),
        preview: found && !written ? previewOf(value) : null,
        source: written,
        typed: written && typedAs(written),
        origins,
        holder: container && kindOf(container.value),
      };
    },
  };

  return (operation, ...rest) => apply(operations[operation], operations, rest);
}

module.exports = { makeProbe, propertiesOf };
