'use strict';
// Frames of the wire: 4 bytes of big-endian length, then a JSON object in UTF-8.
// Both threads use this file, each for one descriptor. Everything is captured at load time, since
// user code may later replace any global or prototype method on the main thread.

const fs = require('node:fs');

const { stringify, parse } = JSON;
const { write: bufferWrite, fill, writeUInt32BE } = Buffer.prototype;
const { apply, ownKeys } = Reflect;
const { isArray } = Array;
const { slice, charCodeAt, isWellFormed } = String.prototype;
const { byteLength, allocUnsafeSlow, concat, from: bufferFrom } = Buffer;
const { max } = Math;
const { ArrayBuffer, Int32Array, RangeError } = globalThis;
const { writeSync } = fs;
const { wait } = Atomics;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const HEADER = 4;
const MAX_FRAME = 128 * 1024 * 1024; // as in wire.py
const MOST_VALUES = 2_000_000; // as in wire.py: of a frame with more the kernel ends the guest
const LEAST = 1.5; // bytes of JSON that a value takes: "[]," are two

const PIECE = 64 * 1024; // UTF-16 units of a long text that are taken at a time

// One scratch buffer serves ordinary frames; the first long one brings a larger one.
const scratch = allocUnsafeSlow(64 * 1024);
let large = null;
let inspected = null; // where long texts are looked at, and its words
let words = null;

// What is left to write: a part of `buffer`; then `text` from `rest` on, and `texts` from `next` on.
// An interrupt can cut a write short anywhere; the next one then first finishes the frame that was
// begun, so that the stream of frames stays whole.
let buffer = scratch;
let start = 0;
let end = 0;
let text = '';
let rest = 0;
let texts = [];
let next = 0;

function drain(fd) {
  for (;;) {
    while (start < end) {
      try {
        start += writeSync(fd, buffer, start, end - start);
      } catch (error) {
        if (error.code !== 'EAGAIN' && error.code !== 'EINTR') throw error;
        wait(sleeper, 0, 0, 1);
      }
    }
    if (rest === text.length && next === texts.length) break;
    encodePiece(0);
  }
  text = '';
  texts = [];
  rest = next = 0;
}

/** Encodes the next piece of what is left into the large buffer, from `offset` on. */
function encodePiece(offset) {
  if (rest === text.length) {
    text = texts[next];
    rest = 0;
    next += 1;
  }
  const stop = endOfPiece(text, rest);
  const size = apply(bufferWrite, large, [apply(slice, text, [rest, stop]), offset, 'utf8']);
  buffer = large;
  start = 0;
  end = offset + size;
  rest = stop;
}

/** Where a piece of a text ends that begins at `from`: never within a surrogate pair. */
function endOfPiece(whole, from) {
  const stop = from + PIECE;
  if (stop >= whole.length) return whole.length;
  const last = apply(charCodeAt, whole, [stop - 1]);
  return last >= 0xd800 && last <= 0xdbff ? stop - 1 : stop;
}

/** How many values JSON holds, as wire.py counts them; it may stop where they are too many. */
function valuesIn(value) {
  if (value === null || typeof value !== 'object') return 0;
  const names = isArray(value) ? null : ownKeys(value);
  const { length } = names ?? value;
  let count = length || 1;
  for (let i = 0; i < length && count <= MOST_VALUES; i++) {
    count += valuesIn(names ? value[names[i]] : value[i]);
  }
  return count;
}

/**
 * Writes one object as a frame to `fd`, blocking until all of it is written. Throws a RangeError
 * before anything is written if it is too long or holds too many values.
 */
function writeFrame(fd, object) {
  const whole = stringify(object);
  // A UTF-16 unit takes at most 3 bytes of UTF-8, so short texts need no exact count.
  if (whole.length * 3 + HEADER > scratch.length) {
    writeTexts(fd, [whole], object);
    return;
  }
  drain(fd);
  const size = apply(bufferWrite, scratch, [whole, HEADER, 'utf8']);
  apply(writeUInt32BE, scratch, [size, 0]);
  buffer = scratch;
  start = 0;
  end = HEADER + size;
  drain(fd);
}

