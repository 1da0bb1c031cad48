/** The overview: one answer of /status?format=full, and of /namespaces, as tables and lists. */

import { behind } from "./behind.js";
import { byId, el, fact, named, show } from "./dom.js";
import { brief, bytes, count, many, moment, percent, span } from "./format.js";
import { called, whenOf } from "./verdict.js";

const COLORS = 8; // that the style sheet has for shares of the ring
const CAN = { durable: "durable", cas: "cas", ttl: "ttl", head: "head", scan: "scan" };

/** @param {any} status @param {Map<string, Date>} slow */
export function draw(status, slow) {
  const { storages, webserver } = status;
  const nodes = Object.entries(webserver.nodes);
  show(
    byId("nodes"),
    nodes.map(([address, node]) => nodeRow(address, node, storages[address] ?? {}, slow)),
  );
  show(byId("ring"), ring(nodes, webserver.ring));
  show(byId("copies"), copies(webserver));
  show(byId("server"), server(webserver));
  byId("catalogue-section").hidden = !webserver.catalogue;
  if (webserver.catalogue) show(byId("catalogue"), catalogue(webserver.catalogue));
  byId("behind-section").hidden = !webserver.write_behind;
  if (webserver.write_behind) show(byId("behind"), behind(webserver.write_behind));
}

/** @param {any[]} namespaces As /namespaces has them. */
export function drawNamespaces(namespaces) {
  byId("namespaces-section").hidden = !namespaces.length;
  show(byId("namespaces"), namespaces.map(namespaceRow));
}

const cell = (/** @type {string} */ label, /** @type {any} */ content, name = "") =>
  el(
    "td",
    { role: "cell", "data-label": label, class: name },
    el("div", {}, ...(Array.isArray(content) ? content : [content])),
  );

const number = (/** @type {any} */ text) => (text === undefined || text === "" ? NaN : Number(text));

function nodeRow(
  /** @type {string} */ address,
  /** @type {any} */ node,
  /** @type {any} */ figures,
  /** @type {Map<string, Date>} */ slow,
) {
  const kind = node.kind ? `${node.kind} ${node.version}` : "–";
  return el(
    "tr",
    { role: "row" },
    el(
      "th",
      { role: "rowheader", scope: "row" },
      named(node.name ?? address),
      node.name === address ? null : el("small", {}, named(address)),
    ),
    cell("State", state(address, node, slow)),
    cell("Items", count(number(figures.curr_items)), "number"),
    cell("Bytes", bytes(number(figures.bytes)), "number"),
    cell("Disk left", disk(address, figures)),
    cell("Memory", bytes(memory(figures)), "number"),
    cell("Answers in", node.took ? brief(Number(node.took)) : "–", "number"),
    cell("Uptime", span(number(figures.uptime)), "number"),
    cell("Version", kind),
    cell("Can", abilities(node)),
  );
}

function state(/** @type {string} */ address, /** @type {any} */ node, /** @type {Map<string, Date>} */ slow) {
  const since = slow.get(address);
  const badge = (/** @type {string} */ level, /** @type {string} */ text) =>
    el("span", { class: "badge", "data-level": level }, text);
  const comes = node.state === "member" ? null : ` ${node.state}`;
  if (node.away !== null)
    return [badge("bad", "away"), comes, ` since ${moment(whenOf(node.since))}`, el("small", {}, node.away)];
  if (since) return [badge("warn", "slow"), comes, ` since ${moment(since)}`];
  return [badge("well", "here"), comes, el("small", {}, `since ${moment(whenOf(node.since))}`)];
}

function disk(/** @type {string} */ address, /** @type {any} */ figures) {
  const [left, all] = [number(figures.avail_space), number(figures.total_space)];
  if (!(all > 0)) return "–";
  const meter = el(
    "meter",
    {
      min: 0,
      max: 1,
      low: 0.02,
      high: 0.1,
      optimum: 1,
      value: (left / all).toFixed(3),
      "aria-label": `disk left at ${address}`,
    },
    percent(left / all),
  );
  return [`${bytes(left)} of ${bytes(all)} `, meter];
}

