// Keeps the store up to date: asks who the client is, then follows the events, and comes back after every loss.

import type { Change, Snapshot } from "./api";
import { Refused, gateway } from "./gateway";
import { readEvents } from "./stream";
import { store } from "./store";

const BACKOFF_MS = [250, 500, 1000, 2000, 4000, 8000, 15_000];
/** The gateway sends a comment every 15 s; three times that without a byte is a dead connection. */
const SILENCE_MS = 45_000;

let wake: (() => void) | null = null;
let failures = 0;

/** Tries again now, as after a new token. */
export function reconnect(): void {
  failures = 0;
  wake?.();
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

async function follow(): Promise<void> {
  const abort = new AbortController();
  // Both at once: the first page is there one journey to the gateway earlier.
  const [response, session] = await Promise.all([gateway.events(store.lastEvent, abort.signal), store.session ?? gateway.session()]);
  store.session = session;
  store.changed("session");
  failures = 0;
  if (store.loaded) live();
  await readEvents(response, SILENCE_MS, () => abort.abort(), ({ id, event, data }) => {
    if (event === "reset") {
      store.reset(JSON.parse(data) as Snapshot);
      void refreshLetters();
    } else if (event === "change") {
      store.apply(JSON.parse(data) as Change);
    }
    if (id) store.lastEvent = id;
    if (store.link.state !== "live") live();
  });
}

function live(): void {
  store.link = { state: "live" };
  store.changed("link");
}

function lost(why: string): number {
  const wait = BACKOFF_MS[Math.min(failures++, BACKOFF_MS.length - 1)] * (0.8 + 0.4 * Math.random());
  const since = store.stop();
  store.link = { state: "lost", since, why, next: Date.now() + wait };
  store.changed("link");
  return wait;
}

export async function run(): Promise<never> {
  for (;;) {
    let wait: number;
    try {
      await follow();
      wait = lost("The gateway closed the connection.");
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        // No retry by itself: a wrong token does not become right.
        store.session = null;
        store.link = { state: "refused", why: error.message, hint: error.hint };
        store.changed("link", "session");
        wait = 2 ** 31 - 1;
      } else {
        wait = lost(error instanceof Refused ? error.message : "The gateway does not answer.");
      }
    }
    await pause(wait);
  }
}

let asking = false;

/** Dead letters are not part of the events: they are asked for when the counts of dead blocks change. */
export async function refreshLetters(): Promise<void> {
  if (asking) return;
  asking = true;
  try {
    const { letters, total } = await gateway.letters();
    store.letters = letters;
    store.lettersTotal = total;
    store.lettersError = null;
  } catch (error) {
    store.lettersError = error instanceof Refused ? error.message : "The gateway does not answer.";
  } finally {
    asking = false;
    store.changed("letters");
  }
}

export function watchLetters(): void {
  let seen = "";
  store.subscribe(["pipelines", "blocks"], () => {
    const dead = [...store.pipelines.values()].map((pipeline) => pipeline.dead).join();
    const states = [...store.blocks.values()].filter((block) => block.state === "dead").length;
    if (seen !== `${dead}/${states}`) {
      if (seen) void refreshLetters();
      seen = `${dead}/${states}`;
    }
  });
  // Another operator may retry or drop a letter, which no count shows.
  setInterval(() => store.link.state === "live" && !document.hidden && void refreshLetters(), 30_000);
}
