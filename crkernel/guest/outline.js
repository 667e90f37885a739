'use strict';
// Reads off tokens what the code around the cursor says: the operand that ends before it, the call
// that it stands in, and the names that the cell declares, with what they will hold if that is plain.

const WORDS = new Set(('await break case catch class const continue debugger default delete do else '
  + 'export extends finally for function if import in instanceof let new of return static switch '
  + 'throw try typeof var void while with yield').split(' '));
const LITERALS = {
  __proto__: null, string: 'String', template: 'String', number: 'Number', regex: 'RegExp',
};
const OPENING = { __proto__: null, ')': '(', ']': '[', '}': '{' };
const CONTROL = ['if', 'while', 'for', 'switch', 'with'];
const SORTING = ['sort', 'toSorted'];
const ITERATING = ['every', 'filter', 'find', 'findIndex', 'findLast', 'flatMap', 'forEach', 'map',
  'some', ...SORTING];

const is = (token, ...texts) => token?.kind === 'punctuator' && texts.includes(token.text);
const isWord = (token, ...texts) => token?.kind === 'name' && texts.includes(token.text);
const isName = (token) => token?.kind === 'name' && !WORDS.has(token.text)
  && !token.text.startsWith('#');

/** The index of the bracket that the one at `close` closes, or -1. */
function opening(tokens, close) {
  let depth = 0;
  for (let i = close; i >= 0; i--) {
    if (is(tokens[i], ')', ']', '}') || closesTemplate(tokens[i])) depth += 1;
    else if (is(tokens[i], '(', '[', '{') || opensTemplate(tokens[i])) depth -= 1;
    if (depth === 0) {
      const fits = closesTemplate(tokens[close]) ? opensTemplate(tokens[i])
        : is(tokens[i], OPENING[tokens[close].text]);
      return fits ? i : -1;
    }
  }
  return -1;
}

// A piece of a template between two substitutions closes one and opens the next.
function opensTemplate(token) {
  return token.kind === 'template' && token.text.endsWith('${') && token.text.startsWith('`');
}

function closesTemplate(token) {
  return token.kind === 'template' && token.text.startsWith('}') && !token.text.endsWith('${');
}

/**
 * The operand that ends with the token at `last`: {start, root, path} of a chain, where the root is a
 * name and each step of the path {key} or {computed}, the text of a literal or name in brackets;
 * {start, literal, path} where the root is a literal, by the name of its class; else null.
 */
function operand(tokens, last) {
  const path = [];
  let i = last;
  for (;;) {
    while (is(tokens[i], '!')) i -= 1; // TypeScript's assertion
    const token = tokens[i];
    if (!token) return null;
    if (is(token, ']')) {
      const open = opening(tokens, i);
      let holder = open - 1;
      if (is(tokens[holder], '?.')) holder -= 1;
      const array = open >= 0 && !endsValue(tokens[holder]);
      if (array) return { start: open, literal: 'Array', path };
      if (open !== i - 2 || !['string', 'number', 'name'].includes(tokens[i - 1].kind)) return null;
      path.unshift({ computed: tokens[i - 1].text });
      i = holder;
      continue;
    }
    if (is(token, ')')) return inParentheses(tokens, i, path);
    if (token.kind in LITERALS) {
      const start = closesTemplate(token) ? opening(tokens, i) : i;
      const whole = token.kind !== 'template' || tokens[start]?.text.startsWith('`');
      return whole && !token.open ? { start, literal: LITERALS[token.kind], path } : null;
    }
    if (token.kind !== 'name') return null;
    if (!is(tokens[i - 1], '.', '?.')) {
      return isName(token) || isWord(token, 'import') ? { start: i, root: token.text, path } : null;
    }
    path.unshift({ key: token.text });
    i -= 2;
  }
}

/**
 * The module that `require('a')` or `(await import('a'))` gives, and the path of names behind that, of
 * what ends with the token at `last`: {module, path}; else null.
 */
