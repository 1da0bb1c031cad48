/**
 * One file: what it is, a look into it, and what may be done with it.
 *
 * Nothing of a file is ever taken for a page: images are images (`<img>`, in which no SVG runs anything), text is text,
 * and what a key had to be shown for becomes a blob of a type that only shows. Files themselves leave the server with
 * `Content-Security-Policy: sandbox`.
 */

import { ask, askJson, Problem } from "./api.js";
import { byId, el, named, say } from "./dom.js";
import { bytes, date } from "./format.js";
import { curl, nameOf, query, urlOf } from "./paths.js";

const IMAGES = [
  "image/png",
  "image/jpeg",
  "image/gif",
  "image/webp",
  "image/avif",
  "image/bmp",
  "image/svg+xml",
  "image/x-icon",
  "image/vnd.microsoft.icon",
];
const LARGEST_IMAGE = 32 * 2 ** 20; // bytes
const TEXT_SHOWN = 64 * 2 ** 10; // bytes
const LARGEST_IN_MEMORY = 256 * 2 ** 20; // bytes, of a download for which a key is shown
const TEXTS = /^(text\/|application\/(json|xml|yaml|toml|javascript|x-sh|sql|x-httpd-php)|.*\+(json|xml)$)/;
const TEXT_NAMES =
  /\.(txt|md|rst|log|csv|tsv|json|ya?ml|toml|ini|cfg|conf|xml|html?|css|m?js|ts|py|rb|go|rs|c|h|cpp|java|sh|sql|php)$/i;

/** @typedef {{path: string, size: number, type: string, etag: string, modified: Date}} About */

export class Details {
  #path = "";
  #closed;
  #deleted;
  #loading = new AbortController();
  /** @type {string[]} */
  #blobs = [];

