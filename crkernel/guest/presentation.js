'use strict';
// How a value is presented: by the MIME bundle that it brings itself, by one of the conventions
// that JavaScript libraries follow for notebooks, as the image or table that it is, or as text.
//
// It works on values of the user: what is called here was captured before the user could replace
// it, and what the user's own methods throw is told and does not hide the value.

const { inspect, types } = require('node:util');
const { imageMime } = require('./images.js');
const { implicitTable } = require('./tables.js');

const { TypeError } = globalThis;
const { apply, ownKeys } = Reflect;
const { parse, stringify } = JSON;
const { exec } = RegExp.prototype;
const { startsWith, slice, replace, trimStart } = String.prototype;
const { from: bufferFrom } = Buffer;
const { base64Slice, utf8Slice } = Buffer.prototype;
const { isProxy, isPromise, isAnyArrayBuffer } = types;
const { isView } = ArrayBuffer;
const { isArray } = Array;
const asString = String;

const DISPLAY = Symbol.for('Jupyter.display');
const MIME = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(?:;.*)?$/;
const JSON_MIME = /^application\/(?:.*\+)?json$/; // the types whose values are JSON in a notebook file
const DATA_URL = /^data:image\/[\w+.-]+;base64,/;
const SVG_ROOT = /^<svg(?![^>]*\sxmlns=)/;
const MORE = /\.\.\. \d+ more (?:item|character)s?\b/; // what inspect leaves out
const MOST_DEEP = 200; // below what wire.py allows, which counts what is around as well
const WHOLE = { maxArrayLength: 10_000, maxStringLength: null }; // the text is in the notebook's file
const CUT = 64 * 1024; // UTF-16 units of a text that nobody asked to see whole

// Methods of values, in the spellings that libraries use, and the type of what they return.
const METHODS = [
  ['toHtml', 'text/html'], ['toHTML', 'text/html'], ['_toHtml', 'text/html'],
  ['toSvg', 'image/svg+xml'], ['toSVG', 'image/svg+xml'], ['_toSvg', 'image/svg+xml'],
  ['toPng', 'image/png'], ['toPNG', 'image/png'], ['_toPng', 'image/png'],
  ['toJpeg', 'image/jpeg'], ['toJPEG', 'image/jpeg'], ['_toJpeg', 'image/jpeg'],
  ['toMarkdown', 'text/markdown'], ['toLatex', 'text/latex'],
];

/** The bytes of a Buffer, typed array or ArrayBuffer as a Buffer on the same memory, else null. */
function bytesOf(value) {
  if (isView(value)) return bufferFrom(value.buffer, value.byteOffset, value.byteLength);
  return isAnyArrayBuffer(value) ? bufferFrom(value) : null;
}

/** Whether JSON has more than so many arrays and objects within each other. */
function isDeeper(value, most) {
  if (value === null || typeof value !== 'object') return false;
  if (most === 0) return true;
  const names = isArray(value) ? null : ownKeys(value);
  const { length } = names ?? value;
  for (let i = 0; i < length; i++) {
    if (isDeeper(names ? value[names[i]] : value[i], most - 1)) return true;
  }
  return false;
}

/** JSON that is a copy of a value; a TypeError that names it if it cannot be. */
function jsonOf(name, value) {
  let text;
  try {
    text = stringify(value);
  } catch (error) {
    const { 0: reason } = apply(exec, /^.*/, [error.message]);
    throw new TypeError(`the value of "${name}" is no JSON: ${reason}`);
  }
  if (text === undefined) throw new TypeError(`the value of "${name}" is no JSON: ${typeof value}`);
  const copy = parse(text);
  if (isDeeper(copy, MOST_DEEP)) {
    throw new TypeError(`the value of "${name}" has more than ${MOST_DEEP} arrays and objects `
      + 'within each other: show a part of it, or make it flat');
  }
  return copy;
}

