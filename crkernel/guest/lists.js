'use strict';
// Reads off tokens what names in braces are taken of: in an import, or a pattern that destructures.

const { tokenize } = require('./tokens.js');
const { foreseen, valueAt, is, isWord } = require('./outline.js');

/** What the names in the braces around the cursor are of, in an import or a pattern; else null. */
function listedFrom(tokens, last, behind) {
  let i = last;
  while (is(tokens[i], ',', ':') || tokens[i]?.kind === 'name') i -= 1;
  if (!is(tokens[last], '{', ',') || !is(tokens[i], '{')) return null;
  const rest = /^[^{}]*\}([^]*)$/.exec(behind)?.[1];
  if (rest === undefined) return null;
  if (isWord(tokens[i - 1], 'const', 'let', 'var')) {
    const value = tokenize(rest);
    const found = is(value[0], '=') ? valueAt(value, 1) : null;
    return (found?.root && foreseen(tokens, found)) ?? found;
  }
  const keyword = isWord(tokens[i - 1], 'type') ? i - 2 : is(tokens[i - 1], ',') ? i - 3 : i - 1;
  if (!isWord(tokens[keyword], 'import', 'export')) return null;
  const module = /^\s*from\s*(["'])([^"'\n]+)\1/.exec(rest)?.[2];
  return module === undefined ? null : { module, path: [] };
}

module.exports = { listedFrom };
