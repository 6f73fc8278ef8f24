// The mock deployment as the gateway's interface shows it.

import { definition } from "./plan.mjs";

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;

export function blockState(block, world) {
  if (block.ended) return block.ended;
  if (block.recorded || block.verified) return "proved";
  const attempts = block.attempts.filter((entry) => entry.state === "running");
  if (attempts.length) return "proving";
  if (block.proofs.some((proof) => proof.checking)) return "verifying";
  const queued = block.attempts.find((entry) => entry.state === "released");
  if (queued && world.zkvms.get(queued.stage.plan.zkvm).held) return "held";
  if (block.range && block.proofs[0].stages[0].ended) return "joining";
  return "waiting";
}

function waitsFor(block, state, world) {
  const { now } = world;
  if (block.reason) return `The block ended as ${block.ended}: ${block.reason}.`;
  if (block.recorded) return `The record was stored ${seconds(block.recorded - block.at)} after the announcement.`;
  if (state === "proved") {
    const before = block.pipeline.blocks.find((other) => other.number >= block.pipeline.next && other.ended !== "replaced");
    return `The proof is valid; the record waits for block ${before?.number ?? block.pipeline.next}.`;
  }
  const running = block.attempts.filter((entry) => entry.state === "running").at(-1);
  if (running) {
    const late = world.provers.find((prover) => prover.id === running.prover)?.state === "suspected" ? ", which is silent," : "";
    return `Proof \`${running.proof.plan.type}\`: attempt ${running.attempt} of stage \`${running.stage.plan.name}\` runs on ${running.prover}${late} for ${seconds(now - running.started)}.`;
  }
  const checking = block.proofs.find((proof) => proof.checking);
  if (checking) return `Proof \`${checking.plan.type}\` waits for a verdict of a verifier of ${checking.plan.zkvm}.`;
  const queued = block.attempts.find((entry) => entry.state === "released");
  if (queued) {
    const zkvm = world.zkvms.get(queued.stage.plan.zkvm);
    if (zkvm.held) return `Stage \`${queued.stage.plan.name}\` waits: the queue of ${zkvm.name} is held, its last error is: ${zkvm.held.error}.`;
    return `Stage \`${queued.stage.plan.name}\` waits for a free prover of ${zkvm.name}: ${zkvm.queue.length} tasks wait.`;
  }
  if (block.range) {
    const last = block.pipeline.blocks.find((other) => other.number === block.range.last && !other.ended);
    const stuck = last?.attempts.find((entry) => entry.state === "released");
    if (stuck && world.zkvms.get(stuck.stage.plan.zkvm).held) return `The range ${block.range.first}..${block.range.last} waits: the queue of ${stuck.stage.plan.zkvm} is held.`;
  }
  if (block.range) return `The block waits for the other blocks of its range ${block.range.first}..${block.range.last}.`;
  return "The block waits for its next stage.";
}

function stages(block, world) {
  return block.proofs.flatMap((proof) =>
    proof.stages.map((stage) => {
      const running = block.attempts.filter((entry) => entry.stage === stage && entry.state === "running");
      const checking = proof.checking?.entry.stage === stage ? 1 : 0;
      const parts = running.reduce((sum, entry) => sum + Math.min(0.99, (world.now - entry.started) / entry.takes), 0);
      return {
        proof: proof.plan.type, stage: stage.plan.name, kind: stage.plan.kind, of: stage.of, done: stage.done - checking, running: running.length,
        failed: stage.failed, checking,
        // As with many adapters, those of zisk tell no progress.
        progress: running.length && stage.plan.zkvm !== "zisk" ? parts / running.length : null,
      };
    }),
  );
}

