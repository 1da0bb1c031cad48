/** Is all well? What an operator is to see first, in words. Pure. */

import { bytes, brief, count, many, moment } from "./format.js";

const SLOW = 0.25; // seconds for a node to tell its figures ...
const MUCH_SLOWER = 10; // ... or so many times what the others need, if that is more than
const NOTICEABLE = 0.05; // seconds
const LITTLE = 0.1; // of a disk
const NEARLY_NONE = 0.02;

/**
 * @typedef {{level: "bad" | "warn", text: string}} Trouble
 * @typedef {{level: "well" | "warn" | "bad", sentence: string, troubles: Trouble[]}} Verdict
 */

/**
 * Which nodes are slow, and since when: seen by this page, twice in a row.
 */
export class Slowness {
  /** @type {Map<string, {since: Date, times: number}>} */
  #seen = new Map();

  /** @param {any} nodes As webserver.nodes. @param {Date} now @returns {Map<string, Date>} By address. */
  look(nodes, now) {
    const tooks = Object.fromEntries(
      Object.entries(nodes)
        .filter(([, node]) => node.took)
        .map(([name, node]) => [name, Number(node.took)]),
    );
    const sorted = Object.values(tooks).sort((one, other) => one - other);
    const usual = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
    for (const [name, took] of Object.entries(tooks)) {
      if (took < SLOW && !(took > NOTICEABLE && took > MUCH_SLOWER * usual)) this.#seen.delete(name);
      else
        this.#seen.set(name, {
          since: this.#seen.get(name)?.since ?? now,
          times: (this.#seen.get(name)?.times ?? 0) + 1,
        });
    }
    for (const name of this.#seen.keys()) if (!(name in tooks)) this.#seen.delete(name);
    return new Map([...this.#seen].filter(([, { times }]) => times > 1).map(([name, { since }]) => [name, since]));
  }
}

/** What to call a node. @param {string} address @param {any} node */
export const called = (address, node) => (node.name && node.name !== address ? `${node.name} (${address})` : address);

/** @param {string} seconds Since the epoch. */
export const whenOf = (seconds) => new Date(Number(seconds) * 1000);

/**
 * @param {any} status As /status?format=full has it.
 * @param {Map<string, Date>} slow
 * @param {number} failures Answers of 500 and above in the last minutes.
 * @returns {Verdict}
 */
export function judge(status, slow, failures) {
  const { storages, webserver } = status;
  const nodes = Object.entries(webserver.nodes);
  const away = nodes.filter(([, node]) => node.away !== null);
  const found = [
    ...away.map(([address, node]) =>
      bad(`${called(address, node)} is away since ${moment(whenOf(node.since))}: ${node.away}`),
    ),
    ...nodes.flatMap(([address, node]) => ofNode(address, node, storages[address] ?? {}, slow)),
    ...ofCopies(webserver.repair),
    ...webserver.warnings.map(warn),
    ...webserver.workers
      .filter((place) => place.pid === "0")
      .map(() => warn("a worker has died and is being started again: the log says why")),
    ...(failures
      ? [
          warn(
            `${many(failures, "answer")} of the last minutes ${failures === 1 ? "was" : "were"} 500 or above: the log says why`,
          ),
        ]
      : []),
  ];
  const troubles = [...found.filter(({ level }) => level === "bad"), ...found.filter(({ level }) => level !== "bad")];
  const here = `${nodes.length - away.length} of ${many(nodes.length, "node")} ${nodes.length === 1 ? "is" : "are"} here`;
  if (away.length) {
    const names = away.map(([address, node]) => node.name ?? address).join(", ");
    return {
      level: "bad",
      sentence: `${many(away.length, "node")} of ${nodes.length} ${away.length === 1 ? "is" : "are"} away: ${names}.`,
      troubles,
    };
  }
  if (troubles.some(({ level }) => level === "bad"))
    return { level: "bad", sentence: `Something is wrong. ${here}.`, troubles };
  if (troubles.length) return { level: "warn", sentence: `It works, but look at this. ${here}.`, troubles };
  const copies =
    Number(webserver.ring.copies) > 1 && webserver.repair.state ? ", and no file is known to lack a copy" : "";
  return { level: "well", sentence: `All is well: ${here}${copies}.`, troubles };
}

const bad = (/** @type {string} */ text) => /** @type {Trouble} */ ({ level: "bad", text });
const warn = (/** @type {string} */ text) => /** @type {Trouble} */ ({ level: "warn", text });

/** @returns {Trouble[]} */
function ofNode(
  /** @type {string} */ address,
  /** @type {any} */ node,
  /** @type {any} */ figures,
  /** @type {Map<string, Date>} */ slow,
) {
  if (node.away !== null) return [];
  const name = called(address, node);
  const found = [];
  const since = slow.get(address);
  if (since) found.push(warn(`${name} is slow since ${moment(since)}: it took ${brief(Number(node.took))} to answer`));
  if (!Object.keys(figures).length) found.push(warn(`${name} doesn't tell its figures`));
  const [left, all] = [Number(figures.avail_space), Number(figures.total_space)];
  if (all > 0 && left / all < LITTLE) {
    const said = `${name} has ${bytes(left)} of its disk left: make room, or add a node`;
    found.push(left / all < NEARLY_NONE ? bad(said) : warn(said));
  }
  for (const [figure, [one, several]] of Object.entries(ERRORS)) {
    const times = Number(figures[figure] ?? 0);
    if (times > 0)
      found.push(
        bad(`${name} has had ${many(times, one, several)} since it was started: look at its log, and its disk`),
      );
  }
  return found;
}

/** What a node counts that should be 0, as one and as several. */
const ERRORS = {
  write_errors: ["write error", "write errors"],
  read_errors: ["read error", "read errors"],
  failed_fsyncs: ["fsync that failed", "fsyncs that failed"],
  background_errors: ["error of its database", "errors of its database"],
};

/** @returns {Trouble[]} */
function ofCopies(/** @type {any} */ repair) {
  const { under_replicated: lacking = 0, damaged = 0, blocks_lacking: blocks = 0, state = "" } = repair;
  const found = [];
  if (Number(damaged))
    found.push(bad(`${many(Number(damaged), "file")} can't be mended, no sound copy is left: sfss repair names them`));
  if (Number(lacking))
    found.push(warn(`${many(Number(lacking), "file lacks a copy", "files lack a copy")}; repair: ${state}`));
  if (Number(blocks))
    found.push(warn(`${count(Number(blocks))} blocks of large files lack a copy, as of the last sweep`));
  return found;
}
