//! Bodies of the streams PROOFS (the ordered output) and DEAD (dead letters).

use super::{BlockFacts, EndReason, Failure, StageReady};
use crate::{
    BlockHash, BlockRef, Payload, PipelineId, ProofType, ProverId, Timestamp, ZkvmId, path::Leg,
    signature::Signed, wanted::Announcement,
};
use serde::{Deserialize, Serialize};

/// Body of PROOFS: the record of one block or one range, proved or not. Records ascend by number.
///
/// Two kinds of record come out of order. After a reorg of emitted blocks, a record of a lower number with
/// another hash follows, and the output continues from there. After a dead letter was retried successfully,
/// a second record of the dead block or range follows; it amends the first one and changes nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    /// The pipeline of the block.
    pub pipeline: PipelineId,
    /// The first block covered by the record.
    pub first: BlockRef,
    /// The last block covered by the record; equal to `first` unless the record is about a range.
    pub last: BlockRef,
    /// The hashes of all blocks of a range, from the first to the last; empty for a single block.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// Blocks right before `first` that are still part of the chain, although the record of their range is
    /// void: the chain replaced later blocks of the range, and this record and those after it prove the
    /// replacements. In an amending record: such blocks right before `next`.
    #[serde(default)]
    pub standing: Vec<Standing>,
    /// The hash of the parent of the first block.
    pub parent_hash: BlockHash,
    /// How the block or range ended.
    pub outcome: EmissionOutcome,
    /// The number that the pipeline emits next. A service that starts reads the newest record and continues
    /// from this number.
    pub next: u64,
    /// The announcement of the block; for a range, of its last block.
    pub announcement: Announcement,
    /// When the broker stored the announcement. A measurement: no decision depends on it.
    pub stored_at: Timestamp,
    /// How long the proved block or range waited for the records of earlier blocks, in microseconds.
    #[serde(default)]
    pub order_us: u64,
    /// Facts about the block for tables.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// A block that is still part of the chain although the record of its range is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The block's number and hash.
    pub block: BlockRef,
    /// The announcement of the block, or of a later block of its range.
    pub announcement: Announcement,
}

impl Emission {
    /// Returns whether the record amends an older one instead of continuing the output.
    pub fn amends(&self) -> bool {
        self.last.number.checked_add(1) != Some(self.next)
    }

    /// Returns the blocks that the record covers, in ascending order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRef> {
        let range = (self.first.number..=u64::MAX).zip(self.hashes.iter());
        let single = self.hashes.is_empty().then_some(self.last);
        range
            .map(|(number, hash)| BlockRef { number, hash: *hash })
            .chain(single)
    }
}

/// How a block or range ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmissionOutcome {
    /// The block is proved; holds at least as many proofs as the quorum asks for.
    Proved(Vec<Proof>),
    /// A task used up its budget, or the block's message was refused. The dead letter holds the details,
    /// for a task the history of its attempts.
    Dead {
        /// The id of the dead letter.
        dead_letter: String,
        /// The reason in one line.
        reason: String,
    },
    /// The block was given up without a proof.
    Abandoned(EndReason),
}

/// A valid proof of a block or range, as the record carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The type of the proof, as the pipeline names it.
    pub proof_type: ProofType,
    /// The zkVM of the final stage.
    pub zkvm: ZkvmId,
    /// The program that the proof is about, in the zkVM's own text form; `None` if the pipeline pins none.
    #[serde(default)]
    pub program_id: Option<String>,
    /// The prover of the final stage.
    pub prover: ProverId,
    /// The verifier that checked the proof; `None` if the pipeline asks for no verification.
    #[serde(default)]
    pub verifier: Option<ProverId>,
    /// The bytes of the proof, inline or in the blob store.
    pub payload: Payload,
    /// Size of the proof in bytes.
    pub bytes: u64,
    /// Time that the final stage's attempt was proved, in microseconds.
    pub prove_us: u64,
    /// Time that the final stage's attempt read its inputs and stored its outputs, in microseconds.
    #[serde(default)]
    pub transfer_us: u64,
    /// Time of the verification, in microseconds; 0 without one.
    pub verify_us: u64,
    /// The number of the final stage's attempt.
    pub attempt: u32,
    /// The stages on the proof's critical path, from the first to the final one.
    #[serde(default)]
    pub path: Vec<Leg>,
    /// The prover's signature of [`Emission::statement`]; `None` from a prover without a key.
    #[serde(default)]
    pub signed: Option<Signed>,
}

/// Body of DEAD: a message or task that was given up, kept until an operator retries or drops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The id of the letter, derived from the message or task so that the same failure makes one letter.
    pub id: String,
    /// The reason in one line.
    pub reason: String,
    /// When the message or task was given up.
    pub at: Timestamp,
    /// The message or task that was given up.
    pub what: Dead,
}

/// The content of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dead {
    /// A message that could not be read or acted on.
    Message {
        /// The name of the message's stream.
        stream: String,
        /// The subject of the message.
        subject: String,
        /// The message's sequence number in its stream.
        sequence: u64,
        /// The first 16 KiB of the message's body; empty if the body was read but its request was refused.
        #[serde(with = "crate::payload::hex_or_bytes")]
        body: Vec<u8>,
    },
    /// A task that used up its attempts.
    Task {
        /// The message to publish on STAGES to run the task again.
        retry: StageReady,
        /// The failed attempts, oldest first.
        history: Vec<AttemptRecord>,
    },
}

/// The end of one failed attempt, as a dead letter lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The prover of the attempt.
    pub prover: ProverId,
    /// When the attempt's result was collected.
    pub ended_at: Timestamp,
    /// How long the attempt ran, in microseconds.
    pub prove_us: u64,
    /// Why the attempt failed.
    pub failure: Failure,
}
