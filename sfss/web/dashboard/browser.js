/** The files: a folder, or what a search finds, page by page; and what may be done there. */

import { askJson, Problem } from "./api.js";
import { Details } from "./details.js";
import { byId, el, named, say } from "./dom.js";
import { dropped, heedDrops } from "./drops.js";
import { bytes, date, many } from "./format.js";
import { folderOf, hashOfFile, hashOfFolder, nameOf, query } from "./paths.js";
import { UploadPanel } from "./uploads.js";

const PAGE = 500; // rows ...
const LONGEST = 10_000; // ... and as many as one answer may have
const TYPING = 200; // milliseconds without another letter, until a search begins

/**
 * @typedef {object} May What may be done, as /dashboard/may tells it.
 * @property {boolean} list
 * @property {boolean} read
 * @property {boolean} write
 * @property {boolean} delete
 * @property {boolean} open
 * @property {boolean} write_once
 * @property {number} max_file_size
 * @property {string} max_file_size_setting
 * @property {boolean} search
 * @property {string | null} key
 * @property {string | null} fault
 * @property {Record<string, string>} why
 */

export class FileBrowser {
  #prefix = "";
  #text = ""; // that is searched for
  #isShown = false;
  /** @type {string | null} */
  #next = null; // where the next page begins; null: there is none
  #counts = { files: 0, folders: 0 };
  #drawn = ""; // of what the rows are
  /** @type {May | null} */
  #may = null;
  #loading = new AbortController();
  #isMoreComing = false;
  #typing = 0;
  #end; // whether the reader sees the end of the rows
  #panel;
  #details;
  #uploads;

