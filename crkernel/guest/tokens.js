'use strict';
// A tokenizer that never fails: enough of the lexical grammar of JavaScript and TypeScript to know,
// anywhere in an unfinished cell, what the cursor is in and what comes before it.

const NAME = '#?[\\p{ID_Start}$_][\\p{ID_Continue}$\\u200c\\u200d]*';
const IDENTIFIER = new RegExp(`^${NAME}$`, 'u');
const NAME_BEHIND = /^[\p{ID_Continue}$\u200c\u200d]*/u;
const PATTERNS = {
  space: /\s+/yu,
  comment: /\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)|^#![^\n]*/yu,
  name: new RegExp(NAME, 'yu'),
  number: /0[xob][\da-f_]+n?|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:e[+-]?\d*)?n?/iyu,
  string: /"(?:\\(?:[^]|$)|[^"\\\n])*"?|'(?:\\(?:[^]|$)|[^'\\\n])*'?/yu,
  regex: /\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]?|[^/\\[\n])*(?:\/[a-z]*|(?=\n|$))/yu,
  punctuator: /=>|\?\.(?!\d)|\.{3}|\+\+|--|\/=?|[*%&|^<>=!?]+|[^]/yu,
};
const TEMPLATE = /(?:\\[^]|\$(?!\{)|[^`\\$])*(`|\$\{|\\?$)/yu;
// After one of these a slash begins a regular expression, as it does after most punctuators.
const OPERATOR_WORDS = new Set(('await case delete do else in instanceof new of return throw typeof '
  + 'void yield').split(' '));

/** Whether a token ends an operand, so that a slash after it divides. */
function endsOperand(token) {
  if (!token) return false;
  if (token.kind === 'name') return !OPERATOR_WORDS.has(token.text);
  if (token.kind === 'template') return !token.text.endsWith('${');
  return token.kind !== 'punctuator' || [')', ']', '}', '++', '--'].includes(token.text);
}

/** The kind of the token that begins at `at`, by its first characters. */
function kindAt(code, at, last) {
  const first = code[at];
  if (/[a-z$_]/i.test(first)) return 'name';
  if (/\s/.test(first)) return 'space';
  if (/\d/.test(first) || (first === '.' && /\d/.test(code[at + 1]))) return 'number';
  if (first === '"' || first === "'") return 'string';
  if (first === '`') return 'template';
  const next = code[at + 1];
  if (first === '/') {
    if (next === '/' || next === '*') return 'comment';
    return endsOperand(last) ? 'punctuator' : 'regex';
  }
  if (first === '#') return at === 0 && next === '!' ? 'comment' : 'name';
  return first < '\x7f' ? 'punctuator' : 'name';
}

function match(pattern, code, at) {
  pattern.lastIndex = at;
  return pattern.exec(code);
}

/**
 * The tokens of `code` without blanks: {kind, text, start, end, line, open}. Kinds are comment, name,
 * number, string, template (a piece between its braces), regex and punctuator; `line` is whether it
 * is the first of its line, `open` whether it goes on where the code ends.
 */
function tokenize(code) {
  const tokens = [];
  const braces = []; // of each open brace whether it belongs to a template
  let last = null; // the newest token that is no comment
  let line = true;
  let at = 0;
  const push = (kind, end, open = false) => {
    const token = { kind, text: code.slice(at, end), start: at, end, line, open };
    line = false;
    tokens.push(token);
    if (kind !== 'comment') last = token;
    at = end;
  };
  const template = (from) => {
    const [text, stop] = match(TEMPLATE, code, from);
    if (stop === '${') braces.push(true);
    push('template', from + text.length, stop !== '`' && stop !== '${');
  };
  const punctuator = (end) => {
    const text = code.slice(at, end);
    if (text === '{') braces.push(false);
    if (text === '}' && braces.pop()) template(at + 1);
    else push('punctuator', end);
  };
  while (at < code.length) {
    const kind = kindAt(code, at, last);
    if (kind === 'template') {
      template(at + 1);
      continue;
    }
    const end = at + (match(PATTERNS[kind], code, at)?.[0].length ?? 0);
    if (kind === 'space') {
      line ||= code.slice(at, end).includes('\n');
      at = end;
    } else if (kind === 'punctuator' || end === at) punctuator(Math.max(end, at + 1));
    else push(kind, end, isOpen(kind, code, at, end));
  }
  return tokens;
}

function isOpen(kind, code, start, end) {
  if (end < code.length) return false;
  const text = code.slice(start, end);
  if (kind === 'string') return !/^(["'])(?:\\[^]|(?!\1)[^\\])*\1$/u.test(text);
  if (kind === 'comment') return !/^\/\*[^]*\*\/$/.test(text) || text === '/*/';
  return kind === 'regex' && !/\/[a-z]*$/.test(text.slice(1));
}

/** How many units of the name at `at` lie behind it. */
function nameBehind(code, at) {
  return NAME_BEHIND.exec(code.slice(at))[0].length;
}

module.exports = { tokenize, nameBehind, IDENTIFIER };
