//! SDK for prover adapters. An adapter connects one zkVM to push0 and fits into one file.
//!
//! An adapter implements [`Prove`] (how its zkVM makes a proof) and [`Verify`] (how a proof is checked),
//! and calls [`main`]. The same binary proves or, with `--verify`, verifies:
//!
//! ```no_run
//! use push0_prover_sdk::{AdapterConfig, Prove, ProveError, Statement, Verify, Work};
//! use std::process::ExitCode;
//!
//! /// A zkVM whose proof of a block is the block's hash.
//! pub struct Example;
//!
//! impl Prove for Example {
//!     async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
//!         let block = work.header.id.stage.block;
//!         Ok(vec![block.hash.0.to_vec()])
//!     }
//! }
//!
//! impl Verify for Example {
//!     async fn verify(&self, statement: Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
//!         let is_valid = output == statement.block.block.hash.0;
//!         Ok((!is_valid).then(|| "the output is not the block's hash".into()))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     push0_prover_sdk::main("prover-example", "0.1.0", "example", |_: &AdapterConfig, _role| Ok(Example))
//! }
//! ```
//!
//! The SDK does everything else. It takes tasks by credit, so that no task waits in a buffer while another
//! prover is free; sends heartbeats from a thread of their own; enforces timeouts; obeys stop orders; stores
//! results; and drains when the process is asked to stop.
//!
//! As long as the process lives, every attempt that has begun ends in exactly one stored result, also after
//! a panic or a timeout; only attempts that outlive the grace of a stopping process are handed back to the
//! broker instead. Tasks that wait for a slot may be handed back as well: when the process drains or is
//! quarantined, or when another prover should take them. If the process dies, the watchdog writes the
//! results of its attempts. A task is acknowledged only after its result is stored.
//!
//! `services/prover-mock` is a complete adapter with a configuration of its own. docs/protocol.md describes
//! the messages, for adapters in other languages.

mod adapter;
mod adopted;
mod again;
mod attempt;
mod check;
mod cli;
mod command;
mod config;
mod heartbeat;
mod identity;
mod inbox;
mod judged;
mod ledger;
mod membership;
mod metrics;
mod node;
mod offer;
mod pace;
mod presence;
mod serve;
mod signer;
mod spool;
mod start;
mod statement;
mod transfer;
mod wait;

pub use push0_domain::message::Role;

pub use adapter::{Progress, Prove, ProveError, Statement, Verify, Work};
pub use config::{AdapterConfig, Ahead, Common, ProverConfig};
pub use start::main;
