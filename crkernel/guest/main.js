'use strict';
// The main thread of the Node guest: the scope in which cells run. A worker thread (worker.js)
// speaks with the supervisor, so that it answers even while a cell spins here. Cells are evaluated
// by an inspector session of this thread, from its event loop like any other callback, so a cell
// never cuts into a timer that is just running.

const path = require('node:path');
const { Worker, MessageChannel, SHARE_ENV } = require('node:worker_threads');

// The worker starts first: its boot runs beside ours.
const { port1: port, port2: workerPort } = new MessageChannel();
const worker = new Worker(path.join(__dirname, 'worker.js'), {
  workerData: { port: workerPort },
  transferList: [workerPort],
  stdout: true,
  stderr: true,
  env: SHARE_ENV,
  execArgv: [],
  trackUnmanagedFds: false,
});

const util = require('node:util');
const vm = require('node:vm');
const { Session } = require('node:inspector');
const { createRequire, findSourceMap } = require('node:module');
const entropy = require('./entropy.js');
const failure = require('./failure.js');
const fences = require('./fences.js');
const { makeUnwinder } = require('./unwind.js');
const { Carrier, ask } = require('./internals.js');
const {
  emit, installStreams, installConsole, installDisplay, ownBundle,
} = require('./output.js');

const { apply } = Reflect;
const { inspect } = util;
const { keys, defineProperty } = Object;
const { includes } = String.prototype;
const { chdir, cwd } = process;
const { postMessage } = Object.getPrototypeOf(port);
const { post } = Session.prototype;

const session = new Session();
session.connect();
const carrier = new Carrier(session);
const internalBinding = carrier.variable(util._extend, 'internalBinding');
const unwinder = makeUnwinder(internalBinding);
const { privateSymbols } = internalBinding('util');
const settings = { colors: true };
let importsWork = false;
let directory = null;
let requireHere = null;

function define(name, value) {
  defineProperty(globalThis, name, {
    configurable: true, writable: true, enumerable: false, value,
  });
}

/** Lets require and __dirname follow the working directory, unless the user replaced them. */
function followDirectory() {
  let now;
  try {
    now = cwd();
  } catch {
    return; // the directory was removed: keep what we have
  }
  if (now === directory) return;
  directory = now;
  if (requireHere === null || globalThis.require === requireHere) {
    requireHere = createRequire(`${now}/cell.js`);
    define('require', requireHere);
    define('__dirname', now);
  }
}

/**
 * Lets import() work in code that the inspector evaluates. Node offers that only to vm.Script; for
 * all other scripts it asks a private property of the global object, which the public API sets for
 * the contexts of vm.createContext alone. Called before the first cell that says "import".
 */
function enableImports() {
  importsWork = true;
  const loader = vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  globalThis[privateSymbols.host_defined_option_symbol] = loader;
  // The first use of this loader warns that it is experimental: let it warn nobody.
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    new vm.Script('import("node:fs")', { importModuleDynamically: loader }).runInThisContext();
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** The MIME bundle that shows a value; throws what the value's own code throws. */
function bundleOf(value) {
  return { data: ownBundle(value) ?? { 'text/plain': inspect(value) }, metadata: {} };
}

function failed(thrown, evaluation) {
  return failure.describe(thrown, settings.colors, evaluation);
}

/** Runs code in the global scope under the name of its cell; `done` gets {value} or {error}. */
function evaluate({ code, typed = code, label, group }, done) {
  apply(post, session, ['Runtime.evaluate', {
    expression: `${code}\n//# sourceURL=${failure.scriptName(label)}`,
    replMode: true,
    awaitPromise: true,
    silent: true,
    objectGroup: group,
  }, (refusal, answer) => {
    // A termination refuses the evaluation; the worker, which ordered it, answers for us.
    if (refusal) return;
    const { result, exceptionDetails: details } = answer;
    if (!details) {
      done({ value: carrier.valueOf(result) });
      return;
    }
    const thrown = carrier.valueOf(details.exception ?? result);
    done({ error: failed(thrown, { details, code: typed, label }) });
  }]);
}

/** Evaluates the named expressions one after the other and hands over their table. */
function evaluateAll(expressions, group, done) {
  const table = {};
  const names = keys(expressions ?? {});
  const next = (i) => {
    if (i === names.length) {
      done(table);
      return;
    }
    const source = { code: expressions[names[i]], label: 'expression', group };
    evaluate(source, ({ error, value }) => {
      table[names[i]] = error ? { status: 'error', error } : shown(value);
      next(i + 1);
    });
  };
  next(0);
}

function shown(value) {
  try {
    return { status: 'ok', ...bundleOf(value) };
  } catch (thrown) {
    return { status: 'error', error: failed(thrown) };
  }
}

function execute({ id, code, typed, cell, silent, user_expressions: expressions, positions }) {
  followDirectory();
  if (!importsWork && apply(includes, code, ['import'])) enableImports();
  if (positions) failure.setPositions(cell, positions);
  const group = `cell ${id}`;
  evaluate({ code, typed, label: cell, group }, ({ error, value }) => {
    const show = value === undefined || silent ? { status: 'ok' } : shown(value);
    if (error || show.error) {
      finish({ id, status: 'error', error: error ?? show.error }, group);
      return;
    }
    const { data, metadata } = show;
    const result = data ? { data, metadata } : null;
    evaluateAll(expressions, group, (table) => {
      finish({ id, status: 'ok', result, user_expressions: table }, group);
    });
  });
}

function finish(reply, objectGroup) {
  answer(reply);
  ask(session, 'Runtime.releaseObjectGroup', { objectGroup });
  ask(session, 'Runtime.discardConsoleEntries');
}

function answer(reply) {
  apply(postMessage, port, [reply]);
}

function configure({ id, colors, cwd: to }) {
  if (colors !== undefined) settings.colors = colors;
  try {
    if (to !== undefined) chdir(to);
    followDirectory();
    answer({ id, ok: true });
  } catch (thrown) {
    answer({ id, status: 'error', error: failed(thrown) });
  }
}

const operations = {
  __proto__: null,
  execute,
  configure,
  hello: ({ id, restored, fresh }) => {
    if (restored) entropy.renew(fresh);
    answer({ id, ok: true });
  },
  settle: unwinder.settle,
};

/** Reports what nobody caught; the guest lives on. */
function reporter(origin) {
  return (thrown) => emit({ event: 'error', ...failed(thrown), origin });
}

installStreams();
installConsole();
installDisplay(inspect);
fences.install(internalBinding, () => emit({ event: 'fence' }));
failure.install({
  setPrepare: carrier.variable(findSourceMap, 'setInternalPrepareStackTrace'),
  prepare: carrier.variable(findSourceMap, 'defaultPrepareStackTrace'),
  arrow: privateSymbols.arrow_message_private_symbol,
});
process.on('uncaughtException', reporter('uncaughtException'));
process.on('unhandledRejection', reporter('unhandledRejection'));
process.argv.length = 1;
process.mainModule = undefined;
for (const file of keys(require.cache)) delete require.cache[file];
followDirectory();
// The worker takes this away again, to call it before it terminates what runs here.
define('crkernelUnwind', unwinder.loosen);
port.on('message', (request) => {
  try {
    operations[request.op](request);
  } catch (thrown) {
    answer({ id: request.id, status: 'error', error: failed(thrown) });
  }
});
// Without its worker the guest is deaf: better it ends, so that its supervisor notices.
const { exit } = process;
worker.on('exit', () => exit(70));
worker.unref();

