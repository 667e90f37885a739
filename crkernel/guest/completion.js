'use strict';
// Completion: what can stand at the cursor, by what is written before it.

const { tokenize, IDENTIFIER } = require('./tokens.js');
const {
  operand, chainOf, unquoted, moduleEndingAt, declarations, foreseen, is, isWord,
} = require('./outline.js');
const { listedFrom } = require('./lists.js');
const { classAround } = require('./classes.js');
const { builtinModules, specifiers, paths } = require('./files.js');
const { propertiesOf } = require('./probe.js');
const { wantsType, typeEntries } = require('./types.js');
const { signatureOf, isClass } = require('./signature.js');

const KEYWORDS = ('abstract async await break case catch class const continue debugger declare '
  + 'default delete do else enum export extends false finally for from function if implements '
  + 'import in instanceof interface let namespace new null of return satisfies static super switch '
  + 'this throw true try type typeof undefined var void while with yield').split(' ');
const DECLARING = ['let', 'const', 'var', 'class', 'interface', 'enum', 'namespace'];
const IMPORT_META = ['dirname', 'filename', 'resolve', 'url'];
const UNAVAILABLE = 'node:trace_events'; // in a worker, where this runs
const NOTHING = [];

const compare = (a, b) => (a < b ? -1 : Number(a > b));

/** In order of rank, then without an underscore before with one, then by name. */
function sorted(entries) {
  const isPrivate = ({ text }) => text.startsWith('_');
  return entries.sort((a, b) => isPrivate(a) - isPrivate(b) || a.rank - b.rank
    || compare(a.text, b.text));
}

function typeOf(source, otherwise) {
  if (source === null) return otherwise;
  return isClass(source) ? 'class' : 'function';
}

function entry([text, source, rank], otherwise = 'property') {
  return { text, type: typeOf(source, otherwise), signature: source && signatureOf(source), rank };
}

/** The properties of what a chain leads to, one entry each. */
async function members(probe, chain, prefix) {
  return (await probe('properties', chain, prefix) ?? NOTHING).map((row) => entry(row));
}

const plain = (names, type) => names.map((text) => ({ text, type, rank: 0 }));

/** The properties of an operand as `foreseen` gives it; none if it cannot be looked at yet. */
async function ofForeseen(probe, value, prefix) {
  if (value?.module) return exportsOf(probe, value.module, value.path, prefix);
  if (!value?.keys) return value ? members(probe, chainOf(value), prefix) : NOTHING;
  const inherited = await members(probe, ['Object', 'prototype'], prefix);
  return [...plain(value.keys, 'property'), ...inherited.map((e) => ({ ...e, rank: 1 }))];
}

/** What a class whose body the cursor is in, and those that it extends, give to `this`. */
async function ofThis(probe, { names, base }, prefix) {
  const inherited = await members(probe, [...base ?? ['Object'], 'prototype'], prefix);
  return [...plain(names, 'property'), ...inherited.filter(({ text }) => !names.includes(text))];
}

/** What can follow the dot behind the operand that ends with the token at `last`. */
async function afterDot(probe, tokens, last, prefix, behind) {
  const around = classAround(tokens, behind);
  if (prefix.startsWith('#')) return plain(around?.privates ?? NOTHING, 'property');
  if (around && isWord(tokens[last], 'this') && !is(tokens[last - 1], '.', '?.')) {
    return ofThis(probe, around, prefix);
  }
  const module = moduleEndingAt(tokens, last);
  if (module) return exportsOf(probe, module.module, module.path, prefix);
  const holder = operand(tokens, last);
  if (!holder) return NOTHING;
  if (holder.root === 'import') {
    const meta = holder.path.length === 1 && holder.path[0].key === 'meta';
    return plain(meta ? IMPORT_META : ['meta'], 'property');
  }
  return ofHolder(probe, tokens, holder, prefix);
}

/** The properties of an operand: of what this cell makes of it, else of what there is. */
async function ofHolder(probe, tokens, holder, prefix) {
  const found = await ofForeseen(probe, foreseen(tokens, holder), prefix);
  return found.length ? found : members(probe, chainOf(holder), prefix);
}