function moduleEndingAt(tokens, last) {
  const path = [];
  let close = last;
  for (; tokens[close]?.kind === 'name' && is(tokens[close - 1], '.', '?.'); close -= 2) {
    path.unshift({ key: tokens[close].text });
  }
  if (!is(tokens[close], ')')) return null;
  const open = opening(tokens, close);
  const called = isWord(tokens[open - 1], 'require') && !is(tokens[open - 2], '.', '?.');
  const from = called ? open - 1 : open + 1;
  if (!called && (open < 0 || endsValue(tokens[open - 1]) || !isWord(tokens[from], 'await'))) return null;
  const found = valueAt(tokens.slice(0, called ? close + 1 : close), from);
  return found?.module === undefined ? null : { module: found.module, path };
}

/** The operand `(a.b)` or `new A(...)` that the parenthesis at `close` ends, with a path behind it. */
function inParentheses(tokens, close, path) {
  const open = opening(tokens, close);
  if (open < 0) return null;
  if (!endsValue(tokens[open - 1])) {
    const inner = operand(tokens, close - 1);
    return inner?.start === open + 1 && !isWord(tokens[open - 1], ...CONTROL, 'import', 'super')
      ? { ...inner, start: open, path: [...inner.path, ...path] } : null;
  }
  const made = operand(tokens, open - 1);
  if (!made?.root || !isWord(tokens[made.start - 1], 'new')) return null;
  return { ...made, start: made.start - 1, path: [...made.path, { key: 'prototype' }, ...path] };
}

function endsValue(token) {
  return isName(token) || is(token, ')', ']', '!') || token?.kind in LITERALS;
}

/**
 * An operand as the chain of names that leads to its value, for the probe: first a name, then keys, or
 * {name} for what that one holds.
 */
function chainOf({ literal, root, path = [] }) {
  const steps = path.map(({ key, computed }) => {
    if (key !== undefined) return key;
    if (/^["']/.test(computed)) return unquoted(computed.slice(1, -1));
    return /^[\d.]/.test(computed) ? `${Number(computed.replace(/_|n$/g, ''))}` : { name: computed };
  });
  return [...(literal ? [literal, 'prototype'] : [root]), ...steps];
}

/** What is written in a string so far, without its backslashes; escapes by number are left alone. */
function unquoted(text) {
  return text.replace(/\\([^ux\d])/g, (_, character) => ({ n: '\n', t: '\t' })[character] ?? character);
}

/** The index of the token before the parenthesis of the call that code is in at the end, or -1. */
function callee(tokens) {
  let depth = 0;
  for (let i = tokens.length - 1; i >= 0; i--) {
    if (is(tokens[i], '(') && depth === 0) return i - 1;
    if (is(tokens[i], ')', ']', '}') || closesTemplate(tokens[i])) depth += 1;
    else if (is(tokens[i], '(', '[', '{') || opensTemplate(tokens[i])) {
      // An object or an array that is an argument may still be open.
      if (depth > 0) depth -= 1;
      else if (!is(tokens[i], '[', '{') || !is(tokens[i - 1], '(', ',', ':')) return -1;
    } else if (is(tokens[i], ';') && depth === 0) return -1;
  }
  return -1;
}

/** The indices of the names bound by the pattern, parameter list or import clause between two tokens. */
function bound(tokens, from, to) {
  const found = [];
  for (let i = from; i < to; i++) {
    if (!isName(tokens[i]) || isWord(tokens[i], 'as', 'from', 'type')) continue;
    const before = tokens[i - 1];
    const renamed = isWord(before, 'as') || is(before, ':');
    const first = i === from || is(before, '{', '[', '(', ',', '...') || isWord(before, 'type');
    const key = is(tokens[i + 1], ':') && is(tokens[enclosing(tokens, from, i)], '{');
    if ((renamed || first) && !key && !isWord(tokens[i + 1], 'as')) found.push(i);
  }
  return found;
}

/** The index of the innermost bracket that is open at `at`, or -1. */
function enclosing(tokens, from, at) {
  let depth = 0;
  for (let i = at - 1; i >= from; i--) {
    if (is(tokens[i], ')', ']', '}')) depth += 1;
    else if (is(tokens[i], '(', '[', '{') && depth-- === 0) return i;
  }
  return -1;
}

/** The index behind the bracket that the one at `open` opens. */
function behind(tokens, open) {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    if (is(tokens[i], '(', '[', '{')) depth += 1;
    else if (is(tokens[i], ')', ']', '}') && --depth === 0) return i + 1;
  }
  return tokens.length;
}

/**
 * The names that code declares, in whatever scope: name -> {kind, at, from?, each?, within?, module?,
 * member?}. `at` is the index of the token that tells, like `function`, `from` that of the first token
 * of its value, `each` and `within` those of the first and the last token of something whose elements
 * it holds; `member` is what of it it is.
 */
function declarations(tokens) {
  const found = new Map();
  let at = 0;
  const add = (name, kind, more = {}) => found.set(name, { kind, at, ...more });
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    at = i;
    if (is(tokens[i - 1], '.', '?.')) continue;
    if (isWord(token, 'const', 'let', 'var')) declared(tokens, i + 1, add);
    else if (isWord(token, 'import')) imported(tokens, i + 1, add);
    else if (isWord(token, 'class', 'enum', 'namespace') && isName(tokens[i + 1])) {
      add(tokens[i + 1].text, token.text === 'class' ? 'class' : 'variable');
    } else if (isWord(token, 'function')) {
      const name = is(tokens[i + 1], '*') ? tokens[i + 2] : tokens[i + 1];
      if (isName(name)) add(name.text, 'function');
    } else if (is(token, '=>') && isName(tokens[i - 1])) {
      add(tokens[i - 1].text, 'param', elementsBefore(tokens, i - 1));
    } else if (is(token, '(')) {
      const end = behind(tokens, i);
      if (isWord(tokens[i - 1], ...CONTROL) || !is(tokens[end], '{', '=>', ':')) continue;
      const source = elementsBefore(tokens, i);
      for (const k of bound(tokens, i + 1, end - 1)) {
        const first = k === i + 1 || isWord(tokens[source.within + 2], ...SORTING);
        add(tokens[k].text, 'param', first ? source : partOf(tokens, i + 1, k, source));
      }
    }
  }
  return found;
}

