'use strict';
// The worker thread of the Node guest: reads requests on fd 3, writes replies on fd 4, and asks the
// main thread for whatever needs the user's scope.

const { workerData } = require('node:worker_threads');
const { readlinkSync } = require('node:fs');
const { Socket } = require('node:net');
const { setTimeout: sleep } = require('node:timers/promises');
const { Session } = require('node:inspector');
const { writeFrame, FrameReader } = require('./frames.js');
const { unblock } = require('./blocked.js');
const { pointAt } = require('./cells.js');
const { typedPosition } = require('./mappings.js');

const REPLIES = 4;
const HELLO_TIMEOUT = 5000; // ms
const IDLE_TIMEOUT = 60; // ms in which a main thread that is not stuck answers
const STOP_TIMEOUT = 40; // ms given to each try to stop it
const ATTEMPTS = 20; // terminations tried before an interrupt gives up

// Code that means something else as a cell than as a script: braces that are an object, type
// arguments that are two comparisons. Of operators these have only what types have.
// Arguments are looked for behind each angle: the next ones may be in what looks like some, a comment.
const BLANK = /\s+|\/\/[^\n]*\n|\/\*[^]*?\*\//y;
const TYPE_ARGUMENTS = new RegExp(String.raw`[\w$)\]\x80-\uffff]<(?=(?:[\w$.,:'"{}[\]\s\x80-\uffff]`
  + String.raw`|\|(?!\|)|&(?!&)|[<>](?!=)|\([\w$.,:\s]*\)\s*=>){1,300}?>[(\x60])`, 'g');

const { port, answers, arrived } = workerData;
const session = new Session();
session.connectToMainThread();

const waiting = new Map(); // id of a request to the main thread -> what takes its reply
let running = null; // the execute request in flight
let probes = 0;
let silent = 0; // how many silent cells there were
let builtins = new Set(); // names of the global object before anyone has used it
let termination = null; // pending until something has been terminated
let probe = null; // remote id of the main thread's function that looks at the user's values
let unwinder = null; // remote id of the main thread's function to call before a termination

function reply(message) {
  writeFrame(REPLIES, message);
}

function post(method, params) {
  return new Promise((resolve, reject) => {
    session.post(method, params, (error, result) => (error ? reject(error) : resolve(result)));
  });
}

/** Asks the main thread; null if no answer comes within `timeout` ms. */
function askMain(message, timeout) {
  return new Promise((resolve) => {
    const timer = timeout && setTimeout(() => finish(null), timeout);
    const finish = (answer) => {
      clearTimeout(timer);
      waiting.delete(message.id);
      resolve(answer);
    };
    waiting.set(message.id, finish);
    port.postMessage(message);
  });
}

function mainAnswers(timeout) {
  probes += 1;
  return askMain({ id: `probe ${probes}`, op: 'hello' }, timeout);
}

/** The reply to a cell that does not compile, in the words of who got farthest with it. */
function refused(code, cell, { message, line, column }) {
  const error = failure('SyntaxError', message);
  const spot = [`cell ${cell}:${line}:${column}`, ...pointAt(code, line, column)];
  return { status: 'error', error: { ...error, traceback: [...spot, ...error.traceback] } };
}

/** Whether the first that is no comment or blank is a brace. */
function beginsWithBrace(code) {
  BLANK.lastIndex = 0;
  let at;
  do at = BLANK.lastIndex; while (BLANK.test(code));
  return code[at] === '{';
}

/** The parts that few cells need are loaded when one does. */
function language() {
  return require('./language.js');
}

/** Has the main thread run what was made of a cell, whichever way earlier cells declared its names. */
async function run(request) {
  const answer = await askMain(request);
  if (!answer.refused) return answer;
  const { mayBeRefused, reconcile } = require('./redeclaring.js');
  const other = mayBeRefused(answer) ? await reconcile(request.code, post) : null;
  if (other?.hint) answer.error.traceback.push(other.hint);
  if (other?.code === undefined) return answer;
  const layers = [...(request.layers ?? []), other.layer];
  return askMain({ ...request, code: other.code, layers, again: true });
}

/**
 * Runs a cell as what it is: as it stands if V8 takes it, else as what can be made of it. It runs
 * once: only of what V8 refused to compile is another form tried.
 */
async function runAsCell(request) {
  const { code, typed = code, source = typed, layers = [] } = request;
  const under = (made) => made && { ...made, layers: [...layers, ...made.layers] };
  const angles = Array.from(code.matchAll(TYPE_ARGUMENTS), ({ index }) => index + 1);
  const doubtful = angles.length > 0 || beginsWithBrace(code);
  const first = doubtful ? under(language().reread(code, angles)) : null;
  const answer = await run({ ...request, ...first, typed });
  if (first || !answer.refused) return answer;
  const other = language().translate(code);
  if (other?.complaint) {
    const at = typedPosition(layers, other.complaint);
    return refused(source, request.cell, { ...other.complaint, ...at });
  }
  if (other?.code === undefined) return answer;
  return run({ ...request, ...under(other), typed, again: true });
}

/** A silent cell has no number of its own, so its code must not pass for that of another one. */
function labelled(request) {
  if (!request.silent) return request;
  silent += 1;
  return { ...request, cell: `silent-${silent}` };
}

async function execute(given) {
  if (running) {
    return { status: 'error', error: failure('Busy', 'another cell is still running') };
  }
  const request = labelled(given.measure ? require('./timed.js').prepare(given) : given);
  running = request;
  try {
    const { refused, ...answer } = await runAsCell(request);
    if (answer.status === 'error' && !refused && !answer.error.interrupted) {
      await require('./uncovering.js').uncover(request.code, builtins, post);
    }
    return answer;
  } finally {
    if (running === request) running = null;
  }
}