/** The same for an object whose JSON is these texts, one after the other; none is empty. */
function writeTexts(fd, parts, object) {
  let size = 0;
  for (let i = 0; i < parts.length; i++) size += byteLength(parts[i], 'utf8');
  if (size > MAX_FRAME) {
    throw new RangeError(`${size >> 20} MiB are too much for one output, the limit is `
      + `${MAX_FRAME >> 20} MiB: show a part of it, or write it to a file`);
  }
  if (size > LEAST * MOST_VALUES && valuesIn(object) > MOST_VALUES) {
    throw new RangeError(`more than ${MOST_VALUES} values of JSON are too much for one output: `
      + 'show a part of them, or write them to a file');
  }
  drain(fd);
  large ??= allocUnsafeSlow(HEADER + 3 * PIECE);
  apply(writeUInt32BE, large, [size, 0]);
  texts = parts;
  encodePiece(HEADER);
  drain(fd);
}

/**
 * Whether JSON has a text as it is. Its UTF-8 is looked through four bytes at a time for quotes,
 * backslashes and what is below a blank; it may take some text for one that has them.
 */
function isPlain(text) {
  if (!apply(isWellFormed, text, [])) return false;
  if (inspected === null) {
    const memory = new ArrayBuffer(3 * PIECE);
    inspected = bufferFrom(memory);
    words = new Int32Array(memory);
  }
  const size = apply(bufferWrite, inspected, [text, 0, 'utf8']);
  const count = (size + 3) >> 2;
  apply(fill, inspected, [0x20, size, count << 2]);
  for (let i = 0; i < count; i++) {
    const word = words[i];
    const quote = (word ^ 0x22222222) - 0x01010101;
    const backslash = (word ^ 0x5c5c5c5c) - 0x01010101;
    if (((word - 0x20202020) | quote | backslash) & ~word & 0x80808080) return false;
  }
  return true;
}

/**
 * Adds the JSON of a value to a list of texts. Long strings are taken in pieces: to make one long
 * text of them, and lay that out again in memory, takes longer than all else together. A piece
 * that JSON has as it is, like those of an image in base64, stays the part of the string that it is.
 */
function addJson(value, parts) {
  if (typeof value !== 'string' || value.length <= PIECE) {
    parts[parts.length] = stringify(value);
    return;
  }
  parts[parts.length] = '"';
  for (let from = 0; from < value.length;) {
    const stop = endOfPiece(value, from);
    const piece = apply(slice, value, [from, stop]);
    parts[parts.length] = isPlain(piece) ? piece : apply(slice, stringify(piece), [1, -1]);
    from = stop;
  }
  parts[parts.length] = '"';
}

/**
 * Collects bytes and calls `take(object)` for each complete frame. What comes is put together when a
 * frame is complete, not with each chunk: a cell of 20 MB comes in hundreds.
 */
class FrameReader {
  #chunks = [];
  #length = 0;
  #wanted = HEADER;
  #take;

  constructor(take) {
    this.#take = take;
  }

  push(chunk) {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length < this.#wanted) return;
    let data = this.#chunks.length === 1 ? chunk : concat(this.#chunks);
    for (;;) {
      this.#wanted = HEADER + (data.length < HEADER ? 0 : data.readUInt32BE(0));
      if (data.length < max(HEADER, this.#wanted)) break;
      const body = data.toString('utf8', HEADER, this.#wanted);
      data = data.subarray(this.#wanted);
      this.#take(parse(body));
    }
    this.#chunks = data.length ? [data] : [];
    this.#length = data.length;
  }
}

module.exports = { writeFrame, writeTexts, addJson, FrameReader };
