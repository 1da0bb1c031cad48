/** Paths of files: in URLs, in this page's own addresses, and in a shell. Pure. */

/** As encodeURIComponent does, and what that leaves and a shell or a reader may take for something else. */
const escaped = (/** @type {string} */ text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);

/** @param {string} path Slashes stay, so that it can be read. */
const inUrl = (path) => path.split("/").map(escaped).join("/");

/** @param {string} path Where the file is, on this server. */
export const urlOf = (path) => `/file?path=${inUrl(path)}`;

/** @param {Record<string, string | number>} fields A query of them. */
export const query = (fields) =>
  Object.entries(fields)
    .map(([name, value]) => `${name}=${escaped(String(value))}`)
    .join("&");

/** @param {string} prefix This page's address of a folder. */
export const hashOfFolder = (prefix) => `#files/${inUrl(prefix)}`;

/** @param {string} path This page's address of a file. */
export const hashOfFile = (path) => `#file/${inUrl(path)}`;

/** @param {string} hash @returns {{view: "overview" | "files" | "file", path: string}} What an address of this page is of. */
export function place(hash) {
  const match = /^#(files|file)\/(.*)$/s.exec(hash);
  if (match) {
    try {
      return { view: /** @type {"files" | "file"} */ (match[1]), path: decodeURIComponent(match[2]) };
    } catch {
      // it was cut off in the middle of a character
    }
  }
  return { view: "overview", path: "" };
}

/** @param {string} path The folder that it is in, with its slash; "" at the top. */
export const folderOf = (path) => path.slice(0, path.replace(/\/$/, "").lastIndexOf("/") + 1);

/** @param {string} path What it is called within its folder. */
export const nameOf = (path) => path.slice(folderOf(path).length);

/** @param {string} text One word of a POSIX shell, whatever is in it. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * The line that fetches a file.
 *
 * @param {string} path
 * @param {string} origin
 * @param {boolean} needsKey The key itself is nobody's who reads the line.
 */
export function curl(path, origin, needsKey) {
  const key = needsKey ? ' -H "Authorization: Bearer $SFSS_KEY"' : "";
  return `curl -f${key} -o ${quoted(`./${nameOf(path)}`)} ${quoted(origin + urlOf(path))}`;
}