  /** @param {{closed: (path: string) => void, deleted: (path: string) => void}} heed */
  constructor({ closed, deleted }) {
    this.#closed = closed;
    this.#deleted = deleted;
    byId("details").addEventListener("close", () => {
      this.#loading.abort();
      for (const url of this.#blobs.splice(0)) URL.revokeObjectURL(url);
      byId("details").replaceChildren();
      this.#closed(this.#path);
    });
  }

  close() {
    byId("details").close();
  }

  /** @param {string} path */
  async open(path) {
    const dialog = byId("details");
    if (dialog.open && path === this.#path) return;
    this.close();
    this.#path = path;
    const { signal } = (this.#loading = new AbortController());
    const body = el("div", { class: "body" }, el("p", { role: "status" }, "Asking ..."));
    const close = el("button", { type: "button", on: { click: () => this.close() } }, "Close");
    dialog.replaceChildren(el("header", {}, el("h2", { id: "details-name" }, named(nameOf(path))), close), body);
    dialog.showModal();
    try {
      const may = await askJson(`/dashboard/may?${query({ path })}`, { signal });
      const about = await this.#about(path, signal);
      body.replaceChildren(...this.#content(about, may, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      const why = error.status === 404 ? "There is no such file any more." : `It can't be shown: ${error.message}`;
      body.replaceChildren(el("p", { role: "alert" }, why));
    }
  }

  /** @returns {Promise<About>} */
  async #about(/** @type {string} */ path, /** @type {AbortSignal} */ signal) {
    const { headers } = await ask(urlOf(path), { method: "HEAD", signal });
    return {
      path,
      size: Number(headers.get("Content-Length")),
      type: (headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase(),
      etag: headers.get("ETag") ?? "",
      modified: new Date(headers.get("Last-Modified") ?? ""),
    };
  }

  #content(/** @type {About} */ about, /** @type {any} */ may, /** @type {AbortSignal} */ signal) {
    const told = el("p", { role: "status", class: "told" });
    const preview = el("div", { class: "preview" });
    void this.#preview(preview, about, may, signal);
    return [
      el(
        "dl",
        {},
        fact("Path", named(about.path)),
        fact("Size", `${bytes(about.size)} (${about.size.toLocaleString("en")} bytes)`),
        fact("Type", about.type),
        fact("Changed", date(about.modified)),
        fact("SHA-256", el("code", {}, about.etag.replaceAll('"', ""))),
      ),
      el(
        "div",
        { class: "row" },
        this.#download(about, may, told),
        copier("Copy link", location.origin + urlOf(about.path), told),
        copier("Copy curl line", curl(about.path, location.origin, !may.open), told),
        may.delete ? this.#deleter(about, told) : null,
      ),
      may.write_once
        ? el("p", { class: "hint" }, "It is neither replaced nor deleted: what is here is written once.")
        : "",
      told,
      preview,
    ];
  }

  // --- a look into it ---

  async #preview(
    /** @type {Element} */ into,
    /** @type {About} */ about,
    /** @type {any} */ may,
    /** @type {AbortSignal} */ signal,
  ) {
    try {
      if (!about.size) into.append(el("p", { class: "hint" }, "It is empty."));
      else if (IMAGES.includes(about.type)) into.append(await this.#image(about, may, signal));
      else if (TEXTS.test(about.type) || TEXT_NAMES.test(about.path)) into.append(...(await this.#text(about, signal)));
      else into.append(el("p", { class: "hint" }, "What is of this type isn't shown here."));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      into.append(el("p", { role: "alert" }, `It can't be looked into: ${error.message}`));
    }
  }

  async #image(/** @type {About} */ about, /** @type {any} */ may, /** @type {AbortSignal} */ signal) {
    if (about.size > LARGEST_IMAGE) return el("p", { class: "hint" }, "The image is too large to be shown here.");
    const url = may.open ? urlOf(about.path) : await this.#blob(about, about.type, signal);
    const image = el("img", { src: url, alt: `preview of ${nameOf(about.path)}` });
    image.addEventListener("error", () =>
      image.replaceWith(el("p", { class: "hint" }, "It says that it is an image, and can't be shown as one.")),
    );
    return image;
  }

  async #text(/** @type {About} */ about, /** @type {AbortSignal} */ signal) {
    const shown = Math.min(about.size, TEXT_SHOWN);
    const answer = await ask(urlOf(about.path), { headers: { Range: `bytes=0-${shown - 1}` }, signal });
    const content = new Uint8Array(await answer.arrayBuffer()).subarray(0, shown);
    if (content.includes(0)) return [el("p", { class: "hint" }, "It isn't text.")];
    const more =
      about.size > shown ? [el("p", { class: "hint" }, `The first ${bytes(shown)} of ${bytes(about.size)}:`)] : [];
    return [
      ...more,
      el(
        "pre",
        { tabindex: 0, role: "region", "aria-label": `text of ${nameOf(about.path)}` },
        new TextDecoder().decode(content),
      ),
    ];
  }

  /** Fetch all of it, and have a URL for it, while this is open. */
  async #blob(/** @type {About} */ about, /** @type {string} */ type, /** @type {AbortSignal} */ signal) {
    const answer = await ask(urlOf(about.path), { signal, patience: 600_000 });
    const url = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type }));
    this.#blobs.push(url);
    return url;
  }

  // --- what may be done ---

  /** Where everybody may read it, a link; else this page fetches it, for a link shows no key. */
  #download(/** @type {About} */ about, /** @type {any} */ may, /** @type {Element} */ told) {
    const name = nameOf(about.path);
    if (may.open) return el("a", { class: "button", href: urlOf(about.path), download: name }, "Download");
    const button = el("button", { type: "button" }, "Download");
    button.addEventListener("click", async () => {
      if (about.size > LARGEST_IN_MEMORY) {
        say(
          told,
          `It is larger than ${bytes(LARGEST_IN_MEMORY)}, which is what this page fetches with a key: take the curl line.`,
        );
        return;
      }
      say(told, "Fetching ...");
      try {
        const url = await this.#blob(about, "application/octet-stream", this.#loading.signal);
        el("a", { href: url, download: name }).click();
        say(told, "Fetched.");
      } catch (error) {
        if (!this.#loading.signal.aborted) say(told, `It can't be fetched: ${/** @type {Error} */ (error).message}`);
      }
    });
    return button;
  }

  /** Twice pressed: and only what was looked at goes, not what somebody has put in its place. */
  #deleter(/** @type {About} */ about, /** @type {Element} */ told) {
    const first = el("button", { type: "button", class: "danger" }, "Delete");
    const keep = el("button", { type: "button" }, "Keep it");
    const sure = el("button", { type: "button", class: "danger" }, "Delete for good");
    const question = el(
      "div",
      { role: "group", "aria-label": "Delete?", class: "row question", hidden: true },
      el("span", {}, "Delete ", named(about.path), "?"),
      sure,
      keep,
    );
    const ask_ = (/** @type {boolean} */ isAsked) => {
      question.hidden = !isAsked;
      first.hidden = isAsked;
      (isAsked ? keep : first).focus();
    };
    first.addEventListener("click", () => ask_(true));
    keep.addEventListener("click", () => ask_(false));
    sure.addEventListener("click", async () => {
      sure.disabled = true;
      try {
        await ask(urlOf(about.path), { method: "DELETE", headers: { "If-Match": about.etag } });
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (error.status !== 404) {
          sure.disabled = false;
          ask_(false);
          say(
            told,
            error.status === 412
              ? "It isn't deleted, for it has changed since you opened it: look at it again."
              : `It isn't deleted: ${error.message}`,
          );
          return;
        }
      }
      this.close();
      this.#deleted(about.path);
    });
    return el("div", { class: "row" }, first, question);
  }
}

const fact = (/** @type {string} */ term, /** @type {any} */ words) =>
  el("div", {}, el("dt", {}, term), el("dd", {}, words));

/** A button that copies a text; where the browser doesn't let it (on http:// of another machine), the text, selected. */
function copier(/** @type {string} */ words, /** @type {string} */ text, /** @type {Element} */ told) {
  return el(
    "button",
    {
      type: "button",
      on: {
        click: async () => {
          try {
            await navigator.clipboard.writeText(text);
            say(told, `Copied: ${text}`);
          } catch {
            const field = el("input", { readonly: true, value: text, "aria-label": words });
            told.replaceChildren("This browser doesn't copy here; copy it yourself: ", field);
            field.select();
          }
        },
      },
    },
    words,
  );
}
