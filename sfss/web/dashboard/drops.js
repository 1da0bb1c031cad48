/** Files and folders that are dropped onto the page. */

import { byId, say } from "./dom.js";

/**
 * @param {object} options
 * @param {() => string | null} options.where The folder that they go to; null: nothing can be dropped now.
 * @param {(transfer: DataTransfer) => void} options.drop
 */
export function heedDrops({ where, drop }) {
  const hint = byId("drop-hint");
  let depth = 0; // of elements that the pointer is over

  const show = (/** @type {boolean} */ isShown) => {
    depth = isShown ? depth : 0;
    hint.hidden = !isShown;
  };
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;

  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    const folder = where();
    if (folder !== null) {
      say(byId("drop-where"), folder || "the top folder");
      show(true);
    }
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && --depth <= 0) show(false);
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // else the browser would open what is dropped beside the mark
    if (event.dataTransfer) event.dataTransfer.dropEffect = where() === null ? "none" : "copy";
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(false);
    if (where() !== null && event.dataTransfer) drop(event.dataTransfer);
  });
}

/**
 * All files, with their paths within what was dropped; those of folders, and of folders in them, too.
 *
 * @param {DataTransfer} transfer
 * @returns {Promise<{file: File, path: string}[]>}
 */
export async function dropped(transfer) {
  // All of them before anything is waited for: behind that the browser has let go of them.
  const items = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
  const found = [];
  for (const { entry, file } of items) {
    if (entry !== null) for await (const one of within(entry)) found.push(one);
    else if (file !== null) found.push({ file, path: file.name });
  }
  return found;
}

/** @param {any} entry @returns {AsyncGenerator<{file: File, path: string}>} */
async function* within(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    yield { file, path: entry.fullPath.replace(/^\//, "") };
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time, in Chromium
    if (!some.length) return;
    for (const one of some) yield* within(one);
  }
}
