//! The dispatcher: turns ready stages into tasks and releases them to the subject of their zkVM, most urgent
//! first, and only when a prover can start them.
//!
//! The dispatcher keeps promise P4 (most urgent first) and its part of P1 and P8. Its state is the messages
//! it has not acknowledged, so a standby takes over within a second. The dispatcher does not know proofs,
//! dead provers, or the order of stages.

mod ahead;
mod bodies;
pub mod capacity;
pub mod config;
pub mod decide;
mod effect;
mod hold;
mod holding;
mod lane;
mod lanes;
mod metrics;
mod outcome;
mod perform;
pub mod queue;
mod receive;
pub mod reserve;
mod room;
mod service;
pub mod session;
mod standstill;
pub mod task;
mod track;
mod waiting;
mod waits;

pub use service::run;