/** {within}: where the operand ends to whose elements the function with parameters at `at` is applied. */
function elementsBefore(tokens, at) {
  let call = at - 1;
  while (isWord(tokens[call], 'async', 'function')) call -= 1;
  const iterates = is(tokens[call], '(') && isWord(tokens[call - 1], ...ITERATING)
    && is(tokens[call - 2], '.', '?.');
  return iterates ? { within: call - 3 } : {};
}

/** What follows const, let or var. */
function declared(tokens, at, add) {
  let i = at;
  for (;;) {
    const pattern = is(tokens[i], '{', '[');
    const end = pattern ? behind(tokens, i) : i + 1;
    let value = end;
    // Up to the value there may be a type.
    while (tokens[value] && !is(tokens[value], '=', ',', ';', ')')
      && !isWord(tokens[value], 'of', 'in')) value += 1;
    const from = is(tokens[value], '=') ? value + 1 : undefined;
    const source = isWord(tokens[value], 'of') ? { each: value + 1 } : { from };
    for (const k of pattern ? bound(tokens, i, end) : []) {
      add(tokens[k].text, 'variable', partOf(tokens, i, k, source));
    }
    if (!pattern && isName(tokens[i])) add(tokens[i].text, 'variable', source);
    i = from === undefined ? value : nextDeclarator(tokens, from);
    if (!is(tokens[i], ',')) return;
    i += 1;
  }
}

/** What is known of the name at `at` in the pattern that begins at `open`, of a value's `source`. */
function partOf(tokens, open, at, source) {
  const key = is(tokens[at - 1], ':') ? tokens[at - 2] : tokens[at];
  const plain = is(tokens[open], '{') && enclosing(tokens, open, at) === open && isName(key)
    && !is(tokens[at - 1], '...');
  return plain ? { ...source, member: key.text } : {};
}

/** The index of the comma or whatever else ends the value that begins at `from`. */
function nextDeclarator(tokens, from) {
  let i = from;
  while (tokens[i] && !is(tokens[i], ',', ';', ')', ']', '}')) {
    if (isWord(tokens[i], 'const', 'let', 'var', 'return', 'if', 'for')) return i;
    i = is(tokens[i], '(', '[', '{') ? behind(tokens, i) : i + 1;
  }
  return i;
}

