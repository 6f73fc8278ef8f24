// The page of one prover: its state, what it holds, what it did.

import type { Prover } from "../api";
import * as lanes from "../draw/lanes";
import { links } from "../route";
import { proverKey, store, type Topic } from "../store";
import { OUTCOMES, PROVER_STATES, count, duration } from "../words";
import { since } from "./lanes";
import { Bar, Canvas, Empty, Fact, Panel, State, Time, useStore } from "./parts";

const TOPICS: Topic[] = ["provers", "second"];
const WINDOW_MS = 600_000;

export function ProverPage({ id }: { id: string }) {
  useStore("provers", "second");
  const found = [...store.provers.values()].filter((prover) => prover.id === id);
  if (found.length === 0) {
    return (
      <div class="single">
        <h1>{id}</h1>
        <Empty>{store.loaded ? "No prover or verifier of this id is known. It may have left long ago." : "Waiting for the gateway…"}</Empty>
      </div>
    );
  }
  return <>{found.map((prover) => <One key={proverKey(prover)} prover={prover} />)}</>;
}

function One({ prover }: { prover: Prover }) {
  const told = store.toldAt.get(proverKey(prover)) ?? store.now();
  const recent = [...prover.recent].sort((a, b) => b.ended_at - a.ended_at);
  const all = prover.done + prover.failed;
  return (
    <div class="single">
      <div class="title">
        <h1>{prover.id}</h1>
        <State of={prover.state} />
        <span class="muted">{since(prover)}</span>
      </div>
      <p class="waits">{PROVER_STATES[prover.state]}</p>
      <dl class="facts">
        <Fact name="role">{prover.role}</Fact>
        <Fact name="zkVM"><a href={links.zkvm(prover.zkvm)}>{prover.zkvm}</a></Fact>
        <Fact name="machine">{prover.host ?? "unknown"}</Fact>
        <Fact name="slots">{count(prover.slots)}</Fact>
        {prover.state !== "active" && <Fact name="heard"><Time at={prover.heard_at} /></Fact>}
        {prover.quarantined_until !== null && <Fact name="quarantined until"><Time at={prover.quarantined_until} /></Fact>}
        <Fact name="done">{count(prover.done)}</Fact>
        <Fact name="failed"><span class={prover.failed ? "bad" : ""}>{count(prover.failed)}{all > 0 && prover.failed > 0 && ` (${Math.round((100 * prover.failed) / all)} %)`}</span></Fact>
        <Fact name="p50">{prover.p50_ms === null ? "–" : duration(prover.p50_ms)}</Fact>
      </dl>
      <Panel title="Last 10 minutes" class="own-lane">
        <Canvas
          topics={TOPICS}
          label={`Attempts of ${prover.id} over the last ten minutes`}
          class="lane-canvas"
          draw={(pen, width, height, palette) => {
            const now = store.now();
            lanes.minutes(pen, palette, width, height, now - WINDOW_MS, now);
            pen.scale(1, height / lanes.ROW);
            lanes.lane(pen, palette, store.provers.get(proverKey(prover)) ?? prover, store.toldAt.get(proverKey(prover)) ?? now, 0, width, now - WINDOW_MS, now);
          }}
        />
      </Panel>
      <Panel title="Holds now">
        <ul class="holds">
          {prover.held.map((attempt) => (
            <li key={attempt.key}>
              <a href={links.block(attempt.pipeline, attempt.block)}>{attempt.pipeline} {count(attempt.block)}</a>
              <span>stage {attempt.stage}</span>
              {attempt.running_ms === null ? <span class="muted">waits for a slot</span> : <span>runs for {duration(attempt.running_ms + store.now() - told)}</span>}
              {attempt.progress !== null && <Bar part={attempt.progress} label={`${Math.round(attempt.progress * 100)} % done`} kind="busy" />}
            </li>
          ))}
        </ul>
        {prover.held.length === 0 && <Empty>The prover holds no delivery.</Empty>}
      </Panel>
      <Panel title="Last attempts">
        <div class="scroll" tabIndex={0} role="group" aria-label="Last attempts">
          <table>
            <thead><tr><th scope="col">block</th><th scope="col">stage</th><th scope="col">outcome</th><th scope="col">ended</th><th scope="col" class="number">took</th></tr></thead>
            <tbody>
              {recent.map((attempt, index) => (
                <tr key={`${attempt.started_at}/${index}`}>
                  <th scope="row"><a href={links.block(attempt.pipeline, attempt.block)}>{attempt.pipeline} {count(attempt.block)}</a></th>
                  <td>{attempt.stage}</td>
                  <td><span class={`state state-${attempt.outcome}`}>{OUTCOMES[attempt.outcome]}</span></td>
                  <td><Time at={attempt.ended_at} /></td>
                  <td class="number">{duration(attempt.ended_at - attempt.started_at)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        {recent.length === 0 && <Empty>No attempt has ended since the gateway started.</Empty>}
      </Panel>
    </div>
  );
}
