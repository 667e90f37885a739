'use strict';
// Comments of the user's functions. V8 keeps a function's source but not the comment before it, so
// comments are picked up when their cell runs; they are in the guest's memory like the functions.

const COMMENT = /\/\*\*((?:[^*]|\*(?!\/))*)\*\/\s*(?=([^]{0,200}))/g;
const NAMED = /^(?:(?:export|default|async|static|const|let|var|function\b\s*\*?|class|get|set)\s+|\*\s*)*([\p{ID_Start}$_][\p{ID_Continue}$]*)/u;

const comments = new Map(); // name -> {text, head: the code behind the comment}

/** The text of a comment without its stars. */
function textOf(body) {
  return body.split('\n').map((line) => line.replace(/^\s*\*? ?/, '').trimEnd()).join('\n').trim();
}

/** Takes the comments out of a cell's code. */
function collect(code) {
  for (const [, body, head] of code.matchAll(COMMENT)) {
    const name = NAMED.exec(head)?.[1];
    if (name) comments.set(name, { text: textOf(body), head: dense(head) });
  }
}

function dense(text) {
  return text.replace(/\s+/g, '');
}

/** The comment on the function of that name and source; '' if there was none. */
function commentOn(name, source) {
  const comment = comments.get(name);
  if (!comment) return '';
  // Up to the parameters: after those may be types, which are gone from the source.
  const start = dense(source.slice(0, 200)).split('(', 1)[0];
  return comment.head.includes(start) ? comment.text : '';
}

module.exports = { collect, commentOn };
