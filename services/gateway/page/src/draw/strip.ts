// The strip of a chain's newest blocks: one cell per block, filled from below by its stages.

import type { Block, Stage } from "../api";
import type { Colour, Palette } from "../theme";
import { count } from "../words";

export interface Cell {
  block: Block;
  x: number;
  width: number;
}

export interface Strip {
  cells: Cell[];
  /** The index of the first block that has a cell. */
  from: number;
}

const HEIGHT = 72;
const TOP = 7;
const CELL = 38;
const BASE = TOP + CELL;
const MAP = HEIGHT - 6;

/** Places the blocks from the right, so that the newest, or the one that must be seen, has a cell. */
export function place(blocks: Block[], width: number, mustSee: number): Strip {
  const wide = 13;
  let x = width - 2;
  let last = blocks.length - 1;
  const capacity = Math.floor(width / (wide + 3));
  if (mustSee >= 0 && mustSee < last - capacity + 3) last = Math.min(last, mustSee + Math.floor(capacity / 2));
  const cells: Cell[] = [];
  let index = last;
  for (; index >= 0; index--) {
    const block = blocks[index];
    const after = blocks[index + 1];
    const own = block.state === "replaced" ? Math.round(wide / 2) : wide;
    x -= own;
    if (cells.length) x -= after && sameRange(block, after) ? 1 : 4;
    if (x < 2) break;
    cells.push({ block, x, width: own });
  }
  return { cells: cells.reverse(), from: index + 1 };
}

/** The range that a block is a part of; the block that stands for a whole range is the last of it. */
function rangeOf(block: Block): { first: number; last: number } | null {
  return block.range ?? (block.first === null ? null : { first: block.first, last: block.number });
}

function sameRange(one: Block, other: Block): boolean {
  const [range, same] = [rangeOf(one), rangeOf(other)];
  return range !== null && same !== null && range.last === same.last && range.first === same.first;
}

export function at(strip: Strip, x: number): Block | null {
  let best: Cell | null = null;
  for (const cell of strip.cells) {
    const distance = x < cell.x ? cell.x - x : Math.max(0, x - cell.x - cell.width);
    if (distance <= 4 && (!best || distance === 0)) best = cell;
  }
  return best?.block ?? null;
}

/** The block at a place of the narrow map of all known blocks. */
export function onMap(blocks: Block[], x: number, width: number): Block | null {
  return blocks[Math.max(0, Math.min(blocks.length - 1, Math.floor((x / width) * blocks.length)))] ?? null;
}

export const isMap = (y: number) => y >= MAP - 6;

export function fraction(stage: Stage): number {
  if (!stage.of) return 0;
  return Math.min(1, (stage.done + stage.checking + stage.running * (stage.progress ?? 0)) / stage.of);
}

export function tone(block: Block): Colour {
  if (block.state === "proved") return block.recorded_at === null ? "proved-soft" : "proved";
  if (block.state === "waiting" || block.state === "replaced") return "faint";
  return block.state === "abandoned" ? "dead" : block.state;
}

export function draw(pen: CanvasRenderingContext2D, width: number, palette: Palette, blocks: Block[], strip: Strip, next: number | null, chosen: Block | null, now: number, slide: number): void {
  pen.save();
  pen.translate(slide, 0);
  ranges(pen, palette, strip);
  for (const cell of strip.cells) drawCell(pen, palette, cell, now);
  numbers(pen, width, palette, strip, next);
  const outlined = chosen && strip.cells.find((cell) => cell.block.number === chosen.number && cell.block.hash === chosen.hash);
  if (outlined) {
    pen.strokeStyle = palette.ink;
    pen.lineWidth = 2;
    pen.strokeRect(outlined.x - 2, TOP - 2, outlined.width + 4, CELL + 4);
  }
  pen.restore();
  map(pen, width, palette, blocks, strip);
}