/** Of what a node tells: our own its whole process's at its largest, others what they take for items. */
function memory(/** @type {any} */ figures) {
  if (figures.rusage_maxrss) return Number(figures.rusage_maxrss) * 1024;
  return number(figures.used_memory ?? figures.limit_maxbytes);
}

function abilities(/** @type {any} */ node) {
  if (!node.kind) return "–";
  const can = Object.entries(CAN)
    .filter(([name]) => node[name])
    .map(([, words]) => words);
  return [
    [...can, ...(node.evicting ? ["evicts"] : [])].join(", "),
    el("small", {}, `records to ${bytes(Number(node.largest_value))}`),
  ];
}

function ring(/** @type {[string, any][]} */ nodes, /** @type {any} */ about) {
  const shares = nodes.map(([address, node], at) => ({
    name: called(address, node),
    share: Number(node.share),
    color: String(at % COLORS),
  }));
  const words = `${many(Number(about.nodes), "node")}, ${many(Number(about.copies), "copy", "copies")} of each file${about.moving === "yes" ? "; files are being moved" : ""}.`;
  return [
    el("p", {}, words),
    el(
      "div",
      { class: "shares", "aria-hidden": "true" },
      ...shares.map(({ share, color }) => el("span", { "data-color": color, style: { flexGrow: String(share) } })),
    ),
    el(
      "ul",
      { class: "legend" },
      ...shares.map(({ name, share, color }) =>
        el(
          "li",
          {},
          el("span", { class: "dot", "data-color": color, "aria-hidden": "true" }),
          named(name),
          ` ${percent(share)}`,
        ),
      ),
    ),
  ];
}

const when = (/** @type {string | undefined} */ seconds) =>
  Number(seconds) ? moment(whenOf(String(seconds))) : "not yet";

function copies(/** @type {any} */ webserver) {
  const { repair, rebalance, copies, ring } = webserver;
  const facts = [];
  if (repair.state) {
    const lacking = Number(repair.under_replicated);
    facts.push(
      fact(
        "Files that lack a copy",
        el("span", { class: "badge", "data-level": lacking ? "warn" : "well" }, count(lacking)),
      ),
      fact(
        "Damaged files",
        el(
          "span",
          { class: "badge", "data-level": Number(repair.damaged) ? "bad" : "well" },
          count(Number(repair.damaged)),
        ),
      ),
      fact(
        "Repair",
        `${repair.state}`,
        ...progress("repair", repair),
        el(
          "small",
          {},
          `last finished: ${when(repair.finished)}; ${many(Number(repair.copies_written), "copy", "copies")} written`,
        ),
      ),
      fact(
        "Sweep of large files",
        repair.sweep_state,
        el(
          "small",
          {},
          `last finished: ${when(repair.sweep_finished)}; ${many(Number(repair.blocks_lacking), "block")} without a copy, ${many(Number(repair.blocks_copied), "block")} copied, ${bytes(Number(repair.bytes_freed))} freed`,
        ),
      ),
    );
  } else facts.push(fact("Repair", "not done by this front (repair.background)"));
  const moves =
    rebalance.state === "nothing"
      ? ring.moving === "yes"
        ? "nodes join or leave: run sfss rebalance"
        : "nothing to move"
      : rebalance.state;
  facts.push(
    fact(
      "Rebalance",
      moves,
      ...progress("rebalance", rebalance),
      rebalance.state === "nothing"
        ? null
        : el(
            "small",
            {},
            `${many(Number(rebalance.copies_written), "copy", "copies")} written, ${many(Number(rebalance.strays_removed), "copy", "copies")} removed`,
          ),
    ),
    fact("Handoffs", count(Number(copies.handoffs))),
    fact("Hedged reads", count(Number(copies.hedges))),
    fact("Copies mended by reads", count(Number(copies.mended))),
    fact("Late failures", count(Number(copies.late_failures))),
    fact("Damaged copies met", count(Number(copies.damaged))),
  );
  return facts;
}

