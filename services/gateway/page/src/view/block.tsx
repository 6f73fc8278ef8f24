// The page of one block: its story, its spans, its attempts, its proofs.

import { useEffect, useState } from "preact/hooks";
import type { Attempt, Block, BlockDetail, Proof } from "../api";
import { Refused, blockPath, gateway } from "../gateway";
import { links, webLink } from "../route";
import { store } from "../store";
import { fraction } from "../draw/strip";
import { bytes, count, duration, many, micros } from "../words";
import { CancelButton } from "./actions";
import { OneLetter } from "./letters";
import { Failure, useLoaded } from "./loaded";
import { Bar, Empty, Fact, Panel, Said, State, Time, useStore } from "./parts";
import { StripCanvas, address } from "./strips";
import { Waterfall } from "./waterfall";

/** The newest block of that number that the chain kept, or the one of that hash. */
function known(pipeline: string, wanted: string): Block | null {
  const found = store.chain(pipeline).filter((block) => (wanted.startsWith("0x") ? block.hash === wanted : String(block.number) === wanted));
  return found.filter((block) => block.state !== "replaced").at(-1) ?? found.at(-1) ?? null;
}

export function BlockPage({ pipeline, block: wanted }: { pipeline: string; block: string }) {
  const { value, error } = useLoaded<BlockDetail>(blockPath(pipeline, wanted), ["blocks"], () => known(pipeline, wanted));
  useStore("blocks", "session");
  const live = known(pipeline, wanted);
  useEffect(() => {
    if (live) store.select(live);
  }, [live?.hash]);
  // The events are newer than the answer; an answer that is newer than the last event is rare and repeats itself.
  const block = live ?? value;
  if (!block) return <div class="single"><h1>{pipeline} {wanted}</h1><Failure error={error}><a href={links.pipeline(pipeline)}>All blocks of {pipeline}</a></Failure>{!error && <Empty>The gateway is asked for the block…</Empty>}</div>;
  const neighbours = store.chain(pipeline);
  const at = live ? neighbours.indexOf(live) : -1;
  const open = block.recorded_at === null && block.state !== "replaced";
  return (
    <div class="single">
      <div class="title">
        <h1><a href={links.pipeline(pipeline)}>{pipeline}</a> {block.first !== null && `${count(block.first)}–`}{count(block.number)}</h1>
        <State of={block.state} />
        <span class="title-links">
          {at > 0 && <a href={links.block(pipeline, address(neighbours[at - 1]))}>← {count(neighbours[at - 1].number)}</a>}
          {at >= 0 && at < neighbours.length - 1 && <a href={links.block(pipeline, address(neighbours[at + 1]))}>{count(neighbours[at + 1].number)} →</a>}
          {value && webLink(value.trace_url) && <a href={webLink(value.trace_url)!} target="_blank" rel="noreferrer noopener">trace in Jaeger ↗</a>}
          {store.mayOperate() && open && <CancelButton pipeline={pipeline} first={block.first ?? block.number} last={block.number} />}
        </span>
      </div>
      <p class="waits"><Said text={block.waits_for} /></p>
      <Failure error={error} />
      <Facts block={block} detail={value} />
      {neighbours.length > 0 && <div class="panel strip-panel"><StripCanvas pipeline={pipeline} /></div>}
      <div class="two">
        <Panel title="Story" class="story">
          {value ? <ol>{value.story.map((sentence, index) => <Sentence key={index} text={sentence} />)}</ol> : <Empty>…</Empty>}
        </Panel>
        <Stages block={block} />
      </div>
      {value && (
        <>
          <Panel title="Spans" aside={<span class="panel-aside">{many(value.spans.length, "span")}</span>}><Waterfall spans={value.spans} over={!open} /></Panel>
          <Attempts attempts={value.attempts_list} />
          <Proofs block={value} proofs={value.proofs} />
          {value.letters.length > 0 && <Panel title="Dead letters"><ul class="letter-list">{value.letters.map((letter) => <OneLetter key={letter.id} letter={letter} whole />)}</ul></Panel>}
        </>
      )}
    </div>
  );
}

