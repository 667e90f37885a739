// Makes the file that inspections look things up in, when the image is built: from the typings of
// TypeScript and @types/node, what each global and each module of this very Node offers, with
// signatures and documentation. (What reads it: guest/typings.js.)
//
//   node generate.mjs FOLDER     node_modules beside it has typescript and @types/node

import fs from 'node:fs';
import { builtinModules, createRequire } from 'node:module';
import path from 'node:path';

const HERE = import.meta.dirname;
const PACKAGES = path.join(HERE, 'node_modules');
const LICENSES = { typescript: 'LICENSE.txt', '@types/node': 'LICENSE', 'undici-types': 'LICENSE' };
const MOST = 6; // signatures of one function
const LONG = 300; // characters of a type from which on it tells a reader nothing

const require = createRequire(import.meta.url);
const ts = require('typescript');
const root = path.join(PACKAGES, '@types/node/index.d.ts');
const program = ts.createProgram([root], {
  lib: ['lib.esnext.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
  types: [],
  skipLibCheck: true,
  noEmit: true,
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.NodeNext,
});
const checker = program.getTypeChecker();
const scope = program.getSourceFile(root);
const printer = ts.TypeFormatFlags.NoTruncation | ts.TypeFormatFlags.OmitParameterModifiers
  | ts.TypeFormatFlags.UseAliasDefinedOutsideCurrentScope;
const entries = new Map();

/** Documentation as Markdown: JSDoc's links become plain, its tags paragraphs. */
function textOf(symbol) {
  const parts = [ts.displayPartsToString(symbol.getDocumentationComment(checker))];
  for (const { name, text } of symbol.getJsDocTags(checker)) {
    const body = ts.displayPartsToString(text).trim();
    if (name === 'param') parts.push(`@param ${body}`);
    else if (name === 'returns' || name === 'return') parts.push(`@returns ${body}`);
    else if (name === 'deprecated') parts.push(`**Deprecated.** ${body}`);
    else if (name === 'since') parts.push(`Since ${body}`);
    else if (name === 'example') parts.push(/^```/.test(body) ? body : `\`\`\`js\n${body}\n\`\`\``);
  }
  return parts.join('\n\n').replace(/\{@link(?:code|plain)?\s+([^}|\s]+)[|\s]?\s*([^}]*)\}/g,
    (_, target, label) => label.trim() || `\`${target}\``).trim();
}

function signaturesOf(type, name) {
  const calls = type.getCallSignatures().map((signature) => name + print(signature));
  const constructions = type.getConstructSignatures()
    .map((signature) => `new ${name}${print(signature)}`);
  const all = [...new Set([...calls, ...constructions])];
  return all.length > MOST ? [...all.slice(0, MOST), `// and ${all.length - MOST} more`] : all;
}

function print(signature) {
  return checker.signatureToString(signature, undefined, printer);
}

/** Some declarations are of a type alone: `declare var Math: Math`. Then the type is documented. */
function documented(symbol, type) {
  return textOf(symbol) || (type.symbol && type.symbol !== symbol ? textOf(type.symbol) : '');
}

function add(key, symbol, type) {
  if (entries.has(key)) return;
  const name = key.slice(key.lastIndexOf('.') + 1).replace(/^node:/, '');
  const signatures = signaturesOf(type, name);
  const text = documented(symbol, type);
  const isClass = type.getConstructSignatures().length > 0;
  if (!signatures.length) {
    const printed = checker.typeToString(type, undefined, printer);
    if (!text && printed.length > LONG) return;
    if (printed.length <= LONG) {
      signatures.push(`${name}: ${printed}`);
    }
  }
  const kind = isClass ? 'class' : type.getCallSignatures().length ? 'function' : 'property';
  entries.set(key, { kind, signatures, text });
}

