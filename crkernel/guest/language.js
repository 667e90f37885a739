'use strict';
// What the worker knows of the language: TypeScript, the syntax of modules and bare objects, turned
// into code that the inspector can evaluate. Loaded with the first cell that needs it.

const vm = require('node:vm');
const { wordsFor } = require('./foreign.js');
const { decodeMappings, edit, typedPosition } = require('./mappings.js');
const { tokenize } = require('./tokens.js');

// What V8 says of modules, before it looks at the rest.
const NO_SCRIPT = /outside a module|^Unexpected token 'export'/;
const AsyncFunction = (async () => {}).constructor;

/** See parser.js, which is loaded with the first tree that is needed. */
function parse(code) {
  return require('./parser.js').parse(code);
}

/** The SyntaxError with which V8 refuses code as a cell; null if it is one. */
function refusalOf(code) {
  const body = code.replace(/^#!/, '//');
  try {
    new vm.Script(`async () => {\n${body}\n}`, { lineOffset: -1 });
    // Braces that close ours and open others would pass there.
    new AsyncFunction(body);
    return null;
  } catch (error) {
    return error;
  }
}

/** Whether V8 takes the code as a cell. */
function parses(code) {
  return refusalOf(code) === null;
}

/** What V8 or acorn said and where, in the user's terms: {message, line, column}. */
function complaint({ message, stack, loc }, layers) {
  if (loc) { // acorn's
    const at = { line: loc.line, column: loc.column + 1 };
    return { message: message.replace(/ \(\d+:\d+\)$/, ''), ...typedPosition(layers, at) };
  }
  const line = /:(\d+)\n/.exec(stack)?.[1];
  const caret = /^(\s*)\^+\s*$/m.exec(stack)?.[1];
  if (line === undefined || caret === undefined) return null;
  const at = { line: +line, column: caret.replace(/.*\n/s, '').length + 1 };
  return { message, ...typedPosition(layers, at) };
}

/** Code as a cell: {code, layers}, or {complaints} when it cannot be one. */
function asCell(code, layers = []) {
  const refusal = refusalOf(code);
  if (!refusal) return { code, layers };
  const complaints = [complaint(refusal, layers)];
  try {
    const script = require('./modules.js').asScript(code);
    if (script === null) return { complaints };
    const all = [...layers, script.layer];
    const again = refusalOf(script.code);
    if (!again) return { code: script.code, layers: all };
    complaints.push(complaint(again, all));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    complaints.push(complaint(error, layers));
  }
  return { complaints };
}

/** See typescript.js. */
function strip(code, transforms) {
  return require('./typescript.js').strip(code, transforms);
}

/** See merging.js; code that has no tree is refused later. */
function begunAnew(code) {
  try {
    return require('./merging.js').begunAnew(code);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { code, layer: [] };
  }
}

/** TypeScript as a cell, its types blanked out, else transformed; {error} is its parser's. */
function fromTypeScript(code, layers = []) {
  const { text } = strip(code);
  const stripped = text === undefined ? null : asCell(text, layers);
  if (stripped?.code !== undefined) return stripped;
  const { text: made, mappings, error } = strip(code, true);
  if (error) {
    return stripped ?? { error, complaints: [{ ...error, ...typedPosition(layers, error) }] };
  }
  const anew = begunAnew(made);
  const transformed = asCell(anew.code, [...layers, decodeMappings(mappings), anew.layer]);
  return transformed.code === undefined && stripped ? stripped : transformed;
}

/** Whether the last token of code is a semicolon, whatever comments follow. */
function endsInSemicolon(code) {
  return tokenize(code).findLast(({ kind }) => kind !== 'comment')?.text === ';';
}

/** Code in parentheses, if its braces may mean an object; else null. */
function inParentheses(code) {
  const first = tokenize(code).find(({ kind }) => kind !== 'comment');
  if (first?.text !== '{' || endsInSemicolon(code)) return null;
  return edit(`${code}\n)`, [{ start: 0, end: 0, text: '(' }]);
}

/** Code whose braces mean an object, as Node's REPL reads them, not a block; else null. */
function asObject(code) {
  const wrapped = inParentheses(code);
  return wrapped && parses(wrapped.code) ? { code: wrapped.code, layers: [wrapped.layer] } : null;
}

/** Whether something at these offsets is code, not a part of a string or comment. */
function hasTokenAt(code, offsets) {
  const wanted = new Set(offsets);
  return wanted.size > 0 && tokenize(code).some(({ start }) => wanted.has(start));
}

/**
 * The cell in place of code that means something else as it stands; null if it does not. At `angles`
 * type arguments may begin.
 */
function reread(code, angles) {
  const object = asObject(code);
  if (!hasTokenAt(code, angles)) return object;
  const plain = object ?? { code, layers: [] };
  const typed = fromTypeScript(plain.code, plain.layers);
  return typed.code === undefined || typed.code === plain.code ? object : typed;
}

/** Whether code is JavaScript as far as it goes. */
function endsTooEarly(code) {
  try {
    parse(code);
    return false;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return code.slice(error.pos).trim() === '';
  }
}

/** The first of the complaints that came farthest into the code: it knows best what was meant. */
function farthest(complaints) {
  let best = null;
  for (const one of complaints) {
    if (!one) continue;
    if (one.unsupported) return one;
    const farther = !best || one.line > best.line
      || (one.line === best.line && one.column > best.column);
    if (farther) best = one;
  }
  return best;
}

/** A complaint about what other tools understand and Node does not, in words that help; else null. */
function explained(code, complaints) {
  const lines = code.split('\n');
  for (const one of complaints) {
    if (!one) continue;
    const [line = '', ...below] = lines.slice(one.line - 1);
    const before = line.slice(0, one.column - 1);
    const behind = [line.slice(one.column - 1), ...below].join('\n');
    const message = wordsFor(before, behind);
    if (message) return { ...one, message };
  }
  return null;
}

/**
 * For a cell that V8 has refused: another one {code, layers} in its place, or a better {complaint}, or
 * neither when V8's own is the best. Null when what was wrong is not the language, but what earlier
 * cells have declared.
 */
function translate(code) {
  if (parses(code)) return null;
  const plain = asCell(code);
  if (plain.code !== undefined) return plain;
  const wrapped = inParentheses(code);
  const object = wrapped && fromTypeScript(wrapped.code, [wrapped.layer]);
  if (object?.code !== undefined) return object;
  const typed = fromTypeScript(code);
  if (typed.code !== undefined) return typed;
  const complaints = [...plain.complaints, ...typed.complaints];
  const [first] = plain.complaints;
  if (first === null) return {}; // braces that fit ours: the place is known when it is evaluated
  const blind = NO_SCRIPT.test(first?.message);
  // Of JavaScript that only ends too early V8 says it best, though not where it ends.
  const versed = typed.complaints.filter((one) => blind || !one?.atEnd || !endsTooEarly(code));
  const best = explained(code, complaints)
    ?? farthest([...(blind ? [] : [first]), ...versed, ...plain.complaints]);
  return best === first ? {} : { complaint: best };
}

/** The tree of a cell, and whether its semicolons are those that were typed; null if there is none. */
function treeOf(code) {
  try {
    return { tree: parse(code), text: code };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const { code: text, layers } = fromTypeScript(code);
  return text === undefined || text === code ? null : { tree: parse(text), text, made: layers[0] };
}

/**
 * Whether the semicolon at the end of a cell mutes its result: it does behind an expression,
 * whatever comments follow.
 */
function mutes(code) {
  const { tree, text, made } = treeOf(code) ?? {};
  const last = tree?.body.findLast(({ type }) => type !== 'EmptyStatement');
  if (last?.type !== 'ExpressionStatement') return false;
  return made ? endsInSemicolon(code) : text[last.end - 1] === ';';
}

module.exports = { mutes, reread, translate, parse, parses, fromTypeScript };
