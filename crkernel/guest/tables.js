'use strict';
// Tables in HTML: of arrays of records and of typed arrays. Of big ones the first rows and columns,
// with a line that says how many there are. No getter of the user runs for one.

const { inspect, types } = require('node:util');

const { Map, Set } = globalThis;
const { apply, ownKeys, getPrototypeOf, getOwnPropertyDescriptor } = Reflect;
const { replace, slice } = String.prototype;
const { toLocaleString } = Number.prototype;
const { isArray } = Array;
const { isProxy, isTypedArray, isMap, isSet } = types;
const { isBuffer } = Buffer;
const { min } = Math;
const { forEach: mapForEach, set: mapSet } = Map.prototype;
const { forEach: setForEach, add: setAdd } = Set.prototype;
const sizeOfMap = getOwnPropertyDescriptor(Map.prototype, 'size').get;
const sizeOfSet = getOwnPropertyDescriptor(Set.prototype, 'size').get;
const asString = String;

const CELL = 200; // UTF-16 units of one cell
const SMALL = { rows: 20, columns: 20 }; // of a result that nobody asked to see as a table
const LARGE = { rows: 1000, columns: 100 };
const PER_ROW = 10; // elements of a typed array
const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };

function escape(text) {
  return apply(replace, text, [/[&<>]/g, (character) => ESCAPES[character]]);
}

/** The text of one cell. */
function textOf(value) {
  let text = value;
  if (value === undefined) return '';
  if (typeof value !== 'string') {
    const compact = { depth: 1, breakLength: Infinity, compact: true, maxArrayLength: 10 };
    text = value !== null && typeof value === 'object' ? inspect(value, compact) : asString(value);
  }
  return text.length > CELL ? `${apply(slice, text, [0, CELL])}…` : text;
}

function cellOf(value) {
  const numeric = typeof value === 'number' || typeof value === 'bigint';
  return `<td${numeric ? '' : ' style="text-align: left"'}>${escape(textOf(value))}</td>`;
}

/** What a property holds, without running a getter. */
function read(object, key) {
  const property = getOwnPropertyDescriptor(object, key);
  if (!property) return undefined;
  return 'value' in property ? property.value : '[Getter]';
}

/** `{ columns, rows: [{ label, cells }] }` as HTML, and below it what is left out, if anything is. */
function render({ columns, rows }, more) {
  let head = '<th></th>';
  for (let i = 0; i < columns.length; i++) head += `<th>${escape(textOf(columns[i]))}</th>`;
  let body = '';
  for (let i = 0; i < rows.length; i++) {
    const { label, cells } = rows[i];
    body += `<tr><th>${escape(textOf(label))}</th>`;
    for (let j = 0; j < cells.length; j++) body += cellOf(cells[j]);
    body += '</tr>\n';
  }
  return `<table>\n<thead><tr>${head}</tr></thead>\n<tbody>\n${body}</tbody>\n</table>`
    + (more ? `\n<p>${more}</p>` : '');
}

/** What is left out, in words; '' if nothing is. */
function note(shown, all, what) {
  const number = (n) => apply(toLocaleString, n, ['en-US']);
  return shown < all ? `the first ${number(shown)} of ${number(all)} ${what}` : '';
}

/** The call that shows more of the table of `name`. */
function fuller(name, count, width) {
  let options = count > LARGE.rows ? `rows: ${count}` : '';
  if (width > LARGE.columns) options += `${options && ', '}columns: [names]`;
  return `display.table(${name}${options && `, { ${options} }`}) shows more`;
}

/** The parts that are not empty, as one sentence. */
function sentence(...parts) {
  let text = '';
  for (let i = 0; i < parts.length; i++) if (parts[i]) text += `${text && '; '}${parts[i]}`;
  return text;
}

function isRecord(value) {
  if (value === null || typeof value !== 'object' || isArray(value) || isProxy(value)) return false;
  const prototype = getPrototypeOf(value);
  return prototype === null || (!isProxy(prototype) && getPrototypeOf(prototype) === null);
}

/** The first `limit` entries of a collection as {label, value}, and how many it has. */
function entriesOf(data, limit) {
  const entries = [];
  const add = (label, value) => {
    if (entries.length < limit) entries[entries.length] = { label, value };
  };
  if (isMap(data)) {
    apply(mapForEach, data, [(value, key) => add(key, value)]);
    return { entries, count: apply(sizeOfMap, data, []) };
  }
  if (isSet(data)) {
    apply(setForEach, data, [(value) => add(entries.length, value)]);
    return { entries, count: apply(sizeOfSet, data, []) };
  }
  if (isArray(data) || isTypedArray(data)) {
    for (let i = 0; i < min(data.length, limit); i++) add(i, read(data, i));
    return { entries, count: data.length };
  }
  const keys = ownKeys(data);
  for (let i = 0; i < min(keys.length, limit); i++) add(keys[i], read(data, keys[i]));
  return { entries, count: keys.length };
}

