/** The list of uploads as it is seen: how far all of them are, and those of them that need the reader. */

import { byId, el, named, say } from "./dom.js";
import { bytes, count, many, span } from "./format.js";
import { forgetUrl, markOf, unfinished } from "./memory.js";
import { Queue, Upload } from "./queue.js";
import { terminate } from "./transfer.js";

const LISTED = 50; // at most; the others are counted
const DRAWN_EVERY = 200; // milliseconds
const SPEED_OVER = 4_000; // milliseconds, of which the speed is the mean
const FRESH = 2_000; // milliseconds between two looks at the folder while uploads go on

export class UploadPanel {
  #queue;
  #heed;
  /** @type {Map<Upload, ReturnType<typeof rowOf>>} */
  #rows = new Map();
  /** @type {{at: number, sent: number}[]} */
  #marks = [];
  #drawing = 0;
  #lookedAt = 0;
  #wasBusy = false;
  #mayReplace = true;

  /** @param {{changed: (path: string) => void}} heed Is told of a file that has come, now and then. */
  constructor({ changed }) {
    this.#heed = changed;
    this.#queue = new Queue({ changed: () => this.#drawSoon(), done: ({ path }) => this.#came(path) });
    byId("uploads-cancel").addEventListener("click", () => this.#queue.cancelAll());
    byId("uploads-clear").addEventListener("click", () => this.#queue.clear());
    byId("uploads-replace").addEventListener("click", () =>
      this.#queue.of("exists").forEach((upload) => this.#queue.replace(upload)),
    );
    addEventListener("beforeunload", (event) => {
      if (this.#queue.isBusy) event.preventDefault(); // the browser asks whether to leave
    });
    this.#drawUnfinished();
  }

  /**
   * What may not be is refused by the server, which alone knows what holds for each path.
   *
   * @param {{file: File, path: string}[]} found
   * @param {{mayReplace: boolean}} options Whether to offer that.
   */
  add(found, { mayReplace }) {
    this.#mayReplace = mayReplace;
    const uploads = found.map(({ file, path }) => new Upload(file, path));
    if (!uploads.length) return;
    say(byId("uploads-told"), `${many(uploads.length, "file")} to upload.`);
    this.#queue.add(uploads);
  }

  #came(/** @type {string} */ path) {
    if (Date.now() - this.#lookedAt < FRESH && this.#queue.isBusy) return;
    this.#lookedAt = Date.now();
    this.#heed(path);
  }

  #drawSoon() {
    if (!this.#drawing) this.#drawing = setTimeout(() => this.#draw(), DRAWN_EVERY);
  }

  #draw() {
    this.#drawing = 0;
    const { uploads } = this.#queue;
    byId("uploads").hidden = !uploads.length;
    const counted = uploads.filter(({ state }) => state !== "refused" && state !== "cancelled" && state !== "exists");
    const all = counted.reduce((sum, { file }) => sum + file.size, 0);
    const sent = counted.reduce((sum, upload) => sum + (upload.state === "done" ? upload.file.size : upload.sent), 0);
    const summary = this.#summary(all, sent);
    say(byId("uploads-summary"), summary);
    byId("uploads-progress").value = all ? sent / all : counted.every(({ state }) => state === "done") ? 1 : 0;
    byId("uploads-cancel").hidden = !this.#queue.of("sending", "waiting", "held").length;
    byId("uploads-clear").hidden = !this.#queue.of("done", "cancelled", "refused", "exists").length;
    byId("uploads-replace").hidden = this.#queue.of("exists").length < 2 || !this.#mayReplace;
    this.#drawRows();
    this.#drawUnfinished();
    if (this.#wasBusy && !this.#queue.isBusy) {
      say(byId("uploads-told"), summary);
      const last = this.#queue.of("done").at(-1);
      if (last) this.#heed(last.path);
    }
    this.#wasBusy = this.#queue.isBusy;
    if (this.#wasBusy) this.#drawSoon(); // the speed goes down while nothing happens, too
  }

  #summary(/** @type {number} */ all, /** @type {number} */ sent) {
    const { length } = this.#queue.uploads;
    const number = (/** @type {any[]} */ ...states) => this.#queue.of(...states).length;
    const parts = [`${count(number("done"))} of ${many(length, "file")} uploaded`];
    if (number("refused")) parts.push(`${count(number("refused"))} refused`);
    if (number("exists")) parts.push(`${count(number("exists"))} there already`);
    if (number("cancelled")) parts.push(`${count(number("cancelled"))} cancelled`);
    if (this.#queue.isBusy) {
      const speed = this.#speed(sent);
      parts.push(`${bytes(sent)} of ${bytes(all)}`, `${bytes(speed)}/s`);
      if (speed > 0) parts.push(`${span((all - sent) / speed)} left`);
    } else this.#marks = [];
    return `${parts.join(", ")}.`;
  }

  /** Bytes a second, of late. */
  #speed(/** @type {number} */ sent) {
    const now = Date.now();
    this.#marks = [...this.#marks.filter(({ at }) => now - at < SPEED_OVER), { at: now, sent }];
    const [first] = this.#marks;
    return now > first.at ? Math.max((1000 * (sent - first.sent)) / (now - first.at), 0) : 0;
  }

  #drawRows() {
    const wanted = [...this.#queue.of("refused", "exists"), ...this.#queue.of("sending", "held")];
    const shown = wanted.slice(0, LISTED);
    for (const [upload, { row }] of this.#rows) {
      if (shown.includes(upload)) continue;
      row.remove();
      this.#rows.delete(upload);
    }
    for (const upload of shown) {
      let found = this.#rows.get(upload);
      if (!found) {
        found = rowOf(upload, this.#queue, () => this.#mayReplace);
        this.#rows.set(upload, found);
        byId("uploads-list").append(found.row);
      }
      found.draw();
    }
  }

  /** What another visit has left. */
  #drawUnfinished() {
    const resumable = this.#queue.uploads.filter(({ isResumable }) => isResumable);
    const here = new Set(resumable.map(({ file, path }) => markOf(file, path)));
    const left = unfinished().filter(({ mark }) => !here.has(mark));
    const list = byId("unfinished-list");
    const marks = left.map(({ url }) => url).join(" ");
    byId("unfinished").hidden = !left.length;
    if (list.dataset.marks === marks) return;
    list.dataset.marks = marks;
    list.replaceChildren(
      ...left.map(({ url, path, size }) => {
        const drop = el("button", { type: "button", "aria-label": `Give up ${path}` }, "Give up");
        drop.addEventListener("click", () => {
          forgetUrl(url);
          void terminate(url);
          this.#drawUnfinished();
        });
        return el("li", {}, named(path), `, ${bytes(size)} `, drop);
      }),
    );
  }
}

/** An upload's row, and how to have it show how things are now. */
function rowOf(/** @type {Upload} */ upload, /** @type {Queue} */ queue, /** @type {() => boolean} */ mayReplace) {
  const words = el("span", { class: "words" });
  const bar = el("progress", { max: 1, "aria-label": `progress of ${upload.path}` });
  const button = (/** @type {string} */ text, /** @type {() => void} */ act) =>
    el("button", { type: "button", "aria-label": `${text} ${upload.path}`, on: { click: act } }, text);
  const buttons = {
    hold: button("Hold", () => queue.hold(upload)),
    resume: button("Go on", () => queue.resume(upload)),
    replace: button("Replace", () => queue.replace(upload)),
    again: button("Try again", () => queue.resume(upload)),
    cancel: button("Cancel", () => queue.cancel(upload)),
  };
  const row = el(
    "li",
    {},
    named(upload.path),
    " ",
    words,
    bar,
    el("span", { class: "row" }, ...Object.values(buttons)),
  );
  return {
    row,
    draw() {
      const { state, file, sent } = upload;
      row.dataset.state = state;
      bar.hidden = state !== "sending" && state !== "held";
      bar.value = file.size ? sent / file.size : 0;
      const far = `${bytes(sent)} of ${bytes(file.size)}`;
      const said = {
        sending: upload.why ? `${far}; waits: ${upload.why}` : far,
        held: `held at ${far}`,
        exists: "is there already",
        refused: `refused: ${upload.why}`,
      };
      say(words, said[/** @type {keyof typeof said} */ (state)] ?? state);
      buttons.hold.hidden = state !== "sending" || !upload.isResumable;
      buttons.resume.hidden = state !== "held";
      buttons.replace.hidden = state !== "exists" || !mayReplace();
      buttons.again.hidden = state !== "refused";
      buttons.cancel.hidden = state === "refused";
    },
  };
}
