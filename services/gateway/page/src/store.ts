// All that the page knows, and who must be told when it changes. Events come up to 20 times a second; views are told at
// most 8 times a second, because nobody reads faster and a phone's battery is finite.

import type { Block, Change, Letter, Pipeline, Prover, Session, Snapshot, StreamRoom, Verdict, Zkvm } from "./api";

export type Topic = "verdict" | "pipelines" | "zkvms" | "provers" | "blocks" | "streams" | "letters" | "link" | "session" | "selection" | "second";

const TELL_EVERY_MS = 125;
const SAMPLES = 180;

export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "lost"; since: number; why: string; next: number }
  | { state: "refused"; why: string; hint: string | null };

export interface Selection {
  pipeline: string;
  number: number;
  hash: string;
}

export const blockKey = (pipeline: string, number: number, hash: string) => `${pipeline}/${number}/${hash}`;
export const proverKey = (prover: { zkvm: string; id: string; role: string }) => `${prover.zkvm}/${prover.id}/${prover.role}`;

class Store {
  session: Session | null = null;
  link: Link = { state: "connecting" };
  lastEvent: string | null = null;
  loaded = false;
  verdict: Verdict | null = null;
  okSince: number | null = null;
  streams: StreamRoom[] = [];
  letters: Letter[] = [];
  /** How many letters there are: the gateway lists the newest ones. */
  lettersTotal = 0;
  lettersError: string | null = null;
  readonly pipelines = new Map<string, Pipeline>();
  readonly zkvms = new Map<string, Zkvm>();
  readonly provers = new Map<string, Prover>();
  readonly blocks = new Map<string, Block>();
  /** Waiting tasks per zkVM, sampled each second: the interface tells only the present. */
  readonly queues = new Map<string, number[]>();
  /** When each prover was told last, in the gateway's time: running times go on from there. */
  readonly toldAt = new Map<string, number>();
  selection: Selection | null = null;
  /** Rises when a prover comes, goes or changes its state: only then does the order of the fleet change. */
  fleet = 0;

  private readonly chains = new Map<string, Block[]>();
  private readonly stale = new Set<string>();
  private readonly listeners = new Map<() => void, readonly Topic[]>();
  private readonly pending = new Set<Topic>();
  private scheduled = false;
  private told = 0;
  private offset = 0;
  private heardAt: number | null = null;
  private stoppedAt: number | null = null;

  /** The gateway's time: the browser's clock may be minutes off, and `for 1.2 s` must not be. */
  now(): number {
    return this.stoppedAt ?? Date.now() + this.offset;
  }

  /** Without a connection time stands still at the last event: nothing that is shown may seem to go on. */
  stop(): number {
    return (this.stoppedAt ??= this.heardAt ?? this.now());
  }

  subscribe(topics: readonly Topic[], listener: () => void): () => void {
    this.listeners.set(listener, topics);
    return () => this.listeners.delete(listener);
  }

  changed(...topics: Topic[]): void {
    for (const topic of topics) this.pending.add(topic);
    if (this.scheduled) return;
    this.scheduled = true;
    const wait = Math.max(0, this.told + TELL_EVERY_MS - performance.now());
    // A hidden tab draws no frames; a timer alone keeps its title and state right.
    setTimeout(() => (document.hidden ? this.tell() : requestAnimationFrame(() => this.tell())), wait);
  }

  private tell(): void {
    this.scheduled = false;
    this.told = performance.now();
    const topics = new Set(this.pending);
    this.pending.clear();
    for (const [listener, wanted] of [...this.listeners]) {
      if (wanted.some((topic) => topics.has(topic))) listener();
    }
    performance.measure("page:update", { start: this.told, end: performance.now() });
    if (performance.getEntriesByName("page:update").length > 500) performance.clearMeasures("page:update");
  }

