// Takes the pictures of the page: `npm run pictures -- [FOLDER]`, by default those of the README.

import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { CHROMIUM, openBrowser, openPage, ready, startServer } from "./browser.mjs";

const README = fileURLToPath(new URL("../../../../docs/images/", import.meta.url));
const SIZES = { "": [1440, 900], "-phone": [390, 844], "-wall": [2560, 1440] };
const PAGES = { block: "#/pipelines/l1/blocks/", pipeline: "#/pipelines/rollup", prover: "#/provers/sp1-03", letters: "#/dead-letters" };

if (!CHROMIUM) throw new Error("no Chromium is on this machine: name one in CHROMIUM");
const folder = process.argv[2] ?? null;
await mkdir(folder ?? README, { recursive: true });
const server = await startServer({ rate: 1.6, past: 760, blocks: 1200, faults: 0.6, seed: 11 });
const browser = await openBrowser();
try {
  await server.act("silence", "zisk-03");
  await server.act("quarantine", "miden-06");
  await server.act("kill", "devnet");
  await server.act("hold", "sp1-join");
  // Attempts fail and blocks wait for their turn, as in any held queue.
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  for (const colorScheme of ["light", "dark"]) {
    const page = await openPage(browser, server.url, { colorScheme });
    await ready(page);
    await page.waitForTimeout(2500);
    if (!folder) {
      await page.screenshot({ path: `${README}page-${colorScheme}.png` });
    } else {
      for (const [name, [width, height]] of Object.entries(SIZES)) {
        await page.setViewportSize({ width, height });
        await page.waitForTimeout(400);
        await page.screenshot({ path: `${folder}/overview${name}-${colorScheme}.png`, fullPage: name === "-phone" });
      }
      await page.setViewportSize({ width: 1440, height: 900 });
      const number = await page.evaluate(async () => {
        const { blocks } = await (await fetch("api/v1/pipelines/l1/blocks?limit=40")).json();
        return (blocks.find((block) => block.failures > 0) ?? blocks[9]).number;
      });
      for (const [name, address] of Object.entries(PAGES)) {
        await page.goto(server.url + address + (name === "block" ? number : ""));
        await page.waitForTimeout(1200);
        await page.screenshot({ path: `${folder}/${name}-${colorScheme}.png`, fullPage: true });
      }
    }
    console.log(colorScheme, page.errors);
    await page.context().close();
  }
} finally {
  await browser.close();
  await server.stop();
}
