/**
 * Asks again and again, while somebody looks; more seldom while nothing answers, and at once when it may again. Where a key
 * is needed it waits for one: it would be refused each time.
 */

import { Problem } from "./api.js";

const SLOWEST = 10_000; // milliseconds between two attempts

export class Poll {
  #ask;
  #every;
  #heard;
  #failed;
  #timer = 0;
  #failures = 0;
  #isAsking = false;
  #isOn = false;

  /**
   * @param {() => Promise<any>} ask
   * @param {{every: number, heard: (answer: any) => void, failed: (problem: Problem) => void}} options `every` in milliseconds.
   */
  constructor(ask, { every, heard, failed }) {
    this.#ask = ask;
    this.#every = every;
    this.#heard = heard;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => this.now());
    addEventListener("online", () => this.now());
    document.addEventListener("sfss-key", () => this.now());
  }

  start() {
    this.#isOn = true;
    this.now();
  }

  /** Don't wait for the next time. */
  now() {
    if (!this.#isOn || this.#isAsking || document.hidden) return;
    clearTimeout(this.#timer);
    void this.#once();
  }

  async #once() {
    this.#isAsking = true;
    try {
      this.#heard(await this.#ask());
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      if (!(error instanceof Problem)) console.error(error); // a bug of this page
      this.#failed(error instanceof Problem ? error : new Problem(500, `this page has a bug: ${error}`));
      if (error instanceof Problem && error.needsKey) return;
    } finally {
      this.#isAsking = false;
    }
    const pause = Math.min(this.#every * 2 ** Math.max(this.#failures - 1, 0), Math.max(SLOWEST, this.#every));
    this.#timer = setTimeout(() => this.now(), pause);
  }
}
