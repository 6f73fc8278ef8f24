// The first line: whether all is well, else what is wrong, since when, and where to look.

import type { Problem } from "../api";
import { ownLink } from "../route";
import { store } from "../store";
import { count, duration, many, minute } from "../words";
import { Said, Time, useStore } from "./parts";

const SHOWN = 4;

export function VerdictLine() {
  useStore("verdict", "link", "second");
  const { link, verdict } = store;
  useTitle();
  if (link.state === "lost" || (link.state !== "live" && store.loaded)) return <Lost />;
  if (!verdict) return <section class="verdict is-unknown" aria-label="Verdict"><strong>Waiting for the gateway…</strong></section>;
  if (verdict.ok) return <Well remarks={verdict.remarks} />;
  const { problems, remarks } = verdict;
  return (
    <section class="verdict is-bad" aria-label="Verdict">
      <Told text={`Not OK: ${many(problems.length, "problem")}`} />
      <strong>Not OK</strong>
      <ul>
        {problems.slice(0, SHOWN).map((problem) => <Line key={problem.text} problem={problem} />)}
        {problems.length > SHOWN && <li class="since">and {many(problems.length - SHOWN, "more problem")}</li>}
        <Remarks remarks={remarks} />
      </ul>
    </section>
  );
}

function Line({ problem, kind }: { problem: Problem; kind?: string }) {
  const address = ownLink(problem.link);
  const now = store.now();
  return (
    <li class={kind}>
      {address ? <a href={address}><Said text={problem.text} /></a> : <Said text={problem.text} />}
      {problem.since !== null && <span class="since"> Since {minute(problem.since, now)} ({duration(now - problem.since)}).</span>}
    </li>
  );
}

function Remarks({ remarks }: { remarks: Problem[] }) {
  return (
    <>
      {remarks.slice(0, SHOWN).map((remark) => <Line key={remark.text} problem={remark} kind="remark" />)}
      {remarks.length > SHOWN && <li class="remark">and {many(remarks.length - SHOWN, "more remark")}</li>}
    </>
  );
}

function Well({ remarks }: { remarks: Problem[] }) {
  const provers = [...store.provers.values()];
  const heard = provers.filter((prover) => prover.state === "active" || prover.state === "draining").length;
  const lag = [...store.pipelines.values()].reduce((sum, pipeline) => sum + (pipeline.lag ?? 0), 0);
  return (
    <section class="verdict is-ok" aria-label="Verdict">
      <Told text="OK" />
      <strong>OK</strong>
      <ul>
        <li>
          {many(store.pipelines.size, "pipeline")} {store.pipelines.size === 1 ? "emits" : "emit"}, {many(lag, "block")} under way, {count(heard)} of {many(provers.length, "process", "processes")} heard, nothing held.
          {store.okSince !== null && <span class="since"> As seen here since {minute(store.okSince, store.now())}.</span>}
        </li>
        <Remarks remarks={remarks} />
      </ul>
    </section>
  );
}

/** Without a connection nothing is OK: what is shown is the past, and the page says of which moment. */
function Lost() {
  const { link } = store;
  const since = link.state === "lost" ? link.since : null;
  return (
    <section class="verdict is-unknown" aria-label="Verdict">
      <Told text="No connection to the gateway" />
      <strong>No connection</strong>
      <p>
        {link.state === "lost" ? link.why : ""} {since !== null && store.loaded && <>What follows is the state of <Time at={since} />.</>}
        {link.state === "lost" && <span class="since"> The next try is {link.next - Date.now() > 1000 ? `in ${duration(link.next - Date.now())}` : "now"}.</span>}
      </p>
    </section>
  );
}

/** What a screen reader tells of a change: without the times and counts that change each second. */
function Told({ text }: { text: string }) {
  return <span class="hidden" role="status">{text}</span>;
}

function useTitle(): void {
  const { link, verdict } = store;
  const word = link.state !== "live" ? "no connection" : verdict ? (verdict.ok ? "OK" : `NOT OK (${verdict.problems.length})`) : "…";
  if (document.title !== `${word} · push0`) document.title = `${word} · push0`;
}
