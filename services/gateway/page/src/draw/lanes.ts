// What provers did over the last minutes: one lane per prover, one bar per attempt.

import type { Prover } from "../api";
import type { Palette } from "../theme";

export const ROW = 22;

/** The lane of one prover. Attempts that overlapped lie in tracks of their own, as many as the prover has slots. */
export function lane(pen: CanvasRenderingContext2D, palette: Palette, prover: Prover, toldAt: number, y: number, width: number, from: number, now: number): void {
  const scale = width / (now - from);
  const place = (at: number) => (at - from) * scale;
  const tracks: number[] = [];
  const all = Math.max(1, Math.min(4, prover.slots));
  const tall = (ROW - 6) / all;
  const trackOf = (start: number, end: number) => {
    let track = tracks.findIndex((until) => until <= start + 5);
    if (track < 0) track = tracks.length;
    tracks[track] = end;
    return track % all;
  };
  if (prover.state === "quarantined") {
    pen.fillStyle = palette.hatch("line");
    pen.fillRect(0, y + 2, width, ROW - 4);
  } else if (prover.state === "suspected" || prover.state === "gone") {
    const silent = Math.max(0, place(prover.heard_at));
    pen.fillStyle = palette.hatch(prover.state === "gone" ? "dead-soft" : "held");
    pen.fillRect(silent, y + 2, width - silent, ROW - 4);
  }
  const recent = [...prover.recent].sort((a, b) => a.started_at - b.started_at);
  for (const attempt of recent) {
    const track = trackOf(attempt.started_at, attempt.ended_at);
    if (attempt.ended_at < from) continue;
    const start = Math.max(0, place(attempt.started_at));
    const long = Math.max(1.5, place(attempt.ended_at) - start - 1);
    const top = y + 3 + track * tall;
    if (attempt.outcome === "done") pen.fillStyle = prover.role === "verifier" ? palette.verifying : palette.proved;
    else pen.fillStyle = attempt.outcome === "stopped" ? palette.faint : palette.dead;
    pen.fillRect(start, top, long, tall - (all > 1 ? 1 : 0));
    if (attempt.outcome === "died") {
      pen.fillStyle = palette.ink;
      pen.fillRect(start + long - 1.5, top - 1, 1.5, tall + 1);
    }
  }
  for (const attempt of prover.held) {
    if (attempt.running_ms === null) continue;
    const began = toldAt - attempt.running_ms;
    const top = y + 3 + trackOf(began, now) * tall;
    const start = Math.max(0, place(began));
    pen.fillStyle = prover.role === "verifier" ? palette.verifying : palette.proving;
    pen.fillRect(start, top, Math.max(2, width - start), tall - (all > 1 ? 1 : 0));
  }
}

/** Vertical lines at whole minutes, behind the lanes. */
export function minutes(pen: CanvasRenderingContext2D, palette: Palette, width: number, height: number, from: number, now: number): void {
  pen.fillStyle = palette.line;
  for (let ago = 60_000; now - ago > from; ago += 60_000) {
    pen.fillRect(Math.round(((now - ago - from) / (now - from)) * width), 0, 1, height);
  }
}

export const SQUARE = 11;

/** Where each prover's square lies, with a gap between zkVMs, and how tall they are together. */
export function squares(provers: Prover[], width: number): { places: [number, number][]; height: number } {
  let [x, y] = [0, 0];
  const places = provers.map(({ zkvm }, index): [number, number] => {
    if (index > 0 && zkvm !== provers[index - 1].zkvm && x > 0) x += SQUARE;
    if (x + SQUARE > width && x > 0) [x, y] = [0, y + SQUARE];
    const place: [number, number] = [x, y];
    x += SQUARE;
    return place;
  });
  return { places, height: y + SQUARE };
}

/** One square per prover, for fleets that no screen shows as lanes. */
export function fleet(pen: CanvasRenderingContext2D, palette: Palette, provers: Prover[], width: number): void {
  const { places } = squares(provers, width);
  provers.forEach((prover, index) => {
    const [x, y] = places[index];
    const side = SQUARE - 2;
    const running = prover.held.some((attempt) => attempt.running_ms !== null);
    pen.fillStyle = running ? (prover.role === "verifier" ? palette.verifying : palette.proving) : palette.track;
    if (prover.state === "suspected") pen.fillStyle = palette.held;
    if (prover.state === "quarantined") pen.fillStyle = palette.hatch("held");
    if (prover.state === "gone") pen.fillStyle = palette.dead;
    pen.fillRect(x, y, side, side);
    if (prover.state === "quarantined" || prover.state === "draining") {
      pen.strokeStyle = prover.state === "draining" ? palette.muted : palette.held;
      pen.lineWidth = 1;
      pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    }
  });
}
