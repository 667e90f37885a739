'use strict';
// Keeps what child processes print in its place. They inherit the raw stdout and stderr, which run
// beside the events of fd 5; a fence among the events tells the supervisor that a child has ended,
// so that what it printed comes first.

const { apply } = Reflect;

const { isArray } = Array;

/** Whether a child's stdio, as Node hands it to the system, holds our stdout or stderr. */
function sharesOutput(stdio) {
  if (!isArray(stdio)) return false;
  for (let i = 0; i < stdio.length; i++) {
    if (stdio[i].fd === 1 || stdio[i].fd === 2) return true;
  }
  return false;
}

/** Calls `fence()` whenever a child that shares stdout or stderr has ended, before its events. */
function install(internalBinding, fence) {
  const sync = internalBinding('spawn_sync');
  const { spawn: spawnSync } = sync;
  sync.spawn = function spawn(options) {
    try {
      return apply(spawnSync, this, [options]);
    } finally {
      if (sharesOutput(options.stdio)) fence();
    }
  };
  const { prototype } = internalBinding('process_wrap').Process;
  const { spawn: spawnAsync } = prototype;
  prototype.spawn = function spawn(...options) {
    const { onexit } = this;
    let shares = false;
    for (let i = 0; i < options.length; i++) shares ||= sharesOutput(options[i]);
    if (onexit && shares) {
      this.onexit = function fenced(...results) {
        fence();
        return apply(onexit, this, results);
      };
    }
    return apply(spawnAsync, this, options);
  };
}

module.exports = { install };
