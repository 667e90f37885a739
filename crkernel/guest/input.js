'use strict';
// Questions to the person at the front end: input(), prompt(), confirm(), alert(), process.stdin.
// A question is an event. Its answer comes from the worker by a port of its own, so that a main
// thread that blocks can fetch it; questions live no longer than the cell in which they are asked.

const { Readable } = require('node:stream');
const { receiveMessageOnPort } = require('node:worker_threads');
const { define } = require('./define.js');
const { emit } = require('./output.js');

const { process, Promise } = globalThis;
const { apply } = Reflect;
const { wait, load } = Atomics;
const { assign, defineProperty } = Object;
const { get, set, delete: remove, clear, values } = Map.prototype;
const { next } = Object.getPrototypeOf(new Map().values());
const { on, push, rawListeners, removeAllListeners, removeListener } = Readable.prototype;
const { trim } = String.prototype;
const { test } = RegExp.prototype;
const later = setImmediate;

const ENDED = 'the cell ended before its question was answered: await it';
const NO_CELL = 'no cell is running, and only a running cell can ask: call it in a cell and await it';
const YES = /^y(es)?$/i;

class InputError extends Error {}
InputError.prototype.name = 'InputError';
class StdinNotImplementedError extends Error {}
StdinNotImplementedError.prototype.name = 'StdinNotImplementedError';

let port; // where answers arrive
let count; // Int32Array: how many have arrived
let failCell; // ends the running cell with an error
let stdin = null; // the stream that process.stdin is, once somebody has looked
let asked = 0;
let open = false; // whether a cell runs
const waiting = new Map(); // number of a question -> what takes its answer

/** Asks; `take` gets {value}, {error}, or {ended, interrupted} when the cell has ended. */
function ask(prompt, password, take) {
  if (!open) throw new InputError(NO_CELL);
  asked += 1;
  apply(set, waiting, [asked, take]);
  emit({ event: 'input', question: asked, prompt, password });
}

function receive({ question, ...answer }) {
  const take = apply(get, waiting, [question]);
  apply(remove, waiting, [question]);
  take?.(answer);
}

/** What was typed, null at the end of input; throws if there is no answer. */
function valueOf({ value, error, ended }) {
  if (ended) throw new InputError(ENDED);
  if (error !== undefined) throw new StdinNotImplementedError(error);
  return value;
}

async function askLater(prompt, password) {
  return valueOf(await new Promise((resolve) => {
    // What an interrupted cell waits for stays open, so that nothing of it goes on.
    ask(prompt, password, (answer) => answer.interrupted || resolve(answer));
  }));
}

/** Asks and blocks this thread until the answer is there. */
function askNow(prompt) {
  let answer = null;
  let seen = load(count, 0);
  ask(prompt, false, (given) => {
    answer = given;
  });
  while (answer === null) {
    wait(count, 0, seen);
    seen = load(count, 0);
    for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
      receive(got.message);
    }
  }
  return valueOf(answer);
}

/** Asks without blocking: `await input('name? ')`. */
function input(prompt = '') {
  return askLater(`${prompt}`, false);
}

function password(prompt = '') {
  return askLater(`${prompt}`, true);
}

function prompt(message = '', initial = undefined) {
  const offer = initial === undefined || initial === null ? '' : `[${initial}] `;
  const value = askNow(`${message} ${offer}`);
  return value === '' && offer ? `${initial}` : value;
}

function confirm(message = '') {
  const value = askNow(`${message} [y/N] `);
  return value !== null && apply(test, YES, [apply(trim, value, [])]);
}

function alert(message = '') {
  askNow(`${message} [Enter] `);
}

/** A stream of the lines that are typed; it asks when somebody reads, and a cell runs. */
function makeStdin() {
  let wants = false;
  let asking = false;
  const take = ({ value, error, ended, interrupted }) => {
    asking = false;
    if (interrupted || error !== undefined) leave();
    if (error !== undefined) failCell(new StdinNotImplementedError(error));
    if (ended || error !== undefined) return; // a later cell may ask again
    wants = false;
    apply(push, stream, [value === null ? null : `${value}\n`]);
  };
  const stream = new Readable({
    read() {
      wants = true;
      later(stream.askAgain);
    },
  });
  const listen = () => {
    apply(on, stream, ['resume', () => later(stream.askAgain)]);
    apply(on, stream, ['newListener', (name) => name === 'readable' && later(stream.askAgain)]);
  };
  // Who reads it was stopped for good, and would wait beside whoever reads it next. It stays the same
  // stream, since that is what `import { stdin } from 'node:process'` gives for ever.
  const leave = () => {
    const readers = apply(rawListeners, stream, ['data']);
    // One by one, or Node takes the stream for one that somebody listens to.
    for (let i = 0; i < readers.length; i++) apply(removeListener, stream, ['data', readers[i]]);
    apply(removeAllListeners, stream, []);
    stream.readableFlowing = null;
    listen();
  };
  listen();
  // A pipe in Node is a socket, which does or does not keep the process alive: this guest always lives.
  return assign(stream, {
    fd: 0,
    ref: () => stream,
    unref: () => stream,
    askAgain() {
      const read = stream.readableFlowing || stream.listenerCount('readable') > 0;
      if (!wants || asking || !open || !read || stream !== stdin || stream.destroyed) return;
      asking = true;
      ask('', false, take);
    },
  });
}

function installStdin() {
  defineProperty(process, 'stdin', {
    configurable: true,
    enumerable: true,
    get() {
      if (!stdin || stdin.destroyed || stdin.readableEnded) stdin = makeStdin();
      return stdin;
    },
    set(value) {
      defineProperty(process, 'stdin', { configurable: true, writable: true, value });
    },
  });
}

/** Defines the globals; `fail(error)` ends the running cell. */
function install({ answers, arrived, fail }) {
  port = answers;
  count = arrived;
  failCell = fail;
  port.on('message', receive);
  port.unref();
  input.password = password;
  for (const value of [input, prompt, confirm, alert]) define(value.name, value);
  installStdin();
}

/** A cell begins. Whoever reads stdin since an earlier cell asks, if the cell takes its time. */
function begin() {
  open = true;
  if (stdin) later(stdin.askAgain);
}

/** The cell has ended: what it asked in vain fails, or stays open if it was interrupted. */
function end(interrupted = false) {
  open = false;
  if (waiting.size === 0) return;
  const takers = [];
  const each = apply(values, waiting, []);
  for (let step = apply(next, each, []); !step.done; step = apply(next, each, [])) {
    takers[takers.length] = step.value;
  }
  apply(clear, waiting, []);
  for (let i = 0; i < takers.length; i++) takers[i]({ ended: true, interrupted });
}

module.exports = { install, begin, end };
