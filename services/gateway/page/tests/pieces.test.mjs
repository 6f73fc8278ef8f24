// The pieces that need no browser, bundled as the page bundles them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const bundle = await build({
  configFile: false,
  logLevel: "error",
  build: { write: false, lib: { entry: fileURLToPath(new URL("pieces.ts", import.meta.url)), formats: ["es"] } },
});
const code = [bundle].flat()[0].output[0].code;
const { EventParser, duration, bytes, quantile, parse, links, ownLink, webLink } = await import(`data:text/javascript,${encodeURIComponent(code)}`);

test("an event is the same however its text is cut", () => {
  const text = 'id: a-1\nevent: change\ndata: {"at":1}\n\n: still here\n\nid: a-2\r\nevent: reset\r\ndata: {"id":\r\ndata: "a-2"}\r\n\r\n';
  for (const size of [1, 2, 3, 7, 1000]) {
    const found = [];
    const parser = new EventParser((event) => found.push(event));
    for (let at = 0; at < text.length; at += size) parser.push(text.slice(at, at + size));
    assert.deepEqual(found, [
      { id: "a-1", event: "change", data: '{"at":1}' },
      { id: "a-2", event: "reset", data: '{"id":\n"a-2"}' },
    ], `pieces of ${size}`);
  }
});

test("durations and sizes are short", () => {
  assert.deepEqual([0, 840, 3400, 9960, 61_000, 130_000, 3_700_000, 200_000_000].map(duration), ["0 ms", "840 ms", "3.4 s", "10 s", "61 s", "2 min 10 s", "1 h 1 min", "2 d 7 h"]);
  assert.deepEqual([12, 2048, 120_000, 5_000_000_000].map(bytes), ["12 B", "2.0 KiB", "117 KiB", "4.7 GiB"]);
  assert.equal(quantile([1, 2, 3, 4], 0.5), 2);
  assert.equal(quantile([], 0.5), null);
});

test("a link leads back to where it was made, whatever the names hold", () => {
  assert.deepEqual(parse(links.block("a/b #1", "0xff")), { page: "block", pipeline: "a/b #1", block: "0xff" });
  assert.deepEqual(parse(links.prover("sp1-0/é%")), { page: "prover", id: "sp1-0/é%" });
  assert.deepEqual(parse("#/nowhere/%zz"), { page: "overview", zkvm: null });
});

test("only own paths and web addresses are followed", () => {
  assert.equal(ownLink("/zkvms/sp1"), "#/zkvms/sp1");
  assert.equal(ownLink("#/dead-letters"), "#/dead-letters");
  for (const bad of [null, "", "//elsewhere/x", "javascript:alert(1)", "https://elsewhere/"]) assert.equal(ownLink(bad), null);
  assert.equal(webLink("https://jaeger/trace/1"), "https://jaeger/trace/1");
  for (const bad of [null, "javascript:alert(1)", "data:text/html,x", "/x"]) assert.equal(webLink(bad), null);
});
