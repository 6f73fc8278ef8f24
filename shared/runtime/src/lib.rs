//! Process-level parts shared by every push0 service: configuration, logs and traces, metrics, health,
//! supervised tasks and an orderly stop. [`run`] is the whole body of a service's `main`.
//!
//! A service either starts completely or prints one line with the reason. Telemetry never slows or stops
//! the work, and the time for a stop is bounded. This crate knows neither the broker nor blocks, proofs
//! and provers: those belong to the services and to the other shared crates.

pub mod args;
pub mod config;
pub mod connections;
pub mod exit;
pub mod health;
pub mod http;
pub mod memory;
pub mod metrics;
pub mod service;
pub mod serving;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod trace;

pub use args::RunArgs;
pub use config::{ConfigError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
pub use exit::BoxError;
pub use health::{Component, Health, Role, UnreadableState};
pub use service::{Service, check_start, run, run_with};
pub use serving::Serving;
pub use shutdown::Shutdown;
pub use tasks::{TaskError, TaskGroup, panic_message};