/** A sentence may begin with its time offset, which gets a column of its own. */
function Sentence({ text }: { text: string }) {
  const offset = /^(\+[\d.,]+ ?(?:µs|ms|min|s|h|d)\b(?: [\d.,]+ ?(?:µs|ms|min|s|h|d)\b)*)[:,]?\s+/.exec(text);
  return (
    <li>
      <span class="offset">{offset ? offset[1] : ""}</span>
      <span><Said text={offset ? text.slice(offset[0].length) : text} /></span>
    </li>
  );
}

function Facts({ block, detail }: { block: Block; detail: BlockDetail | null }) {
  const { deadline_at: deadline, recorded_at: recorded, range } = block;
  return (
    <dl class="facts">
      <Fact name="hash"><code class="hash">{block.hash}</code></Fact>
      {detail?.parent_hash && <Fact name="parent"><a href={links.block(block.pipeline, detail.parent_hash)}><code class="hash">{detail.parent_hash}</code></a></Fact>}
      <Fact name="announced"><Time at={block.at} /></Fact>
      <Fact name="record">{recorded === null ? "not yet" : <><Time at={recorded} />, after {duration(recorded - block.at)}</>}</Fact>
      {deadline !== null && <Fact name="deadline"><Time at={deadline} />{recorded !== null && <span class={recorded > deadline ? "bad" : "good"}> {recorded > deadline ? `missed by ${duration(recorded - deadline)}` : `met by ${duration(deadline - recorded)}`}</span>}</Fact>}
      <Fact name="transactions">{count(block.transactions)}</Fact>
      <Fact name="gas">{count(block.gas)}</Fact>
      {range && <Fact name="range"><a href={links.block(block.pipeline, range.last)}>{count(range.first)}–{count(range.last)}</a></Fact>}
      <Fact name="attempts">{count(block.attempts)}{block.failures > 0 && <span class="bad">, {many(block.failures, "failure")}</span>}</Fact>
      {block.overhead_us !== null && <Fact name="overhead" title="push0's own time: without proving, verification, transfer, failed attempts and waiting.">{micros(block.overhead_us)}</Fact>}
      {block.reason && <Fact name="reason"><Said text={block.reason} /></Fact>}
    </dl>
  );
}

