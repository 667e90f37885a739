'use strict';
// Node's own copy of acorn, in the worker: what user code did to the main thread's globals cannot
// disturb it. Loaded with the first cell that needs a tree.

const nodeModule = require('node:module');
const { Session } = require('node:inspector');
const { Carrier, nodeRequire } = require('./internals.js');

const ACORN = 'internal/deps/acorn/';
const MODULE = { ecmaVersion: 'latest', sourceType: 'module', allowHashBang: true };
const SCRIPT = { ...MODULE, sourceType: 'script', allowAwaitOutsideFunction: true };

const session = new Session();
session.connect();
const requireInternal = nodeRequire(new Carrier(session), nodeModule);
session.disconnect();
const acorn = requireInternal(`${ACORN}acorn/dist/acorn`);
const Parser = acorn.Parser.extend((Base) => class extends Base {
  /** What a cell exports may be declared in another one: the names of which that must be so. */
  parseTopLevel(node) {
    const program = super.parseTopLevel(node);
    program.undeclared = new Set(Object.keys(this.undefinedExports));
    return program;
  }

  raiseRecoverable(at, message) {
    if (!/^Export '.*' is not defined$/.test(message)) super.raiseRecoverable(at, message);
  }
});
const { simple: walk } = requireInternal(`${ACORN}acorn-walk/dist/walk`);

/**
 * The tree of a module, or of what only a script may say, as `delete name` and 010; with positions.
 * Throws a SyntaxError with `pos` and `loc`.
 */
function parse(code) {
  try {
    return Parser.parse(code, MODULE);
  } catch (error) {
    try {
      return Parser.parse(code, SCRIPT);
    } catch {
      throw error;
    }
  }
}

module.exports = { parse, walk };
