'use strict';
// The main thread of the Node guest: the scope in which cells run. A worker thread (worker.js)
// speaks with the supervisor, so that it answers even while a cell spins here. Cells are evaluated
// by an inspector session of this thread, from its event loop like any other callback, so a cell
// never cuts into a timer that is just running.

const path = require('node:path');
const { Worker, MessageChannel, SHARE_ENV } = require('node:worker_threads');

// The worker starts first: its boot runs beside ours.
const { port1: port, port2: workerPort } = new MessageChannel();
const { port1: answers, port2: answersPort } = new MessageChannel();
const arrived = new Int32Array(new SharedArrayBuffer(4));
const worker = new Worker(path.join(__dirname, 'worker.js'), {
  workerData: { port: workerPort, answers: answersPort, arrived },
  transferList: [workerPort, answersPort],
  stdout: true,
  stderr: true,
  env: SHARE_ENV,
  execArgv: [],
  resourceLimits: { maxYoungGenerationSizeMb: 1 }, // what it has touched is in each checkpoint
  trackUnmanagedFds: false,
});

const util = require('node:util');
const { Session } = require('node:inspector');
const { createRequire, findSourceMap } = require('node:module');
const cells = require('./cells.js');
const entropy = require('./entropy.js');
const failure = require('./failure.js');
const fences = require('./fences.js');
const comms = require('./comms.js');
const imports = require('./imports.js');
const input = require('./input.js');
const measuring = require('./measure.js');
const results = require('./results.js');
const stacks = require('./stacks.js');
const { makeUnwinder } = require('./unwind.js');
const { Carrier, ask } = require('./internals.js');
const { emit, emitText, installStreams } = require('./output.js');
const { audience, setAudience } = require('./audience.js');
const consoles = require('./console.js');
const { define } = require('./define.js');
const displays = require('./display.js');
const { present } = require('./presentation.js');
const { makeProbe } = require('./probe.js');
const { leaveLine } = require('./progress.js');

const realm = globalThis;
const { apply } = Reflect;
const { isPromise } = util.types;
const { keys, getPrototypeOf } = Object;
const { prototype: SyntaxErrors } = SyntaxError;
const { exec } = RegExp.prototype;
const { process } = realm;
const { chdir, cwd, listenerCount } = process;
const later = setImmediate;
const { postMessage } = Object.getPrototypeOf(port);
const { post } = Session.prototype;
const { then } = Promise.prototype;