const isObject = (value) => value !== null && typeof value === 'object' && !isProxy(value);

/** The columns of some entries: the keys of those that are objects, in the order they come up. */
function columnsOf(entries) {
  const columns = [];
  const known = { __proto__: null };
  let bare = false;
  for (let i = 0; i < entries.length; i++) {
    const { value } = entries[i];
    bare ||= !isObject(value);
    const keys = isObject(value) ? ownKeys(value) : [];
    for (let j = 0; j < keys.length; j++) {
      const hidden = isArray(value) && keys[j] === 'length';
      if (known[keys[j]] || hidden) continue;
      known[keys[j]] = true;
      columns[columns.length] = keys[j];
    }
  }
  return { columns, bare };
}

/**
 * The first entries of a collection as one of its kind, for console.table, and the words for what is
 * left out: {part, more}. All else as it is.
 */
function firstOf(data, most = LARGE.rows) {
  const { entries, count } = isObject(data) ? entriesOf(data, most) : { count: 0 };
  if (count <= most) return { part: data, more: '' };
  const part = isMap(data) ? new Map() : isSet(data) ? new Set()
    : isArray(data) || isTypedArray(data) ? [] : {};
  for (let i = 0; i < entries.length; i++) {
    const { label, value } = entries[i];
    if (isMap(data)) apply(mapSet, part, [label, value]);
    else if (isSet(data)) apply(setAdd, part, [value]);
    else part[label] = value;
  }
  return { part, more: note(entries.length, count, 'rows') };
}

/**
 * Any collection as an HTML table, one row per entry, as console.table draws it; null for what is
 * none. `columns` picks some, `rows` says how many at most; `name`: how the user gets at the data.
 */
function tableOf(data, { columns: picked, rows: most, limits = LARGE, name = '…' } = {}) {
  if (!isObject(data)) return null;
  const { entries, count } = entriesOf(data, most ?? limits.rows);
  const { columns: all, bare } = picked ? { columns: picked, bare: false } : columnsOf(entries);
  const columns = [];
  const wide = picked ? all.length : min(all.length, limits.columns);
  for (let i = 0; i < wide; i++) columns[i] = all[i];
  const rows = [];
  for (let i = 0; i < entries.length; i++) {
    const { label, value } = entries[i];
    const cells = [];
    for (let j = 0; j < columns.length; j++) {
      cells[j] = isObject(value) ? read(value, columns[j]) : undefined;
    }
    if (bare) cells[columns.length] = isObject(value) ? undefined : value;
    rows[i] = { label, cells };
  }
  if (bare) columns[columns.length] = 'Values';
  const fewRows = note(rows.length, count, 'rows');
  const fewColumns = note(wide, all.length, 'columns');
  const asked = most !== undefined && !fewColumns; // no more than that
  const remedy = (fewRows || fewColumns) && !asked ? fuller(name, count, picked ? 0 : all.length) : '';
  return render({ columns, rows }, sentence(fewRows, fewColumns, remedy));
}

function gridOf(array, { whole, name }) {
  const shown = min(array.length, (whole ? LARGE : SMALL).rows * PER_ROW);
  const columns = [];
  for (let i = 0; i < min(PER_ROW, shown); i++) columns[i] = `+${i}`;
  const rows = [];
  for (let start = 0; start < shown; start += PER_ROW) {
    const cells = [];
    for (let i = 0; i < min(PER_ROW, shown - start); i++) cells[i] = array[start + i];
    rows[rows.length] = { label: start, cells };
  }
  const few = note(shown, array.length, 'elements');
  const remedy = whole ? fuller(name, array.length, 1) : `display(${name}) shows more`;
  return render({ columns, rows }, sentence(few, few && remedy));
}

/**
 * The table of a result, or of what is displayed as a `whole`: of an array of records or a typed
 * array; null for all else.
 */
function implicitTable(value, { whole, name }) {
  if (isTypedArray(value)) {
    return isBuffer(value) || value.length === 0 ? null : gridOf(value, { whole, name });
  }
  if (!isArray(value) || isProxy(value) || value.length === 0) return null;
  for (let i = 0; i < min(value.length, SMALL.rows); i++) {
    if (!isRecord(read(value, i))) return null;
  }
  return tableOf(value, { limits: whole ? LARGE : SMALL, name });
}

module.exports = { escape, firstOf, tableOf, implicitTable };
