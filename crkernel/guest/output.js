'use strict';
// What the user's code prints: process.stdout and process.stderr become event frames on fd 5, written
// at once and in program order.

const { Writable } = require('node:stream');
const { StringDecoder } = require('node:string_decoder');
const { WriteStream } = require('node:tty');
const { audience } = require('./audience.js');
const { writeFrame, writeTexts, addJson } = require('./frames.js');

const EVENTS = 5;
const PIECE = 256 * 1024; // UTF-16 units of one stream frame: below 1 MiB of JSON text as UTF-8
const { process, TypeError } = globalThis;
const { apply, ownKeys } = Reflect;
const { assign, defineProperty, hasOwn } = Object;
const { isView } = ArrayBuffer;
const { stringify } = JSON;
const { slice, charCodeAt } = String.prototype;
const { write: decode } = StringDecoder.prototype;
const { from: bufferFrom } = Buffer;
const { nextTick } = process;
const { getColorDepth: depthByEnvironment } = WriteStream.prototype;

function emit(event) {
  writeFrame(EVENTS, event);
}

/** Sends a MIME bundle; `update`: in place of what has that id. */
function emitDisplay({ data, metadata = {}, transient = {}, update = false }) {
  const mimes = ownKeys(data);
  let long = false;
  for (let i = 0; i < mimes.length; i++) long ||= data[mimes[i]]?.length > PIECE;
  const event = { event: 'display', data, metadata, transient, update };
  if (!long) {
    emit(event);
    return;
  }
  const parts = ['{"event":"display","data":{'];
  for (let i = 0; i < mimes.length; i++) {
    parts[parts.length] = `${i ? ',' : ''}${stringify(mimes[i])}:`;
    addJson(data[mimes[i]], parts);
  }
  parts[parts.length] = `},"metadata":${stringify(metadata)},"transient":${stringify(transient)}`
    + `,"update":${update}}`;
  writeTexts(EVENTS, parts, event);
}

/** Sends text of a stream, cut into pieces that never split a surrogate pair. */
function emitText(name, text) {
  let start = 0;
  while (text.length - start > PIECE) {
    let end = start + PIECE;
    const last = apply(charCodeAt, text, [end - 1]);
    if (last >= 0xd800 && last <= 0xdbff) end -= 1;
    emit({ event: 'stream', name, text: apply(slice, text, [start, end]) });
    start = end;
  }
  const rest = start ? apply(slice, text, [start]) : text;
  if (rest) emit({ event: 'stream', name, text: rest });
}

/** The text of a chunk that was written to a stream; bytes may end within a character. */
function textOf(chunk, encoding, decoder) {
  if (typeof chunk === 'string') {
    const plain = encoding === undefined || encoding === null || encoding === 'utf8'
      || encoding === 'utf-8';
    return plain ? chunk : apply(decode, decoder, [bufferFrom(chunk, encoding)]);
  }
  if (isView(chunk)) return apply(decode, decoder, [chunk]);
  const error = new TypeError('The "chunk" argument must be of type string or an instance of '
    + `Buffer, TypedArray, or DataView. Received ${chunk === null ? 'null' : typeof chunk}`);
  error.code = 'ERR_INVALID_ARG_TYPE';
  throw error;
}

/** How many bits of colour whoever sees the running cell can see: Node's answer, but for terminals. */
function getColorDepth(env = process.env) {
  if (hasOwn(env, 'FORCE_COLOR')) return apply(depthByEnvironment, this, [env]);
  return env.NO_COLOR || env.NODE_DISABLE_COLORS ? 1 : audience.depth;
}

function hasColors(count = 16, env = undefined) {
  if (typeof count === 'object') return this.hasColors(16, count);
  return count <= 2 ** this.getColorDepth(env);
}

/**
 * Makes the stand-in for process.stdout or process.stderr; it never closes. Writes bypass the
 * machinery of Writable: an interrupt in its midst would leave the stream "writing" for ever.
 */
function makeStream(name, fd) {
  const decoder = new StringDecoder('utf8');
  const send = (chunk, encoding) => emitText(name, textOf(chunk, encoding, decoder));
  const stream = new Writable({
    decodeStrings: false,
    write(chunk, encoding, callback) {
      send(chunk, encoding);
      callback();
    },
    destroy(error, callback) {
      callback(error);
    },
  });
  stream.write = function write(chunk, encoding, callback) {
    const done = typeof encoding === 'function' ? encoding : callback;
    send(chunk, typeof encoding === 'function' ? undefined : encoding);
    if (typeof done === 'function') nextTick(done);
    return true;
  };
  stream.end = function end(chunk, encoding, callback) {
    const last = [callback, encoding, chunk].find((argument) => typeof argument === 'function');
    if (typeof chunk !== 'function' && chunk !== undefined && chunk !== null) {
      send(chunk, typeof encoding === 'function' ? undefined : encoding);
    }
    if (last) nextTick(last);
    return this;
  };
  return assign(stream, {
    fd, columns: 80, rows: 24, _type: 'pipe', _isStdio: true, destroySoon: stream.destroy,
    getColorDepth, hasColors,
  });
}

/**
 * Replaces process.stdout and process.stderr; called before anything has used them. `styles` is
 * Node's own module that judges if a stream is to have colours, as util.styleText asks it: these two
 * may, though they are no terminals, on which a program could move the cursor.
 */
function installStreams(styles) {
  const streams = [];
  const { shouldColorize } = styles;
  styles.shouldColorize = (stream) => {
    const ours = stream === streams[0] || stream === streams[1];
    if (ours) return apply(getColorDepth, stream, []) > 2;
    const forced = hasOwn(process.env, 'FORCE_COLOR'); // by the user, not by us: it may be a file
    return forced || stream?.isTTY ? shouldColorize(stream) : false;
  };
  for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
    const value = streams[fd - 1] = makeStream(name, fd);
    defineProperty(process, name, {
      configurable: true, enumerable: true, writable: true, value,
    });
  }
}

module.exports = { emit, emitDisplay, emitText, installStreams };
