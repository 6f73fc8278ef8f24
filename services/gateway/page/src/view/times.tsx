// Time against the deadline, and what goes in and comes out.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Block, Pipeline } from "../api";
import * as latency from "../draw/latency";
import { links } from "../route";
import { store, type Topic } from "../store";
import { colours, onTheme, zoom } from "../theme";
import { count, duration, quantile, short } from "../words";
import { Canvas, Empty, Panel, useStore } from "./parts";

const TOPICS: Topic[] = ["pipelines"];
const BIN_MS = 10_000;
const BINS = 60;

export function Latencies({ only }: { only?: string }) {
  useStore("pipelines");
  const pipelines = [...store.pipelines.values()].filter((one) => !only || one.name === only);
  const scale = latency.axis(pipelines.map((one) => ({ latencies: one.latencies_ms, deadline: one.deadline_ms })));
  return (
    <Panel title="Time from announcement to record" class="latencies">
      {pipelines.map((pipeline) => (
        <Latency key={pipeline.name} pipeline={pipeline} scale={scale} />
      ))}
      {pipelines.length === 0 && <Empty>No pipeline is defined.</Empty>}
    </Panel>
  );
}

function Latency({ pipeline, scale }: { pipeline: Pipeline; scale: latency.Axis }) {
  const { latencies_ms: all, deadline_ms: deadline } = pipeline;
  const sorted = [...all].sort((a, b) => a - b);
  const figures = [0.5, 0.95, 0.99].map((part) => quantile(sorted, part));
  const late = deadline === null ? 0 : all.filter((ms) => ms > deadline).length;
  const words = `${pipeline.name}: ${figures.map((ms, index) => `p${[50, 95, 99][index]} ${ms === null ? "unknown" : duration(ms)}`).join(", ")}`;
  return (
    <div class="latency">
      <div class="row-head">
        <a href={links.pipeline(pipeline.name)}>{pipeline.name}</a>
        <dl class="inline-figures">
          {figures.map((ms, index) => (
            <div key={index} class={deadline !== null && ms !== null && ms > deadline ? "bad" : ""}><dt>p{[50, 95, 99][index]}</dt><dd>{ms === null ? "–" : duration(ms)}</dd></div>
          ))}
          {deadline !== null && <div class={late ? "bad" : ""}><dt>late</dt><dd>{late}/{all.length}</dd></div>}
        </dl>
      </div>
      <Canvas topics={TOPICS} label={words} class="latency-canvas" draw={(pen, width, height, palette) => latency.draw(pen, width, height, palette, all, deadline, scale)} />
    </div>
  );
}

export function Throughputs({ only }: { only?: string }) {
  useStore("pipelines");
  const pipelines = [...store.pipelines.values()].filter((one) => !only || one.name === only);
  return (
    <Panel title="Proved per minute, and lag" class="throughputs">
      {pipelines.map((pipeline) => (
        <Throughput key={pipeline.name} pipeline={pipeline} />
      ))}
    </Panel>
  );
}

/** Counts per 10 s, from the blocks themselves: so the past is there when the page opens. */
export function history(blocks: Block[], now: number): [number[], (number | null)[], (number | null)[]] {
  const end = Math.floor(now / BIN_MS) * BIN_MS;
  const oldest = blocks.length ? Math.min(blocks[0].at, blocks[blocks.length - 1].at) : now;
  const times: number[] = [];
  const proved: (number | null)[] = [];
  const lag: (number | null)[] = [];
  const kept = blocks.filter((block) => block.state !== "replaced");
  for (let at = end - (BINS - 1) * BIN_MS; at <= end; at += BIN_MS) {
    times.push(at / 1000);
    if (at < oldest) {
      proved.push(null);
      lag.push(null);
      continue;
    }
    let done = 0;
    let open = 0;
    for (const block of kept) {
      if (block.at <= at && (block.recorded_at === null || block.recorded_at > at)) open++;
      if (block.state === "proved" && block.recorded_at !== null && block.recorded_at <= at && block.recorded_at > at - 60_000) done++;
    }
    const seen = Math.min(60_000, Math.max(BIN_MS, at - oldest));
    proved.push(Math.round((done * 60_000) / seen));
    lag.push(open);
  }
  return [times, proved, lag];
}

function Throughput({ pipeline }: { pipeline: Pipeline }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const place = ref.current!;
    let chart: uPlot | null = null;
    let drawn = 0;
    const data = () => history(store.chain(pipeline.name), store.now()) as uPlot.AlignedData;
    const build = () => {
      chart?.destroy();
      chart = new uPlot(options(place.clientWidth, place.clientHeight), data(), place);
    };
    build();
    const observer = new ResizeObserver(() => chart?.setSize({ width: place.clientWidth, height: place.clientHeight }));
    observer.observe(place);
    const stop = [
      onTheme(build),
      store.subscribe(["second"], () => {
        // A bin is 10 s wide: a chart that is drawn each 2 s shows no less.
        if (store.now() - drawn < 2000) return;
        drawn = store.now();
        chart?.setData(data());
      }),
    ];
    return () => {
      observer.disconnect();
      for (const each of stop) each();
      chart?.destroy();
    };
  }, [pipeline.name]);
  return (
    <div class="throughput">
      <div class="row-head">
        <a href={links.pipeline(pipeline.name)}>{pipeline.name}</a>
        <dl class="inline-figures">
          <div class="key-proved"><dt>proved/min</dt><dd>{count(pipeline.proved_per_min)}</dd></div>
          <div class="key-lag"><dt>lag</dt><dd>{pipeline.lag === null ? "–" : count(pipeline.lag)}</dd></div>
        </dl>
      </div>
      <div class="throughput-chart" ref={ref} role="img" aria-label={`${pipeline.name}: ${pipeline.proved_per_min} proved per minute, lag ${pipeline.lag ?? "unknown"}`} />
    </div>
  );
}

function options(width: number, height: number): uPlot.Options {
  const palette = colours();
  const size = zoom();
  const font = `${10 * size}px system-ui, Inter, sans-serif`;
  const axis = { font, stroke: () => palette.muted, grid: { stroke: palette.line, width: 1 }, ticks: { show: false } };
  return {
    width,
    height,
    cursor: { show: false },
    legend: { show: false },
    padding: [4, 4, 0, 0],
    scales: { x: { time: true }, y: { range: (_, _low, high) => [0, Math.max(4, (high ?? 0) * 1.15)] } },
    axes: [
      { ...axis, size: 16 * size, gap: 2, space: 60 * size, values: (chart, marks) => marks.map((at) => (at === marks[marks.length - 1] && chart.width < 200 ? "" : ago(at))), grid: { show: false } },
      { ...axis, size: 26 * size, gap: 3, space: 22 * size },
    ],
    series: [
      {},
      { stroke: palette.proved, width: 1.5, fill: palette["proved-soft"], points: { show: false }, paths: uPlot.paths.stepped!({ align: -1 }) },
      { stroke: palette.ink, width: 1.25, points: { show: false }, paths: uPlot.paths.stepped!({ align: -1 }) },
    ],
  };
}

function ago(at: number): string {
  const ms = store.now() - at * 1000;
  return ms < 30_000 ? "now" : `−${short(Math.round(ms / 60_000) * 60_000)}`;
}
