'use strict';
// The child process for which the main thread waits in execSync, spawnSync or execFileSync.

const { readFileSync } = require('node:fs');

// epoll_wait, epoll_pwait and epoll_pwait2, in which the wait takes place
const WAITS = { x64: [232, 281, 441], arm64: [22, 441] }[process.arch] ?? [];

function read(file, fallback) {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return fallback; // the process or thread has gone
  }
}

function childrenOf(pid) {
  const list = read(`/proc/${pid}/task/${pid}/children`, '');
  return list.split(' ').filter((text) => text.trim()).map(Number);
}

function withDescendants(pid) {
  return [pid, ...childrenOf(pid).flatMap(withDescendants)];
}

/**
 * Sends `signal` to the youngest child and its descendants, if the main thread waits in the kernel
 * for events. The caller has found that it serves no event loop, so it waits for that child.
 */
function signalAwaitedChild(signal) {
  const call = Number.parseInt(read(`/proc/self/task/${process.pid}/syscall`, ''), 10);
  const youngest = childrenOf(process.pid).pop();
  if (!WAITS.includes(call) || youngest === undefined) return;
  for (const pid of withDescendants(youngest)) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }
}

module.exports = { signalAwaitedChild };
