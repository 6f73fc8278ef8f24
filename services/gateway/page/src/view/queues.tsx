// The queue of each zkVM, and the room in the broker's streams.

import { useEffect } from "preact/hooks";
import type { Zkvm } from "../api";
import { CancelButton } from "./actions";
import { links } from "../route";
import { store, type Topic } from "../store";
import { bytes, count, duration, many } from "../words";
import { Bar, Canvas, Empty, Panel, Time, useStore } from "./parts";

const SECOND: Topic[] = ["second"];
const NEARLY_FULL = 0.8;

export function Queues({ zkvm: wanted }: { zkvm: string | null }) {
  useStore("zkvms");
  useEffect(() => {
    if (wanted !== null) document.getElementById(`zkvm-${wanted}`)?.scrollIntoView({ block: "nearest" });
  }, [wanted]);
  const zkvms = [...store.zkvms.values()].sort((a, b) => a.name.localeCompare(b.name));
  return (
    <Panel title="Queues" class="queues" id="queues">
      <table>
        <thead>
          <tr><th scope="col">zkVM</th><th scope="col">busy</th><th scope="col" class="number">waiting</th><th scope="col" class="wide">last 3 min</th><th scope="col" class="number">oldest</th><th scope="col" class="number">checks</th></tr>
        </thead>
        <tbody>
          {zkvms.map((zkvm) => (
            <Queue key={zkvm.name} zkvm={zkvm} chosen={zkvm.name === wanted} />
          ))}
        </tbody>
      </table>
      {zkvms.length === 0 && <Empty>No prover was heard.</Empty>}
    </Panel>
  );
}

function Queue({ zkvm, chosen }: { zkvm: Zkvm; chosen: boolean }) {
  const { held } = zkvm;
  return (
    <>
      <tr class={`${held ? "is-held" : ""} ${chosen ? "is-chosen" : ""}`} id={`zkvm-${zkvm.name}`}>
        <th scope="row">
          <a href={links.zkvm(zkvm.name)}>{zkvm.name}</a>
        </th>
        <td title={`${many(zkvm.provers, "prover")}, ${many(zkvm.verifiers, "verifier")}`}>
          <Bar part={zkvm.slots ? zkvm.busy / zkvm.slots : 0} label={`${zkvm.busy} of ${zkvm.slots} slots are busy`} kind="busy" />
          <span class="bar-text">{zkvm.busy}/{zkvm.slots}</span>
        </td>
        <td class="number">{count(zkvm.waiting + zkvm.released)}</td>
        <td class="wide"><Spark name={zkvm.name} /></td>
        <td class="number">{zkvm.oldest_wait_ms === null ? "–" : duration(zkvm.oldest_wait_ms)}</td>
        <td class="number">{count(zkvm.checks)}</td>
      </tr>
      {held && (
        <tr class="held-row">
          <td colSpan={6}>
            <span class="state state-held">held</span> No attempt succeeds since <Time at={held.since} />: {many(held.failures, "failure")}
            {held.error && <>; the last error: <q>{held.error}</q></>}. {held.task ? <>Only {held.task} fails, and other tasks go on.</> : <>The dispatcher releases one probe at a time.</>}
            <HeldBlocks />
          </td>
        </tr>
      )}
    </>
  );
}

/** The first block of each pipeline that a held queue stops. */
function HeldBlocks() {
  useStore("blocks", "session");
  const first = [...store.pipelines.keys()].map((name) => store.chain(name).find((block) => block.state === "held")).filter((block) => block !== undefined);
  if (first.length === 0) return null;
  return (
    <span class="held-blocks">
      Held:
      {first.map((block) => (
        <span key={block.pipeline}>
          <a href={links.block(block.pipeline, block.number)}>{block.pipeline} {count(block.number)}</a>{" "}
          {store.mayOperate() && <CancelButton pipeline={block.pipeline} first={block.first ?? block.number} last={block.number} />}
        </span>
      ))}
    </span>
  );
}

function Spark({ name }: { name: string }) {
  return (
    <Canvas
      class="spark"
      topics={SECOND}
      label={`Waiting tasks of ${name} over the last minutes`}
      draw={(pen, width, height, palette) => {
        const samples = store.queues.get(name) ?? [];
        const most = Math.max(4, ...samples);
        pen.fillStyle = palette.line;
        pen.fillRect(0, height - 1, width, 1);
        pen.fillStyle = palette.muted;
        samples.forEach((value, index) => {
          const tall = (value / most) * (height - 2);
          const x = width - ((samples.length - index) * width) / 180;
          pen.fillRect(x, height - 1 - tall, Math.max(1, width / 180), tall);
        });
      }}
    />
  );
}

export function Streams() {
  useStore("streams");
  return (
    <Panel title="Room in the broker" class="streams">
      <ul>
        {store.streams.map((stream) => {
          const part = stream.bytes_max > 0 ? stream.bytes / stream.bytes_max : 0;
          return (
            <li key={stream.name}>
              <span class="stream-name">{stream.name.replace(/^PUSH0_|^KV_push0_/, "")}</span>
              <Bar part={part} label={`${stream.name} is ${Math.round(part * 100)} % full`} kind={part > NEARLY_FULL ? "full" : ""} />
              <span class="number">{Math.round(part * 100)} %</span>
              <span class="number muted">{bytes(stream.bytes)}</span>
            </li>
          );
        })}
      </ul>
      {store.streams.length === 0 && <Empty>The broker told no stream.</Empty>}
    </Panel>
  );
}