/** What follows the word import, if it is a declaration. */
function imported(tokens, at, add) {
  let i = at;
  while (tokens[i] && !isWord(tokens[i], 'from') && !is(tokens[i], '(', ';', '.')) i += 1;
  if (!isWord(tokens[i], 'from')) return;
  const module = tokens[i + 1]?.kind === 'string' ? tokens[i + 1].text.slice(1, -1) : undefined;
  const open = tokens.findIndex((token, k) => k >= at && k < i && is(token, '{'));
  for (const k of bound(tokens, at, open < 0 ? i : open)) add(tokens[k].text, 'module', { module });
  if (open < 0) return;
  for (const k of bound(tokens, open, i)) {
    const member = (isWord(tokens[k - 1], 'as') ? tokens[k - 2] : tokens[k]).text;
    add(tokens[k].text, 'variable', { module, member });
  }
}

/**
 * What an operand will be, where that is plain to see in the cell that declares its name: an operand
 * that leads there by names of earlier cells, {module, path} or {keys}; else null.
 */
function foreseen(tokens, { root, path }) {
  const declared = declarations(tokens);
  const seen = new Set();
  let found = { root, path };
  while (declared.has(found.root) && !seen.has(found.root)) {
    seen.add(found.root);
    const { from, each, within, module, member } = declared.get(found.root);
    const value = module !== undefined ? { module, path: [] }
      : within === undefined ? valueAt(tokens, from ?? each) : operand(tokens, within);
    if (!value) return null;
    const element = from === undefined && module === undefined ? [{ computed: '0' }] : [];
    const part = member === undefined ? [] : [{ key: member }];
    found = { ...value, path: [...value.path, ...element, ...part, ...found.path] };
  }
  return seen.size === 0 || (found.keys && found.path.length) ? null : found;
}

/**
 * What the value that begins at `from` will be, where that is plain to see: an operand, {module,
 * path}, or {keys, path} of an object literal.
 */
function valueAt(tokens, from) {
  if (from === undefined) return null;
  let i = from;
  const awaited = isWord(tokens[i], 'await');
  if (awaited) i += 1;
  if (isWord(tokens[i], awaited ? 'import' : 'require') && is(tokens[i + 1], '(')) {
    const whole = tokens[i + 2]?.kind === 'string' && is(tokens[i + 3], ')') && ends(tokens, i + 4);
    return whole ? { module: tokens[i + 2].text.slice(1, -1), path: [] } : null;
  }
  if (awaited) return null;
  if (isWord(tokens[i], 'new')) {
    let last = i + 1;
    while (is(tokens[last + 1], '.') && isName(tokens[last + 2])) last += 2;
    const made = operand(tokens, last);
    if (!made?.root || made.start !== i + 1) return null;
    const end = is(tokens[last + 1], '(') ? behind(tokens, last + 1) : last + 1;
    return ends(tokens, end) ? { ...made, path: [...made.path, { key: 'prototype' }] } : null;
  }
  if (is(tokens[i], '{')) return { keys: keysOf(tokens, i), path: [] };
  if (is(tokens[i], '[')) {
    return ends(tokens, behind(tokens, i)) ? { literal: 'Array', path: [] } : null;
  }
  let last = i;
  while (tokens[last] && !ends(tokens, last + 1)) last += 1;
  const value = operand(tokens, last);
  return value?.start === i ? value : null;
}

/** Whether an expression can end before the token at `at`: at a delimiter, or with its line. */
function ends(tokens, at) {
  const token = tokens[at];
  if (!token || is(token, ';', ',', ')', ']', '}')) return true;
  return token.line && token.kind !== 'punctuator';
}

/** The keys of the object literal that begins at `open`. */
function keysOf(tokens, open) {
  const keys = [];
  const end = behind(tokens, open) - 1;
  for (let i = open + 1; i < end; i++) {
    const { kind, text } = tokens[i];
    if (kind === 'string' && is(tokens[i + 1], ':')) keys.push(text.slice(1, -1));
    else if (kind === 'name' && (is(tokens[i + 1], ':', '(', ',', '}') || i + 1 === end)) {
      keys.push(text);
    }
    while (i < end && !is(tokens[i], ',')) {
      i = is(tokens[i], '(', '[', '{') ? behind(tokens, i) : i + 1;
    }
  }
  return keys;
}

module.exports = {
  operand, moduleEndingAt, chainOf, unquoted, callee, declarations, foreseen, valueAt, opening, behind,
  is, isWord, isName,
};
