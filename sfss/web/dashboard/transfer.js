/**
 * One file to the server. A small one goes in one request; a larger one as a resumable upload (tus 1.0.0, /uploads), in
 * pieces, each from where the server says that it is: over breaks of the line, restarts of the server and of this page.
 *
 * By default nothing is replaced: `If-None-Match: *`. Whoever sends the same file again after a break is told so if it
 * has arrived before.
 */

import { ask, Problem, refusal, shown } from "./api.js";
import { forget, recall, remember } from "./memory.js";
import { query, urlOf } from "./paths.js";

export const SMALL = 2 ** 20; // bytes
const PIECE = 32 * 2 ** 20; // bytes: what is sent again at most, where a proxy keeps a request until it has all of it
const TUS = { "Tus-Resumable": "1.0.0" };
const FIRST_PAUSE = 500; // milliseconds until the second attempt; then twice as long each time, up to
const LONGEST_PAUSE = 10_000;
const PATIENCE = 15 * 60_000; // milliseconds without a byte more, until it is given up

/**
 * @typedef {object} Sending
 * @property {File} file
 * @property {string} path
 * @property {boolean} replaces What is there already goes.
 * @property {AbortSignal} signal
 * @property {(bytes: number) => void} progress Is told how much the server has, or is on its way.
 * @property {(why: string) => void} waits Is told why nothing goes on; "" when it does.
 */

/**
 * Send it. Rejects with a Problem (412: something is there already), or as `fetch` does when it is aborted; then what a
 * resumable upload has sent stays at the server.
 *
 * @param {Sending} sending
 */
export async function send(sending) {
  await (sending.file.size <= SMALL ? sendSmall(sending) : sendLarge(sending));
  sending.progress(sending.file.size);
}

/** Give up a resumable upload: what has come of it goes. @param {File} file @param {string} path */
export async function giveUp(file, path) {
  const url = recall(file, path);
  if (url === null) return;
  forget(file, path);
  await terminate(url);
}

/** @param {string} url */
export async function terminate(url) {
  await ask(url, { method: "DELETE", headers: TUS }).catch(() => {}); // it expires by itself
}

/** @returns {Record<string, string>} */
const condition = (/** @type {Sending} */ sending) => (sending.replaces ? {} : { "If-None-Match": "*" });

// --- in one go ---

async function sendSmall(/** @type {Sending} */ sending) {
  const { file, path } = sending;
  /** @type {Record<string, string>} */
  const type = file.type ? { "Content-Type": file.type } : {};
  let isUnsure = false; // whether an attempt before has come through
  await again(sending, async () => {
    try {
      await transmit(sending, "PUT", urlOf(path), { ...type, ...condition(sending) }, file, 0);
    } catch (error) {
      if (isUnsure && error instanceof Problem && error.status === 412 && (await isThere(file, path))) return;
      isUnsure = true;
      throw error;
    }
  });
}

/** Whether just this file lies there. Where the browser can't tell its digest (http:// of another machine), no. */
async function isThere(/** @type {File} */ file, /** @type {string} */ path) {
  if (!globalThis.crypto?.subtle) return false;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const there = await ask(urlOf(path), { method: "HEAD" }).catch(() => null);
  return there?.headers.get("ETag") === `"${hex}"`;
}

// --- in pieces ---

async function sendLarge(/** @type {Sending} */ sending) {
  const { file, path, signal } = sending;
  /** @type {string | null} */
  let url = recall(file, path);
  let offset = -1; // it isn't known
  let isRestarted = false;
  await again(sending, async (heard) => {
    try {
      if (url === null) {
        url = await create(sending);
        remember(file, path, url);
        offset = 0;
      }
      if (offset < 0) offset = await offsetOf(url, signal);
      while (offset < file.size) {
        heard(offset);
        const from = offset;
        offset = -1; // until the server has said it
        offset = await transmitPiece(sending, url, from);
      }
      forget(file, path);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if ([404, 410].includes(error.status) && !isRestarted) {
        // It has expired, or was given up elsewhere: once more from the beginning.
        forget(file, path);
        [url, offset, isRestarted] = [null, -1, true];
        throw new Problem(0, "the upload has expired, and begins anew");
      }
      if (error.status === 409) throw new Problem(0, error.message); // somebody else goes on with it: where is it now?
      if (!error.isPassing) forget(file, path);
      throw error;
    }
  });
}

