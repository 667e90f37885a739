'use strict';
// Whether code is complete, so that Enter runs it, or how it goes on.

const { parse, parses, fromTypeScript } = require('./language.js');

/** Whether TypeScript's parser did: it then has no place in the code to point at with a caret. */
function typesEndTooEarly({ message, stack }) {
  return /^Unterminated template/.test(message) || !/^\s*\^+\s*$/m.test(stack);
}

/** Whether acorn stopped because the code ended too early, judged as Node's REPL does. */
function endsTooEarly(error, code) {
  if (/^Unterminated (template|comment)/.test(error.message)) return true;
  if (/^Unterminated string constant/.test(error.message)) return /\\\r?\n?$/.test(code);
  return error.pos === code.length;
}

function incomplete(code) {
  const last = code.trimEnd().split('\n').pop();
  const indent = /^[ \t]*/.exec(last)[0];
  return { status: 'incomplete', indent: /[[{(]$/.test(last) ? `${indent}  ` : indent };
}

/** The answer to is_complete. */
function isComplete(code) {
  const valid = parses(code) && !/\breturn\b/.test(code);
  if (valid) return { status: 'complete', indent: '' };
  try {
    parse(code);
    return { status: 'complete', indent: '' };
  } catch (error) {
    if (endsTooEarly(error, code)) return incomplete(code);
  }
  const translated = fromTypeScript(code);
  if (translated.code !== undefined) return { status: 'complete', indent: '' };
  if (translated.error && typesEndTooEarly(translated.error)) return incomplete(code);
  return { status: 'invalid', indent: '' };
}

module.exports = { isComplete };
