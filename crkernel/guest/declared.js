'use strict';
// What the text of a cell says of a name that it declares, for an inspection before the cell has run.

const { tokenize } = require('./tokens.js');
const { behind, declarations, is, isWord } = require('./outline.js');
const { commentAtEnd } = require('./jsdoc.js');

const LONGEST = 10_000; // units of code that an inspection shows

/** The index of the token behind the declaration that the one at `at` begins. */
function endOf(tokens, at) {
  let i = at + 1;
  while (tokens[i] && !is(tokens[i], ';')) {
    if (is(tokens[i], '{') && isWord(tokens[at], 'function', 'class', 'enum', 'namespace')) {
      return behind(tokens, i);
    }
    const goesOn = is(tokens[i - 1], '=', '=>', ',', '.', ':') || is(tokens[i], '.', '=>', '?.');
    if (tokens[i].line && !goesOn && tokens[i].kind !== 'punctuator') return i;
    i = is(tokens[i], '(', '[', '{') ? behind(tokens, i) : i + 1;
  }
  return i;
}

/** {kind, head, text, comment} of a name that code declares; null if it declares none of that name. */
function declaredAs(code, name) {
  const tokens = tokenize(code).filter(({ kind }) => kind !== 'comment');
  const found = declarations(tokens).get(name);
  if (!found || found.kind === 'param' || found.module !== undefined) return null;
  const modified = isWord(tokens[found.at - 1], 'async', 'abstract', 'declare', 'export');
  const at = tokens[found.at];
  const first = modified ? tokens[found.at - 1] : at;
  const end = endOf(tokens, found.at);
  const text = code.slice(first.start, Math.min(tokens[end - 1].end, first.start + LONGEST));
  const brace = tokens.findIndex((token, i) => i > found.at && i < end && is(token, '{'));
  const bodied = isWord(at, 'function', 'class') && brace >= 0;
  const head = bodied ? code.slice(first.start, tokens[brace].start).trim() : text;
  const kind = isWord(at, 'function', 'class', 'enum', 'namespace') ? at.text : 'declared here';
  return { kind, head, text, comment: commentAtEnd(code.slice(0, first.start)) };
}

module.exports = { declaredAs };