function drawCell(pen: CanvasRenderingContext2D, palette: Palette, { block, x, width }: Cell, now: number): void {
  const { state } = block;
  if (state === "proved") {
    if (block.recorded_at !== null) {
      pen.fillStyle = palette.proved;
      pen.fillRect(x, TOP, width, CELL);
    } else {
      pen.fillStyle = palette["proved-soft"];
      pen.fillRect(x, TOP, width, CELL);
      outline(pen, palette.proved, x, width);
    }
  } else if (state === "dead") {
    pen.fillStyle = palette.dead;
    pen.fillRect(x, TOP, width, CELL);
    cross(pen, palette.panel, x + width / 2, TOP + CELL / 2, 3.5);
  } else if (state === "abandoned") {
    pen.fillStyle = palette.hatch("dead");
    pen.fillRect(x, TOP, width, CELL);
    outline(pen, palette.dead, x, width);
  } else if (state === "replaced") {
    pen.fillStyle = palette.hatch("faint");
    pen.fillRect(x, TOP + CELL / 3, width, (CELL * 2) / 3);
  } else {
    pen.fillStyle = palette.track;
    pen.fillRect(x, TOP, width, CELL);
    fill(pen, palette, block, x, width);
    const edge: Colour = state === "held" ? "held" : state === "joining" ? "joining" : state === "verifying" ? "verifying" : state === "proving" ? "proving" : "faint";
    outline(pen, palette[edge], x, width);
    if (state === "held") pause(pen, palette.held, x + width / 2, TOP + CELL / 2);
    deadline(pen, palette, block, x, width, now);
  }
  if (block.failures > 0 && state !== "dead" && state !== "replaced") {
    pen.fillStyle = palette.dead;
    pen.fillRect(x + width - 4, TOP, 4, 4);
  }
}

/** One column per proof, one level per stage; what is done is calm, what runs is bright. */
function fill(pen: CanvasRenderingContext2D, palette: Palette, block: Block, x: number, width: number): void {
  const proofs: Stage[][] = [];
  for (const stage of block.stages) {
    const last = proofs[proofs.length - 1];
    if (last && last[0].proof === stage.proof) last.push(stage);
    else proofs.push([stage]);
  }
  const column = width / Math.max(1, proofs.length);
  proofs.forEach((stages, place) => {
    const level = CELL / stages.length;
    stages.forEach((stage, index) => {
      const part = fraction(stage);
      const bottom = BASE - index * level;
      const left = x + place * column;
      const wide = column - (place < proofs.length - 1 ? 1 : 0);
      if (part > 0) {
        pen.fillStyle = stage.checking ? palette.verifying : part >= 1 ? palette["proving-soft"] : palette.proving;
        if (block.state === "joining" && part >= 1) pen.fillStyle = palette.joining;
        const tall = Math.max(1, (level - 1) * part);
        pen.fillRect(left, bottom - tall, wide, tall);
      }
      // An adapter that tells no progress still works: the share of what runs is hatched.
      if (stage.running > 0 && stage.progress === null) {
        const under = (level - 1) * part;
        pen.fillStyle = palette.hatch("proving");
        pen.fillRect(left, bottom - under - ((level - 1) * stage.running) / stage.of, wide, ((level - 1) * stage.running) / stage.of);
      }
    });
  });
}

/** How much of the time to the deadline is left. */
function deadline(pen: CanvasRenderingContext2D, palette: Palette, block: Block, x: number, width: number, now: number): void {
  if (block.deadline_at === null) return;
  const left = (block.deadline_at - now) / Math.max(1, block.deadline_at - block.at);
  pen.fillStyle = palette.track;
  pen.fillRect(x, 1, width, 3);
  pen.fillStyle = left <= 0 ? palette.dead : left < 0.3 ? palette.held : palette.muted;
  pen.fillRect(x, 1, Math.max(left <= 0 ? width : 1, width * left), 3);
}

function outline(pen: CanvasRenderingContext2D, colour: string, x: number, width: number): void {
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.strokeRect(x + 0.5, TOP + 0.5, width - 1, CELL - 1);
}

