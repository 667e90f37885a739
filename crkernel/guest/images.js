'use strict';
// Which bytes are an image, told by how they begin.

const { apply } = Reflect;
const { latin1Slice } = Buffer.prototype;
const { exec } = RegExp.prototype;

const HEAD = 512; // bytes that are looked at: an SVG may begin with a declaration and comments
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

module.exports = { imageMime };
