//! A collector, the results it is told, and the messages it acknowledges.

use proptest::{collection::vec, prelude::*, sample::Index};
use push0_collector::{
    decide::{Collector, Opening, Step, Told},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Payloads, ProverId, Timestamp,
    message::{BlockContext, BlockFacts, Emission, Failure, FailureClass, Outcome, TaskHeader, TaskResult},
    pipeline::Pipeline,
    task::StageKey,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub(crate) const ATTEMPTS: u32 = 3;
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

pub(crate) fn stage(name: &str, kind: &str, more: &str) -> String {
    format!(
        "[[proof.stage]]\nname = \"{name}\"\nkind = \"{kind}\"\ntimeout = \"10s\"\nattempts = {ATTEMPTS}\n{more}\n"
    )
}

/// A pipeline of `proofs` proof types `type-0`, `type-1` and so on with these stages, of which
/// `quorum` are wanted.
pub(crate) fn pipeline(proofs: usize, quorum: usize, stages: &[String]) -> Arc<Pipeline> {
    let proof = |at| {
        format!(
            "[[proof]]\ntype = \"type-{at}\"\nzkvm = \"mock\"\nverify = \"off\"\n{}",
            stages.concat()
        )
    };
    let proofs: String = (0..proofs).map(proof).collect();
    let head = format!("name = \"demo\"\n[source]\nkind = \"external\"\n[quorum]\nvalid = {quorum}\n");
    Arc::new(Pipeline::from_toml("test.toml", &(head + &proofs)).expect("valid"))
}

pub(crate) fn single(proofs: usize, quorum: usize) -> Arc<Pipeline> {
    pipeline(proofs, quorum, &[stage("prove", "map", "")])
}

pub(crate) fn number(index: u32) -> Payload {
    Payload::Inline(index.to_le_bytes().to_vec())
}

pub(crate) fn completed(index: u32) -> Outcome {
    let outputs = Payloads::one(number(index));
    Outcome::Completed { outputs }
}

pub(crate) fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed(Failure::new(class, "as drawn"))
}

/// A collector whose next block is 7, and the messages it has acknowledged.
pub(crate) struct Session {
    pub(crate) core: Collector,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) handles: u64,
    pub(crate) acknowledged: BTreeSet<Handle>,
    /// Further changes to the headers of attempts.
    pub(crate) adapt: fn(&mut TaskHeader),
    pub(crate) stored_at: Timestamp,
    /// The prover of all attempts; `None` means that each has a prover of its own.
    pub(crate) prover: Option<&'static str>,
    /// Whether the record of the block is dead.
    pub(crate) amends: bool,
}

/// The end of one attempt.
#[derive(Clone)]
pub(crate) struct Ended {
    pub(crate) proof: usize,
    pub(crate) stage: &'static str,
    pub(crate) index: u32,
    pub(crate) of: u32,
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
}