/** What stands in a bundle for a value of this type: text, bytes as base64, or JSON. */
function contentOf(mime, value) {
  if (typeof mime !== 'string' || !apply(exec, MIME, [mime])) {
    throw new TypeError(`"${asString(mime)}" is no MIME type; one is "text/html"`);
  }
  if (typeof value === 'string') {
    const url = apply(startsWith, mime, ['image/']) && apply(exec, DATA_URL, [value]);
    return url ? apply(slice, value, [url[0].length]) : value;
  }
  if (apply(exec, JSON_MIME, [mime])) return jsonOf(mime, value);
  const bytes = bytesOf(value);
  if (bytes) {
    const text = apply(startsWith, mime, ['text/']) || mime === 'image/svg+xml';
    return apply(text ? utf8Slice : base64Slice, bytes, [0, bytes.length]);
  }
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
    return `${value}`;
  }
  const kind = value === null ? 'null' : typeof value;
  throw new TypeError(`the value of "${mime}" must be a string, not of type ${kind}`);
}

/** A copy of a MIME bundle that is plain JSON, or a TypeError that says what is wrong. */
function cleanBundle(bundle) {
  if (bundle === null || typeof bundle !== 'object') {
    throw new TypeError('a MIME bundle must be an object like {"text/html": "<b>hi</b>"}');
  }
  const clean = {};
  const mimes = ownKeys(bundle);
  for (let i = 0; i < mimes.length; i++) {
    const value = bundle[mimes[i]];
    if (value !== undefined) clean[mimes[i]] = contentOf(mimes[i], value);
  }
  return clean;
}

/** Markup that an <img> or a file can hold too: it names its language. */
function standaloneSvg(markup) {
  return apply(replace, markup, [SVG_ROOT, '<svg xmlns="http://www.w3.org/2000/svg"']);
}

/** What a canvas, an element of a DOM, or a specification of Vega-Lite shows; else null. */
function foreignBundle(value) {
  if (typeof value.toDataURL === 'function') {
    const match = apply(exec, /^data:(image\/[a-z]+);base64,(.*)$/, [value.toDataURL()]);
    return match && { [match[1]]: match[2] };
  }
  const { outerHTML } = value;
  if (typeof outerHTML === 'string') {
    const markup = apply(trimStart, outerHTML, []);
    const { 0: tag } = apply(exec, /^[^>]{0,200}>?/, [markup]);
    return apply(startsWith, markup, ['<svg'])
      ? { 'image/svg+xml': standaloneSvg(markup), 'text/plain': tag }
      : { 'text/html': markup, 'text/plain': tag };
  }
  return typeof value.toSpec === 'function' ? vegaBundle(value.toSpec()) : null;
}

/** A specification of Vega or Vega-Lite under the type that front ends draw, with words beside. */
function vegaBundle(spec) {
  if (spec === null || typeof spec !== 'object') {
    throw new TypeError('a specification of Vega or Vega-Lite must be an object');
  }
  const schema = apply(exec, /\/(vega|vega-lite)\/v(\d+)/, [asString(spec.$schema)]);
  const lite = schema ? schema[1] === 'vega-lite' : true;
  const version = schema ? +schema[2] : 5;
  const { title } = spec;
  const name = typeof title === 'string' ? title : title?.text;
  const type = (of) => `application/vnd.vega${lite ? 'lite' : ''}.v${of}+json`;
  return {
    [type(version)]: spec,
    [type(version < 5 ? version : 5)]: spec, // the newest that JupyterLab draws
    'text/plain': `<${lite ? 'Vega-Lite' : 'Vega'}${name ? `: ${name}` : ''}>`,
  };
}

/** Each of METHODS that a value has, called; the results may be promises. */
function methodBundle(value) {
  let bundle = null;
  for (let i = 0; i < METHODS.length; i++) {
    const { 0: name, 1: mime } = METHODS[i];
    if (bundle?.[mime] !== undefined) continue;
    const method = value[name];
    if (typeof method !== 'function') continue;
    const shown = apply(method, value, []);
    if (shown !== undefined && shown !== null) (bundle ??= {})[mime] = shown;
  }
  return bundle;
}

