// What the mock deployment consists of: pipelines, zkVMs, provers, and the errors of its programs.

export const PIPELINES = [
  {
    name: "l1",
    policy: "sp1 + zisk, verified, quorum 1, deadline 12 s",
    revision: 4,
    every: 4000,
    deadline: 12_000,
    start: 23_418_706,
    verify: true,
    quorum: 1,
    proofs: [
      {
        type: "segments",
        zkvm: "sp1",
        stages: [
          { name: "split", kind: "split", zkvm: "sp1", time: 350, parts: 6 },
          { name: "prove", kind: "map", zkvm: "sp1", time: 3300 },
          { name: "join", kind: "join", zkvm: "sp1-join", time: 700, arity: 4 },
        ],
      },
      { type: "whole", zkvm: "zisk", stages: [{ name: "prove", kind: "map", zkvm: "zisk", time: 6400 }] },
    ],
  },
  {
    name: "rollup",
    policy: "miden, verified, ranges of 8, oldest first",
    revision: 2,
    every: 2000,
    deadline: null,
    start: 1_204_355,
    verify: true,
    quorum: 1,
    proofs: [
      {
        type: "batch",
        zkvm: "miden",
        stages: [
          { name: "block", kind: "map", zkvm: "miden", time: 4600 },
          { name: "batch", kind: "range", zkvm: "miden", time: 1900, every: 8, arity: 4 },
          { name: "wrap", kind: "map", zkvm: "sp1-join", time: 900 },
        ],
      },
    ],
  },
  {
    name: "devnet",
    policy: "miden, verified, oldest first",
    revision: 1,
    every: 3000,
    deadline: null,
    start: 88_140,
    verify: true,
    quorum: 1,
    proofs: [
      { type: "header", zkvm: "miden", stages: [{ name: "prove", kind: "map", zkvm: "miden", time: 1400 }] },
    ],
  },
];

/** The numbers of provers for a fleet of about `total`, verifiers included. */
export function fleet(total) {
  const shares = { sp1: 0.36, zisk: 0.19, miden: 0.3, "sp1-join": 0.08 };
  const provers = [];
  for (const [zkvm, share] of Object.entries(shares)) {
    const count = Math.max(2, Math.round(total * share));
    for (let index = 0; index < count; index++) {
      provers.push({ id: `${zkvm}-${String(index).padStart(2, "0")}`, zkvm, role: "prover", slots: zkvm === "miden" ? 2 : 1 });
    }
    const verifiers = Math.max(1, Math.round(count / 12));
    for (let index = 0; index < verifiers; index++) {
      provers.push({ id: `${zkvm}-check-${index}`, zkvm, role: "verifier", slots: 2 });
    }
  }
  provers.forEach((prover, index) => {
    prover.host = `node-${String.fromCharCode(97 + (index % 6))}${1 + (Math.floor(index / 6) % 9)}`;
  });
  return provers;
}

export const ERRORS = [
  { class: "out_of_memory", message: "the kernel ended the program: memory.max of 32 GiB was reached\nthread 'main' aborted while committing trace 3 of 7" },
  { class: "program", message: "error: guest exited with code 101\nthread 'main' panicked at 'called `Option::unwrap()` on a `None` value', src/state.rs:214:31\nnote: run with `RUST_BACKTRACE=1`" },
  { class: "timeout", message: "the attempt ran for its whole timeout of 20 s and was ended" },
  { class: "witness", message: "the witness names 412 accounts, the trie holds 411: account 0x7a25…2b1e is missing" },
];

export const HELD_ERROR = "connect 10.0.4.17:8551: connection refused (the proving database does not answer)";

/** The definition of a pipeline, as an operator would have written it. */
export function definition(plan, revision) {
  const lines = [`name = "${plan.name}"`, `policy = "${plan.deadline ? "deadline" : "oldest-first"}"`];
  if (plan.deadline) lines.push(`deadline = "${plan.deadline / 1000}s"`);
  lines.push("", "[source]", 'kind = "ethereum"', 'rpc_url = "http://127.0.0.1:8545"', 'witness = "block"');
  if (plan.proofs.length > 1) lines.push("", "[quorum]", `valid = ${plan.quorum}`, 'rest = "stop"');
  for (const proof of plan.proofs) {
    lines.push("", "[[proof]]", `type = "${proof.type}"`, `zkvm = "${proof.zkvm}"`, 'program_id = "0x00a1"', 'verify = "final"');
    for (const stage of proof.stages) {
      lines.push("", "[[proof.stage]]", `name = "${stage.name}"`, `kind = "${stage.kind}"`);
      if (stage.zkvm !== proof.zkvm) lines.push(`zkvm = "${stage.zkvm}"`);
      if (stage.arity) lines.push(`arity = ${stage.arity}`);
      if (stage.every) lines.push(`every = ${stage.every}`);
      // An older revision was more patient: the page shows the difference.
      lines.push(`timeout = "${revision < plan.revision ? 60 : 20}s"`, `attempts = ${revision < plan.revision - 1 ? 5 : 3}`);
    }
  }
  return lines.join("\n") + "\n";
}