  reset(snapshot: Snapshot): void {
    for (const map of [this.pipelines, this.zkvms, this.provers, this.blocks]) map.clear();
    this.chains.clear();
    this.fleet++;
    this.lastEvent = snapshot.id;
    this.loaded = true;
    this.apply(snapshot);
    this.changed("pipelines", "zkvms", "provers", "blocks", "streams", "verdict");
  }

  apply(change: Change): void {
    this.offset = change.at - Date.now();
    this.heardAt = change.at;
    this.stoppedAt = null;
    if (change.verdict) {
      this.okSince = change.verdict.ok ? (this.verdict?.ok ? this.okSince : change.at) : null;
      this.verdict = change.verdict;
      this.changed("verdict");
    }
    if (change.streams) {
      this.streams = change.streams;
      this.changed("streams");
    }
    for (const pipeline of change.pipelines ?? []) this.pipelines.set(pipeline.name, pipeline);
    for (const zkvm of change.zkvms ?? []) this.zkvms.set(zkvm.name, zkvm);
    for (const prover of change.provers ?? []) {
      if (this.provers.get(proverKey(prover))?.state !== prover.state) this.fleet++;
      this.provers.set(proverKey(prover), prover);
      this.toldAt.set(proverKey(prover), change.at);
    }
    for (const block of change.blocks ?? []) {
      // A gateway that has not read a block's facts yet knows the first digits of its hash only.
      if (block.hash.length > 10) this.blocks.delete(blockKey(block.pipeline, block.number, block.hash.slice(0, 10)));
      this.blocks.set(blockKey(block.pipeline, block.number, block.hash), block);
      this.stale.add(block.pipeline);
    }
    for (const [zkvm, id, role] of change.gone?.provers ?? []) {
      this.fleet++;
      this.provers.delete(proverKey({ zkvm, id, role }));
      this.toldAt.delete(proverKey({ zkvm, id, role }));
    }
    for (const [pipeline, number, hash] of change.gone?.blocks ?? []) {
      this.blocks.delete(blockKey(pipeline, number, hash));
      this.stale.add(pipeline);
    }
    if (change.pipelines?.length) this.changed("pipelines");
    if (change.zkvms?.length) this.changed("zkvms");
    if (change.provers?.length || change.gone?.provers?.length) this.changed("provers");
    if (change.blocks?.length || change.gone?.blocks?.length) this.changed("blocks");
  }

  /** The known blocks of a pipeline, oldest first; a replaced block stands before its successor. */
  chain(pipeline: string): Block[] {
    if (this.stale.size) {
      const lists = new Map<string, Block[]>([...this.stale].map((name) => [name, []]));
      for (const block of this.blocks.values()) lists.get(block.pipeline)?.push(block);
      for (const [name, list] of lists) {
        list.sort((a, b) => a.number - b.number || a.at - b.at);
        this.chains.set(name, list);
      }
      this.stale.clear();
    }
    return this.chains.get(pipeline) ?? [];
  }

  /** What the chain waits for: the first block without a record. */
  nextBlock(pipeline: string): Block | null {
    const next = this.pipelines.get(pipeline)?.next ?? null;
    const open = this.chain(pipeline).filter((block) => block.state !== "replaced" && block.recorded_at === null);
    return open.find((block) => next !== null && block.number >= next) ?? null;
  }

  selectedBlock(): Block | null {
    const chosen = this.selection;
    return chosen && (this.blocks.get(blockKey(chosen.pipeline, chosen.number, chosen.hash)) ?? null);
  }

  select(block: Block | null): void {
    this.selection = block && { pipeline: block.pipeline, number: block.number, hash: block.hash };
    this.changed("selection");
  }

  second(): void {
    for (const zkvm of this.stoppedAt === null ? this.zkvms.values() : []) {
      const samples = this.queues.get(zkvm.name) ?? [];
      samples.push(zkvm.waiting + zkvm.released);
      if (samples.length > SAMPLES) samples.shift();
      this.queues.set(zkvm.name, samples);
    }
    this.changed("second");
  }

  mayOperate(): boolean {
    return this.session?.role === "operate";
  }
}

export const store = new Store();
