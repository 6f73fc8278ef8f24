//! Pipelines: what is proved, how, and what matters most. One TOML file each.

mod check;
mod file;
mod graph;

pub use check::{InvalidPipeline, Issue};
pub use graph::{NextStage, tree_levels};

use crate::{PipelineId, ProofType, StageName, ZkvmId, message::StageKind};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most proof types that a pipeline may ask of a block (EIP-8025 allows four; rollups one or two).
pub const PROOF_TYPES_MAX: usize = 8;
/// The most stages that a proof may have.
pub const STAGES_MAX: usize = 16;
/// The most blocks that a range may cover: what its blocks wrote waits in the broker until the range
/// has its record, and many ranges are on their way at once.
pub const RANGE_MAX: u32 = 1024;

/// A checked pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Its name.
    pub name: PipelineId,
    /// Counts the changes of its definition; a block keeps the revision it was ingested with.
    pub revision: u32,
    /// Which of its blocks comes first.
    pub policy: Policy,
    /// Its share where several pipelines want the same provers.
    pub weight: u32,
    /// Where its blocks come from.
    pub source: Source,
    /// How many of `proofs` must be valid for the block to count as proved.
    pub quorum: u32,
    /// What happens to the proofs that are not needed once the quorum is met.
    pub rest: Rest,
    /// The proofs wanted of every block.
    pub proofs: Vec<ProofSpec>,
}

/// Which block is the most urgent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// By block number: every block must be proved.
    OldestFirst,
    /// By deadline: a late block is worthless and is abandoned.
    Deadline {
        /// How long after its observation a block's proof must be ready.
        within: Duration,
    },
}

/// What happens to unfinished proofs of a block whose quorum is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// They are stopped: the default.
    #[default]
    Stop,
    /// They are finished, and not emitted.
    Finish,
}

/// Where blocks come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An Ethereum node.
    Ethereum(EthereumSource),
    /// A file of blocks, one JSON object or bare number a line.
    File {
        /// Its path.
        path: String,
    },
    /// Whoever posts blocks to the ingester.
    Http,
    /// None of push0's ingesters: another program publishes on the pipeline's block subject.
    External,
}

/// An Ethereum node to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EthereumSource {
    /// The URL of its JSON-RPC endpoint (http or https).
    pub rpc_url: String,
    /// The first block.
    pub start: Start,
    /// How many blocks must follow a block before it is ingested: 0 follows the head.
    pub confirmations: u64,
    /// How often to ask for a new head.
    pub poll: Duration,
    /// What the provers get.
    pub witness: Witness,
}

/// The first block of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The newest one when the pipeline first runs.
    Latest,
    /// This one.
    Number(u64),
}

/// What the first stage of a block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The block's number as JSON, as the provers of push0's demo read it.
    Number,
    /// The RLP of its header, checked against its hash.
    Header,
    /// The block with its transactions, as the node's JSON.
    Block,
}

/// One proof that is wanted of every block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSpec {
    /// Its name in the pipeline.
    pub proof_type: ProofType,
    /// The proof system, unless a stage says another.
    pub zkvm: ZkvmId,
    /// The pinned program (verifying key), in the zkVM's own text form.
    pub program_id: Option<String>,
    /// What is verified before it counts.
    pub verify: Verify,
    /// The stages in order: each reads what the one before wrote, the first one the block.
    pub stages: Vec<Stage>,
}

/// What a verifier must have seen before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The last stage's output: the proof that is emitted.
    #[default]
    Final,
    /// Every stage's output.
    EveryStage,
    /// Nothing: for provers whose outputs are no proofs.
    Off,
}

/// One step of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Its shape.
    pub kind: StageKind,
    /// The proof system that runs it.
    pub zkvm: ZkvmId,
    /// How many inputs a task of a tree takes; none joins all at once. Only for joins and ranges.
    pub arity: Option<u32>,
    /// How many consecutive blocks make a range, which ends before a multiple of it. Only for ranges.
    pub every: Option<u32>,
    /// After how long an unfilled range is closed as it is. Only for ranges.
    pub close_after: Option<Duration>,
    /// Whether a range whose budget is used up is tried again as two halves. Only for ranges.
    pub split_on_failure: bool,
    /// How long an attempt may run.
    pub timeout: Duration,
    /// How many attempts may end badly before the task is a dead letter.
    pub attempts: u32,
    /// After how long a second copy is started elsewhere.
    pub hedge_after: Option<Duration>,
    /// What an attempt takes at least. Only with a deadline: a block that it cannot meet any more is
    /// abandoned before it passes.
    #[serde(default)]
    pub fastest: Duration,
    /// The provers with more memory, by the zkVM's name that they serve: where the next attempt goes
    /// after one that ran out of memory.
    #[serde(default)]
    pub more_memory: Option<ZkvmId>,
}

impl Pipeline {
    /// The proof of this type.
    pub fn proof(&self, proof_type: &ProofType) -> Option<&ProofSpec> {
        self.proofs.iter().find(|p| p.proof_type == *proof_type)
    }

    /// The stage that puts the proofs of blocks together, if there is one: it belongs to the only proof.
    pub fn range(&self) -> Option<&Stage> {
        self.proofs.iter().find_map(ProofSpec::range)
    }

    /// The proof systems that it needs, each once.
    pub fn zkvms(&self) -> Vec<ZkvmId> {
        let mut zkvms: Vec<_> = self
            .proofs
            .iter()
            .flat_map(|p| p.stages.iter().flat_map(Stage::zkvms).cloned())
            .collect();
        zkvms.sort();
        zkvms.dedup();
        zkvms
    }

    /// The deadline of a block that was observed at `observed_at`.
    pub fn deadline_at(&self, observed_at: crate::Timestamp) -> Option<crate::Timestamp> {
        match self.policy {
            Policy::OldestFirst => None,
            Policy::Deadline { within } => Some(observed_at.plus(within)),
        }
    }

    /// How many of its proof types may fail a block that still counts as proved.
    pub fn spare(&self) -> usize {
        self.proofs.len().saturating_sub(self.quorum as usize)
    }
}
