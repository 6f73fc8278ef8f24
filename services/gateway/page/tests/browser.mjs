// A real Chromium, the development server, and what every test wants of them.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { connect, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const PLACES = process.env.CHROMIUM ? [process.env.CHROMIUM] : ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];

/** The Chromium of this machine, or null: the tests then say aloud that they were skipped. */
export const CHROMIUM = PLACES.find((place) => existsSync(place)) ?? null;
export const NO_CHROMIUM = CHROMIUM ? false : "SKIPPED: no Chromium is on this machine; install one, or name it in CHROMIUM";
if (NO_CHROMIUM) console.error(NO_CHROMIUM);

export async function openBrowser() {
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"] });
}

/** Starts the development server on a free port, or on the one that is named. */
export async function startServer(options = {}) {
  const flags = Object.entries({ port: 0, ...options }).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn(process.execPath, [fileURLToPath(new URL("../dev/server.mjs", import.meta.url)), ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    child.stdout.on("data", (text) => {
      const found = /http:\/\/\S+/.exec(text);
      if (found) resolve(found[0]);
    });
    child.on("exit", (code) => reject(new Error(`the development server ended with ${code}`)));
  });
  return {
    url,
    port: new URL(url).port,
    act: (action, name = "") => fetch(new URL(`dev/${action}${name && `/${name}`}`, url), { method: "POST" }),
    stop: () => new Promise((resolve) => {
      child.on("exit", resolve);
      child.kill("SIGKILL");
    }),
  };
}

/** A way to a server that can be cut: every connection over it breaks, and new ones succeed. */
export async function openWay(to) {
  const { hostname, port } = new URL(to);
  const open = new Set();
  const way = createServer((near) => {
    const far = connect(Number(port) || 80, hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => (open.delete(one), other.destroy()));
    }
  });
  await new Promise((resolve) => way.listen(0, "127.0.0.1", resolve));
  const cut = () => open.forEach((socket) => socket.destroy());
  return { url: `http://127.0.0.1:${way.address().port}/`, cut, close: () => (way.close(), cut()) };
}

/** A page that remembers its errors. A refused request is an error of the console too, so a test may expect some. */
export async function openPage(browser, url, { token, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light", reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  page.errors = [];
  page.on("console", (message) => message.type() === "error" && page.errors.push(`${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => page.errors.push(String(error)));
  if (token) await page.addInitScript((text) => sessionStorage.setItem("push0-token", text), token);
  await page.goto(url);
  return page;
}

/** Waits until the page shows live data: a first line, and chains where the page has any. */
export async function ready(page) {
  await page.locator(".link-live").waitFor({ timeout: 15_000 });
  await page.locator(".verdict.is-ok, .verdict.is-bad").waitFor();
}
