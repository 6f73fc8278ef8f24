//! The definition of a pipeline: its source, its policy, and its proofs with their stages.

use crate::{PipelineId, ProofType, StageName, ZkvmId, message::StageKind, retry::Retry};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// Maximum number of proof types in a pipeline (EIP-8025 allows four; rollups use one or two).
pub const PROOF_TYPES_MAX: usize = 8;
/// Maximum number of stages in a proof.
pub const STAGES_MAX: usize = 16;
/// Maximum number of blocks in a range. The outputs of its blocks wait in the broker until the range has
/// its record, and many ranges are in flight at once.
pub const RANGE_MAX: u32 = 1024;
/// Maximum number of blocks that a reorg may replace by itself: half an hour of a chain with two blocks a second.
pub const DEPTH_MAX: u32 = 4096;
/// Maximum number of URLs of a source.
pub const URLS_MAX: usize = 8;

/// The definition of a pipeline, read from its file and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The pipeline's name, unique in a deployment.
    pub name: PipelineId,
    /// Number of the definition, which grows with every change. A block keeps the revision with which
    /// it was ingested.
    pub revision: u32,
    /// The order in which the pipeline's blocks are proved.
    pub policy: Policy,
    /// The pipeline's share of the provers when several pipelines compete for them; at least 1.
    pub weight: u32,
    /// The source of the pipeline's blocks.
    pub source: Source,
    /// How many of `proofs` must be valid for a block to count as proved.
    pub quorum: u32,
    /// The treatment of unfinished proofs once the quorum is met.
    pub rest: Rest,
    /// The proofs wanted of every block.
    pub proofs: Vec<ProofSpec>,
}

/// The rule that decides which block is most urgent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Lowest block number first; every block must be proved.
    OldestFirst,
    /// Earliest deadline first. A late block is worthless and is abandoned.
    Deadline {
        /// How long after the block was observed its proof must be ready.
        within: Duration,
    },
}

/// Treatment of a block's unfinished proofs once the block's quorum is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Unfinished proofs are stopped. This is the default.
    #[default]
    Stop,
    /// Unfinished proofs may finish, but are not emitted.
    Finish,
}

/// The source of a pipeline's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An Ethereum node that an ingester follows.
    Ethereum(EthereumSource),
    /// A file of blocks, with one JSON object or bare number per line.
    File {
        /// Path of the file, as the ingester sees it.
        path: String,
    },
    /// An HTTP endpoint of the ingester, to which clients post blocks.
    Http,
    /// No ingester of push0: another program publishes on the pipeline's block subject.
    External,
}

/// Settings for following an Ethereum node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EthereumSource {
    /// The URLs of the JSON-RPC endpoints (http or https) of nodes of one chain, at least one. The next one is
    /// asked when one fails.
    pub rpc_urls: Vec<String>,
    /// The first block to ingest.
    pub start: Start,
    /// How many blocks must follow a block before it is ingested; 0 follows the head.
    pub confirmations: u64,
    /// The interval at which the node is asked for a new head.
    pub poll: Duration,
    /// The input for the first stage of a block.
    pub witness: Witness,
    /// The rule by which a block's hash is believed.
    pub hash: HashRule,
    /// How many of the last blocks a reorg may replace. A deeper one waits for an operator.
    pub depth: u32,
    /// The age beyond which the newest block is no place to begin: the node may still be far behind.
    pub stale_after: Duration,
    /// How long the node may take for an answer. The limit grows after timeouts.
    pub timeout: Duration,
    /// How large an answer may be, in MiB.
    pub answer_max_mib: u32,
}

/// The rule by which a block's hash is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashRule {
    /// The hash must be the Keccak-256 of the header's RLP, as on Ethereum. This is the default.
    #[default]
    Header,
    /// The node's word counts. For chains that hash something else.
    Node,
}

/// The first block of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The newest block at the time when the pipeline first runs.
    Latest,
    /// The block of this number.
    Number(u64),
}

/// The input for the first stage of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Witness {
    /// The block's number as JSON, for the provers of push0's demo.
    Number,
    /// The RLP of the block's header, checked against the block's hash.
    Header,
    /// The block with its transactions, as the node's JSON.
    Block,
}

