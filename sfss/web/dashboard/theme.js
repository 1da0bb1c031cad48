/**
 * Light or dark: as the system has it, until the reader chooses. Runs before anything is drawn, so that nothing flashes;
 * and therefore is no module.
 */
"use strict";
(() => {
  const NAME = "sfss-theme";
  const ORDER = ["auto", "light", "dark"];

  const kept = () => {
    try {
      return localStorage.getItem(NAME) ?? "auto";
    } catch {
      return "auto"; // storage is forbidden here
    }
  };

  const apply = (theme) => {
    document.documentElement.dataset.theme = ORDER.includes(theme) ? theme : "auto";
    document.dispatchEvent(new CustomEvent("sfss-theme"));
  };

  apply(kept());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(kept()));

  document.addEventListener("DOMContentLoaded", () => {
    const button = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));
    const name = () => {
      button.textContent = `Theme: ${document.documentElement.dataset.theme}`;
    };
    name();
    button.addEventListener("click", () => {
      const now = ORDER.indexOf(document.documentElement.dataset.theme ?? "auto");
      const next = ORDER[(now + 1) % ORDER.length];
      try {
        localStorage.setItem(NAME, next);
      } catch {
        // it holds until the page is left
      }
      apply(next);
      name();
    });
  });
})();
