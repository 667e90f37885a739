'use strict';
// Signatures and documentation of what Node and the language offer. The image has them in one file,
// a line each: a key such as "Array.prototype.map" or "node:fs.readFile", a tab, JSON. The lines are
// sorted, so that a lookup reads a few blocks and keeps nothing.

const fs = require('node:fs');
const path = require('node:path');

const FILE = path.join(path.dirname(process.execPath), '../share/crkernel/typings');
const BLOCK = 16 * 1024;

/** The first line that begins at `at` or behind it: {start, text}; null if there is none. */
function lineFrom(fd, at) {
  let first = at === 0 ? 0 : -1;
  const from = Math.max(at - 1, 0); // where a line break tells that `at` is a beginning
  const blocks = [];
  for (let size = BLOCK; size === BLOCK;) {
    const block = Buffer.alloc(BLOCK);
    size = fs.readSync(fd, block, 0, BLOCK, from + blocks.length * BLOCK);
    blocks.push(block.subarray(0, size));
    const bytes = Buffer.concat(blocks);
    if (first < 0) first = bytes.indexOf(10) + 1 || -1;
    const end = first < 0 ? -1 : bytes.indexOf(10, first);
    if (end >= 0) return { start: from + first, text: bytes.toString('utf8', first, end) };
  }
  return null;
}

/** What stands behind `key`, or null. */
function lineOf(fd, key) {
  let low = 0; // its line begins here at the earliest
  let high = fs.fstatSync(fd).size; // and before this
  while (low < high) {
    const middle = (low + high) >> 1;
    const line = lineFrom(fd, middle);
    const found = line?.text.slice(0, line.text.indexOf('\t'));
    if (found === key) return line.text.slice(key.length + 1);
    if (line === null || found > key) high = middle;
    else low = line.start + 1;
  }
  return null;
}

/** The first of `keys` that is known: {kind, signatures, text}; null if none is. */
function find(keys) {
  if (!keys.length) return null;
  let fd;
  try {
    fd = fs.openSync(FILE);
  } catch (error) {
    if (error.code === 'ENOENT') return null; // a Node outside of an image
    throw error;
  }
  try {
    for (const key of keys) {
      const line = lineOf(fd, key);
      if (line !== null) return JSON.parse(line);
    }
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

module.exports = { find };
