'use strict';
// How the runtime's own names come into the user's scope, on the main thread: as properties of the global
// object that a user sees no more of than of Node's, and may replace.

const realm = globalThis;
const { defineProperty } = Object;

function define(name, value) {
  defineProperty(realm, name, {
    __proto__: null, configurable: true, writable: true, enumerable: false, value,
  });
}

module.exports = { define };
