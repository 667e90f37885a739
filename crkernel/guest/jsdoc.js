'use strict';
// Comments of the user's functions. V8 keeps a function's source but not the comment before it; the
// cell in which it was typed has both.

const COMMENT = /\/\*\*((?:[^*]|\*(?!\/))*)\*\/\s*([^]*)$/;
// What can stand between a comment and the source of what it is about: `export abstract`, `const f =`,
// `static`, `run:`.
const BETWEEN = new RegExp('^(?:(?:abstract|const|declare|default|export|let|override|private|protected'
  + '|public|readonly|static|var)\\s+)*(?:[\\p{ID_Continue}$.#\'"[\\]]+\\s*(?::[^;{}]*)?[=:]\\s*)?$', 'u');

/** The text of a comment without its stars. */
function textOf(body) {
  return body.split('\n').map((line) => line.replace(/^\s*\*? ?/, '').trimEnd()).join('\n').trim();
}

/** The comment on the function that follows this code; '' if there is none. */
function commentAtEnd(code) {
  const start = code.lastIndexOf('/**');
  const [, body, between] = (start >= 0 && COMMENT.exec(code.slice(start))) || [];
  return body !== undefined && BETWEEN.test(between) ? textOf(body) : '';
}

module.exports = { commentAtEnd };
