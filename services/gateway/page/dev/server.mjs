// The page's development server: the built page and a made-up deployment behind the gateway's interface.
//
//   node dev/server.mjs [--port 8099] [--provers 36] [--blocks 360] [--rate 1] [--faults 1] [--seed 7] [--token TOKEN]
//
// `npm run watch` in another terminal rebuilds the page after each change. POST /dev/ACTION[/NAME] makes things happen:
// hold, release (of a zkVM); silence, quarantine (of a prover); kill (the next block of a pipeline dies); drop (all
// connections); forget (the server behaves as if restarted: a new epoch, and all connections are dropped).

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { World } from "./world.mjs";
import * as shape from "./shape.mjs";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "8099" }, provers: { type: "string", default: "36" }, blocks: { type: "string", default: "360" },
    rate: { type: "string", default: "1" }, faults: { type: "string", default: "1" }, seed: { type: "string", default: "7" },
    token: { type: "string" }, reader: { type: "string" }, past: { type: "string", default: "420" }, every: { type: "string", default: "100" },
  },
});

const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
// What the gateway should send too: nothing of the page is inline, and no text of the network becomes HTML.
const HEADERS = {
  "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
};
const KEPT_EVENTS = 400;

const past = Number(options.past) * 1000;
const world = new World({
  seed: Number(options.seed), provers: Number(options.provers), keep: Math.ceil(Number(options.blocks) / 3), rate: Number(options.rate),
  faults: Number(options.faults), now: Date.now() - past,
});
world.advance(Date.now());
world.gone.length = 0;
for (const set of Object.values(world.changed)) set.clear();

let epoch = Date.now().toString(36);
let count = 0;
let events = [];
const clients = new Set();

function tick() {
  world.advance(Date.now());
  const { changed } = world;
  const change = { at: world.now };
  // Progress moves by itself: running attempts are told again each second.
  if (count % 10 === 0) {
    for (const prover of world.provers) if (prover.running.length) changed.provers.add(prover);
    for (const one of world.pipelines) for (const block of one.blocks.slice(-60)) if (!block.recorded && !block.ended) changed.blocks.add(block);
    change.streams = shape.streams(world);
  }
  const verdict = shape.verdict(world);
  if (JSON.stringify(verdict) !== tick.verdict) {
    tick.verdict = JSON.stringify(verdict);
    change.verdict = verdict;
  }
  if (changed.pipelines.size) change.pipelines = world.pipelines.filter((one) => changed.pipelines.has(one.plan.name)).map((one) => shape.pipeline(world, one));
  if (changed.zkvms.size) change.zkvms = [...changed.zkvms].map((name) => shape.zkvm(world, world.zkvms.get(name)));
  if (changed.provers.size) change.provers = [...changed.provers].map((one) => shape.prover(world, one));
  if (changed.blocks.size) change.blocks = [...changed.blocks].map((one) => shape.block(world, one));
  if (world.gone.length) change.gone = { blocks: world.gone.splice(0), provers: [] };
  for (const set of Object.values(changed)) set.clear();
  count++;
  const text = `id: ${epoch}-${count}\nevent: change\ndata: ${JSON.stringify(change)}\n\n`;
  events.push({ count, text });
  if (events.length > KEPT_EVENTS) events.shift();
  for (const client of clients) client.write(text);
}

function listen(request, response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  const [lastEpoch, last] = (request.headers["last-event-id"] ?? "").split("-");
  const missed = events.filter((event) => event.count > Number(last));
  if (lastEpoch !== epoch || (missed[0]?.count ?? count + 1) > Number(last) + 1) {
    const id = `${epoch}-${count}`;
    response.write(`id: ${id}\nevent: reset\ndata: ${JSON.stringify(shape.snapshot(world, id))}\n\n`);
  } else {
    for (const event of missed) response.write(event.text);
  }
  clients.add(response);
  response.on("close", () => clients.delete(response));
}

const failure = (status, error, hint = null) => ({ status, body: { error, hint } });

function role(request) {
  if (!options.token) return "operate";
  const given = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  return given === options.token ? "operate" : options.reader && given === options.reader ? "read" : null;
}

function findPipeline(name) {
  return world.pipelines.find((one) => one.plan.name === decodeURIComponent(name));
}

function findBlock(one, wanted) {
  const matches = one.blocks.filter((block) => (wanted.startsWith("0x") ? block.hash.startsWith(wanted.toLowerCase()) : block.number === Number(wanted)));
  return matches.findLast((block) => block.ended !== "replaced") ?? matches.at(-1);
}

async function body(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : {};
}

