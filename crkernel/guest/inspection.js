'use strict';
// Inspection: what the name under the cursor is, or the function whose call the cursor is in.

const { tokenize, nameBehind } = require('./tokens.js');
const { operand, chainOf, callee, declarations, valueAt, is } = require('./outline.js');
const { listedFrom } = require('./lists.js');
const { signatureOf, isClass } = require('./signature.js');
const { declaredAs } = require('./declared.js');
const { commentAtEnd } = require('./jsdoc.js');
const typings = require('./typings.js');
const ownGlobals = require('./globals.js');

const REQUIRED = /\brequire\(\s*(["'])([^"'\n]+)\1\s*\)((?:\s*\??\.\s*[\w$]+)+)$/;
const NATIVE = /\{\s*\[native code\]\s*\}$/;

/** The name at the end of tokens, if it is one of those that are taken of a module or a value. */
function listed(tokens, behind) {
  const name = tokens.at(-1);
  const of = listedFrom(tokens, tokens.length - 2, behind);
  if (!of || of.keys) return null;
  const root = of.module === undefined ? of.root : `require('${of.module}')`;
  return { ...of, root, path: [...of.path, { key: name.text }] };
}

/** The operands that the cursor may ask about, the likeliest first. */
function targets(code, cursor) {
  const text = code.slice(0, cursor + nameBehind(code, cursor));
  const tokens = tokenize(text).filter(({ kind, open }) => kind !== 'comment' || open);
  const [, , module, members] = REQUIRED.exec(text) ?? [];
  if (module) {
    const path = members.match(/[\w$]+/g).map((key) => ({ key }));
    return [{ root: `require('${module}')`, path, module, tokens }];
  }
  const found = [];
  const last = tokens.at(-1);
  if (last?.kind === 'name' && last.end >= cursor) found.push(listed(tokens, code.slice(text.length)));
  if ((last?.kind === 'name' || is(last, ']')) && last.end >= cursor) {
    found.push(operand(tokens, tokens.length - 1));
  }
  const called = callee(tokens);
  if (called >= 0) found.push(operand(tokens, called));
  return found.filter((target) => target && target.root !== 'import')
    .filter(({ literal, path }) => !literal || path.length)
    .map((target) => ({ ...target, root: target.root ?? `${target.literal}.prototype`, tokens }));
}

/** The name that a module or a member of one has in the typings, if this cell brings it. */
function importedKey({ root, path, tokens, module: required }) {
  const declared = declarations(tokens).get(root);
  const { module, member } = required ? { module: required }
    : (declared?.from === undefined ? declared : valueAt(tokens, declared.from)) ?? {};
  if (!module) return null;
  const id = module.startsWith('node:') ? module : `node:${module}`;
  return [id, ...(member ? [member] : []), ...path.map(({ key }) => key)].join('.');
}

/** What the typings say of a target, by whichever of its names they know. */
function documented(target, info) {
  const { root, path } = target;
  const last = path.at(-1)?.key;
  const keys = [...info?.origins ?? []];
  // Inherited from a prototype that has no name, or behind a getter: what else could it be?
  const { holder, source, typed } = info ?? {};
  const foreign = !source || NATIVE.test(source) || (info.kind === 'accessor' && !typed);
  if (holder && last && foreign) {
    keys.push(`${holder[0].toUpperCase()}${holder.slice(1)}.prototype.${last}`);
  }
  if (!info?.kind) keys.push(importedKey(target), [root, ...path.map(({ key }) => key)].join('.'));
  // Of several names for the same the one that was used.
  const used = (key) => key.endsWith(`.${last}`);
  const known = keys.filter(Boolean);
  const asked = [root, ...path.map(({ key }) => key)].join('.');
  const ours = [asked, ...known].find((key) => known.includes(key) && key in ownGlobals);
  return ours ? ownGlobals[ours] : typings.find([...known.filter(used), ...known]);
}

/** The parts of an answer: {title, code, text, more}. */
function partsOf(target, info, detail) {
  const title = target.path.reduce((holder, { key, computed }) => {
    return key === undefined ? `${holder}[${computed}]` : `${holder}.${key}`;
  }, target.root);
  const known = documented(target, info);
  // Of an accessor that is not the user's there is no source to show.
  if (!info?.kind || (known && info.kind === 'accessor' && !info.typed)) {
    return known && { title: `${title}: ${known.kind}`, code: known.signatures, text: known.text };
  }
  const { kind, preview, source, typed } = info;
  const comment = () => commentAtEnd(typed?.before ?? '');
  if (kind === 'accessor') {
    return { title: `${title}: ${kind}`, code: [typed?.text ?? source], text: comment() };
  }
  if (kind !== 'function') {
    return { title: `${title}: ${kind}`, code: [preview], text: known?.text ?? '' };
  }
  return ofFunction(title, { source, written: typed?.text ?? source, comment }, known, detail);
}

function ofFunction(title, { source, written, comment }, known, detail) {
  const kind = isClass(source) ? 'class' : 'function';
  const native = NATIVE.test(source);
  const text = known ? known.text : comment();
  const head = known ? known.signatures : [native ? source : headOf(kind, title, source, written)];
  const more = detail > 0 && !native ? written : '';
  const named = known?.kind ?? `${kind}${native ? ' (native)' : ''}`;
  return { title: `${title}: ${named}`, code: head, text, more };
}

/** The same of what the cell itself is about to declare; null if it declares nothing of that name. */
function ofCell(code, target, info, detail) {
  const { root, path } = target;
  const found = path.length || info?.kind || importedKey(target) ? null : declaredAs(code, root);
  if (!found) return null;
  const more = detail > 0 && found.text !== found.head ? found.text : '';
  return { title: `${root}: ${found.kind}`, code: [found.head], text: found.comment, more };
}

/** The line that declares a function: its keyword, name and parameters, with the types as typed. */
function headOf(kind, title, source, typed) {
  const name = title.slice(title.lastIndexOf('.') + 1);
  const parameters = signatureOf(source, typed);
  if (kind === 'class') {
    const extended = /^class\b[^{]*?\bextends\s+([\w$.]+)/.exec(source);
    const base = extended ? ` extends ${extended[1]}` : '';
    return `class ${name}${base} { constructor${parameters} }`;
  }
  const [, async, star] = /^(async\b)?\s*(?:function\b)?\s*(\*)?/.exec(source);
  return `${async ? 'async ' : ''}function${star ?? ''} ${name}${parameters}`;
}

function plain({ title, code, text, more }) {
  return [[title, ...code].join('\n'), text, more].filter(Boolean).join('\n\n');
}

function markdown({ title, code, text, more }) {
  const fence = (lines) => `\`\`\`typescript\n${lines.join('\n')}\n\`\`\``;
  return [`**${title}**`, code.length && fence(code), text, more && fence([more])]
    .filter(Boolean).join('\n\n');
}

/** The answer to inspect; `cursor` counts UTF-16 units. */
async function inspect(probe, { code, cursor = code.length, detail = 0 }) {
  for (const target of targets(code, cursor)) {
    // To look at what a module gives would be to call.
    const info = target.module ? null : await probe('describe', chainOf(target));
    // A literal's own value is not there to look at, only what all of its kind have.
    if (target.literal && info?.kind !== 'function') delete info?.kind;
    const parts = ofCell(code, target, info, detail) ?? partsOf(target, info, detail);
    if (!parts) continue;
    return {
      found: true,
      data: { 'text/plain': plain(parts), 'text/markdown': markdown(parts) },
    };
  }
  return { found: false, data: {} };
}

module.exports = { answer: inspect, isEmpty: ({ found }) => !found };
