'use strict';
// Who sees what the running cell shows: somebody at a notebook or at a console, or, while it runs
// unattended, whoever opens the result later; and what of it has colours.

const { env } = process;
const { defineProperty, deleteProperty, getPrototypeOf } = Reflect;
const LEVELS = { __proto__: null, 8: '2', 24: '3' }; // by bits of colour

let forced; // the level that libraries find
const audience = { at: 'unattended', colors: false, colorErrors: true, depth: 1 };

/** How values are written for it; console keeps this very object. */
const inspectOptions = { colors: false };

/**
 * Libraries that look for a terminal ask this where there is none. It stands behind the environment
 * and not in it: whoever reads what a child process prints would have to do with its colours.
 */
function forceColor(level) {
  if (level === forced) return;
  forced = level;
  const behind = getPrototypeOf(env);
  if (!level) deleteProperty(behind, 'FORCE_COLOR');
  else defineProperty(behind, 'FORCE_COLOR', { configurable: true, writable: true, value: level });
}

/** `colors`: of all, of errors, or of none. */
function setAudience(at = 'unattended', colors = 'errors') {
  audience.at = at;
  audience.colors = inspectOptions.colors = colors === 'all';
  audience.colorErrors = colors !== 'none';
  audience.depth = !audience.colors ? 1 : at === 'notebook' ? 24 : 8;
  forceColor(LEVELS[audience.depth]);
}

module.exports = { audience, inspectOptions, setAudience };