export function block(world, block) {
  // The last block of a range stands for the range, once the range is one.
  const whole = block.range?.last === block.number && block.proofs[0].stages.some((stage) => stage.plan.kind === "range" && stage.opened);
  const state = blockState(block, world);
  return {
    pipeline: block.pipeline.plan.name, number: block.number, hash: block.hash, first: whole ? block.range.first : null, at: block.at, deadline_at: block.deadline,
    transactions: block.transactions, gas: block.gas, state, waits_for: waitsFor(block, state, world), recorded_at: block.recorded,
    reason: block.reason, range: whole ? null : block.range, stages: stages(block, world), attempts: block.attempts.filter((entry) => entry.started).length,
    failures: block.failures, prover: block.prover, proof_bytes: block.proofBytes, overhead_us: block.overhead,
  };
}

export function pipeline(world, one) {
  const waiting = one.blocks.filter((other) => !other.recorded && other.ended !== "replaced").length;
  return {
    name: one.plan.name, revision: one.plan.revision, policy: one.plan.policy, next: one.next, head: one.head, lag: waiting,
    stalled_since: one.stalledSince, deadline_ms: one.plan.deadline, latencies_ms: one.latencies, proved_per_min: one.provedAt.length,
    dead: one.dead, abandoned: one.abandoned,
  };
}

export function zkvm(world, one) {
  const own = world.provers.filter((prover) => prover.zkvm === one.name && prover.state !== "gone");
  const provers = own.filter((prover) => prover.role === "prover");
  const ready = one.queue.filter((entry) => entry.ready <= world.now);
  return {
    name: one.name, provers: provers.length, verifiers: own.length - provers.length, slots: provers.reduce((sum, prover) => sum + prover.slots, 0),
    busy: provers.reduce((sum, prover) => sum + prover.running.length, 0), waiting: one.queue.length, released: one.probe ? 1 : 0,
    checks: world.pipelines.flatMap((other) => other.blocks).filter((other) => !other.recorded && !other.ended).flatMap((other) => other.proofs).filter((proof) => proof.checking && proof.plan.zkvm === one.name).length,
    oldest_wait_ms: ready.length ? world.now - Math.min(...ready.map((entry) => entry.ready)) : null,
    held: one.held ? { since: one.held.since, failures: one.held.failures, error: one.held.error, task: null } : null,
  };
}

export function prover(world, one) {
  const times = [...one.times].sort((a, b) => a - b);
  return {
    id: one.id, zkvm: one.zkvm, role: one.role, slots: one.slots, state: one.state, host: one.host, heard_at: one.heard,
    quarantined_until: one.until, done: one.done, failed: one.failed, p50_ms: times.length ? Math.round(times[times.length >> 1]) : null,
    held: one.running.map((entry) => ({
      key: entry.key, pipeline: entry.block.pipeline.plan.name, block: entry.block.number, stage: entry.stage.plan.name,
      running_ms: Math.round(world.now - entry.started), progress: Math.min(0.99, (world.now - entry.started) / entry.takes),
    })),
    recent: one.recent,
  };
}

export function letter(world, one) {
  return {
    id: one.id, pipeline: one.block.pipeline.plan.name, at: one.at, kind: "task", block: one.block.number, hash: one.block.hash,
    stage: one.stage.plan.name, reason: one.reason, attempts: one.attempts, can_retry: true,
  };
}

export function verdict(world) {
  const problems = [];
  const remarks = [];
  for (const { name, held } of world.zkvms.values()) {
    if (held) problems.push({ since: held.since, text: `The queue of ${name} is held: no attempt succeeds, ${held.failures} failed. The last error: ${held.error}.`, link: `/zkvms/${name}` });
  }
  for (const one of world.pipelines) {
    if (one.stalledSince) problems.push({ since: one.stalledSince, text: `Pipeline ${one.plan.name} has emitted nothing although block ${one.next} waits.`, link: `/pipelines/${one.plan.name}/blocks/${one.next}` });
  }
  if (world.letters.length) {
    const [newest] = world.letters;
    const rest = world.letters.length > 1 ? `, and ${world.letters.length - 1} more are kept` : "";
    remarks.push({ since: world.letters.at(-1).at, text: `Block ${newest.block.number} of ${newest.block.pipeline.plan.name} is a dead letter${rest}.`, link: "/dead-letters" });
  }
  const quarantined = world.provers.filter((one) => one.state === "quarantined");
  if (quarantined.length) remarks.push({ since: null, text: `${quarantined.length === 1 ? "1 prover is" : `${quarantined.length} provers are`} quarantined: ${quarantined.slice(0, 3).map((one) => one.id).join(", ")}.`, link: `/provers/${quarantined[0].id}` });
  return { ok: problems.length === 0, problems, remarks };
}

