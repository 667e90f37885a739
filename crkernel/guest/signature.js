'use strict';
// What a function's source says of how to call it.

function isClass(source) {
  return /^class\b/.test(source);
}

/** Where the bracket that opens at `open` closes, or -1; brackets in strings are overlooked. */
function closing(source, open) {
  let depth = 0;
  for (let i = open; i < source.length; i++) {
    if ('([{'.includes(source[i])) depth += 1;
    else if (')]}'.includes(source[i]) && --depth === 0) return i;
  }
  return -1;
}

/**
 * The parameters with their parentheses, on one line; '' if the source does not tell. `typed`, which
 * is as long, has types where the source has blanks: then with type parameters and what is returned.
 */
function signatureOf(source, typed = source) {
  if (/\{\s*\[native code\]\s*\}$/.test(source)) return '';
  const lone = /^(?:async\s+)?([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*=>/u.exec(source);
  if (lone) return `(${lone[1]})`;
  const open = isClass(source)
    ? (/\bconstructor\s*\(/.exec(source) ?? { index: NaN, 0: '' }) : /\(/.exec(source);
  if (!open || Number.isNaN(open.index)) return isClass(source) ? '()' : '';
  const start = open.index + open[0].length - 1;
  const end = closing(source, start);
  if (end < 0) return '';
  const begin = start - /\s*$/.exec(source.slice(0, start))[0].length;
  const behind = end + 1 + /^\s*/.exec(source.slice(end + 1))[0].length;
  return typed.slice(begin, behind).trim().replace(/\s+/g, ' ').replace(/ (?=[,)])/g, '');
}

module.exports = { signatureOf, isClass };
