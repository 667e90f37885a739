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
  string: /"[^"\\\n]*(?:\\(?:[^]|$)[^"\\\n]*)*"?|'[^'\\\n]*(?:\\(?:[^]|$)[^'\\\n]*)*'?/yu,
  regex: /\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]?|[^/\\[\n])*(?:\/[a-z]*|(?=\n|$))/yu,
  punctuator: /=>|\?\.(?!\d)|\.{3}|\+\+|--|\/=?|[*%&|^<>=!?]+|[^]/yu,
};
const TEMPLATE = /[^`\\$]*(?:(?:\\[^]|\$(?!\{))[^`\\$]*)*(`|\$\{|\\?$)/yu;
// After one of these a slash begins a regular expression, as it does after most punctuators.
const OPERATOR_WORDS = new Set(('await case delete do else for if in instanceof new of return throw '
  + 'typeof void while with yield').split(' '));
const HEADED = new Set(['for', 'if', 'while', 'with']); // their parentheses are followed by a statement
const BEFORE_BLOCK = new Set([';', '=>', '>', '{', '}', ')']); // a brace behind these is no object

/** Whether a token that follows `last` ends an operand; of a closing bracket its pair says `opened`. */
function endsOperand({ kind, text }, last, opened) {
  if (kind === 'name') return !OPERATOR_WORDS.has(text) || last?.text === '.' || last?.text === '?.';
  if (kind === 'template') return !text.endsWith('${');
  if (kind !== 'punctuator') return true;
  return opened?.operand ?? [')', ']', '++', '--'].includes(text);
}

/**
 * What an opening bracket behind `last` and within `around` says: {operand}, whether it and its pair
 * are one, as an object is and neither a block nor the head of a statement.
 */
function bracket(text, last, around) {
  const word = last?.kind === 'name' && !last.operand;
  if (text === '(') return { operand: !(word && HEADED.has(last.text)) };
  if (text === '[') return { operand: true };
  if (word) return { operand: last.text !== 'do' && last.text !== 'else' };
  if (last?.text === ':') return { operand: last.chooses || Boolean(around.operand) }; // else a label's
  return { operand: Boolean(last) && !last.operand && !BEFORE_BLOCK.has(last.text) };
}

/**
 * Whether a punctuator is the colon of a question mark ahead of it; how many of those are without one
 * is noted in `around`.
 */
function takeChoice(text, around) {
  const { asked = 0 } = around;
  const chooses = text === ':' && asked > 0;
  if (text[0] === '?' && text[1] !== '?' && text[1] !== '.') around.asked = asked + 1;
  else if (chooses) around.asked = asked - 1;
  else if (text === ';' || text === ',') around.asked = 0; // of an optional member
  return chooses;
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
    return last?.operand ? 'punctuator' : 'regex';
  }
  if (first === '#') return at === 0 && next === '!' ? 'comment' : 'name';
  return first < '\x7f' ? 'punctuator' : 'name';
}

function match(pattern, code, at) {
  pattern.lastIndex = at;
  return pattern.exec(code);
}

/**
 * The tokens of `code` without blanks: {kind, text, start, end, line, open, operand, chooses}. Kinds are
 * comment, name, number, string, template (a piece between its braces), regex and punctuator; `line`
 * is whether it is the first of its line, `open` whether it goes on where the code ends, `operand`
 * whether it ends an operand, so that a slash after it divides, as far as can be told; `chooses`
 * whether it is the colon of a question mark.
 */
function tokenize(code) {
  const tokens = [];
  const ground = {};
  const brackets = []; // the open ones, see bracket()
  let last = null; // the newest token that is no comment
  let line = true;
  let at = 0;
  const push = (kind, end, { open = false, opened, chooses = false } = {}) => {
    const token = { kind, text: code.slice(at, end), start: at, end, line, open, chooses };
    token.operand = endsOperand(token, last, opened);
    line = false;
    tokens.push(token);
    if (kind !== 'comment') last = token;
    at = end;
  };
  const template = (from) => {
    const [text, stop] = match(TEMPLATE, code, from);
    if (stop === '${') brackets.push({ template: true, operand: true });
    push('template', from + text.length, { open: stop !== '`' && stop !== '${' });
  };
  const punctuator = (end) => {
    const text = code.slice(at, end);
    const opened = [')', ']', '}'].includes(text) ? brackets.pop() : undefined;
    const around = brackets.at(-1) ?? ground;
    const chooses = takeChoice(text, around);
    if (['(', '[', '{'].includes(text)) brackets.push(bracket(text, last, around));
    if (opened?.template) template(at + 1);
    else push('punctuator', end, { opened, chooses });
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
    else push(kind, end, { open: isOpen(kind, code, at, end) });
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
