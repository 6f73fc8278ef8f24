// The chains: one strip per pipeline, and the sentence about the block that is chosen.

import { useRef } from "preact/hooks";
import type { Block, Pipeline } from "../api";
import * as strip from "../draw/strip";
import { go, links } from "../route";
import { store, type Topic } from "../store";
import { calm, zoom } from "../theme";
import { bytes, count, duration, many, micros, quantile, shortHash } from "../words";
import { Canvas, type Draw, Panel, Said, State, Time, useStore } from "./parts";
import { CancelButton } from "./actions";

const SLIDE_MS = 220;
const TOPICS: Topic[] = ["blocks", "selection", "pipelines", "second"];
const LEGEND = ["waiting", "proving", "verifying", "joining", "proved", "held", "dead", "abandoned", "replaced"] as const;

export function Strips() {
  useStore("pipelines");
  const pipelines = [...store.pipelines.values()];
  return (
    <Panel title="Chains" class="chains" aside={<Legend />}>
      {pipelines.map((pipeline) => (
        <PipelineStrip key={pipeline.name} pipeline={pipeline} />
      ))}
      {pipelines.length === 0 && <p class="empty">No pipeline is defined. `push0 pipeline apply FILE` defines one.</p>}
      <Chosen />
    </Panel>
  );
}

function Legend() {
  return (
    <p class="legend">
      {LEGEND.map((state) => (
        <State key={state} of={state} />
      ))}
    </p>
  );
}

export function PipelineStrip({ pipeline }: { pipeline: Pipeline }) {
  const sorted = [...pipeline.latencies_ms].sort((a, b) => a - b);
  const half = quantile(sorted, 0.5);
  const late = quantile(sorted, 0.95);
  return (
    <div class="chain">
      <div class="chain-name">
        <a href={links.pipeline(pipeline.name)}>{pipeline.name}</a>
        <span class="muted" title={pipeline.policy}>{pipeline.policy}</span>
      </div>
      <StripCanvas pipeline={pipeline.name} />
      <dl class="chain-figures">
        <Figure name="lag" value={pipeline.lag === null ? "–" : count(pipeline.lag)} warn={pipeline.stalled_since !== null} />
        <Figure name="proved/min" value={count(pipeline.proved_per_min)} />
        <Figure name="p50" value={half === null ? "–" : duration(half)} />
        <Figure name="p95" value={late === null ? "–" : duration(late)} warn={pipeline.deadline_ms !== null && late !== null && late > pipeline.deadline_ms} />
      </dl>
    </div>
  );
}

