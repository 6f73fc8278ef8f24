// The frame: what stands on every page, the keys, and which page is shown.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Block } from "../api";
import { token } from "../gateway";
import { reconnect } from "../live";
import { go, links, parse, type Route } from "../route";
import { store } from "../store";
import { choose, isDark, onTheme } from "../theme";
import { count } from "../words";
import { Asked, Dialog } from "./actions";
import { BlockPage } from "./block";
import { Lanes } from "./lanes";
import { Letters } from "./letters";
import { useStore } from "./parts";
import { PipelinePage } from "./pipeline";
import { ProverPage } from "./prover";
import { Queues, Streams } from "./queues";
import { Search } from "./search";
import { Strips, address } from "./strips";
import { Latencies, Throughputs } from "./times";
import { VerdictLine } from "./verdict";

function useRoute(): Route {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const read = () => {
      set(parse(location.hash));
      scrollTo(0, 0);
    };
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);
  return route;
}

export function App() {
  const route = useRoute();
  const search = useRef<HTMLInputElement>(null);
  const [help, setHelp] = useState(false);
  useKeys(route, () => search.current?.focus(), () => setHelp(true));
  useStore("link", "session");
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the page</a>
      <header class="top">
        <a class="brand" href={links.overview} aria-current={route.page === "overview" ? "page" : undefined}>push0</a>
        <Navigation route={route} />
        <Search input={search} />
        <LinkState />
        <ThemeSwitch />
        <button type="button" class="icon" aria-label="Help: the keys" title="Help (?)" onClick={() => setHelp(true)}>?</button>
      </header>
      <main id="main" tabIndex={-1} class={store.loaded && store.link.state !== "live" ? "is-stale" : ""}>
        {store.link.state === "refused" ? <TokenForm /> : (
          <>
            <VerdictLine />
            <Page route={route} />
          </>
        )}
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
      <Asked />
    </>
  );
}

function Page({ route }: { route: Route }) {
  if (route.page === "block") return <BlockPage key={`${route.pipeline}/${route.block}`} pipeline={route.pipeline} block={route.block} />;
  if (route.page === "pipeline") return <PipelinePage key={route.pipeline} name={route.pipeline} />;
  if (route.page === "prover") return <ProverPage key={route.id} id={route.id} />;
  if (route.page === "letters") return <div class="single"><h1 class="hidden">Dead letters</h1><Letters whole /></div>;
  return (
    <>
      <h1 class="hidden">push0: chains, provers and queues</h1>
      <Strips />
      <div class="overview">
        <Lanes zkvm={route.zkvm} />
        <div class="column">
          <Latencies />
          <Throughputs />
        </div>
        <div class="column">
          <Queues zkvm={route.zkvm} />
          <Letters />
          <Streams />
        </div>
      </div>
    </>
  );
}

function Navigation({ route }: { route: Route }) {
  useStore("letters", "pipelines");
  const current = (is: boolean) => (is ? ("page" as const) : undefined);
  return (
    <nav aria-label="Pages">
      {[...store.pipelines.keys()].slice(0, 6).map((name) => (
        <a key={name} href={links.pipeline(name)} aria-current={current((route.page === "pipeline" || route.page === "block") && route.pipeline === name)}>{name}</a>
      ))}
      <a href={links.letters} aria-current={current(route.page === "letters")}>
        Dead letters{store.lettersTotal > 0 && <span class="badge">{count(store.lettersTotal)}</span>}
      </a>
    </nav>
  );
}

function LinkState() {
  const { state } = store.link;
  const word = { live: "live", connecting: "connecting", lost: "reconnecting", refused: "no token" }[state];
  return (
    <span class={`link link-${state}`} role="status" title={store.session ? `push0 ${store.session.version}, role ${store.session.role}` : undefined}>
      <span class="link-dot" aria-hidden="true" />
      {word}
      {store.session && state === "live" && <span class="muted link-role">{store.session.role}</span>}
      {store.session?.auth && state === "live" && (
        <button type="button" class="quiet" onClick={() => { token.forget(); location.reload(); }}>Forget token</button>
      )}
    </span>
  );
}

function ThemeSwitch() {
  const [dark, set] = useState(isDark);
  useEffect(() => onTheme(() => set(isDark())), []);
  const word = dark ? "Light theme" : "Dark theme";
  return (
    <button type="button" class="icon theme" aria-label={word} title={`${word} (t)`} onClick={toggleTheme}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.4" />
        <path d="M8 1.8a6.2 6.2 0 0 1 0 12.4z" fill="currentColor" />
      </svg>
    </button>
  );
}

function toggleTheme(): void {
  const wanted = isDark() ? "light" : "dark";
  // A choice that is what the system says anyway is no choice: the page follows the system again.
  choose(matchMedia("(prefers-color-scheme: dark)").matches === (wanted === "dark") ? "system" : wanted);
}

