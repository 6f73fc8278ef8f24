//! Vocabulary of push0: ids, messages, subjects, pipelines, and the pure rules over them.
//!
//! Every item is a value or a function of values. Time and randomness are arguments: no function reads a
//! clock, opens a socket or starts a thread, so that property tests and the simulation drive the same
//! code as the services. The crate therefore imports neither tokio nor a NATS client;
//! `scripts/check-layout` enforces this.

pub mod account;
pub mod block;
pub mod codec;
pub mod id;
pub mod list;
pub mod message;
pub mod output;
pub mod path;
pub mod payload;
pub mod pipeline;
pub mod plain;
pub mod report;
pub mod retry;
pub mod seal;
pub mod seal_keys;
pub mod signature;
pub mod subject;
pub mod task;
pub mod time;
pub mod trace;
pub mod urgency;
pub mod verdict;
pub mod wanted;

pub use block::{BlockHash, BlockKey, BlockRef};
pub use id::{Participant, PipelineId, ProofType, ProverId, StageName, ZkvmId};
pub use path::CriticalPath;
pub use payload::{BlobPlace, BlobRef, Payload, Payloads};
pub use seal_keys::SealKeys;
pub use task::{AttemptId, StageKey, TaskId};
pub use time::Timestamp;
pub use wanted::Announcement;
