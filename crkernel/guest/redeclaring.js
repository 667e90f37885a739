'use strict';
// Names that a cell declares in another way than an earlier cell did: V8 takes `let` after `let`, but
// neither `const` after `let` nor `let` after `var`. Such a declaration is rewritten to what V8 takes.
// In the worker; loaded with the first cell that V8 refuses for this reason.

const { parse } = require('./parser.js');
const { edit } = require('./mappings.js');
const { globalProperties } = require('./variables.js');

const GROUP = 'redeclaring';
const REFUSED = /^Identifier '.*' has already been declared$/s;
const FIXED = 'is a const of an earlier cell, which V8 never lets go: choose another name, '
  + 'or %rewind to before that cell';
const DEAD = 'is a const of a cell that failed, which V8 never lets go: declare it as const, '
  + 'choose another name, or %rewind to before that cell';

/** Whether V8 has refused a cell for a name. */
function mayBeRefused({ error }) {
  return REFUSED.test(error.message);
}

/** The names that a pattern binds. */
function boundBy(pattern) {
  switch (pattern?.type) {
    case 'Identifier': return [pattern.name];
    case 'ObjectPattern': return pattern.properties.flatMap((p) => boundBy(p.value ?? p.argument));
    case 'ArrayPattern': return pattern.elements.flatMap(boundBy);
    case 'AssignmentPattern': return boundBy(pattern.left);
    case 'RestElement': return boundBy(pattern.argument);
    default: return [];
  }
}

/** What the top of a cell declares: {names, how, node, statement}, `how` as in V8's scopes. */
function declarations({ body }) {
  return body.flatMap((statement) => {
    const { type, id, kind } = statement;
    if (type === 'FunctionDeclaration') return [{ names: [id.name], how: 'var', statement }];
    if (type === 'ClassDeclaration') return [{ names: [id.name], how: 'let', statement }];
    if (type !== 'VariableDeclaration' || !/^(?:let|const|var)$/.test(kind)) return [];
    return statement.declarations.map((node) => {
      return { names: boundBy(node.id), how: kind, node, statement };
    });
  });
}

/** The names that only another `var` can declare: global properties which no one can delete. */
async function variables(post) {
  const own = await globalProperties(post, GROUP);
  const fixed = own.filter(({ configurable, writable }) => !configurable && writable);
  return new Set(fixed.map(({ name }) => name));
}

/** How a name of the lexical scope is declared. */
async function wayOf(name, evaluate) {
  const thrownBy = async (expression, params) => {
    return (await evaluate(expression, params)).exceptionDetails?.exception?.className;
  };
  const thrown = await thrownBy(`${name} = ${name}`); // changes nothing
  if (thrown !== 'ReferenceError') return thrown === 'TypeError' ? 'const' : 'let';
  // Without a value let and const look the same, but V8 begins this for a let only.
  const refused = await thrownBy(`throw 0; let ${name}`, { replMode: true });
  return refused === 'SyntaxError' ? 'dead' : 'let';
}

/**
 * How names are declared by now: let, const, dead (a const that never got its value) or var; those
 * that anything can declare are left out.
 */
async function declaredBefore(names, post) {
  const evaluate = (expression, params) => {
    return post('Runtime.evaluate', { expression, objectGroup: GROUP, silent: true, ...params });
  };
  const lexical = new Set((await post('Runtime.globalLexicalScopeNames')).names);
  const global = await variables(post);
  const found = new Map();
  for (const name of names) {
    if (lexical.has(name)) {
      found.set(name, await wayOf(name, evaluate));
    } else if (global.has(name)) {
      found.set(name, 'var');
    }
  }
  // Or the inspector would keep all values that it has seen.
  await post('Runtime.releaseObjectGroup', { objectGroup: GROUP });
  return found;
}

/** What to do about the first of the names that V8 keeps as a const. */
function hintOn(names, known) {
  const fixed = names.find((name) => known.get(name) === 'const');
  const name = fixed ?? names.find((one) => known.get(one) === 'dead');
  return name === undefined ? undefined : `hint: ${name} ${fixed ? FIXED : DEAD}`;
}

/** In which way each declaration has to be made: {all: [{…declaration, as}]}, or {hint} if one cannot. */
function settled(declared, known) {
  const all = [];
  for (const one of declared) {
    const before = one.names.map((name) => known.get(name)).filter(Boolean);
    const ways = new Set(before.map((way) => (way === 'dead' ? 'const' : way)));
    const [as = one.how] = ways;
    const keeps = one.how === 'const' || one.statement.id; // is hardly ever assigned to
    if (ways.size > 1 || (as === 'const' && !keeps)) return { hint: hintOn(one.names, known) };
    all.push({ ...one, as });
  }
  return { all };
}

/** Edits of a statement, whose declarations these are. */
function editsOf({ type, id, kind, start, end }, own) {
  if (id) {
    const [{ as, how }] = own;
    if (as === how) return [];
    const stop = { start: end, end, text: ';' };
    return [{ start, end: start, text: `${as} ${id.name} = ` }, stop];
  }
  return own.flatMap(({ as, node }, i) => {
    if (!i) return [{ start, end: start + kind.length, text: as }];
    const before = own[i - 1];
    return as === before.as ? []
      : [{ start: before.node.end, end: node.start, text: `; ${as} ` }];
  });
}

/**
 * A cell in place of one that V8 has refused to begin: {code, layer}; {hint} if there is none; null
 * if it did begin, for then all that it declares has been declared as it says.
 */
async function reconcile(code, post) {
  let tree;
  try {
    tree = parse(code);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return null; // the name is declared twice in this cell
  }
  const declared = declarations(tree);
  const before = await declaredBefore(new Set(declared.flatMap(({ names }) => names)), post);
  const { all, hint } = settled(declared, before);
  if (hint) return { hint };
  if (!all?.some(({ as, how }) => as !== how)) return null;
  const edits = tree.body.flatMap((statement) => {
    const own = all.filter((one) => one.statement === statement);
    return own.some(({ as, how }) => as !== how) ? editsOf(statement, own) : [];
  });
  return edit(code, edits);
}

module.exports = { mayBeRefused, reconcile };
