'use strict';
// Looks at the user's values for completion and inspection, on the main thread, where they are. The
// worker calls it by its own inspector session, also between two steps of a running cell. Nothing of
// the user's runs in here: expressions are evaluated by an inspector session that refuses side
// effects, properties are read off descriptors, proxies are left alone, and whatever is called was
// captured when the guest came up.

const { types } = require('node:util');
const { typedAs } = require('./cells.js');
const { ask } = require('./internals.js');

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
const { eval: valueOfName } = globalThis; // called by another name, it sees what all cells see

const PATIENCE = 100; // ms that an expression may take
const MANY = 1000; // elements from which on an array's indices are left out; rows of an answer
const HEAD = 300; // UTF-16 units of a function's source that hold its parameters
const SOURCE = 10_000; // units of source or text that an inspection shows
const GROUP = 'probe';
const PROTOTYPES = {
  __proto__: null,
  string: String.prototype,
  number: Number.prototype,
  boolean: Boolean.prototype,
  bigint: BigInt.prototype,
  symbol: Symbol.prototype,
};

function isObject(value) {
  return typeof value === 'function' || (typeof value === 'object' && value !== null);
}

/** The object that a property of a value is looked for first, or the next one; null at the end. */
function holderOf(value) {
  const object = isObject(value) ? value : PROTOTYPES[typeof value] ?? null;
  return object === null || isProxy(object) ? null : object;
}

function nextHolder(object) {
  return holderOf(getPrototypeOf(object));
}

/** The value of an own property that is no accessor, else undefined. */
function own(object, name) {
  try {
    const found = getOwnPropertyDescriptor(object, name);
    return found && hasOwn(found, 'value') ? found.value : undefined;
  } catch {
    return undefined; // a binding of a module that is not initialized yet
  }
}

/** What a property holds, own or inherited: {value}; null if that is not there to be read. */
function dataOf(value, name) {
  let object = isObject(value) ? value : PROTOTYPES[typeof value] ?? null;
  for (; object !== null && !isProxy(object); object = getPrototypeOf(object)) {
    const found = getOwnPropertyDescriptor(object, name);
    if (found) return hasOwn(found, 'value') ? found : null;
  }
  return null;
}

/** Whether reading a name in the global scope can run anything: a getter, a proxy's trap. */
function isPlain(name) {
  let object = realm;
  for (; object !== null && !isProxy(object); object = getPrototypeOf(object)) {
    const found = getOwnPropertyDescriptor(object, name);
    if (found) return hasOwn(found, 'value');
  }
  return object === null;
}

/**
 * What a chain of names leads to, if all of it is plain data: {value}, else null. Ten times as fast
 * as to have it evaluated, which still is the way for all else.
 */
function follow(steps) {
  try {
    if (!isPlain(steps[0])) return null;
    let found = { value: valueOfName(steps[0]) };
    for (let i = 1; i < steps.length && found; i++) found = dataOf(found.value, steps[i]);
    return found;
  } catch {
    return null; // a name that is not initialized yet, or no name after all
  }
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

/**
 * Makes the function that the worker calls, (operation, ...arguments) -> what can go over the wire.
 * `builtins` is Node's own table of its modules.
 */
function makeProbe(session, carrier, builtins) {
  const globals = getOwnPropertyNames(realm);
  const values = [];
  const isBuiltin = create(null);
  let evaluated = false;
  for (let i = 0; i < globals.length; i++) {
    const name = globals[i];
    // These two are behind accessors; the others that are come with the module that makes them.
    const known = name === 'process' || name === 'Buffer';
    values[i] = known ? realm[name] : own(realm, name);
    isBuiltin[name] = true;
  }

  /** The RemoteObject of an expression that has no side effects, else null. */
  function evaluate(expression, generatePreview = false) {
    evaluated = true;
    const answer = ask(session, 'Runtime.evaluate', {
      expression,
      generatePreview,
      objectGroup: GROUP,
      throwOnSideEffect: true,
      timeout: PATIENCE,
      silent: true,
    });
    return !answer || answer.exceptionDetails ? null : answer.result;
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

    /** Rows of properties of an expression's value; null if it cannot be had. */
    properties(expression, prefix, steps) {
      const plain = steps && follow(steps);
      if (plain) return propertiesOf(plain.value, prefix);
      const remote = evaluate(expression);
      return remote && propertiesOf(carrier.valueOf(remote), prefix);
    },

    /** Rows of what a module of Node exports; null if it is not loaded. */
    exports(id, prefix) {
      let rows = null;
      eachModule((exported, key) => {
        if (key === id) rows = propertiesOf(exported, prefix);
      });
      return rows;
    },

    /** What a bare name can mean: names of the script's scope, rows of the global object's. */
    scope(prefix) {
      const rows = propertiesOf(realm, prefix);
      for (let i = 0; i < rows.length; i++) rows[i][3] = isBuiltin[rows[i][0]] === true;
      return { names: ask(session, 'Runtime.globalLexicalScopeNames')?.names ?? [], rows };
    },

    /** What there is to tell of an expression's value, and of the property `name` of `holder`. */
    describe(expression, holder, name) {
      const remote = evaluate(expression, true);
      const container = holder ? evaluate(holder) : null;
      if (!remote && !container) return null;
      const value = remote ? carrier.valueOf(remote) : undefined;
      const owner = container ? ownerOf(carrier.valueOf(container), name) : null;
      const origins = isObject(value) ? originsOf(value) : [];
      const owners = owner ? originsOf(owner) : [];
      for (let i = 0; i < owners.length; i++) origins[origins.length] = `${owners[i]}.${name}`;
      const written = typeof value === 'function' ? source(value, SOURCE) : null;
      if (remote && written) remote.description = written;
      if (remote && typeof value === 'string') {
        remote.value = apply(slice, value, [0, SOURCE]);
        remote.length = value.length;
      }
      return {
        remote, origins, typed: written && typedAs(written),
        holder: container && (container.className ?? container.type),
      };
    },
  };

  return (operation, a, b, c) => {
    try {
      return operations[operation](a, b, c);
    } finally {
      if (evaluated) ask(session, 'Runtime.releaseObjectGroup', { objectGroup: GROUP });
      evaluated = false;
    }
  };
}

module.exports = { makeProbe, propertiesOf };
