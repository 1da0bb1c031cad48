/** The page's modules that draw nothing, by node's own test runner: tests/web/test_pages.py runs it beside copies of them. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { brief, bytes, count, span } from "./format.js";
import { curl, folderOf, hashOfFile, nameOf, place, urlOf } from "./paths.js";
import { History, rate, sample } from "./rates.js";
import { judge, Slowness } from "./verdict.js";

const node = (more = {}) => ({ away: null, name: "n1", since: "1000", took: "0.001", state: "member", ...more });
const status = ({ nodes = { "h:1": node() }, storages = { "h:1": { uptime: "1" } }, ...more } = {}) => ({
  storages,
  webserver: {
    requests: "10",
    responses: { 200: "10" },
    workers: [{ pid: "1" }],
    warnings: [],
    repair: {},
    ring: { copies: "1" },
    nodes,
    ...more,
  },
});
const verdict = (told, slow = new Map(), failures = 0) => judge(status(told), slow, failures);

test("where nothing is wrong all is well", () => {
  assert.deepEqual(verdict({}), { level: "well", sentence: "All is well: 1 of 1 node is here.", troubles: [] });
});

test("each trouble is said, and the worst of them first", () => {
  const told = {
    storages: { "h:1": { uptime: "1", avail_space: "1", total_space: "100", failed_fsyncs: "2" } },
    repair: { under_replicated: "3", damaged: "1", state: "walking" },
    warnings: ["the catalogue is away: x"],
    workers: [{ pid: "0" }],
  };
  const { level, troubles } = verdict(told, new Map([["h:1", new Date()]]), 7);
  assert.equal(level, "bad");
  const words = troubles.map(({ text }) => text).join("\n");
  for (const said of [
    "is slow since",
    "1 B of its disk left",
    "2 fsyncs that failed",
    "3 files lack a copy; repair: walking",
    "1 file can't be mended",
    "the catalogue is away",
    "a worker has died",
    "7 answers",
  ]) {
    assert.ok(words.includes(said), `${said} is missing in ${words}`);
  }
});

test("a node that is away is named, with since when and why", () => {
  const { level, sentence, troubles } = verdict({ nodes: { "h:1": node({ away: "refused" }) } });
  assert.equal(level, "bad");
  assert.equal(sentence, "1 node of 1 is away: n1.");
  assert.match(troubles[0].text, /^n1 \(h:1\) is away since .*\d\d:\d\d:\d\d: refused$/);
});

test("a node is slow when it was so twice in a row, beside the others or by itself", () => {
  const slowness = new Slowness();
  const nodes = (took) => ({ a: node({ took: "0.002" }), b: node({ took: "0.002" }), c: node({ took }) });
  const first = new Date(1);
  assert.equal(slowness.look(nodes("0.2"), first).size, 0);
  assert.deepEqual([...slowness.look(nodes("0.2"), new Date(2))], [["c", first]]);
  assert.equal(slowness.look(nodes("0.01"), new Date(3)).size, 0);
  assert.equal(slowness.look(nodes("0.2"), new Date(4)).size, 0);
});

test("rates are what happened between two looks", () => {
  const first = status({ requests: "10", storages: { "h:1": { get_hits: "10", get_misses: "0", bytes_read: "0" } } });
  const then = status({ requests: "30", storages: { "h:1": { get_hits: "19", get_misses: "1", bytes_read: "2048" } } });
  const found = rate(sample(first, 100), sample(then, 102));
  assert.deepEqual([found.requests, found.hitRate, found.read, found.took], [10, 90, 1024, 0.001]);
});

test("the mean latency of reads is told where the server counts it", () => {
  const told = (requests, seconds) => status({ methods: { GET: { requests, seconds } } });
  const found = rate(sample(told("10", "1.0"), 100), sample(told("30", "1.5"), 102));
  assert.deepEqual([found.readTime, found.writeTime], [0.025, null]);
  assert.equal(rate(sample(status(), 100), sample(status(), 102)).readTime, null);
});

test("what was started anew, or not heard of, has no rate: a gap", () => {
  const history = new History();
  for (const requests of ["1000", "5", "7"]) history.add(sample(status({ requests }), history.rates.length * 2 + 100));
  assert.deepEqual(
    history.rates.map(({ requests }) => requests === null),
    [true, false],
  );
  history.gap(200);
  history.add(sample(status({ requests: "9" }), 300));
  assert.equal(history.rates.at(-1)?.requests, null);
});

test("an address of the page brings any path back, and what is none is the overview", () => {
  for (const path of ["a/b c/#1?.txt", "%41/é 😀", "<img src=x onerror=alert(1)>.html"]) {
    assert.deepEqual(place(hashOfFile(path)), { view: "file", path });
  }
  assert.deepEqual(place("#files/a/"), { view: "files", path: "a/" });
  for (const hash of ["", "#", "#overview", "#files/%E4%", "#main"]) assert.equal(place(hash).view, "overview");
  assert.deepEqual(["a/b/c", "a/b/", "c", ""].map(folderOf), ["a/b/", "a/", "", ""]);
  assert.deepEqual(["a/b/c", "a/b/", "c"].map(nameOf), ["c", "b/", "c"]);
});

test("a URL and a curl line hold whatever a name has", () => {
  assert.equal(urlOf("a b/c&d'e"), "/file?path=a%20b/c%26d%27e");
  assert.equal(
    curl("x/-o 'y'", "http://h", true),
    `curl -f -H "Authorization: Bearer $SFSS_KEY" -o './-o '\\''y'\\''' 'http://h/file?path=x/-o%20%27y%27'`,
  );
});

test("figures read well", () => {
  assert.deepEqual([0, 1023, 1536, 2 ** 40, NaN].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 TiB", "–"]);
  assert.deepEqual([59, 61, 3_700, 90_000].map(span), ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
  assert.deepEqual([0.0012, 0.05, 1.5].map(brief), ["1.2 ms", "50 ms", "1.50 s"]);
  assert.deepEqual(
    [1234567, 0.5].map(count),
    ["1,234,567", "0.50"].map((text) => text.replace(/0$/, "")),
  );
});
