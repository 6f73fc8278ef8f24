// Light or dark: as the system says, unless the operator chose. Canvases ask here for colours, because they see no CSS.

export type Theme = "system" | "light" | "dark";
const KEY = "push0-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

const NAMES = [
  "ink", "muted", "faint", "line", "track", "panel", "ground", "proving", "proving-soft", "verifying", "joining", "proved",
  "proved-soft", "held", "dead", "dead-soft", "focus",
] as const;
export type Colour = (typeof NAMES)[number];
export type Palette = Record<Colour, string> & { hatch: (colour: Colour) => CanvasPattern | string };

const listeners = new Set<() => void>();
let palette: Palette | null = null;

export function theme(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function isDark(): boolean {
  return theme() === "system" ? dark.matches : theme() === "dark";
}

function show(): void {
  const chosen = theme();
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  palette = null;
  for (const listener of listeners) listener();
}

export function choose(wanted: Theme): void {
  if (wanted === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, wanted);
  show();
}

export function onTheme(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function begin(): void {
  dark.addEventListener("change", show);
  show();
}

/** The colours of the stylesheet, resolved for the theme that is shown. */
export function colours(): Palette {
  if (palette) return palette;
  const probe = document.createElement("i");
  document.body.append(probe);
  const found = {} as Palette;
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  const patterns = new Map<Colour, CanvasPattern | string>();
  found.hatch = (name) => {
    if (!patterns.has(name)) patterns.set(name, hatch(found[name]) ?? found[name]);
    return patterns.get(name)!;
  };
  palette = found;
  return found;
}

/** How much larger than usual text is: canvases grow with it, as on a wall. */
export function zoom(): number {
  return (size ??= parseFloat(getComputedStyle(document.documentElement).fontSize) / 13);
}

let size: number | null = null;
addEventListener("resize", () => (size = null));

/** Diagonal lines: the second sign of a state, for eyes that tell few colours apart. */
function hatch(colour: string): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 10;
  const pen = tile.getContext("2d")!;
  pen.strokeStyle = colour;
  pen.lineWidth = 2.4;
  pen.beginPath();
  for (const shift of [-10, 0, 10]) {
    pen.moveTo(shift - 1, 11);
    pen.lineTo(shift + 11, -1);
  }
  pen.stroke();
  const pattern = pen.createPattern(tile, "repeat");
  pattern?.setTransform(new DOMMatrix().scale(0.5));
  return pattern;
}
