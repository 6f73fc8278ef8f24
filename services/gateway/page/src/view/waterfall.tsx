// The spans of a block, from its announcement to its record.

import type { Span } from "../api";
import { links } from "../route";
import { store } from "../store";
import { zoom } from "../theme";
import { duration, short } from "../words";
import { Empty, Rows } from "./parts";

const ROW = 22;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 864e5];

interface Line {
  span: Span;
  depth: number;
}

/** Children under their parents, each level by its start. A span whose parent is missing stands at the top. */
export function inTree(spans: Span[]): Line[] {
  const known = new Set(spans.map((span) => span.id));
  const children = new Map<string | null, Span[]>();
  for (const span of spans) {
    const parent = span.parent !== null && known.has(span.parent) && span.parent !== span.id ? span.parent : null;
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const lines: Line[] = [];
  const seen = new Set<string>();
  const visit = (parent: string | null, depth: number) => {
    for (const span of (children.get(parent) ?? []).sort((a, b) => a.start - b.start)) {
      if (seen.has(span.id)) continue;
      seen.add(span.id);
      lines.push({ span, depth });
      visit(span.id, depth + 1);
    }
  };
  visit(null, 0);
  return lines;
}

export function Waterfall({ spans, over }: { spans: Span[]; over: boolean }) {
  if (spans.length === 0) return <Empty>No span of this block is known.</Empty>;
  const lines = inTree(spans);
  const from = Math.min(...spans.map((span) => span.start));
  const last = Math.max(...spans.map((span) => span.end ?? span.start));
  const to = Math.max(from + 1, over ? last : Math.max(last, store.now()));
  const long = (to - from) * 1.02;
  const step = STEPS.find((each) => long / each <= 8) ?? 864e5;
  const marks = Array.from({ length: Math.floor(long / step) + 1 }, (_, index) => index * step);
  const place = (at: number) => `${(100 * (at - from)) / long}%`;
  return (
    <div class="waterfall">
      <div class="waterfall-axis muted" aria-hidden="true">
        <span />
        <span class="waterfall-space">
          {marks.map((mark) => <i key={mark} style={{ left: place(from + mark) }}>{mark === 0 ? "0" : short(mark)}</i>)}
        </span>
        <span />
      </div>
      <Rows
        items={lines}
        height={Math.round(ROW * zoom())}
        label="Spans"
        keyOf={({ span }) => span.id}
        row={({ span, depth }) => {
          const end = span.end ?? (over ? span.start : to);
          const took = end - span.start;
          return (
            <div class={`span span-${span.kind} ${span.outcome ? `outcome-${span.outcome}` : ""}`} title={[span.name, span.prover, span.outcome, span.note].filter(Boolean).join(" · ")}>
              <span class="span-name" style={{ paddingLeft: `${Math.min(depth, 8) * 12}px` }}>
                {span.name}
                {span.prover && <> <a href={links.prover(span.prover)}>{span.prover}</a></>}
              </span>
              <span class="waterfall-space">
                <span class="span-bar" style={{ left: place(span.start), width: `max(2px, ${(100 * took) / long}%)` }} />
              </span>
              <span class="number">{span.end === null && !over ? `${duration(took)}…` : span.end === null ? "–" : duration(took)}</span>
            </div>
          );
        }}
      />
    </div>
  );
}
