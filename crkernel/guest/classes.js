'use strict';
// Reads off tokens what the class whose body the cursor is in gives to `this`.

const { tokenize } = require('./tokens.js');
const { opening, behind, is, isWord } = require('./outline.js');

const MODIFIERS = ('abstract accessor async declare get override private protected public readonly '
  + 'set').split(' ');
const MEMBER_ENDS = ['(', '=', ':', ';', '}', '?', '!', '<'];

/** Whether the brace at `open` begins the body of a function that has a `this` of its own. */
function rebinds(tokens, open) {
  if (!is(tokens[open - 1], ')')) return false;
  const parameters = opening(tokens, open - 1);
  return tokens.slice(Math.max(0, parameters - 3), parameters).some((t) => isWord(t, 'function'));
}

/** The index of the word class whose body begins with the brace at `open`, or -1. */
function headOf(tokens, open) {
  let i = open - 1;
  while (tokens[i] && !is(tokens[i], ';', '{', '}')) {
    if (isWord(tokens[i], 'class')) return i;
    i -= 1;
  }
  return -1;
}

/** The name of a member of a class that stands at `i` between its braces; else null. */
function memberAt(tokens, i) {
  const next = tokens[i + 1];
  if (tokens[i].kind !== 'name' || !(!next || next.line || is(next, ...MEMBER_ENDS))) return null;
  let before = i - 1;
  while (isWord(tokens[before], ...MODIFIERS) || is(tokens[before], '*')) before -= 1;
  const begins = is(tokens[before], '{', ';', '}') || tokens[before + 1].line;
  return begins && tokens[i].text !== 'constructor' ? tokens[i].text : null;
}

/** The names of a class whose body is between two braces: its members' and those it assigns. */
function namesIn(tokens, open, end) {
  const names = new Set();
  for (let i = open + 1; i < end; i++) {
    const name = memberAt(tokens, i);
    if (name) names.add(name);
    if (is(tokens[i], '(', '[', '{', '=')) i = lastOf(tokens, i, end);
  }
  for (let i = open; i < end; i++) {
    const assigned = isWord(tokens[i], 'this') && is(tokens[i + 1], '.') && is(tokens[i + 3], '=');
    if (assigned) names.add(tokens[i + 2].text);
  }
  return [...names];
}

/** The index of the last token of what begins at `at`: brackets, or the value of a field. */
function lastOf(tokens, at, end) {
  if (!is(tokens[at], '=')) return behind(tokens, at) - 1;
  let i = at + 1;
  while (i < end && !is(tokens[i], ';') && !(tokens[i].line && tokens[i].kind === 'name')) {
    i = is(tokens[i], '(', '[', '{') ? behind(tokens, i) : i + 1;
  }
  return i - 1;
}

/**
 * The class whose `this` the end of `tokens` would see; `rest` is the code that follows. {names,
 * privates, base}: what it declares, and the chain of the class that it extends, if any; else null.
 */
function classAround(tokens, rest) {
  let depth = 0;
  for (let i = tokens.length - 1; i >= 0; i--) {
    if (is(tokens[i], '}', ')', ']')) depth += 1;
    else if (is(tokens[i], '{', '(', '[') && depth-- === 0) {
      depth = 0;
      if (rebinds(tokens, i)) return null;
      const head = is(tokens[i], '{') ? headOf(tokens, i) : -1;
      if (head < 0) continue;
      const all = [...tokens, ...tokenize(rest).filter(({ kind }) => kind !== 'comment')];
      const names = namesIn(all, i, behind(all, i) - 1);
      const extended = all.slice(head, i).findIndex((token) => isWord(token, 'extends'));
      const base = extended < 0 ? null : chainAt(all, head + extended + 1);
      return {
        names: names.filter((name) => !name.startsWith('#')),
        privates: names.filter((name) => name.startsWith('#')),
        base,
      };
    }
  }
  return null;
}

/** The names with dots between them that begin at `at`; null if none does. */
function chainAt(tokens, at) {
  let i = at;
  while (is(tokens[i + 1], '.') && tokens[i + 2]?.kind === 'name') i += 2;
  const names = tokens.slice(at, i + 1).filter(({ kind }) => kind === 'name');
  return names.length ? names.map(({ text }) => text) : null;
}

module.exports = { classAround };
