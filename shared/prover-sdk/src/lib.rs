//! Write a prover adapter in one file.
//!
//! An adapter says how its zkVM proves ([`Prove`]) and how a proof is verified ([`Verify`]), and
//! calls [`main`]. Everything else is done here, the same for every zkVM: taking tasks by credit,
//! heartbeats from a thread of their own, timeouts, stops, results that are stored before the task
//! is acknowledged, the verifier's mode, draining.
//!
//! An attempt ends in exactly one result, whatever happens to it, as long as the process lives;
//! when it dies, the watchdog writes that result. A task is acknowledged only after its result is
//! stored.

mod adapter;
mod attempt;
mod check;
mod cli;
mod command;
mod config;
mod heartbeat;
mod inbox;
mod ledger;
mod metrics;
mod pace;
mod serve;
mod start;

pub use push0_domain::message::Role;

pub use adapter::{Progress, Prove, ProveError, Statement, Verify, Work};
pub use config::{AdapterConfig, Ahead, Common, ProverConfig};
pub use start::main;
