/** From counts to rates: what happened between one poll and the next. Pure. */

export const KEPT = 150; // polls: five minutes, at one each two seconds

/**
 * @typedef {object} Sample Counts at a moment, and what is true just then. NaN: it isn't told.
 * @property {number} at Seconds since the epoch, by this browser's clock.
 * @property {number} requests
 * @property {number} failures Answers of 500 and above.
 * @property {number} hits Of the nodes.
 * @property {number} misses
 * @property {number} read Bytes that nodes have been sent.
 * @property {number} written Bytes that nodes have sent.
 * @property {number} took Seconds that the slowest node took to tell its figures.
 * @property {number} reads Answers to GET and HEAD ...
 * @property {number} readSeconds ... and how long all of them took.
 * @property {number} writes To PUT, POST, PATCH and DELETE ...
 * @property {number} writeSeconds
 *
 * @typedef {object} Rate
 * @property {number} at
 * @property {number | null} requests A second, each of them; null: it can't be said.
 * @property {number | null} failures
 * @property {number | null} hitRate From 0 to 100.
 * @property {number | null} read
 * @property {number | null} written
 * @property {number | null} took
 * @property {number | null} readTime Seconds, of the mean.
 * @property {number | null} writeTime
 */

const READS = ["GET", "HEAD"];
const WRITES = ["PUT", "POST", "PATCH", "DELETE"];

const number = (/** @type {string | undefined} */ text) => (text === undefined ? NaN : Number(text));

/** @param {any} status As /status?format=full has it. @param {number} at @returns {Sample} */
export function sample(status, at) {
  const { storages, webserver } = status;
  const nodes = Object.values(storages);
  const total = (/** @type {string} */ name) =>
    nodes
      .map((figures) => number(figures[name]))
      .filter(Number.isFinite)
      .reduce((sum, figure) => sum + figure, 0);
  const tooks = Object.values(webserver.nodes)
    .map((node) => number(node.took))
    .filter(Number.isFinite);
  const failures = Object.entries(webserver.responses).filter(([code]) => Number(code) >= 500);
  const methods = webserver.methods ?? {}; // of what has them: {"GET": {"requests": "12", "seconds": "0.034"}}
  const ofMethods = (/** @type {string[]} */ names, /** @type {string} */ figure) =>
    webserver.methods ? names.reduce((sum, name) => sum + Number(methods[name]?.[figure] ?? 0), 0) : NaN;
  return {
    at,
    requests: number(webserver.requests),
    failures: failures.reduce((sum, [, times]) => sum + Number(times), 0),
    hits: total("get_hits"),
    misses: total("get_misses"),
    read: total("bytes_read"),
    written: total("bytes_written"),
    took: tooks.length ? Math.max(...tooks) : NaN,
    reads: ofMethods(READS, "requests"),
    readSeconds: ofMethods(READS, "seconds"),
    writes: ofMethods(WRITES, "requests"),
    writeSeconds: ofMethods(WRITES, "seconds"),
  };
}

/** What happened from one sample to the next. @param {Sample} before @param {Sample} now @returns {Rate} */
export function rate(before, now) {
  const seconds = now.at - before.at;
  const grown = (/** @type {keyof Sample} */ name) => {
    const more = now[name] - before[name];
    return more >= 0 && seconds > 0 ? more : null; // something has been started anew, and begins at nought
  };
  const each = (/** @type {keyof Sample} */ name) => {
    const more = grown(name);
    return more === null ? null : more / seconds;
  };
  const mean = (/** @type {keyof Sample} */ times, /** @type {keyof Sample} */ all) => {
    const [taken, count] = [grown(all), grown(times)];
    return taken === null || !count ? null : taken / count;
  };
  const [hits, misses] = [grown("hits"), grown("misses")];
  const asked = (hits ?? 0) + (misses ?? 0);
  return {
    at: now.at,
    requests: each("requests"),
    failures: each("failures"),
    hitRate: hits === null || misses === null || !asked ? null : (100 * hits) / asked,
    read: each("read"),
    written: each("written"),
    took: Number.isFinite(now.took) ? now.took : null,
    readTime: mean("reads", "readSeconds"),
    writeTime: mean("writes", "writeSeconds"),
  };
}

/** @type {Rate} */
const NOTHING = {
  at: 0,
  requests: null,
  failures: null,
  hitRate: null,
  read: null,
  written: null,
  took: null,
  readTime: null,
  writeTime: null,
};

/** The last minutes. */
export class History {
  /** @type {Rate[]} */
  rates = [];
  /** @type {Sample | null} */
  #last = null;

  /** @param {Sample} now */
  add(now) {
    if (this.#last !== null) this.rates = [...this.rates, rate(this.#last, now)].slice(-KEPT);
    this.#last = now;
  }

  /** For some time nothing was heard: nobody knows what was between. @param {number} at Seconds since the epoch. */
  gap(at) {
    if (this.#last === null) return;
    this.#last = null;
    this.rates = [...this.rates, { ...NOTHING, at }].slice(-KEPT);
  }

  /** Answers of 500 and above in these minutes. */
  get failures() {
    return Math.round(
      this.rates.reduce((sum, now, at) => sum + (now.failures ?? 0) * (at ? now.at - this.rates[at - 1].at : 2), 0),
    );
  }
}
