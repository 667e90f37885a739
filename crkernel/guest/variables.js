'use strict';
// The names that the user has declared, with what can be said of their values without running any
// of the user's code: the inspector looks, and refuses whatever would have a side effect.

const GROUP = 'variables';
const LONGEST = 80; // characters of a value
const COUNTED = /^(?:Array|Map|Set|Buffer|ArrayBuffer|SharedArrayBuffer|\w+Array|DataView)\((\d+)\)$/;
const WIDTHS = { Int16: 2, Uint16: 2, Float16: 2, Int32: 4, Uint32: 4, Float32: 4, Float64: 8,
  BigInt64: 8, BigUint64: 8 };
const UNITS = { Map: 'entry', Set: 'entry', Array: 'item' };

function plural(number, unit) {
  if (number === 1) return `1 ${unit}`;
  return `${number} ${unit === 'entry' ? 'entries' : `${unit}s`}`;
}

/** The own properties of the global object; the inspector holds their values for this group. */
async function globalProperties(post, objectGroup) {
  // `this`, since a cell may have declared globalThis.
  const { result } = await post('Runtime.evaluate', { expression: 'this', objectGroup, silent: true });
  const { objectId } = result;
  return (await post('Runtime.getProperties', { objectId, ownProperties: true })).result;
}

/** Own enumerable names of the global object that are not among `builtins`. */
async function globalNames(post, builtins) {
  const own = await globalProperties(post, GROUP);
  return own.filter(({ name, symbol, enumerable }) => !symbol && enumerable && !builtins.has(name))
    .map(({ name }) => name);
}

function typeOf({ type, subtype, className }) {
  if (subtype === 'null') return 'null';
  if (subtype === 'proxy') return 'Proxy';
  return type === 'object' ? className : type;
}

/** How large a value is, in the unit of its type; empty where there is none. */
async function sizeOf(post, { type, subtype, className, description = '', value, objectId }) {
  if (type === 'string') return plural(value.length, 'character');
  if (type !== 'object' || !objectId || subtype === 'proxy') return '';
  const counted = COUNTED.exec(description);
  if (counted) {
    const unit = UNITS[className];
    const width = WIDTHS[className.replace(/Array$/, '')] ?? 1;
    return unit ? plural(+counted[1], unit) : plural(counted[1] * width, 'byte');
  }
  if (subtype) return '';
  const { result } = await post('Runtime.getProperties', { objectId, ownProperties: true });
  return plural(result.filter(({ name, symbol }) => !symbol && name !== '__proto__').length, 'key');
}

function cut(text) {
  const line = text.replace(/\s+/g, ' ');
  return line.length > LONGEST ? `${line.slice(0, LONGEST - 1)}…` : line;
}

function valueOf({ type, value, description, preview, unserializableValue }) {
  if (type === 'string') return cut(JSON.stringify(value.slice(0, 2 * LONGEST)));
  if (type === 'object' && preview?.properties && !preview.entries) {
    const parts = preview.properties.map((part) => {
      const shown = part.type === 'string' ? JSON.stringify(part.value) : part.value || part.type;
      return preview.subtype === 'array' ? shown : `${part.name}: ${shown}`;
    });
    if (preview.overflow) parts.push('…');
    return cut(preview.subtype === 'array' ? `[${parts.join(', ')}]` : `{${parts.join(', ')}}`);
  }
  return cut(description ?? unserializableValue ?? String(value));
}

/** What can be said of a name; null if it has no value, which a cell that failed has left behind. */
async function describe(post, name) {
  const { result, exceptionDetails } = await post('Runtime.evaluate', {
    expression: name, objectGroup: GROUP, throwOnSideEffect: true, generatePreview: true,
    silent: true,
  });
  if (exceptionDetails?.exception?.className === 'ReferenceError') return null;
  if (exceptionDetails) return { name, type: 'unknown', size: '', value: '(a getter)' };
  return { name, type: typeOf(result), size: await sizeOf(post, result), value: valueOf(result) };
}

/**
 * The answer to variables: all names in order, and of the first `described` of them also type, size
 * and value, for which the inspector has to look at each.
 */
async function list(post, builtins, described) {
  try {
    const { names } = await post('Runtime.globalLexicalScopeNames', {});
    const all = new Set([...names, ...await globalNames(post, builtins)]);
    const identifiers = [...all].filter((name) => /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(name));
    identifiers.sort();
    const variables = [];
    const empty = new Set();
    for (const name of identifiers.slice(0, described)) {
      const variable = await describe(post, name);
      if (variable) variables.push(variable);
      else empty.add(name);
    }
    return { names: identifiers.filter((name) => !empty.has(name)), variables };
  } finally {
    post('Runtime.releaseObjectGroup', { objectGroup: GROUP }).catch(() => {});
  }
}

module.exports = { globalProperties, list };