impl Session {
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self {
            core: Collector::new(pipeline.name.clone(), 7, BTreeMap::new()),
            pipeline,
            handles: 0,
            acknowledged: BTreeSet::new(),
            adapt: |_| {},
            stored_at: Timestamp::default(),
            prover: None,
            amends: false,
        }
    }

    /// Handles a result. Returns the steps that follow, except acknowledgements.
    pub(crate) fn tell(&mut self, ended: Ended) -> Vec<Step> {
        self.handles += 1;
        self.deliver(Handle(self.handles), ended)
    }

    /// Handles a failure, and then the completion of another block by the same prover, which shows that the
    /// failure is the task's own.
    pub(crate) fn tell_own(&mut self, ended: Ended) -> Vec<Step> {
        self.stored_at = self.stored_at.plus(Duration::from_secs(1));
        let steps = self.tell(ended.clone());
        self.stored_at = self.stored_at.plus(Duration::from_secs(1));
        self.handles += 1;
        let (handle, others) = (Handle(self.handles), self.handles + 100);
        let completed = Ended {
            outcome: completed(0),
            ..ended
        };
        assert_eq!(self.deliver_of(handle, others, completed), []);
        steps
    }

    /// Handles the word of two provers that no attempt can succeed, and returns the steps of the second one.
    pub(crate) fn tell_fatal(&mut self, ended: Ended) -> Vec<Step> {
        let tell = |attempt| {
            self.tell(Ended {
                attempt,
                outcome: failed(FailureClass::Fatal),
                ..ended.clone()
            })
        };
        (1..=2).map(tell).last().unwrap_or_default()
    }

    pub(crate) fn deliver(&mut self, handle: Handle, ended: Ended) -> Vec<Step> {
        self.deliver_of(handle, 7, ended)
    }

    pub(crate) fn deliver_of(&mut self, handle: Handle, number_of_block: u64, ended: Ended) -> Vec<Step> {
        let result = self.result(number_of_block, ended);
        let pipeline = self.pipeline.clone();
        let trace = TraceContext::default();
        let told = Told {
            stored_at: self.stored_at,
            amends: self.amends,
            ..Told::default()
        };
        let mut steps = self.core.result(handle, result, told, &trace, &pipeline);
        steps.extend(self.core.advance(NOW, |_| Some(pipeline.clone())));
        self.acknowledge(&steps);
        steps.retain(|step| !matches!(step, Step::Ack(_)));
        steps
    }

    /// Returns a result of a block.
    pub(crate) fn result(&self, number_of_block: u64, ended: Ended) -> TaskResult {
        let spec = &self.pipeline.proofs[ended.proof];
        let (_, stage) = spec.stage(&ended.stage.parse().expect("valid")).expect("a stage");
        let block = BlockRef {
            number: number_of_block,
            hash: BlockHash([number_of_block as u8; 32]),
        };
        let key = StageKey {
            pipeline: self.pipeline.name.clone(),
            block,
            first: None,
            proof_type: spec.proof_type.clone(),
            stage: stage.name.clone(),
        };
        let mut header = TaskHeader {
            id: key.task(ended.index),
            attempt: ended.attempt,
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
            of: ended.of,
            timeout_ms: 10_000,
            hedge_after_ms: None,
            attempts_max: stage.attempts,
            give_up_at: None,
            check: false,
            program_id: None,
            path: push0_domain::CriticalPath::default(),
            seal: push0_domain::seal::Seal::default(),
        };
        (self.adapt)(&mut header);
        let own = || format!("p-{}", ended.attempt);
        let prover = self.prover.map_or_else(own, ToOwned::to_owned);
        TaskResult {
            header,
            prover: ProverId::new(&prover).expect("valid"),
            outcome: ended.outcome,
            inputs: Some(Payloads::one(number(ended.index))),
            prove_us: 1,
            transfer_us: 0,
            waited_us: 0,
            signature: None,
            verdict: None,
        }
    }

    /// Checks that each message is acknowledged once.
    pub(crate) fn acknowledge(&mut self, steps: &[Step]) {
        for step in steps {
            let (Step::Ack(handles) | Step::Open(_, handles) | Step::Emit(_, _, handles, _)) = step else {
                continue;
            };
            for handle in handles {
                assert!(self.acknowledged.insert(*handle), "{handle:?} twice");
            }
        }
    }
}

pub(crate) fn opening(step: &Step) -> &Opening {
    match step {
        Step::Open(opening, _) => opening,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn record(step: &Step) -> &Emission {
    match step {
        Step::Emit(record, ..) => record,
        other => panic!("{other:?}"),
    }
}

/// All of `0..count` in any order, with some of them again anywhere behind.
pub(crate) fn arrivals(count: std::ops::Range<u32>) -> impl Strategy<Value = (u32, Vec<u32>)> {
    let again = vec((any::<Index>(), any::<Index>()), 0..20);
    count
        .prop_flat_map(move |of| (Just((0..of).collect::<Vec<u32>>()).prop_shuffle(), again.clone()))
        .prop_map(|(mut order, again)| {
            let of = order.len() as u32;
            for (which, to) in again {
                let from = which.index(order.len());
                let to = from + 1 + to.index(order.len() - from);
                order.insert(to, order[from]);
            }
            (of, order)
        })
}

/// How an attempt at the only task of the only proof ended.
pub(crate) fn attempt(attempt: u32, outcome: Outcome) -> Ended {
    let (proof, stage, index, of) = (0, "prove", 0, 1);
    Ended {
        proof,
        stage,
        index,
        of,
        attempt,
        outcome,
    }
}