/** The value's own members, and those of what it makes as a constructor. */
function addMembers(key, type, exists, depth) {
  for (const member of checker.getPropertiesOfType(type)) {
    const { name } = member;
    if (name.startsWith('__@') || name === 'prototype' || !exists(name)) continue;
    const inner = checker.getTypeOfSymbolAtLocation(member, scope);
    add(`${key}.${name}`, member, inner);
    const value = exists(name);
    if (depth > 0 && value.object) addMembers(`${key}.${name}`, inner, value.object, depth - 1);
    if (depth > 0) addInstance(`${key}.${name}`, inner);
  }
}

function addInstance(key, type) {
  const constructions = type.getConstructSignatures();
  const prototype = type.getProperty('prototype');
  const instance = constructions.at(-1)?.getReturnType()
    ?? (prototype && checker.getTypeOfSymbolAtLocation(prototype, scope));
  if (!instance) return;
  for (const member of checker.getPropertiesOfType(instance)) {
    if (member.name.startsWith('__@')) continue;
    add(`${key}.prototype.${member.name}`, member, checker.getTypeOfSymbolAtLocation(member, scope));
  }
}

/** What tells of a name whether the object has it, and of an object that lies there its names. */
function membersOf(object) {
  return (name) => {
    if (!(name in object)) return null;
    let value;
    try {
      value = object[name];
    } catch {
      value = null; // a getter of a prototype
    }
    const nested = value !== null && typeof value === 'object';
    return { object: nested ? membersOf(value) : null };
  };
}

function addGlobals() {
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    const symbol = checker.resolveName(name, scope, ts.SymbolFlags.Value, false);
    if (!symbol || name === 'globalThis') continue;
    const type = checker.getTypeOfSymbolAtLocation(symbol, scope);
    add(name, symbol, type);
    const value = globalThis[name];
    if (Object(value) === value) addMembers(name, type, membersOf(value), 0);
    addInstance(name, type);
  }
}

function addModule(id, symbol, described) {
  const module = checker.resolveExternalModuleSymbol(symbol);
  const type = checker.getTypeOfSymbolAtLocation(module, scope);
  const value = process.getBuiltinModule(id);
  entries.set(id, { kind: 'module', signatures: [], text: moduleText(described ?? symbol) });
  const exists = membersOf(value);
  addMembers(id, type, exists, 1);
  for (const member of checker.getExportsOfModule(symbol)) {
    const target = member.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(member) : member;
    if (!(target.flags & ts.SymbolFlags.Value) || !exists(member.name)) continue;
    const inner = checker.getTypeOfSymbolAtLocation(target, scope);
    add(`${id}.${member.name}`, target, inner);
    addInstance(`${id}.${member.name}`, inner);
  }
}

/** The comment before `declare module`, which TypeScript does not take for its documentation. */
function moduleText(symbol) {
  for (const declaration of symbol.declarations ?? []) {
    const [doc] = declaration.jsDoc ?? [];
    if (doc) return ts.getTextOfJSDocComment(doc.comment) ?? '';
  }
  return '';
}

process.removeAllListeners('warning'); // for what is experimental, deprecated
addGlobals();
const known = new Map(checker.getAmbientModules().map((symbol) => [symbol.name.slice(1, -1), symbol]));
for (const name of builtinModules) {
  const id = name.startsWith('node:') ? name : `node:${name}`;
  const plain = known.get(id.slice('node:'.length)); // the one with the comment
  const symbol = known.get(id) ?? plain;
  if (symbol) addModule(id, symbol, plain);
}

const [, , folder] = process.argv;
const lines = [...entries].map(([key, entry]) => `${key}\t${JSON.stringify(entry)}\n`);
fs.mkdirSync(folder, { recursive: true });
fs.writeFileSync(path.join(folder, 'typings'), lines.sort().join(''));
for (const [name, file] of Object.entries(LICENSES)) {
  const target = `LICENSE.${name.replace(/\W+/g, '-').replace(/^-/, '')}`;
  fs.copyFileSync(path.join(PACKAGES, name, file), path.join(folder, target));
}
