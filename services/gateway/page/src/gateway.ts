// Asks the gateway. The token lives in the tab's session storage: it is gone when the tab is closed.

import type { Letters, Session } from "./api";

const TOKEN = "push0-token";

export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

export const token = {
  get: (): string | null => sessionStorage.getItem(TOKEN),
  set: (value: string): void => sessionStorage.setItem(TOKEN, value),
  forget: (): void => sessionStorage.removeItem(TOKEN),
};

export const blockPath = (pipeline: string, block: string | number) =>
  `pipelines/${encodeURIComponent(pipeline)}/blocks/${encodeURIComponent(block)}`;

async function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const held = token.get();
  if (held) headers.set("Authorization", `Bearer ${held}`);
  const response = await fetch(`/api/v1/${path}`, { ...init, headers, cache: "no-store", credentials: "same-origin" });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const said = typeof body?.error === "string" ? body.error : `The gateway answered ${response.status}.`;
  throw new Refused(response.status, said, typeof body?.hint === "string" ? body.hint : null);
}

export const gateway = {
  session: async (): Promise<Session> => (await send("session")).json(),
  get: async <T>(path: string): Promise<T> => (await send(path)).json(),
  letters: async (): Promise<Letters> => (await send("dead-letters")).json(),
  post: async (path: string, body?: unknown): Promise<string> => {
    const headers = { "Content-Type": "application/json" };
    return (await (await send(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) })).json()).done;
  },
  events: (after: string | null, signal: AbortSignal): Promise<Response> =>
    send("events", { signal, headers: after ? { "Last-Event-ID": after } : {} }),
  /** Saves the bytes of a proof. A plain link cannot: it would go without the token. */
  download: async (path: string, name: string): Promise<void> => {
    const address = URL.createObjectURL(await (await send(path)).blob());
    const anchor = document.createElement("a");
    anchor.href = address;
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  },
};
