// 1,000 blocks and 500 provers: how soon the page is there, and how long an update keeps the main thread.

import assert from "node:assert/strict";
import { cpus, loadavg } from "node:os";
import { after, before, describe, test } from "node:test";
import { NO_CHROMIUM, openBrowser, openPage, ready, startServer } from "./browser.mjs";

const PAINT_MS = 1000;
const UPDATE_MS = 50;
const WATCH_MS = 8000;

const sum = (all) => all.reduce((total, one) => total + one, 0);

describe("1,000 blocks and 500 provers", { skip: NO_CHROMIUM }, () => {
  let browser;
  let server;
  before(async () => {
    // 20 events a second, the most that the interface allows.
    server = await startServer({ provers: 500, blocks: 1000, rate: 6, past: 400, every: 50 });
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** The tasks of the page's main thread meanwhile: how long each kept the processor, other programs not counted. */
  async function trace(page, during) {
    await browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
    await during();
    const { traceEvents } = JSON.parse(await browser.stopTracing());
    const pages = traceEvents.filter((event) => event.name === "thread_name" && event.args.name === "CrRendererMain").map(({ pid, tid }) => `${pid}/${tid}`);
    const tasks = traceEvents.filter((event) => event.name.endsWith("RunTask") && pages.includes(`${event.pid}/${event.tid}`) && event.tdur !== undefined);
    return tasks.map((event) => event.tdur / 1000).sort((a, b) => a - b);
  }

  async function measure() {
    const page = await openPage(browser, "about:blank", { reducedMotion: "no-preference" });
    await page.addInitScript(() => {
      const look = () => (document.querySelector(".strip") ? setTimeout(() => (globalThis.filled = performance.now())) : requestAnimationFrame(look));
      requestAnimationFrame(look);
    });
    const loading = await trace(page, async () => {
      await page.goto(server.url);
      await ready(page);
    });
    await page.waitForTimeout(1500);
    await page.evaluate(() => performance.clearMeasures());
    const tasks = await trace(page, () => page.waitForTimeout(WATCH_MS));
    const seen = await page.evaluate(() => ({
      blocks: [...document.querySelectorAll(".strip-canvas")].reduce((sum, canvas) => sum + parseInt(canvas.ariaLabel), 0),
      provers: Number(document.querySelector(".lanes [role=listitem]").getAttribute("aria-setsize")),
      paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
      filled: globalThis.filled,
      updates: performance.getEntriesByName("page:update").length,
    }));
    const longest = tasks.at(-1);
    console.log(
      `${seen.blocks} blocks, ${seen.provers} provers: first paint ${seen.paint.toFixed(0)} ms, filled ${seen.filled.toFixed(0)} ms (${sum(loading).toFixed(0)} ms of the main thread); ${seen.updates} updates in ${WATCH_MS / 1000} s, ` +
        `longest task ${longest.toFixed(1)} ms, p99 ${tasks[Math.floor(tasks.length * 0.99)].toFixed(1)} ms, main thread busy ${((100 * sum(tasks)) / WATCH_MS).toFixed(0)} %; load ${loadavg()[0].toFixed(1)}`,
    );
    assert.deepEqual(page.errors, []);
    await page.context().close();
    return { ...seen, longest };
  }

  test(`paints within ${PAINT_MS} ms, and updates within ${UPDATE_MS} ms`, async () => {
    // Other work on the machine only adds to these times: the best of three is what the page needs.
    const all = [];
    for (let time = 1; time <= 3; time++) {
      all.push(await measure());
      const { blocks, provers, paint, filled, longest } = all.at(-1);
      assert.ok(blocks >= 900 && provers >= 490, "the page shows all of them");
      if (paint <= PAINT_MS && filled <= PAINT_MS && longest <= UPDATE_MS) return;
    }
    const best = (name) => Math.min(...all.map((seen) => seen[name]));
    assert.ok(best("longest") <= UPDATE_MS, `an update took ${best("longest")} ms of the main thread`);
    if (loadavg()[0] > 2 * cpus().length) return console.log("NOT JUDGED: the machine is too busy with other things to time the first paint");
    assert.ok(best("paint") <= PAINT_MS, `first paint after ${best("paint")} ms`);
    assert.ok(best("filled") <= PAINT_MS, `filled after ${best("filled")} ms`);
  });
});
