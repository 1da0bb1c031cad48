/**
 * Requests to this server, with the reader's key; what is refused becomes a Problem, in the server's own words.
 *
 * The key is in sessionStorage: it is gone with the tab, and no other site sees it. It goes into a header, never a URL.
 */

const KEY = "sfss-key";
const PATIENCE = 15_000; // milliseconds for an answer to begin

/** Why a request has failed. `status` 0: the server couldn't be reached, or said nothing in time. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail @param {number} wait Seconds that the server wants to be left alone. */
  constructor(status, detail, wait = 0) {
    super(detail);
    this.status = status;
    this.wait = wait;
  }

  /** Whether a key, or another one, would do. */
  get needsKey() {
    return this.status === 401 || this.status === 403;
  }

  /** Whether to try the same again makes sense. */
  get isPassing() {
    return this.status === 0 || [408, 423, 429, 500, 502, 503, 504].includes(this.status);
  }
}

let memory = ""; // where storage is forbidden

export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY) ?? memory;
    } catch {
      return memory;
    }
  },
  set(/** @type {string} */ text) {
    memory = text;
    try {
      if (text) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {
      // it holds until the page is left
    }
    document.dispatchEvent(new CustomEvent("sfss-key"));
  },
};

/** The headers that show the key. @returns {Record<string, string>} */
export const shown = () => (key.get() ? { Authorization: `Bearer ${key.get()}` } : {});

/**
 * @param {string} url On this server.
 * @param {RequestInit & {patience?: number}} options
 * @returns {Promise<Response>} Of a request that has succeeded. Rejects with a Problem; as `fetch` does if it is aborted.
 */
export async function ask(url, { patience = PATIENCE, ...options } = {}) {
  const late = AbortSignal.timeout(patience);
  const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
  let answer;
  try {
    answer = await fetch(url, { ...options, headers: { ...shown(), ...options.headers }, signal, cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, late.aborted ? "the server doesn't answer" : "the server can't be reached");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

/** The JSON that a page answers. @param {string} url @param {RequestInit} options @returns {Promise<any>} */
export async function askJson(url, options = {}) {
  const answer = await ask(url, options);
  try {
    return await answer.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "the server's answer broke off");
  }
}

/** @param {Response} answer */
async function problemOf(answer) {
  const text = await answer.text().catch(() => "");
  return refusal(answer.status, text, answer.headers.get("Retry-After"));
}

/**
 * What an answer says that is none that was hoped for.
 *
 * @param {number} status
 * @param {string} text Its body.
 * @param {string | null} wait Its Retry-After.
 */
export function refusal(status, text, wait) {
  let detail = `the server answers ${status}`;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // a proxy's own page
  }
  return new Problem(status, String(detail), Number(wait) || 0);
}
