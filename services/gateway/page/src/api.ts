// The gateway's HTTP interface, as the page reads it. Times are milliseconds since 1970, durations milliseconds unless
// their names end in `_us`.

export interface Session {
  role: "read" | "operate";
  auth: boolean;
  version: string;
  jaeger_url: string | null;
}

export interface Problem {
  since: number | null;
  text: string;
  link: string | null;
}

export interface Verdict {
  ok: boolean;
  problems: Problem[];
  /** What a person should know although nothing is wrong. */
  remarks: Problem[];
}

export interface Pipeline {
  name: string;
  revision: number;
  policy: string;
  next: number | null;
  head: number | null;
  lag: number | null;
  stalled_since: number | null;
  deadline_ms: number | null;
  latencies_ms: number[];
  proved_per_min: number;
  dead: number;
  abandoned: number;
}

export interface Held {
  since: number;
  failures: number;
  error: string | null;
  /** The task that fails alone, in words; null if all tasks wait. */
  task: string | null;
}

export interface Zkvm {
  name: string;
  provers: number;
  verifiers: number;
  slots: number;
  busy: number;
  waiting: number;
  released: number;
  checks: number;
  oldest_wait_ms: number | null;
  held: Held | null;
}

export type ProverState = "active" | "draining" | "quarantined" | "suspected" | "gone";

export interface HeldAttempt {
  key: string;
  pipeline: string;
  block: number;
  stage: string;
  running_ms: number | null;
  progress: number | null;
}

export type Outcome = "done" | "failed" | "died" | "stopped";

export interface RecentAttempt {
  pipeline: string;
  block: number;
  stage: string;
  started_at: number;
  ended_at: number;
  outcome: Outcome;
}

export interface Prover {
  id: string;
  zkvm: string;
  role: "prover" | "verifier";
  slots: number;
  state: ProverState;
  host: string | null;
  heard_at: number;
  quarantined_until: number | null;
  done: number;
  failed: number;
  p50_ms: number | null;
  held: HeldAttempt[];
  recent: RecentAttempt[];
}

export type BlockState =
  | "waiting"
  | "proving"
  | "verifying"
  | "joining"
  | "proved"
  | "held"
  | "dead"
  | "abandoned"
  | "replaced";

export interface Stage {
  proof: string;
  stage: string;
  kind: "split" | "map" | "join" | "range";
  of: number;
  done: number;
  running: number;
  failed: number;
  checking: number;
  progress: number | null;
}

export interface Block {
  pipeline: string;
  number: number;
  hash: string;
  first: number | null;
  at: number;
  deadline_at: number | null;
  transactions: number;
  gas: number;
  state: BlockState;
  waits_for: string;
  recorded_at: number | null;
  reason: string | null;
  range: { first: number; last: number } | null;
  stages: Stage[];
  attempts: number;
  failures: number;
  prover: string | null;
  proof_bytes: number | null;
  overhead_us: number | null;
}

export interface Span {
  id: string;
  parent: string | null;
  name: string;
  kind: "block" | "proof" | "stage" | "task" | "attempt" | "wait" | "transfer" | "verify" | "order";
  start: number;
  end: number | null;
  prover: string | null;
  outcome: string | null;
  note: string | null;
}

export interface Attempt {
  key: string;
  proof: string;
  stage: string;
  index: number;
  attempt: number;
  zkvm: string;
  prover: string | null;
  state: "released" | "running" | "checking" | "done" | "failed" | "died" | "stopped";
  hedge_of: number | null;
  released_at: number | null;
  started_at: number | null;
  ended_at: number | null;
  prove_us: number | null;
  transfer_us: number | null;
  verify_us: number | null;
  verifier: string | null;
  class: string | null;
  message: string | null;
  progress: number | null;
}

export interface Proof {
  type: string;
  zkvm: string;
  program_id: string | null;
  prover: string;
  verifier: string | null;
  bytes: number;
  hex_prefix: string;
}

export interface Letter {
  id: string;
  pipeline: string | null;
  at: number;
  kind: "task" | "message";
  block: number | null;
  hash: string | null;
  stage: string | null;
  reason: string;
  attempts: { attempt: number; prover: string; class: string; message: string }[];
  can_retry: boolean;
}

export interface Parts {
  failed_us: number;
  waited_us: number;
  transfer_us: number;
  prove_us: number;
  check_waited_us: number;
  verify_us: number;
}

export interface Account {
  total_us: number;
  parts: Parts;
  range_us: number;
  order_us: number;
  own_us: number;
}

export interface Leg {
  stage: string;
  ready_at: number;
  ended_at: number;
  prover: string;
  verifier: string | null;
  failed: number;
  parts: Parts;
  own_us: number;
}

/** The newest dead letters, and how many there are in all. */
export interface Letters {
  letters: Letter[];
  total: number;
}

export interface BlockDetail extends Block {
  parent_hash: string | null;
  trace_id: string | null;
  trace_url: string | null;
  story: string[];
  spans: Span[];
  attempts_list: Attempt[];
  proofs: Proof[];
  account: Account | null;
  legs: Leg[];
  letters: Letter[];
}

export interface GraphNode {
  id: string;
  proof: string;
  stage: string;
  zkvm: string;
  kind: string;
  arity: number | null;
}

export interface PipelineDetail extends Pipeline {
  definition_toml?: string;
  /** As `definition_toml`, where the definition is not told in TOML. */
  definition?: string;
  graph: { nodes: GraphNode[]; edges: { from: string; to: string }[] };
  revisions: { revision: number; at?: number | null; toml?: string; definition?: string }[];
}

export interface StreamRoom {
  name: string;
  messages: number;
  bytes: number;
  bytes_max: number;
}

export interface Snapshot {
  id: string;
  at: number;
  verdict: Verdict;
  pipelines: Pipeline[];
  zkvms: Zkvm[];
  provers: Prover[];
  blocks: Block[];
  streams: StreamRoom[];
}

export interface Change {
  at: number;
  verdict?: Verdict;
  pipelines?: Pipeline[];
  zkvms?: Zkvm[];
  provers?: Prover[];
  blocks?: Block[];
  streams?: StreamRoom[];
  /** Provers by zkVM, id and role; blocks by pipeline, number and hash. */
  gone?: { provers?: [string, string, string][]; blocks?: [string, number, string][] };
}
