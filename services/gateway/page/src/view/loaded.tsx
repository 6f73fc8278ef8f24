// Details that are asked for by themselves, again when what they are about has changed, and at most once a second.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Refused, gateway } from "../gateway";
import { store, type Topic } from "../store";

const AGAIN_MS = 1000;

export interface Loaded<T> {
  value: T | null;
  error: { text: string; hint: string | null } | null;
}

/** Asks for `path`; `version` is compared on each of the topics, and a new one asks again. */
export function useLoaded<T>(path: string, topics: Topic[], version: () => unknown): Loaded<T> {
  const [state, set] = useState<Loaded<T>>({ value: null, error: null });
  useEffect(() => {
    let stopped = false;
    let asking = false;
    let asked = 0;
    let seen: unknown;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      clearTimeout(timer);
      timer = undefined;
      if (asking) return;
      asking = true;
      asked = Date.now();
      seen = version();
      try {
        const value = await gateway.get<T>(path);
        if (!stopped) set({ value, error: null });
      } catch (error) {
        const said = error instanceof Refused ? { text: error.message, hint: error.hint } : { text: "The gateway does not answer.", hint: null };
        if (!stopped) set((before) => ({ value: before.value, error: said }));
      } finally {
        asking = false;
        if (!stopped) check();
      }
    };
    const check = () => {
      if (asking || timer !== undefined || version() === seen) return;
      timer = setTimeout(() => void ask(), Math.max(0, asked + AGAIN_MS - Date.now()));
    };
    void ask();
    const stop = store.subscribe([...topics, "link"], check);
    return () => {
      stopped = true;
      clearTimeout(timer);
      stop();
    };
  }, [path]);
  return state;
}

export function Failure({ error, children }: { error: Loaded<unknown>["error"]; children?: ComponentChildren }) {
  if (!error) return null;
  return (
    <p class="said bad" role="alert">
      {error.text} {error.hint} {children}
    </p>
  );
}
