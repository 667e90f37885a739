'use strict';
// Names of types, and whether a type is what can stand somewhere.

const { is, isWord, isName, opening } = require('./outline.js');

const PRIMITIVES = ('any bigint boolean never null number object string symbol undefined unknown '
  + 'void').split(' ');
const UTILITIES = ('Awaited Capitalize ConstructorParameters Exclude Extract InstanceType Lowercase '
  + 'NoInfer NonNullable Omit OmitThisParameter Parameters Partial Pick Readonly Record Required '
  + 'ReturnType ThisParameterType ThisType Uncapitalize Uppercase').split(' ');

/** The index of the innermost bracket that is open behind the token at `last`, or -1. */
function around(tokens, last) {
  let depth = 0;
  for (let i = last; i >= 0; i--) {
    if (is(tokens[i], ')', ']', '}')) depth += 1;
    else if (is(tokens[i], '(', '[', '{') && depth-- === 0) return i;
  }
  return -1;
}

/** Whether the colon at `at` is that of a variable, a parameter or what a function returns. */
function isOfDeclaration(tokens, at) {
  const optional = is(tokens[at - 1], '?');
  const last = optional ? at - 2 : at - 1;
  if (tokens[at].chooses && !optional) return false;
  if (is(tokens[last], ')')) {
    const name = opening(tokens, last) - 1;
    return isWord(tokens[name - 1], 'function') || isWord(tokens[name], 'function')
      || is(tokens[name], '=', '(', ',');
  }
  const start = is(tokens[last], ']', '}') ? opening(tokens, last) : last;
  if (isWord(tokens[start - 1], 'const', 'let', 'var')) return true;
  return is(tokens[around(tokens, last)], '(') && (isName(tokens[last]) || start !== last);
}

/** Whether a type can stand behind the token at `last`. */
function wantsType(tokens, last) {
  const token = tokens[last];
  if (isWord(token, 'satisfies', 'extends', 'implements')) return !is(tokens[last - 1], '.', '?.');
  if (isWord(token, 'as')) return !is(tokens[last - 1], '*', '.', '?.');
  if (is(token, '<')) return isName(tokens[last - 1]) && tokens[last - 1].end === token.start;
  if (is(token, ':')) return isOfDeclaration(tokens, last);
  return is(token, '=') && isWord(tokens[last - 2], 'type');
}

/** The types that code declares: name -> kind. */
function declaredTypes(tokens) {
  const found = new Map();
  tokens.forEach((token, i) => {
    const named = isWord(token, 'type', 'interface', 'enum', 'class') && tokens[i + 1];
    if (!named || !isName(named) || is(tokens[i - 1], '.', '?.')) return;
    if (token.text === 'type' && !is(tokens[i + 2], '=', '<')) return;
    found.set(named.text, token.text === 'class' ? 'class' : 'interface');
  });
  return found;
}

/** Entries for what a type can be; `earlier` are names of types of earlier cells. */
function typeEntries(tokens, earlier) {
  const found = new Map();
  for (const [text, type] of declaredTypes(tokens)) found.set(text, { text, type, rank: -2 });
  const add = (text, type, rank) => found.has(text) || found.set(text, { text, type, rank });
  for (const text of earlier) add(text, 'interface', -2);
  for (const text of PRIMITIVES) add(text, 'keyword', -1);
  for (const text of UTILITIES) add(text, 'interface', -1);
  return [...found.values()];
}

module.exports = { wantsType, typeEntries };
