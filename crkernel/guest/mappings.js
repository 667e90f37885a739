'use strict';
// Positions of a transformed cell, traced back to what the user typed.

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

/** The `mappings` of a source map as one list per line of [column, line, column], 0-based. */
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
      segments.push([generated, line, column]);
    }
    return segments;
  });
}

/** The typed {line, column} of a generated position; all are 1-based. */
function typedPosition(mappings, line, column) {
  const segments = mappings[line - 1];
  if (!segments?.length) return { line, column };
  let best = segments[0];
  for (let i = 1; i < segments.length && segments[i][0] < column; i++) best = segments[i];
  return { line: best[1] + 1, column: best[2] + 1 };
}

module.exports = { decodeMappings, typedPosition };