/// Definition of one proof that is wanted of every block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSpec {
    /// The name of the proof, unique in the pipeline.
    pub proof_type: ProofType,
    /// The zkVM of all stages without their own.
    pub zkvm: ZkvmId,
    /// The pinned program (verifying key), in the zkVM's own text form; `None` if the pipeline pins none.
    pub program_id: Option<String>,
    /// The outputs that a verifier must check before they count.
    pub verify: Verify,
    /// The stages in order. The first stage reads the block's witness, each later one the outputs of the
    /// stage before it.
    pub stages: Vec<Stage>,
}

/// The outputs that a verifier must check before they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The output of the last stage: the emitted proof.
    #[default]
    Final,
    /// The outputs of every stage.
    EveryStage,
    /// No outputs. For provers whose outputs are no proofs.
    Off,
}

/// Definition of one stage: a step of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The name of the stage, unique in its proof.
    pub name: StageName,
    /// The shape of the stage: how inputs are distributed over its tasks.
    pub kind: StageKind,
    /// The zkVM of the stage.
    pub zkvm: ZkvmId,
    /// How many inputs a task of a tree takes; with `None`, one task takes all inputs. Only for
    /// joins and ranges.
    pub arity: Option<u32>,
    /// Maximum number of consecutive blocks in a range; a range ends before a multiple of this number.
    /// Only for ranges.
    pub every: Option<u32>,
    /// How long a range waits for further blocks before it is closed unfilled. Only for ranges.
    pub close_after: Option<Duration>,
    /// Whether a range that used up its budget is retried as two halves. Only for ranges.
    pub split_on_failure: bool,
    /// How long an attempt may run.
    pub timeout: Duration,
    /// How many failures of its own a task may have before the task becomes a dead letter. A failure is the
    /// task's own if its prover has completed other tasks since.
    pub attempts: u32,
    /// How many attempts may die with their prover before the task becomes a dead letter.
    #[serde(default = "deaths_default")]
    pub deaths: u32,
    /// The pauses between attempts.
    #[serde(default)]
    pub retry: Retry,
    /// How long an attempt may run before a second copy is started on another prover; `None` for
    /// no second copy.
    pub hedge_after: Option<Duration>,
    /// The minimum duration of an attempt; zero under `oldest-first`. If the minimum durations of a block's
    /// remaining stages exceed the time to its deadline, the block is abandoned before the deadline passes.
    #[serde(default)]
    pub fastest: Duration,
    /// The zkVM name of the provers with more memory. After an attempt that ran out of memory, the next
    /// attempt goes to them; `None` if there are no such provers.
    #[serde(default)]
    pub more_memory: Option<ZkvmId>,
}

fn deaths_default() -> u32 {
    crate::retry::DEATHS_DEFAULT
}

impl Pipeline {
    /// Returns the definition of the proof of this type.
    pub fn proof(&self, proof_type: &ProofType) -> Option<&ProofSpec> {
        self.proofs.iter().find(|p| p.proof_type == *proof_type)
    }

    /// Returns the range stage, if there is one. A pipeline with a range stage has a single proof.
    pub fn range(&self) -> Option<&Stage> {
        self.proofs.iter().find_map(ProofSpec::range)
    }

    /// Returns the names of all needed zkVMs, sorted and without duplicates.
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

    /// Returns the names of the zkVMs whose verifiers are needed, sorted and without duplicates.
    pub fn checked_zkvms(&self) -> Vec<ZkvmId> {
        let checked = |proof: &ProofSpec| {
            let stages = proof.stages.iter().filter(|stage| proof.is_checked(&stage.name));
            stages.flat_map(Stage::zkvms).cloned().collect::<Vec<_>>()
        };
        let zkvms: BTreeSet<ZkvmId> = self.proofs.iter().flat_map(checked).collect();
        zkvms.into_iter().collect()
    }

    /// Returns the deadline of a block observed at `observed_at`; `None` under `oldest-first`.
    pub fn deadline_at(&self, observed_at: crate::Timestamp) -> Option<crate::Timestamp> {
        match self.policy {
            Policy::OldestFirst => None,
            Policy::Deadline { within } => Some(observed_at.plus(within)),
        }
    }

    /// Returns how many proofs of a block may fail while the block can still count as proved.
    pub fn spare(&self) -> usize {
        self.proofs.len().saturating_sub(self.quorum as usize)
    }
}
