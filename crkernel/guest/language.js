'use strict';
// What the worker knows of the language: TypeScript and static imports turned into code that the
// inspector can evaluate. Loaded with the first cell that needs it.

const vm = require('node:vm');
const nodeModule = require('node:module');
const { Session } = require('node:inspector');
const { Carrier } = require('./internals.js');
const { decodeMappings } = require('./mappings.js');

const INLINE_MAP = /\n?\/\/# sourceMappingURL=data:application\/json;base64,([\w+/=]+)\s*$/;
const LANGUAGE_ERROR = /^ERR_(INVALID|UNSUPPORTED)_TYPESCRIPT_SYNTAX$/;

// Node warns that its TypeScript support is experimental; here nobody could act on that.
process.removeAllListeners('warning');

let parser = null;

/** Node's own copy of acorn: parses to a tree with positions, or throws a SyntaxError. */
function parse(code) {
  if (!parser) {
    const session = new Session();
    session.connect();
    parser = new Carrier(session).variable(require('node:repl').start, 'acornParse');
    session.disconnect();
  }
  return parser(code, { ecmaVersion: 'latest', sourceType: 'module', allowHashBang: true });
}

/** Whether V8 takes the code as a cell. Code that it does not take cannot have run. */
function parses(code) {
  try {
    new vm.Script(`async () => {${code.replace(/^#!/, '//')}\n}`);
    return true;
  } catch {
    return false;
  }
}

/** Code whose braces mean an object, as Node's REPL reads them, not a block; else null. */
function asObject(code) {
  if (/;\s*$/.test(code)) return null;
  // The parenthesis takes the place of a blank where it can, so that columns stay right.
  const wrapped = `(${code.replace(/^[^\S\n]/, '')}\n)`;
  return parses(wrapped) ? wrapped : null;
}

function quote(text) {
  return JSON.stringify(text);
}

/** A check that a module exports the names imported from it, as a static import makes it. */
function checked(module, names, specifier) {
  if (!names.length) return module;
  const message = `The requested module ${quote(specifier)} does not provide an export named '`;
  return `((m) => { for (const k of [${names.map(quote)}]) if (!(k in m)) `
    + `throw new SyntaxError(${quote(message)} + k + "'"); return m; })(${module})`;
}

/** The statement that stands in for one ImportDeclaration. */
function dynamicImport({ specifiers, source, attributes = [] }) {
  const options = attributes.map(({ key, value }) => {
    return `${quote(key.name ?? key.value)}: ${quote(value.value)}`;
  });
  const rest = options.length ? `, { with: { ${options.join(', ')} } }` : '';
  const module = `await import(${quote(source.value)}${rest})`;
  const names = [];
  const bindings = [];
  let namespace = null;
  for (const { type, imported, local } of specifiers) {
    if (type === 'ImportNamespaceSpecifier') {
      namespace = local.name;
      continue;
    }
    const name = type === 'ImportDefaultSpecifier' ? 'default' : (imported.name ?? imported.value);
    names.push(name);
    bindings.push(`${quote(name)}: ${local.name}`);
  }
  if (!specifiers.length) return `void ${module};`;
  const value = checked(module, names, source.value);
  if (namespace === null) return `const { ${bindings.join(', ')} } = ${value};`;
  const more = bindings.length ? `, { ${bindings.join(', ')} } = ${namespace}` : '';
  return `const ${namespace} = ${value}${more};`;
}

/** Replaces static imports, keeping the number of every line; null if that gives no valid cell. */
function withoutImports(code) {
  if (!/\bimport\b/.test(code)) return null;
  let tree;
  try {
    tree = parse(code);
  } catch {
    return null;
  }
  let text = '';
  let at = 0;
  for (const node of tree.body) {
    if (node.type !== 'ImportDeclaration') continue;
    const lines = code.slice(node.start, node.end).replace(/[^\n]/g, '');
    text += code.slice(at, node.start) + dynamicImport(node) + lines;
    at = node.end;
  }
  text += code.slice(at);
  return at && parses(text) ? text : null;
}

/** A valid cell: the code itself or with its imports replaced; else null. */
function asCell(code) {
  return parses(code) ? code : withoutImports(code);
}

function strip(code, options) {
  try {
    return { text: nodeModule.stripTypeScriptTypes(code, options) };
  } catch (error) {
    if (!LANGUAGE_ERROR.test(error.code)) throw error;
    return { error };
  }
}

/** TypeScript as a cell {code, positions?}, or {error}: types blanked out, else transformed. */
function fromTypeScript(code) {
  const stripped = strip(code, { mode: 'strip' });
  if (stripped.text !== undefined) {
    const cell = asCell(stripped.text);
    return cell === null ? {} : { code: cell };
  }
  const transformed = strip(code, { mode: 'transform', sourceMap: true });
  if (transformed.error) return transformed;
  const map = INLINE_MAP.exec(transformed.text);
  const cell = asCell(transformed.text.replace(INLINE_MAP, ''));
  if (cell === null) return {};
  const { mappings } = JSON.parse(Buffer.from(map[1], 'base64').toString());
  return { code: cell, positions: decodeMappings(mappings) };
}

/**
 * Code for a cell that failed with a SyntaxError: {code, positions?}, or null when the error is
 * not one of the language, so that the cell may have run and must not run again.
 */
function translate(code) {
  if (parses(code)) return null;
  const cell = withoutImports(code);
  if (cell !== null) return { code: cell };
  const translated = fromTypeScript(code);
  return translated.code === undefined ? null : translated;
}

module.exports = { translate, asObject, parse, parses, fromTypeScript };
