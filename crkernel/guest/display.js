'use strict';
// The globals with which a cell shows something: display() with its family, and clearOutput().

const { randomBytes } = require('node:crypto');
const { inspect, types } = require('node:util');
const { audience, inspectOptions } = require('./audience.js');
const { emit, emitDisplay } = require('./output.js');
const {
  DISPLAY, present, contentOf, jsonOf, cleanBundle, vegaBundle, standaloneSvg,
} = require('./presentation.js');
const { boxOf } = require('./console.js');
const { define } = require('./define.js');
const { checkImage, imageWords } = require('./images.js');
const { makeProgress } = require('./progress.js');
const { firstOf, tableOf } = require('./tables.js');

const { Boolean, TypeError } = globalThis;
const { apply } = Reflect;
const { hexSlice } = Buffer.prototype;
const { isPromise } = types;
const { isArray } = Array;
const { assign, entries } = Object;
const asString = String;

// Ids of displays: a prefix drawn anew after each restore, so that two branches share none.
let prefix = null;
let count = 0;
let tell; // takes what the user's own presentation of a value throws

function renewIds() {
  prefix = null;
}

function newId() {
  prefix ??= apply(hexSlice, randomBytes(8), [0, 8]);
  count += 1;
  return `${prefix}-${count}`;
}

const WORDS = { // for who sees text alone
  __proto__: null,
  'text/html': '<HTML>',
  'application/javascript': '<JavaScript>',
};
const AS_SOURCE = { __proto__: null, 'text/markdown': true, 'text/latex': true }; // can be read as they are

/** The bundle of a value that is of this type: its content, and words for a console. */
function typedBundle(mime, value) {
  if (mime === 'text/plain') {
    return { [mime]: typeof value === 'string' ? value : inspect(value, inspectOptions) };
  }
  const content = contentOf(mime, value);
  checkImage(mime, content);
  const words = typeof content !== 'string' ? inspect(value, inspectOptions)
    : AS_SOURCE[mime] ? content : WORDS[mime] ?? imageWords(mime, content) ?? `<${mime}>`;
  return { [mime]: content, 'text/plain': words };
}

const RENDER = Symbol('render'); // option of the family: value and options -> bundle

/** What display() shows under `mime`, `raw` or neither; may be a promise. */
function bundleOf(value, { mime, raw, [RENDER]: render, ...options }) {
  if (render) return cleanBundle(render(value, options));
  if (raw) return cleanBundle(value);
  if (mime === undefined) {
    return typeof value === 'string' ? { 'text/plain': value }
      : present(value, { colors: audience.colors, whole: true, tell });
  }
  return typedBundle(mime, value);
}

function send(id, data, metadata, update) {
  emitDisplay({ data, metadata, transient: { display_id: id }, update });
}

/** The size at which an image is drawn, as front ends read it. */
function metadataOf({ mime, width, height, metadata = {} }) {
  const clean = jsonOf('metadata', metadata);
  return width === undefined && height === undefined ? clean
    : { ...clean, [mime]: { width, height } };
}

/** What was displayed, to be changed later. As the result of a cell it shows nothing more. */
class Handle {
  #options;

  constructor(id, options) {
    this.display_id = id;
    this.#options = options;
  }

  /** Puts another value in the place of this one, under the same options unless some are given. */
  update(value, options = {}) {
    checkOptions(options);
    return show(value, { ...this.#options, ...options }, this.display_id, true);
  }

  /** Leaves nothing to see in its place. */
  clear() {
    send(this.display_id, { 'text/plain': '', 'text/html': '' }, {}, true);
    return this;
  }

  [DISPLAY]() {
    return {};
  }
}

/** The handle of a value whose presentation is still being made: `await` waits for it. */
class PendingHandle extends Handle {
  #shown;

  constructor(id, options, shown) {
    super(id, options);
    this.#shown = shown.then(() => new Handle(id, options));
  }

  then(resolve, reject) {
    return this.#shown.then(resolve, reject);
  }
}

let pending = []; // promises of displays that the running cell has begun

/** Gives up the promises of the displays begun so far; none of them rejects. */
function takePending() {
  const taken = pending;
  pending = [];
  return taken;
}

function show(value, options, id, update) {
  const metadata = metadataOf(options);
  const bundle = bundleOf(value, options);
  if (!isPromise(bundle)) {
    send(id, bundle, metadata, update);
    return new Handle(id, options);
  }
  const shown = (async () => {
    try {
      send(id, await bundle, metadata, update);
    } catch (thrown) {
      tell(thrown);
    }
  })();
  pending[pending.length] = shown;
  return new PendingHandle(id, options, shown);
}

function checkOptions(options) {
  if (options !== null && typeof options === 'object') return;
  const kind = options === null ? 'null' : typeof options;
  throw new TypeError(`the options of display must be an object like { mime: "text/html" }, not ${kind}`);
}

function display(value, given = {}) {
  checkOptions(given);
  const { display_id: id, update = false, ...options } = given;
  const named = id !== undefined && id !== null && id !== true && id !== false;
  return show(value, options, named ? asString(id) : newId(), Boolean(update));
}

/** The text of a tagged template, its values put in as they are. */
function fill(strings, values) {
  let text = strings[0];
  for (let i = 1; i < strings.length; i++) text += asString(values[i - 1]) + strings[i];
  return text;
}

/** A member of the family, for plain calls and as a tag of templates. */
function member(name, mime, render = (value) => typedBundle(mime, value)) {
  return function shown(value, ...rest) {
    if (arguments.length === 0) throw new TypeError(`display.${name}(value, options) wants a value`);
    if (isArray(value) && isArray(value.raw)) {
      return display(fill(value, rest), { [RENDER]: render, mime });
    }
    const { 0: options = {} } = rest;
    checkOptions(options);
    return display(value, { ...options, [RENDER]: render, mime });
  };
}

const svg = 'image/svg+xml';
const family = {
  html: member('html', 'text/html'),
  markdown: member('markdown', 'text/markdown'),
  latex: member('latex', 'text/latex'),
  svg: member('svg', svg, (markup) => typedBundle(svg, standaloneSvg(contentOf(svg, markup)))),
  png: member('png', 'image/png'),
  jpeg: member('jpeg', 'image/jpeg'),
  javascript: member('javascript', 'application/javascript'),
  text: member('text', 'text/plain'),
  json: member('json', 'application/json', (value) => ({
    'application/json': value, 'text/plain': inspect(value, inspectOptions),
  })),
  vega: member('vega', 'application/vnd.vegalite.v5+json', vegaBundle),
  table: member('table', 'text/html', tableBundle),
  clear: ({ wait = false } = {}) => clearOutput(wait),
  progress: makeProgress((bundle) => display(bundle, { raw: true })),
};

function tableBundle(data, { columns, rows }) {
  const { part, more } = firstOf(data, rows);
  const text = boxOf(part, columns) + (more && `\n… ${more}`);
  return { 'text/plain': text, 'text/html': tableOf(data, { columns, rows }) ?? undefined };
}

function clearOutput(wait = false) {
  emit({ event: 'clear_output', wait: Boolean(wait) });
}

/** Defines the globals; `report` gets what the user's own presentation of a value throws. */
function install(report) {
  tell = report;
  family.md = family.markdown;
  family.vegalite = family.vega;
  assign(display, family);
  const { progress } = family;
  const globals = { display, progress, clearOutput, clear_output: clearOutput };
  for (const [name, value] of entries(globals)) define(name, value);
}

module.exports = { install, renewIds, takePending };
