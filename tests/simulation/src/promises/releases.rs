//! Checks of the dispatcher's releases: P4 and P8.

use super::{Promises, Waiting};
use push0_dispatcher::decide::{Ready, Release, SourceId};
use push0_domain::{
    Announcement, BlockRef, Timestamp,
    message::{BlockEnded, Cancel, Emission, EndReason, ObservedBlock, TaskRange},
    pipeline::{Pipeline, Policy},
    task::StageKey,
    wanted::Claim,
};
use std::cmp::Reverse;

impl Promises {
    pub(crate) fn dispatcher_starts(&mut self) {
        self.waiting.clear();
        self.open.clear();
        self.given_up.clear();
    }

    pub(crate) fn block_is_ready(&mut self, source: SourceId, block: &ObservedBlock, pipeline: &Pipeline) {
        if !self.open.insert(source) {
            return;
        }
        let lane = self.lane(&pipeline.name);
        let announcement = Announcement(source.sequence());
        let farthest = self.farthest[lane] + self.lanes[lane].ahead;
        if block.block.number > farthest {
            self.break_with(format_args!("P6: took in {} beyond {farthest}", block.block));
        }
        for proof in &pipeline.proofs {
            let Some(stage) = proof.stages.first() else {
                continue;
            };
            let ready = Ready {
                stage: StageKey {
                    pipeline: pipeline.name.clone(),
                    block: block.block,
                    first: None,
                    proof_type: proof.proof_type.clone(),
                    stage: stage.name.clone(),
                },
                zkvm: stage.zkvm.clone(),
                tasks: TaskRange {
                    first: 0,
                    count: 1,
                    of: 1,
                },
                attempt: 1,
                claim: Claim::first(announcement),
                first_announcement: announcement,
                deadline_at: block.deadline_at,
                is_hedge: false,
                failed: 0,
                races: None,
            };
            self.wait(source, ready, 0, pipeline);
        }
    }

    pub(crate) fn stage_is_ready(
        &mut self,
        source: SourceId,
        ready: Ready,
        cursor: u32,
        pipeline: &Pipeline,
    ) {
        if self.open.insert(source) {
            self.wait(source, ready, cursor, pipeline);
        }
    }

    fn wait(&mut self, source: SourceId, ready: Ready, cursor: u32, pipeline: &Pipeline) {
        let (first, count) = (ready.tasks.first, ready.tasks.count);
        let same = |w: &Waiting| {
            let stays = w.ready.claim >= ready.claim || matches!(w.source, SourceId::Block(_));
            let asked = |r: &Ready| (r.stage.clone(), r.attempt, r.tasks);
            stays && asked(&w.ready) == asked(&ready)
        };
        if self.waiting.iter().any(same) {
            return;
        }
        let Some(spec) = pipeline.proof(&ready.stage.proof_type) else {
            return;
        };
        let Some((position, stage)) = spec.stage(&ready.stage.stage) else {
            return;
        };
        let deadline = match pipeline.policy {
            Policy::OldestFirst => 0,
            Policy::Deadline { .. } => ready.deadline_at.map_or(u64::MAX, |at| at.0),
        };
        self.age += 1;
        let (left, number) = (spec.stages.len() - position, ready.stage.block.number);
        self.waiting.push(Waiting {
            source,
            zkvm: ready.zkvm.clone(),
            out_of_reach_at: ready
                .deadline_at
                .map(|at| at.minus(stage.fastest + spec.fastest_after(&stage.name))),
            next: first + cursor.min(count.saturating_sub(1)),
            end: first + count,
            rank: (deadline, number, left, Reverse(ready.attempt), self.age),
            ready,
        });
    }

    /// Checks P4 and P8 for a release: no entry of the pipeline and zkVM was more urgent, and no
    /// cancel covers it.
    pub(crate) fn released(&mut self, release: &Release, now: Timestamp) {
        let found = self.waiting.iter().position(|w| {
            w.source == release.source && w.ready.stage == release.stage && w.next == release.index
        });
        let Some(at) = found else {
            return self.break_with(format_args!("{release:?} was not waiting"));
        };
        let this = self.waiting[at].clone();
        let rival = self
            .waiting
            .iter()
            .filter(|w| w.zkvm == this.zkvm && w.ready.stage.pipeline == this.ready.stage.pipeline)
            // A retried attempt may be paused, and may be overtaken then.
            .filter(|w| w.ready.failed == 0)
            // Entries that cannot be ready in time may be passed over.
            .filter(|w| w.ready.claim.is_retry || w.out_of_reach_at.is_none_or(|at| at > now));
        if let Some(first) = rival.min_by_key(|w| w.rank)
            && first.rank < this.rank
        {
            let what = format!(
                "P4: released {:?} {:?} before {:?} {:?}",
                this.ready.stage, this.rank, first.ready.stage, first.rank
            );
            return self.break_with(format_args!("{what}"));
        }
        let unwanted = self
            .given_up
            .iter()
            .any(|(cancel, at)| gives_up(cancel, *at, &this));
        if unwanted {
            self.break_with(format_args!(
                "P8: released {} after it was cancelled",
                this.ready.stage
            ));
        }
        self.waiting[at].next += 1;
        if self.waiting[at].next == this.end {
            self.waiting.swap_remove(at);
        }
    }

    pub(crate) fn dispatcher_cancels(&mut self, cancel: &Cancel, sequence: Announcement) {
        self.given_up.push((cancel.clone(), sequence));
        self.waiting
            .retain(|waiting| !gives_up(cancel, sequence, waiting));
    }

    pub(crate) fn dispatcher_ends(&mut self, ended: &BlockEnded) {
        if ended.reason.is_late() {
            self.waiting.retain(|w| {
                let same = w.ready.stage.pipeline == ended.pipeline
                    && ended.hashes.contains(&w.ready.stage.block.hash);
                w.ready.claim.is_retry || !same
            });
        }
    }

    pub(crate) fn dispatcher_knows(&mut self, record: &Emission) {
        self.waiting.retain(|w| {
            let first = w.ready.stage.first_block().number;
            let covered = (record.first.number..=record.last.number).contains(&first);
            let same = w.ready.stage.pipeline == record.pipeline && covered;
            !same || w.ready.claim.is_retry || w.ready.first_announcement > record.announcement
        });
    }

    pub(crate) fn done(&mut self, source: SourceId) {
        self.open.remove(&source);
        self.waiting.retain(|w| w.source != source);
    }
}

/// Returns whether a cancel ends a waiting entry. A block announced again after the cancel is not ended. A
/// retry for a block with a record is ended only by a reorg.
fn gives_up(cancel: &Cancel, sequence: Announcement, waiting: &Waiting) -> bool {
    let stage = &waiting.ready.stage;
    let named = |block: BlockRef| cancel.hashes.is_empty() || cancel.hashes.contains(&block.hash);
    let (first, last) = stage.numbers().into_inner();
    cancel.pipeline == stage.pipeline
        && first <= cancel.last
        && cancel.first <= last
        && (named(stage.block) || named(stage.first_block()))
        && waiting.ready.claim.announcement < sequence
        && (!waiting.ready.claim.is_retry || cancel.reason == EndReason::Reorged)
}
