//! Real brokers, chains and services for tests.
//!
//! Every process started here listens on its own loopback port, keeps its files in its own directory, and
//! ends when the value that owns the process is dropped. If the test itself is killed, the operating system
//! ends the process (see `child`). A failure panics, and the message says how to fix the problem.
//! [`Postgres::start`] alone returns an error if the server is not installed.
//!
//! The harness speaks to the broker through `push0-bus` only, as every service does. The harness starts and
//! breaks processes; each test has its own assertions.
#![expect(
    clippy::panic,
    reason = "the harness runs inside tests, where a panic is how a failure is reported"
)]

mod accounts;
mod anvil;
mod blocks;
mod brokers;
mod child;
mod clock;
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
pub use blocks::{
    assert_complete_in_order, synthetic_block, synthetic_hash, synthetic_header, synthetic_trace,
};
pub use brokers::Brokers;
pub use cluster::{Broker, NatsCluster};
pub use deployment::{Deployment, DeploymentBuilder, MEMORY_MAX_MB};
pub use nats::{NatsOptions, NatsServer};
pub use postgres::Postgres;
pub use process::{Process, ProcessBuilder};
pub use proxy::Proxy;
pub use wait::{Probed, wait_for};
