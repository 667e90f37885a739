'use strict';
// What the main thread waits for in the kernel, and how to end that from another thread.

const {
  closeSync, constants, existsSync, openSync, readFileSync, readSync, statSync,
} = require('node:fs');

const WAKE = '/usr/lib/crkernel-shims/wake.so'; // in the image; tests run without it

// epoll_wait, epoll_pwait and epoll_pwait2, in which a wait for a child takes place
const WAITS = { x64: [232, 281, 441], arm64: [22, 441] }[process.arch] ?? [];
// open and openat: which argument is the path
const OPENS = { x64: { 2: 0, 257: 1 }, arm64: { 56: 1 } }[process.arch] ?? {};

const addon = { exports: {} };
if (existsSync(WAKE)) process.dlopen(addon, WAKE);

function read(file, fallback) {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return fallback; // the process or thread has gone
  }
}

function childrenOf(pid) {
  const list = read(`/proc/${pid}/task/${pid}/children`, '');
  return list.split(' ').filter((text) => text.trim()).map(Number);
}

function withDescendants(pid) {
  return [pid, ...childrenOf(pid).flatMap(withDescendants)];
}

/** Sends `signal` to the child waited for, which is the youngest, and to its descendants. */
function signalChild(signal) {
  const youngest = childrenOf(process.pid).pop();
  if (youngest === undefined) return;
  for (const pid of withDescendants(youngest)) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }
}

/** The text at an address of our own memory, up to its null byte. */
function textAt(address) {
  const bytes = Buffer.alloc(4096);
  const memory = openSync('/proc/self/mem');
  try {
    const size = readSync(memory, bytes, 0, bytes.length, BigInt(address));
    return bytes.toString('utf8', 0, Math.max(0, bytes.subarray(0, size).indexOf(0)));
  } finally {
    closeSync(memory);
  }
}

/** Opens, for a moment, the other side of the FIFO that an open waits for. */
function meet(path) {
  if (!statSync(path, { throwIfNoEntry: false })?.isFIFO()) return;
  closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
}

/** The system call that the main thread is in: its number, its arguments and where it was made. */
function callOfMain() {
  return read(`/proc/self/task/${process.pid}/syscall`, '');
}

/** Where the main thread waits in the kernel, as text to compare; null where it does not. */
function blockedAt() {
  const call = callOfMain();
  return Number.parseInt(call, 10) >= 0 ? call : null; // "running", and -1 where it waits for memory
}

/**
 * Ends the system call in which the main thread blocks: execSync and its like lose the child that
 * they wait for, by `signal`; a FIFO that is opened gets its other side; a read fails with EINTR.
 * The caller has found that the main thread serves no event loop.
 */
function unblock(signal) {
  const [call, ...args] = callOfMain().split(' ');
  if (WAITS.includes(+call)) signalChild(signal);
  else if (call in OPENS) meet(textAt(args[OPENS[call]]));
  else if (typeof addon.exports === 'function') addon.exports();
}

module.exports = { blockedAt, unblock };
