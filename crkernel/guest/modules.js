'use strict';
// The syntax of modules in a cell. A cell is a script, so its static imports become dynamic ones,
// what it exports it declares, and import.meta becomes a global.

const { parse, walk } = require('./parser.js');
const { edit } = require('./mappings.js');

const MODULAR = /\b(?:import|export)\b/;
const DEFAULT = /^export(?:\s|\/\/[^\n]*\n|\/\*[^]*?\*\/)*default/;
const META = 'import_meta'; // as long as what it stands for; imports.js defines it
const DECLARE = 'import_const'; // imports.js defines it
const CHECK = 'crkernelImport'; // frames of it are ours

const WRITTEN = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*$/u; // a name in code

const quote = JSON.stringify;

function nameOf(node) {
  return node.name ?? node.value;
}

function isName(text) {
  return WRITTEN.test(text) && text !== 'default';
}

/** The expression that imports what a declaration names. */
function imported({ source, attributes = [] }) {
  const options = attributes.map(({ key, value }) => {
    return `${quote(nameOf(key))}: ${quote(value.value)}`;
  });
  const rest = options.length ? `, { with: { ${options.join(', ')} } }` : '';
  return `await import(${quote(source.value)}${rest})`;
}

/** The same with a check that the module exports `names`, as a static import makes it. */
function checked(node, names) {
  const module = imported(node);
  if (!names.length) return module;
  const message = `The requested module '${node.source.value}' does not provide an export named '`;
  return `(function ${CHECK}(m) { for (const k of [${names.map(quote)}]) if (!(k in m)) `
    + `throw new SyntaxError(${quote(message)} + k + "'"); return m; })(${module})`;
}

/** The statement for a declaration that binds `pairs` of [exported name, local name]. */
function binding(node, pairs, namespace) {
  if (!pairs.length && namespace === null) return `void ${imported(node)};`;
  const module = checked(node, pairs.map(([name]) => name));
  const pattern = `{ ${pairs.map(([name, local]) => `${quote(name)}: ${local}`).join(', ')} }`;
  if (namespace === null) return `const ${pattern} = ${module};`;
  return `const ${namespace} = ${module}${pairs.length ? `, ${pattern} = ${namespace}` : ''};`;
}

function importStatement(node) {
  const pairs = [];
  let namespace = null;
  for (const { type, imported: name, local } of node.specifiers) {
    if (type === 'ImportNamespaceSpecifier') namespace = local.name;
    else pairs.push([type === 'ImportDefaultSpecifier' ? 'default' : nameOf(name), local.name]);
  }
  return binding(node, pairs, namespace);
}

/**
 * The expression that declares all that a module exports but its default and what no code can name, such
 * as `enum`. By assignments, since a name may be that of an earlier `let`, which a property of the
 * global object would not reach; what is an earlier `const` is declared as such again.
 */
function spread(module) {
  return `(function ${CHECK}(m) { for (const k in m) { `
    + `if (k === 'default' || !${WRITTEN}.test(k)) continue; `
    + `try { (0, eval)('(_' + k + ') => { ' + k + ' = _' + k + ' }')(m[k]); } `
    + `catch (cause) { if (cause.name === 'SyntaxError' || ${DECLARE}(k, m[k])) continue; `
    + `throw new TypeError('export * cannot declare ' + k + ': ' + cause.message); } `
    + `} })(${module})`;
}

/** `export … from`: what another module exports is declared here. */
function reexportStatement(node) {
  if (node.type === 'ExportAllDeclaration') {
    const name = node.exported && nameOf(node.exported);
    if (!name) return `void ${spread(imported(node))};`;
    return binding(node, [], isName(name) ? name : null);
  }
  const pairs = node.specifiers.map(({ local, exported }) => [nameOf(local), nameOf(exported)]);
  return binding(node, pairs.filter(([, name]) => isName(name)), null);
}

/** What fails unless an earlier cell has declared a name. */
function known(name) {
  const message = quote(`Export '${name}' is not defined in module`);
  return `;{const _=(function ${CHECK}(){try{${name}}catch{throw new SyntaxError(${message})}})()}`;
}

/** Edits of `export { … }`. Each check stands in the place of its name, where errors point. */
function listEdits(start, end, specifiers, undeclared) {
  const edits = [];
  let at = start;
  for (const { local } of specifiers) {
    if (!undeclared.has(local.name)) continue;
    edits.push({ start: at, end: local.start, text: '' });
    edits.push({ start: local.start, end: local.end, text: known(local.name) });
    at = local.end;
  }
  return [...edits, { start: at, end, text: ';' }];
}

/**
 * Edits that take `export` away; a default that has no name is what the cell evaluates to. What stands
 * before and behind it stays other statements.
 */
function exportEdits(code, { type, start, end, declaration, specifiers }, undeclared) {
  if (!declaration) return listEdits(start, end, specifiers, undeclared);
  const keyword = { start, end: declaration.start, text: '' };
  if (type === 'ExportNamedDeclaration') return [keyword];
  const declares = /^(?:Function|Class)Declaration$/.test(declaration.type) && declaration.id;
  if (declares) return [keyword];
  const stop = code[end - 1] === ';' ? end - 1 : end;
  const [head] = DEFAULT.exec(code.slice(start));
  return [{ start, end: start + head.length, text: ';(' }, { start: stop, end: stop, text: ');' }];
}

/** Edits of statements. Imports happen where they stand, so that a cell can write what it imports. */
function statementEdits(code, { body, undeclared }) {
  return body.flatMap((node) => {
    const { type, start, end, source } = node;
    if (type === 'ImportDeclaration') return [{ start, end, text: importStatement(node) }];
    if (!/^Export/.test(type)) return [];
    return source ? [{ start, end, text: reexportStatement(node) }] : exportEdits(code, node, undeclared);
  });
}

function metaEdits(code, tree) {
  if (!/\bimport\s*\.\s*meta\b/.test(code)) return [];
  const edits = [];
  walk(tree, {
    MetaProperty({ start, end, meta }) {
      if (meta.name === 'import') edits.push({ start, end, text: META });
    },
  });
  return edits;
}

/**
 * A script in place of a module, as {code, layer}; null if the code has nothing of a module. Throws
 * acorn's SyntaxError.
 */
function asScript(code) {
  if (!MODULAR.test(code)) return null;
  const tree = parse(code);
  const edits = [...statementEdits(code, tree), ...metaEdits(code, tree)];
  edits.sort((a, b) => a.start - b.start || a.end - b.end);
  return edits.length ? edit(code, edits) : null;
}

module.exports = { asScript };