export function streams(world) {
  const blocks = world.pipelines.flatMap((one) => one.blocks);
  const count = (test) => blocks.filter(test).length;
  const waiting = [...world.zkvms.values()].reduce((sum, one) => sum + one.queue.length, 0);
  const MIB = 1024 * 1024;
  return [
    { name: "PUSH0_BLOCKS", messages: count((one) => !one.recorded), bytes: count((one) => !one.recorded) * 912, bytes_max: 256 * MIB },
    { name: "PUSH0_STAGES", messages: waiting, bytes: waiting * 1410, bytes_max: 256 * MIB },
    { name: "PUSH0_TASKS", messages: world.provers.reduce((sum, one) => sum + one.running.length, 0), bytes: 61_244, bytes_max: 512 * MIB },
    { name: "PUSH0_RESULTS", messages: 41, bytes: 192 * MIB, bytes_max: 256 * MIB },
    { name: "PUSH0_PROOFS", messages: 184_112, bytes: 118 * MIB, bytes_max: 1024 * MIB },
  ];
}

export function snapshot(world, id) {
  return {
    id, at: world.now, verdict: verdict(world), pipelines: world.pipelines.map((one) => pipeline(world, one)),
    zkvms: [...world.zkvms.values()].map((one) => zkvm(world, one)), provers: world.provers.map((one) => prover(world, one)),
    blocks: world.pipelines.flatMap((one) => one.blocks).sort((a, b) => a.at - b.at).slice(-1000).map((one) => block(world, one)),
    streams: streams(world),
  };
}

function spans(one, now) {
  const found = [{ id: "block", parent: null, name: `block ${one.number}`, kind: "block", start: one.at, end: one.recorded, prover: null, outcome: one.recorded ? (one.ended ?? "proved") : null, note: null }];
  for (const proof of one.proofs) {
    const id = proof.plan.type;
    const last = proof.stages.at(-1).ended;
    found.push({ id, parent: "block", name: `proof ${id}`, kind: "proof", start: one.at, end: last, prover: null, outcome: null, note: null });
    for (const stage of proof.stages.filter((other) => other.opened)) {
      const place = `${id}.${stage.plan.name}`;
      found.push({ id: place, parent: id, name: `stage ${stage.plan.name}`, kind: "stage", start: stage.opened, end: stage.ended, prover: null, outcome: null, note: `${stage.done} of ${stage.of} tasks done` });
      for (const entry of one.attempts.filter((other) => other.stage === stage)) {
        const end = entry.ended ?? null;
        if ((entry.started ?? now) - entry.released > 20) found.push({ id: entry.key + ".wait", parent: place, name: "waits for a prover", kind: "wait", start: entry.released, end: entry.started ?? null, prover: null, outcome: null, note: null });
        if (!entry.started) continue;
        found.push({ id: entry.key, parent: place, name: `task ${entry.index}, attempt ${entry.attempt}`, kind: "attempt", start: entry.started, end, prover: entry.prover, outcome: entry.ended ? entry.state : null, note: entry.class });
        if (entry.checked) found.push({ id: entry.key + ".verify", parent: place, name: "verdict", kind: "verify", start: entry.ended, end: entry.checked, prover: entry.verifier, outcome: "valid", note: null });
      }
    }
  }
  const ready = Math.max(0, ...one.attempts.map((entry) => entry.checked ?? 0));
  if (one.recorded && ready && one.recorded - ready > 30) found.push({ id: "order", parent: "block", name: "waits for its turn", kind: "order", start: ready, end: one.recorded, prover: null, outcome: null, note: null });
  return found;
}

