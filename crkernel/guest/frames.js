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

/** Writes one object as a frame to `fd`, blocking until all of it is written. */
function writeFrame(fd, object) {
  const text = stringify(object);
  drain(fd);
  // A UTF-16 unit takes at most 3 bytes of UTF-8, so short texts need no exact count.
  const fits = text.length * 3 + HEADER <= scratch.length;
  const next = fits ? scratch : allocUnsafeSlow(HEADER + byteLength(text, 'utf8'));
  const size = apply(bufferWrite, next, [text, HEADER, 'utf8']);
  apply(writeUInt32BE, next, [size, 0]);
  buffer = next;
  start = 0;
  end = HEADER + size;
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