function failure(name, message) {
  return { name, message, code: null, traceback: [`${name}: ${message}`], interrupted: false };
}

/**
 * Stops waiting for the running cell. Of the two functions that it returns the first ends that
 * cell as interrupted, once the main thread has shown the rest of it; the second waits for it again,
 * and a reply that has come meanwhile counts then.
 */
function detach() {
  const { id } = running ?? {};
  const finish = waiting.get(id);
  if (!finish) return [async () => {}, () => {}];
  let late = null;
  waiting.set(id, (answer) => {
    late = answer;
  });
  const error = failure('Interrupted', 'the cell was interrupted');
  const end = async () => {
    await askMain({ id: `abandon ${id}`, op: 'abandon', run: id }, STOP_TIMEOUT);
    finish({ status: 'error', error: { ...error, interrupted: true } });
  };
  const attach = () => (late ? finish(late) : waiting.set(id, finish));
  return [end, attach];
}

/** Terminates what the main thread runs; true once that is over and the main thread answers. */
async function terminate() {
  if (!termination) {
    post('Runtime.callFunctionOn', {
      objectId: unwinder, functionDeclaration: 'function () { this(); }', silent: true,
    }).catch(() => {});
    termination = post('Runtime.terminateExecution').catch(() => {}).finally(() => {
      termination = null;
    });
  }
  // If the main thread has just become idle, then this message takes the termination.
  port.postMessage({ id: 'victim', op: 'hello' });
  await Promise.race([termination, sleep(STOP_TIMEOUT)]);
  return await mainAnswers(STOP_TIMEOUT) && !termination;
}

/** Stops whatever the main thread does; false if it still does that when all tries are used up. */
async function stop() {
  for (let i = 0; i < ATTEMPTS; i++) {
    if (await terminate()) return true;
    unblock(i ? 'SIGKILL' : 'SIGINT');
  }
  return false;
}

/** Ends the running cell as interrupted. One that cannot be stopped goes on, and so does the wait. */
async function interrupt() {
  const idle = await mainAnswers(IDLE_TIMEOUT);
  const [end, attach] = detach();
  const stopped = idle || await stop();
  const tidy = () => {
    if (!idle) port.postMessage({ op: 'settle' });
    return end();
  };
  if (stopped) {
    await tidy();
  } else {
    // The termination stays ordered: it strikes when the system call returns.
    attach();
    mainAnswers().then(tidy);
  }
  return { ok: Boolean(stopped) };
}

/** Hands the answer to a question over to the main thread, which may block until it is there. */
function takeInput({ question, value, error }) {
  answers.postMessage({ question, value, error });
  Atomics.add(arrived, 0, 1);
  Atomics.notify(arrived, 0);
  return { ok: true };
}

/** The answer of a lookup, which runs nothing of the user's. */
function look(subject, request) {
  return require('./lookup.js').look(subject, post, probe, request);
}

/** The remote id of a function that the main thread has laid out for us. */
async function taken(name) {
  const expression = `{ const f = ${name}; delete globalThis.${name}; f }`;
  return (await post('Runtime.evaluate', { expression })).result.objectId;
}

async function hello(request) {
  const answer = await askMain(request, HELLO_TIMEOUT);
  return answer ? { main: true } : { main: false };
}

const operations = {
  __proto__: null,
  execute,
  interrupt,
  hello,
  comm: (request) => askMain(request),
  input: takeInput,
  configure: (request) => askMain(request),
  ping: () => ({ ok: true }),
  complete: (request) => look(require('./completion.js'), request),
  inspect: (request) => look(require('./inspection.js'), request),
  stack: (request) => askMain(request),
  variables: ({ described }) => require('./variables.js').list(post, builtins, described),
  is_complete: (request) => require('./completeness.js').isComplete(request.code),
};

async function serve(request) {
  const { id, op } = request;
  try {
    const operation = operations[op];
    if (!operation) throw new Error(`unknown operation "${op}"`);
    reply({ ...(await operation(request)), id });
  } catch (error) {
    reply({ id, status: 'error', error: failure(error.name, error.message) });
  }
}

/** Answers what the main thread wants to know of the code of a cell. */
function tell({ id, code }) {
  let muted = false;
  try {
    muted = language().mutes(code);
  } finally {
    port.postMessage({ op: 'told', id, muted });
  }
}

port.on('message', (message) => {
  if (message.ask) tell(message);
  else waiting.get(message.id)?.(message);
});
const reader = new FrameReader(serve);
const requests = new Socket({ fd: 3, readable: true, writable: false });
requests.on('data', (chunk) => reader.push(chunk));
// Without a supervisor nobody can use this guest any more, nor stop it if it spins.
requests.on('close', () => process.kill(process.pid, 'SIGKILL'));
mainAnswers().then(async () => {
  unwinder = await taken('crkernelUnwind');
  probe = await taken('crkernelProbe');
  const { result } = await post('Runtime.evaluate', {
    expression: 'Object.getOwnPropertyNames(globalThis)', returnByValue: true,
  });
  builtins = new Set(result.value);
  reply({
    hello: {
      language: 'javascript',
      version: process.version,
      pid: process.pid,
      protocol: 1,
      worker_tid: Number(readlinkSync('/proc/thread-self').split('/').pop()),
    },
  });
});
