// The fleet: a square per prover, and lanes with their attempts.

import { useMemo, useRef, useState } from "preact/hooks";
import type { Prover } from "../api";
import * as lanes from "../draw/lanes";
import { links } from "../route";
import { proverKey, store, type Topic } from "../store";
import { zoom, type Palette } from "../theme";
import { count, duration, many } from "../words";
import { Canvas, Panel, Rows, State, useSize, useStore } from "./parts";

const WINDOW_MS = 180_000;
const TOPICS: Topic[] = ["provers", "second"];
const TROUBLE = ["gone", "suspected", "quarantined", "draining", "active"];
const names = new Intl.Collator("en", { numeric: true });

/** What needs a look stands first, then the fleet by zkVM and name. */
export function inOrder(provers: Iterable<Prover>): Prover[] {
  return [...provers].sort((a, b) => TROUBLE.indexOf(a.state) - TROUBLE.indexOf(b.state) || byName(a, b));
}

const byName = (a: Prover, b: Prover) => names.compare(a.zkvm, b.zkvm) || names.compare(a.role, b.role) || names.compare(a.id, b.id);

export function Lanes({ zkvm }: { zkvm: string | null }) {
  useStore("provers", "second");
  const [busyOnly, setBusyOnly] = useState(false);
  const order = useMemo(() => inOrder(store.provers.values()).map(proverKey), [store.fleet]);
  const all = order.map((key) => store.provers.get(key)!).filter((prover) => prover && (zkvm === null || prover.zkvm === zkvm));
  const shown = busyOnly ? all.filter((prover) => prover.held.length > 0 || prover.state !== "active") : all;
  const silent = all.filter((prover) => prover.state === "suspected" || prover.state === "gone").length;
  const away = all.filter((prover) => prover.state === "quarantined").length;
  return (
    <Panel
      title="Provers"
      class="lanes-panel"
      id="provers"
      aside={
        <span class="panel-aside">
          <span>{zkvm ? <>{many(all.length, "process", "processes")} of {zkvm} · <a href={links.overview}>all zkVMs</a></> : many(all.length, "process", "processes")}</span>
          {silent > 0 && <span class="bad">{silent} silent</span>}
          {away > 0 && <span class="warn">{away} quarantined</span>}
          <label><input type="checkbox" checked={busyOnly} onChange={(event) => setBusyOnly(event.currentTarget.checked)} /> busy only</label>
        </span>
      }
    >
      <Fleet provers={all} />
      <div class="lane-axis muted" aria-hidden="true"><span>3 min ago</span><span>2</span><span>1</span><span>now</span></div>
      <Rows
        class="lanes"
        items={shown}
        height={Math.round(lanes.ROW * zoom())}
        label="Provers and their attempts"
        keyOf={proverKey}
        row={(prover) => <Lane prover={prover} />}
        topRow={(from, visible, cut, height) => (
          <div class="lanes-canvas" style={{ "--rows-height": `${height}px` }}>
            <Canvas topics={TOPICS} label="Attempts of the last three minutes" draw={(pen, width, tall, palette) => drawLanes(pen, width, tall, palette, shown.slice(from, from + visible), cut)} />
          </div>
        )}
      />
    </Panel>
  );
}

function drawLanes(pen: CanvasRenderingContext2D, width: number, height: number, palette: Palette, provers: Prover[], cut: number) {
  const size = zoom();
  // Rows of the document have whole pixels, and bars must not drift from them.
  const row = Math.round(lanes.ROW * size) / size;
  const now = store.now();
  const from = now - WINDOW_MS;
  lanes.minutes(pen, palette, width, height, from, now);
  provers.forEach((known, index) => {
    // The row stays while the prover may have been told again: the newest state is drawn.
    const prover = store.provers.get(proverKey(known)) ?? known;
    lanes.lane(pen, palette, prover, store.toldAt.get(proverKey(prover)) ?? now, index * row - cut / size, width, from, now);
  });
}

function Lane({ prover }: { prover: Prover }) {
  const running = prover.held.filter((attempt) => attempt.running_ms !== null);
  return (
    <div class="lane">
      <span class="lane-name">
        <a href={links.prover(prover.id)} title={`${prover.role} of ${prover.zkvm}, ${many(prover.slots, "slot")}`}>{prover.id}</a>
        <span class="muted">{prover.host ?? ""}</span>
      </span>
      <span class="lane-space" />
      <span class="lane-state">
        {prover.state !== "active" ? <State of={prover.state} /> : running.length > 0 ? (
          <a class="muted" href={links.block(running[0].pipeline, running[0].block)}>{count(running[0].block)}</a>
        ) : null}
      </span>
    </div>
  );
}

function Fleet({ provers }: { provers: Prover[] }) {
  const ref = useRef<HTMLDivElement>(null);
  const { width } = useSize(ref);
  const size = zoom();
  const sorted = useMemo(() => [...provers].sort(byName).map(proverKey), [store.fleet, provers.length]);
  const inName = sorted.map((key) => store.provers.get(key)).filter((prover) => prover !== undefined);
  const busy = provers.filter((prover) => prover.held.length > 0).length;
  return (
    <div class="fleet" style={{ height: `${lanes.squares(inName, (width || 400) / size).height * size}px` }} ref={ref}>
      <Canvas topics={TOPICS} label={`${busy} of ${provers.length} processes are busy`} draw={(pen, wide, _height, palette) => lanes.fleet(pen, palette, sorted.map((key) => store.provers.get(key)).filter((prover) => prover !== undefined), wide)} />
    </div>
  );
}

/** The time for which a prover's state holds, for pages about one prover. */
export function since(prover: Prover): string {
  const now = store.now();
  if (prover.state === "quarantined") return prover.quarantined_until === null ? "until an operator ends the quarantine" : `for ${duration(prover.quarantined_until - now)} more`;
  return prover.state === "suspected" || prover.state === "gone" ? `not heard for ${duration(now - prover.heard_at)}` : "";
}
