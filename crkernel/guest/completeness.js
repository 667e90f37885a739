'use strict';
// Whether code is complete, so that Enter runs it, or how it goes on.

const { parse, parses, fromTypeScript } = require('./language.js');
const { tokenize } = require('./tokens.js');
const { is, isWord, isName, opening } = require('./outline.js');

const COMPLETE = { status: 'complete', indent: '' };
const INVALID = { status: 'invalid', indent: '' };
const HEADS = ['if', 'for', 'while', 'with', 'switch', 'await'];

/** Whether TypeScript's parser did. */
function typesEndTooEarly({ message, atEnd }) {
  return atEnd || /^Unterminated template/.test(message);
}

/** Whether acorn stopped because the code ended too early, judged as Node's REPL does. */
function endsTooEarly(error, code) {
  if (/^Unterminated (template|comment)/.test(error.message)) return true;
  if (/^Unterminated string constant/.test(error.message)) return /\\\r?\n?$/.test(code);
  return code.slice(error.pos).trim() === '';
}

function withoutComments(tokens) {
  return tokens.filter(({ kind }) => kind !== 'comment');
}

/** One step of indentation, as the code makes it: a tab, or its smallest number of blanks. */
function stepOf(code) {
  if (/^\t/m.test(code)) return '\t';
  const blanks = [...code.matchAll(/^ {2,}(?=\S)/gm)].map(([run]) => run.length);
  return ' '.repeat(Math.min(...blanks, 4) === 4 && blanks.length ? 4 : 2);
}

/** How many brackets that are opened on the last line are open at its end. */
function openedOnLine(tokens) {
  let open = 0;
  for (let i = tokens.findLastIndex(({ line }) => line); i < tokens.length; i++) {
    if (is(tokens[i], '(', '[', '{')) open += 1;
    else if (is(tokens[i], ')', ']', '}') && open > 0) open -= 1;
  }
  return open;
}

/** How many steps further in what follows the last token belongs. */
function stepsInwards(tokens) {
  const last = tokens.length - 1;
  const token = tokens[last];
  if (is(token, '(', '[', '{', '=>') || isWord(token, 'else', 'do')) return 1;
  if (is(token, ':')) return Number(/^(?:case|default)$/.test(tokens.findLast(({ line }) => line).text));
  if (!is(token, ')')) return openedOnLine(tokens);
  const open = opening(tokens, last);
  return Number(open > 0 && isWord(tokens[open - 1], ...HEADS)) || openedOnLine(tokens);
}

function incomplete(code) {
  const all = tokenize(code);
  const { kind, open, text } = all.at(-1) ?? {};
  // Within a template or a string every blank counts.
  if (open && kind !== 'comment') return { status: 'incomplete', indent: '' };
  const indent = /^[ \t]*/.exec(code.trimEnd().split('\n').pop())[0];
  const within = open && text.startsWith('/*');
  const steps = within ? 0 : stepsInwards(withoutComments(all));
  return { status: 'incomplete', indent: indent + stepOf(code).repeat(steps) };
}

/** Whether code holds an element of JSX, which TypeScript's parser may take for a type assertion. */
function hasElement(code) {
  const tokens = tokenize(code);
  return tokens.some((token, i) => {
    const operand = i === 0 || is(tokens[i - 1], '=', '(', ',', '=>', '?', ':', '&&', '||')
      || isWord(tokens[i - 1], 'return', 'default');
    return operand && is(token, '<') && isName(tokens[i + 1])
      && (/<\/|\/>/.test(code.slice(token.start)) || /^[^(]*>\s*$/.test(code.slice(token.start)));
  });
}

/** Whether the last statement is the head of a function whose body is still to come. */
function lacksBody(code) {
  const tokens = withoutComments(tokenize(code));
  const head = tokens.findLastIndex((token) => isWord(token, 'function'));
  if (head < 0 || tokens.slice(0, head).some((token) => isWord(token, 'declare'))) return false;
  return !tokens.slice(head).some((token) => is(token, '{', ';', '}'));
}

/** The answer to is_complete. */
function isComplete(code) {
  const valid = parses(code) && !/\breturn\b/.test(code);
  if (valid) return COMPLETE;
  try {
    parse(code);
    return COMPLETE;
  } catch (error) {
    if (endsTooEarly(error, code)) return hasElement(code) ? INVALID : incomplete(code);
  }
  const translated = fromTypeScript(code);
  if (translated.code !== undefined) return lacksBody(code) ? incomplete(code) : COMPLETE;
  const early = translated.error && typesEndTooEarly(translated.error);
  return early && !hasElement(code) ? incomplete(code) : INVALID;
}

module.exports = { isComplete };