/** Begin an upload; where it is. */
async function create(/** @type {Sending} */ sending) {
  const { file, path, signal } = sending;
  /** @type {Record<string, string>} */
  const metadata = /^[ -~]+$/.test(file.type) ? { "Upload-Metadata": `filetype ${btoa(file.type)}` } : {};
  const headers = { ...TUS, "Upload-Length": String(file.size), ...metadata, ...condition(sending) };
  const answer = await ask(`/uploads?${query({ path })}`, { method: "POST", headers, signal });
  return new URL(answer.headers.get("Location") ?? "", location.href).pathname; // of this server, whatever a proxy says
}

/** How much the server has. */
async function offsetOf(/** @type {string} */ url, /** @type {AbortSignal} */ signal) {
  const answer = await ask(url, { method: "HEAD", headers: TUS, signal });
  return Number(answer.headers.get("Upload-Offset"));
}

/** @returns {Promise<number>} How much the server has now. */
async function transmitPiece(/** @type {Sending} */ sending, /** @type {string} */ url, /** @type {number} */ from) {
  const headers = { ...TUS, "Upload-Offset": String(from), "Content-Type": "application/offset+octet-stream" };
  const answer = await transmit(sending, "PATCH", url, headers, sending.file.slice(from, from + PIECE), from);
  return Number(answer.getResponseHeader("Upload-Offset"));
}

// --- one request, and the next ---

/** By XMLHttpRequest, which alone tells how much has left. @returns {Promise<XMLHttpRequest>} */
function transmit(
  /** @type {Sending} */ { signal, progress, waits },
  /** @type {string} */ method,
  /** @type {string} */ url,
  /** @type {Record<string, string>} */ headers,
  /** @type {Blob} */ body,
  /** @type {number} */ before,
) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open(method, url);
    for (const [name, value] of Object.entries({ ...shown(), ...headers })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded }) => {
      waits("");
      progress(before + Math.min(loaded, body.size));
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) resolve(request);
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(new Problem(0, "the line broke, or the server is away")));
    request.addEventListener("abort", () => reject(signal.reason));
    request.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    signal.addEventListener("abort", abort);
    if (signal.aborted) reject(signal.reason);
    else request.send(body);
  });
}

/** Try, and try again while it makes sense. `attempt` is given what to call when the server has more than before. */
async function again(
  /** @type {Sending} */ sending,
  /** @type {(heard: (offset: number) => void) => Promise<void>} */ attempt,
) {
  const { signal, waits } = sending;
  let [furthest, since, pause] = [-1, Date.now(), FIRST_PAUSE];
  const heard = (/** @type {number} */ offset) => {
    waits("");
    if (offset > furthest) [furthest, since, pause] = [offset, Date.now(), FIRST_PAUSE];
  };
  for (;;) {
    try {
      return await attempt(heard);
    } catch (error) {
      if (signal.aborted || !(error instanceof Problem) || !error.isPassing || Date.now() - since > PATIENCE)
        throw error;
      if (error.status === 0) await sending.file.slice(0, 1).arrayBuffer(); // if it was moved away that is why: it rejects
      waits(error.message);
      await sleep(Math.max(pause * (0.75 + Math.random() / 4), Math.min(error.wait * 1000, LONGEST_PAUSE)), signal);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }
}

/** @param {number} milliseconds @param {AbortSignal} signal */
const sleep = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve(undefined);
    }, milliseconds);
    signal.addEventListener("abort", end, { once: true });
  });
