/** Where the reader gives a key. It opens by itself where one is needed, and never takes the focus by itself. */

import { key } from "./api.js";
import { byId, say } from "./dom.js";

/** @param {() => void} changed Is called when there is another key, or none any more. */
export function keyPanel(changed) {
  const [panel, button, input] = [byId("key-panel"), byId("key-button"), byId("key")];
  let wasAsked = false;

  const open = (/** @type {boolean} */ isOpen) => {
    panel.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
  };
  const use = (/** @type {string} */ text) => {
    input.value = "";
    wasAsked = false;
    key.set(text);
    open(false);
    changed();
  };

  button.addEventListener("click", () => {
    say(byId("key-why"), key.get() ? "A key is in use." : "No key is in use.");
    open(panel.hidden);
    if (!panel.hidden) input.focus();
  });
  byId("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const text = input.value.trim().replace(/^bearer\s+/i, "");
    if (text) use(text);
  });
  byId("key-forget").addEventListener("click", () => use(""));

  return {
    /** A key is needed, or another one: say why, once. @param {string} why */
    need(why) {
      if (wasAsked) return;
      wasAsked = true;
      say(byId("key-why"), why);
      open(true);
    },
  };
}
