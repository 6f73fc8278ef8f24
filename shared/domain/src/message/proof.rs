//! PROOFS and DEAD: what came of a block, and what was given up.

use super::{BlockFacts, EndReason, Failure, StageReady};
use crate::{BlockHash, BlockRef, Payload, PipelineId, ProofType, ProverId, Timestamp, ZkvmId};
use serde::{Deserialize, Serialize};

/// PROOFS: one per block, or range of blocks, in ascending order, whatever became of it.
///
/// Two things come out of order. After a reorg of emitted blocks, a record of a lower number with
/// another hash: the output goes on from there. And when a dead letter was retried, a second record
/// of a block whose record says that it is dead: it amends that one, and nothing else changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The first block that it covers.
    pub first: BlockRef,
    /// The last block that it covers; the same but for ranges.
    pub last: BlockRef,
    /// The hashes of all blocks of a range, from the first to the last; empty for a single block.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// Blocks right before the first that stand although the record of their range does not: the chain
    /// has replaced the range's other blocks, which this record and those after it replace. Of a record
    /// that amends another: such blocks right before `next`.
    #[serde(default)]
    pub standing: Vec<Standing>,
    /// The hash of the first block's parent.
    pub parent_hash: BlockHash,
    /// What became of it.
    pub outcome: EmissionOutcome,
    /// The number that this pipeline emits next. It ends the log: a service that starts reads the
    /// newest record to know where the output stands.
    pub next: u64,
    /// When the broker had stored the block's message.
    pub stored_at: Timestamp,
    /// Time inside provers and verifiers on the critical path, in microseconds.
    pub busy_us: u64,
    /// Facts for tables.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// A block that the record of a range covers in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The block.
    pub block: BlockRef,
    /// When the broker had stored its announcement, or that of a later block of its range.
    pub announced_at: Timestamp,
}

impl Emission {
    /// Whether it takes the place of an older record, and the output goes on elsewhere.
    pub fn amends(&self) -> bool {
        self.last.number + 1 != self.next
    }

    /// The blocks that it is about.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRef> {
        let range = (self.first.number..).zip(self.hashes.iter());
        let single = self.hashes.is_empty().then_some(self.last);
        range
            .map(|(number, hash)| BlockRef { number, hash: *hash })
            .chain(single)
    }
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmissionOutcome {
    /// Proved, by as many proofs as the quorum asks.
    Proved(Vec<Proof>),
    /// A task used up its budget; the dead letter of this id has the history.
    Dead {
        /// The dead letter's id.
        dead_letter: String,
        /// In a line.
        reason: String,
    },
    /// Given up by policy.
    Abandoned(EndReason),
}

/// A proof that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Which of the pipeline's proofs.
    pub proof_type: ProofType,
    /// The proof system.
    pub zkvm: ZkvmId,
    /// The program that it is about.
    #[serde(default)]
    pub program_id: Option<String>,
    /// Who made the final stage.
    pub prover: ProverId,
    /// Who verified it; none if the pipeline asks for no verification.
    #[serde(default)]
    pub verifier: Option<ProverId>,
    /// The proof.
    pub payload: Payload,
    /// Its size in bytes.
    pub bytes: u64,
    /// Time of the final stage's attempt, in microseconds.
    pub prove_us: u64,
    /// Time of the verification, in microseconds.
    pub verify_us: u64,
    /// The attempt that made it.
    pub attempt: u32,
}

/// DEAD: a message or task that was given up, kept until an operator retries or drops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id, derived from what died: the same death is one letter.
    pub id: String,
    /// In a line.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// What died.
    pub what: Dead,
}

/// What died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dead {
    /// A message that could not be read.
    Message {
        /// The stream that it lay in.
        stream: String,
        /// Its subject.
        subject: String,
        /// Its sequence there.
        sequence: u64,
        /// Its headers and the start of its body.
        #[serde(with = "crate::payload::hex_or_bytes")]
        body: Vec<u8>,
    },
    /// A task whose attempts are used up.
    Task {
        /// All it takes to run it again.
        retry: StageReady,
        /// The attempts, oldest first.
        history: Vec<AttemptRecord>,
    },
}

/// How one attempt ended, for the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its number.
    pub attempt: u32,
    /// Who held it.
    pub prover: ProverId,
    /// When its end was collected.
    pub ended_at: Timestamp,
    /// How long it ran, in microseconds.
    pub prove_us: u64,
    /// Why it failed.
    pub failure: Failure,
}
