'use strict';
// The global console, and tables as it draws them.

const { Console } = require('node:console');
const { Writable } = require('node:stream');
const { inspectOptions } = require('./audience.js');
const { emitDisplay } = require('./output.js');
const { tableOf } = require('./tables.js');

const { console, process } = globalThis;
const { apply } = Reflect;
const { keys } = Object;
const { repeat, replace, trimEnd } = String.prototype;

let drawn = '';
const canvas = new Writable({ decodeStrings: false });
canvas.write = (text) => {
  drawn += text;
  return true;
};
const painter = new Console({ stdout: canvas });

/** What console.table prints for some data, without the line's end. */
function boxOf(data, columns) {
  drawn = '';
  painter.table(data, columns);
  const box = apply(trimEnd, drawn, []);
  drawn = '';
  return box;
}

/**
 * Lets console write to our streams alone. Node's own global console reports each call to the
 * inspector as well, which keeps the last thousand arguments alive.
 */
function install() {
  const plain = new Console({
    stdout: process.stdout, stderr: process.stderr, inspectOptions,
  });
  for (const name of keys(plain)) {
    if (typeof plain[name] === 'function' && typeof console[name] === 'function') {
      console[name] = plain[name];
    }
  }
  const { log, group, groupEnd } = plain;
  let depth = 0; // of console.group, which indents what is printed
  console.group = console.groupCollapsed = (...label) => {
    apply(group, plain, label);
    depth += 1;
  };
  console.groupEnd = () => {
    apply(groupEnd, plain, []);
    if (depth > 0) depth -= 1;
  };
  console.table = function table(data, columns) {
    const text = boxOf(data, columns);
    const html = tableOf(data, { columns });
    if (html === null) {
      log(text);
      return;
    }
    emitDisplay({
      data: depth === 0 ? { 'text/plain': text, 'text/html': html } : {
        'text/plain': apply(replace, text, [/^/gm, apply(repeat, '  ', [depth])]),
        'text/html': `<div style="margin-left: ${2 * depth}ch">\n${html}\n</div>`,
      },
    });
  };
}

module.exports = { install, boxOf };