/** The bundle of an image that a value's bytes are, else null. */
function imageBundle(value) {
  const bytes = bytesOf(value);
  const mime = bytes && imageMime(bytes);
  return mime && { [mime]: bytes };
}

async function awaited(bundle) {
  const whole = await bundle;
  if (whole === null || typeof whole !== 'object') return cleanBundle(whole);
  const settled = {};
  const mimes = ownKeys(whole);
  for (let i = 0; i < mimes.length; i++) settled[mimes[i]] = await whole[mimes[i]];
  return cleanBundle(settled);
}

function holdsPromise(bundle) {
  if (isPromise(bundle)) return true;
  const mimes = bundle !== null && typeof bundle === 'object' ? ownKeys(bundle) : [];
  for (let i = 0; i < mimes.length; i++) if (isPromise(bundle[mimes[i]])) return true;
  return false;
}

/** The bundle that a value brings itself, or a promise of it; null if it brings none. */
function ownBundle(value) {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function')) return null;
  const method = value[DISPLAY];
  let bundle;
  if (typeof method === 'function') {
    bundle = apply(method, value, []);
  } else {
    // A proxy may answer to any name; the symbol alone tells that it means it.
    if (isProxy(value)) return null;
    bundle = methodBundle(value) ?? foreignBundle(value) ?? imageBundle(value);
    if (bundle === null) return null;
  }
  return holdsPromise(bundle) ? awaited(bundle) : cleanBundle(bundle);
}

/** A value as text. A result shows the beginning and says how to see all; `whole` is all of it. */
function textOf(value, { colors, whole, name, depth }) {
  const text = inspect(value, { colors, ...whole && WHOLE, ...depth !== undefined && { depth } });
  const remedy = whole ? `console.dir(${name}, { maxArrayLength: null })` : `display(${name})`;
  if (whole || text.length <= CUT) {
    return apply(exec, MORE, [text]) ? `${text}\n… ${remedy} shows all` : text;
  }
  const shown = apply(slice, text, [0, CUT]) + (colors ? '\x1b[0m' : '');
  return `${shown}\n… cut: ${CUT >> 10} of ${text.length >> 10} KiB; ${remedy} shows all`;
}

/** A value as text, and as a table if it is one. */
function plainBundle(value, options) {
  const bundle = { 'text/plain': textOf(value, options) };
  const table = implicitTable(value, options);
  if (table !== null) bundle['text/html'] = table;
  return bundle;
}

/** A bundle with a text for front ends that show nothing else; one that is empty stays empty. */
function withText(bundle, value, options) {
  if (bundle['text/plain'] !== undefined || ownKeys(bundle).length === 0) return bundle;
  return { ...bundle, 'text/plain': textOf(value, { ...options, depth: 0 }) };
}

/**
 * The bundle of a value, or a promise of it. What its own methods throw goes to `tell`, and the
 * value is shown as text; what its own util.inspect.custom throws is thrown. `whole`: the user
 * asked to see all of it; `name`: how the user gets at the value.
 */
function present(value, { colors = false, whole = false, name = '…', tell }) {
  const options = { colors, whole, name };
  const failed = (thrown) => {
    tell(thrown);
    return plainBundle(value, options);
  };
  const finish = async (promise) => {
    let bundle;
    try {
      bundle = await promise;
    } catch (thrown) {
      return failed(thrown);
    }
    return withText(bundle, value, options);
  };
  let own;
  try {
    own = ownBundle(value);
  } catch (thrown) {
    return failed(thrown);
  }
  if (own === null) return plainBundle(value, options);
  return isPromise(own) ? finish(own) : withText(own, value, options);
}

module.exports = {
  DISPLAY, present, contentOf, jsonOf, cleanBundle, vegaBundle, standaloneSvg,
};
