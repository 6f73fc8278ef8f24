// The small pieces that all pages share.

import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import type { BlockState, ProverState } from "../api";
import { store, type Topic } from "../store";
import { colours, onTheme, zoom, type Palette } from "../theme";
import { BLOCK_STATES, PROVER_STATES, iso, time } from "../words";

/** Renders again when one of the topics changed. */
export function useStore(...topics: Topic[]): typeof store {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => store.subscribe(topics, () => again(undefined as never)), [topics.join()]);
  return store;
}

/** The size of an element, as it is laid out. */
export function useSize(ref: RefObject<HTMLElement | null>): { width: number; height: number } {
  const [size, set] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = ref.current!;
    const measure = () => set({ width: element.clientWidth, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  return size;
}

/** Draws, and says whether the next frame must be drawn too, as while something moves. */
export type Draw = (pen: CanvasRenderingContext2D, width: number, height: number, palette: Palette) => boolean | void;

const unpainted = new Set<() => void>();

/** Paints once in the next frame, however many reasons there are. */
function soon(paint: () => void): void {
  if (unpainted.size === 0) {
    requestAnimationFrame(() => {
      const due = [...unpainted];
      unpainted.clear();
      for (const each of due) each();
    });
  }
  unpainted.add(paint);
}

/** A canvas of its element's size that is drawn again when a topic, the theme or the size changes. Lengths are in usual
 * pixels: where text is larger, all of the drawing is. */
export function Canvas({ draw, topics, label, class: name }: { draw: Draw; topics: Topic[]; label: string; class?: string }) {
  const ref = useRef<HTMLCanvasElement>(null);
  const latest = useRef(draw);
  latest.current = draw;
  // The observer tells the size: to ask the element for it in each frame would lay out the page each time.
  const box = useRef({ width: 0, height: 0 });
  const paint = useRef(() => {
    const canvas = ref.current;
    const { width, height } = box.current;
    if (!canvas || !width || !height) return;
    const size = zoom();
    const sharp = Math.min(3, devicePixelRatio || 1);
    if (canvas.width !== Math.round(width * sharp) || canvas.height !== Math.round(height * sharp)) {
      canvas.width = Math.round(width * sharp);
      canvas.height = Math.round(height * sharp);
    }
    const pen = canvas.getContext("2d")!;
    pen.setTransform(sharp * size, 0, 0, sharp * size, 0, 0);
    pen.clearRect(0, 0, width / size, height / size);
    if (latest.current(pen, width / size, height / size, colours())) soon(paint);
  }).current;
  useLayoutEffect(() => soon(paint));
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      box.current = { width: Math.round(entry.contentRect.width), height: Math.round(entry.contentRect.height) };
      paint();
    });
    observer.observe(ref.current!);
    const stop = [onTheme(() => soon(paint)), store.subscribe(topics, () => soon(paint))];
    return () => {
      unpainted.delete(paint);
      observer.disconnect();
      for (const each of stop) each();
    };
  }, [topics.join()]);
  return <canvas ref={ref} class={name} role="img" aria-label={label} />;
}

export function Panel({ title, aside, children, class: name, id }: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
  class?: string;
  id?: string;
}) {
  return (
    <section class={`panel ${name ?? ""}`} aria-label={title} id={id}>
      <header class="panel-head">
        <h2>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

export function State({ of }: { of: BlockState | ProverState | string }) {
  const meaning = BLOCK_STATES[of as BlockState] ?? PROVER_STATES[of as ProverState];
  return (
    <span class={`state state-${of}`} title={meaning}>
      {of}
    </span>
  );
}

/** A moment, in the reader's time zone; the title says it exactly and in UTC. */
export function Time({ at }: { at: number }) {
  return (
    <time dateTime={iso(at)} title={iso(at)}>
      {time(at, store.now())}
    </time>
  );
}

export function Fact({ name, children, title }: { name: string; children: ComponentChildren; title?: string }) {
  return (
    <div class="fact" title={title}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** A list of which only the visible rows exist, so that 500 provers cost as much as 20. */
export function Rows<T>({ items, height, label, row, keyOf, class: name, topRow }: {
  items: T[];
  height: number;
  label: string;
  row: (item: T) => ComponentChildren;
  keyOf: (item: T) => string;
  class?: string;
  /** What lies over the visible rows: the first one, how many, how far it is scrolled out, and the height. */
  topRow?: (from: number, count: number, cut: number, height: number) => ComponentChildren;
}) {
  const ref = useRef<HTMLDivElement>(null);
  const size = useSize(ref);
  const [top, setTop] = useState(0);
  const from = Math.max(0, Math.min(Math.floor(top / height), items.length - 1));
  const visible = items.slice(from, from + Math.ceil(size.height / height) + 1);
  return (
    <div class={`rows ${name ?? ""}`} ref={ref} tabIndex={0} role="group" aria-label={label} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
      {topRow?.(from, visible.length, top - from * height, size.height)}
      <div role="list" aria-label={label} class="rows-all" style={{ height: `${items.length * height}px` }}>
        {visible.map((item, index) => (
          <div
            key={keyOf(item)}
            role="listitem"
            aria-setsize={items.length}
            aria-posinset={from + index + 1}
            class="rows-one"
            style={{ transform: `translateY(${(from + index) * height}px)`, height: `${height}px` }}
          >
            {row(item)}
          </div>
        ))}
      </div>
    </div>
  );
}

/** A sentence of the gateway: names between backticks stand out. */
export function Said({ text }: { text: string }) {
  return <>{text.split("`").map((part, index) => (index % 2 ? <code key={index}>{part}</code> : part))}</>;
}

/** A fraction as a thin bar. */
export function Bar({ part, label, kind }: { part: number; label: string; kind?: string }) {
  const percent = Math.round(Math.max(0, Math.min(1, part)) * 100);
  return (
    <span class={`bar ${kind ?? ""}`} role="img" aria-label={label}>
      <span style={{ width: `${percent}%` }} />
    </span>
  );
}
