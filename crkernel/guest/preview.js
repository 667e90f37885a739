'use strict';
// A value in a line, for an inspection, on the main thread. V8's own previews run what the user has
// defined as `stack`, `splice` or `length`; this reads descriptors and what was captured at load.

const { types } = require('node:util');
const { own, propertyOf } = require('./descriptors.js');

const { apply } = Reflect;
const { getOwnPropertyDescriptor, getPrototypeOf, hasOwn, keys } = Object;
const { isArray } = Array;
const {
  isDate, isMap, isNativeError, isPromise, isProxy, isRegExp, isSet, isTypedArray,
} = types;
const { stringify } = JSON;
const { toStringTag } = Symbol;
const { padStart, slice } = String.prototype;
const { toString: numberText } = Number.prototype;
const { toString: symbolText } = Symbol.prototype;
const { toString: dateText } = Date.prototype;
const { next: nextOfMap } = getPrototypeOf(new Map().entries());
const { next: nextOfSet } = getPrototypeOf(new Set().values());
const { entries } = Map.prototype;
const { values } = Set.prototype;

const getter = (object, name) => getOwnPropertyDescriptor(object, name).get;
const sizeOfMap = getter(Map.prototype, 'size');
const sizeOfSet = getter(Set.prototype, 'size');
const lengthOf = getter(getPrototypeOf(Uint8Array.prototype), 'length');
const sourceOf = getter(RegExp.prototype, 'source');
const FLAGS = [ // RegExp.prototype.flags reads what the user may have defined
  ['d', getter(RegExp.prototype, 'hasIndices')],
  ['g', getter(RegExp.prototype, 'global')],
  ['i', getter(RegExp.prototype, 'ignoreCase')],
  ['m', getter(RegExp.prototype, 'multiline')],
  ['s', getter(RegExp.prototype, 'dotAll')],
  ['u', getter(RegExp.prototype, 'unicode')],
  ['v', getter(RegExp.prototype, 'unicodeSets')],
  ['y', getter(RegExp.prototype, 'sticky')],
];

const SHOWN = 200; // UTF-16 units of a text, or of the parts of a value
const INNER = 60; // of a text within a value
const PARTS = 5; // properties or entries
const BYTES = 20; // of a Buffer
const PENDING = 0;
const REJECTED = 2;

/** What a property that is text holds, own or inherited; '' if it is none or behind an accessor. */
function textOf(object, name) {
  const found = propertyOf(object, name);
  return found && hasOwn(found, 'value') && typeof found.value === 'string' ? found.value : '';
}

/** The name of an object's class. */
function classOf(object) {
  if (isProxy(object)) return 'Proxy';
  for (let at = object; at !== null && !isProxy(at); at = getPrototypeOf(at)) {
    const made = own(at, 'constructor');
    const name = typeof made === 'function' && !isProxy(made) ? own(made, 'name') : undefined;
    if (typeof name === 'string' && name) return name;
    const tag = own(at, toStringTag);
    if (typeof tag === 'string' && tag) return tag;
  }
  return 'Object';
}

/** What kind of value it is, in a word. */
function kindOf(value) {
  if (value === null) return 'null';
  return typeof value === 'object' ? classOf(value) : typeof value;
}

function quoted(text, most) {
  if (text.length <= most) return stringify(text);
  return `${stringify(apply(slice, text, [0, most]))}... (${text.length} characters)`;
}

/** A value that is no object; null if it is one. */
function primitive(value, most) {
  if (typeof value === 'string') return quoted(value, most);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'symbol') return apply(symbolText, value, []);
  if (value !== null && (typeof value === 'object' || typeof value === 'function')) return null;
  return value === 0 && 1 / value < 0 ? '-0' : `${value}`;
}

/** What an object is called: its class, and how much it holds. */
function headOf(object) {
  const name = classOf(object);
  if (isProxy(object)) return name;
  if (isArray(object)) return `${name}(${own(object, 'length')})`;
  if (isTypedArray(object)) return `${name}(${apply(lengthOf, object, [])})`;
  if (isMap(object)) return `${name}(${apply(sizeOfMap, object, [])})`;
  if (isSet(object)) return `${name}(${apply(sizeOfSet, object, [])})`;
  return name;
}

