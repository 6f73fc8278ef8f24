//! The dispatcher: turns ready stages into tasks and releases them, most urgent first, to the
//! subject of their zkVM, only when a prover can start them.
//!
//! It promises P4 (most urgent first) and its part of P1 and P8. Its state is what it has not
//! acknowledged; a standby takes it over within a second. It does not know what a proof is, who is
//! dead, or what comes after a stage.

mod ahead;
mod bodies;
pub mod capacity;
pub mod config;
pub mod decide;
mod effect;
mod lane;
mod lanes;
mod metrics;
mod perform;
pub mod queue;
mod receive;
mod service;
pub mod task;
mod track;
mod waiting;

pub use service::run;
