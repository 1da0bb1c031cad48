/**
 * The page: which view is shown, what is asked of the server, and who draws it.
 *
 *   status -> verdict.js (is all well), rates.js -> charts.js, overview.js
 *   files  -> browser.js (folders, search), details.js (one file), queue.js -> transfer.js (uploads), drops.js
 */

import { askJson, Problem } from "./api.js";
import { FileBrowser } from "./browser.js";
import { charts } from "./charts.js";
import { byId, el, say, show } from "./dom.js";
import { moment } from "./format.js";
import { keyPanel } from "./keys.js";
import { draw, drawNamespaces } from "./overview.js";
import { place } from "./paths.js";
import { Poll } from "./poll.js";
import { History, sample } from "./rates.js";
import { judge, Slowness } from "./verdict.js";

const EVERY = 2_000; // milliseconds between two looks at the nodes ...
const NAMESPACES_EVERY = 10_000; // ... and at how full namespaces are, for which nodes are read

const history = new History();
const slowness = new Slowness();
const lines = charts(byId("charts"));
/** @type {Date | null} */
let silentSince = null;

const panel = keyPanel(() => browser.reload());
const browser = new FileBrowser(panel);

function verdict(/** @type {string} */ level, /** @type {string} */ sentence, /** @type {any[]} */ troubles = []) {
  byId("verdict").dataset.level = level;
  say(byId("verdict"), sentence);
  show(
    byId("troubles"),
    troubles.map((trouble) => el("li", { "data-level": trouble.level }, trouble.text)),
  );
  document.title = level === "well" ? "sfss" : `${level === "bad" ? "✖" : "!"} sfss`;
}

function heard(/** @type {any} */ status) {
  const now = new Date();
  if (silentSince !== null) browser.reload(); // what it shows may be old
  silentSince = null;
  byId("main").removeAttribute("data-stale");
  history.add(sample(status, now.getTime() / 1000));
  const slow = slowness.look(status.webserver.nodes, now);
  const found = judge(status, slow, history.failures);
  verdict(found.level, found.sentence, found.troubles);
  draw(status, slow);
  lines.draw(history.rates);
}

function failed(/** @type {Problem} */ problem) {
  const now = new Date();
  history.gap(now.getTime() / 1000);
  if (problem.needsKey) {
    silentSince = null;
    byId("main").dataset.stale = "";
    verdict("unknown", "How the nodes are is shown to who has a key with the right to see the status.");
    if (place(location.hash).view === "overview") panel.need(problem.message);
    return;
  }
  silentSince ??= now;
  byId("main").dataset.stale = "";
  const since = `since ${moment(silentSince)}; it is asked again and again`;
  verdict(
    "bad",
    problem.status === 0
      ? `The server doesn't answer ${since}.`
      : `The server can't say how the nodes are ${since}: ${problem.message}.`,
  );
}

const statusPoll = new Poll(() => askJson("/status?format=full"), { every: EVERY, heard, failed });
const namespacesPoll = new Poll(() => askJson("/namespaces"), {
  every: NAMESPACES_EVERY,
  heard: ({ namespaces }) => drawNamespaces(namespaces),
  failed: () => {}, // the other one says it
});

function go() {
  const { view, path } = place(location.hash);
  const isOverview = view === "overview";
  byId("overview").hidden = !isOverview;
  byId("files").hidden = isOverview;
  for (const [id, isHere] of Object.entries({ "to-overview": isOverview, "to-files": !isOverview })) {
    if (isHere) byId(id).setAttribute("aria-current", "page");
    else byId(id).removeAttribute("aria-current");
  }
  void browser.go(view, path);
}

byId("skip").addEventListener("click", (/** @type {Event} */ event) => {
  event.preventDefault(); // addresses of this page are its own
  byId("main").focus();
});
addEventListener("hashchange", go);
go();
statusPoll.start();
namespacesPoll.start();
