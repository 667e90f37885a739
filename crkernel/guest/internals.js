'use strict';
// A door to what Node keeps to itself. Some needs of the guest have no public API: import() in code
// that the inspector evaluates, a parser, forgetting an imported module, and tidying up after a
// termination. Each of them lies in a variable that some builtin function closes over, and the
// inspector can read those.

const realm = globalThis;
const { apply } = Reflect;
const { Session } = require('node:inspector');
const { post } = Session.prototype;

/** A request to this thread's own inspector session whose answer comes at once; null if refused. */
function ask(session, method, params) {
  let answer = null;
  apply(post, session, [method, params, (error, result) => {
    answer = error ? null : result;
  }]);
  return answer;
}

/** Carries values between the inspector's remote objects and this thread. */
class Carrier {
  #session;
  #id;
  #value;
  #getter;

  constructor(session) {
    this.#session = session;
    const box = {
      take: (value) => (this.#value = value),
      give: () => this.#value,
      get: () => apply(this.#getter, this.#value, []),
    };
    realm.crkernelCarrier = box;
    this.#id = ask(session, 'Runtime.evaluate', { expression: 'crkernelCarrier' }).result.objectId;
    delete realm.crkernelCarrier;
  }

  #call(functionDeclaration, args, group, throwOnSideEffect = false) {
    return ask(this.#session, 'Runtime.callFunctionOn', {
      objectId: this.#id, functionDeclaration, arguments: args, silent: true, objectGroup: group,
      throwOnSideEffect,
    });
  }

  /** What a getter gives of a holder: {value}; null if it throws or would have a side effect. */
  read(getter, holder) {
    const objectGroup = 'read';
    this.#getter = getter;
    this.#value = holder;
    const answer = this.#call('function () { return this.get(); }', [], objectGroup, true);
    this.#getter = undefined;
    this.#value = undefined;
    if (!answer || answer.exceptionDetails) return null;
    const value = this.valueOf(answer.result);
    ask(this.#session, 'Runtime.releaseObjectGroup', { objectGroup });
    return { value };
  }

  /** The value behind a RemoteObject. */
  valueOf(remote) {
    const { objectId, unserializableValue } = remote;
    if (objectId === undefined && unserializableValue === undefined) {
      return remote.subtype === 'null' ? null : remote.value;
    }
    const argument = objectId === undefined ? { unserializableValue } : { objectId };
    this.#call('function (value) { this.take(value); }', [argument]);
    const value = this.#value;
    this.#value = undefined;
    return value;
  }

  /** The variable `name` in the scopes that a builtin function closes over, or undefined. */
  variable(builtin, name) {
    const session = this.#session;
    const objectGroup = 'internals';
    const own = (objectId) => ask(session, 'Runtime.getProperties', {
      objectId, ownProperties: true,
    });
    this.#value = builtin;
    const { result } = this.#call('function () { return this.give(); }', [], objectGroup);
    const { internalProperties } = own(result.objectId);
    const scopes = internalProperties.find((property) => property.name === '[[Scopes]]');
    let value;
    for (const { value: scope } of own(scopes.value.objectId).result) {
      if (scope?.objectId === undefined || scope.description === 'Global') continue;
      const found = own(scope.objectId).result.find((property) => property.name === name);
      if (found?.value) {
        value = this.valueOf(found.value);
        break;
      }
    }
    ask(session, 'Runtime.releaseObjectGroup', { objectGroup });
    return value;
  }
}

/** What builtin modules require each other with; `nodeModule` is node:module. */
function nodeRequire(carrier, nodeModule) {
  return carrier.variable(nodeModule._load, 'require');
}

module.exports = { Carrier, ask, nodeRequire };
