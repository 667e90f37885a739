'use strict';
// Completion and inspection. Both look through the inspector, which refuses whatever would have a
// side effect. It answers between two steps of a running cell too, but not while the main thread
// waits in the kernel: then nothing is found.

const LIMIT = 200; // ms after which a lookup gives up
const IDENTIFIER = '[\\p{ID_Start}$_][\\p{ID_Continue}$\\u200c\\u200d]*';
const CHAIN = `${IDENTIFIER}(?:\\s*\\??\\.\\s*${IDENTIFIER})*`;
const MEMBER = new RegExp(`(?:^|[^\\p{ID_Continue}$.)\\]])(${CHAIN})\\s*\\??\\.\\s*`
  + `((?:${IDENTIFIER})?)$`, 'u');
const NAME = new RegExp(`(?:^|[^.\\p{ID_Continue}$\\u200c\\u200d])((?:${IDENTIFIER})?)$`, 'u');
const WHOLE = new RegExp(`^${IDENTIFIER}$`, 'u');
const BEFORE = new RegExp(`${CHAIN}$`, 'u');
const BEHIND = /^[\p{ID_Continue}$\u200c\u200d]*/u;
const KEYWORDS = ('async await break case catch class const continue debugger default delete do '
  + 'else export extends false finally for function if import in instanceof let new null of '
  + 'return static super switch this throw true try typeof undefined var void while with yield')
  .split(' ');

/** What `promise` gives within LIMIT ms, else `fallback`; refusals give `fallback` too. */
async function inTime(promise, fallback) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, LIMIT, fallback);
  });
  try {
    return await Promise.race([promise, late]);
  } catch {
    return fallback;
  } finally {
    clearTimeout(timer);
  }
}

/** The RemoteObject of an expression that has no side effects, else null. */
async function look(post, expression, objectGroup, more = {}) {
  const { result, exceptionDetails } = await post('Runtime.evaluate', {
    expression, objectGroup, throwOnSideEffect: true, timeout: LIMIT / 2, silent: true, ...more,
  });
  return exceptionDetails ? null : result;
}

function kindOf(descriptor) {
  const { value } = descriptor;
  if (value?.type === 'function') return /^class\b/.test(value.description) ? 'class' : 'function';
  return 'property';
}

/** Name -> {kind, own} of all properties of a value, its own first; no getter or proxy is run. */
async function propertiesOf(post, remote, objectGroup) {
  let { objectId } = remote;
  if (!objectId) {
    const wrapper = { string: 'String', number: 'Number', boolean: 'Boolean', bigint: 'BigInt',
      symbol: 'Symbol' }[remote.type];
    const prototype = wrapper && await look(post, `${wrapper}.prototype`, objectGroup);
    objectId = prototype?.objectId;
  }
  const found = new Map();
  if (!objectId) return found;
  const { result } = await post('Runtime.getProperties', { objectId, ownProperties: false });
  const named = result.filter(({ name, symbol }) => !symbol && WHOLE.test(name));
  const own = named.filter(({ isOwn }) => isOwn);
  for (const descriptor of [...own, ...named]) {
    const { name, isOwn } = descriptor;
    if (!found.has(name)) found.set(name, { kind: kindOf(descriptor), own: Boolean(isOwn) });
  }
  return found;
}

/** Name -> {kind} of what a bare identifier can mean. */
async function namesInScope(post, objectGroup) {
  const { names } = await post('Runtime.globalLexicalScopeNames', {});
  const found = new Map(names.map((name) => [name, { kind: 'variable' }]));
  const global = await look(post, 'globalThis', objectGroup);
  const properties = global ? await propertiesOf(post, global, objectGroup) : [];
  for (const [name, { kind, own }] of properties) {
    if (!own || found.has(name)) continue;
    found.set(name, { kind: kind === 'property' ? 'variable' : kind });
  }
  for (const word of KEYWORDS) if (!found.has(word)) found.set(word, { kind: 'keyword' });
  return found;
}

