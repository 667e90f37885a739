'use strict';
// Frames of the wire: 4 bytes of big-endian length, then a JSON object in UTF-8.
// Both threads use this file, each for one descriptor. Everything is captured at load time, since
// user code may later replace any global or prototype method on the main thread.

const fs = require('node:fs');

const { stringify, parse } = JSON;
const { write: bufferWrite, writeUInt32BE } = Buffer.prototype;
const { apply } = Reflect;
const { byteLength, allocUnsafeSlow } = Buffer;
const { writeSync } = fs;
const { wait } = Atomics;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const HEADER = 4;
const MAX_FRAME = 128 * 1024 * 1024; // as in wire.py

// One scratch buffer serves ordinary frames; a larger frame gets a buffer of its own.
const scratch = allocUnsafeSlow(64 * 1024);

// What is left to write. An interrupt can cut writeFrame short anywhere; the next call then first
// finishes the frame that was begun, so that the stream of frames stays whole.
let buffer = scratch;
let start = 0;
let end = 0;

function drain(fd) {
  while (start < end) {
    try {
      start += writeSync(fd, buffer, start, end - start);
    } catch (error) {
      if (error.code !== 'EAGAIN' && error.code !== 'EINTR') throw error;
      wait(sleeper, 0, 0, 1);
    }
  }
}

/** Bytes that a frame's text takes; a RangeError if it is longer than the wire allows. */
function sizeOf(text) {
  const size = byteLength(text, 'utf8');
  if (size <= MAX_FRAME) return size;
  throw new RangeError(`${size >> 20} MiB are too much for one output, the limit is `
    + `${MAX_FRAME >> 20} MiB: show a part of it, or write it to a file`);
}

/**
 * Writes one object as a frame to `fd`, blocking until all of it is written. Throws a RangeError
 * before anything is written if it is too long.
 */
function writeFrame(fd, object) {
  const text = stringify(object);
  // A UTF-16 unit takes at most 3 bytes of UTF-8, so short texts need no exact count.
  const fits = text.length * 3 + HEADER <= scratch.length;
  const size = fits ? 0 : sizeOf(text);
  drain(fd);
  const next = fits ? scratch : allocUnsafeSlow(HEADER + size);
  const written = apply(bufferWrite, next, [text, HEADER, 'utf8']);
  apply(writeUInt32BE, next, [written, 0]);
  buffer = next;
  start = 0;
  end = HEADER + written;
  drain(fd);
  buffer = scratch;
}

/** Collects bytes and calls `take(object)` for each complete frame. */
class FrameReader {
  #pending = null;
  #take;

  constructor(take) {
    this.#take = take;
  }

  push(chunk) {
    let data = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    while (data.length >= HEADER) {
      const size = HEADER + data.readUInt32BE(0);
      if (data.length < size) break;
      this.#take(parse(data.toString('utf8', HEADER, size)));
      data = data.subarray(size);
    }
    this.#pending = data.length ? data : null;
  }
}

module.exports = { writeFrame, FrameReader };
