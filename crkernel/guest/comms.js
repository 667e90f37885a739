'use strict';
// Comms: lasting connections between a cell's code and what runs in the front end, as widgets use
// them. The global `comm` opens them and names those that the front end may open.

const { randomBytes } = require('node:crypto');
const { define } = require('./define.js');
const { emit } = require('./output.js');
const { jsonOf } = require('./presentation.js');

const { Error, RangeError, TypeError } = globalThis;
const { apply } = Reflect;
const { defineProperty, freeze } = Object;
const { get, set, delete: remove } = Map.prototype;
const { get: size } = Object.getOwnPropertyDescriptor(Map.prototype, 'size');
const { slice } = String.prototype;
const { isArray } = Array;
const { isView } = ArrayBuffer;
const { from: bufferFrom } = Buffer;
const { toString } = Buffer.prototype;

// As comms.py has them: what it refuses no front end would ever hear of.
const MOST = 10_000; // comms that may be open at a time
const LONGEST = 256; // characters of a target

const comms = new Map(); // id -> Comm, of those that are open
const targets = new Map(); // name -> what takes (comm, message) of a comm that the front end opens

let report; // tells of what a handler has thrown

/** The buffers of a message to the front end as base64. */
function encode(buffers = []) {
  if (!isArray(buffers)) throw new TypeError('buffers must be an array of buffers');
  const texts = [];
  for (let i = 0; i < buffers.length; i++) {
    const part = buffers[i];
    const bytes = isView(part) ? bufferFrom(part.buffer, part.byteOffset, part.byteLength)
      : bufferFrom(part);
    texts[i] = apply(toString, bytes, ['base64']);
  }
  return texts;
}

function decode({ data, metadata, buffers }) {
  const parts = [];
  for (let i = 0; i < buffers.length; i++) parts[i] = bufferFrom(buffers[i], 'base64');
  return { data, metadata, buffers: parts };
}

function tell(kind, id, data = {}, { metadata = {}, buffers } = {}, target = undefined) {
  emit({
    event: 'comm',
    kind,
    comm: id,
    target,
    data: jsonOf('data', data),
    metadata: jsonOf('metadata', metadata),
    buffers: encode(buffers),
  });
}

function call(handler, args) {
  try {
    apply(handler, undefined, args);
  } catch (thrown) {
    report(thrown);
  }
}

function checkHandler(handler) {
  if (typeof handler !== 'function') throw new TypeError('the handler must be a function');
}

class Comm {
  #messages = null;
  #closing = null;

  constructor(id, target) {
    defineProperty(this, 'id', { enumerable: true, value: id });
    defineProperty(this, 'target', { enumerable: true, value: target });
    apply(set, comms, [id, this]);
  }

  get isOpen() {
    return apply(get, comms, [this.id]) === this;
  }

  /** Sends data (JSON), and binary parts as `buffers`. */
  send(data, options) {
    if (!this.isOpen) throw new Error(`the comm to "${this.target}" is closed`);
    tell('msg', this.id, data, options);
    return this;
  }

  close(data, options) {
    if (!this.isOpen) return;
    tell('close', this.id, data, options);
    apply(remove, comms, [this.id]);
  }

  /** `handler({data, metadata, buffers})` gets each message from the front end. */
  onMsg(handler) {
    checkHandler(handler);
    this.#messages = handler;
    return this;
  }

  /** `handler({data, metadata, buffers})` is called when the other side has closed. */
  onClose(handler) {
    checkHandler(handler);
    this.#closing = handler;
    return this;
  }

  static take(comm, message) {
    if (comm.#messages) call(comm.#messages, [message]);
  }

  static end(comm, message) {
    apply(remove, comms, [comm.id]);
    if (comm.#closing) call(comm.#closing, [message]);
  }
}

const { take, end } = Comm;
delete Comm.take;
delete Comm.end;

function checkData(data) {
  if (data === null || typeof data !== 'object' || isArray(data)) {
    throw new TypeError('the data of a comm that opens must be an object');
  }
}

/** Opens a comm to what the front end has registered under the name `target`. */
function open(target, data = {}, options = {}) {
  if (typeof target !== 'string') throw new TypeError('the target of a comm must be a string');
  if (target.length > LONGEST) {
    throw new RangeError(`"${apply(slice, target, [0, 20])}…" has ${target.length} characters, the target `
      + `of a comm at most ${LONGEST}`);
  }
  if (apply(size, comms, []) >= MOST) throw new RangeError(`${MOST} comms are open: close some of them`);
  checkData(data);
  const id = apply(toString, randomBytes(16), ['hex']);
  tell('open', id, data, options, target);
  return new Comm(id, target);
}

/** Lets the front end open comms: `handler(comm, {data, metadata, buffers})` gets each. */
function target(name, handler) {
  if (handler === null) {
    apply(remove, targets, [name]);
    return;
  }
  checkHandler(handler);
  apply(set, targets, [`${name}`, handler]);
}

function accept(id, name, message) {
  const handler = apply(get, targets, [name]);
  if (!handler) return false;
  const made = new Comm(id, name);
  try {
    handler(made, message);
  } catch (thrown) {
    report(thrown);
    made.close();
  }
  return true;
}

/** Takes a message of the front end; false if there is no such comm or target. */
function deliver({ kind, comm: id, target: name, ...rest }) {
  const message = decode(rest);
  if (kind === 'open') return accept(id, name, message);
  const known = apply(get, comms, [id]);
  if (!known) return false;
  if (kind === 'close') end(known, message);
  else take(known, message);
  return true;
}

/** Defines the global; `tellOf(thrown)` reports what a handler throws. */
function install(tellOf) {
  report = tellOf;
  define('comm', freeze({ open, target }));
}

module.exports = { install, deliver };