/** Runs `find(group)` in time and releases the remote objects it made. */
async function withGroup(post, find, fallback) {
  const objectGroup = 'lookup';
  try {
    return await inTime(find(objectGroup), fallback);
  } finally {
    post('Runtime.releaseObjectGroup', { objectGroup }).catch(() => {});
  }
}

/** The answer to complete; `cursor` counts UTF-16 units. */
async function complete(post, { code, cursor = code.length }) {
  const before = code.slice(0, cursor);
  const member = MEMBER.exec(before);
  const prefix = (member ? member[2] : NAME.exec(before)?.[1]) ?? null;
  const nothing = { matches: [], start: cursor, end: cursor, types: [] };
  if (prefix === null) return nothing;
  const find = async (group) => {
    if (!member) return namesInScope(post, group);
    const remote = await look(post, member[1], group);
    return remote ? propertiesOf(post, remote, group) : new Map();
  };
  const found = await withGroup(post, find, new Map());
  const hits = [...found].filter(([name]) => name.startsWith(prefix));
  return {
    matches: hits.map(([name]) => name),
    start: cursor - prefix.length,
    end: cursor,
    types: hits.map(([, { kind }]) => kind),
  };
}

/** The dotted chain that the cursor touches, or null. */
function chainAt(code, cursor) {
  const end = cursor + BEHIND.exec(code.slice(cursor))[0].length;
  // From foo(|) too the answer is about foo.
  return BEFORE.exec(code.slice(0, end))?.[0] ?? BEFORE.exec(code.slice(0, end)
    .replace(/\([^()]*$/, ''))?.[0] ?? null;
}

/** The head of a function's source: everything before its body. */
function signatureOf(source) {
  if (/^class\b/.test(source)) {
    const head = source.slice(0, source.indexOf('{')).trim();
    const made = /\bconstructor\s*(\([^)]*\))/.exec(source);
    return made ? `${head} { constructor${made[1]} }` : head;
  }
  let depth = 0;
  for (let i = 0; i < source.length; i++) {
    const character = source[i];
    if ('([{'.includes(character) && (depth || character !== '{')) depth += 1;
    else if (')]}'.includes(character)) depth -= 1;
    else if (!depth && (character === '{' || source.startsWith('=>', i))) {
      return source.slice(0, i).trim();
    }
  }
  return source;
}

function previewOf(remote) {
  if (remote.type === 'string') return JSON.stringify(remote.value);
  const { preview, description } = remote;
  if (!preview) return description ?? String(remote.value);
  const show = ({ type, value, subtype }) => (type === 'string' ? JSON.stringify(value)
    : value || subtype || type);
  const parts = preview.entries
    ? preview.entries.map(({ key, value }) => (key
      ? `${key.description} => ${value.description}` : value.description))
    : preview.properties.map((property) => (preview.subtype === 'array'
      ? show(property) : `${property.name}: ${show(property)}`));
  if (preview.overflow) parts.push('...');
  const body = parts.join(', ');
  if (preview.subtype === 'array') return `${description} [ ${body} ]`;
  if (preview.subtype && !parts.length) return description;
  return `${description} { ${body} }`;
}

/** What to tell of a value: its kind, then its signature, source or a short preview. */
function tell(chain, remote, detail) {
  const { type, subtype, className, description = '' } = remote;
  if (type === 'function') {
    const kind = /^class\b/.test(description) ? 'class' : 'function';
    const native = description.includes('[native code]');
    const text = detail > 0 && !native ? description : signatureOf(description);
    return `${chain}: ${kind}${native ? ' (native)' : ''}\n${text}`;
  }
  const kind = type === 'object' ? (className ?? subtype ?? type) : type;
  return `${chain}: ${kind}\n${previewOf(remote)}`;
}

/** The answer to inspect: what the identifier chain under the cursor is. */
async function inspect(post, { code, cursor = code.length, detail = 0 }) {
  const chain = chainAt(code, cursor);
  const find = async (group) => look(post, chain, group, { generatePreview: true });
  const remote = chain && await withGroup(post, find, null);
  if (!remote) return { found: false, data: {} };
  return { found: true, data: { 'text/plain': tell(chain, remote, detail) } };
}

module.exports = { complete, inspect };
