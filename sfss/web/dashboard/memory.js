/**
 * Which uploads are unfinished, by what tells a file from others: its path, size and when it was changed. In localStorage,
 * so that they go on after this page was left; a browser doesn't let a page keep the file itself.
 */

const NAME = "sfss-uploads";
const KEPT = 7 * 86_400_000; // milliseconds: the server keeps them as long, unless limits.upload_expiry is another

/** @typedef {{url: string, path: string, size: number, at: number}} Unfinished */

/** @returns {Record<string, Unfinished>} */
function read() {
  try {
    const found = JSON.parse(localStorage.getItem(NAME) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([, { at }]) => Date.now() - at < KEPT));
  } catch {
    return {};
  }
}

function write(/** @type {Record<string, Unfinished>} */ uploads) {
  try {
    localStorage.setItem(NAME, JSON.stringify(uploads));
  } catch {
    // storage is forbidden, or full: they go on until the page is left
  }
}

/** What tells a file from others. @param {File} file @param {string} path */
export const markOf = (file, path) => JSON.stringify([path, file.size, file.lastModified]);

/** Where a file's upload is; null if there is none. @param {File} file @param {string} path */
export const recall = (file, path) => read()[markOf(file, path)]?.url ?? null;

/** @param {File} file @param {string} path @param {string} url */
export function remember(file, path, url) {
  write({ ...read(), [markOf(file, path)]: { url, path, size: file.size, at: Date.now() } });
}

/** @param {File} file @param {string} path */
export function forget(file, path) {
  const { [markOf(file, path)]: _, ...others } = read();
  write(others);
}

/** All that are unfinished. */
export const unfinished = () => Object.entries(read()).map(([mark, upload]) => ({ mark, ...upload }));

/** @param {string} url */
export function forgetUrl(url) {
  write(Object.fromEntries(Object.entries(read()).filter(([, upload]) => upload.url !== url)));
}
