// Times from announcement to record as a distribution, with the deadline across it.

import type { Palette } from "../theme";
import { quantile, short } from "../words";

const MARKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 1e7, 36e6];

export interface Axis {
  low: number;
  high: number;
}

/** One logarithmic axis for all pipelines, so that their shapes can be compared. */
export function axis(all: { latencies: number[]; deadline: number | null }[]): Axis {
  const values = all.flatMap(({ latencies, deadline }) => (deadline === null ? latencies : [...latencies, deadline * 1.15]));
  if (!values.length) return { low: 100, high: 60_000 };
  let low = Infinity;
  let high = 0;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return { low: Math.max(1, low * 0.8), high: Math.max(high * 1.25, low * 4) };
}

export function draw(pen: CanvasRenderingContext2D, width: number, height: number, palette: Palette, latencies: number[], deadline: number | null, { low, high }: Axis): void {
  const base = height - 15;
  const span = Math.log(high / low);
  const place = (ms: number) => (Math.log(Math.max(ms, low) / low) / span) * width;
  marks(pen, width, base, palette, place, low, high);
  const step = 7;
  const bins = new Array(Math.max(1, Math.floor(width / step))).fill(0);
  for (const ms of latencies) bins[Math.min(bins.length - 1, Math.floor(place(ms) / step))]++;
  const most = Math.max(1, ...bins);
  bins.forEach((amount, index) => {
    if (!amount) return;
    const tall = Math.max(2, (amount / most) * (base - 14));
    pen.fillStyle = deadline !== null && index * step > place(deadline) ? palette.dead : palette["proving-soft"];
    pen.fillRect(index * step, base - tall, step - 1, tall);
  });
  // The newest blocks as dots: the distribution is seen to move.
  latencies.slice(-12).forEach((ms, index, newest) => {
    pen.globalAlpha = 0.25 + (0.75 * (index + 1)) / newest.length;
    pen.fillStyle = palette.proving;
    pen.beginPath();
    pen.arc(place(ms), base, index === newest.length - 1 ? 3 : 2, 0, 7);
    pen.fill();
  });
  pen.globalAlpha = 1;
  const sorted = [...latencies].sort((a, b) => a - b);
  pen.font = "10px system-ui, Inter, sans-serif";
  pen.textAlign = "center";
  let free = 0;
  for (const part of [0.5, 0.95, 0.99]) {
    const ms = quantile(sorted, part);
    if (ms === null) continue;
    const x = Math.round(place(ms));
    pen.fillStyle = palette.ink;
    pen.fillRect(x, 11, 1, base - 11);
    const name = `p${part * 100}`;
    const half = pen.measureText(name).width / 2;
    if (x - half < free) continue;
    pen.fillStyle = palette.muted;
    pen.fillText(name, x, 9);
    free = x + half + 3;
  }
  if (deadline !== null) {
    const x = Math.round(place(deadline));
    pen.fillStyle = palette.dead;
    pen.fillRect(x - 1, 0, 2, base);
    pen.font = "600 10px system-ui, Inter, sans-serif";
    const text = `deadline ${short(deadline)}`;
    const fits = x + 5 + pen.measureText(text).width <= width;
    // Beside the line on the empty side, and below the names of the percentiles where there is none.
    pen.textAlign = fits ? "left" : "right";
    pen.fillText(text, x + (fits ? 5 : -5), 20);
  }
}

function marks(pen: CanvasRenderingContext2D, width: number, base: number, palette: Palette, place: (ms: number) => number, low: number, high: number): void {
  pen.fillStyle = palette.line;
  pen.fillRect(0, base, width, 1);
  pen.font = "10px system-ui, Inter, sans-serif";
  pen.textAlign = "center";
  let free = 0;
  for (const ms of MARKS) {
    if (ms < low || ms > high) continue;
    const x = place(ms);
    pen.fillStyle = palette.line;
    pen.fillRect(Math.round(x), base, 1, 4);
    const half = pen.measureText(short(ms)).width / 2;
    if (x - half < free || x + half > width) continue;
    pen.fillStyle = palette.muted;
    pen.fillText(short(ms), x, base + 13);
    free = x + half + 12;
  }
}
