'use strict';
// Prints, as JSON, what was scanned, the module that is given and all that it requires, and the names of
// globals that these look up as late as their functions run, when a cell may have declared them as
// something else: [file, line, name]. A guest's modules take such names where they begin. It needs
// Node's own acorn: --expose-internals.

const fs = require('node:fs');
const path = require('node:path');
const acorn = require('internal/deps/acorn/acorn/dist/acorn');
const walk = require('internal/deps/acorn/acorn-walk/dist/walk');

const GIVEN = ['require', 'module', 'exports', '__filename', '__dirname', 'arguments'];
const FIXED = ['undefined', 'NaN', 'Infinity']; // no cell can declare these
const isFunction = ({ type }) => /Function/.test(type);
const isLate = (node) => isFunction(node) || /^(?:PropertyDefinition|StaticBlock)$/.test(node.type);

/** The names that each function, and the module as null, binds; blocks count as their function's. */
function bindings(tree) {
  const bound = new Map([[null, new Set([...GIVEN, ...FIXED])]]);
  const bind = (scope, name) => {
    if (!bound.has(scope)) bound.set(scope, new Set());
    bound.get(scope).add(name);
  };
  const around = (nodes) => nodes.findLast(isFunction) ?? null;
  const declared = ({ id }, _, ancestors) => {
    if (id) bind(around(ancestors.slice(0, -1)), id.name);
  };
  walk.ancestor(tree, {
    VariablePattern: (node, _, ancestors) => bind(around(ancestors), node.name),
    Function: declared,
    Class: declared,
  });
  return bound;
}

function lateNames(code) {
  const tree = acorn.parse(code, { ecmaVersion: 'latest', locations: true });
  const bound = bindings(tree);
  const found = [];
  walk.ancestor(tree, {
    Identifier({ name, loc }, _, ancestors) {
      const scopes = [null, ...ancestors.filter(isFunction)];
      if (!ancestors.some(isLate) || scopes.some((scope) => bound.get(scope)?.has(name))) return;
      found.push([loc.start.line, name]);
    },
  });
  return found;
}

const seen = new Set();
const found = [];
(function scan(file) {
  if (seen.has(file)) return;
  seen.add(file);
  const code = fs.readFileSync(file, 'utf8');
  for (const late of lateNames(code)) found.push([path.basename(file), ...late]);
  for (const [, name] of code.matchAll(/require\('(\.\/[^']+)'\)/g)) {
    scan(path.join(path.dirname(file), name));
  }
})(process.argv[2]);
console.log(JSON.stringify({ scanned: [...seen].map((file) => path.basename(file)), found }));