  /** @param {{need: (why: string) => void}} panel Where a key is given. */
  constructor(panel) {
    this.#panel = panel;
    this.#details = new Details({
      closed: (path) => {
        if (location.hash === hashOfFile(path)) location.hash = hashOfFolder(folderOf(path));
      },
      deleted: () => {
        byId("folder").focus(); // the row that had it goes
        this.reload();
      },
    });
    this.#uploads = new UploadPanel({ changed: (path) => this.#heedUpload(path) });
    byId("search").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(), TYPING);
    });
    byId("more").addEventListener("click", () => this.#more());
    this.#end = new IntersectionObserver((seen) => seen.at(-1)?.isIntersecting && void this.#more());
    this.#heedUploads();
  }

  /** Show what an address of this page is of. @param {"overview" | "files" | "file"} view @param {string} path */
  async go(view, path) {
    const prefix = view === "files" ? path : folderOf(path);
    const wasShown = this.#isShown;
    this.#isShown = view !== "overview";
    if (!this.#isShown) {
      this.#details.close();
      return;
    }
    if (prefix !== this.#prefix || !wasShown) {
      this.#prefix = prefix;
      this.#text = byId("search").value = "";
      this.#name();
      if (wasShown && view === "files") byId("folder").focus();
      void this.#load();
    }
    if (view === "file") void this.#details.open(path);
    else this.#details.close();
  }

  /** Look again. */
  reload() {
    if (this.#isShown) void this.#load();
  }

  #name() {
    const parts = this.#prefix.split("/").slice(0, -1);
    byId("folder-name").replaceChildren(parts.length ? named(parts[parts.length - 1]) : "all folders");
    const above = ["", ...parts].map((_, at) =>
      parts
        .slice(0, at)
        .map((part) => `${part}/`)
        .join(""),
    );
    byId("crumbs").replaceChildren(
      el(
        "ol",
        {},
        ...above.map((prefix, at) =>
          el(
            "li",
            {},
            at === above.length - 1
              ? el("span", { "aria-current": "page" }, crumb(prefix))
              : el("a", { href: hashOfFolder(prefix) }, crumb(prefix)),
          ),
        ),
      ),
    );
  }

  #search() {
    const text = byId("search").value;
    if (text === this.#text) return;
    this.#text = text;
    void this.#load();
  }

  async #load() {
    this.#loading.abort();
    const { signal } = (this.#loading = new AbortController());
    const wanted = JSON.stringify([this.#prefix, this.#text]);
    const rows = wanted === this.#drawn ? byId("rows").childElementCount : 0; // who has gone far down stays there
    this.#next = null;
    try {
      const may = await askJson(`/dashboard/may?${query({ prefix: this.#prefix })}`, { signal });
      this.#offer(may);
      const limit = Math.min(Math.max(rows, PAGE), LONGEST);
      const page = may.list ? await askJson(this.#url(null, limit), { signal }) : { files: [], next: null };
      byId("rows").replaceChildren(...this.#rows(page));
      this.#drawn = wanted;
      this.#counts = { files: page.files.length, folders: page.prefixes?.length ?? 0 };
      this.#tell(page, may);
    } catch (error) {
      if (!signal.aborted && wanted !== this.#drawn) {
        byId("rows").replaceChildren(); // they are another folder's
        byId("more").hidden = true;
      }
      this.#fail(error, signal);
    }
  }

  async #more() {
    if (this.#next === null || this.#isMoreComing) return;
    this.#isMoreComing = true;
    const { signal } = this.#loading;
    try {
      const page = await askJson(this.#url(this.#next, PAGE), { signal });
      byId("rows").append(...this.#rows(page));
      this.#counts.files += page.files.length;
      this.#counts.folders += page.prefixes?.length ?? 0;
      this.#tell(page, this.#may);
    } catch (error) {
      this.#fail(error, signal);
    } finally {
      this.#isMoreComing = false;
    }
  }

  /** @param {string | null} after @param {number} limit */
  #url(after, limit) {
    const isFound = this.#text && this.#may?.search;
    return `/files?${query({
      prefix: isFound || !this.#text ? this.#prefix : this.#prefix + this.#text,
      ...(isFound ? { search: this.#text } : { delimiter: "/" }),
      ...(after === null ? {} : { after }),
      limit,
    })}`;
  }

  /** @param {any} page A page of a list, or of a search, whose names say where they are. */
  #rows(page) {
    const isFound = page.search !== undefined;
    const name = (/** @type {string} */ path) => (isFound ? path.slice(this.#prefix.length) : nameOf(path));
    return [...(page.prefixes ?? []).map(folderRow), ...page.files.map((file) => fileRow(file, name(file.path)))];
  }

  #tell(/** @type {any} */ page, /** @type {May | null} */ may) {
    this.#next = page.next;
    byId("more").hidden = page.next === null;
    this.#end.disconnect(); // so that it tells anew, though nothing has changed: the rows may be fewer than a screen's
    this.#end.observe(byId("more"));
    const { files, folders } = this.#counts;
    const more = page.next === null ? "" : ", and there are more";
    const unsure = page.complete === false ? "; some may be missing, for the catalogue is behind" : "";
    const here = [folders ? many(folders, "folder") : "", files || !folders ? many(files, "file") : ""]
      .filter(Boolean)
      .join(", ");
    if (may !== null && !may.list)
      say(
        byId("files-told"),
        `What is here isn't shown to you: ${may.why.read ?? may.why.closed ?? "a key is needed"}`,
      );
    else if (may?.why.closed) say(byId("files-told"), may.why.closed);
    else say(byId("files-told"), `${here}${more}${unsure}.`);
  }

  #fail(/** @type {any} */ error, /** @type {AbortSignal} */ signal) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    if (error.needsKey) this.#panel.need(error.message);
    say(byId("files-told"), `What is here can't be asked for: ${error.message}`);
  }

  /** Offer what may be done, and nothing else. @param {May} may */
  #offer(may) {
    this.#may = may;
    byId("upload-tools").hidden = !may.write;
    say(byId("search-label"), may.search ? "Search below this folder" : "Find names here that begin so");
    const rules = [
      may.write
        ? `Files up to ${bytes(may.max_file_size)} can be uploaded: drop them here.`
        : "Nothing can be uploaded here.",
      may.write_once ? "What is here stays: it is neither replaced nor deleted." : "",
      may.write ? "" : (may.why.write ?? may.why.closed ?? ""),
    ];
    say(byId("folder-rules"), rules.filter(Boolean).join(" "));
    if (may.fault !== null) this.#panel.need(`Your key isn't taken: ${may.fault}.`);
    else if (!may.list || (!may.write && may.key === null && may.why.write))
      this.#panel.need(may.why.read ?? may.why.write ?? "A key is needed here.");
  }

  // --- uploads ---

  #heedUploads() {
    const [files, folder] = [byId("pick-files"), byId("pick-folder")];
    byId("upload-files").addEventListener("click", () => files.click());
    byId("upload-folder").addEventListener("click", () => folder.click());
    for (const input of [files, folder]) {
      input.addEventListener("change", () => {
        this.#upload([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
        input.value = "";
      });
    }
    heedDrops({
      where: () => (this.#isShown && this.#may?.write ? this.#prefix : null),
      drop: (transfer) => void this.#drop(transfer),
    });
  }

  async #drop(/** @type {DataTransfer} */ transfer) {
    const prefix = this.#prefix; // the reader may be elsewhere when a large folder has been read
    try {
      this.#upload(await dropped(transfer), prefix);
    } catch (error) {
      say(byId("files-told"), `Nothing is uploaded, for what was dropped can't be read: ${error}`);
    }
  }

  /** @param {{file: File, path: string}[]} found Each with its path within what was chosen. */
  #upload(found, prefix = this.#prefix) {
    const uploads = found.map(({ file, path }) => ({ file, path: prefix + path }));
    this.#uploads.add(uploads, { mayReplace: !this.#may?.write_once });
  }

  /** Something has been uploaded. @param {string} path */
  #heedUpload(path) {
    if (this.#isShown && path.startsWith(this.#prefix)) this.reload();
  }
}

const crumb = (/** @type {string} */ prefix) => (prefix ? named(nameOf(prefix).slice(0, -1)) : "all folders");

const cell = (/** @type {Record<string, any>} */ properties, /** @type {...any} */ ...content) =>
  el("td", { role: "cell", ...properties }, ...content);

const folderRow = (/** @type {string} */ prefix) =>
  el(
    "tr",
    { role: "row" },
    el(
      "th",
      { role: "rowheader", scope: "row" },
      el("a", { href: hashOfFolder(prefix), class: "folder" }, named(nameOf(prefix))),
    ),
    cell({ class: "number" }, ""),
    cell({}, ""),
    cell({ class: "wide" }, "folder"),
  );

const fileRow = (/** @type {any} */ file, /** @type {string} */ name) =>
  el(
    "tr",
    { role: "row" },
    el("th", { role: "rowheader", scope: "row" }, el("a", { href: hashOfFile(file.path) }, named(name))),
    cell({ class: "number" }, bytes(file.size)),
    cell({}, date(new Date(file.modified))),
    cell({ class: "wide" }, file.type),
  );
