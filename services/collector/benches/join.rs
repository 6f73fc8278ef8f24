//! Cost of taking in the results of a wide stage and opening its join, in the collector's core.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says why")]

use divan::{AllocProfiler, Bencher};
use push0_collector::{
    decide::{Collector, Step, Told},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Payloads, Timestamp,
    message::{BlockContext, BlockFacts, Outcome, TaskHeader, TaskResult},
    pipeline::Pipeline,
    task::StageKey,
    trace::TraceContext,
};
use std::{collections::BTreeMap, sync::Arc};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const PIPELINE: &str = "name = \"demo\"\nsource = { kind = \"external\" }\n\
    [[proof]]\ntype = \"main\"\nzkvm = \"mock\"\nverify = \"off\"\n\
    [[proof.stage]]\nname = \"split\"\nkind = \"split\"\ntimeout = \"10s\"\n\
    [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"10s\"\n\
    [[proof.stage]]\nname = \"join\"\nkind = \"join\"\ntimeout = \"10s\"\n";

fn main() {
    divan::main();
}

fn result(pipeline: &Pipeline, index: u32, of: u32) -> TaskResult {
    let proof = &pipeline.proofs[0];
    // The stage after the split.
    let stage = &proof.stages[1];
    let key = StageKey {
        pipeline: pipeline.name.clone(),
        block: BlockRef {
            number: 7,
            hash: BlockHash([7; 32]),
        },
        first: None,
        proof_type: proof.proof_type.clone(),
        stage: stage.name.clone(),
    };
    TaskResult {
        header: TaskHeader {
            id: key.task(index),
            attempt: 1,
            hedge_of: None,
            zkvm: stage.zkvm.clone(),
            context: BlockContext {
                revision: 1,
                parent_hash: BlockHash::default(),
                announcement: Announcement(1),
                stored_at: Timestamp(1),
                first_announcement: None,
                deadline_at: None,
                amends: false,
                facts: BlockFacts::default(),
            },
            kind: stage.kind,
            of,
            timeout_ms: 10_000,
            hedge_after_ms: None,
            attempts_max: stage.attempts,
            give_up_at: None,
            check: false,
            program_id: None,
            path: push0_domain::CriticalPath::default(),
            seal: push0_domain::seal::Seal::default(),
        },
        prover: "p-1".parse().unwrap(),
        outcome: Outcome::Completed {
            outputs: Payloads::one(Payload::Inline(vec![7; 110])),
        },
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

/// Each result is handled as it comes, and the collector advances each time, as in the service.
#[divan::bench(args = [10, 1_000, 10_000], sample_count = 20)]
fn join(bencher: Bencher<'_, '_>, of: u32) {
    let pipeline = Arc::new(Pipeline::from_toml("bench.toml", PIPELINE).unwrap());
    let results: Vec<TaskResult> = (0..of).map(|index| result(&pipeline, index, of)).collect();
    bencher
        .counter(divan::counter::ItemsCount::new(of))
        .with_inputs(|| {
            let core = Collector::new(pipeline.name.clone(), 7, BTreeMap::new());
            (core, results.clone())
        })
        .bench_local_values(|(mut core, results)| {
            let mut opened = 0;
            for (at, result) in results.into_iter().enumerate() {
                let (handle, now) = (Handle(at as u64 + 1), Timestamp(1_000_000));
                let trace = TraceContext::default();
                core.result(handle, result, Told::default(), &trace, &pipeline);
                let steps = core.advance(now, |_| Some(pipeline.clone()));
                opened += steps.iter().filter(|step| matches!(step, Step::Open(..))).count();
            }
            assert_eq!(opened, 1, "the join is opened once");
            core
        });
}