function Stages({ block }: { block: Block }) {
  return (
    <Panel title="Stages">
      <table class="stages">
        <thead><tr><th scope="col">proof</th><th scope="col">stage</th><th scope="col">kind</th><th scope="col" class="stage-bar">progress</th><th scope="col" class="number">done</th><th scope="col" class="number">running</th><th scope="col" class="number">failed</th></tr></thead>
        <tbody>
          {block.stages.map((stage) => (
            <tr key={`${stage.proof}/${stage.stage}`}>
              <td>{stage.proof}</td>
              <th scope="row">{stage.stage}</th>
              <td class="muted">{stage.kind}</td>
              <td><Bar part={fraction(stage)} label={`${Math.round(fraction(stage) * 100)} % done`} kind={stage.checking ? "checking" : fraction(stage) >= 1 ? "done" : "busy"} /></td>
              <td class="number">{stage.of ? `${stage.done}/${stage.of}` : "–"}</td>
              <td class="number">{stage.running + stage.checking}</td>
              <td class={stage.failed ? "number bad" : "number"}>{stage.failed}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Panel>
  );
}

function Attempts({ attempts }: { attempts: Attempt[] }) {
  const [failedOnly, set] = useState(false);
  const failed = attempts.filter((attempt) => attempt.state === "failed" || attempt.state === "died");
  const shown = failedOnly ? failed : attempts;
  return (
    <Panel title="Attempts" class="attempts" aside={failed.length > 0 && <span class="panel-aside"><label><input type="checkbox" checked={failedOnly} onChange={(event) => set(event.currentTarget.checked)} /> failures only ({failed.length})</label></span>}>
      <div class="scroll" tabIndex={0} role="group" aria-label="Attempts">
        <table>
          <thead><tr><th scope="col">stage</th><th scope="col" class="number">task</th><th scope="col" class="number">attempt</th><th scope="col">state</th><th scope="col">prover</th><th scope="col">begun</th><th scope="col" class="number">proved</th><th scope="col" class="number">transfer</th><th scope="col" class="number">verdict</th></tr></thead>
          <tbody>
            {shown.map((attempt) => (
              <OneAttempt key={attempt.key} attempt={attempt} />
            ))}
          </tbody>
        </table>
      </div>
      {shown.length === 0 && <Empty>No task of this block was released.</Empty>}
    </Panel>
  );
}

function OneAttempt({ attempt }: { attempt: Attempt }) {
  const time = (us: number | null) => (us === null ? "–" : micros(us));
  return (
    <>
      <tr>
        <th scope="row"><span class="muted">{attempt.proof}</span> {attempt.stage}</th>
        <td class="number">{attempt.index}</td>
        <td class="number">{attempt.attempt}{attempt.hedge_of !== null && <span class="muted" title={`a copy of attempt ${attempt.hedge_of}`}> ⧉{attempt.hedge_of}</span>}</td>
        <td><State of={attempt.state} />{attempt.progress !== null && ` ${Math.round(attempt.progress * 100)} %`}</td>
        <td>{attempt.prover ? <a href={links.prover(attempt.prover)}>{attempt.prover}</a> : <span class="muted">{attempt.zkvm}</span>}</td>
        <td>{attempt.started_at === null ? "–" : <Time at={attempt.started_at} />}</td>
        <td class="number">{time(attempt.prove_us)}</td>
        <td class="number">{time(attempt.transfer_us)}</td>
        <td class="number" title={attempt.verifier ?? undefined}>{time(attempt.verify_us)}</td>
      </tr>
      {attempt.message && (
        <tr class="log-row">
          <td colSpan={9}>
            <span class="bad">{attempt.class}</span>
            <pre tabIndex={0}>{attempt.message}</pre>
          </td>
        </tr>
      )}
    </>
  );
}

function Proofs({ block, proofs }: { block: BlockDetail; proofs: Proof[] }) {
  const [said, say] = useState<string | null>(null);
  const save = async (proof: Proof) => {
    say(null);
    try {
      await gateway.download(`${blockPath(block.pipeline, block.number)}/proofs/${encodeURIComponent(proof.type)}`, `${block.pipeline}-${block.number}-${proof.type}.proof`);
    } catch (error) {
      say(error instanceof Refused ? error.message : "The gateway does not answer.");
    }
  };
  return (
    <Panel title="Proofs" class="proofs">
      {said && <p class="said bad" role="alert">{said}</p>}
      {proofs.map((proof) => (
        <article key={proof.type} class="proof">
          <div class="proof-head">
            <h3>{proof.type}</h3>
            <span class="muted">{proof.zkvm}{proof.program_id && <>, program <code>{proof.program_id}</code></>}</span>
            <span class="muted">proved by <a href={links.prover(proof.prover)}>{proof.prover}</a>{proof.verifier && <>, verified by <a href={links.prover(proof.verifier)}>{proof.verifier}</a></>}</span>
            <button type="button" onClick={() => void save(proof)}>Download {bytes(proof.bytes)}</button>
          </div>
          <pre class="hex" tabIndex={0} aria-label="The first bytes of the proof">{spaced(proof.hex_prefix)}…</pre>
        </article>
      ))}
      {proofs.length === 0 && <Empty>No proof of this block is valid yet.</Empty>}
    </Panel>
  );
}

function spaced(hex: string): string {
  return hex.replace(/^0x/, "").replace(/(..)(?=.)/g, "$1 ");
}