function cross(pen: CanvasRenderingContext2D, colour: string, x: number, y: number, size: number): void {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.75;
  pen.beginPath();
  pen.moveTo(x - size, y - size);
  pen.lineTo(x + size, y + size);
  pen.moveTo(x + size, y - size);
  pen.lineTo(x - size, y + size);
  pen.stroke();
}

function pause(pen: CanvasRenderingContext2D, colour: string, x: number, y: number): void {
  pen.fillStyle = colour;
  pen.fillRect(x - 3.5, y - 5, 2.5, 10);
  pen.fillRect(x + 1, y - 5, 2.5, 10);
}

/** A range is a bracket under its blocks, as wide as the part of it that is known. */
function ranges(pen: CanvasRenderingContext2D, palette: Palette, strip: Strip): void {
  let index = 0;
  while (index < strip.cells.length) {
    const first = strip.cells[index];
    let end = index;
    while (end + 1 < strip.cells.length && sameRange(first.block, strip.cells[end + 1].block)) end++;
    const last = strip.cells[end];
    const range = rangeOf(first.block);
    if (range) {
      const proved = strip.cells.slice(index, end + 1).every((cell) => cell.block.state === "proved" || cell.block.state === "replaced");
      pen.fillStyle = proved ? palette.proved : palette.joining;
      pen.fillRect(first.x, BASE + 3, last.x + last.width - first.x, 2);
      if (first.block.number === range.first) pen.fillRect(first.x, BASE + 1, 1.5, 4);
      if (last.block.number === range.last) pen.fillRect(last.x + last.width - 1.5, BASE + 1, 1.5, 4);
    }
    index = end + 1;
  }
}

function numbers(pen: CanvasRenderingContext2D, width: number, palette: Palette, strip: Strip, next: number | null): void {
  pen.font = "10px system-ui, Inter, sans-serif";
  pen.textBaseline = "alphabetic";
  const y = BASE + 16;
  const waited = strip.cells.find((cell) => cell.block.number === next && cell.block.state !== "replaced");
  let taken = Infinity;
  if (waited) {
    const middle = waited.x + waited.width / 2;
    pen.fillStyle = palette.ink;
    pen.beginPath();
    pen.moveTo(middle, BASE + 6);
    pen.lineTo(middle + 4, BASE + 12);
    pen.lineTo(middle - 4, BASE + 12);
    pen.fill();
    taken = middle;
  }
  pen.fillStyle = palette.muted;
  let free = 0;
  for (const { block, x } of strip.cells) {
    if (block.number % 5 !== 0 || block.state === "replaced") continue;
    const text = count(block.number);
    const wide = pen.measureText(text).width;
    if (x < free || x + wide > width || Math.abs(x + wide / 2 - taken) < wide / 2 + 8) continue;
    pen.textAlign = "left";
    pen.fillText(text, x, y);
    free = x + wide + 14;
  }
}

/** All known blocks in one line, with the part that the cells show. */
function map(pen: CanvasRenderingContext2D, width: number, palette: Palette, blocks: Block[], strip: Strip): void {
  if (blocks.length <= strip.cells.length) return;
  const each = width / blocks.length;
  let start = 0;
  for (let index = 1; index <= blocks.length; index++) {
    const colour = tone(blocks[start]);
    if (index < blocks.length && tone(blocks[index]) === colour) continue;
    const trouble = colour === "dead" || colour === "held";
    pen.fillStyle = colour === "proved" ? palette["proved-soft"] : palette[colour];
    pen.fillRect(start * each, trouble ? MAP - 2 : MAP, Math.max(trouble ? 2 : 0.5, (index - start) * each), trouble ? 6 : 3);
    start = index;
  }
  pen.strokeStyle = palette.muted;
  pen.lineWidth = 1;
  pen.strokeRect(strip.from * each + 0.5, MAP - 2.5, Math.max(3, strip.cells.length * each - 1), 8);
}
