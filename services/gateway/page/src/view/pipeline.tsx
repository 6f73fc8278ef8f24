// The page of one pipeline: its figures, its graph, its revisions, its blocks.

import { useEffect, useState } from "preact/hooks";
import type { Block, PipelineDetail } from "../api";
import { Refused, gateway } from "../gateway";
import { links } from "../route";
import { blockKey, store } from "../store";
import { bytes, count, duration, shortHash } from "../words";
import { Failure, useLoaded } from "./loaded";
import { Empty, Fact, Panel, State, Time, useStore } from "./parts";
import { Graph } from "./graph";
import { PipelineStrip, address } from "./strips";
import { Latencies, Throughputs } from "./times";

const PAGE = 50;

export function PipelinePage({ name }: { name: string }) {
  useStore("pipelines");
  const live = store.pipelines.get(name);
  const { value, error } = useLoaded<PipelineDetail>(`pipelines/${encodeURIComponent(name)}`, ["pipelines"], () => store.pipelines.get(name)?.revision);
  const pipeline = live ?? value;
  if (!pipeline) return <div class="single"><h1>{name}</h1><Failure error={error} /></div>;
  return (
    <div class="single">
      <div class="title">
        <h1>{name}</h1>
        <span class="muted">revision {pipeline.revision}</span>
      </div>
      <p class="waits">{pipeline.policy}</p>
      <Failure error={error} />
      <dl class="facts">
        <Fact name="next">{pipeline.next === null ? "–" : <a href={links.block(name, pipeline.next)}>{count(pipeline.next)}</a>}</Fact>
        <Fact name="head">{pipeline.head === null ? "–" : <a href={links.block(name, pipeline.head)}>{count(pipeline.head)}</a>}</Fact>
        <Fact name="lag">{pipeline.lag === null ? "–" : count(pipeline.lag)}</Fact>
        {pipeline.stalled_since !== null && <Fact name="stalled"><span class="bad">since <Time at={pipeline.stalled_since} /></span></Fact>}
        {pipeline.deadline_ms !== null && <Fact name="deadline">{duration(pipeline.deadline_ms)}</Fact>}
        <Fact name="proved/min">{count(pipeline.proved_per_min)}</Fact>
        <Fact name="dead">{count(pipeline.dead)}</Fact>
        <Fact name="abandoned">{count(pipeline.abandoned)}</Fact>
      </dl>
      {live && <div class="panel strip-panel"><PipelineStrip pipeline={live} /></div>}
      <div class="two">
        <Latencies only={name} />
        <Throughputs only={name} />
      </div>
      {value && <Panel title="Graph"><Graph graph={value.graph} /></Panel>}
      {value && <Revisions detail={value} />}
      <Blocks name={name} />
    </div>
  );
}

type Edit = "same" | "added" | "removed";

/** The lines of two texts, matched by their longest common subsequence. Definitions are short. */
export function difference(before: string, after: string): [Edit, string][] {
  const [a, b] = [before.split("\n"), after.split("\n")];
  if (a.length * b.length > 1_000_000) return b.map((line) => ["same", line]);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  }
  const lines: [Edit, string][] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) lines.push(["same", a[(i++, j++, i - 1)]]);
    else if (j >= b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) lines.push(["removed", a[i++]]);
    else lines.push(["added", b[j++]]);
  }
  return lines;
}

const SIGNS: Record<Edit, string> = { same: " ", added: "+", removed: "−" };

function Revisions({ detail }: { detail: PipelineDetail }) {
  const revisions = detail.revisions
    .map(({ revision, at, toml, definition }) => ({ revision, at: at ?? null, toml: toml ?? definition ?? "" }))
    .sort((a, b) => b.revision - a.revision);
  return (
    <Panel title="Definition" class="revisions" aside={<span class="panel-aside">{revisions.length > 1 ? "each revision with what it changed" : ""}</span>}>
      {revisions.map((one, index) => {
        const before = revisions[index + 1];
        const lines: [Edit, string][] = before ? difference(before.toml, one.toml) : one.toml.split("\n").map((line) => ["same", line]);
        const changes = lines.filter(([edit]) => edit !== "same").length;
        return (
          <details key={one.revision} open={index === 0}>
            <summary>revision {one.revision}{one.at !== null && <span class="muted"> applied <Time at={one.at} /></span>}{before && <span class="muted"> {changes} lines changed</span>}</summary>
            <pre class="toml" tabIndex={0}>{lines.map(([edit, line], place) => <span key={place} class={`line-${edit}`}>{SIGNS[edit]} {line}{"\n"}</span>)}</pre>
          </details>
        );
      })}
      {revisions.length === 0 && <pre class="toml" tabIndex={0}>{detail.definition_toml ?? detail.definition ?? ""}</pre>}
    </Panel>
  );
}

function Blocks({ name }: { name: string }) {
  const [blocks, set] = useState<Block[]>([]);
  const [state, setState] = useState<"idle" | "busy" | "end">("idle");
  const [error, setError] = useState<string | null>(null);
  const load = async () => {
    setState("busy");
    try {
      const before = blocks.length ? `&before=${blocks[blocks.length - 1].number}` : "";
      const { blocks: found } = await gateway.get<{ blocks: Block[] }>(`pipelines/${encodeURIComponent(name)}/blocks?limit=${PAGE}${before}`);
      set([...blocks, ...found]);
      setState(found.length < PAGE ? "end" : "idle");
      setError(null);
    } catch (failure) {
      setError(failure instanceof Refused ? failure.message : "The gateway does not answer.");
      setState("idle");
    }
  };
  useEffect(() => void load(), []);
  useStore("blocks");
  // What the events tell is newer than what was asked for, and includes blocks that came since.
  const newest = blocks[0]?.number ?? Infinity;
  const shown = [
    ...store.chain(name).filter((block) => block.number > newest).reverse(),
    ...blocks.map((block) => store.blocks.get(blockKey(name, block.number, block.hash)) ?? block),
  ];
  return (
    <Panel title="Blocks and records" class="blocks">
      <div class="scroll" tabIndex={0} role="group" aria-label="Blocks and records">
        <table>
          <thead><tr><th scope="col" class="number">block</th><th scope="col">hash</th><th scope="col">state</th><th scope="col">announced</th><th scope="col" class="number">took</th><th scope="col" class="number">attempts</th><th scope="col" class="number">proof</th><th scope="col">prover</th></tr></thead>
          <tbody>
            {shown.map((block) => (
              <tr key={`${block.number}/${block.hash}`}>
                <th scope="row" class="number"><a href={links.block(name, address(block))}>{count(block.number)}</a></th>
                <td><code>{shortHash(block.hash)}</code></td>
                <td><State of={block.state} /></td>
                <td><Time at={block.at} /></td>
                <td class="number">{block.recorded_at === null ? "–" : duration(block.recorded_at - block.at)}</td>
                <td class={block.failures ? "number bad" : "number"}>{block.attempts}</td>
                <td class="number">{block.proof_bytes === null ? "–" : bytes(block.proof_bytes)}</td>
                <td>{block.prover ? <a href={links.prover(block.prover)}>{block.prover}</a> : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {error && <p class="said bad" role="alert">{error}</p>}
      {blocks.length === 0 && state === "end" && <Empty>The pipeline has no block yet.</Empty>}
      {state !== "end" && <p class="buttons"><button type="button" disabled={state === "busy"} onClick={() => void load()}>Older blocks</button></p>}
    </Panel>
  );
}
