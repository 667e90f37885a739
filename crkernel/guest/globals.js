'use strict';
// What inspections tell of the globals that this kernel adds: the shape is that of typings.js.

const options = 'options?: { display_id?: string, update?: boolean }';
const shown = (type) => `Shows ${type}. Also a tag of templates, and like display() otherwise.`;

const entry = (signature, text, kind = 'function') => ({ kind, signatures: [signature], text });
const family = {
  html: 'HTML',
  markdown: 'Markdown',
  latex: 'LaTeX',
  svg: 'an SVG image',
  png: 'a PNG image, of bytes or base64',
  jpeg: 'a JPEG image, of bytes or base64',
  javascript: 'nothing by itself: the front end runs the code, if it trusts the notebook',
  text: 'plain text',
  json: 'a value as a tree',
  vega: 'a Vega-Lite chart',
  table: 'records or rows as a table',
};
const table = 'data: any, options?: { columns?: string[], rows?: number, display_id?: string }';
const members = Object.entries(family).map(([name, type]) => {
  return [`display.${name}`, entry(`display.${name}(value: any, ${options}): Handle`, shown(type))];
});

const clears = (name) => entry(
  `${name}(wait = false): void`,
  'Removes what the cell has shown; with `wait`, when there is something new to show.',
);
const turns = (name) => entry(
  `${name}(what: number | Iterable, options?: { label?: string, total?: number })`,
  'A bar. Of a total it is turned by hand: update(n), tick(), done(), stop(). Of something to '
  + 'iterate it turns with the loop.',
);

module.exports = {
  __proto__: null,
  ...Object.fromEntries(members),
  display: entry(
    `display(value: any, ${options} & { mime?: string }): Handle`,
    'Shows a value now: by its own presentation (Symbol.for("Jupyter.display"), toHtml() and the '
    + 'like), or as the MIME type says. The handle has update(value) and clear().',
  ),
  'display.table': entry(`display.table(${table}): Handle`, shown(family.table)),
  'display.progress': turns('display.progress'),
  progress: turns('progress'),
  clearOutput: clears('clearOutput'),
  clear_output: clears('clear_output'),
  input: entry('input(prompt = ""): Promise<string>', 'Asks the person at the front end.'),
  'input.password': entry(
    'input.password(prompt = ""): Promise<string>', 'Asks, and shows nothing of the answer.',
  ),
  prompt: entry(
    'prompt(message = "", initial?: string): string | null',
    'Asks, and blocks until there is an answer; null at the end of input.',
  ),
  confirm: entry(
    'confirm(message = ""): boolean', 'Asks a question of yes or no, and blocks meanwhile.',
  ),
  alert: entry('alert(message = ""): void', 'Shows a message, and blocks until it was read.'),
  'comm.open': entry(
    'comm.open(target: string, data?: any, options?: object): Comm',
    'Opens a comm to what the front end has registered under the name `target`.',
  ),
  'comm.target': entry(
    'comm.target(name: string, handler: (comm: Comm, message: object) => void): void',
    'Lets the front end open comms: the handler gets each.',
  ),
};
