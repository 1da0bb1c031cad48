/** Uploads in their order, some at a time; each can be held, gone on with, and given up. Draws nothing. */

import { Problem } from "./api.js";
import { giveUp, send, SMALL } from "./transfer.js";

const AT_ONCE = 3;

/**
 * Where an upload is: waiting its turn; sending; held by the reader; there is a file of that name (`exists`); refused, with
 * why; cancelled; done.
 *
 * @typedef {"waiting" | "sending" | "held" | "exists" | "refused" | "cancelled" | "done"} State
 */

export class Upload {
  /** @type {State} */
  state = "waiting";
  sent = 0; // bytes
  why = ""; // it is refused, or waits
  replaces = false;
  /** @type {AbortController | null} */
  control = null;

  /** @param {File} file @param {string} path */
  constructor(file, path) {
    this.file = file;
    this.path = path;
  }

  /** Whether it goes on where it was. */
  get isResumable() {
    return this.file.size > SMALL;
  }
}

export class Queue {
  /** @type {Upload[]} */
  uploads = [];
  #changed;
  #done;

  /** @param {{changed: () => void, done: (upload: Upload) => void}} heed */
  constructor({ changed, done }) {
    this.#changed = changed;
    this.#done = done;
  }

  /** @param {Upload[]} uploads */
  add(uploads) {
    this.uploads.push(...uploads);
    this.#fill();
  }

  hold(/** @type {Upload} */ upload) {
    this.#leave(upload, "held");
  }

  resume(/** @type {Upload} */ upload) {
    if (["held", "refused", "exists"].includes(upload.state)) upload.state = "waiting";
    upload.why = "";
    this.#fill();
  }

  replace(/** @type {Upload} */ upload) {
    upload.replaces = true;
    this.resume(upload);
  }

  cancel(/** @type {Upload} */ upload) {
    if (["done", "cancelled"].includes(upload.state)) return;
    this.#leave(upload, "cancelled");
    if (upload.isResumable) void giveUp(upload.file, upload.path);
  }

  cancelAll() {
    for (const upload of this.uploads) if (upload.state !== "refused") this.cancel(upload);
  }

  /** Forget what has come to its end. */
  clear() {
    this.uploads = this.uploads.filter(({ state }) => !["done", "cancelled", "refused", "exists"].includes(state));
    this.#changed();
  }

  of(/** @type {State[]} */ ...states) {
    return this.uploads.filter(({ state }) => states.includes(state));
  }

  get isBusy() {
    return this.uploads.some(({ state }) => state === "sending" || state === "waiting");
  }

  #leave(/** @type {Upload} */ upload, /** @type {State} */ state) {
    upload.state = state;
    upload.why = "";
    upload.control?.abort(new DOMException("it was held or cancelled", "AbortError"));
    this.#fill();
  }

  #fill() {
    let sending = this.uploads.filter(({ control }) => control !== null).length;
    for (const upload of this.uploads) {
      if (sending >= AT_ONCE) break;
      if (upload.state === "waiting" && upload.control === null) {
        sending += 1;
        void this.#send(upload);
      }
    }
    this.#changed();
  }

  async #send(/** @type {Upload} */ upload) {
    upload.state = "sending";
    upload.control = new AbortController();
    const { file, path, replaces, control } = upload;
    const progress = (/** @type {number} */ bytes) => {
      upload.sent = bytes;
      this.#changed();
    };
    const waits = (/** @type {string} */ why) => {
      upload.why = why;
      this.#changed();
    };
    try {
      await send({ file, path, replaces, signal: control.signal, progress, waits });
      if (!control.signal.aborted) upload.state = "done";
      upload.why = "";
    } catch (error) {
      if (!control.signal.aborted) this.#fail(upload, error);
    }
    upload.control = null;
    if (upload.state === "done") this.#done(upload);
    this.#fill();
  }

  #fail(/** @type {Upload} */ upload, /** @type {any} */ error) {
    upload.sent = 0;
    upload.state = error instanceof Problem && error.status === 412 ? "exists" : "refused";
    // What isn't the server's word: the file was moved, or may not be read.
    upload.why = error instanceof Problem ? error.message : `the file can't be read: ${error.message ?? error}`;
  }
}
