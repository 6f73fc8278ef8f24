// The page in a real Chromium. Without PAGE_URL against the development server; with it against a gateway:
//
//   PAGE_URL=http://127.0.0.1:8090/ [PAGE_TOKEN=...] [PAGE_RESTART='command that restarts the gateway'] [PAGE_OPERATE=1] npm test
//
// A gateway is expected to have a pipeline whose chain moves. Tests that need what only the development server can make
// happen (such as forged texts) are skipped there, and say so. PAGE_OPERATE allows the retry of one dead letter.

import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { NO_CHROMIUM, openBrowser, openPage, openWay, ready, startServer } from "./browser.mjs";

const REAL = process.env.PAGE_URL ?? null;
const TOKEN = process.env.PAGE_TOKEN;
const MOCK_ONLY = NO_CHROMIUM || (REAL ? "SKIPPED: only the development server can make this happen" : false);
const PICTURES = process.env.PAGE_PICTURES ?? join(tmpdir(), "push0-page");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

describe("the page", { skip: NO_CHROMIUM }, () => {
  let browser;
  let server;
  let url;

  before(async () => {
    mkdirSync(PICTURES, { recursive: true });
    server = REAL ? null : await startServer({ rate: 1.5 });
    url = REAL ?? server.url;
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  const open = async (address = "", options = {}) => {
    const page = await openPage(browser, url + address, { token: TOKEN, ...options });
    await ready(page);
    return page;
  };
  const close = async (page) => {
    assert.deepEqual(page.errors, [], "the console has errors");
    await page.context().close();
  };
  const api = (path) => fetch(new URL(`api/v1/${path}`, url), { headers: TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {} }).then((response) => response.json());
  const newest = (page) => page.locator(".strip").first().getAttribute("aria-valuemax").then(Number);

  test("shows a verdict, chains, provers, times and queues", async () => {
    const page = await open();
    assert.match(await page.locator(".verdict strong").innerText(), /^(OK|Not OK)$/);
    assert.match(await page.title(), /^(OK|NOT OK \(\d+\)) · push0$/);
    const { pipelines, zkvms } = await api("snapshot");
    assert.equal(await page.locator(".strip").count(), pipelines.length);
    assert.equal(await page.locator(".latency").count(), pipelines.length);
    assert.equal(await page.locator(".throughput .uplot").count(), pipelines.length);
    assert.equal(await page.locator(".queues tbody tr[id]").count(), zkvms.length);
    assert.ok((await page.locator(".lane").count()) > 0);
    await close(page);
  });

  test("needs nothing inline: a strict Content-Security-Policy is sent and obeyed", async () => {
    const response = await fetch(url);
    const policy = response.headers.get("content-security-policy") ?? "";
    assert.match(policy, /default-src 'none'|default-src 'self'/);
    assert.doesNotMatch(policy, /unsafe/);
    const html = await response.text();
    assert.doesNotMatch(html, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/i);
    const asked = [];
    const page = await openPage(browser, "about:blank", { token: TOKEN });
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(url);
    await ready(page);
    assert.deepEqual(asked.filter((address) => !address.startsWith(new URL(url).origin)), [], "the page asks elsewhere");
    await close(page);
  });

  test("opens the gateway's links from elsewhere", async () => {
    const { provers } = await api("snapshot");
    const page = await open(`provers/${encodeURIComponent(provers[0].id)}`);
    assert.equal(await page.locator("h1").first().innerText(), provers[0].id);
    assert.equal(new URL(page.url()).pathname, "/");
    await close(page);
  });

  test("follows the chain without a reload", async () => {
    const page = await open();
    const seen = await newest(page);
    await page.waitForFunction((number) => Number(document.querySelector(".strip").getAttribute("aria-valuemax")) > number, seen, { timeout: 60_000 });
    await close(page);
  });

  test("resumes a lost connection after the last event that it saw", { skip: NO_CHROMIUM || (REAL?.startsWith("https:") ? "SKIPPED: the way to the gateway can be cut with http only" : false) }, async () => {
    const way = await openWay(url);
    const page = await openPage(browser, way.url, { token: TOKEN });
    await ready(page);
    const resumed = page.waitForRequest((request) => request.url().endsWith("/events") && Boolean(request.headers()["last-event-id"]));
    way.cut();
    assert.match((await resumed).headers()["last-event-id"], /^\w+-\d+$/);
    await ready(page);
    const seen = await newest(page);
    await page.waitForFunction((number) => Number(document.querySelector(".strip").getAttribute("aria-valuemax")) > number, seen, { timeout: 30_000 });
    assert.deepEqual(page.errors.filter((error) => !/ERR_|network error/i.test(error)), []);
    await page.context().close();
    way.close();
  });

  test("survives a restart of the server, and says meanwhile that it has no connection", { skip: NO_CHROMIUM || (REAL && !process.env.PAGE_RESTART ? "SKIPPED: PAGE_RESTART names no command that restarts the gateway" : false) }, async () => {
    let own = REAL ? null : await startServer({ past: 60 });
    const page = await openPage(browser, own?.url ?? url, { token: TOKEN });
    await ready(page);
    if (own) {
      await own.stop();
      await page.locator(".verdict.is-unknown").waitFor();
      assert.match(await page.locator(".verdict").innerText(), /No connection/);
      assert.match(await page.title(), /^no connection/);
      assert.equal(await page.locator("main.is-stale").count(), 1, "the past does not look like the present");
      own = await startServer({ past: 60, port: own.port });
    } else {
      execSync(process.env.PAGE_RESTART, { stdio: "inherit" });
    }
    await page.locator(".link-live").waitFor({ timeout: 30_000 });
    const seen = await newest(page);
    await page.waitForFunction((number) => Number(document.querySelector(".strip").getAttribute("aria-valuemax")) > number, seen, { timeout: 60_000 });
    assert.notEqual(await page.locator(".verdict strong").innerText(), "No connection");
    await page.context().close();
    await own?.stop();
  });

  const noRetry = REAL && !process.env.PAGE_OPERATE ? "SKIPPED: PAGE_OPERATE=1 allows the retry of a dead letter of this gateway" : false;
  test("retries a dead letter, after a confirmation", { skip: NO_CHROMIUM || noRetry }, async (context) => {
    await server?.act("kill", "devnet");
    if (!(await api("dead-letters")).letters.some((letter) => letter.can_retry)) return context.skip("SKIPPED: the gateway has no dead letter to retry");
    const page = await open("#/dead-letters");
    const button = page.locator(".retry").first();
    await button.waitFor();
    if (server) assert.match(await page.locator(".verdict .remark").first().innerText(), /is a dead letter/);
    const before = await page.locator(".letter").count();
    await button.click();
    assert.match(await page.locator("dialog h2").innerText(), /^Retry (block [\d,]+ of .+|this message)\?$/);
    await page.locator("dialog button", { hasText: "Back" }).click();
    assert.equal(await page.locator(".letter").count(), before, "nothing happens without the confirmation");
    await button.click();
    await page.locator("dialog button[type=submit]").click();
    await page.locator("dialog .good").waitFor();
    await page.locator("dialog button", { hasText: "Close" }).click();
    await page.waitForFunction((count) => document.querySelectorAll(".letter").length < count, before);
    await close(page);
  });

  test("cancels a block with a note, after a confirmation", { skip: MOCK_ONLY }, async () => {
    const page = await open();
    // The newest block is under way for longest: it still is when the button is pressed.
    await page.keyboard.press("h");
    await page.locator(".chosen button").click();
    const posted = page.waitForRequest((request) => request.url().endsWith("/cancel"));
    await page.locator("dialog .field input").fill("the node has lost this block");
    await page.locator("dialog button[type=submit]").click();
    const body = (await posted).postDataJSON();
    assert.equal(body.note, "the node has lost this block");
    assert.ok(body.first > 0 && body.last >= body.first);
    await page.locator("dialog .said").waitFor();
    page.errors = page.errors.filter((error) => !/409/.test(error));
    await close(page);
  });

  test("refuses without a token", { skip: NO_CHROMIUM || (REAL && !TOKEN ? "SKIPPED: PAGE_TOKEN is not set, so the gateway wants no token" : false) }, async () => {
    const guarded = REAL ? { url, stop() {} } : await startServer({ token: "operator", past: 60 });
    const page = await openPage(browser, guarded.url);
    await page.locator(".token").waitFor();
    assert.equal(await page.locator(".strip").count(), 0, "nothing is shown without a token");
    await page.locator(".token input").fill(TOKEN ?? "operator");
    await page.keyboard.press("Enter");
    await ready(page);
    assert.deepEqual(page.errors.filter((error) => !/401/.test(error)), []);
    await page.context().close();
    await guarded.stop();
  });

  test("takes no wrong token, and lets a reader only read", { skip: MOCK_ONLY }, async () => {
    const guarded = await startServer({ token: "operator", reader: "reader", past: 60 });
    const page = await openPage(browser, guarded.url);
    await page.locator(".token input").fill("wrong");
    await page.keyboard.press("Enter");
    await page.locator(".token .bad", { hasText: "token" }).waitFor();
    await guarded.act("kill", "devnet");
    await page.locator(".token input").fill("reader");
    await page.keyboard.press("Enter");
    await ready(page);
    assert.match(await page.locator(".link").innerText(), /read/);
    assert.equal(await page.locator(".retry, .chosen button").count(), 0, "a reader has no buttons that act");
    assert.deepEqual(page.errors.filter((error) => !/401/.test(error)), []);
    await page.context().close();
    const operator = await openPage(browser, guarded.url, { token: "operator" });
    await ready(operator);
    assert.match(await operator.locator(".link").innerText(), /operate/);
    await close(operator);
    await guarded.stop();
  });

  test("is worked by keys", async () => {
    const page = await open();
    // The address tells two blocks of one number apart, which a reorg leaves.
    const chosen = () => page.locator(".chosen-name a").getAttribute("href");
    for (let count = await page.locator(".strip").count(); count > 0; count--) await page.keyboard.press("]");
    await page.keyboard.press("h");
    await page.waitForTimeout(300);
    const head = await chosen();
    await page.keyboard.press("k");
    await page.waitForFunction((text) => document.querySelector(".chosen-name a").getAttribute("href") !== text, head);
    const earlier = await chosen();
    await page.keyboard.press("j");
    await page.waitForFunction((text) => document.querySelector(".chosen-name a").getAttribute("href") !== text, earlier);
    await page.keyboard.press("ArrowLeft");
    await page.waitForFunction((text) => document.querySelector(".chosen-name a").getAttribute("href") === text, earlier);
    await page.keyboard.press("?");
    await page.locator("dialog[open] .keys").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("role")), "combobox");
    await page.keyboard.press("Escape");
    await page.keyboard.press("Enter");
    await page.locator(".story li").first().waitFor();
    assert.match(page.url(), /#\/pipelines\/[^/]+\/blocks\//);
    const address = page.url();
    await page.keyboard.press("k");
    await page.waitForFunction((old) => location.href !== old, address);
    await page.keyboard.press("o");
    await page.locator(".overview").waitFor();
    await close(page);
  });

  test("finds blocks by number and hash, and provers", async () => {
    const page = await open();
    const { blocks, provers } = await api("snapshot");
    const block = blocks[Math.floor(blocks.length / 2)];
    const visit = async (text) => {
      await page.keyboard.press("/");
      await page.keyboard.type(text);
      await page.locator("#hits li").first().waitFor();
      await page.keyboard.press("Enter");
    };
    await visit(String(block.number));
    await page.waitForURL(/\/blocks\//);
    assert.ok((await page.locator("h1").innerText()).replaceAll(",", "").includes(String(block.number)));
    await visit(block.hash.slice(0, 14));
    await page.locator(".hash", { hasText: block.hash }).first().waitFor();
    await visit(provers[0].id);
    await page.waitForURL(/#\/provers\//);
    await page.getByRole("heading", { level: 1, name: provers[0].id, exact: true }).waitFor();
    await close(page);
  });

  test("tells a block's story, its spans and attempts, and saves its proof", async () => {
    const { blocks } = await api("snapshot");
    const block = blocks.findLast((one) => one.state === "proved" && one.proof_bytes);
    assert.ok(block, "a proved block is known");
    const page = await open(`#/pipelines/${block.pipeline}/blocks/${block.number}`);
    await page.locator(".story li").first().waitFor();
    assert.ok((await page.locator(".span").count()) > 2);
    assert.ok((await page.locator(".attempts tbody tr").count()) > 0);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator(".proof button").first().click()]);
    assert.match(download.suggestedFilename(), new RegExp(`^${block.pipeline}-${block.number}-.+\\.proof$`));
    assert.ok(readFileSync(await download.path()).length > 0);
    await close(page);
  });

  test("shows a pipeline's graph, revisions and older blocks", async () => {
    const { pipelines } = await api("snapshot");
    const page = await open(`#/pipelines/${pipelines[0].name}`);
    await page.locator(".graph .node").first().waitFor();
    assert.ok((await page.locator(".toml").count()) > 0);
    await page.locator(".blocks tbody tr").first().waitFor();
    await close(page);
  });

  test("takes what comes from the network as text", { skip: MOCK_ONLY }, async () => {
    const hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
    const page = await openPage(browser, "about:blank");
    const forge = async (route) => {
      const response = await route.fetch();
      const body = await response.json();
      for (const letter of body.letters) Object.assign(letter, { reason: hostile, stage: hostile, pipeline: hostile });
      body.trace_url = "javascript:document.title=3";
      await route.fulfill({ response, json: { ...body, story: [hostile] } });
    };
    await server.act("kill", "devnet");
    await page.route("**/api/v1/dead-letters", forge);
    await page.route("**/blocks/*", forge);
    await page.goto(url + "#/dead-letters");
    await ready(page);
    await page.locator(".letter-reason", { hasText: "<img" }).first().waitFor();
    const { blocks } = await api("snapshot");
    const block = blocks.at(-20);
    await page.goto(`${url}#/pipelines/${block.pipeline}/blocks/${block.number}`);
    await page.locator(".story li", { hasText: "<img" }).waitFor();
    assert.equal(await page.locator("img, main script, a[href^='javascript:']").count(), 0);
    assert.match(await page.title(), /push0/);
    await close(page);
  });

  test("keeps axe's rules on every page, in both themes", async () => {
    const { blocks, provers, pipelines } = await api("snapshot");
    const block = blocks.findLast((one) => one.failures > 0) ?? blocks.at(-1);
    const addresses = ["", `#/pipelines/${block.pipeline}/blocks/${block.number}`, `#/pipelines/${pipelines[0].name}`, `#/provers/${provers[0].id}`, "#/dead-letters"];
    if (server) await server.act("hold", "zisk");
    for (const colorScheme of ["light", "dark"]) {
      const page = await open("", { colorScheme, bypassCSP: true });
      for (const address of addresses) {
        await page.goto(url + address);
        await page.locator("h1").first().waitFor();
        await page.waitForTimeout(700);
        await page.evaluate(AXE);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        const found = violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
        assert.deepEqual(found, [], `${colorScheme} ${address || "overview"}`);
      }
      await page.keyboard.press("?");
      await page.locator("dialog[open]").waitFor();
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
      assert.deepEqual(violations.map((one) => one.id), [], `${colorScheme} help`);
      await close(page);
    }
    if (server) await server.act("release", "zisk");
  });

  test("is light or dark as the system says, or as the switch does", async () => {
    const ground = (page) => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const shown = {};
    for (const colorScheme of ["light", "dark"]) {
      const page = await open("", { colorScheme });
      await page.waitForTimeout(500);
      shown[colorScheme] = await ground(page);
      await page.screenshot({ path: join(PICTURES, `${colorScheme}.png`) });
      await page.locator(".theme").click();
      assert.notEqual(await ground(page), shown[colorScheme], "the switch changes the theme");
      await page.reload();
      await ready(page);
      assert.notEqual(await ground(page), shown[colorScheme], "the choice is kept");
      await close(page);
    }
    assert.notEqual(shown.light, shown.dark);
    console.log(`screenshots are in ${PICTURES}`);
  });

  test("fits a phone and a wall", async () => {
    for (const [width, height] of [[390, 844], [2560, 1440]]) {
      const page = await open("", { viewport: { width, height } });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} pixels in ${width}`);
      await page.screenshot({ path: join(PICTURES, `${width}.png`) });
      await close(page);
    }
  });
});
