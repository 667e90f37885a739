'use strict';
// Progress of something that takes its time: at a notebook a bar, at a console a line that is
// written over, unattended a line of text in the result.

const { audience } = require('./audience.js');
const { emitText } = require('./output.js');
const { DISPLAY } = require('./presentation.js');
const { escape } = require('./tables.js');

const { TypeError } = globalThis;
const { apply } = Reflect;
const { iterator, asyncIterator } = Symbol;
const asString = String;
const { repeat, padEnd, padStart } = String.prototype;
const { toFixed } = Number.prototype;
const { floor, min, max, round } = Math;
const { now } = performance;
const clock = performance;
const setTimer = setTimeout;
const clearTimer = clearTimeout;

const INTERVAL = 100; // ms between two states that are shown
const WIDTH = 20; // characters of a bar of text

let open = null; // the progress whose line the cursor of a console is in
let leaveLine; // called as a cell ends: what comes next has a line of its own

/** Seconds as `7.2 s` or `2:05`. */
function duration(seconds) {
  if (seconds < 60) return `${apply(toFixed, seconds, [1])} s`;
  const rest = apply(padStart, `${floor(seconds % 60)}`, [2, '0']);
  return `${floor(seconds / 60)}:${rest}`;
}

/** What the user sees and turns. `place` shows a bundle and returns what takes the next ones. */
class Progress {
  #total;
  #label;
  #place;
  #handle = null;
  #count = 0;
  #began = apply(now, clock, []);
  #shownAt = -Infinity;
  #timer = null;
  #ended = false;
  #width = 0; // of the line at a console

  static {
    leaveLine = () => open?.#leave();
  }

  constructor(total, label, place) {
    this.#total = total;
    this.#label = label;
    this.#place = place;
    this.#show();
  }

  /** Sets how much is done. */
  update(count) {
    if (typeof count !== 'number' || count !== count) {
      throw new TypeError(`progress is a number, not ${typeof count}`);
    }
    this.#count = max(0, min(count, this.#total ?? count));
    if (this.#count === this.#total) return this.#end();
    const early = this.#shownAt + INTERVAL - apply(now, clock, []);
    if (early <= 0) this.#show();
    else this.#timer ??= setTimer(() => this.#catchUp(), early).unref();
    return this;
  }

  /** Adds to what is done. */
  tick(step = 1) {
    return this.update(this.#count + step);
  }

  /** All is done. */
  done() {
    this.#count = this.#total ?? this.#count;
    return this.#end();
  }

  /** It goes no further. */
  stop() {
    return this.#end();
  }

  /** The numbers below the total, each of which turns it on by one. */
  * [iterator]() {
    if (this.#total === undefined) throw new TypeError('this progress has no total to count to');
    try {
      for (let i = 0; i < this.#total; i++) {
        yield i;
        this.tick();
      }
    } finally {
      this.stop();
    }
  }

  [DISPLAY]() {
    return {};
  }

  /** Leaves the line of a console to what comes next; later updates begin another one. */
  #leave() {
    if (this.#timer) this.#show();
    if (open === this) emitText('stdout', '\n');
    open = null;
    this.#width = 0;
  }

  /** Shows what came too early. At a console nobody writes into a line that was left. */
  #catchUp() {
    this.#timer = null;
    if (audience.at !== 'console' || open === this) this.#show();
  }

  #end() {
    if (!this.#ended) {
      this.#ended = true;
      this.#show();
    }
    return this;
  }

  #show() {
    clearTimer(this.#timer);
    this.#timer = null;
    this.#shownAt = apply(now, clock, []);
    const words = this.#words();
    const line = this.#label + this.#bar() + words;
    if (audience.at === 'console') {
      open = this.#ended ? null : this;
      emitText('stdout', `\r${apply(padEnd, line, [this.#width])}${this.#ended ? '\n' : ''}`);
      this.#width = line.length;
      return;
    }
    const bundle = { 'text/plain': line };
    if (audience.at === 'notebook') {
      const known = this.#total === undefined ? '' : ` value="${this.#count}" max="${this.#total}"`;
      const still = this.#ended && !known ? '' : `<progress${known}></progress> `;
      bundle['text/html'] = escape(this.#label) + still + escape(words);
    }
    if (this.#handle) this.#handle.update(bundle);
    else this.#handle = this.#place(bundle);
  }

  #bar() {
    if (this.#total === undefined) return '';
    const full = round(WIDTH * this.#share());
    return `${apply(repeat, '█', [full])}${apply(repeat, '░', [WIDTH - full])} `;
  }

  #share() {
    return this.#total === 0 ? 1 : this.#count / this.#total;
  }

  #words() {
    const seconds = (apply(now, clock, []) - this.#began) / 1000;
    const total = this.#total;
    const amount = total === undefined ? `${this.#count}`
      : `${floor(100 * this.#share())}% ${this.#count}/${total}`;
    const left = total === undefined || this.#ended || this.#count === 0 ? ''
      : `, ${duration(seconds / this.#share() - seconds)} left`;
    return `${amount}, ${duration(seconds)}${left}`;
  }
}

/** The items of something, with a progress that each of them turns on by one. */
function iterate(items, begin) {
  return {
    * [iterator]() {
      const progress = begin();
      let whole = false;
      try {
        for (const item of items) {
          yield item;
          progress.tick();
        }
        whole = true;
      } finally {
        if (whole) progress.done();
        else progress.stop();
      }
    },
    async* [asyncIterator]() {
      const progress = begin();
      let whole = false;
      try {
        for await (const item of items) {
          yield item;
          progress.tick();
        }
        whole = true;
      } finally {
        if (whole) progress.done();
        else progress.stop();
      }
    },
  };
}

/** Makes progress(): of a total, or of something to iterate. */
function makeProgress(place) {
  return function progress(what, { label, total } = {}) {
    const prefix = label === undefined ? '' : `${label} `;
    const many = what?.[iterator] ?? what?.[asyncIterator];
    const size = typeof what === 'number' ? what : total ?? what?.length ?? what?.size;
    if (size !== undefined && !(size >= 0 && size < Infinity)) {
      throw new TypeError(`a total is a number from 0 on, not ${asString(size)}`);
    }
    if (what === undefined || typeof what === 'number') return new Progress(size, prefix, place);
    if (typeof many !== 'function') {
      throw new TypeError('progress() takes a total or something to iterate');
    }
    return iterate(what, () => new Progress(size, prefix, place));
  };
}

module.exports = { leaveLine, makeProgress };