/** A value within another one. */
function part(value) {
  if (typeof value === 'function') return 'function';
  return primitive(value, INNER) ?? headOf(value);
}

function property(object, name) {
  const found = getOwnPropertyDescriptor(object, name);
  if (!found) return 'empty';
  return hasOwn(found, 'value') ? part(found.value) : 'accessor';
}

/** Parts with commas between them, as many as there is room for; `at(i)` gives one. */
function joined(all, most, at) {
  let text = '';
  for (let i = 0; i < all; i++) {
    if (i === most || text.length > SHOWN) return `${text}, ...`;
    text += `${i ? ', ' : ''}${at(i)}`;
  }
  return text;
}

function elements(object) {
  const typed = isTypedArray(object);
  const all = typed ? apply(lengthOf, object, []) : own(object, 'length');
  return joined(all, SHOWN, (i) => (typed ? part(object[i]) : property(object, `${i}`)));
}

function entriesOf(map) {
  const iterator = apply(entries, map, []);
  return joined(apply(sizeOfMap, map, []), PARTS, () => {
    const { value } = apply(nextOfMap, iterator, []);
    return `${part(value[0])} => ${part(value[1])}`;
  });
}

function valuesOf(set) {
  const iterator = apply(values, set, []);
  return joined(apply(sizeOfSet, set, []), PARTS, () => part(apply(nextOfSet, iterator, []).value));
}

function propertiesOf(object) {
  const names = keys(object);
  return joined(names.length, PARTS, (i) => `${names[i]}: ${property(object, names[i])}`);
}

function patternOf(pattern) {
  let flags = '';
  for (let i = 0; i < FLAGS.length; i++) if (apply(FLAGS[i][1], pattern, [])) flags += FLAGS[i][0];
  return `/${apply(sourceOf, pattern, [])}/${flags}`;
}

function bytesOf(buffer) {
  const all = apply(lengthOf, buffer, []);
  let text = '';
  for (let i = 0; i < all && i < BYTES; i++) {
    text += ` ${apply(padStart, apply(numberText, buffer[i], [16]), [2, '0'])}`;
  }
  return `<Buffer${text}${all > BYTES ? ` ... ${all - BYTES} more bytes` : ''}>`;
}

function errorOf(error) {
  const name = textOf(error, 'name') || classOf(error);
  const message = textOf(error, 'message');
  const shown = message.length > SHOWN ? `${apply(slice, message, [0, SHOWN])}...` : message;
  return message ? `${name}: ${shown}` : name;
}

/** Makes (value) -> its preview; `promiseDetails` is Node's own look into a promise. */
function makePreview(promiseDetails) {
  function promiseOf(promise) {
    const details = promiseDetails(promise);
    if (details[0] === PENDING) return '<pending>';
    return details[0] === REJECTED ? `<rejected> ${part(details[1])}` : part(details[1]);
  }

  function bodyOf(object) {
    if (isMap(object)) return entriesOf(object);
    if (isSet(object)) return valuesOf(object);
    return isPromise(object) ? promiseOf(object) : propertiesOf(object);
  }

  return (value) => {
    const plain = primitive(value, SHOWN);
    if (plain !== null) return plain;
    const head = headOf(value);
    if (isProxy(value)) return head;
    if (isDate(value)) return apply(dateText, value, []);
    if (isRegExp(value)) return patternOf(value);
    if (isNativeError(value)) return errorOf(value);
    if (isTypedArray(value) && classOf(value) === 'Buffer') return bytesOf(value);
    const isList = isArray(value) || isTypedArray(value);
    let body = '';
    try {
      body = isList ? elements(value) : bodyOf(value);
    } catch {
      // a module that is not initialized yet
    }
    const within = body ? ` ${body} ` : '';
    return isList ? `${head} [${within}]` : `${head} {${within}}`;
  };
}

module.exports = { kindOf, makePreview };
