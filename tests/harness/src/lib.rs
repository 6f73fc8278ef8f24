//! Real brokers, chains and services for tests.
//!
//! Everything started here listens on a loopback port of its own, keeps its files in a directory of
//! its own, and ends with the value that stands for it. If the test itself is killed, the operating
//! system ends it (see `child`). Nothing returns an error: what a test needs and cannot have is a
//! panic that says what to do about it.
//!
//! It speaks to the broker through `push0-bus` only, as every service does. It does not decide what
//! a scenario means: that is the test's business.
#![expect(
    clippy::panic,
    reason = "the harness runs inside tests, where a panic is how a failure is reported"
)]

mod accounts;
mod anvil;
mod blocks;
mod child;
mod cluster;
mod deployment;
mod nats;
mod postgres;
mod process;
mod proxy;
mod shipped;
mod wait;
mod wires;

pub use anvil::Anvil;
pub use blocks::{assert_complete_in_order, synthetic_block, synthetic_hash, synthetic_trace};
pub use cluster::{Broker, NatsCluster};
pub use deployment::{Deployment, DeploymentBuilder, MEMORY_MAX_MB};
pub use nats::{NatsOptions, NatsServer};
pub use postgres::Postgres;
pub use process::{Process, ProcessBuilder};
pub use proxy::Proxy;
pub use wait::{Probed, wait_for};