/** How far a walk is, while one goes on; it begins when the first keys have been walked over. */
function progress(/** @type {string} */ name, /** @type {any} */ walk) {
  if (!Number(walk.walked)) return [];
  const keys = many(Number(walk.walked), "key");
  if (!Number(walk.items)) return [el("small", {}, `${keys} so far`)];
  const share = Math.min(Number(walk.listed) / Number(walk.items), 1);
  const bar = el("progress", { max: 1, value: share.toFixed(3), "aria-label": `progress of ${name}` });
  return [" ", bar, el("small", {}, `${keys} so far: ${percent(share)} of what the nodes had`)];
}

function server(/** @type {any} */ webserver) {
  const statuses = Object.entries(webserver.responses).map(([status, times]) => `${status}: ${count(Number(times))}`);
  const workers = webserver.workers.map((place) =>
    place.pid === "0"
      ? "being started"
      : `pid ${place.pid}, up ${span(Number(place.uptime))}, ${many(Number(place.requests), "request")}, started ${place.starts === "1" ? "once" : `${place.starts} times`}`,
  );
  return [
    fact("Version", `sfss ${webserver.version}`),
    fact("Uptime", span(Number(webserver.uptime))),
    fact("Requests", count(Number(webserver.requests))),
    fact("Answers by status", statuses.join(", ") || "none yet"),
    fact("Memory", bytes(Number(webserver.memory)), el("small", {}, "of the worker that answers")),
    fact(many(workers.length, "Worker"), el("ul", { class: "plain" }, ...workers.map((words) => el("li", {}, words)))),
  ];
}

function catalogue(/** @type {any} */ about) {
  const how = about.away
    ? ["bad", `away: ${about.away}`]
    : about.behind
      ? ["warn", `behind: ${about.behind}`]
      : ["well", "has all files"];
  return [
    fact("State", el("span", { class: "badge", "data-level": how[0] }, how[1])),
    fact("Database", about.database),
    fact("Rows owed", count(Number(about.owed))),
    fact("Changes", `${count(Number(about.changes))} in ${many(Number(about.transactions), "transaction")}`),
    fact("Reindex", about.state, el("small", {}, `${many(Number(about.compared), "file")} compared`)),
  ];
}

function namespaceRow(/** @type {any} */ about) {
  const layout = [
    about.layout,
    about.pieces ? many(about.pieces, "piece") : "",
    about.copies ? many(about.copies, "copy", "copies") : "",
    about.write_once ? "write-once" : "",
  ];
  return el(
    "tr",
    { role: "row" },
    el("th", { role: "rowheader", scope: "row" }, named(about.name)),
    cell(
      "State",
      el("span", { class: "badge", "data-level": about.enabled ? "well" : "warn" }, about.enabled ? "open" : "shut"),
    ),
    cell("Layout", layout.filter(Boolean).join(", ")),
    cell("Bytes", fill(about.name, "bytes", about.used?.bytes, about.quota, bytes)),
    cell("Files", fill(about.name, "files", about.used?.files, about.quota_files, count)),
    cell("Made by", about.source),
  );
}

/** How much of a quota is taken; what has none isn't counted. */
function fill(
  /** @type {string} */ name,
  /** @type {string} */ what,
  /** @type {number | undefined} */ used,
  /** @type {number | undefined} */ quota,
  /** @type {(value: number) => string} */ format,
) {
  if (used === undefined) return quota === undefined ? "not counted" : "being counted";
  if (quota === undefined) return format(used);
  const meter = el(
    "meter",
    {
      min: 0,
      max: Math.max(quota, 1),
      low: quota * 0.8,
      high: quota * 0.95,
      optimum: 0,
      value: used,
      "aria-label": `${what} of the quota of ${name}`,
    },
    percent(used / quota),
  );
  return [`${format(used)} of ${format(quota)} `, meter];
}
