//! Calls the functions by which readers use a value before any check of the value.

use push0_domain::{
    Payload, Payloads,
    message::{
        BlockEvent, Control, DeadLetter, Emission, EmissionOutcome, Event, HeldQueue, KnownBlock, Lease,
        Outcome, Presence, ResultEvent, StageReady, Task, TaskHeader, TaskResult,
    },
    output::{Output, Reading},
    path::Leg,
    payload::PAYLOADS_MAX,
    pipeline::{Pipeline, Position, Reset},
    report,
    seal_keys::SealKeys,
};
use std::hint::black_box;

/// A value whose methods end for every value that can be read.
pub trait Walk {
    /// Calls the methods. Their results do not matter.
    fn walk(&self) {}
}

impl Walk for BlockEvent {}
impl Walk for Control {}
impl Walk for DeadLetter {}
impl Walk for Event {}
impl Walk for KnownBlock {}
impl Walk for Presence {}
impl Walk for Reset {}
impl Walk for SealKeys {}
impl Walk for Vec<Payload> {}

impl Walk for HeldQueue {
    fn walk(&self) {
        if let Some(task) = &self.task {
            assert!(self.concerns(&task.pipeline, &(task.block.number..=task.block.number)));
            black_box(task.task_in_words());
        }
    }
}

impl Walk for Payloads {
    fn walk(&self) {
        let count = self.count();
        assert!(count <= PAYLOADS_MAX);
        black_box((self.blob_len(), self.inline_len(), self.blobs().count()));
        for index in [0, count / 2, count.saturating_sub(1), count] {
            assert_eq!(self.get(index).is_some(), index < count);
        }
    }
}

impl Walk for TaskHeader {
    fn walk(&self) {
        let stage = &self.id.stage;
        black_box((self.key(), stage.block_key().first(), stage.numbers()));
        black_box((self.attempt_id().to_string(), self.context.first_announcement()));
    }
}

impl Walk for Task {
    fn walk(&self) {
        self.header.walk();
        self.inputs.walk();
        black_box(self.header.seal.binds(&self.inputs));
    }
}

impl Walk for StageReady {
    fn walk(&self) {
        self.inputs.walk();
        black_box(self.stage.to_string());
    }
}

impl Walk for TaskResult {
    fn walk(&self) {
        self.header.walk();
        if let Outcome::Completed { outputs } = &self.outcome {
            outputs.walk();
        }
        black_box((self.failure(), self.statement(), self.legs(Default::default())));
        black_box(self.legs(self.header.path.failed_until).iter().map(Leg::own_us).max());
    }
}

impl Walk for ResultEvent {
    fn walk(&self) {
        if let Self::Attempt(result) = self {
            result.walk();
        }
    }
}

impl Walk for Lease {
    fn walk(&self) {
        black_box((self.places(), report::fits(self)));
        self.held.iter().for_each(|held| held.header.walk());
    }
}

impl Walk for Emission {
    fn walk(&self) {
        black_box((
            self.amends(),
            self.account(self.stored_at),
            self.busy_us(),
            self.blocks().count(),
        ));
        if let EmissionOutcome::Proved(proofs) = &self.outcome {
            proofs.iter().for_each(|proof| drop(self.statement(proof)));
        }
        let mut reading = Reading::new(self);
        // The record of a lower number may be any record.
        if reading.wants().is_some() {
            reading.read(self);
        }
        let mut output: Output = reading.output();
        output.note(self);
    }
}

impl Walk for Position {
    fn walk(&self) {
        black_box(self.next());
    }
}

impl Walk for Pipeline {
    fn walk(&self) {
        black_box((
            self.zkvms(),
            self.spare(),
            self.range(),
            self.deadline_at(Default::default()),
        ));
        for proof in &self.proofs {
            for stage in &proof.stages {
                black_box((proof.next(&stage.name), proof.fastest_after(&stage.name)));
                black_box((proof.is_checked(&stage.name), stage.task_count(PAYLOADS_MAX)));
                black_box(stage.retry.pause(u32::MAX, 0));
            }
        }
    }
}
