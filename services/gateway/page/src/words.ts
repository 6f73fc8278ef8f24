// Numbers, times and states as an operator reads them.

import type { BlockState, Outcome, ProverState } from "./api";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(value: number): string {
  return whole.format(value);
}

export function many(value: number, one: string, more = one + "s"): string {
  return `${count(value)} ${value === 1 ? one : more}`;
}

/** A duration in at most six characters or two units: 840 ms, 3.4 s, 2 min 5 s, 3 h 12 min. */
export function duration(ms: number): string {
  if (ms < 0) ms = 0;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function micros(us: number): string {
  return us < 1000 ? `${us} µs` : us < 100_000 ? `${(us / 1000).toFixed(1)} ms` : duration(us / 1000);
}

/** A duration for an axis: as short as it can be. */
export function short(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${Number((ms / 1000).toFixed(ms < 10_000 ? 1 : 0))}s`;
  if (ms < 3_600_000) return `${Number((ms / 60_000).toFixed(1))}m`;
  return `${Number((ms / 3_600_000).toFixed(1))}h`;
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    value /= 1024;
    if (value < 1000 || unit === "GiB") return `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
  }
  return "";
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** The time of day, with the day if it is not today. */
export function time(at: number, now: number): string {
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  return sameDay ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

/** The time of day to the minute, as the verdict names it. */
export function minute(at: number, now: number): string {
  const text = time(at, now);
  return text.slice(0, text.lastIndexOf(":"));
}

export function iso(at: number): string {
  return new Date(at).toISOString();
}

export function shortHash(hash: string): string {
  return hash.length > 14 ? `${hash.slice(0, 10)}…` : hash;
}

/** How a state is called, and in the words of the glossary what it means. */
export const BLOCK_STATES: Record<BlockState, string> = {
  waiting: "The block waits for a prover or for its next stage.",
  proving: "An attempt runs.",
  verifying: "An output waits for its verdict.",
  joining: "The block waits for the other blocks of its range.",
  proved: "Enough proofs are valid.",
  held: "The queue of a zkVM that the block needs is held.",
  dead: "The block was given up, with a dead letter.",
  abandoned: "The block was cancelled or is late, and ends without a proof.",
  replaced: "The chain replaced the block.",
};

export const PROVER_STATES: Record<ProverState, string> = {
  active: "The prover is heard and takes tasks.",
  draining: "The prover ends its attempts and takes no new ones.",
  quarantined: "The prover gets no tasks: too many of its attempts failed.",
  suspected: "The prover is silent, and may be back.",
  gone: "The prover is silent for long, or not connected any more.",
};

export const OUTCOMES: Record<Outcome, string> = {
  done: "done",
  failed: "failed",
  died: "died with its prover",
  stopped: "stopped: not wanted any more",
};

export function quantile(sorted: number[], part: number): number | null {
  if (!sorted.length) return null;
  return sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)];
}