const ROUTES = [
  ["GET", /^\/api\/v1\/session$/, (_, request) => ({ role: role(request), auth: Boolean(options.token), version: "0.1.0", jaeger_url: "http://127.0.0.1:16686" })],
  ["GET", /^\/api\/v1\/snapshot$/, () => shape.snapshot(world, `${epoch}-${count}`)],
  ["GET", /^\/api\/v1\/dead-letters$/, () => ({ letters: world.letters.map((one) => shape.letter(world, one)), total: world.letters.length })],
  ["GET", /^\/api\/v1\/pipelines\/([^/]+)$/, ([name]) => {
    const one = findPipeline(name);
    return one ? shape.pipelineDetail(world, one) : failure(404, `There is no pipeline ${name}.`);
  }],
  ["GET", /^\/api\/v1\/pipelines\/([^/]+)\/blocks$/, ([name], _, query) => {
    const one = findPipeline(name);
    if (!one) return failure(404, `There is no pipeline ${name}.`);
    const before = Number(query.get("before") ?? Infinity);
    return { blocks: one.blocks.filter((block) => block.number < before).slice(-Number(query.get("limit") ?? 100)).reverse().map((block) => shape.block(world, block)) };
  }],
  ["GET", /^\/api\/v1\/pipelines\/([^/]+)\/blocks\/([^/]+)$/, ([name, wanted]) => {
    const one = findPipeline(name);
    const block = one && findBlock(one, wanted);
    return block ? shape.detail(world, block, "http://127.0.0.1:16686") : failure(404, `Pipeline ${name} has no block ${wanted}.`, "The gateway keeps blocks for 7 days.");
  }],
  ["GET", /^\/api\/v1\/pipelines\/([^/]+)\/blocks\/(\d+)\/proofs\/([^/]+)$/, ([name, wanted, type]) => {
    const proof = findBlock(findPipeline(name), wanted)?.proofs.find((other) => other.plan.type === type && other.bytes);
    return proof ? { bytes: Buffer.alloc(proof.bytes, "push0 ") } : failure(404, `Block ${wanted} has no proof ${type}.`);
  }],
  ["POST", /^\/api\/v1\/dead-letters\/([^/]+)\/retry$/, ([id]) => {
    const found = world.letters.find((one) => one.id === decodeURIComponent(id));
    if (!found) return failure(404, `There is no dead letter ${id}.`, "Somebody else may have retried or dropped it.");
    world.retry(found);
    return { done: `Block ${found.block.number} of ${found.block.pipeline.plan.name} is proved again.` };
  }],
  ["POST", /^\/api\/v1\/pipelines\/([^/]+)\/cancel$/, async ([name], request) => {
    const { first, last, note } = await body(request);
    const wanted = findPipeline(name).blocks.filter((block) => block.number >= first && block.number <= last && !block.recorded && !block.ended);
    if (!wanted.length) return failure(409, `Blocks ${first}..${last} of ${name} have ended already.`);
    for (const block of wanted) world.end(block, "abandoned", `cancelled: ${note}`);
    return { done: `${wanted.length} ${wanted.length === 1 ? "block" : "blocks"} of ${name} will end without a proof.` };
  }],
  ["POST", /^\/dev\/(\w+)(?:\/([^/]+))?$/, ([action, name]) => {
    const prover = world.provers.find((one) => one.id === name);
    if (action === "hold") world.hold(name);
    else if (action === "release") world.release(name);
    else if (action === "silence") world.silence(prover, 20_000);
    else if (action === "quarantine") world.quarantine(prover, 300_000);
    else if (action === "kill") {
      const block = findPipeline(name).blocks.at(-1);
      const task = block.attempts[0];
      Object.assign(task, { state: "failed", started: task.started ?? world.now, ended: world.now, class: "program", message: "error: guest exited with code 101", prover: "miden-00" });
      world.die(block, task);
    } else if (action === "drop" || action === "forget") {
      if (action === "forget") [epoch, count, events] = [(Date.now() + 1).toString(36), 0, []];
      for (const client of clients) client.destroy();
    }
    return { done: action };
  }],
];

async function file(path, response) {
  const asset = path.startsWith("/assets/");
  const wanted = asset ? normalize(path) : "/index.html";
  try {
    const bytes = await readFile(join(DIST, wanted));
    const kept = asset ? { "Cache-Control": "public, max-age=31536000, immutable" } : {};
    response.writeHead(200, { ...HEADERS, ...kept, "Content-Type": TYPES[extname(wanted)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404, { ...HEADERS, "Content-Type": "text/plain" }).end("not found\n");
  }
}

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://mock");
  const reply = (status, value) => response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store" }).end(JSON.stringify(value));
  if (!pathname.startsWith("/api/") && !pathname.startsWith("/dev/")) return file(pathname, response);
  const held = pathname.startsWith("/dev/") ? "operate" : role(request);
  if (!held) return reply(401, { error: "The gateway wants a token.", hint: "Send it as `Authorization: Bearer TOKEN`." });
  if (request.method === "POST" && held !== "operate") return reply(403, { error: "The token may only read.", hint: null });
  if (pathname === "/api/v1/events") return listen(request, response);
  for (const [method, pattern, answer] of ROUTES) {
    const match = method === request.method && pattern.exec(pathname);
    if (!match) continue;
    const value = await answer(match.slice(1), request, searchParams);
    if (value.bytes) return response.writeHead(200, { "Content-Type": "application/octet-stream" }).end(value.bytes);
    return value.status ? reply(value.status, value.body) : reply(200, value);
  }
  return reply(404, { error: `There is nothing at ${pathname}.`, hint: null });
});

server.listen(Number(options.port), "127.0.0.1", () => {
  console.log(`the page is at http://127.0.0.1:${server.address().port}/`);
  setInterval(tick, Number(options.every));
  setInterval(() => clients.forEach((client) => client.write(": still here\n\n")), 15_000);
});
