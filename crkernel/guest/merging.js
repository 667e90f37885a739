'use strict';
// TypeScript's enums and namespaces extend what has their name. Within a cell that is right; but what
// an earlier cell declared is replaced, as a class would be: else an enum that was edited and run
// again would keep its old members.

const { parse } = require('./parser.js');
const { edit } = require('./mappings.js');

/** The name that `name || …`, the one argument of a call, falls back from; else null. */
function extended(call) {
  const argument = call?.type === 'CallExpression' ? call.arguments[0] : null;
  const extending = argument?.type === 'LogicalExpression' && argument.operator === '||'
    && argument.left.type === 'Identifier';
  return extending ? argument : null;
}

/** The names that a statement declares. */
function declared({ type, id, declarations }) {
  if (type === 'VariableDeclaration') return declarations.map((one) => one.id.name);
  return /^(?:Class|Function)Declaration$/.test(type) ? [id.name] : [];
}

/** Whether a statement is what TypeScript writes behind namespaces that nothing else declares. */
function isBare({ type, declarations }, name) {
  return type === 'VariableDeclaration' && declarations[0].id.name === name
    && declarations[0].init === null;
}

/** Transformed TypeScript whose first enum or namespace of a name begins anew: {code, layer}. */
function begunAnew(code) {
  const body = parse(code).body.map((node) => node.declaration ?? node);
  const seen = new Set();
  const edits = [];
  body.forEach((statement, at) => {
    const { type, declarations, expression } = statement;
    const call = type === 'VariableDeclaration' ? declarations[0].init : expression;
    const argument = extended(call);
    const name = argument?.left.name;
    const first = argument && !seen.has(name)
      && (type === 'VariableDeclaration' ? declarations[0].id.name === name
        : body.slice(at + 1).some((later) => isBare(later, name)));
    const end = argument && code.indexOf('||', argument.left.end) + 2;
    if (first) edits.push({ start: argument.start, end, text: '' });
    if (name !== undefined) seen.add(name);
    for (const one of declared(statement)) seen.add(one);
  });
  return edit(code, edits);
}

module.exports = { begunAnew };
