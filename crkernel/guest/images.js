'use strict';
// Which bytes are an image, told by how they begin, and whether front ends can draw what is said to be one.

const { TypeError } = globalThis;
const { apply } = Reflect;
const { from: bufferFrom } = Buffer;
const { latin1Slice, readUInt32BE } = Buffer.prototype;
const { exec } = RegExp.prototype;
const { slice } = String.prototype;

const HEAD = 512; // bytes that are looked at: an SVG may begin with a declaration and comments
const SIZED = 24; // bytes of a PNG of which the last eight are its width and height
const NAMES = {
  __proto__: null,
  'image/png': 'PNG',
  'image/jpeg': 'JPEG',
  'image/gif': 'GIF',
  'image/webp': 'WebP',
  'image/svg+xml': 'SVG',
};
const SIGNATURES = [
  [/^\x89PNG\r\n\x1a\n/, 'image/png'],
  [/^\xff\xd8\xff/, 'image/jpeg'],
  [/^GIF8[79]a/, 'image/gif'],
  [/^RIFF[^]{4}WEBP/, 'image/webp'],
  [/^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^]*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg[\s>]/,
    'image/svg+xml'],
];

/** The MIME type of an image in a Buffer, or null. */
function imageMime(buffer) {
  const head = apply(latin1Slice, buffer, [0, buffer.length < HEAD ? buffer.length : HEAD]);
  for (let i = 0; i < SIGNATURES.length; i++) {
    if (apply(exec, SIGNATURES[i][0], [head])) return SIGNATURES[i][1];
  }
  return null;
}

/** The first bytes of an image in base64, which may be long. */
function headOf(base64) {
  return bufferFrom(apply(slice, base64, [0, 2 * HEAD]), 'base64');
}

/** Throws a TypeError if what stands in a bundle as an image is none of its type. */
function checkImage(mime, content) {
  const name = NAMES[mime];
  if (name === undefined) return; // not known here
  if (name === 'SVG') {
    if (apply(exec, /<(?:[\w-]+:)?svg[\s/>]/i, [content])) return;
    throw new TypeError(`the value of "${mime}" must be the markup of an <svg> element`);
  }
  const found = imageMime(headOf(content));
  if (found === mime) return;
  throw new TypeError(`the value of "${mime}" must be a ${name} image as bytes or base64`
    + `${found ? `, and is ${found}` : ''}`);
}

/** An image in words, such as `<PNG 640x480>`, for who sees text alone; null for other types. */
function imageWords(mime, content) {
  const name = NAMES[mime];
  if (name === undefined) return null;
  const head = name === 'PNG' ? headOf(content) : null;
  if (head === null || head.length < SIZED) return `<${name}>`;
  const size = (at) => apply(readUInt32BE, head, [at]);
  return `<${name} ${size(SIZED - 8)}x${size(SIZED - 4)}>`;
}

module.exports = { checkImage, imageMime, imageWords };
