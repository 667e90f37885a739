'use strict';
// Positions of generated code, traced back to what the user typed. A layer holds what one step of
// the translation did: for a line, its segments [column, line, column, copied], generated before
// typed, 0-based. A line without segments stayed as it was.

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** The signed numbers of one segment of a source map. */
function decodeSegment(segment) {
  const numbers = [];
  let value = 0;
  let shift = 0;
  for (const character of segment) {
    const digit = DIGITS.indexOf(character);
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    numbers.push(value & 1 ? -(value >> 1) : value >> 1);
    value = 0;
    shift = 0;
  }
  return numbers;
}

/** The layer of a source map, of its `mappings`. */
function decodeMappings(mappings) {
  let line = 0;
  let column = 0;
  return mappings.split(';').map((text) => {
    let generated = 0;
    const segments = [];
    for (const segment of text.split(',')) {
      const [step, , lines, columns] = decodeSegment(segment);
      if (step === undefined) continue;
      generated += step;
      if (lines === undefined) continue;
      line += lines;
      column += columns;
      segments.push([generated, line, column, false]);
    }
    return segments;
  });
}

/** Where an offset lies in a text, 0-based. */
function locate(text, offset) {
  const begin = text.lastIndexOf('\n', offset - 1) + 1;
  let line = 0;
  for (let at = text.indexOf('\n'); at >= 0 && at < begin; at = text.indexOf('\n', at + 1)) line += 1;
  return { line, column: offset - begin };
}

/**
 * Code after edits {start, end, text}, which are in order and hold no line breaks, as {code, layer}.
 * Line breaks of what they replace stay behind the new text, so that every line keeps its number.
 */
function edit(code, edits) {
  let done = '';
  let at = 0;
  const layer = [];
  const note = (offset, copied) => {
    const typed = locate(code, offset);
    const { line, column } = locate(done, done.length);
    (layer[line] ??= [[0, line, 0, true]]).push([column, typed.line, typed.column, copied]);
  };
  for (const { start, end, text } of edits) {
    done += code.slice(at, start);
    note(start, false);
    done += text + code.slice(start, end).replace(/[^\n]/g, '');
    note(end, true);
    at = end;
  }
  return { code: done + code.slice(at), layer };
}

function step(layer, { line, column }) {
  const segments = layer[line - 1];
  if (!segments?.length) return { line, column };
  let best = segments[0];
  for (let i = 1; i < segments.length && segments[i][0] < column; i++) best = segments[i];
  const beyond = best[3] ? column - 1 - best[0] : 0;
  return { line: best[1] + 1, column: best[2] + 1 + beyond };
}

/** The typed {line, column} of a generated one, 1-based, through layers, the first one first. */
function typedPosition(layers, position) {
  let typed = position;
  for (let i = layers.length - 1; i >= 0; i--) typed = step(layers[i], typed);
  return typed;
}

module.exports = { decodeMappings, edit, typedPosition };
