//! The state of a deployment as data.

use push0_domain::message::{HeldQueue, ProverState, Role};
use push0_domain::{ProverId, Timestamp, ZkvmId};
use serde::Serialize;

/// The state of a deployment.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// When the state was read.
    pub(crate) at: Timestamp,
    /// Whether nothing is wrong.
    pub(crate) ok: bool,
    /// The problems that need an operator, worst first.
    pub(crate) problems: Vec<Problem>,
    pub(crate) roles: Vec<RoleStatus>,
    pub(crate) services: Vec<ServiceStatus>,
    pub(crate) streams: Vec<StreamStatus>,
    pub(crate) pipelines: Vec<PipelineStatus>,
    pub(crate) provers: Vec<ProverStatus>,
    /// Queues whose attempts fail without a success between them.
    pub(crate) held: Vec<HeldStatus>,
    pub(crate) dead_letters: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The problem, in words for an operator.
    pub(crate) text: String,
    /// Since when, where that is known.
    pub(crate) since: Option<Timestamp>,
}

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            since: None,
        }
    }

    pub(crate) fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }
}

#[cfg(test)]
impl Status {
    /// Returns the state of a deployment without anything, with these problems of the last five minutes.
    pub(crate) fn of_nothing(at: Timestamp, problems: &[&str]) -> Self {
        let since = Some(at.minus(std::time::Duration::from_secs(300)));
        Self {
            at,
            ok: problems.is_empty(),
            problems: problems
                .iter()
                .map(|text| Problem::new(*text).since(since))
                .collect(),
            roles: Vec::new(),
            services: Vec::new(),
            streams: Vec::new(),
            pipelines: Vec::new(),
            provers: Vec::new(),
            held: Vec::new(),
            dead_letters: 0,
        }
    }
}

/// A role that exactly one process leads at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RoleStatus {
    /// The role, such as `collector.demo`.
    pub(crate) role: String,
    /// Whether a process leads, as the role's fact says.
    pub(crate) is_led: bool,
    /// The processes that say they lead, as `HOST/PID`. Empty while the leader does not answer.
    pub(crate) leaders: Vec<String>,
    /// The processes that wait for the role.
    pub(crate) standbys: Vec<String>,
    /// When the term began, or when the last one ended; `None` before the first leader.
    pub(crate) since: Option<Timestamp>,
}

/// A service that made itself known, or a process of `push0 up`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    /// Host and process id.
    pub(crate) replica: Option<String>,
    pub(crate) leading: Vec<String>,
    pub(crate) standby: Vec<String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StreamStatus {
    pub(crate) name: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    /// Broker whose copy leads; `None` if no copy leads. A single broker leads its only copy.
    pub(crate) leader: Option<String>,
    pub(crate) copies: usize,
    /// Number of copies that are present and complete.
    pub(crate) copies_current: usize,
}

/// The newest records of a pipeline, none of which has a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unproved {
    pub(crate) count: usize,
    /// The newest block, and how it ended.
    pub(crate) block: u64,
    pub(crate) outcome: String,
    /// When the oldest of the records was stored.
    pub(crate) since: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PipelineStatus {
    pub(crate) name: String,
    pub(crate) revision: u32,
    pub(crate) policy: String,
    /// Number of the newest block of the chain, as the leading ingester saw it.
    pub(crate) head: Option<u64>,
    /// Number of the last block published by the ingester.
    pub(crate) ingested: Option<u64>,
    /// Number of the next block to emit, according to the newest record.
    pub(crate) next: Option<u64>,
    /// Number of ingested blocks without a record; `None` before the first record.
    pub(crate) lag: Option<u64>,
    /// Number of blocks of the chain without a record; `None` while the head is not known.
    pub(crate) behind_head: Option<u64>,
    /// When the newest record was stored.
    pub(crate) recorded_at: Option<Timestamp>,
    /// The newest records, if none of them has a proof although neither an operator nor the chain ended the blocks.
    #[serde(skip)]
    pub(crate) unproved: Option<Unproved>,
    /// When the block that is to be emitted next was observed.
    pub(crate) next_observed_at: Option<Timestamp>,
    /// The zkVMs of its stages.
    #[serde(skip)]
    pub(crate) zkvms: Vec<ZkvmId>,
    /// The zkVMs of its stages that are verified.
    #[serde(skip)]
    pub(crate) checked: Vec<ZkvmId>,
    /// Whether an ingester has work for it.
    #[serde(skip)]
    pub(crate) is_ingested: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProverStatus {
    pub(crate) id: ProverId,
    pub(crate) zkvm: ZkvmId,
    pub(crate) role: Role,
    pub(crate) slots: u32,
    pub(crate) held: usize,
    pub(crate) state: ProverState,
    pub(crate) heard_ms_ago: u64,
    pub(crate) lost: bool,
    /// Whether it finished its work and ended, as it was asked to.
    pub(crate) left: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeldStatus {
    pub(crate) zkvm: ZkvmId,
    #[serde(flatten)]
    pub(crate) queue: HeldQueue,
}
