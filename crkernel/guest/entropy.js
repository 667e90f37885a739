'use strict';
// Randomness after a restore: a guest must not go on with the numbers of its checkpoint.

const { existsSync, openSync, readSync, closeSync } = require('node:fs');
const { setFlagsFromString } = require('node:v8');

const RESEED = '/usr/lib/crkernel-shims/reseed.so'; // in the image; tests run without it

const { Int32Array } = globalThis;
const { random } = Math;
const addon = { exports: {} };
if (existsSync(RESEED)) process.dlopen(addon, RESEED);

/**
 * Gives OpenSSL, and with it crypto, fresh entropy. In a guest that nobody has used before, one of
 * the golden root, Math.random() is seeded too; later that would break the sequence of a program.
 */
function renew(fresh) {
  if (typeof addon.exports === 'function') addon.exports();
  if (!fresh) return;
  const seed = new Int32Array(1);
  const descriptor = openSync('/dev/urandom');
  readSync(descriptor, seed);
  closeSync(descriptor);
  // V8 reads the flag when the first number is drawn; 0 means a seed of its own choice.
  setFlagsFromString(`--random-seed=${seed[0]}`);
  random();
  setFlagsFromString('--random-seed=0');
}

module.exports = { renew };
