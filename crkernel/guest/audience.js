'use strict';
// Who sees what the running cell shows: somebody at a notebook or at a console, or, while it runs
// unattended, whoever opens the result later; and what of it has colours.

const audience = { at: 'unattended', colors: false, colorErrors: true };

/** How values are written for it; console keeps this very object. */
const inspectOptions = { colors: false };

/** `colors`: of all, of errors, or of none. */
function setAudience(at = 'unattended', colors = 'errors') {
  audience.at = at;
  audience.colors = inspectOptions.colors = colors === 'all';
  audience.colorErrors = colors !== 'none';
}

module.exports = { audience, inspectOptions, setAudience };
