/** The overview's card of write-behind: how much waits in each short-term store, for how long, and who moves it. */

import { el, fact, named } from "./dom.js";
import { bytes, count, many, percent, span } from "./format.js";

/** When a store writes down what it acknowledges. @type {Record<string, string>} */
const SYNCED = {
  always: "synced always",
  everysec: "synced every second",
  no: "synced when its system likes",
  never: "without append-only file",
  unknown: "doesn't tell when it syncs",
};

/** @param {Record<string, any>} stores As webserver.write_behind of /status?format=full. */
export const behind = (stores) =>
  Object.entries(stores).flatMap(([address, store]) => [
    el("h3", {}, named(address)),
    el("dl", {}, ...facts(address, store)),
  ]);

function facts(/** @type {string} */ address, /** @type {any} */ store) {
  const about = store.kind ? `${store.kind} ${store.version}, ${SYNCED[store.synced] ?? store.synced}` : "";
  const known = [fact("State", state(store), el("small", {}, about))];
  if (store.files === undefined) return known; // it is away
  const [tasks, dead] = [Number(store.tasks), Number(store.dead)];
  return [
    ...known,
    fact("Files that wait", ...room(address, "files", store.files, store.max_files, count)),
    fact("Bytes that wait", ...room(address, "bytes", store.bytes, store.max_bytes, bytes)),
    fact("Memory of the store", ...memory(address, store)),
    fact(
      "Tasks",
      count(tasks),
      el("small", {}, tasks ? `the oldest waits for ${span(Number(store.oldest))}` : "nothing is to be moved"),
    ),
    fact(
      "Dead letters",
      el("span", { class: "badge", "data-level": dead ? "warn" : "well" }, count(dead)),
      dead ? el("small", {}, "could not be moved: sfss worker dead says why") : null,
    ),
    fact("Workers", ...workers(store.workers, tasks)),
  ];
}

function state(/** @type {any} */ store) {
  const badge = (/** @type {string} */ level, /** @type {string} */ text) =>
    el("span", { class: "badge", "data-level": level }, text);
  if (store.away !== null) return badge("bad", `away: ${store.away}`);
  if (store.fault !== null) return badge("bad", `takes no files: ${store.fault}`);
  return badge("well", "here");
}

function memory(/** @type {string} */ address, /** @type {any} */ store) {
  if (store.memory === undefined) return ["not told"];
  if (store.max_memory === "0") return [bytes(Number(store.memory)), el("small", {}, "no bound is set (maxmemory)")];
  return room(address, "memory", store.memory, store.max_memory, bytes);
}

/** How much of what there is room for is taken. */
function room(
  /** @type {string} */ address,
  /** @type {string} */ what,
  /** @type {string} */ taken,
  /** @type {string} */ most,
  /** @type {(value: number) => string} */ format,
) {
  const [value, max] = [Number(taken), Number(most)];
  const meter = el(
    "meter",
    {
      min: 0,
      max: Math.max(max, 1),
      low: max * 0.5,
      high: max * 0.8,
      optimum: 0,
      value,
      "aria-label": `${what} of the room of ${address}`,
    },
    percent(value / max),
  );
  return [`${format(value)} of ${format(max)} `, meter];
}

function workers(/** @type {Record<string, string>} */ found, /** @type {number} */ tasks) {
  const names = Object.entries(found).sort();
  if (!names.length) {
    const words = tasks ? "none: run sfss worker" : "none";
    return [el("span", { class: "badge", "data-level": tasks ? "bad" : "warn" }, words)];
  }
  const row = (/** @type {[string, string]} */ [name, at]) =>
    el("li", {}, named(name), ` at ${many(Number(at), "task")}`);
  return [count(names.length), el("ul", { class: "plain" }, ...names.map(row))];
}
