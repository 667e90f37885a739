'use strict';
// Node's own copy of acorn, in the worker: what user code did to the main thread's globals cannot
// disturb it. Loaded with the first cell that needs a tree.

const nodeModule = require('node:module');
const { Session } = require('node:inspector');
const { Carrier, nodeRequire } = require('./internals.js');

const ACORN = 'internal/deps/acorn/';
const OPTIONS = { ecmaVersion: 'latest', sourceType: 'module', allowHashBang: true };

const session = new Session();
session.connect();
const requireInternal = nodeRequire(new Carrier(session), nodeModule);
session.disconnect();
const acorn = requireInternal(`${ACORN}acorn/dist/acorn`);
const Parser = acorn.Parser.extend((Base) => class extends Base {
  /** What a cell exports may be declared in another one. */
  checkLocalExport() {}
});
const { simple: walk } = requireInternal(`${ACORN}acorn-walk/dist/walk`);

/** The tree of a module, with positions; throws a SyntaxError with `pos` and `loc`. */
function parse(code) {
  return Parser.parse(code, OPTIONS);
}

module.exports = { parse, walk };