/** What a bare name can be, behind `tokens`; `code` is what they and the rest of the cell are. */
async function names(probe, tokens, prefix, code) {
  const typed = wantsType(tokens, tokens.length - 1);
  const { names: lexical, rows, types } = await probe('scope', prefix, typed)
    ?? { names: NOTHING, rows: NOTHING, types: NOTHING };
  const found = new Map();
  const add = (item) => {
    if (!found.has(item.text)) found.set(item.text, item);
  };
  const all = typed ? tokenize(code).filter(({ kind }) => kind !== 'comment') : NOTHING;
  for (const item of typed ? typeEntries(all, types) : NOTHING) add(item);
  for (const [text, { kind }] of declarations(tokens)) add({ text, type: kind, rank: 0 });
  for (const text of lexical) add({ text, type: 'variable', rank: 1 });
  for (const [text, source, depth, builtin] of rows) {
    if (depth === 0) add(entry([text, source, builtin ? 3 : 1], 'variable'));
  }
  for (const text of KEYWORDS) add({ text, type: 'keyword', rank: 2 });
  return [...found.values()];
}

/** What a module exports, or a property of what it does; of Node's modules, loaded or not. */
async function exportsOf(probe, name, path, prefix) {
  const isBuiltin = builtinModules.has(name.replace(/^node:/, ''));
  const id = isBuiltin ? `node:${name.replace(/^node:/, '')}` : name;
  const rows = path.length ? null : await probe('exports', id, prefix);
  if (rows) return rows.map((row) => entry(row));
  if (!isBuiltin || id === UNAVAILABLE) return NOTHING;
  // This thread has the same, and no code of the user's.
  const value = path.reduce((holder, { key }) => holder?.[key], require(id));
  return propertiesOf(value, prefix).map((row) => entry(row));
}

/** A text as it is written in a string that begins with `quote`. */
function quoted(text, quote) {
  const special = quote === '`' ? /`|\$(?=\{)/g : new RegExp(quote, 'g');
  return JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replace(special, '\\$&');
}

/** What can stand in the string whose token is the last: a key, a module or a path. */
async function inString(probe, tokens, text) {
  const quote = text[0];
  const { entries, written } = await ofString(probe, tokens, unquoted(text.slice(1)));
  const typed = quoted(written, quote);
  if (!text.endsWith(typed)) return { entries: NOTHING, written: '' }; // by other escapes
  return { entries: entries.map((e) => ({ ...e, text: quoted(e.text, quote) })), written: typed };
}

async function ofString(probe, tokens, written) {
  const before = tokens[tokens.length - 2];
  const last = tokens.length - 2;
  if (is(before, '[')) {
    const holder = operand(tokens, is(tokens[last - 1], '?.') ? last - 2 : last - 1);
    if (holder) return { entries: await ofHolder(probe, tokens, holder, written), written };
  }
  const call = is(before, '(') && (isWord(tokens[last - 1], 'require', 'import')
    || (isWord(tokens[last - 1], 'resolve') && isWord(tokens[last - 3], 'require')));
  if (call || isWord(before, 'from', 'import')) return specifiers(written);
  return paths(written);
}

/** The entries for code up to the cursor, and how much of it they replace; `behind` is the rest. */
async function find(probe, code, behind) {
  const tokens = tokenize(code).filter(({ kind, open }) => kind !== 'comment' || open);
  const last = tokens.at(-1);
  const nothing = { entries: NOTHING, written: '' };
  const { kind, open, text } = last ?? {};
  if (open) {
    const whole = kind === 'string' || (kind === 'template' && text.startsWith('`'));
    return whole ? inString(probe, tokens, text) : nothing;
  }
  if (kind === 'number' && last.end === code.length) return nothing;
  const touched = (kind === 'name' || is(last, '#')) && last.end === code.length;
  const prefix = touched ? text : '';
  const before = tokens.length - 1 - touched;
  if (is(tokens[before], '.', '?.')) {
    const entries = await afterDot(probe, tokens.slice(0, before + 1), before - 1, prefix, behind);
    return { entries: entries.filter((e) => IDENTIFIER.test(e.text)), written: prefix };
  }
  const listed = listedFrom(tokens, before, behind);
  if (listed) {
    const entries = await ofForeseen(probe, listed, prefix);
    return { entries: entries.filter((e) => IDENTIFIER.test(e.text)), written: prefix };
  }
  if (isWord(tokens[before], ...DECLARING) || prefix.startsWith('#')) return nothing;
  return { entries: await names(probe, tokens.slice(0, before + 1), prefix, code + behind), written: prefix };
}

/** The answer to complete; `cursor` counts UTF-16 units. */
async function complete(probe, { code, cursor = code.length }) {
  const { entries, written } = await find(probe, code.slice(0, cursor), code.slice(cursor));
  const hits = sorted(entries.filter(({ text }) => text.startsWith(written)));
  return {
    matches: hits.map(({ text }) => text),
    start: cursor - written.length,
    end: cursor,
    types: hits.map(({ type }) => type),
    signatures: hits.map(({ signature }) => signature ?? ''),
  };
}

module.exports = { answer: complete, isEmpty: ({ matches }) => matches.length === 0 };
