'use strict';
// What earlier cells were and gave, at hand as in a REPL: In[7], Out[7], _7, _ and _error, on the main
// thread. A name that the user assigns or declares is theirs from then on.

const KEPT = 1000; // cells, the newest ones

const realm = globalThis;
const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor } = Reflect;
const { add, has } = WeakSet.prototype;
const ours = new WeakSet(); // getters

const typed = [];
const results = [];
let last;
let lastError;
let errorBefore;

/** Defines a global that reads `get()` until the user takes the name over. */
function offer(name, get) {
  if (getOwnPropertyDescriptor(realm, name)) return;
  apply(add, ours, [get]);
  const own = { configurable: true, enumerable: true, writable: true };
  const set = (value) => defineProperty(realm, name, { ...own, value });
  defineProperty(realm, name, { configurable: true, enumerable: false, get, set });
}

function withdraw(name) {
  const getter = getOwnPropertyDescriptor(realm, name)?.get;
  if (getter && apply(has, ours, [getter])) deleteProperty(realm, name);
}

function keep(list, cell, value) {
  defineProperty(list, cell, { configurable: true, enumerable: true, writable: true, value });
}

/** A cell begins: its code is kept, and those of long ago are forgotten. */
function begin(cell, code) {
  const old = cell - KEPT;
  if (old > 0) {
    deleteProperty(typed, old);
    deleteProperty(results, old);
    withdraw(`_${old}`);
  }
  keep(typed, cell, code);
}

/** The result of a cell; one that is muted is the last one too, but is not kept in Out. */
function take(cell, value, muted) {
  last = value;
  if (muted) return;
  keep(results, cell, value);
  offer(`_${cell}`, () => results[cell]);
}

function takeError(error) {
  errorBefore = lastError;
  lastError = error;
}

/** That error was none of the user's: the cell runs after all, as something else. */
function retractError() {
  lastError = errorBefore;
}

function install() {
  offer('In', () => typed);
  offer('Out', () => results);
  offer('_', () => last);
  offer('_error', () => lastError);
}

module.exports = { begin, install, retractError, take, takeError };