function TokenForm() {
  const { link } = store;
  const [text, set] = useState("");
  return (
    <section class="panel token" aria-labelledby="token-title">
      <h1 id="token-title">This gateway wants a token</h1>
      <p role="alert" class="bad">{link.state === "refused" ? link.why : ""}</p>
      <form onSubmit={(event) => {
        event.preventDefault();
        token.set(text.trim());
        store.link = { state: "connecting" };
        store.changed("link");
        reconnect();
      }}>
        <label class="field">Token <input type="password" autocomplete="off" required value={text} onInput={(event) => set(event.currentTarget.value)} /></label>
        <p class="muted">The token stays in this tab, and is gone when the tab is closed.</p>
        <p class="buttons"><button type="submit" class="primary">Enter</button></p>
      </form>
    </section>
  );
}

const KEYS: [string, string][] = [
  ["j, →", "the next block"],
  ["k, ←", "the block before"],
  ["]  [", "the next pipeline, the pipeline before"],
  ["Enter", "the page of the chosen block"],
  ["w", "the block that the chain waits for"],
  ["h", "the newest block"],
  ["/", "search by number, hash or prover"],
  ["o", "overview"],
  ["d", "dead letters"],
  ["t", "light or dark"],
  ["Esc", "close, choose nothing, go back to the overview"],
  ["?", "this help"],
];

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class="keys">
        {KEYS.map(([keys, what]) => (
          <div key={keys}><dt>{keys.split(/,? +/).map((key) => <kbd key={key}>{key}</kbd>)}</dt><dd>{what}</dd></div>
        ))}
      </dl>
      <p class="muted">A block fills from below, one level per stage and one column per proof; what runs without telling its progress is hatched. The line above it is the time left to its deadline; a red corner is a failure. Under the cells: a triangle at the number that the chain waits for, and a bracket round each range.</p>
      <p class="buttons"><button type="button" onClick={onClose}>Close</button></p>
    </Dialog>
  );
}

/** Moves the choice along a chain: from the block that is chosen, else from the one that the chain waits for. */
function step(by: number, route: Route): void {
  const names = [...store.pipelines.keys()];
  const onBlock = route.page === "block" ? route : null;
  const shown = onBlock && store.chain(onBlock.pipeline).find((block) => String(address(block)) === onBlock.block || block.hash === onBlock.block);
  const chosen = shown ?? store.selectedBlock();
  const pipeline = chosen?.pipeline ?? onBlock?.pipeline ?? names[0];
  const chain = store.chain(pipeline);
  const at = chosen ? chain.indexOf(chosen) + by : chain.indexOf(store.nextBlock(pipeline) ?? chain[chain.length - 1]);
  const block = chain[Math.max(0, Math.min(chain.length - 1, at))];
  if (!block) return;
  store.select(block);
  if (onBlock) go(links.block(block.pipeline, address(block)));
}

function otherPipeline(by: number): void {
  const names = [...store.pipelines.keys()];
  const chosen = store.selectedBlock();
  const at = chosen ? names.indexOf(chosen.pipeline) + by : 0;
  const name = names[(at + names.length) % names.length];
  const chain = name ? store.chain(name) : [];
  const newest: Block | undefined = chain[chain.length - 1];
  store.select((name && store.nextBlock(name)) || newest || null);
}

function useKeys(route: Route, search: () => void, help: () => void): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (target.matches("input:not([type=checkbox]), textarea, select")) return;
      const inStrip = target.closest<HTMLElement>("[data-pipeline]");
      const chosen = store.selectedBlock();
      if (inStrip && chosen?.pipeline !== inStrip.dataset.pipeline && /^(Arrow|[jk]$)/.test(event.key)) {
        store.select(store.nextBlock(inStrip.dataset.pipeline!) ?? store.chain(inStrip.dataset.pipeline!).at(-1) ?? null);
        event.preventDefault();
        return;
      }
      const actions: Record<string, () => void> = {
        j: () => step(1, route),
        k: () => step(-1, route),
        ArrowRight: () => step(1, route),
        ArrowLeft: () => step(-1, route),
        "]": () => otherPipeline(1),
        "[": () => otherPipeline(-1),
        w: () => chosen ? store.select(store.nextBlock(chosen.pipeline)) : otherPipeline(0),
        h: () => store.select(store.chain(chosen?.pipeline ?? [...store.pipelines.keys()][0] ?? "").at(-1) ?? null),
        o: () => go(links.overview),
        d: () => go(links.letters),
        t: toggleTheme,
        "/": search,
        "?": help,
        Escape: () => (chosen ? store.select(null) : go(links.overview)),
      };
      const open = event.key === "Enter" && chosen && !target.closest("a, button, summary, [tabindex]:not([data-pipeline]):not(main)");
      const action = open ? () => go(links.block(chosen.pipeline, address(chosen))) : actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  });
}
