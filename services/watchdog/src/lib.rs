//! The reassignment watchdog: notices dead, hung and slow provers and gets their tasks done
//! elsewhere; tells provers to stop what nobody waits for any more.
//!
//! It promises P5 (reassigned fast) and its part of P6 and P8. It is a reconciler: what it does
//! follows from the newest heartbeats and from what is stored, whether it has just started or run
//! for a month. Without it nothing is lost, only slower: the broker's ack wait redelivers.

pub mod config;
mod copies;
pub mod decide;
mod metrics;
pub mod reputation;
mod service;
pub mod unheld;

pub use service::run;