function story(one, world) {
  const told = [[one.at, `The ingester announced the block with ${one.transactions} transactions.`]];
  for (const proof of one.proofs) {
    for (const stage of proof.stages) {
      if (stage.opened) told.push([stage.opened, `Stage \`${stage.plan.name}\` of proof \`${proof.plan.type}\` opened with ${stage.of} ${stage.of === 1 ? "task" : "tasks"}.`]);
      if (stage.ended) told.push([stage.ended, `Stage \`${stage.plan.name}\` was done.`]);
    }
  }
  for (const entry of one.attempts) {
    if (entry.message) told.push([entry.ended, `Attempt ${entry.attempt} of \`${entry.stage.plan.name}\` ${entry.state} on ${entry.prover}: ${entry.message.split("\n")[0]}.`]);
    if (entry.checked) told.push([entry.checked, `${entry.verifier ?? "A verifier"} found the proof valid.`]);
  }
  if (one.recorded) told.push([one.recorded, one.ended ? `The record was stored: ${one.ended}.` : "The record was stored: proved."]);
  else told.push([world.now, waitsFor(one, blockState(one, world), world)]);
  return told.sort((a, b) => a[0] - b[0]).map(([at, text]) => `+${seconds(at - one.at)} ${text}`);
}

export function detail(world, one, jaeger) {
  const before = one.pipeline.blocks.find((other) => other.number === one.number - 1 && other.ended !== "replaced");
  return {
    ...block(world, one),
    parent_hash: before?.hash ?? "0x" + "0".repeat(64), trace_id: one.trace, trace_url: jaeger ? `${jaeger}/trace/${one.trace}` : null,
    story: story(one, world), spans: spans(one, world.now),
    attempts_list: one.attempts.map((entry) => ({
      key: entry.key, proof: entry.proof.plan.type, stage: entry.stage.plan.name, index: entry.index, attempt: entry.attempt, zkvm: entry.stage.plan.zkvm,
      prover: entry.prover, state: entry.state, hedge_of: entry.hedge, released_at: entry.released, started_at: entry.started, ended_at: entry.ended,
      prove_us: entry.ended && entry.started ? (entry.ended - entry.started) * 1000 : null, transfer_us: entry.ended ? 2140 : null,
      verify_us: entry.checked ? (entry.checked - entry.ended) * 1000 : null, verifier: entry.verifier, class: entry.class, message: entry.message,
      progress: entry.state === "running" ? Math.min(0.99, (world.now - entry.started) / entry.takes) : null,
    })),
    proofs: one.proofs.filter((proof) => proof.bytes).map((proof) => ({
      type: proof.plan.type, zkvm: proof.plan.zkvm, program_id: "0x00a1", prover: one.prover, verifier: one.attempts.findLast((entry) => entry.verifier)?.verifier ?? null,
      bytes: proof.bytes, hex_prefix: "0x7075736830" + one.hash.slice(2, 40),
    })),
    letters: world.letters.filter((other) => other.block === one).map((other) => letter(world, other)),
  };
}

export function pipelineDetail(world, one) {
  const nodes = one.plan.proofs.flatMap((proof) => proof.stages.map((stage) => ({ id: `${proof.type}.${stage.name}`, proof: proof.type, stage: stage.name, zkvm: stage.zkvm, kind: stage.kind, arity: stage.arity ?? null })));
  const edges = nodes.flatMap((node, index) => (nodes[index + 1]?.proof === node.proof ? [{ from: node.id, to: nodes[index + 1].id }] : []));
  const revisions = Array.from({ length: one.plan.revision }, (_, index) => ({ revision: index + 1, at: world.now - (one.plan.revision - index) * 86_400_000 * 3, toml: definition(one.plan, index + 1) }));
  return { ...pipeline(world, one), definition_toml: definition(one.plan, one.plan.revision), graph: { nodes, edges }, revisions: revisions.reverse() };
}
