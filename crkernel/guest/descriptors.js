'use strict';
// Properties as their descriptors tell them, on the main thread: nothing of the user's runs to read one.

const { types } = require('node:util');

const { getOwnPropertyDescriptor, getPrototypeOf, hasOwn } = Object;
const { isProxy } = types;
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

/** The descriptor of a property, own or inherited; null if there is none, or a proxy is in the way. */
function propertyOf(value, name) {
  for (let object = holderOf(value); object !== null; object = nextHolder(object)) {
    const found = getOwnPropertyDescriptor(object, name);
    if (found) return found;
  }
  return null;
}

module.exports = { holderOf, isObject, nextHolder, own, propertyOf };