const session = new Session();
session.connect();
const carrier = new Carrier(session);
const internalBinding = carrier.variable(util._extend, 'internalBinding');
const unwinder = makeUnwinder(internalBinding);
const { getPromiseDetails, privateSymbols } = internalBinding('util');
const stackTools = {
  setPrepare: carrier.variable(findSourceMap, 'setInternalPrepareStackTrace'),
  prepare: carrier.variable(findSourceMap, 'defaultPrepareStackTrace'),
};
const MAY_MUTE = /;\s*(?:$|\/[/*])/; // a semicolon at the end, or before a comment
let directory = null;
let requireHere = null;
let asked = null; // what waits for the worker to tell whether a result is muted
let running = null; // the cell that runs, as an object that is equal to no other
let handling = null; // the message of a comm whose handler runs, or left microtasks

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
  if (requireHere === null || realm.require === requireHere) {
    requireHere = createRequire(`${now}/cell.js`);
    define('require', requireHere);
    define('__dirname', now);
  }
}

function failed(thrown, evaluation) {
  stacks.note(thrown);
  return failure.describe(thrown, audience.colorErrors, evaluation);
}

/**
 * Whether V8 refused to compile an evaluation, so that nothing of it has run. Then the inspector
 * names a script without a stack; what is thrown comes as a rejection, with both or neither.
 */
function isRefused({ scriptId, stackTrace }, thrown) {
  return scriptId !== undefined && stackTrace === undefined
    && getPrototypeOf(thrown) === SyntaxErrors;
}

/**
 * Runs code in the global scope under the name of its cell; `done` gets {value}, or {error}, what was
 * `thrown`, and whether it was `refused` by V8. `group` is where the inspector holds what is no
 * primitive.
 */
function evaluate({ code, typed = code, label, group }, done) {
  apply(post, session, ['Runtime.evaluate', {
    expression: `${code}\n//# sourceURL=${cells.scriptName(label)}`,
    replMode: true,
    awaitPromise: true,
    silent: true,
    objectGroup: group.name,
  }, (refusal, answer) => {
    // A termination refuses the evaluation; the worker, which ordered it, answers for us.
    if (refusal) return;
    const { result, exceptionDetails: details } = answer;
    const remote = details?.exception ?? result;
    group.holds ||= remote.objectId !== undefined;
    const value = carrier.valueOf(remote);
    if (!details) {
      done({ value });
      return;
    }
    const refused = isRefused(details, value);
    const error = failed(value, { details, refused, code: typed, label });
    done({ error, thrown: value, refused });
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
      const take = (entry) => {
        table[names[i]] = entry;
        next(i + 1);
      };
      if (error) take({ status: 'error', error });
      else show(value, {}, take);
    });
  };
  next(0);
}

/** Hands over how a value is shown, or what its own code throws; at once, if that needs no wait. */
function show(value, options, done) {
  const shown = (data) => done({ status: 'ok', data, metadata: {} });
  const refuse = (thrown) => done({ status: 'error', error: failed(thrown) });
  try {
    const data = present(value, { ...options, tell: reportPresentation });
    if (isPromise(data)) apply(then, data, [shown, refuse]);
    else shown(data);
  } catch (thrown) {
    refuse(thrown);
  }
}

/** Tells that a value is shown as text since its own presentation failed. */
function reportPresentation(thrown) {
  const lines = failed(thrown).traceback;
  let text = 'shown as text, since the presentation that the value brings failed:\n';
  for (let i = 0; i < lines.length; i++) text += `${lines[i]}\n`;
  emitText('stderr', text);
}

function execute(request) {
  const {
    id, code, typed = code, source = typed, cell, silent, user_expressions: expressions, layers,
    measure,
  } = request;
  if (request.again) {
    stacks.retract();
    results.retractError();
  }
  setAudience(request.audience, request.colors);
  followDirectory();
  imports.prepare(code, { session, carrier, symbols: privateSymbols, restack });
  cells.remember(cell, source, layers); // magics and all: in `typed` they are blanks
  const group = { name: `cell ${id}`, holds: false };
  const run = { id, group };
  const fail = (error, refused = false) => afterDisplays(() => {
    finish(run, { id, status: 'error', error, refused });
  });
  const succeed = (result) => afterDisplays(() => {
    evaluateAll(expressions, group, (table) => {
      finish(run, { id, status: 'ok', result, user_expressions: table });
    });
  });
  if (!silent) results.begin(cell, source);
  displays.takePending();
  running = run;
  input.begin();
  const shown = { colors: audience.colors, name: `Out[${cell}]` };
  const reveal = (value) => show(value, shown, ({ error, data, metadata }) => {
    if (error) fail(error);
    else succeed(keys(data).length ? { data, metadata } : null);
  });
  const measured = measure?.kind === 'time' ? measuring.begin() : null;
  evaluate({ code, typed: source, label: cell, group }, ({ error, thrown, refused, value }) => {
    run.measured = measured?.();
    if (error) {
      results.takeError(thrown);
      fail(error, refused);
    } else if (measure?.kind === 'timeit') {
      repeat(value, run, measure, succeed, fail);
    } else if (value === undefined || silent) {
      succeed(null);
    } else {
      whetherMuted(typed, run, (muted) => {
        results.take(cell, value, muted);
        if (muted) succeed(null);
        else reveal(value);
      });
    }
  });
}

/** Tells `done` if the end of a cell mutes its result; the worker has the parser, if one is needed. */
function whetherMuted(code, run, done) {
  if (!apply(exec, MAY_MUTE, [code])) {
    done(false);
    return;
  }
  asked = { run, done };
  apply(postMessage, port, [{ ask: 'mutes', id: run.id, code }]);
}

/** Calls what %timeit is to measure over and over, as an event of its own. */
function repeat(f, run, measure, succeed, fail) {
  const take = (measured) => {
    run.measured = measured;
    succeed(null);
  };
  const refuse = (thrown) => {
    results.takeError(thrown);
    fail(failed(thrown));
  };
  later(() => apply(then, measuring.timeit(f, measure), [take, refuse]));
}

/** Calls `next` once the displays that the cell has begun are shown: they belong before its end. */
function afterDisplays(next) {
  const pending = displays.takePending();
  let waited = 0;
  const step = () => {
    if (waited === pending.length) next();
    else apply(then, pending[waited++], [step]);
  };
  step();
}

/** Answers for a cell, unless it was interrupted or has failed before. */
function finish(run, reply) {
  if (run === running) {
    running = null;
    input.end();
    leaveLine();
    answer({ ...reply, measured: run.measured });
  }
  const { name: objectGroup, holds } = run.group;
  if (holds) ask(session, 'Runtime.releaseObjectGroup', { objectGroup });
  ask(session, 'Runtime.discardConsoleEntries');
}

/** Ends the running cell with an error, whatever it waits for. */
function failRunning(thrown) {
  if (running) finish(running, { id: running.id, status: 'error', error: failed(thrown) });
}

function answer(reply) {
  apply(postMessage, port, [reply]);
}

function configure({ id, cwd: to }) {
  try {
    if (to !== undefined) chdir(to);
    followDirectory();
    answer({ id, ok: true });
  } catch (thrown) {
    answer({ id, status: 'error', error: failed(thrown) });
  }
}

/** Answers for the handler of a comm's message: what is shown from here on is not its own. */
function endHandler() {
  const { id, delivery, known } = handling;
  handling = null;
  emit({ event: 'handler', delivery, begins: false });
  answer({ id, known });
}

const operations = {
  __proto__: null,
  execute,
  configure,
  hello: ({ id, restored, fresh }) => {
    if (restored) {
      entropy.renew(fresh);
      displays.renewIds();
    }
    answer({ id, ok: true });
  },
  abandon: ({ id, run }) => {
    if (running?.id === run) {
      running = null;
      input.end(true);
      leaveLine();
    }
    answer({ id, ok: true });
  },
  comm: (request) => {
    const { id, delivery } = request;
    const mine = { id, delivery, known: true };
    // What the handler leaves to microtasks still belongs to it. An interrupt cannot stop this.
    later(() => {
      if (mine === handling) endHandler();
    });
    handling = mine;
    emit({ event: 'handler', delivery, begins: true });
    mine.known = comms.deliver(request);
  },
  settle: unwinder.settle,
  stack: ({ id }) => answer({ id, lines: stacks.whole() }),
  told: ({ id, muted }) => {
    if (asked?.run.id === id && asked.run === running) asked.done(muted);
    asked = null;
  },
};

/** Makes stacks show the user's frames; Node forgets it when it turns to source maps. */
function restack() {
  stacks.install(stackTools);
}

/** What reports an error that is no cell's; the guest lives on. */
function reporter(origin) {
  return (thrown) => emit({ event: 'error', ...failed(thrown), origin });
}

/** Reports what nobody caught, unless the user has a handler for it beside this one: as in Node. */
function reportUncaught(event) {
  const report = reporter(event);
  process.on(event, (thrown) => {
    if (apply(listenerCount, process, [event]) === 1) report(thrown);
  });
}

installStreams(carrier.variable(util.styleText, 'lazyUtilColors')());
consoles.install();
displays.install(reportPresentation);
results.install();
comms.install(reporter('comm handler'));
input.install({ answers, arrived, fail: failRunning });
fences.install(internalBinding, () => emit({ event: 'fence' }));
restack();
failure.install(privateSymbols.arrow_message_private_symbol);
reportUncaught('uncaughtException');
reportUncaught('unhandledRejection');
process.argv.length = 1;
process.mainModule = undefined;
for (const file of keys(require.cache)) delete require.cache[file];
followDirectory();
// The worker takes these away again: one to call before it terminates what runs here, one to look
// at the user's values with.
define('crkernelUnwind', unwinder.loosen);
const { map: builtins } = carrier.variable(process.getBuiltinModule, 'BuiltinModule');
define('crkernelProbe', makeProbe(session, carrier, builtins, getPromiseDetails));
port.on('message', (request) => {
  if (handling) endHandler(); // its microtasks have run: more than one request may come in a turn
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

