//! The watchdog: notices dead, hung and slow provers, gets their tasks done elsewhere, and tells provers to
//! stop work no longer wanted.
//!
//! The watchdog keeps promise P5 (reassigned fast) and its part of P6 and P8. The watchdog is a reconciler:
//! every action follows from the newest heartbeats and from stored state, whether the process has just
//! started or run for a month. Without a watchdog no task is lost, only delayed: the broker redelivers after
//! its ack wait.

mod agenda;
pub mod config;
mod copies;
pub mod decide;
pub mod heads;
pub mod janitor;
pub mod lost;
mod metrics;
pub mod motion;
mod process;
mod reports;
pub mod reputation;
mod service;
pub mod session;
mod silence;
mod tally;
pub mod unheld;
pub mod unverified;
mod won;

pub use service::run;