function Figure({ name, value, warn }: { name: string; value: string; warn?: boolean }) {
  return (
    <div class={warn ? "figure warn" : "figure"}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

export function StripCanvas({ pipeline }: { pipeline: string }) {
  useStore("selection");
  const placed = useRef<strip.Strip>({ cells: [], from: 0 });
  const blocks = useRef<Block[]>([]);
  const slide = useRef({ newest: 0, began: 0, by: 0 });

  const draw: Draw = (pen, width, _height, palette) => {
    blocks.current = store.chain(pipeline);
    const chosen = store.selectedBlock();
    const own = chosen?.pipeline === pipeline ? chosen : null;
    placed.current = strip.place(blocks.current, width, own ? blocks.current.indexOf(own) : -1);
    const newest = blocks.current[blocks.current.length - 1]?.number ?? 0;
    const moved = slide.current;
    // The strip moves when the chain does, and only then.
    if (moved.newest && newest > moved.newest && newest - moved.newest < 4 && !calm.matches && !document.hidden) {
      Object.assign(moved, { began: performance.now(), by: (newest - moved.newest) * 16 });
    }
    moved.newest = newest;
    const part = Math.min(1, (performance.now() - moved.began) / SLIDE_MS);
    const rest = part < 1 ? moved.by * (1 - part) ** 3 : 0;
    strip.draw(pen, width, palette, blocks.current, placed.current, store.pipelines.get(pipeline)?.next ?? null, own, store.now(), rest);
    return rest > 0.5;
  };

  const pick = (event: MouseEvent): Block | null => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const size = zoom();
    const [x, y] = [(event.clientX - box.left) / size, (event.clientY - box.top) / size];
    return strip.isMap(y) ? strip.onMap(blocks.current, x, box.width / size) : strip.at(placed.current, x);
  };
  const chosen = store.selectedBlock()?.pipeline === pipeline ? store.selectedBlock() : null;
  const shown = chosen ?? store.nextBlock(pipeline);
  const known = store.chain(pipeline);
  return (
    // A strip is a slider over block numbers: arrows move. Its value leaves out what changes by itself, such as running
    // times, because a screen reader would tell each change.
    <div
      class="strip"
      role="slider"
      tabIndex={0}
      aria-label={`Blocks of ${pipeline}`}
      aria-orientation="horizontal"
      aria-valuemin={known[0]?.number ?? 0}
      aria-valuemax={known[known.length - 1]?.number ?? 0}
      aria-valuenow={shown?.number ?? known[known.length - 1]?.number ?? 0}
      aria-valuetext={shown ? `block ${shown.number}, ${shown.state}, ${many(shown.attempts, "attempt")}, ${many(shown.failures, "failure")}` : "no block waits"}
      data-pipeline={pipeline}
      onClick={(event) => {
        const block = pick(event);
        const before = store.selectedBlock();
        if (block && before === block) go(links.block(pipeline, address(block)));
        else store.select(block);
      }}
      onDblClick={(event) => {
        const block = pick(event);
        if (block) go(links.block(pipeline, address(block)));
      }}
      onMouseMove={(event) => {
        const block = pick(event);
        event.currentTarget.title = block ? `${count(block.number)} · ${block.state}\n${block.waits_for}` : "";
      }}
    >
      <Canvas draw={draw} topics={TOPICS} label={`${known.length} blocks of ${pipeline}`} class="strip-canvas" />
    </div>
  );
}

/** The number names a block, unless the chain replaced it: then its hash does. */
export function address(block: Block): string | number {
  return block.state === "replaced" ? block.hash : block.number;
}

/** The block that is chosen, else the one that the most troubled chain waits for. */
function Chosen() {
  useStore("selection", "blocks", "pipelines", "second");
  const chosen = store.selectedBlock();
  const block = chosen ?? waitedFor();
  if (!block) return null;
  const { proof_bytes: size, overhead_us: overhead } = block;
  return (
    <div class="chosen">
      <span class="chosen-name">
        <a href={links.block(block.pipeline, address(block))}>
          {block.pipeline} {block.first !== null ? `${count(block.first)}–` : ""}{count(block.number)}
        </a>
        <State of={block.state} />
      </span>
      <span class="chosen-text">
        {!chosen && <span class="muted">The chain waits for this block. </span>}
        <Said text={block.waits_for} />
      </span>
      <span class="chosen-facts muted">
        <code>{shortHash(block.hash)}</code>
        <span>{many(block.transactions, "transaction")}</span>
        <span>announced <Time at={block.at} /></span>
        {block.deadline_at !== null && block.recorded_at === null && <Left at={block.deadline_at} />}
        {block.failures > 0 && <span class="bad">{many(block.failures, "failure")}</span>}
        {size !== null && <span>{bytes(size)}</span>}
        {overhead !== null && <span>{micros(overhead)} overhead</span>}
        {store.mayOperate() && block.recorded_at === null && block.state !== "replaced" && block.state !== "dead" && <CancelButton pipeline={block.pipeline} first={block.first ?? block.number} last={block.number} />}
      </span>
    </div>
  );
}

function Left({ at }: { at: number }) {
  const left = at - store.now();
  return left > 0 ? <span>{duration(left)} to the deadline</span> : <span class="bad">{duration(-left)} after the deadline</span>;
}

function waitedFor(): Block | null {
  const waited = [...store.pipelines.keys()].map((name) => store.nextBlock(name)).filter((block) => block !== null);
  return waited.sort((a, b) => a.at - b.at)[0] ?? null;
}
